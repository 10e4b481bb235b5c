# SPDX-License-Identifier: Apache-2.0
"""For any input our ops fail with an error of the right class, and the process survives.

TensorFlow ends the process where a kernel asks it for memory of a shape that cannot be.
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

# TypeError and ValueError are TensorFlow's own, from the wrapper of an op or from its definition.
ARGUMENT = {"InvalidArgumentError", "ValueError", "TypeError"}
# Errors of the files that an attribute names: missing, or not stored.
ALLOWED = {*ARGUMENT, "fine", "NotFoundError", "DataLossError", "UnimplementedError"}


@pytest.fixture(scope="module", params=["read", "map", "verify", "missing", "remap"])
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ops: ModuleType
) -> tuple[str, list[Any]]:
    """An op's name, and its outcome for every unusual value."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), request.param, str(tmp_path_factory.mktemp("odd"))],
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
    op, found = outcomes
    assert len(found) > 50
    extra = {"FailedPreconditionError"}  # A directory for a file, as TensorFlow says it.
    if op in ("missing", "remap"):
        extra.add("OutOfRangeError")  # No lines, as TensorFlow says it.
    wrong = [each for each in found if each[3] not in ALLOWED | extra]
    assert not wrong, wrong[:5]


def test_valid_attributes_work_in_both_modes(outcomes: tuple[str, list[Any]]) -> None:
    _, found = outcomes
    assert [each[3] for each in found if not each[1]] == ["fine", "fine"]


def test_graphs_and_eager_mode_give_the_same_errors(outcomes: tuple[str, list[Any]]) -> None:
    _, found = outcomes
    half = len(found) // 2
    for graph, eager in zip(found[:half], found[half:], strict=True):
        assert graph[1:3] == eager[1:3]
        # A graph takes the type of a reference for that of its values.
        if not {graph[3], eager[3]} <= ARGUMENT and "_ref" not in graph[2]:
            assert graph[3] == eager[3], (graph, eager)


def test_a_nul_byte_never_truncates_a_path(outcomes: tuple[str, list[Any]]) -> None:
    _, found = outcomes
    paths = [
        each for each in found
        if each[1] in ("prefix", "new_vocab", "old_vocab") and "\\x00" in each[2]
    ]  # fmt: skip
    assert {each[3] for each in paths} == {"InvalidArgumentError"}
    assert all("NUL" in each[4] for each in paths)


def test_missing_bytes_are_corruption_and_allocate_no_memory(
    outcomes: tuple[str, list[Any]],
) -> None:
    op, found = outcomes
    if op not in ("read", "remap"):
        pytest.skip("the op allocates no tensor")
    named = ("wide",) if op == "remap" else ("f60", "i62", "s60", "wide")
    huge = [each for each in found if any(f"'{name}'" in each[2] for name in named)]
    huge = [each for each in huge if op == "read" or "shape" in each[1]]
    assert len(huge) >= 4
    assert Counter(each[3] for each in huge) == {"DataLossError": len(huge)}, huge
