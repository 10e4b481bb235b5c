# SPDX-License-Identifier: Apache-2.0
"""Our ops raise an error of the expected class for any input, and never abort the process.

TensorFlow aborts the process if a kernel requests memory for an impossible shape.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")

SCRIPT = Path(__file__).with_name("unusual_attributes.py")

# TypeError and ValueError are raised by TensorFlow's wrapper of an op, or by its definition.
ARGUMENT = {"InvalidArgumentError", "ValueError", "TypeError"}
# The other errors are for missing files and tensors.
ALLOWED = {*ARGUMENT, "fine", "NotFoundError", "DataLossError", "UnimplementedError"}


@pytest.fixture(scope="module", params=["read", "map", "verify", "missing", "remap"])
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ops: ModuleType
) -> tuple[str, list[Any]]:
    """Runs the script; returns the op's name and the outcome of every unusual value."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), request.param, str(tmp_path_factory.mktemp("unusual"))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, json.loads(done.stdout)


def test_every_error_has_an_expected_class(
    outcomes: tuple[str, list[Any]],
) -> None:
    op, results = outcomes
    assert len(results) > 50
    extra = {"FailedPreconditionError"}  # TensorFlow's error for a directory
    if op in ("missing", "remap"):
        extra.add("OutOfRangeError")  # TensorFlow's error for an empty vocabulary
    unexpected = [each for each in results if each[3] not in ALLOWED | extra]
    assert not unexpected, unexpected[:5]


def test_valid_attributes_work_in_both_modes(outcomes: tuple[str, list[Any]]) -> None:
    _, results = outcomes
    assert [each[3] for each in results if not each[1]] == ["fine", "fine"]


def test_graph_and_eager_mode_raise_the_same_errors(outcomes: tuple[str, list[Any]]) -> None:
    _, results = outcomes
    half = len(results) // 2
    for graph, eager in zip(results[:half], results[half:], strict=True):
        assert graph[1:3] == eager[1:3]
        # A graph accepts a reference type as its base type.
        if not {graph[3], eager[3]} <= ARGUMENT and "_ref" not in graph[2]:
            assert graph[3] == eager[3], (graph, eager)


def test_path_with_nul_byte_is_rejected(outcomes: tuple[str, list[Any]]) -> None:
    _, results = outcomes
    paths = [
        each for each in results
        if each[1] in ("prefix", "new_vocab", "old_vocab") and "\\x00" in each[2]
    ]  # fmt: skip
    assert {each[3] for each in paths} == {"InvalidArgumentError"}
    assert all("NUL" in each[4] for each in paths)


def test_missing_bytes_raise_before_allocation(
    outcomes: tuple[str, list[Any]],
) -> None:
    op, results = outcomes
    if op not in ("read", "remap"):
        pytest.skip("the op allocates no tensor")
    names = ("wide",) if op == "remap" else ("f60", "i62", "s60", "wide")
    huge = [each for each in results if any(f"'{name}'" in each[2] for name in names)]
    huge = [each for each in huge if op == "read" or "shape" in each[1]]
    assert len(huge) >= 4
    assert Counter(each[3] for each in huge) == {"DataLossError": len(huge)}, huge
