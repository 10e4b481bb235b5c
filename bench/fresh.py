# SPDX-License-Identifier: Apache-2.0
"""Runs one contender once in a process of its own: what a first call costs, warm-up excluded.

``python -m bench.fresh MODULE CASE CONTENDER`` checks the result and prints one JSON object.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench import child
from bench.case import Case, Contender


@dataclass
class Report:
    """What a contender of a case with ``fresh`` returns: its own times, and what to check.

    Attributes:
        value: For the case's check.
        seconds: What counts of the run.
        cpu: Seconds of all processors, likewise.
        parts: Seconds by what was done, those that do not count too.
    """

    value: Any = None
    seconds: float = 0.0
    cpu: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def part(self, name: str, *, counts: bool = True) -> Iterator[None]:
        """Times what is done inside the ``with`` statement."""
        cpu, began = time.process_time(), time.perf_counter()
        yield
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        self.parts[name] = took
        if counts:
            self.seconds += took
            self.cpu += cpu


def sample(module: str, case: Case, contender: Contender) -> dict[str, Any]:
    """Lets a child process run it: ``seconds``, ``cpu`` and ``parts`` of its report.

    Raises:
        RuntimeError: The child failed, or its result is wrong.
    """
    return child.call("bench.fresh", module, case, contender)


def _run_here(case: Case, contender: Contender) -> dict[str, Any]:
    with contender.start() as run:
        gc.collect()
        if not case.collecting:
            gc.disable()
        report = run()
        gc.enable()
        case.check(report)
    return {"seconds": report.seconds, "cpu": report.cpu, "parts": report.parts}


def main(*arguments: str) -> None:
    print(json.dumps(_run_here(*child.asked_for(*arguments))))


if __name__ == "__main__":
    main(*sys.argv[1:])
