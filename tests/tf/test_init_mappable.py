# SPDX-License-Identifier: Apache-2.0
"""The boxes that we report as mappable before the graph is built are those that our op maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.compare import same_bits

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")

from tensorbundle.tf import op_library  # noqa: E402
from tensorbundle.tf.checkpoint_index import open_source  # noqa: E402
from tensorbundle.variables import Slice  # noqa: E402

SHAPE = (24, 16)  # rows of 64 bytes
TABLE = np.arange(24 * 16, dtype=np.float32).reshape(SHAPE)
FULL = (0, 16)
LAYOUTS = {
    "in one": [((0, 24), FULL)],
    "rows in order": [((0, 8), FULL), ((8, 10), FULL), ((18, 6), FULL)],
    "rows out of order": [((8, 10), FULL), ((0, 8), FULL), ((18, 6), FULL)],
    "columns": [((0, 24), (0, 8)), ((0, 24), (8, 8))],
    "grid": [((a, 12), (b, 8)) for a in (0, 12) for b in (0, 8)],
}
BOXES = [
    ((0, 0), (24, 16)),
    ((0, 0), (8, 16)),
    ((2, 0), (5, 16)),
    ((6, 0), (6, 16)),
    ((17, 0), (7, 16)),
    ((0, 0), (24, 8)),
    ((0, 8), (24, 8)),
    ((3, 0), (1, 8)),
    ((3, 8), (1, 8)),
    ((12, 8), (12, 8)),
    ((5, 2), (4, 3)),
]
# How many of the boxes are contiguous and begin at a multiple of 64.
MAPPABLE = {"in one": 6, "rows in order": 6, "rows out of order": 3, "columns": 3, "grid": 1}
PADS = {"together": 0, "apart": 64, "off by a word": 4}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(folder: Path, layout: str, pad: int, *, shards: int = 1, big_endian: bool = False) -> str:
    bundle = Bundle(shards, big_endian=big_endian)
    for shard in range(shards):
        bundle.pad(pad, shard=shard)
    boxes = LAYOUTS[layout]
    if len(boxes) == 1:
        bundle.add("t", TABLE)
    else:
        bundle.add_sliced("t", TABLE, boxes, shard_of=lambda i: i % shards)
    return str(bundle.write(folder / "m"))


def by_op(prefix: str, part: Slice) -> np.ndarray | None:
    """The mapped value, or None if the op raises."""
    try:
        (value,), _, _ = op_library.load_op_library().tensorbundle_map_v1(
            prefix=prefix, tensor="t", slice_specs=[part.spec], N=1, dtype=tf.float32, verify="none"
        )
    except tf.errors.InvalidArgumentError:
        return None
    return value.numpy()[:-1]


def agree(prefix: str) -> int:
    """Compares every box; returns how many could be mapped."""
    mapped = 0
    source = open_source(prefix)
    for offset, extent in BOXES:
        part = Slice("t", SHAPE, offset, extent)
        why = source.unmappable_reason("t", part)
        value = by_op(prefix, part)
        assert (why is None) == (value is not None), (offset, extent, why)
        if value is not None:
            box = tuple(slice(a, a + n) for a, n in zip(offset, extent, strict=True))
            assert same_bits(value, TABLE[box])
            mapped += 1
    return mapped


needs_op = pytest.mark.skipif(op_library.find() is None, reason="built without the op library")


@needs_op
@pytest.mark.parametrize("pad", PADS)
def test_the_op_agrees(tmp_path: Path, layout: str, pad: str) -> None:
    mapped = agree(write(tmp_path, layout, PADS[pad]))
    assert mapped == (0 if pad == "off by a word" else MAPPABLE[layout])


@needs_op
def test_slices_in_several_files_are_not_mapped(tmp_path: Path) -> None:
    agree(write(tmp_path, "rows in order", 0, shards=2))
    whole = Slice("t", SHAPE, (0, 0), SHAPE)
    why = open_source(tmp_path / "m").unmappable_reason("t", whole)
    assert why is not None
    assert "not adjacent" in why


def test_big_endian_bytes_are_not_mapped(tmp_path: Path) -> None:
    prefix = write(tmp_path, "in one", 0, big_endian=True)
    why = open_source(prefix).unmappable_reason("t", None)
    assert why is not None
    assert "big-endian" in why
    variable = tf.Variable(tf.zeros(SHAPE))
    with tb.tf.options(mode="auto"):
        tb.init_from_checkpoint(prefix, {"t": variable})
    assert same_bits(variable.numpy(), TABLE)
