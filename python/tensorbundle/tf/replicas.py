# SPDX-License-Identifier: Apache-2.0
"""Runs a call once, even if every replica makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tensorbundle.tf.options import Options, current, in_context

Result = TypeVar("Result")


def once(work: Callable[[Options], Result]) -> Result:
    """Runs `work` once, in cross-replica context.

    Args:
        work: Called with the options that are in effect at the call.

    Returns:
        The result of `work`, in every replica.
    """
    import tensorflow as tf

    given = in_context()

    def run(_strategy: Any) -> Result:
        # merge_call may run this in another thread.
        return work(given or current())

    if tf.distribute.in_cross_replica_context():
        return run(None)
    result: Result = tf.distribute.get_replica_context().merge_call(run)
    return result


def once_unconverted(work: Callable[[Options], Result]) -> Result:
    """As ``once``, without AutoGraph converting the code that runs."""
    import tensorflow as tf

    result: Result = tf.autograph.experimental.do_not_convert(once)(work)
    return result
