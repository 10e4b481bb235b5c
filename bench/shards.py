# SPDX-License-Identifier: Apache-2.0
"""Writes large V2 checkpoints piece by piece, through the tests' own writer of indexes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from craft import wire
from craft.bundle import Bundle, index_path, shard_path
from craft.checksum import mask
from craft.dtypes import number_of
from craft.messages import BundleEntry
from craft.ordered_code import slice_key
from craft.tilings import cut
from craft.v1 import V1File

from bench import content

FLOAT = number_of(np.dtype(np.float32))
_STEP = np.array(1000, np.int64)


class StreamedBundle(Bundle):
    """A checkpoint whose large tensors go to their data files at once."""

    def __init__(self, prefix: Path, num_shards: int = 1) -> None:
        super().__init__(num_shards)
        self.prefix = prefix
        self._files = [shard_path(prefix, i, num_shards).open("wb") for i in range(num_shards)]

    def add_blocks(
        self, key: str | bytes, shape: Sequence[int], blocks: Iterable[Any], *, shard: int = 0
    ) -> Any:
        """Stores a float32 tensor, or one slice of it, given as arrays that follow each other.

        Returns its entry.
        """
        name = key if isinstance(key, bytes) else key.encode()
        file = self._files[shard]
        entry = BundleEntry(dtype=FLOAT, shard_id=shard, offset=file.tell())
        entry.shape.SetInParent()
        for size in shape:
            entry.shape.dim.add(size=size)
        crc = 0
        for block in blocks:
            data = block.tobytes()
            crc = google_crc32c.extend(crc, data)
            file.write(data)
        entry.size = file.tell() - entry.offset
        entry.crc32c = mask(crc)
        self.entries[name] = entry
        return entry

    def add_step(self) -> None:
        """Stores what Estimator puts before everything else; the tables then start at byte 8."""
        entry = self.add("global_step", _STEP)
        self._files[entry.shard_id].write(_STEP.tobytes())

    def align(self, alignment: int, shard: int = 0) -> None:
        """Leaves a hole, so that what comes next starts at a multiple of `alignment`."""
        self._files[shard].seek(-self._files[shard].tell() % alignment, os.SEEK_CUR)

    def finish(self) -> None:
        """Closes the data files and writes the index."""
        for file in self._files:
            file.close()
        index_path(self.prefix).write_bytes(self.table().encode().data)


def write_table(prefix: Path, rows: int, dim: int, parts: int = 1, alignment: int = 8) -> None:
    """A float32 table called "table", in `parts` row partitions with a data file each.

    The first partition starts at `alignment`, the others at the beginning of their files.
    """
    bundle = StreamedBundle(prefix, parts)
    bundle.add_step()
    bundle.align(alignment)
    if parts == 1:
        entry = bundle.add_blocks("table", (rows, dim), content.blocks(rows * dim))
        _entry_path(prefix).write_bytes(entry.SerializeToString())
    else:
        boxes = cut((rows, dim), 0, [rows // parts] * parts)
        for shard, box in enumerate(boxes):
            start, count = box[0]
            blocks = (
                content.elements(at, min(at + content.BLOCK, (start + count) * dim))
                for at in range(start * dim, (start + count) * dim, content.BLOCK)
            )
            bundle.add_blocks(slice_key(b"table", box), (count, dim), blocks, shard=shard)
        bundle.add_full("table", FLOAT, (rows, dim), boxes)
    bundle.finish()


def write_holes(prefix: Path, rows: int, dim: int, alignment: int, filled: Sequence[int]) -> None:
    """A float32 table called "table" that is a hole in its file but for the rows `filled`.

    Its checksum is not that of its bytes: nobody is to read them all.
    """
    bundle = StreamedBundle(prefix)
    bundle.add_step()
    bundle.align(alignment)
    entry = bundle.add_blocks("table", (rows, dim), [])
    entry.size = rows * dim * 4
    bundle.finish()
    with shard_path(prefix).open("r+b") as file:
        file.truncate(entry.offset + entry.size)
        for row in filled:
            file.seek(entry.offset + row * dim * 4)
            file.write(content.rows(np.array([row]), dim).tobytes())


def write_reshaped(prefix: Path, original: Path, dim: int) -> None:
    """A second index over the data of ``write_table``, with rows of another length."""
    os.link(shard_path(original), shard_path(prefix))
    bundle = Bundle()
    bundle.add("global_step", _STEP)
    entry = BundleEntry.FromString(_entry_path(original).read_bytes())
    count = entry.size // 4
    del entry.shape.dim[:]
    for size in (count // dim, dim):
        entry.shape.dim.add(size=size)
    bundle.entries[b"table"] = entry
    index_path(prefix).write_bytes(bundle.table().encode().data)


def _entry_path(prefix: Path) -> Path:
    return prefix.with_name("entry")


def write_many(prefix: Path, count: int) -> None:
    """`count` small tensors with names as deep models have them."""
    bundle = Bundle()
    for i in range(count):
        name = f"model/block_{i // 100:04d}/layer_{i % 100:02d}/kernel"
        bundle.add(name, np.full((4, 2 + i % 7), i, np.float32))
    bundle.write(prefix)


def write_pieces(prefix: Path, count: int, rows: int, dim: int) -> None:
    """A table cut into `count` tensors of `rows` rows each, "piece_00" and so on."""
    bundle = StreamedBundle(prefix)
    for i in range(count):
        block = content.elements(i * rows * dim, (i + 1) * rows * dim)
        bundle.add_blocks(f"piece_{i:02d}", (rows, dim), [block])
    bundle.finish()


def write_v1(path: Path, rows: int, dim: int) -> None:
    """A float32 table called "table" in a V1 file."""
    file = V1File()
    file.declare("table", FLOAT, (rows, dim), [[None, None]])
    # The packed field of floats, written as it lies in memory.
    file.add_record("table", [None, None], wire.bytes_field(5, _all(rows * dim)))
    file.write(path)


def _all(count: int) -> bytes:
    return b"".join(block.tobytes() for block in content.blocks(count))
