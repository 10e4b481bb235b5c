# SPDX-License-Identifier: Apache-2.0
"""The checkpoint of a load plan: its tensors, and what can be mapped."""

from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle

import tensorbundle as tb
from tensorbundle.filenames import is_remote
from tensorbundle.load_plan import Stored
from tensorbundle.load_source import LoadSource, LocalSource
from tensorbundle.variables import Slice

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
TABLE = np.arange(64 * 16, dtype=np.float32).reshape(64, 16)


@pytest.fixture
def source(tmp_path):
    """A checkpoint whose tables begin at the offsets 0 and 4096 + 4 of one file."""
    bundle = Bundle()
    bundle.add("a", TABLE)
    bundle.add("b", np.float32(1))
    bundle.add("c", TABLE)
    bundle.add_strings("d", [b"x"], [1])
    bundle.add("e", np.zeros((0, 3), np.float32))
    path = bundle.write(tmp_path / "m")
    opened = LocalSource("m", tb.open(path, verify="none"))
    yield opened
    opened.close()


def test_finds_tensors(source):
    assert source.find("a") == Stored("a", (64, 16), 1)
    assert source.find("x") is None and source.find(b"a") is None
    assert source.names() == ["a", "b", "c", "d", "e"]
    assert source.shape_of("b") == () and source.shape_of("x") is None
    assert source.unused(["a", "c"]) == ("b", "d", "e")
    assert source.absent is None and not source.is_remote


def test_says_what_cannot_be_mapped(source):
    assert source.unmappable_reason("a", None) is None
    assert source.unmappable_reason("a", Slice("a", (64, 16), (4, 0), (2, 16))) is None
    columns = source.unmappable_reason("a", Slice("a", (64, 16), (0, 4), (64, 2)))
    assert columns is not None and "align" not in columns
    assert "offset 4100 of" in source.unmappable_reason("c", None)


def test_says_what_is_always_copied(source):
    assert source.is_always_copied("b", ())
    assert source.is_always_copied("d", (1,))
    assert source.is_always_copied("e", (0, 3)) and source.is_always_copied("a", (0, 16))
    assert not source.is_always_copied("a", (64, 16))


def test_detects_object_based_checkpoints():
    found = []
    for index in [DATA / "mnist_tf1", *sorted(DATA.glob("*/*.index"))]:
        with tb.open(index) as checkpoint:
            expected = "_CHECKPOINTABLE_OBJECT_GRAPH" in checkpoint
            assert LocalSource("c", checkpoint).is_object_based() == expected
            found.append(expected)
    assert any(found) and not found[0]


def test_checkpoint_that_does_not_exist():
    absent = LoadSource("m", b"m", tb.CheckpointNotFoundError("m"))
    assert absent.find("a") is None and absent.names() == () and absent.unused(["a"]) == ()
    assert not absent.is_object_based() and not absent.is_always_copied("a", (1,))
    assert "not on a local file system" in absent.unmappable_reason("a", None)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("ram://a", True), (b"gs://a/b", True), (Path("a/b"), False), ("a:/b", False),
        ("file://host/a", False), ("FILE:///a", False), (3, False), (None, False),
    ],
)  # fmt: skip
def test_remote_paths(path, expected):
    assert is_remote(path) is expected
