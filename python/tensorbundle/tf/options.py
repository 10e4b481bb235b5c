# SPDX-License-Identifier: Apache-2.0
"""Options of reading: copy or map, verification, threads, and which op.

The options in effect when a function of this package is called apply to its initializers, whenever
and wherever they run.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_args

from tensorbundle.arguments import Verify, check_threads

Mode = Literal["copy", "map", "auto"]
Ops = Literal["auto", "native", "stock"]

_MODES: tuple[Mode, ...] = get_args(Mode)
_VERIFY: tuple[Verify, ...] = ("full", "lazy", "none")
_OPS: tuple[Ops, ...] = get_args(Ops)


def _require(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, not {value!r}")


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The options of one call.

    Attributes:
        mode: ``"copy"``; ``"map"``: raises ValueError for a tensor that cannot be mapped;
            ``"auto"``: maps where possible and copies otherwise.
        verify: ``"full"``, ``"lazy"``, ``"none"``; None means ``"full"`` for copies and
            ``"none"`` for mappings.
        threads: The number of threads per read; None: the default of the process that reads.
        op: Which ops a graph gets. ``"auto"``: TensorFlow's own, which our kernels serve, and ours
            where these cannot express the job. ``"native"``: ours, so that each server reads and
            verifies its own part. ``"stock"``: only TensorFlow's own.
    """

    mode: Mode = "copy"
    verify: Verify | None = None
    threads: int | None = None
    op: Ops = "auto"

    def __post_init__(self) -> None:
        _require("mode", self.mode, _MODES)
        _require("op", self.op, _OPS)
        if self.verify is not None:
            _require("verify", self.verify, _VERIFY)
        if self.threads is not None:
            check_threads(self.threads)
        if self.op == "stock" and self.mode == "map":
            raise ValueError("TensorFlow's own op cannot map: mode='map' excludes op='stock'")

    def verification(self, *, mapped: bool) -> Verify:
        """Returns the value of ``verify`` for a copy or a mapping."""
        return self.verify or ("none" if mapped else "full")


_process = Options()
_context: contextvars.ContextVar[Options | None] = contextvars.ContextVar(
    "tensorbundle_options", default=None
)


def current() -> Options:
    """Returns the options in effect."""
    return _context.get() or _process


def in_context() -> Options | None:
    """Returns the options of the innermost ``with options(...)``, or None if there is none.

    A thread started by TensorFlow does not inherit the context of its creator, so code that
    crosses threads must check both contexts.
    """
    return _context.get()


@contextlib.contextmanager
def options(
    *,
    mode: Mode | None = None,
    verify: Verify | None = None,
    threads: int | None = None,
    op: Ops | None = None,
) -> Iterator[Options]:
    """Sets options for the calls inside the ``with`` statement, in this thread or task.

    Args:
        mode: ``"copy"``, ``"map"`` or ``"auto"``; None keeps the current value, as for all others.
        verify: ``"full"``, ``"lazy"`` or ``"none"``.
        threads: The number of threads per read, at least 1.
        op: ``"auto"``, ``"native"`` or ``"stock"``.

    Raises:
        ValueError: An invalid value, or an invalid combination.

    Examples:
        >>> with tb.tf.options(mode="map"):
        ...     tb.init_from_checkpoint(path, {"emb": table})
    """
    chosen = _changed(current(), mode=mode, verify=verify, threads=threads, op=op)
    token = _context.set(chosen)
    try:
        yield chosen
    finally:
        _context.reset(token)


def set_options(
    *,
    mode: Mode | None = None,
    verify: Verify | None = None,
    threads: int | None = None,
    op: Ops | None = None,
) -> None:
    """Sets options for the whole process. ``with options(...)`` takes precedence.

    Args and Raises: As for ``options``.
    """
    global _process
    _process = _changed(_process, mode=mode, verify=verify, threads=threads, op=op)


def _changed(base: Options, **given: Any) -> Options:
    # All at once: only the resulting combination must be valid.
    return dataclasses.replace(base, **{k: v for k, v in given.items() if v is not None})
