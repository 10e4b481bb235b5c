# SPDX-License-Identifier: Apache-2.0
"""``warm_start`` of a variable from a table with an older vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import baseline, data, test_init, test_join
from bench.case import (
    BASELINE,
    COMPETITOR,
    OURS,
    THREADS,
    VERIFIED,
    Case,
    Contender,
    Phases,
    Run,
    tensorflow,
)  # fmt: skip
from bench.data import DIM, Table
from bench.test_init import NAME, Variable

TOKENS = {"smoke": (1_000,), "variables": (100_000, 1_000_000)}
"""The numbers of tokens of the old vocabularies."""
LARGE = {"variables": (20_000_000, 16)}
"""Old tokens and columns of a table that TensorFlow takes minutes to start from."""
PARTITIONS = 8
MISSING = 25
"""Per cent of the new tokens that are not in the old vocabulary."""


def test_warm(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    shapes = [(old, DIM) for old in TOKENS.get(size, ())]
    if size in LARGE:
        shapes.append(LARGE[size])
    return [_case(*shape, split) for shape in shapes for split in (1, PARTITIONS)]


def _case(old: int, dim: int, partitions: int) -> Case:
    variable = Variable(old * 6 // 5, partitions, dim=dim)
    new, into = variable.rows, f"{partitions} partitions" if partitions > 1 else "one variable"
    kind = "warm" if dim == DIM else "warm large"  # targets of "warm" compare with TensorFlow
    contenders = [
        _contender(old, variable, "tensorbundle"),
        _baseline(old, variable, huge=False),
        _baseline(old, variable, huge=True),
    ]
    if dim == DIM:
        contenders.insert(1, _contender(old, variable, "TensorFlow"))
    return Case(
        key=f"{kind}/{old} to {new} tokens, {into}",
        title=f"{old:,} to {new:,} tokens x {dim} float32, shuffled, {MISSING} % new, into {into}",
        contenders=contenders,
        check=lambda phases: _check(phases, old, variable),
        unit="rows",
        amount=new,
        memory=True,
        fresh_process=True,
        gc_enabled=True,
    )


def _check(phases: Phases, old: int, variable: Variable) -> None:
    lines = test_join.lines(old, variable.rows, MISSING)
    if isinstance(phases.result, np.ndarray):  # the memory of the baseline
        data.require_rows(phases.result, lines, lambda ids: data.rows(ids, variable.dim))
    else:
        test_init.require(phases, variable, lambda ids: data.rows(lines[ids], variable.dim))


def _warmed(old: int, new: int, dim: int = DIM) -> tuple[Path, list[Path]]:
    """Returns the table's prefix and the vocabularies (new, old), all in the page cache."""
    folder = test_join.vocabularies(old, new, MISSING)
    paths = [folder / "new", folder / "old"]
    data.warm(paths)
    return Table(old, dim).warmed(), paths


def initialiser(
    train: Any, prefix: Path, new_file: Path, old_file: Path, variable: Variable
) -> Callable[[Any], None]:
    """Returns a function that warm-starts the variable by the functions of `train`."""

    def initialise(_: Any) -> None:
        info = train.VocabInfo(
            new_vocab=str(new_file), new_vocab_size=variable.rows, num_oov_buckets=0,
            old_vocab=str(old_file), backup_initializer=tensorflow().zeros_initializer(),
        )  # fmt: skip
        train.warm_start(str(prefix), NAME, {NAME: info})

    return initialise


def _contender(old: int, variable: Variable, name: str) -> Contender:
    is_tensorbundle = name == "tensorbundle"

    @contextmanager
    def start() -> Iterator[Run]:
        prefix, (new_file, old_file) = _warmed(old, variable.rows, variable.dim)
        train: Any = tb if is_tensorbundle else tensorflow().compat.v1.train
        initialise = initialiser(train, prefix, new_file, old_file, variable)
        with test_init.model(
            variable, initialise, test_init.load_ops if is_tensorbundle else None
        ) as run:
            yield run

    return Contender(
        name, start, OURS if is_tensorbundle else COMPETITOR, VERIFIED, ("tensorflow",)
    )


def _baseline(old: int, variable: Variable, *, huge: bool) -> Contender:
    """The sum of the steps that every implementation needs.

    Joins both vocabularies; reads the old table once for its checksum; gathers its rows into new
    memory.
    """

    @contextmanager
    def start() -> Iterator[Run]:
        new, dim = variable.rows, variable.dim
        table = Table(old, dim)
        _, paths = _warmed(old, new, dim)
        baseline.library()
        fill = np.zeros(dim, np.float32)
        with table.descriptor() as file:

            def run() -> Phases:
                phases = Phases()
                with phases.phase("running"):
                    lines = test_join.hash_join(*paths, new, old)
                    baseline.pread_checked(file, table.offset, table.nbytes, None, THREADS)
                    out = baseline.new_memory((new, dim), huge=huge)
                    baseline.gather(out, table.maps(), lines, THREADS, fill=fill)
                phases.result = out
                return phases

            yield run

    pages = "huge pages" if huge else "4 KiB pages"
    name = f"C: join, check and gather into new {pages}"
    return Contender(name, start, BASELINE, VERIFIED)
