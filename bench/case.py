# SPDX-License-Identifier: Apache-2.0
"""Benchmark cases: a case is a task, a contender is an implementation of it."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.util
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import baseline
from bench.data import Array

SIZES = ("smoke", "256MB", "1GB", "4GB", "table", "variables")
"""The values of ``--bench-size``. A test module defines the cases of each size."""
THREADS = len(os.sched_getaffinity(0))

Run = Callable[[], Any]
OURS, COMPETITOR, BASELINE = "ours", "competitor", "baseline"
VERIFIED, UNVERIFIED, NONE = "compared", "not compared", "none stored"
"""Whether a contender compares the stored checksum."""


def parse_sizes(text: str) -> list[str]:
    """Returns the sizes of a comma-separated list; ``all`` is every size but ``smoke``."""
    names = list(SIZES[1:]) if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in SIZES]:
        message = f"unknown size {unknown[0]!r}; the sizes are {', '.join(SIZES)} and all"
        raise argparse.ArgumentTypeError(message)
    return names


@functools.cache
def tensorflow() -> Any:
    """Imports TensorFlow for the CPU, without its log messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    return importlib.import_module("tensorflow")


@dataclass(frozen=True)
class Contender:
    """An implementation of a task.

    Attributes:
        name: The name in tables and plots.
        start: Returns a context manager that yields the function to time. The context manager opens
            files and allocates the destination, which is not timed.
        role: ``OURS``, ``COMPETITOR`` or ``BASELINE``, which is C code unless it needs modules.
        checksum: ``VERIFIED``, ``UNVERIFIED`` or ``NONE``.
        needs: The modules that must be installed.
        fraction: The fraction of the task that a slow contender does. Times are scaled up to the
            full task.
    """

    name: str
    start: Callable[[], AbstractContextManager[Run]]
    role: str = COMPETITOR
    checksum: str = NONE
    needs: tuple[str, ...] = ()
    fraction: float = 1.0

    def unavailable(self) -> str | None:
        """Returns the reason why the contender cannot run here, or None."""
        if self.role == BASELINE and not self.needs:
            return None if baseline.compiler() else "no C compiler"
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"{', '.join(missing)} not installed" if missing else None


class Destination:
    """The array that contenders write into. Its pages are allocated at the first use."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.nbytes = 4 * math.prod(shape)
        self._array: Array | None = None

    @property
    def array(self) -> Array:
        if self._array is None:
            self._array = np.full(self.shape, np.nan, np.float32)
        return self._array

    def reset(self) -> None:
        """Overwrites the result of the previous contender, before a result is checked."""
        if self._array is not None:
            self._array[...] = np.nan

    def free(self) -> None:
        self._array = None


@dataclass(frozen=True)
class Case:
    """A task that all contenders do.

    Attributes:
        key: A unique name, for example "gather/256B uniform, 1 thread".
        title: One line for the tables.
        contenders: The contenders, tensorbundle first.
        check: Raises AssertionError if the result of a contender is wrong.
        unit: The unit of `amount`: "bytes", "rows", "tokens", "tensors", or "" for no rate.
        amount: The number of units in one run.
        destination: The object that contenders share, with the methods of ``Destination``.
        cold_files: The files to drop from the page cache before every run.
        memory: Whether to measure peak memory and bytes read in a separate process.
        touched_files: The files whose pages in the page cache are counted after a run.
        fresh_process: Whether every sample runs in a fresh process. A run then returns ``Phases``,
            and that process calls `check` with them.
        gc_enabled: Whether the garbage collector is on while the case is timed.
    """

    key: str
    title: str
    contenders: Sequence[Contender]
    check: Callable[[Any], None]
    unit: str = ""
    amount: int = 0
    destination: Any = field(default_factory=Destination)
    cold_files: Callable[[], Sequence[Path]] | None = None
    memory: bool = False
    touched_files: Callable[[], Sequence[Path]] | None = None
    fresh_process: bool = False
    gc_enabled: bool = False


class Phases:
    """The result of a run with several timed phases.

    Attributes:
        result: The result for the case's check.
        times: Seconds per phase, and two sums over the phases with ``counts``: ``seconds`` of wall
            time and ``cpu_time`` of all processors.
    """

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.times = {"seconds": 0.0, "cpu_time": 0.0}

    @contextlib.contextmanager
    def phase(self, name: str, *, counts: bool = True) -> Iterator[None]:
        """Times the body of the ``with`` statement."""
        cpu, start = time.process_time(), time.perf_counter()
        yield
        self.times[name] = time.perf_counter() - start
        if counts:
            self.times["seconds"] += self.times[name]
            self.times["cpu_time"] += time.process_time() - cpu
