# SPDX-License-Identifier: Apache-2.0
"""Runs ``init_from_checkpoint`` of tensorbundle and of TensorFlow, each in its own graph.

Requires TensorFlow.
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

# Names of the nodes that belong to the initializers.
_OF_INITIALIZERS = re.compile(r"(.*/)?checkpoint_initializer")


@dataclass
class Outcome:
    """The outcome of a call.

    Attributes:
        stage: ``"call"`` or ``"run"``, where `error` was raised; None without an error.
        values: The values of the variables, in order, after their initializers ran.
        log: The lines at DEBUG and above.
        initializers: The types of the variables' initializers.
        other_ops: The types of the new nodes that do not belong to an initializer.
        next_names: The unique names of the nodes created next.
    """

    stage: str | None = None
    error: BaseException | None = None
    values: list[np.ndarray] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    initializers: list[type] = field(default_factory=list)
    other_ops: list[str] = field(default_factory=list)
    next_names: list[str] = field(default_factory=list)


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Yields the list of lines that TensorFlow's logger receives in the context."""
    import tensorflow as tf

    lines: list[str] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.getMessage()}")

    logger, handler = tf.get_logger(), Recorder()
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
    """Builds variables, calls the function with `mapping` of them, and runs the initializers."""
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
        result.other_ops = sorted(
            f"{op.type}"
            for op in graph.get_operations()
            if op.name not in before and not _OF_INITIALIZERS.match(op.name)
        )
        result.next_names = [
            graph.unique_name(name, mark_as_used=False)
            for name in ("Identity", "AssignVariableOp", "Assign", "checkpoint_initializer")
        ]
        flat = [each for v in variables for each in (v if isinstance(v, list) else [v])]
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
    """Returns the outcomes of tensorbundle and of TensorFlow."""
    import tensorflow as tf

    expected = outcome(tf.compat.v1.train.init_from_checkpoint, path, build, mapping)
    return outcome(tb.init_from_checkpoint, path, build, mapping), expected


def require_same(actual: Outcome, expected: Outcome) -> None:
    """Requires equal values and logs, or errors of the same type."""
    if expected.error is not None:
        assert isinstance(actual.error, type(expected.error)), (actual, expected)
        assert actual.stage == expected.stage
        return
    assert actual.error is None, actual.error
    assert len(actual.values) == len(expected.values) > 0
    for left, right in zip(actual.values, expected.values, strict=True):
        assert left.dtype == right.dtype
        assert same_bits(np.asarray(left), np.asarray(right))
    assert actual.log == expected.log
    assert actual.initializers == expected.initializers
    # The Identity through which TensorFlow passes a value to its variable is optional.
    assert actual.other_ops in (
        expected.other_ops,
        [kind for kind in expected.other_ops if kind != "Identity"],
    )
    assert actual.next_names == expected.next_names
