# SPDX-License-Identifier: Apache-2.0
"""The threads of this process, as /proc shows them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


def _count() -> int:
    return len(os.listdir("/proc/self/task"))


def num_threads() -> int:
    """Returns the number of threads; a joined thread stays listed for a moment."""
    found = -1
    while found != (found := _count()):
        time.sleep(0.02)
    return found


def most_threads(work: Callable[[], object]) -> int:
    """Returns the largest number of threads that the call added, as another thread sees them."""
    counts = [0]
    started, stop = threading.Event(), threading.Event()

    def count() -> None:
        while not stop.is_set():
            counts.append(_count())
            started.set()

    thread = threading.Thread(target=count)
    thread.start()
    started.wait()
    before = _count()
    work()
    stop.set()
    thread.join()
    return max(counts) - before
