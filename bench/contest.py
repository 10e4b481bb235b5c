# SPDX-License-Identifier: Apache-2.0
"""Lets the contenders of a case run in turns, round by round, and keeps the times."""

from __future__ import annotations

import functools
import gc
import random
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench import fresh, page_cache
from bench.case import FLOOR, OURS, Case, Contender, Run

_SHORTEST = 0.002
"""Seconds that one sample takes at least: shorter runs are repeated within it."""


@dataclass
class Outcome:
    """What came of one contender.

    Attributes:
        seconds: Per run, one entry per round.
        cpu: Seconds of all processors, likewise.
        parts: Seconds by what was done, likewise, where a case has such parts.
        skipped: Why it did not run.
        error: What it raised, or how its result was wrong.
    """

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)
    skipped: str | None = None
    error: BaseException | None = None

    @property
    def median(self) -> float:
        ordered = sorted(self.seconds)
        return ordered[len(ordered) // 2]

    def median_parts(self) -> dict[str, float]:
        names = self.parts[0] if self.parts else ()
        return {name: statistics.median(each[name] for each in self.parts) for name in names}


def hold(case: Case, rounds: int, module: str = "") -> dict[str, Outcome]:
    """Runs every contender once for its result, and then all in turns.

    Their order is drawn anew for every round. With no rounds, only results are checked. `module` is
    where a child process finds the case, for those with ``fresh``.
    """
    outcomes = {contender.name: Outcome() for contender in case.contenders}
    with ExitStack() as stack:
        running = []
        for contender in case.contenders:
            outcome = outcomes[contender.name]
            outcome.skipped = contender.unavailable()
            if outcome.skipped is None:
                try:
                    running.append((contender, *_begin(case, contender, stack, module)))
                except _ColdCacheError as error:
                    outcome.skipped = str(error)
                except Exception as error:
                    outcome.error = error
        order = random.Random(rounds)
        for _ in range(rounds):
            # Always the same neighbour would always leave the same in the caches.
            order.shuffle(running)
            for contender, run, repeats in running:
                _sample(case, contender, run, repeats, outcomes[contender.name])
    if case.destination is not None:
        case.destination.free()
    return outcomes


class _ColdCacheError(Exception):
    """The page cache cannot be emptied of a file."""


def _begin(case: Case, contender: Contender, stack: ExitStack, module: str) -> tuple[Run, int]:
    """Starts a contender, checks its result and finds how often to repeat it in one sample."""
    if case.fresh:
        alone = functools.partial(fresh.sample, module, case, contender)
        alone()  # it checks its result itself
        return alone, 1
    run = stack.enter_context(contender.start())
    if case.destination is not None:
        case.destination.spoil()
    if contender.fraction == 1:
        case.check(run())
    else:
        run()
    _make_cold(case)
    began = time.perf_counter()
    run()
    once = time.perf_counter() - began
    repeats = 1 if case.cold else max(1, min(10_000, round(_SHORTEST / max(once, 1e-7))))
    return run, repeats


def _make_cold(case: Case) -> None:
    if case.cold is not None:
        try:
            page_cache.drop(case.cold())
        except OSError as error:
            raise _ColdCacheError(str(error)) from None


def _sample(case: Case, contender: Contender, run: Run, repeats: int, outcome: Outcome) -> None:
    if case.fresh:
        report = run()
        outcome.seconds.append(report["seconds"])
        outcome.cpu.append(report["cpu"])
        outcome.parts.append(report["parts"])
        return
    _make_cold(case)
    gc.collect()
    if not case.collecting:
        gc.disable()
    try:
        cpu, began = time.process_time(), time.perf_counter()
        for _ in range(repeats):
            run()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    finally:
        gc.enable()
    outcome.seconds.append(took / repeats / contender.fraction)
    outcome.cpu.append(cpu / repeats / contender.fraction)


def comparisons(case: Case, outcomes: dict[str, Outcome], name: str) -> dict[str, object]:
    """How one contender stands to ours (how many times slower it is) and to the best floor."""
    roles = {contender.name: contender.role for contender in case.contenders}
    medians = {name: outcome.median for name, outcome in outcomes.items() if outcome.seconds}
    found: dict[str, object] = {}
    ours = [seconds for who, seconds in medians.items() if roles[who] == OURS]
    floors = [seconds for who, seconds in medians.items() if roles[who] == FLOOR]
    if name in medians and ours:
        found["times_ours"] = medians[name] / ours[0]
    if name in medians and floors:
        found["share_of_floor"] = min(floors) / medians[name]
    return found
