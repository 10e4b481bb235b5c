# SPDX-License-Identifier: Apache-2.0
"""Joining two vocabulary files: where in the old one each token of the new one is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import ceiling, data, page_cache, rivals
from bench.case import FLOOR, OURS, Case, Contender, Run
from bench.content import Array
from bench.fresh import Report
from bench.sizes import Size

THREADS = len(os.sched_getaffinity(0))
_FEW = 1_000

Join = Callable[[Path, Path, int], Any]


def test_join(entry: Any, duel: Callable[[Any], None]) -> None:
    duel(entry)


def cases(size: Size) -> list[Case]:
    return [_case(count) for count in size.tokens]


def expected(count: int) -> Array:
    """The line in the old vocabulary, or -1."""
    new, old = data.vocabulary_numbers(count)
    where = np.full(count + count // 10, -1)
    where[old] = np.arange(count)
    return where[new]


def with_arrow(new: Path, old: Path) -> Array:
    """The join as pyarrow does it, reader included."""
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


def _case(count: int) -> Case:
    def contender(name: str, join: Join, **options: Any) -> Contender:
        return Contender(name, lambda: _joining(count, join), **options)

    calls = ("remap_vocab", "clear_caches", "set_num_threads")
    return Case(
        key=f"join/{count} tokens",
        title=f"join two vocabulary files of {count:,} tokens, 90 % in both",
        contenders=[
            contender("tensorbundle", _ours, role=OURS, api=calls),
            contender("tensorbundle, 1 thread", _ours_alone, role=OURS, api=calls),
            contender("TensorFlow GenerateVocabRemapping", _tensorflow, needs=("tensorflow",)),
            contender("pyarrow, csv.read_csv and index_in", _arrow, needs=("pyarrow",)),
            contender("Python dict", _dictionary),
            contender("C: read, find lines, one probe each", _floor, role=FLOOR),
        ],
        check=lambda report: _check(report.value, count),
        unit="tokens",
        amount=count,
        weigh=True,
        # A process joins two vocabularies once. Where memory is new, all pay for it alike; who
        # keeps what he freed would pay only the first time.
        fresh=True,
    )


def _check(result: Any, count: int) -> None:
    if isinstance(result, int):  # the floor's count of lines
        assert result == 2 * count
    else:
        assert np.array_equal(np.asarray(result), expected(count))


@contextmanager
def _joining(count: int, join: Join) -> Iterator[Run]:
    """One join, the files in the page cache, after a small one for which libraries are loaded."""
    join(*data.vocabularies(_FEW), _FEW)
    new, old = data.vocabularies(count)
    page_cache.warm([new, old])

    def run() -> Report:
        report = Report()
        with report.part("joining"):
            report.value = join(new, old, count)
        return report

    yield run


def _ours(new: Path, old: Path, _: int) -> Array:
    tb.clear_caches()
    return tb.remap_vocab(new, old).ids


def _ours_alone(new: Path, old: Path, count: int) -> Array:
    tb.set_num_threads(1)
    try:
        return _ours(new, old, count)
    finally:
        tb.set_num_threads(None)


def _tensorflow(new: Path, old: Path, count: int) -> Any:
    remap = rivals.tensorflow().raw_ops.GenerateVocabRemapping
    found = remap(
        new_vocab_file=str(new), old_vocab_file=str(old), new_vocab_offset=0, num_new_vocab=count
    )
    return found.remapping


def _arrow(new: Path, old: Path, _: int) -> Array:
    return with_arrow(new, old)


def _dictionary(new: Path, old: Path, _: int) -> list[int]:
    where = {token: i for i, token in enumerate(old.read_bytes().split(b"\n")[:-1])}
    return [where.get(token, -1) for token in new.read_bytes().split(b"\n")[:-1]]


def _floor(new: Path, old: Path, count: int) -> int:
    """Both files read, their lines found, one cache-missing access per token."""
    buffer = np.empty(max(path.stat().st_size for path in (new, old)), np.uint8)
    slots = np.zeros(1 << (count * 11 // 8).bit_length(), np.uint64)
    lines = 0
    for path in (new, old):
        text = buffer[: path.stat().st_size]
        with path.open("rb") as file:
            ceiling.pread(file.fileno(), 0, text, THREADS)
        lines += ceiling.probe_lines(text, slots, THREADS)
    return lines
