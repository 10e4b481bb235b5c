# SPDX-License-Identifier: Apache-2.0
"""Runs ``warm_start`` of tensorbundle and of TensorFlow, each in its own graph.

Requires TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from craft.compare import same_bits
from side_by_side import logged

import tensorbundle as tb

Build = Callable[[], Any]
Settings = Callable[[Any], dict[str, Any]]


@dataclass
class Outcome:
    """The outcome of a warm start.

    Attributes:
        stage: ``"call"`` or ``"run"``, where `error` was raised; None without an error.
        values: The values of the variables, with joined partitions, after the initializers ran.
        log: The lines at DEBUG and above that the call logged.
    """

    stage: str | None = None
    error: BaseException | None = None
    values: list[np.ndarray] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


def write_vocabulary(path: Path, tokens: Any) -> str:
    """Writes a vocabulary file and returns its path."""
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return str(path)


def outcome(function: Callable[..., Any], path: Any, build: Build, settings: Settings) -> Outcome:
    """Builds a model, warm-starts it with `settings` of it, and runs the initializers.

    Args:
        function: ``warm_start`` of TensorFlow or of tensorbundle.
        path: The checkpoint.
        build: Creates the variables in a new graph.
        settings: Returns the function's keyword arguments for these variables.
    """
    import tensorflow as tf

    result = Outcome()
    with tf.Graph().as_default() as graph, logged() as lines:
        model = build()
        variables = model if isinstance(model, list) else [model]
        kwargs = settings(model)
        result.log = lines
        try:
            function(path, **kwargs)
        except Exception as error:
            result.stage, result.error = "call", error
            return result
        with tf.compat.v1.Session(graph=graph) as session:
            try:
                session.run(tf.compat.v1.global_variables_initializer())
            except Exception as error:
                result.stage, result.error = "run", error
                return result
            result.values = session.run([tf.convert_to_tensor(v) for v in variables])
    return result


def both(path: Any, build: Build, settings: Settings) -> tuple[Outcome, Outcome]:
    """Returns the outcomes of tensorbundle and of TensorFlow."""
    import tensorflow as tf

    expected = outcome(tf.compat.v1.train.warm_start, path, build, settings)
    return outcome(tb.warm_start, path, build, settings), expected


def require_same(path: Any, build: Build, settings: Settings) -> list[np.ndarray]:
    """Requires identical values and logs, and returns the values.

    Additional warnings of tensorbundle are accepted.
    """
    actual, expected = both(path, build, settings)
    assert expected.error is None, expected.error
    if actual.error is not None:
        raise actual.error
    assert len(actual.values) == len(expected.values) > 0
    for left, right in zip(actual.values, expected.values, strict=True):
        assert left.dtype == right.dtype
        assert same_bits(np.asarray(left), np.asarray(right)), (left, right)
    assert without_warnings(actual.log) == without_warnings(expected.log), (
        actual.log,
        expected.log,
    )
    return actual.values


def without_warnings(log: list[str]) -> list[str]:
    """Returns the lines that are not warnings."""
    return [line for line in log if not line.startswith("WARNING")]


def require_same_error(path: Any, build: Build, settings: Settings) -> BaseException:
    """Requires errors of the same type at the same stage, and returns that of tensorbundle."""
    actual, expected = both(path, build, settings)
    assert expected.error is not None, "TensorFlow raises nothing"
    assert actual.error is not None, f"only TensorFlow raises: {expected.error!r}"
    assert isinstance(actual.error, type(expected.error)), (actual.error, expected.error)
    assert actual.stage == expected.stage
    return actual.error
