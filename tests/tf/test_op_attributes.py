# SPDX-License-Identifier: Apache-2.0
"""Whatever our ops are given, they answer with an error of the right class, and the process lives.

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

SCRIPT = Path(__file__).with_name("odd_attributes.py")

# TypeError and ValueError are TensorFlow's own, from the wrapper of an op or from its definition.
ARGUMENT = {"InvalidArgumentError", "ValueError", "TypeError"}
# What is no fault of an attribute: what it names is not there, or is not stored.
ALLOWED = {*ARGUMENT, "fine", "NotFoundError", "DataLossError", "UnimplementedError"}


@pytest.fixture(scope="module", params=["read", "map", "verify", "missing", "remap"])
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ops: ModuleType
) -> tuple[str, list[Any]]:
    """An op's name, and what it answered to every odd value."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), request.param, str(tmp_path_factory.mktemp("odd"))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, json.loads(done.stdout)


def test_every_answer_is_of_a_class_that_says_whose_fault_it_is(
    outcomes: tuple[str, list[Any]],
) -> None:
    op, found = outcomes
    assert len(found) > 50
    extra = {"FailedPreconditionError"}  # A directory for a file, as TensorFlow says it.
    if op in ("missing", "remap"):
        extra.add("OutOfRangeError")  # No lines, as TensorFlow says it.
    wrong = [each for each in found if each[3] not in ALLOWED | extra]
    assert not wrong, wrong[:5]


def test_the_right_attributes_are_fine_in_both_modes(outcomes: tuple[str, list[Any]]) -> None:
    _, found = outcomes
    assert [each[3] for each in found if not each[1]] == ["fine", "fine"]


def test_graphs_and_eager_mode_answer_alike(outcomes: tuple[str, list[Any]]) -> None:
    _, found = outcomes
    half = len(found) // 2
    for graph, eager in zip(found[:half], found[half:], strict=True):
        assert graph[1:3] == eager[1:3]
        # A graph takes the type of a reference for that of its values.
        if not {graph[3], eager[3]} <= ARGUMENT and "_ref" not in graph[2]:
            assert graph[3] == eager[3], (graph, eager)


def test_a_nul_byte_never_ends_a_path(outcomes: tuple[str, list[Any]]) -> None:
    _, found = outcomes
    paths = [
        each for each in found
        if each[1] in ("prefix", "new_vocab", "old_vocab") and "\\x00" in each[2]
    ]  # fmt: skip
    assert {each[3] for each in paths} == {"InvalidArgumentError"}
    assert all("NUL" in each[4] for each in paths)


def test_what_is_not_stored_is_damage_and_no_request_for_memory(
    outcomes: tuple[str, list[Any]],
) -> None:
    op, found = outcomes
    if op not in ("read", "remap"):
        pytest.skip("it takes no memory for a tensor")
    named = ("wide",) if op == "remap" else ("f60", "i62", "s60", "wide")
    huge = [each for each in found if any(f"'{name}'" in each[2] for name in named)]
    huge = [each for each in huge if op == "read" or "shape" in each[1]]
    assert len(huge) >= 4
    assert Counter(each[3] for each in huge) == {"DataLossError": len(huge)}, huge
