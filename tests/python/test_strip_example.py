# SPDX-License-Identifier: Apache-2.0
"""examples/strip_and_rename.py runs on a checkpoint that TensorFlow wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
from craft.compare import same_bits

import tensorbundle as tb

EXAMPLE = Path(__file__).parents[2] / "examples" / "strip_and_rename.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_checkpoint_is_stripped_renamed_and_cast(tmp_path: Path, checkpoints: Path) -> None:
    source = checkpoints / "mnist_tf1" / "model.ckpt-46900"
    result = run(source, tmp_path / "out", "^conv2d=conv", "/kernel$=/weight")
    assert result.returncode == 0, result.stderr
    assert "8 tensors kept, 19 dropped" in result.stdout
    before, after = tb.load(source), tb.load(tmp_path / "out")
    assert set(after) == {
        f"{layer}/{part}"
        for layer in ("conv", "conv_1", "dense", "dense_1")
        for part in ("weight", "bias")
    }
    expected = before["conv2d_1/kernel"].astype(ml_dtypes.bfloat16)
    assert same_bits(after["conv_1/weight"], np.ascontiguousarray(expected))


def test_problems_are_printed(tmp_path: Path, checkpoints: Path) -> None:
    source = checkpoints / "mnist_tf1" / "model.ckpt-46900"
    result = run(source, tmp_path / "out", "^.*/=same/")
    assert result.returncode == 2
    assert "tensors would be named 'same/kernel'" in result.stderr
    assert not list(tmp_path.iterdir())
    assert run(source).returncode == 2
