# SPDX-License-Identifier: Apache-2.0
"""The typed program of a user runs, and mypy accepts it if it is installed.

`nox -s typing` also runs pyright, and a program with mistakes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "typing"
PROGRAM = FOLDER / "user_program.py"


def test_user_program_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(PROGRAM), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[('step', []), ('table', [10, 4])]" in done.stdout


@pytest.mark.slow
def test_mypy_accepts_user_program(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", PROGRAM.name]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
