# SPDX-License-Identifier: Apache-2.0
"""How many threads a call may use."""

from __future__ import annotations

from typing import SupportsIndex

from tensorbundle import _core
from tensorbundle.arguments import size

_MOST = 1 << 16  # more than any machine has processors


def set_num_threads(n: SupportsIndex | None) -> None:
    """Sets how many threads a call may use when nothing else was asked for.

    Args:
        n: At least 1, or None for the default: the processors that this process may run on, by its
            affinity and its cgroup's quota.

    Raises:
        ValueError: `n` is less than 1.
    """
    _core.set_default_threads(0 if n is None else checked(n))


def checked(n: SupportsIndex) -> int:
    """Returns `n` if it is a usable number of threads.

    Raises:
        TypeError: `n` is not an integer.
        ValueError: `n` is less than 1, or more than any machine has.
    """
    return size(n, "threads", 1, _MOST)


def current(wanted: int | None) -> int:
    """The number of threads of a call: `wanted`, else the default, else all processors."""
    return wanted or _core.default_threads() or _core.available_processors()
