# SPDX-License-Identifier: Apache-2.0
"""What is measured: a case is one task, a contender one way to do it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import tensorbundle as tb
from bench import ceiling, rivals
from bench.content import Array

Run = Callable[[], Any]
OURS, RIVAL, FLOOR = "ours", "rival", "floor"
VERIFIED, UNVERIFIED, NONE = "compared", "not compared", "none stored"
"""What becomes of the stored checksum."""


@dataclass(frozen=True, repr=False)
class Contender:
    """One way to do a task.

    Attributes:
        name: For the tables.
        start: Enters a context that gives the function to be timed. What is done on the way there
            (opening, allocating the destination) does not count.
        role: ``"ours"``, ``"rival"`` or ``"floor"``: C without checks, unless it needs a module.
        checksum: ``VERIFIED``, ``UNVERIFIED`` or ``NONE``.
        needs: Modules to import.
        api: Names of ours that must exist, as "Tensor.take" or "remap_vocab".
        fraction: The part of the task that is done, where all of it would take too long; times are
            given as if all were done.
    """

    name: str
    start: Callable[[], AbstractContextManager[Run]]
    role: str = RIVAL
    checksum: str = NONE
    needs: tuple[str, ...] = ()
    api: tuple[str, ...] = ()
    fraction: float = 1.0

    def __repr__(self) -> str:
        return self.name

    def unavailable(self) -> str | None:
        """Why it cannot run here, or None."""
        if self.role == FLOOR and not self.needs:
            return ceiling.unavailable()
        lacking = [name for name in self.api if not _has(name)]
        return f"no {lacking[0]} yet" if lacking else rivals.missing(*self.needs)


def _has(dotted: str) -> bool:
    found: Any = tb
    for part in dotted.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


@dataclass(frozen=True, repr=False)
class Case:
    """One task that contenders do in turns.

    Attributes:
        key: Unique: "gather/256B uniform, 1 thread".
        title: One line for the tables.
        contenders: Ours first.
        check: Raises AssertionError if a contender's result is wrong.
        unit: What is counted: "bytes", "rows", "tokens", "tensors" or "" (nothing).
        amount: How many of them one run does.
        destination: Where the contenders put their result, where they share one.
        cold: Files to put out of the page cache before every run.
        weigh: Whether memory and bytes read are measured too, each in a process of its own.
        chunk: Bytes that a streamed case hands over at a time.
        touched: Files of which to count the pages that one run brings into the page cache.
        fresh: Whether every sample is a process of its own. A run then returns a ``fresh.Report``
            with its own times, and `check` looks at that, in the child.
        collecting: Whether Python's garbage collector runs meanwhile, as it does for users. Where
            very many objects are made, its passes are part of what they cost.
    """

    key: str
    title: str
    contenders: Sequence[Contender]
    check: Callable[[Any], None]
    unit: str = ""
    amount: int = 0
    destination: Scratch | None = None
    cold: Callable[[], Sequence[Path]] | None = None
    weigh: bool = False
    chunk: int = 0
    touched: Callable[[], Sequence[Path]] | None = None
    fresh: bool = False
    collecting: bool = False

    def __repr__(self) -> str:
        return self.key


class Scratch(Protocol):
    """What contenders share: made fresh for the first look at a result, let go of at the end."""

    def spoil(self) -> None: ...
    def free(self) -> None: ...


class Destination:
    """An array that is allocated when first asked for, and then has its pages."""

    def __init__(self, *shape: int, dtype: Any = np.float32) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._array: Array | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def array(self) -> Array:
        if self._array is None:
            self._array = np.empty(self.shape, self.dtype)
            self.spoil()
        return self._array

    def spoil(self) -> None:
        """Overwrites what an earlier contender has left."""
        if self._array is not None:
            self._array.reshape(-1).view(np.uint8)[...] = 0xFF

    def free(self) -> None:
        self._array = None
