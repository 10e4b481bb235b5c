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
from bench import ceiling, data, rivals
from bench.case import FLOOR, OURS, Case, Contender, Run
from bench.content import Array
from bench.sizes import Size

THREADS = len(os.sched_getaffinity(0))


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
    @contextmanager
    def dictionary() -> Iterator[Run]:
        new, old = data.vocabularies(count)

        def run() -> Any:
            where = {token: i for i, token in enumerate(old.read_bytes().split(b"\n")[:-1])}
            return [where.get(token, -1) for token in new.read_bytes().split(b"\n")[:-1]]

        yield run

    @contextmanager
    def arrow() -> Iterator[Run]:
        paths = data.vocabularies(count)
        yield lambda: with_arrow(*paths)

    @contextmanager
    def tensorflow() -> Iterator[Run]:
        tf, (new, old) = rivals.tensorflow(), map(str, data.vocabularies(count))
        yield (
            lambda: (
                tf.raw_ops.GenerateVocabRemapping(
                    new_vocab_file=new, old_vocab_file=old, new_vocab_offset=0, num_new_vocab=count
                ).remapping
            )
        )

    return Case(
        key=f"join/{count} tokens",
        title=f"join two vocabulary files of {count:,} tokens, 90 % in both",
        contenders=[
            _ours(count, "tensorbundle", None),
            _ours(count, "tensorbundle, 1 thread", 1),
            Contender("TensorFlow GenerateVocabRemapping", tensorflow, needs=("tensorflow",)),
            Contender("pyarrow, csv.read_csv and index_in", arrow, needs=("pyarrow",)),
            Contender("Python dict", dictionary),
            _floor(count),
        ],
        check=lambda result: _check(result, count),
        unit="tokens",
        amount=count,
        weigh=True,
    )


def _check(result: Any, count: int) -> None:
    if isinstance(result, int):  # the floor's count of lines
        assert result == 2 * count
    else:
        assert np.array_equal(np.asarray(result), expected(count))


def _ours(count: int, name: str, threads: int | None) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        new, old = data.vocabularies(count)

        def run() -> Any:
            tb.clear_caches()
            return tb.remap_vocab(new, old).ids

        tb.set_num_threads(threads)
        try:
            yield run
        finally:
            tb.set_num_threads(None)

    return Contender(name, start, OURS, api=("remap_vocab", "clear_caches"))


def _floor(count: int) -> Contender:
    """Both files read, their lines found, one cache-missing access per token."""

    @contextmanager
    def start() -> Iterator[Run]:
        paths = data.vocabularies(count)
        buffer = np.zeros(max(path.stat().st_size for path in paths), np.uint8)
        slots = np.zeros(1 << (count * 11 // 8).bit_length(), np.uint64)

        def run() -> int:
            lines = 0
            for path in paths:
                text = buffer[: path.stat().st_size]
                with path.open("rb") as file:
                    ceiling.pread(file.fileno(), 0, text, THREADS)
                lines += ceiling.probe_lines(text, slots, THREADS)
            return lines

        yield run

    return Contender("C: read, find lines, one probe each", start, FLOOR)
