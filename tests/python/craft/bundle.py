# SPDX-License-Identifier: Apache-2.0
"""Writes V2 checkpoints: an index and its data shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from craft import table
from craft.checksum import masked_crc
from craft.dtypes import STRING, VARIANT, number_of, stored_bytes, swapped
from craft.messages import BundleEntry, BundleHeader
from craft.ordered_code import Spec, slice_key
from craft.strings import encode_strings, encode_variants
from craft.tilings import slices

BIG = 1


def as_key(name: str | bytes) -> bytes:
    return name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name


def fill_slice(message: Any, spec: Spec) -> None:
    """Writes one extent per axis. A full axis is an empty extent; a start of 0 is omitted."""
    for pair in spec:
        extent = message.extent.add()
        if pair is not None:
            extent.start, extent.length = pair


class Bundle:
    """A V2 checkpoint in memory. Tests may change its entries before ``write``.

    Attributes:
        header: The header message, or the bytes to store.
        entries: The entry messages by key, or the bytes to store.
        shards: The contents of the data files.
    """

    def __init__(self, num_shards: int = 1, *, big_endian: bool = False) -> None:
        self.header: Any = BundleHeader(num_shards=num_shards, version={"producer": 1})
        if big_endian:
            self.header.endianness = BIG
        self.big_endian = big_endian
        self.entries: dict[bytes, Any] = {}
        self.shards = [bytearray() for _ in range(num_shards)]

    def add_payload(
        self,
        name: str | bytes,
        number: int,
        shape: Sequence[int],
        payload: bytes,
        *,
        crc: int | None = None,
        shard: int = 0,
    ) -> Any:
        """Stores ``payload`` under ``name`` and returns its entry."""
        entry = BundleEntry(dtype=number, shard_id=shard, size=len(payload))
        entry.offset = len(self.shards[shard])
        entry.shape.SetInParent()
        for size in shape:
            entry.shape.dim.add(size=size)
        entry.crc32c = masked_crc(payload) if crc is None else crc
        self.shards[shard] += payload
        self.entries[as_key(name)] = entry
        return entry

    def add(
        self, name: str | bytes, array: Any, *, number: int | None = None, shard: int = 0
    ) -> Any:
        """Stores a fixed-size array; ``number`` overrides the dtype number of the array."""
        array = np.asarray(array)
        number = number_of(array.dtype) if number is None else number
        payload = stored_bytes(np.ascontiguousarray(array), number)
        if self.big_endian:
            payload = swapped(payload, array.dtype)
        return self.add_payload(name, number, array.shape, payload, shard=shard)

    def add_strings(
        self, name: str | bytes, values: Sequence[bytes], shape: Sequence[int], *, shard: int = 0
    ) -> Any:
        payload, crc = encode_strings(values, big_endian=self.big_endian)
        return self.add_payload(name, STRING, shape, payload, crc=crc, shard=shard)

    def add_variants(self, name: str | bytes, values: Sequence[bytes], shape: Sequence[int]) -> Any:
        payload, crc = encode_variants(values)
        return self.add_payload(name, VARIANT, shape, payload, crc=crc)

    def add_full(
        self, name: str | bytes, number: int, shape: Sequence[int], specs: Sequence[Spec]
    ) -> Any:
        """Adds the entry of a sliced tensor, without its stored slices."""
        entry = BundleEntry(dtype=number)
        entry.shape.SetInParent()
        for size in shape:
            entry.shape.dim.add(size=size)
        for spec in specs:
            fill_slice(entry.slices.add(), spec)
        self.entries[as_key(name)] = entry
        return entry

    def add_sliced(
        self,
        name: str | bytes,
        array: Any,
        boxes: Sequence[tuple[tuple[int, int], ...]],
        *,
        number: int | None = None,
        shard_of: Callable[[int], int] = lambda index: 0,
        short: bool = False,
    ) -> Any:
        """Stores ``array`` as one stored slice per box, in the order of ``boxes``.

        Args:
            name: The tensor's name.
            array: The whole tensor.
            boxes: (start, length) per axis of every stored slice.
            number: The dtype number, if it differs from that of the array.
            shard_of: Maps a position in ``boxes`` to a shard.
            short: Write an axis that a box spans as a full extent.
        """
        array = np.asarray(array)
        number = number_of(array.dtype) if number is None else number
        specs: list[Spec] = []
        for index, box in enumerate(boxes):
            whole = [short and pair == (0, n) for pair, n in zip(box, array.shape, strict=True)]
            spec = [None if full else pair for full, pair in zip(whole, box, strict=True)]
            specs.append(spec)
            key = slice_key(as_key(name), spec)
            self.add(key, array[slices(box)], number=number, shard=shard_of(index))
        return self.add_full(name, number, array.shape, specs)

    def pad(self, count: int, *, shard: int = 0) -> None:
        """Appends ``count`` zero bytes to a shard."""
        self.shards[shard] += bytes(count)

    def records(self) -> list[table.Record]:
        def raw(value: Any) -> bytes:
            return value if isinstance(value, bytes) else value.SerializeToString()

        pairs = sorted((key, raw(entry)) for key, entry in self.entries.items())
        return [(b"", raw(self.header)), *pairs]

    def table(self, **options: Any) -> table.Table:
        """Returns the index as a table. The options are those of ``table.build``."""
        return table.build(self.records(), **options)

    def write_shards(self, prefix: Path) -> None:
        count = len(self.shards)
        for number, content in enumerate(self.shards):
            shard_path(prefix, number, count).write_bytes(content)

    def write(self, prefix: Path, **options: Any) -> Path:
        """Writes the checkpoint and returns its prefix."""
        self.write_shards(prefix)
        index_path(prefix).write_bytes(self.table(**options).encode().data)
        return prefix


def index_path(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def shard_path(prefix: Path, shard: int = 0, count: int = 1) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{count:05d}")


def write_tensors(path: Path, tensors: dict[str, Any], **options: Any) -> Path:
    """Writes a checkpoint of arrays, and of lists of strings."""
    bundle = Bundle(**options)
    for name, value in tensors.items():
        if isinstance(value, list):
            bundle.add_strings(name, value, (len(value),))
        else:
            bundle.add(name, value)
    return bundle.write(path)
