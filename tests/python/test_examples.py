# SPDX-License-Identifier: Apache-2.0
"""examples/diff_in_ci.py and examples/average.py run, and set their exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tensorbundle as tb

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A directory of three checkpoints and a state file."""
    for step in (1, 2, 3):
        weights = np.full((4, 2), step, np.float32)
        tb.save(tmp_path / f"model.ckpt-{step}", {"w": weights, "global_step": np.int64(step)})
    names = [f"model.ckpt-{step}" for step in (1, 2, 3)]
    lines = [f'model_checkpoint_path: "{names[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
    (tmp_path / "checkpoint").write_text("\n".join(lines))
    return tmp_path


def test_diff_in_ci(training: Path) -> None:
    first, second = training / "model.ckpt-1", training / "model.ckpt-2"
    same = run("diff_in_ci.py", first, first)
    assert (same.returncode, same.stdout, same.stderr) == (0, "same: 2 tensors\n", "")
    changed = run("diff_in_ci.py", first, second)
    assert changed.returncode == 1
    assert changed.stdout.startswith("different: 2 changed, 0 unchanged\n")
    ignored = run("diff_in_ci.py", first, second, "--atol", "1", "--ignore", "^global_step$")
    assert ignored.returncode == 0
    assert run("diff_in_ci.py", first, second, "--ignore", "^global_step$").returncode == 1
    absent = run("diff_in_ci.py", first, training / "absent")
    assert (absent.returncode, absent.stderr.count("\n")) == (2, 1)


def test_average(training: Path) -> None:
    done = run("average.py", training, training / "mean", "--last", "2", "--decay", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 tensor averaged from 2 checkpoints" in done.stdout
    assert "0.667" in done.stdout
    with tb.open(training / "mean") as ck:
        assert np.allclose(ck["w"], (0.5 * 2 + 3) / 1.5)
        assert ck["global_step"].item() == 3
    again = run("average.py", training, training / "mean")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert run("average.py", training / "absent", training / "m").returncode == 2
