# SPDX-License-Identifier: Apache-2.0
"""Writes LevelDB-style tables. Tests may replace every part by invalid content."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cramjam

from craft.checksum import masked_crc
from craft.wire import varint

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_SIZE = 48
TRAILER_SIZE = 5
BLOCK_SIZE = 262144
NONE, SNAPPY = 0, 1

Record = tuple[bytes, bytes]


def encode_record(shared: int, delta: bytes, value: bytes) -> bytes:
    """Encodes one entry: the shared prefix length, the rest of the key, and the value."""
    return varint(shared) + varint(len(delta)) + varint(len(value)) + delta + value


def with_restarts(content: bytes, restarts: Sequence[int]) -> bytes:
    """Returns a block of encoded records with the given restart array."""
    return content + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def encode_block(
    records: Iterable[Record], *, restart_interval: int = 16, share: bool = True
) -> bytes:
    """Encodes a block with prefix compression; ``share=False`` writes every key in full."""
    content = bytearray()
    restarts = [0]
    previous = b""
    for count, (key, value) in enumerate(records):
        shared = 0
        if count % restart_interval == 0:
            if count:
                restarts.append(len(content))
        elif share:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        content += encode_record(shared, key[shared:], value)
        previous = key
    return with_restarts(bytes(content), restarts)


def separator(last: bytes, following: bytes | None) -> bytes:
    """Returns a short key in [``last``, ``following``); None means no upper bound."""
    if following is None:
        for at, byte in enumerate(last):
            if byte != 0xFF:
                return last[:at] + bytes([byte + 1])
        return last
    at = 0
    while at < min(len(last), len(following)) and last[at] == following[at]:
        at += 1
    if at < min(len(last), len(following)) and last[at] + 1 < following[at]:
        return last[:at] + bytes([last[at] + 1])
    return last


@dataclass
class Block:
    """A block before its trailer is computed.

    Attributes:
        body: The content, uncompressed.
        kind: The type byte; 1 compresses with Snappy.
        stored: The bytes to store, instead of ``body`` encoded as ``kind``.
        crc: A masked checksum to store instead of the correct one.
    """

    body: bytes
    kind: int = NONE
    stored: bytes | None = None
    crc: int | None = None

    def seal(self) -> tuple[bytes, bytes]:
        """Returns the stored bytes and the trailer."""
        stored = self.stored
        if stored is None:
            stored = self.body
            if self.kind == SNAPPY:
                stored = bytes(cramjam.snappy.compress_raw(self.body))
        crc = masked_crc(stored + bytes([self.kind])) if self.crc is None else self.crc
        return stored, struct.pack("<BI", self.kind, crc)


def encode_handle(offset: int, size: int) -> bytes:
    return varint(offset) + varint(size)


def encode_footer(metaindex: bytes, index: bytes, *, padding: bytes = b"") -> bytes:
    """Returns the last 48 bytes, from two encoded handles."""
    return (metaindex + index + padding).ljust(40, b"\0") + MAGIC


@dataclass
class Encoded:
    """A finished table.

    Attributes:
        data: The file.
        blocks: (offset, size) of every block in file order, without trailers; the index is last.
    """

    data: bytes
    blocks: list[tuple[int, int]]

    def resealed(self, data: bytearray) -> bytes:
        """Returns ``data``, a changed copy of the file, with the block checksums recomputed."""
        for offset, size in self.blocks:
            end = offset + size + 1
            struct.pack_into("<I", data, end, masked_crc(data[offset:end]))
        return bytes(data)


@dataclass
class Table:
    """A table whose parts can be changed before it is encoded.

    Attributes:
        blocks: The data blocks.
        separators: The key of each data block in the index block.
        metaindex: The metaindex block.
        handles: Values of the index block that replace the correct handles, by block.
        index: The index block, instead of one built from ``separators`` and handles.
        footer: The footer, instead of the correct one.
        padding: Bytes after the handles in the footer.
    """

    blocks: list[Block]
    separators: list[bytes]
    metaindex: Block = field(default_factory=lambda: Block(encode_block([])))
    handles: dict[int, bytes] = field(default_factory=dict)
    index: Block | None = None
    footer: bytes | None = None
    padding: bytes = b""

    def encode(self) -> Encoded:
        data = bytearray()
        written: list[tuple[int, int]] = []

        def append(block: Block) -> bytes:
            stored, trailer = block.seal()
            written.append((len(data), len(stored)))
            data.extend(stored + trailer)
            return encode_handle(*written[-1])

        true_handles = [append(block) for block in self.blocks]
        values = [self.handles.get(i, handle) for i, handle in enumerate(true_handles)]
        metaindex = append(self.metaindex)
        index = self.index
        if index is None:
            pairs = zip(self.separators, values, strict=True)
            index = Block(encode_block(pairs, restart_interval=1))
        footer = encode_footer(metaindex, append(index), padding=self.padding)
        data.extend(footer if self.footer is None else self.footer)
        return Encoded(bytes(data), written)


def build(
    records: Sequence[Record],
    *,
    block_size: int = BLOCK_SIZE,
    restart_interval: int = 16,
    kind: int = NONE,
) -> Table:
    """Builds a correct table from sorted records.

    Args:
        records: (key, value) pairs.
        block_size: A block ends as soon as its content reaches this size.
        restart_interval: The number of entries per restart.
        kind: The type of the data blocks.
    """
    groups: list[list[Record]] = [[]]
    size = 0
    for record in records:
        if size >= block_size:
            groups.append([])
            size = 0
        groups[-1].append(record)
        size += len(record[0]) + len(record[1]) + 3
    followers = [group[0][0] for group in groups[1:]] + [None]
    return Table(
        blocks=[Block(encode_block(g, restart_interval=restart_interval), kind) for g in groups],
        separators=[
            separator(g[-1][0] if g else b"", nxt) for g, nxt in zip(groups, followers, strict=True)
        ],
    )
