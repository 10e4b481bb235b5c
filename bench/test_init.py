# SPDX-License-Identifier: Apache-2.0
"""Initialising variables: ``init_from_checkpoint`` and the run of the initialisers."""

from __future__ import annotations

import importlib
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
"""The bytes of the table for a partitioned variable."""
WHOLE = {"smoke": (64 * KIB,), "variables": (KIB, 64 * KIB, MIB, 16 * MIB, 1024 * MIB)}
"""The bytes of the tables for a variable without partitions."""
SPARSE = {"smoke": 64 * MIB, "variables": 40 * 1024 * MIB}
"""The bytes of the table that is only mapped. Its file is sparse; it may exceed the memory."""
PARTITIONS = 8
PAGE = 4096
NAME = "table"
_LOOKED_UP = 1_000

ZEROS = "zeros, checked by the contender"


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
    """A float32 variable.

    Attributes:
        rows: The number of rows.
        partitions: The number of partitions; 1 for a variable that is not partitioned.
        resource: True for a resource variable, False for a reference variable.
        dim: The number of columns.
    """

    rows: int
    partitions: int = 1
    resource: bool = True
    dim: int = DIM

    @property
    def nbytes(self) -> int:
        return self.rows * self.dim * 4

    @property
    def starts(self) -> list[int]:
        """The first row of every partition."""
        each, larger = divmod(self.rows, self.partitions)
        return [i * each + min(i, larger) for i in range(self.partitions)]

    @property
    def looked_up(self) -> Array:
        """The first row of every partition, the last row, and random rows."""
        drawn = np.random.default_rng(5).integers(0, self.rows, _LOOKED_UP)
        return np.concatenate([self.starts, [self.rows - 1], drawn])


@contextmanager
def model(
    variable: Variable, initialise: Callable[[Any], None], load: Callable[[], None] | None = None
) -> Iterator[Callable[[], Phases]]:
    """Builds the variable; yields a function that initialises and uses it in timed phases.

    Args:
        variable: The variable.
        initialise: Sets the initialiser of its argument, a variable or ``PartitionedVariable``.
        load: Loads the modules and ops that the process needs once. Its time is reported but not
            counted, because the import of TensorFlow, which loads TensorFlow's ops, is not counted
            either.
    """
    tf = tensorflow()
    v1 = tf.compat.v1
    _warm_up(tf)
    with tf.Graph().as_default(), v1.Session() as session:
        partitioner = v1.fixed_size_partitioner(variable.partitions)
        built = v1.get_variable(
            NAME, [variable.rows, variable.dim], use_resource=variable.resource,
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
            # The first run of a session optimizes the graph. These nodes are built after it, so
            # that they are not part of the cost of the initialisers.
            rows = v1.nn.embedding_lookup(built, variable.looked_up, partition_strategy="div")
            ones = np.ones([1, variable.dim], np.float32)
            partitions = list(built) if variable.partitions > 1 else [built]
            update = tf.group(*(v1.scatter_sub(each, [0], ones).op for each in partitions))
            with phases.phase("first use", counts=False):
                before = session.run(rows)
                session.run(update)
            phases.result = before, session.run(rows)
            return phases

        yield run


def load_ops() -> None:
    """Loads our op library, and the modules of the two functions."""
    tb.tf.load_op_library()
    for name in ("init_from_checkpoint", "warm_start"):
        importlib.import_module(f"tensorbundle.tf.{name}")


def _warm_up(tf: Any) -> None:
    """Starts TensorFlow's runtime: its threads, the first session, and oneDNN's graph pass.

    The pass searches all kernels once per process and kind of op, which takes 1 or 2 ms. This runs
    the ops in the initialisers of TensorFlow and of tensorbundle.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("warm", [2, 2], use_resource=True)
        session.run(variable.initializer)
        total = tf.add(variable, 1)
        size = tf.compat.v1.placeholder_with_default(tf.constant([1, 2]), [2])
        session.run([tf.identity(total), tf.slice(total, [0, 0], size)])


def require(phases: Phases, variable: Variable, expected: Callable[[Array], Array]) -> None:
    """Compares the looked-up rows before and after the update of each partition's first row.

    Args:
        phases: The phases of a run of ``model``.
        variable: The variable.
        expected: Returns the expected rows for ids.

    Raises:
        AssertionError: The rows differ.
    """
    before, after = phases.result
    rows = expected(variable.looked_up)
    assert np.array_equal(before, rows), "wrong rows after initialising"
    rows[np.isin(variable.looked_up, variable.starts)] -= 1
    assert np.array_equal(after, rows), "wrong rows after an update"


def _plain_and_aligned(variable: Variable, form: str) -> list[Case]:
    """Returns a case for a checkpoint as written by TensorFlow, and one aligned to a page."""
    table = Table(variable.rows)
    plain, aligned = table.warmed, Table(variable.rows, offset=PAGE).warmed
    copied = [_tensorbundle(variable, plain, "copy"), _tensorflow(variable, plain)]
    copied += [_pread(table, huge) for huge in (False, True)]
    mapped = [_tensorbundle(variable, aligned, "map"), _tensorflow(variable, aligned)]
    mapped.append(_zeros(variable.partitions))
    return [_case(variable, form, "", copied), _case(variable, form, ", aligned", mapped)]


def _reference_variables(variable: Variable) -> Case:
    aligned = Table(variable.rows, offset=PAGE).warmed
    contenders = [_tensorbundle(variable, aligned, mode) for mode in ("copy", "map")]
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


def _tensorbundle(variable: Variable, warmed: Callable[[], Path], mode: str) -> Contender:
    """`warmed` reads the needed data into the page cache and returns the prefix."""

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
            target = list(built) if variable.partitions > 1 else built
            train.init_from_checkpoint(str(path), {NAME: target})

        with model(variable, initialise) as run:
            yield run

    return Contender("TensorFlow", start, checksum=VERIFIED, needs=("tensorflow",))


def _pread(table: Table, huge: bool) -> Contender:
    """Reads the bytes in parallel into new memory, with a CRC-32C of each cached block."""

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
    """Returns the baseline of a mapping: TensorFlow's initialisation of variables of a few rows."""
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
    """Writes a table to a sparse file in which all rows but ``_sparse_rows`` are holes.

    The stored checksum does not match the data.
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
        result = data.rows(ids)
        result[~np.isin(ids, _sparse_rows(variable.rows))] = 0
        return result

    def warmed() -> Path:
        """Reads the rows that are looked up; the table may exceed the memory."""
        path = _sparse_table(variable.rows) / "ckpt"
        with shard_path(path).open("rb") as file:
            for row in variable.looked_up:
                os.pread(file.fileno(), DIM * 4, PAGE + int(row) * DIM * 4)
        return path

    return Case(
        key=f"init/{size}, mapped",
        title=f"{variable.rows:,} x {DIM} float32 ({size}, a sparse file), mapped",
        contenders=[_tensorbundle(variable, warmed, "map"), _zeros(variable.partitions)],
        check=lambda phases: _check(phases, variable, expected),
        amount=variable.nbytes,
        memory=True,
        fresh_process=True,
        gc_enabled=True,
    )
