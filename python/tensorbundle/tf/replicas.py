# SPDX-License-Identifier: Apache-2.0
"""One call, however many replicas make it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tensorbundle.tf.options import Options, current, in_context

Result = TypeVar("Result")


def once(work: Callable[[Options], Result]) -> Result:
    """Does the work once, in cross-replica context.

    Args:
        work: Gets the options that were in force at the call.

    Returns:
        What the work returns, to every replica.
    """
    import tensorflow as tf

    given = in_context()

    def run(_strategy: Any) -> Result:
        # Replicas meet in a thread that may not be the caller's.
        return work(given or current())

    if tf.distribute.in_cross_replica_context():
        return run(None)
    result: Result = tf.distribute.get_replica_context().merge_call(run)
    return result


def once_unconverted(work: Callable[[Options], Result]) -> Result:
    """The same, where AutoGraph would rewrite all of this as if it were the model's code."""
    import tensorflow as tf

    result: Result = tf.autograph.experimental.do_not_convert(once)(work)
    return result
