# SPDX-License-Identifier: Apache-2.0
"""How variables get their values: copied or mapped, checked or not, by whose op.

What is in force when a function of this package is called is what its initializers do, whenever and
wherever they run.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

from tensorbundle import threads as thread_count

_MODES = ("copy", "map", "auto")
_VERIFY = ("full", "lazy", "none")
_OPS = ("auto", "stock")


def _require(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, not {value!r}")


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The options of one call.

    Attributes:
        mode: ``"copy"``; ``"map"``, which is a ValueError where something cannot be mapped;
            ``"auto"``, which maps what can be mapped and copies the rest.
        verify: ``"full"``, ``"lazy"``, ``"none"``; None is ``"full"`` for what is copied and
            ``"none"`` for what is mapped.
        threads: For one read; None leaves it to the process that reads.
        op: ``"auto"``: our op where it can be loaded. ``"stock"``: only TensorFlow's own.
    """

    mode: str = "copy"
    verify: str | None = None
    threads: int | None = None
    op: str = "auto"

    def __post_init__(self) -> None:
        _require("mode", self.mode, _MODES)
        _require("op", self.op, _OPS)
        if self.verify is not None:
            _require("verify", self.verify, _VERIFY)
        if self.threads is not None:
            thread_count.checked(self.threads)
        if self.op == "stock" and self.mode == "map":
            raise ValueError("TensorFlow's own op cannot map: mode='map' goes only with op='auto'")

    def verification(self, *, mapped: bool) -> str:
        """What ``verify`` means for something that is copied, or mapped."""
        return self.verify or ("none" if mapped else "full")


_process = Options()
_context: contextvars.ContextVar[Options | None] = contextvars.ContextVar(
    "tensorbundle_options", default=None
)


def current() -> Options:
    """The options in force here."""
    return _context.get() or _process


def in_context() -> Options | None:
    """The options of the innermost ``with options(...)``, None outside of all.

    A thread that TensorFlow started knows nothing of its creator's context, and the other way
    round: who crosses threads asks both sides.
    """
    return _context.get()


@contextlib.contextmanager
def options(
    *,
    mode: str | None = None,
    verify: str | None = None,
    threads: int | None = None,
    op: str | None = None,
) -> Iterator[Options]:
    """Options for the calls inside the ``with`` statement, in this thread or task.

    Args:
        mode: ``"copy"``, ``"map"`` or ``"auto"``; None leaves what is in force, as for all others.
        verify: ``"full"``, ``"lazy"`` or ``"none"``.
        threads: For one read, at least 1.
        op: ``"auto"`` or ``"stock"``.

    Raises:
        ValueError: Another value, or a combination that cannot be.

    Example:
        >>> with tb.tf.options(mode="map"):
        ...     tb.init_from_checkpoint(path, {"emb": table})
    """
    chosen = _changed(current(), mode, verify, threads, op)
    token = _context.set(chosen)
    try:
        yield chosen
    finally:
        _context.reset(token)


def set_options(
    *,
    mode: str | None = None,
    verify: str | None = None,
    threads: int | None = None,
    op: str | None = None,
) -> None:
    """Options for the whole process, wherever no ``with options(...)`` says otherwise.

    Args and Raises: As for ``options``.
    """
    global _process
    _process = _changed(_process, mode, verify, threads, op)


def _changed(
    base: Options, mode: str | None, verify: str | None, threads: int | None, op: str | None
) -> Options:
    given = {"mode": mode, "verify": verify, "threads": threads, "op": op}
    # One call, so that the combination is judged and not the way to it.
    return dataclasses.replace(base, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
