# SPDX-License-Identifier: Apache-2.0
"""Corrupt index tables: footer, blocks, keys. Every case raises at open."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from craft import table, wire
from craft.bundle import Bundle, index_path
from craft.specimen import place_index, specimen
from craft.table import Block, encode_block, encode_record, with_restarts

import tensorbundle as tb

HEADER = b"\x08\x01\x1a\x02\x08\x01"


def assert_fatal(prefix: Path, kind: type[Exception] = tb.CorruptionError, word: str = "") -> None:
    """Requires open to raise exactly ``kind`` with a message that names the index."""
    with pytest.raises(kind) as caught:
        tb.open(prefix)
    assert type(caught.value) is kind
    assert str(index_path(prefix)) in str(caught.value)
    assert word in str(caught.value)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """The prefix of the specimen's data, without an index."""
    specimen().write_shards(tmp_path / "c")
    return tmp_path / "c"


def valid_index() -> bytes:
    return specimen().table().encode().data


WHOLE_FILE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "47 bytes": lambda data: data[-47:],
    "half": lambda data: data[: len(data) // 2],
    "last byte missing": lambda data: data[:-1],
    "trailing byte": lambda data: data + b"\0",
    "leading byte": lambda data: b"\0" + data,
    "bad magic": lambda data: data[:-1] + b"\xdc",
    "zeros": lambda data: bytes(len(data)),
    "only a footer": lambda data: data[-48:],
    "text": lambda data: b"this is not a checkpoint\n" * 20,
}


@pytest.mark.parametrize("case", WHOLE_FILE)
def test_corrupt_file_raises_corruption_error(prefix: Path, case: str) -> None:
    assert_fatal(place_index(prefix, WHOLE_FILE[case](valid_index())))


def test_message_has_size_of_truncated_index(prefix: Path) -> None:
    assert_fatal(place_index(prefix, valid_index()[:33]), word="33")


def test_recognises_git_lfs_pointer(prefix: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    assert_fatal(place_index(prefix, pointer), word="LFS")


TOP = (1 << 64) - 1
HANDLES = {
    "offset beyond file": (10_000, 8),
    "size beyond file": (0, 10_000),
    "offset 2^64-1": (TOP, 8),
    "size 2^64-1": (0, TOP),
    "sum wraps": (TOP - 3, 10),
    "size 2^63": (0, 1 << 63),
    "8 GiB": (0, 8 << 30),
    "no room for the trailer": None,
}


@pytest.mark.parametrize("which", ["data", "metaindex", "index"])
@pytest.mark.parametrize("case", HANDLES)
def test_block_handle_out_of_file_raises_corruption_error(
    prefix: Path, which: str, case: str
) -> None:
    index = specimen().table()
    encoded = index.encode()
    pair = HANDLES[case] or (0, len(encoded.data) - 48)
    bad = table.encode_handle(*pair)
    handles = [table.encode_handle(*block) for block in encoded.blocks[-2:]]
    if which == "data":
        index.handles[0] = bad
    elif which == "metaindex":
        index.footer = table.encode_footer(bad, handles[1])
    else:
        index.footer = table.encode_footer(handles[0], bad)
    assert_fatal(place_index(prefix, index.encode().data))


@pytest.mark.parametrize("bad", [b"\x80" * 10 + b"\1", b"\xff" * 11, b"\x80", b""], ids=bytes.hex)
@pytest.mark.parametrize("which", ["data", "footer"])
def test_malformed_block_handle_raises_corruption_error(
    prefix: Path, bad: bytes, which: str
) -> None:
    index = specimen().table()
    if which == "data":
        index.handles[0] = bad
    else:
        index.footer = (bad * 4).ljust(40, b"\x80")[:40] + table.MAGIC
    assert_fatal(place_index(prefix, index.encode().data))


def test_nonzero_footer_padding_raises_corruption_error(prefix: Path) -> None:
    index = specimen().table()
    index.padding = b"\0" * 20 + b"\1"
    assert_fatal(place_index(prefix, index.encode().data))


@pytest.mark.parametrize("which", ["first", "second", "last", "metaindex", "index"])
@pytest.mark.parametrize("case", ["checksum", "type 2", "type 7", "type 255"])
def test_checks_checksum_and_type_of_every_block(prefix: Path, which: str, case: str) -> None:
    index = specimen().table(block_size=1)
    if which == "index":
        pairs = [(key, table.encode_handle(*block)) for key, block in
                 zip(index.separators, index.encode().blocks, strict=False)]  # fmt: skip
        index.index = Block(encode_block(pairs, restart_interval=1))
    block = {
        "first": index.blocks[0], "second": index.blocks[1], "last": index.blocks[-1],
        "metaindex": index.metaindex, "index": index.index,
    }[which]  # fmt: skip
    assert block is not None
    if case == "checksum":
        block.crc = 12345
    else:
        block.kind = int(case.split()[1])
    assert_fatal(
        place_index(prefix, index.encode().data), word="" if case == "checksum" else case[5:]
    )


SNAPPY_BLOCKS = {
    "garbage": b"\x30\xff\xff\xff\xff",
    "empty": b"",
    "claims 4 GiB": b"\xff\xff\xff\xff\x0f" + b"\0a",
    "claims 1 TiB": wire.varint(1 << 40) + b"\0a",
    "claims more than it holds": wire.varint(1000) + b"\0a",
    "holds more than it claims": b"\1" + b"\x04ab",
    "copy from before the start": b"\x08" + b"\x00a" + b"\x0d\x09",
    "copy at offset 0": b"\x08" + b"\x00a" + b"\x0d\x00",
    "literal beyond the end": b"\x20" + b"\x7cabc",
    "truncated long literal": b"\x20" + b"\xfc\xff\xff",
    "unterminated varint": b"\x80" * 12,
}


@pytest.mark.parametrize("case", SNAPPY_BLOCKS)
@pytest.mark.parametrize("which", [0, 1])
def test_corrupt_snappy_block_raises_corruption_error(prefix: Path, case: str, which: int) -> None:
    index = specimen().table(block_size=100, kind=table.SNAPPY)
    index.blocks[which].stored = SNAPPY_BLOCKS[case]
    assert_fatal(place_index(prefix, index.encode().data))


def _entries() -> bytes:
    """Returns three entries without a restart array: the header, "a" and "ab"."""
    entry = specimen().records()[-1][1]
    return (
        encode_record(0, b"", HEADER)
        + encode_record(0, b"a", entry)
        + encode_record(1, b"b", entry)
    )


def _raw(value: bytes) -> bytes:
    return encode_record(0, b"", HEADER) + value


BODIES: dict[str, Callable[[], bytes]] = {
    "no restart array": lambda: b"",
    "three bytes": lambda: b"\0\0\0",
    "no restarts": lambda: _entries() + bytes(4),
    "restart count beyond the block": lambda: _entries() + struct.pack("<II", 0, 5000),
    "restart count wraps": lambda: _entries() + struct.pack("<II", 0, 1 << 30),
    "restart count 2^32-1": lambda: _entries() + struct.pack("<II", 0, (1 << 32) - 1),
    "first restart is not 0": lambda: with_restarts(_entries(), [9]),
    "restarts descend": lambda: with_restarts(_entries(), [0, 30, 9]),
    "restarts repeat": lambda: with_restarts(_entries(), [0, 9, 9]),
    "restart inside an entry": lambda: with_restarts(_entries(), [0, 11]),
    "restart beyond the entries": lambda: with_restarts(_entries(), [0, 5000]),
    "restart at a shared key": lambda: with_restarts(
        _entries(), [0, len(_entries()) - len(specimen().records()[-1][1]) - 4]
    ),
    "first entry shares": lambda: with_restarts(encode_record(1, b"", HEADER), [0]),
    "shares more than there is": lambda: with_restarts(_raw(encode_record(9, b"b", b"")), [0]),
    "truncated entry": lambda: with_restarts(_entries()[:-1], [0]),
    "lengths beyond the block": lambda: with_restarts(_raw(b"\0\1\x7fa"), [0]),
    "lengths wrap 32 bits": lambda: with_restarts(
        _raw(b"\0" + wire.varint((1 << 32) - 1) + b"\2ab"), [0]
    ),
    "both lengths 2^31": lambda: with_restarts(
        _raw(b"\0" + wire.varint(1 << 31) + wire.varint(1 << 31) + b"ab"), [0]
    ),
    "length of 36 bits": lambda: with_restarts(_raw(b"\0\xff\xff\xff\xff\xff\1\0a"), [0]),
    "unterminated varint": lambda: with_restarts(_raw(b"\x80" * 12), [0]),
    "keys out of order": lambda: encode_block(
        [(b"", HEADER), (b"b", specimen().records()[-1][1]), (b"a", specimen().records()[-1][1])]
    ),
    "same key twice": lambda: with_restarts(
        _raw(encode_record(0, *specimen().records()[-1]) * 2), [0]
    ),
    "header twice": lambda: with_restarts(encode_record(0, b"", HEADER) * 2, [0]),
    "no header": lambda: encode_block(specimen().records()[1:]),
    "header is not first": lambda: encode_block([specimen().records()[-1], (b"", HEADER)]),
    "empty block": lambda: encode_block([]),
}


@pytest.mark.parametrize("case", BODIES)
@pytest.mark.parametrize("kind", [table.NONE, table.SNAPPY], ids=["plain", "snappy"])
def test_corrupt_block_raises_corruption_error(prefix: Path, case: str, kind: int) -> None:
    index = table.Table([Block(BODIES[case](), kind)], [b"\x7f"])
    assert_fatal(place_index(prefix, index.encode().data))


@pytest.mark.parametrize(
    "case", [name for name in BODIES if "header" not in name and "key" not in name]
)
def test_corrupt_index_block_raises_corruption_error(prefix: Path, case: str) -> None:
    index = dataclasses.replace(specimen().table(), index=Block(BODIES[case]()))
    assert_fatal(place_index(prefix, index.encode().data))


def _several_blocks() -> table.Table:
    index = specimen().table(block_size=70)
    assert len(index.blocks) >= 3
    return index


def _same_block_twice(index: table.Table) -> None:
    index.handles[1] = table.encode_handle(*index.encode().blocks[0])


def _overlapping(index: table.Table) -> None:
    offset, size = index.encode().blocks[1]
    index.handles[1] = table.encode_handle(offset - 1, size)


def _descending(index: table.Table) -> None:
    blocks = index.encode().blocks
    index.handles = {0: table.encode_handle(*blocks[1]), 1: table.encode_handle(*blocks[0])}


def _low_separator(index: table.Table) -> None:
    index.separators[1] = index.separators[0] + b"\0"


def _high_separator(index: table.Table) -> None:
    index.separators[0] = index.separators[1] + b"\0"


def _separator_at_next_key(index: table.Table) -> None:
    index.separators[0] = sorted(specimen().entries)[_entries_in(index.blocks[0]) - 1]


def _entries_in(block: Block) -> int:
    records = specimen().records()
    return next(n for n in range(1, len(records)) if encode_block(records[:n]) == block.body)


def _swapped_blocks(index: table.Table) -> None:
    index.blocks[0], index.blocks[1] = index.blocks[1], index.blocks[0]


ACROSS = {
    "same block twice": _same_block_twice,
    "overlapping blocks": _overlapping,
    "descending blocks": _descending,
    "separator below its block": _low_separator,
    "separators descend": _high_separator,
    "separator reaches the next block": _separator_at_next_key,
    "blocks swapped": _swapped_blocks,
}


@pytest.mark.parametrize("case", ACROSS)
def test_misordered_blocks_raise_corruption_error(prefix: Path, case: str) -> None:
    index = _several_blocks()
    ACROSS[case](index)
    assert_fatal(place_index(prefix, index.encode().data))


def test_excessive_key_expansion_raises_corruption_error(prefix: Path) -> None:
    """200,000 entries that each share a key of 60,000 bytes: 12 GB of keys in a file of 2 MB."""
    value = b"\x08\x01\x12\x00\x28\x00"
    content = encode_record(0, b"", HEADER) + encode_record(0, b"k" * 60_000, value)
    content += b"".join(encode_record(60_000, struct.pack(">I", i), value) for i in range(200_000))
    index = table.Table([Block(with_restarts(content, [0]))], [b"\x7f"])
    assert_fatal(place_index(prefix, index.encode().data))


def test_v1_table_as_index_raises_corruption_error(prefix: Path) -> None:
    bundle = Bundle()
    bundle.header = b"\x0a\x02\x12\x00"
    assert_fatal(bundle.write(prefix))
