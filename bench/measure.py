# SPDX-License-Identifier: Apache-2.0
"""Measurements that pytest-benchmark does not support.

``compare`` alternates the contenders of a case, so that a slow minute of the machine affects all of
them. ``in_fresh_process`` runs one contender in a separate process with the command ``python -m
bench.measure ACTION MODULE CASE CONTENDER``, which prints one JSON object.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import json
import mmap
import os
import random
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import baseline
from bench.case import NONE, SIZES, Case, Contender, Run

Figures = dict[str, float]
_SHORTEST_SAMPLE = 0.002
"""Seconds. Shorter runs are repeated within one sample."""


@dataclass
class Outcome:
    """The measurements of one contender.

    Attributes:
        samples: One value per round of each figure: ``seconds`` and ``cpu_time`` of all processors,
            and the phases of a case in a fresh process.
        skipped: The reason why the contender did not run.
        error: The exception of the contender, or of the check of its result.
    """

    samples: dict[str, list[float]] = field(default_factory=dict)
    skipped: str | None = None
    error: Exception | None = None


def compare(case: Case, rounds: int, module: str = "") -> dict[str, Outcome]:
    """Checks the result of every contender once, and then times all contenders in each round.

    Args:
        case: The case.
        rounds: The number of samples per contender; with 0, results are only checked.
        module: The module whose ``cases`` function returns the case, for fresh processes.
    """
    outcomes = {each.name: Outcome(skipped=each.unavailable()) for each in case.contenders}
    ready: list[tuple[Outcome, Callable[[], Figures]]] = []
    with ExitStack() as stack:
        for contender in case.contenders:
            outcome = outcomes[contender.name]
            if outcome.skipped is None:
                try:
                    ready.append((outcome, prepare(case, contender, rounds, stack, module)))
                except ColdCacheError as error:
                    outcome.skipped = str(error)
                except Exception as error:
                    outcome.error = error
        order = random.Random(rounds)
        for _ in range(rounds):
            # In a fixed order, a contender would always run after the same other one.
            order.shuffle(ready)
            for outcome, sample in ready:
                for name, value in sample().items():
                    outcome.samples.setdefault(name, []).append(value)
    case.destination.free()
    return outcomes


def prepare(
    case: Case, contender: Contender, rounds: int, stack: ExitStack, module: str
) -> Callable[[], Figures]:
    """Starts a contender and checks its result; returns a function that takes one sample."""
    if case.fresh_process:
        sample = functools.partial(in_fresh_process, "times", module, case, contender)
        sample()  # the process checks the result
        return sample
    run = stack.enter_context(contender.start())
    case.destination.reset()
    result = run()
    if contender.fraction == 1:
        case.check(result)
    del result
    if case.cold_files:
        drop(case.cold_files())
    repeats = 1
    if rounds and not case.cold_files:
        once = max(timeit.timeit(run, number=1), 1e-7)
        repeats = min(max(round(_SHORTEST_SAMPLE / once), 1), 10_000)
    return functools.partial(_sample, case, run, repeats, repeats * contender.fraction)


def _sample(case: Case, run: Run, repeats: int, tasks: float) -> Figures:
    if case.cold_files:
        drop(case.cold_files())
    gc.collect()
    timer = timeit.Timer(run, gc.enable if case.gc_enabled else "pass")  # Timer disables it
    cpu = time.process_time()
    seconds = timer.timeit(repeats)
    return {"seconds": seconds / tasks, "cpu_time": (time.process_time() - cpu) / tasks}


def in_fresh_process(action: str, module: str, case: Case, contender: Contender) -> Figures:
    """Runs a contender once; `action` selects the figures of ``_times`` or ``_memory``.

    Raises:
        RuntimeError: The process failed, or the result is wrong.
    """
    command = [sys.executable, "-m", "bench.measure", action, module, case.key, contender.name]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{contender.name} for {case.key} failed:\n{done.stderr}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(action: str, module: str, key: str, name: str) -> None:
    cases = importlib.import_module(module).cases
    case = next(case for size in SIZES for case in cases(size) if case.key == key)
    contender = next(each for each in case.contenders if each.name == name)
    with contender.start() as run:
        gc.collect()
        figures = _times(case, run) if action == "times" else _memory(case, contender, run)
        print(json.dumps(figures))


def _times(case: Case, run: Run) -> Figures:
    """Runs once and checks the result; returns the times of the phases."""
    if not case.gc_enabled:
        gc.disable()
    phases = run()
    gc.enable()
    case.check(phases)
    times: Figures = phases.times
    return times


def _memory(case: Case, contender: Contender, run: Run) -> Figures:
    """Measures memory and reads; omits a figure that the system does not provide.

    Returns:
        ``peak_memory``: the peak of anonymous memory above its level before the run.
        ``peak_with_files``: the same, with mapped pages of files. ``read``: bytes returned by read
        calls. ``touched``: bytes of the case's files that the run loaded into an empty page cache.
    """
    # A contender with another file format does not read these files.
    counted = case.touched_files if contender.checksum != NONE else None
    touched = list(counted()) if counted else []
    try:
        drop([*touched, *(case.cold_files() if case.cold_files else ())])
    except ColdCacheError:
        touched = []
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the current VmRSS
    sampling = baseline.compiler() and not baseline.call("memory_sampler_start")
    before = _process_figures()
    run()
    after = _process_figures()
    figures: Figures = {
        "peak_with_files": after["VmHWM"] - before["VmRSS"],
        "read": after["rchar"] - before["rchar"],
    }
    if sampling:
        figures["peak_memory"] = max(0, baseline.call("memory_sampler_stop") - before["RssAnon"])
    if touched:
        figures["touched"] = sum(map(resident, touched))
    return figures


def _process_figures() -> dict[str, int]:
    """Returns the numbers of /proc/self/io and /proc/self/status, in bytes."""
    figures = {}
    for file in ("io", "status"):
        for line in Path("/proc/self", file).read_text().splitlines():
            name, _, value = line.partition(":")
            number, _, unit = value.strip().partition(" ")
            if number.isdigit():
                figures[name] = int(number) * (1024 if unit == "kB" else 1)
    return figures


class ColdCacheError(Exception):
    """A file could not be dropped from the page cache."""


def drop(paths: Iterable[Path]) -> None:
    """Drops files from the page cache.

    Raises:
        ColdCacheError: More than 1 % of a file stays in it, as on a file system in memory.
    """
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        left, size = resident(path), path.stat().st_size
        if left > max(size // 100, 16 * mmap.PAGESIZE):
            raise ColdCacheError(f"{left} of {size} bytes of {path.name} stay in the page cache")


def resident(path: Path) -> int:
    """Returns the number of bytes of a file in the page cache."""
    mapping = np.memmap(path, np.uint8, "r")
    pages = np.zeros(-(-mapping.size // mmap.PAGESIZE), np.uint8)
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    if mincore(mapping.ctypes.data, mapping.size, pages.ctypes.data):
        raise OSError(ctypes.get_errno(), f"mincore of {path.name}")
    return int(np.count_nonzero(pages & 1)) * mmap.PAGESIZE


if __name__ == "__main__":
    main(*sys.argv[1:])
