# SPDX-License-Identifier: Apache-2.0
"""A model of one table in a TensorFlow graph: initialised, looked up and updated once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import page_cache, rivals
from bench.content import Array
from bench.fresh import Report
from bench.sizes import DIM

NAME = "table"
_LOOKED_UP = 1_000


@dataclass(frozen=True)
class Table:
    """A variable to be, of ``DIM`` columns.

    Attributes:
        rows: In all its pieces.
        pieces: How many; 1 is a variable that is not partitioned.
        resource: Whether it is a resource variable, not one of the older kind.
    """

    rows: int
    pieces: int = 1
    resource: bool = True

    @property
    def starts(self) -> list[int]:
        """The first row of every piece."""
        large = self.rows % self.pieces
        each = self.rows // self.pieces
        return [i * each + min(i, large) for i in range(self.pieces)]

    @property
    def looked_up(self) -> Array:
        """Rows to look at: the first of every piece, the last of all, and many at random."""
        drawn = np.random.default_rng(5).integers(0, self.rows, _LOOKED_UP)
        return np.concatenate([self.starts, [self.rows - 1], drawn])


@contextlib.contextmanager
def model(
    table: Table,
    files: Iterable[Path],
    initialise: Callable[[Any], None],
    load: Callable[[], Any] | None = None,
) -> Iterator[Callable[[], Report]]:
    """Builds the variable and a use of it; gives what sets its initialiser and runs that.

    Args:
        table: The variable to build.
        files: What the page cache is to hold.
        initialise: Gets the variable, possibly a ``PartitionedVariable``.
        load: What the process needs once. Its time is told, and does not count: TensorFlow's own
            ops come with its import.
    """
    tf = rivals.tensorflow()
    v1 = tf.compat.v1
    page_cache.warm(files)
    _warm_up(tf)
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable(
            NAME, [table.rows, DIM], use_resource=table.resource,
            initializer=v1.zeros_initializer(),
            partitioner=v1.fixed_size_partitioner(table.pieces) if table.pieces > 1 else None,
        )  # fmt: skip

        def run() -> Report:
            report = Report()
            if load is not None:
                with report.part("loading", counts=False):
                    load()
            with report.part("building"):
                initialise(variable)
            initializer = v1.global_variables_initializer()
            with report.part("running"):
                session.run(initializer)
            # Built only now: a session's first run optimizes the whole graph, and the model's own
            # nodes are not what its initialisers cost.
            found = v1.nn.embedding_lookup(variable, table.looked_up, partition_strategy="div")
            pieces = list(variable) if table.pieces > 1 else [variable]
            ones = np.ones([1, DIM], np.float32)
            update = tf.group(*(v1.scatter_sub(piece, [0], ones).op for piece in pieces))
            with report.part("first use", counts=False):
                before = session.run(found)
                session.run(update)
            report.value = before, session.run(found)
            return report

        yield run


def load_ops() -> None:
    """What a process needs once for ours: the op library, and the modules behind the names."""
    import tensorbundle as tb

    tb.tf.load_op_library()
    for name in ("init_from_checkpoint", "warm_start"):
        getattr(tb, name)


def _warm_up(tf: Any) -> None:
    """Starts the runtime, which is nobody's cost.

    That is its threads, the first session, and what oneDNN's graph pass finds out once per process
    about a kind of op, for those that TensorFlow's initializers and ours are made of: it looks
    through all kernels, which takes a millisecond or two.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("warm", [2, 2], use_resource=True)
        session.run(variable.initializer)
        total = tf.add(variable, 1)
        session.run([tf.identity(total), tf.slice(total, [0, 0], [1, 2])])


def require(report: Report, table: Table, expected: Callable[[Array], Array]) -> None:
    """Compares looked-up rows, before and after the update of the first row of every piece.

    Args:
        report: Of a run of ``model``.
        table: The variable.
        expected: The rows of some numbers as they must be.

    Raises:
        AssertionError: They differ.
    """
    before, after = report.value
    wanted = expected(table.looked_up)
    assert np.array_equal(before, wanted), "wrong rows after initialising"
    wanted[np.isin(table.looked_up, table.starts)] -= 1
    assert np.array_equal(after, wanted), "wrong rows after an update"
