# SPDX-License-Identifier: Apache-2.0
"""Joining two vocabulary files: finds the line of each new token in the old file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import baseline, data
from bench.case import BASELINE, OURS, THREADS, Case, Contender, Phases, Run, tensorflow
from bench.data import Array

TOKENS = {"smoke": 16_384, "table": 4_194_304}
SMALL = 100
MISSING = 10
"""Per cent of the new tokens that are not in the old vocabulary."""
_FEW = 1_000

Join = Callable[[Path, Path, int], Any]


def test_join(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    return [_large(TOKENS[size]), _small(SMALL)] if size in TOKENS else []


@data.stored
def vocabularies(folder: Path, old: int, new: int, percent: int) -> None:
    """The files "new" and "old", with 9 to 12 characters per token; see ``_numbers``."""
    odd, low = np.uint64(0x9E3779B97F4A7C15), np.uint64((1 << 44) - 1)
    for name, numbers in zip(("new", "old"), _numbers(old, new, percent), strict=True):
        mixed = (numbers.astype(np.uint64) * odd) & low
        with (folder / name).open("wb") as file:
            file.writelines(b"t%x\n" % value for value in mixed.tolist())


def _numbers(old: int, new: int, percent: int) -> tuple[Array, Array]:
    """Draws the tokens (new, old), shuffled; `percent` of the new ones are not in the old."""
    rng, missing = np.random.default_rng(3), new * percent // 100
    kept = rng.permutation(old)[: new - missing]
    return rng.permutation(np.concatenate([np.arange(missing) + old, kept])), rng.permutation(old)


def lines(old: int, new: int, percent: int) -> Array:
    """Returns the line in the old vocabulary, or -1, for every line of the new vocabulary."""
    new_numbers, old_numbers = _numbers(old, new, percent)
    old_lines = np.full(old + new, -1)
    old_lines[old_numbers] = np.arange(old)
    result: Array = old_lines[new_numbers]
    return result


def files(count: int) -> tuple[Path, Path]:
    """Returns the new and the old vocabulary of the case."""
    folder = vocabularies(count, count, MISSING)
    return folder / "new", folder / "old"


def expected(count: int) -> Array:
    return lines(count, count, MISSING)


def with_arrow(new: Path, old: Path, _: int) -> Array:
    """Joins with pyarrow and its CSV reader."""
    from pyarrow import compute

    ids = compute.index_in(_column(new), value_set=_column(old))
    found: Array = ids.fill_null(-1).to_numpy()
    return found


def _column(path: Path) -> Any:
    import pyarrow
    from pyarrow import csv

    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(column_names=["token"]),
        parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=csv.ConvertOptions(column_types={"token": pyarrow.binary()}),
    )
    return table["token"]


def _small(count: int) -> Case:
    """The join of one feature of a model: what it costs to open files, and to start."""

    @contextmanager
    def joining(join: Join) -> Iterator[Run]:
        paths = files(count)
        yield lambda: join(*paths, count)

    def contender(name: str, join: Join, **options: Any) -> Contender:
        return Contender(name, lambda: joining(join), **options)

    return Case(
        key=f"join/small, {count} tokens",
        title=f"join two vocabulary files of {count:,} tokens, again and again",
        contenders=[
            contender("tensorbundle", _tensorbundle, role=OURS),
            contender("TensorFlow GenerateVocabRemapping", _tensorflow, needs=("tensorflow",)),
            contender("pyarrow, csv.read_csv and index_in", with_arrow, needs=("pyarrow",)),
            contender("Python dict", _dictionary),
        ],
        check=lambda result: _check(result, count),
        unit="tokens",
        amount=count,
    )


def _large(count: int) -> Case:
    def contender(name: str, join: Join, **options: Any) -> Contender:
        return Contender(name, lambda: _joining(count, join), **options)

    return Case(
        key=f"join/{count} tokens",
        title=f"join two vocabulary files of {count:,} tokens, {100 - MISSING} % in both",
        contenders=[
            contender("tensorbundle", _tensorbundle, role=OURS),
            contender("tensorbundle, 1 thread", _tensorbundle_one_thread, role=OURS),
            contender("TensorFlow GenerateVocabRemapping", _tensorflow, needs=("tensorflow",)),
            contender("pyarrow, csv.read_csv and index_in", with_arrow, needs=("pyarrow",)),
            contender("Python dict", _dictionary),
            contender("C: hash join, tokens not compared", _hash_join, role=BASELINE),
        ],
        check=lambda phases: _check(phases.result, count),
        unit="tokens",
        amount=count,
        memory=True,
        # An application joins two vocabularies once, in new memory. In repeated joins, a contender
        # that keeps freed memory would need new pages only the first time.
        fresh_process=True,
    )


def _check(result: Any, count: int) -> None:
    assert np.array_equal(np.asarray(result), expected(count))


@contextmanager
def _joining(count: int, join: Join) -> Iterator[Run]:
    """Joins once, with the files in the page cache, after a small join that loads libraries."""
    join(*files(_FEW), _FEW)
    paths = files(count)
    data.warm(paths)

    def run() -> Phases:
        phases = Phases()
        with phases.phase("joining"):
            phases.result = join(*paths, count)
        return phases

    yield run


def _tensorbundle(new: Path, old: Path, _: int) -> Array:
    tb.clear_caches()
    return tb.remap_vocab(new, old).ids


def _tensorbundle_one_thread(new: Path, old: Path, count: int) -> Array:
    tb.set_num_threads(1)
    try:
        return _tensorbundle(new, old, count)
    finally:
        tb.set_num_threads(None)


def _tensorflow(new: Path, old: Path, count: int) -> Any:
    remap = tensorflow().raw_ops.GenerateVocabRemapping
    found = remap(
        new_vocab_file=str(new), old_vocab_file=str(old), new_vocab_offset=0, num_new_vocab=count
    )
    return found.remapping


def _dictionary(new: Path, old: Path, _: int) -> list[int]:
    old_lines = {token: i for i, token in enumerate(old.read_bytes().split(b"\n")[:-1])}
    return [old_lines.get(token, -1) for token in new.read_bytes().split(b"\n")[:-1]]


def hash_join(new: Path, old: Path, new_lines: int, old_lines: int) -> Array:
    """Joins in C, with a table of eight bytes per slot and at most 0.73 used slots.

    It does not compare the tokens, but only 32 bits of their hashes and the positions in the table.
    """
    ids = np.empty(new_lines, np.int64)
    slots = 1 << (old_lines * 11 // 8).bit_length()
    texts = [np.memmap(path, np.uint8, "r") for path in (new, old)]
    return baseline.join(*texts, slots, ids, THREADS)


def _hash_join(new: Path, old: Path, count: int) -> Array:
    return hash_join(new, old, count, count)
