# SPDX-License-Identifier: Apache-2.0
"""One call, however many replicas make it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorbundle.tf.options import Options, current, in_context


def once(work: Callable[[Options], None]) -> None:
    """Does the work once, in cross-replica context.

    Args:
        work: Gets the options that were in force at the call.
    """
    import tensorflow as tf

    given = in_context()

    def run(_strategy: Any) -> None:
        # Replicas meet in a thread that may not be the caller's.
        work(given or current())

    if tf.distribute.in_cross_replica_context():
        run(None)
    else:
        tf.distribute.get_replica_context().merge_call(run)
