# SPDX-License-Identifier: Apache-2.0
"""Initialising variables: ``init_from_checkpoint`` and the run of the initialisers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from craft.bundle import Bundle, shard_path

import tensorbundle as tb
from bench import baseline, data
from bench.case import (
    BASELINE,
    OURS,
    THREADS,
    UNVERIFIED,
    VERIFIED,
    Case,
    Contender,
    Phases,
    Run,
    tensorflow,
)  # fmt: skip
from bench.data import DIM, KIB, MIB, Array, Table, binary

SPLIT = {"smoke": 2 * MIB, "variables": 1024 * MIB}
"""Bytes of the table for a partitioned variable."""
WHOLE = {"smoke": (64 * KIB,), "variables": (KIB, 64 * KIB, MIB, 16 * MIB, 1024 * MIB)}
"""Bytes of the tables for a variable that is not partitioned."""
SPARSE = {"smoke": 64 * MIB, "variables": 40 * 1024 * MIB}
"""Bytes of the table that is only mapped. Its file is sparse, and may be larger than memory."""
PARTITIONS = 8
PAGE = 4096
NAME = "table"
_LOOKED_UP = 1_000

ZEROS = "zeros, which the contender has checked itself"


def test_init(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    found = []
    if size in SPLIT:
        rows = SPLIT[size] // (4 * DIM)
        found += _plain_and_aligned(Variable(rows, PARTITIONS), f"into {PARTITIONS}")
        found.append(_reference_variables(Variable(rows, PARTITIONS, resource=False)))
    for nbytes in WHOLE.get(size, ()):
        found += _plain_and_aligned(Variable(nbytes // (4 * DIM)), "whole")
    return found + ([_mapped_alone(Variable(SPARSE[size] // (4 * DIM)))] if size in SPARSE else [])


@dataclass(frozen=True)
class Variable:
    """A float32 variable with ``DIM`` columns.

    Attributes:
        rows: The number of rows.
        partitions: The number of partitions; 1 is a variable that is not partitioned.
        resource: Whether it is a resource variable, not a reference variable.
    """

    rows: int
    partitions: int = 1
    resource: bool = True

    @property
    def nbytes(self) -> int:
        return self.rows * DIM * 4

    @property
    def starts(self) -> list[int]:
        """The first row of every partition."""
        each, larger = divmod(self.rows, self.partitions)
        return [i * each + min(i, larger) for i in range(self.partitions)]

    @property
    def looked_up(self) -> Array:
        """The first row of every partition, the last row, and many at random."""
        drawn = np.random.default_rng(5).integers(0, self.rows, _LOOKED_UP)
        return np.concatenate([self.starts, [self.rows - 1], drawn])


@contextmanager
def model(
    variable: Variable, initialise: Callable[[Any], None], load: Callable[[], None] | None = None
) -> Iterator[Callable[[], Phases]]:
    """Builds the variable; yields a function that initialises and uses it, phase by phase.

    Args:
        variable: The variable.
        initialise: Sets the initialiser. It gets the variable, possibly a ``PartitionedVariable``.
        load: What the process needs once. It is reported and does not count, because the import of
            TensorFlow, which loads TensorFlow's own ops, does not count either.
    """
    tf = tensorflow()
    v1 = tf.compat.v1
    _warm_up(tf)
    with tf.Graph().as_default(), v1.Session() as session:
        partitioner = v1.fixed_size_partitioner(variable.partitions)
        built = v1.get_variable(
            NAME, [variable.rows, DIM], use_resource=variable.resource,
            initializer=v1.zeros_initializer(),
            partitioner=partitioner if variable.partitions > 1 else None,
        )  # fmt: skip

        def run() -> Phases:
            phases = Phases()
            if load is not None:
                with phases.phase("loading", counts=False):
                    load()
            with phases.phase("building"):
                initialise(built)
            initializer = v1.global_variables_initializer()
            with phases.phase("running"):
                session.run(initializer)
            # The first run of a session optimizes the whole graph. These nodes do not belong to the
            # cost of the initialisers, so they are built after it.
            found = v1.nn.embedding_lookup(built, variable.looked_up, partition_strategy="div")
            ones = np.ones([1, DIM], np.float32)
            partitions = list(built) if variable.partitions > 1 else [built]
            update = tf.group(*(v1.scatter_sub(each, [0], ones).op for each in partitions))
            with phases.phase("first use", counts=False):
                before = session.run(found)
                session.run(update)
            phases.result = before, session.run(found)
            return phases

        yield run


def load_ops() -> None:
    """Loads our op library, and the modules of the two functions."""
    tb.tf.load_op_library()
    for name in ("init_from_checkpoint", "warm_start"):
        getattr(tb, name)


def _warm_up(tf: Any) -> None:
    """Starts TensorFlow's runtime: its threads, the first session, and oneDNN's graph pass.

    Once per process and kind of op, that pass searches all kernels, which takes 1 or 2 ms. The ops
    here are those that the initialisers of TensorFlow and of tensorbundle use.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("warm", [2, 2], use_resource=True)
        session.run(variable.initializer)
        total = tf.add(variable, 1)
        session.run([tf.identity(total), tf.slice(total, [0, 0], [1, 2])])


def require(phases: Phases, variable: Variable, expected: Callable[[Array], Array]) -> None:
    """Compares the looked-up rows, before and after the update of each partition's first row.

    Args:
        phases: The phases of a run of ``model``.
        variable: The variable.
        expected: Returns the expected rows for ids.

    Raises:
        AssertionError: They differ.
    """
    before, after = phases.result
    wanted = expected(variable.looked_up)
    assert np.array_equal(before, wanted), "wrong rows after initialising"
    wanted[np.isin(variable.looked_up, variable.starts)] -= 1
    assert np.array_equal(after, wanted), "wrong rows after an update"


def _plain_and_aligned(variable: Variable, form: str) -> list[Case]:
    """The same table from two checkpoints: as TensorFlow writes it, and aligned to a page."""
    table = Table(variable.rows)
    plain, aligned = table.warmed, Table(variable.rows, offset=PAGE).warmed
    copied = [_ours(variable, plain, "copy"), _tensorflow(variable, plain)]
    copied += [_pread(table, huge) for huge in (False, True)]
    mapped = [_ours(variable, aligned, "map"), _tensorflow(variable, aligned)]
    mapped.append(_zeros(variable.partitions))
    return [_case(variable, form, "", copied), _case(variable, form, ", aligned", mapped)]


def _reference_variables(variable: Variable) -> Case:
    aligned = Table(variable.rows, offset=PAGE).warmed
    contenders = [_ours(variable, aligned, mode) for mode in ("copy", "map")]
    contenders.append(_tensorflow(variable, aligned))
    return _case(variable, f"into {PARTITIONS}", ", reference variables", contenders)


def _case(variable: Variable, form: str, kind: str, contenders: list[Contender]) -> Case:
    rows, size = variable.rows, binary(variable.nbytes)
    into = f"{variable.partitions} partitions" if variable.partitions > 1 else "one variable"
    return Case(
        key=f"init/{size} {form}{kind}",
        title=f"{rows:,} x {DIM} float32 ({size}), stored whole, into {into}{kind}",
        contenders=contenders,
        check=lambda phases: _check(phases, variable),
        unit="bytes",
        amount=variable.nbytes,
        memory=True,
        fresh_process=True,
        gc_enabled=True,
    )


def _check(
    phases: Phases, variable: Variable, expected: Callable[[Array], Array] = data.rows
) -> None:
    if isinstance(phases.result, np.ndarray):  # the memory of the baseline
        data.require_table(phases.result)
    elif phases.result is not ZEROS:
        require(phases, variable, expected)


def _ours(variable: Variable, warmed: Callable[[], Path], mode: str) -> Contender:
    """`warmed` returns the checkpoint's prefix, and what is needed of it is in the page cache."""

    @contextmanager
    def start() -> Iterator[Run]:
        path = warmed()

        def initialise(built: Any) -> None:
            with tb.tf.options(mode=mode):
                tb.init_from_checkpoint(path, {NAME: built})

        with model(variable, initialise, load_ops) as run:
            yield run

    checksum = VERIFIED if mode == "copy" else UNVERIFIED
    return Contender(f"tensorbundle, {mode}", start, OURS, checksum, ("tensorflow",))


def _tensorflow(variable: Variable, warmed: Callable[[], Path]) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        path, train = warmed(), tensorflow().compat.v1.train

        def initialise(built: Any) -> None:
            given = list(built) if variable.partitions > 1 else built
            train.init_from_checkpoint(str(path), {NAME: given})

        with model(variable, initialise) as run:
            yield run

    return Contender("TensorFlow", start, checksum=VERIFIED, needs=("tensorflow",))


def _pread(table: Table, huge: bool) -> Contender:
    """Reads the bytes once, in parallel, into new memory, with a CRC-32C of each cached block."""

    @contextmanager
    def start() -> Iterator[Run]:
        table.warmed()
        baseline.library()
        with table.descriptor() as file:

            def run() -> Phases:
                phases = Phases()
                with phases.phase("running"):
                    out = baseline.new_memory((table.rows, DIM), huge=huge)
                    baseline.pread_checked(file, table.offset, out.nbytes, out, THREADS)
                phases.result = out
                return phases

            yield run

    pages = "huge pages" if huge else "4 KiB pages"
    return Contender(f"C: pread and CRC-32C into new {pages}", start, BASELINE, VERIFIED)


def _zeros(partitions: int) -> Contender:
    """The baseline of a mapping: TensorFlow's session run for variables of a few rows."""
    variable = Variable(8 * partitions, partitions)

    @contextmanager
    def start() -> Iterator[Run]:
        with model(variable, lambda _: None) as run:

            def checked() -> Phases:
                phases = run()
                require(phases, variable, lambda ids: np.zeros((len(ids), DIM), np.float32))
                phases.result = ZEROS
                return phases

            yield checked

    name = f"{partitions} partitions" if partitions > 1 else "one variable"
    needs = ("tensorflow",)
    return Contender(f"TensorFlow: zeros into {name} of 8 rows", start, BASELINE, needs=needs)


@data.stored
def _sparse_table(folder: Path, rows: int) -> None:
    """A table in a sparse file. All rows but ``_sparse_rows`` are zeros that take no space.

    The stored checksum is not that of the data.
    """
    prefix, bundle = folder / "ckpt", Bundle()
    bundle.add("global_step", data.STEP)
    bundle.write_shards(prefix)
    data.add_entry(bundle, "table", (rows, DIM), PAGE, 0)
    data.write_index(bundle, prefix)
    os.truncate(shard_path(prefix), PAGE + rows * DIM * 4)
    with shard_path(prefix).open("r+b") as file:
        for row in _sparse_rows(rows):
            file.seek(PAGE + row * DIM * 4)
            file.write(data.rows(np.array([row])).tobytes())


def _sparse_rows(rows: int) -> tuple[int, int, int]:
    return 0, rows // 2, rows - 1


def _mapped_alone(variable: Variable) -> Case:
    size = binary(variable.nbytes)

    def expected(ids: Array) -> Array:
        wanted = data.rows(ids)
        wanted[~np.isin(ids, _sparse_rows(variable.rows))] = 0
        return wanted

    def warmed() -> Path:
        """Reads the rows that are looked up; the whole table may be larger than memory."""
        path = _sparse_table(variable.rows) / "ckpt"
        with shard_path(path).open("rb") as file:
            for row in variable.looked_up:
                os.pread(file.fileno(), DIM * 4, PAGE + int(row) * DIM * 4)
        return path

    return Case(
        key=f"init/{size}, mapped",
        title=f"{variable.rows:,} x {DIM} float32 ({size}, a sparse file), mapped",
        contenders=[_ours(variable, warmed, "map"), _zeros(variable.partitions)],
        check=lambda phases: _check(phases, variable, expected),
        amount=variable.nbytes,
        memory=True,
        fresh_process=True,
        gc_enabled=True,
    )
