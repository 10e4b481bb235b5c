# SPDX-License-Identifier: Apache-2.0
"""The boxes reported as mappable before the graph is built are the boxes that our op maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.compare import same_bits

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")

from tensorbundle.tf import op_library  # noqa: E402
from tensorbundle.tf.checkpoint_index import open_index  # noqa: E402
from tensorbundle.variables import Slice  # noqa: E402

SHAPE = (24, 16)  # rows of 64 bytes
TABLE = np.arange(24 * 16, dtype=np.float32).reshape(SHAPE)
FULL = (0, 16)
LAYOUTS = {
    "one slice": [((0, 24), FULL)],
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
# The number of boxes that are contiguous and start at a multiple of 64.
MAPPABLE = {"one slice": 6, "rows in order": 6, "rows out of order": 3, "columns": 3, "grid": 1}
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


def map_with_op(prefix: str, box: Slice) -> np.ndarray | None:
    """Returns the mapped value, or None if the op raises."""
    try:
        (value,), _, _ = op_library.load_op_library().tensorbundle_map_v1(
            prefix=prefix, tensor="t", slice_specs=[box.spec], N=1, dtype=tf.float32, verify="none"
        )
    except tf.errors.InvalidArgumentError:
        return None
    return value.numpy()[:-1]


def compare_boxes(prefix: str) -> int:
    """Compares the report with the op for every box; returns the number of mapped boxes."""
    mapped = 0
    source = open_index(prefix)
    for offset, shape in BOXES:
        box = Slice("t", SHAPE, offset, shape)
        reason = source.unmappable_reason("t", box)
        value = map_with_op(prefix, box)
        assert (reason is None) == (value is not None), (offset, shape, reason)
        if value is not None:
            index = tuple(slice(a, a + n) for a, n in zip(offset, shape, strict=True))
            assert same_bits(value, TABLE[index])
            mapped += 1
    return mapped


needs_op = pytest.mark.skipif(op_library.find() is None, reason="built without the op library")


@needs_op
@pytest.mark.parametrize("pad", PADS)
def test_op_maps_exactly_the_reported_boxes(tmp_path: Path, layout: str, pad: str) -> None:
    mapped = compare_boxes(write(tmp_path, layout, PADS[pad]))
    assert mapped == (0 if pad == "off by a word" else MAPPABLE[layout])


@needs_op
def test_slices_in_several_files_are_not_mapped(tmp_path: Path) -> None:
    compare_boxes(write(tmp_path, "rows in order", 0, shards=2))
    whole = Slice("t", SHAPE, (0, 0), SHAPE)
    reason = open_index(tmp_path / "m").unmappable_reason("t", whole)
    assert reason is not None
    assert "not adjacent" in reason


def test_big_endian_bytes_are_not_mapped(tmp_path: Path) -> None:
    prefix = write(tmp_path, "one slice", 0, big_endian=True)
    reason = open_index(prefix).unmappable_reason("t", None)
    assert reason is not None
    assert "big-endian" in reason
    variable = tf.Variable(tf.zeros(SHAPE))
    with tb.tf.options(mode="auto"):
        tb.init_from_checkpoint(prefix, {"t": variable})
    assert same_bits(variable.numpy(), TABLE)
