# SPDX-License-Identifier: Apache-2.0
"""The same call to TensorFlow's function and to ours, each in a graph of its own, and its outcome.

For tests that have TensorFlow.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from craft.compare import same_bits

import tensorbundle as tb

WAYS = ("op", "numpy", "stock")
# What may stand in a graph beside TensorFlow's own nodes' names and types.
_OF_INITIALIZERS = re.compile(r"(.*/)?checkpoint_initializer")


@dataclass
class Outcome:
    """What a call led to.

    Attributes:
        stage: ``"call"`` or ``"run"``, where `error` was raised; None if all went well.
        values: Of the variables, in order, after their initializers ran.
        log: The lines at DEBUG and above.
        initializers: The types of the variables' initializers.
        stray: Types of the nodes that stand beside the initializer's.
        next_names: What nodes that are made afterwards are called.
    """

    stage: str | None = None
    error: BaseException | None = None
    values: list[np.ndarray] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    initializers: list[type] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    next_names: list[str] = field(default_factory=list)


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """The lines that TensorFlow's logger gets inside."""
    import tensorflow as tf

    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.getMessage()}")

    logger, handler = tf.get_logger(), Keep()
    before = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def outcome(
    function: Callable[..., Any],
    path: Any,
    build: Callable[[], list[Any]],
    mapping: Callable[[list[Any]], Any],
) -> Outcome:
    """Builds variables, calls the function with what `mapping` makes of them, and initialises."""
    import tensorflow as tf

    result = Outcome()
    with tf.Graph().as_default() as graph, logged() as lines:
        variables = build()
        assigned = mapping(variables)
        before = {op.name for op in graph.get_operations()}
        try:
            function(path, assigned)
        except Exception as error:
            result.stage, result.error = "call", error
            return result
        result.log = [line for line in lines if "Initialize variable" in line]
        result.stray = sorted(
            f"{op.type}"
            for op in graph.get_operations()
            if op.name not in before and not _OF_INITIALIZERS.match(op.name)
        )
        result.next_names = [
            graph.unique_name(name, mark_as_used=False)
            for name in ("Identity", "AssignVariableOp", "Assign", "checkpoint_initializer")
        ]
        flat = [part for v in variables for part in (v if isinstance(v, list) else [v])]
        result.initializers = [type(v.initializer) for v in flat]
        with tf.compat.v1.Session(graph=graph) as session:
            try:
                session.run([v.initializer for v in flat])
            except Exception as error:
                result.stage, result.error = "run", error
                return result
            result.values = session.run([v.value() for v in flat])
    return result


def both(
    path: Any, build: Callable[[], list[Any]], mapping: Callable[[list[Any]], Any]
) -> tuple[Outcome, Outcome]:
    """(ours, TensorFlow's)."""
    import tensorflow as tf

    theirs = outcome(tf.compat.v1.train.init_from_checkpoint, path, build, mapping)
    return outcome(tb.init_from_checkpoint, path, build, mapping), theirs


def require_same(ours: Outcome, theirs: Outcome) -> None:
    """Fails unless both led to the same values and log, or to the same kind of error."""
    if theirs.error is not None:
        assert isinstance(ours.error, type(theirs.error)), (ours, theirs)
        assert ours.stage == theirs.stage
        return
    assert ours.error is None, ours.error
    assert len(ours.values) == len(theirs.values) > 0
    for our, their in zip(ours.values, theirs.values, strict=True):
        assert our.dtype == their.dtype
        assert same_bits(np.asarray(our), np.asarray(their))
    assert ours.log == theirs.log
    assert ours.initializers == theirs.initializers
    # The copy in which TensorFlow lets a value go to its variable may be left out.
    assert ours.stray in (theirs.stray, [kind for kind in theirs.stray if kind != "Identity"])
    assert ours.next_names == theirs.next_names
