# SPDX-License-Identifier: Apache-2.0
"""The figures of a run, from the JSON file that pytest-benchmark writes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.case import FLOOR, OURS


@dataclass(frozen=True)
class Figure:
    """One contender in one case. ``facts`` is what ``conftest.duel`` has noted."""

    name: str
    role: str
    seconds: float
    fastest: float
    slowest: float
    facts: dict[str, Any]

    @property
    def rate(self) -> float | None:
        """Units per second, where the case counts any."""
        amount = self.facts["amount"]
        return amount / self.seconds if self.facts["unit"] else None


@dataclass(frozen=True)
class Contest:
    """All contenders of one case, in the order of the suite."""

    key: str
    title: str
    unit: str
    amount: int
    figures: list[Figure]

    @property
    def group(self) -> str:
        return self.key.split("/")[0]

    def find(self, name: str) -> Figure | None:
        """The first figure whose name begins so."""
        return next((each for each in self.figures if each.name.startswith(name)), None)

    @property
    def ours(self) -> Figure | None:
        return next((each for each in self.figures if each.role == OURS), None)

    @property
    def floor(self) -> Figure | None:
        """The fastest floor."""
        floors = [each for each in self.figures if each.role == FLOOR]
        return min(floors, key=lambda each: each.seconds, default=None)


@dataclass(frozen=True)
class Results:
    """A whole run."""

    machine: dict[str, Any]
    contests: list[Contest]
    rounds: int

    def match(self, pattern: str) -> Contest | None:
        """The contest with the largest amount among those whose whole key matches."""
        found = [each for each in self.contests if re.fullmatch(pattern, each.key)]
        return max(found, key=lambda each: each.amount, default=None)

    def groups(self) -> list[str]:
        return list(dict.fromkeys(each.group for each in self.contests))


def load(paths: Sequence[Path]) -> Results:
    """Reads a run, which may lie in several files; the first says what machine it was."""
    runs = [json.loads(path.read_text()) for path in paths]
    entries = [entry for run in runs for entry in run["benchmarks"]]
    figures: dict[str, list[Figure]] = {}
    for entry in entries:
        facts, stats = entry["extra_info"], entry["stats"]
        figure = Figure(
            facts["contender"], facts["role"], stats["median"], stats["min"], stats["max"], facts
        )
        figures.setdefault(facts["case"], []).append(figure)
    contests = [
        Contest(key, each[0].facts["title"], each[0].facts["unit"], each[0].facts["amount"], each)
        for key, each in figures.items()
    ]
    rounds = min((entry["stats"]["rounds"] for entry in entries), default=0)
    return Results(runs[0]["machine_info"], contests, rounds)
