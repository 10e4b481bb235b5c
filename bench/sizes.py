# SPDX-License-Identifier: Apache-2.0
"""How much data a run works on."""

from __future__ import annotations

from dataclasses import dataclass, field

KIB, MIB = 1 << 10, 1 << 20
DIM = 64
"""Columns of the float32 tables: rows of 256 bytes."""

PIECES = 16
"""Tensors of the checkpoints that are streamed whole."""


@dataclass(frozen=True)
class Size:
    """What the workloads of one size look like; an empty tuple leaves a workload out.

    Attributes:
        name: As on the command line.
        tensor: Bytes of the tensors that are read whole.
        one_row: Bytes of the tensors of which a single row is read.
        v1: Bytes of the tensors that are read from a V1 file.
        stream: (bytes, bytes of a chunk) of the tensors that are streamed.
        table_rows: Rows of the tables for gathers and remaps.
        ids: Rows that a gather or a remap asks for, where a row has 256 bytes.
        row_bytes: Other row sizes to gather; the bytes in all stay the same.
        tokens: Lines of each vocabulary.
        tensors: How many tensors the checkpoints have that are opened and listed.
        init: Bytes of the tables that whole variables start from.
        init_parts: Bytes of those that variables in partitions start from.
        init_mapped: Bytes of those that are mapped only, from files that are almost all holes.
        warm: Lines of the old vocabularies that models are warm-started from.
        imports: Whether the cost of importing is measured.
    """

    name: str
    tensor: tuple[int, ...] = ()
    one_row: tuple[int, ...] = ()
    v1: tuple[int, ...] = ()
    stream: tuple[tuple[int, int], ...] = ()
    table_rows: tuple[int, ...] = ()
    ids: int = 0
    row_bytes: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    tensors: tuple[int, ...] = ()
    init: tuple[int, ...] = ()
    init_parts: tuple[int, ...] = ()
    init_mapped: tuple[int, ...] = ()
    warm: tuple[int, ...] = ()
    imports: bool = field(default=False)


SIZES = {
    size.name: size
    for size in (
        Size(
            "smoke",
            tensor=(2 * MIB,),
            one_row=(2 * MIB,),
            v1=(MIB,),
            stream=((4 * MIB, MIB // 2),),
            table_rows=(16_384,),
            ids=4_000,
            row_bytes=(64, 1024),
            tokens=(16_384,),
            tensors=(10, 500),
            init=(64 * KIB,),
            init_parts=(2 * MIB,),
            init_mapped=(64 * MIB,),
            warm=(1_000,),
            imports=True,
        ),
        Size(
            "256MB",
            tensor=(256 * MIB,),
            one_row=(400 * MIB,),
            v1=(64 * MIB,),
            tensors=(10, 1_000, 40_000, 100_000),
            imports=True,
        ),
        Size("1GB", tensor=(1024 * MIB,), stream=((1024 * MIB, 16 * MIB),)),
        Size("4GB", stream=((4096 * MIB, 16 * MIB),)),
        Size(
            "table",
            table_rows=(4_194_304,),
            ids=1_000_000,
            row_bytes=(64, 1024, 4096),
            tokens=(4_194_304,),
        ),
        Size(
            "variables",
            init=(KIB, 64 * KIB, MIB, 16 * MIB, 1024 * MIB),
            init_parts=(1024 * MIB,),
            init_mapped=(40 * 1024 * MIB,),
            warm=(100_000, 1_000_000),
        ),
    )
}


def parse(text: str) -> list[Size]:
    """The sizes of a comma-separated list; ``all`` is every size but ``smoke``.

    Raises:
        ValueError: There is no such size.
    """
    names = [name for name in SIZES if name != "smoke"] if text == "all" else text.split(",")
    unknown = [name for name in names if name not in SIZES]
    if unknown:
        raise ValueError(f"no size {unknown[0]!r}; there are {', '.join(SIZES)}, and all")
    return [SIZES[name] for name in names]
