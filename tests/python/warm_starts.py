# SPDX-License-Identifier: Apache-2.0
"""A warm start by TensorFlow's function and by ours, each in a graph of its own, and what came out.

For tests that have TensorFlow.
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
    """What a warm start led to.

    Attributes:
        stage: ``"call"`` or ``"run"``, where `error` was raised; None if all went well.
        values: By variable, partitions put together, after the initializers ran.
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
    """Builds a model, warm-starts it with what `settings` makes of it, and initialises it.

    Args:
        function: ``warm_start``, TensorFlow's or ours.
        path: The checkpoint.
        build: Makes variables in a new graph.
        settings: From these to the function's keyword arguments.
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
    """(ours, TensorFlow's)."""
    import tensorflow as tf

    theirs = outcome(tf.compat.v1.train.warm_start, path, build, settings)
    return outcome(tb.warm_start, path, build, settings), theirs


def require_same(path: Any, build: Build, settings: Settings) -> list[np.ndarray]:
    """The values, if both functions lead to the same ones, bit for bit, and to the same log.

    Ours may warn where TensorFlow is silent.
    """
    ours, theirs = both(path, build, settings)
    assert theirs.error is None, theirs.error
    if ours.error is not None:
        raise ours.error
    assert len(ours.values) == len(theirs.values) > 0
    for our, their in zip(ours.values, theirs.values, strict=True):
        assert our.dtype == their.dtype
        assert same_bits(np.asarray(our), np.asarray(their)), (our, their)
    assert without_warnings(ours.log) == without_warnings(theirs.log), (ours.log, theirs.log)
    return ours.values


def without_warnings(log: list[str]) -> list[str]:
    """The lines that are no warnings."""
    return [line for line in log if not line.startswith("WARNING")]


def require_same_error(path: Any, build: Build, settings: Settings) -> BaseException:
    """Our error, if both functions raise in the same place what the same ``except`` catches."""
    ours, theirs = both(path, build, settings)
    assert theirs.error is not None, "TensorFlow raises nothing"
    assert ours.error is not None, f"only TensorFlow raises: {theirs.error!r}"
    assert isinstance(ours.error, type(theirs.error)), (ours.error, theirs.error)
    assert ours.stage == theirs.stage
    return ours.error
