# SPDX-License-Identifier: Apache-2.0
"""The examples that need TensorFlow run and print the expected comparison."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        # The table needs 100 columns.
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_warm_start_example_compares_with_tensorflow() -> None:
    done = run("warm_start.py", "--tokens", "1000", "--dim", "8", "--partitions", "3")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "TensorFlow" in line or "bundle" in line]
    assert [row.split()[1] for row in rows] == ["TensorFlow", "tensorbundle"], done.stdout
    assert "1,000 to 1,200 tokens, 3 partitions" in done.stdout
    assert "bit for bit" in done.stdout
