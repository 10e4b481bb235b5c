# SPDX-License-Identifier: Apache-2.0
"""Makes the data of the benchmarks, once, and finds them again.

They go to ``$TENSORBUNDLE_BENCH_DATA``, or else to ``bench/data``, one folder per thing, named for
a hash of what it is made from. ``python -m bench.data SIZE`` makes what a size needs in advance.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench import content, sizes

_VERSION = 1
"""To be raised when a writer changes what it writes."""


def root() -> Path:
    """The folder of all data."""
    chosen = os.environ.get("TENSORBUNDLE_BENCH_DATA")
    return Path(chosen) if chosen else Path(__file__).parent / "data"


def made(kind: str, write: Callable[[Path], None], **parameters: int | str) -> Path:
    """The folder that holds what `write` writes; it is called if that was not done before."""
    identity = json.dumps({"kind": kind, "version": _VERSION, **parameters}, sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = root() / f"{kind}-{digest}"
    if folder.exists():
        return folder
    unfinished = root() / f".{kind}-{digest}.{os.getpid()}"
    unfinished.mkdir(parents=True)
    try:
        write(unfinished)
        (unfinished / "parameters.json").write_text(identity + "\n")
        # Pages that are not on the disk yet cannot be dropped from the cache.
        for path in [*unfinished.rglob("*"), unfinished]:
            _sync(path)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


PAGE = 4096
"""The offset of tables that are made to be mapped."""


def table(rows: int, dim: int = sizes.DIM, parts: int = 1) -> Path:
    """The prefix of a checkpoint with one float32 table, "table"."""
    from bench import shards

    folder = made(
        "table", lambda at: shards.write_table(at / "ckpt", rows, dim, parts),
        rows=rows, dim=dim, parts=parts,
    )  # fmt: skip
    return folder / "ckpt"


def aligned(rows: int, dim: int = sizes.DIM) -> Path:
    """The same in one part, which starts at a page's beginning."""
    from bench import shards

    folder = made(
        "aligned", lambda at: shards.write_table(at / "ckpt", rows, dim, alignment=PAGE),
        rows=rows, dim=dim,
    )  # fmt: skip
    return folder / "ckpt"


def holes(rows: int, dim: int = sizes.DIM) -> Path:
    """The same, but all rows are zeros that take no space, except the three of ``filled``."""
    from bench import shards

    folder = made(
        "holes", lambda at: shards.write_holes(at / "ckpt", rows, dim, PAGE, filled(rows)),
        rows=rows, dim=dim,
    )  # fmt: skip
    return folder / "ckpt"


def filled(rows: int) -> tuple[int, int, int]:
    """The rows of ``holes(rows)`` that are there."""
    return 0, rows // 2, rows - 1


def reshaped(rows: int, dim: int, other_dim: int) -> Path:
    """The same stored bytes under an index that gives the table rows of another length."""
    from bench import shards

    if dim == other_dim:
        return table(rows, dim)
    original = table(rows, dim)
    folder = made(
        "reshaped", lambda at: shards.write_reshaped(at / "ckpt", original, other_dim),
        rows=rows, dim=dim, other_dim=other_dim,
    )  # fmt: skip
    return folder / "ckpt"


def many(count: int) -> Path:
    """The prefix of a checkpoint with `count` small tensors."""
    from bench import shards

    return made("many", lambda at: shards.write_many(at / "ckpt", count), count=count) / "ckpt"


def pieces(count: int, rows: int, dim: int = sizes.DIM) -> Path:
    """The prefix of a checkpoint with a table cut into `count` tensors of `rows` rows each."""
    from bench import shards

    folder = made(
        "pieces", lambda at: shards.write_pieces(at / "ckpt", count, rows, dim),
        count=count, rows=rows, dim=dim,
    )  # fmt: skip
    return folder / "ckpt"


def v1(rows: int, dim: int = sizes.DIM) -> Path:
    """A V1 file with one float32 table, "table"."""
    from bench import shards

    folder = made("v1", lambda at: shards.write_v1(at / "ckpt", rows, dim), rows=rows, dim=dim)
    return folder / "ckpt"


def safetensors(rows: int, dim: int = sizes.DIM) -> Path:
    """The same table in a safetensors file."""

    def write(at: Path) -> None:
        end = rows * dim * 4
        head = {"table": {"dtype": "F32", "shape": [rows, dim], "data_offsets": [0, end]}}
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        with (at / "table.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for block in content.blocks(rows * dim):
                file.write(block.tobytes())

    return made("safetensors", write, rows=rows, dim=dim) / "table.safetensors"


def zarr(rows: int, dim: int = sizes.DIM) -> Path:
    """The same table as a Zarr 3 array: 16 MiB chunks, neither compressed nor with checksums."""

    def write(at: Path) -> None:
        import zarr

        step = min(rows, (16 << 20) // (dim * 4))
        array = zarr.create_array(
            str(at / "table.zarr"), shape=(rows, dim), chunks=(step, dim), dtype="float32",
            compressors=None, filters=None,
        )  # fmt: skip
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            array[start:stop] = content.elements(start * dim, stop * dim).reshape(-1, dim)

    return made("zarr", write, rows=rows, dim=dim) / "table.zarr"


def vocabularies(count: int) -> tuple[Path, Path]:
    """(new, old): `count` tokens each, shuffled; a tenth of the new ones are not in the old."""
    folder = made(
        "vocabularies", lambda at: _write_vocabularies(at, vocabulary_numbers(count)), count=count
    )
    return folder / "new", folder / "old"


def _write_vocabularies(at: Path, numbers: tuple[content.Array, content.Array]) -> None:
    for name, each in zip(("new", "old"), numbers, strict=True):
        with (at / name).open("wb") as file:
            file.writelines(token + b"\n" for token in content.tokens(each))


def vocabulary_numbers(count: int) -> tuple[content.Array, content.Array]:
    """The numbers of the tokens, line by line, of ``vocabularies(count)``."""
    return content.shuffled(count // 10, count, seed=2), content.shuffled(0, count, seed=1)


def grown(old: int) -> tuple[Path, Path]:
    """(new, old): the old tokens and a fifth more, shuffled; a quarter of the new ones are new."""
    folder = made("grown", lambda at: _write_vocabularies(at, grown_numbers(old)), old=old)
    return folder / "new", folder / "old"


def grown_numbers(old: int) -> tuple[content.Array, content.Array]:
    """The numbers of the tokens, line by line, of ``grown(old)``."""
    count = old * 6 // 5
    rng = np.random.default_rng(3)
    numbers = np.arange(count // 4) + old, rng.permutation(old)[: count - count // 4]
    return rng.permutation(np.concatenate(numbers)), content.shuffled(0, old, seed=1)


def main(arguments: list[str]) -> int:
    # Under pytest its settings lead to `craft`; here nobody does.
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python"))
    for size in sizes.parse(",".join(arguments) or "smoke"):
        for path in needed(size):
            print(path)
    return 0


def needed(size: sizes.Size) -> list[Path]:
    """Makes all checkpoints and vocabularies that a size needs; files of rivals come when used."""
    lengths = {*size.tensor, *size.one_row, *(length for length, _ in size.stream)}
    paths = [table(length // (4 * sizes.DIM)) for length in sorted(lengths)]
    paths += [
        pieces(sizes.PIECES, length // (4 * sizes.DIM * sizes.PIECES)) for length, _ in size.stream
    ]
    paths += [v1(length // (4 * sizes.DIM)) for length in size.v1]
    for rows in size.table_rows:
        paths += [table(rows), table(rows, parts=8)]
        paths += [reshaped(rows, sizes.DIM, row // 4) for row in size.row_bytes]
    paths += [many(count) for count in size.tensors]
    paths += [path for count in size.tokens for path in vocabularies(count)]
    for length in {*size.init, *size.init_parts}:
        paths += [table(length // (4 * sizes.DIM)), aligned(length // (4 * sizes.DIM))]
    paths += [holes(length // (4 * sizes.DIM)) for length in size.init_mapped]
    for count in size.warm:
        paths += [table(count), *grown(count)]
    return paths


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
