# SPDX-License-Identifier: Apache-2.0
"""The figures of a run, the cases of the summary, and the targets.

A figure that was not measured is NaN, and so are figures computed from it.
"""

from __future__ import annotations

import json
import math
import mmap
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.case import BASELINE, OURS
from bench.data import DIM, MIB

MB = 1_000_000
NAN = float("nan")


class Figure:
    """The figures of one contender: an entry of pytest-benchmark's JSON."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.info, stats = entry["extra_info"], entry["stats"]
        self.name, self.role = self.info["name"], self.info["role"]
        self.seconds: float = stats["median"]
        self.fastest, self.slowest = stats["min"], stats["max"]

    def get(self, name: str) -> float:
        return float(self.info.get(name, NAN))


MISSING = Figure({"extra_info": {"name": "none", "role": ""},
                  "stats": {"median": NAN, "min": NAN, "max": NAN}})  # fmt: skip


def fastest(figures: Iterable[Figure]) -> Figure:
    return min(figures, key=lambda figure: figure.seconds, default=MISSING)


class Comparison:
    """The figures of all contenders of one case, tensorbundle first."""

    def __init__(self, workload: str, key: str, figures: list[Figure]) -> None:
        self.workload, self.key, self.figures = workload, key, figures
        self.own, info = figures[0], figures[0].info
        title: str = info["title"]
        is_name = "_" in title.partition(" ")[0]  # of a function, such as warm_start
        self.title = title if is_name else title[0].upper() + title[1:]
        self.unit: str = info["unit"]
        self.amount: int = info["amount"]
        self.baseline = fastest(each for each in figures if each.role == BASELINE)

    def find(self, name: str) -> Figure:
        """Returns the first figure whose name starts with `name`."""
        return next((each for each in self.figures if each.name.startswith(name)), MISSING)

    def find_last(self, end: str) -> Figure:
        """Returns tensorbundle's figure whose name ends with `end`."""
        own = (each for each in self.figures if each.role == OURS and each.name.endswith(end))
        return next(own, MISSING)

    def speedup(self, other: Figure) -> float:
        """Returns the speedup of tensorbundle over another contender."""
        return other.seconds / self.own.seconds


class Results:
    """A run, from the JSON files of its workloads, without cases that tensorbundle did not run."""

    def __init__(self, paths: Sequence[Path]) -> None:
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        entries = [entry for run in runs for entry in run["benchmarks"]]
        self.machine: dict[str, Any] = runs[0]["machine_info"]
        self.date: str = runs[0]["datetime"][:10]
        self.rounds = min((entry["stats"]["rounds"] for entry in entries), default=0)
        figures: dict[tuple[str, str], list[Figure]] = {}
        for entry in entries:
            workload = entry["fullname"].partition("test_")[2].partition(".py")[0]
            figures.setdefault((workload, entry["group"]), []).append(Figure(entry))
        self.comparisons = [
            Comparison(*names, each) for names, each in figures.items() if each[0].role == OURS
        ]

    def thread_pairs(self) -> Iterator[tuple[Comparison, float]]:
        """Yields the comparisons that were also measured with 1 thread, and those seconds."""
        for case in self.comparisons:
            single = case.find_last("1 thread")
            if single is MISSING and case.key.endswith(" threads"):
                other = self.find(re.escape(case.key.rpartition(",")[0]) + ", 1 thread")
                single = other.own if other else MISSING
            if single is not MISSING and single is not case.own:
                yield case, single.seconds

    def find_all(self, pattern: str) -> list[Comparison]:
        """Returns the comparisons with a fully matching key."""
        return [each for each in self.comparisons if re.fullmatch(pattern, each.key)]

    def find(self, pattern: str) -> Comparison | None:
        """Returns the matching comparison with the largest amount."""
        return max(self.find_all(pattern), key=lambda each: each.amount, default=None)


@dataclass(frozen=True)
class Target:
    """A limit for a measured value.

    Attributes:
        case: The pattern of the case's key.
        text: The target in words.
        value: Returns the measured value.
        unit: Its unit: "s", "B", "x" (a speedup) or "".
        least: The smallest value that reaches the target.
        most: The largest value that reaches the target.
        most_per_unit: The increase of `most` per unit of the case's amount.
    """

    case: str
    text: str
    value: Callable[[Results, Comparison], float]
    unit: str = ""
    least: float = -math.inf
    most: float = math.inf
    most_per_unit: float = 0

    def reached(self, value: float, case: Comparison) -> bool:
        return self.least <= value <= self.most + self.most_per_unit * case.amount


def _speedup(case: str, least: float, other: str) -> Target:
    text = f"at least {least:,g}x faster than {other}" if least > 1 else f"not slower than {other}"
    return Target(case, text, lambda _, it: it.speedup(it.find(other)), "x", least)


def _share(case: str, least: float) -> Target:
    text = f"at least {least:g} of the speed of the C baseline"
    return Target(case, text, lambda _, it: it.speedup(it.baseline), "", least)


def _seconds(case: str, most: float) -> Target:
    text = f"at most {most * 1e3:g} ms"
    return Target(case, text, lambda _, it: it.own.seconds, "s", most=most)


def _memory(case: str, text: str, most: float, per_unit: float = 0) -> Target:
    text = f"peak memory at most {text}"
    return Target(case, text, lambda _, it: it.own.get("peak_memory"), "B", 0, most, per_unit)


def _gain_of_threads(run: Results, it: Comparison) -> float:
    single_thread = run.find(GATHER)
    return it.speedup(single_thread.own) if single_thread else NAN


IMPORT, OPEN = r"import/.*", r"open/(40000|500) tensors"
READ, VIEW, ROW = r"read/(256|2) MiB, warm", r"view/(256|2) MiB", r"row/of \S+ \S+"
EIGHTH, ROWS = (rf"box/{what} an eighth of (256|2) MiB" for what in ("whole and", "rows,"))
SMALL, MODEL = r"small/\d+ tensors by name", r"small/model of \d+ tensors"
LOAD, STRINGS, V1 = r"load/.*", r"strings/\d+", r"read V1/.*"
GATHER, GATHER_ALL = (
    rf"gather/.* x 256 B of \d+, uniform, {threads}" for threads in ("1 thread", r"\d+ threads")
)
REMAP, JOIN_REMAP = r"remap/\d+ of \d+ rows, 10 % missing", r"remap/\d+ rows, from vocabularies"
JOIN, JOIN_SMALL = r"join/\d+ tokens", r"join/small, \d+ tokens"
STREAM, STREAM_COLD = (rf"stream/\S+ \S+, {state}" for state in ("warm", "cold"))
STREAM_MEMORY = r"stream/\S+ GiB, {}"  # the cases with chunks of 16 MiB
SAVE, SAVE_SMALL = r"save/\S+ GiB", r"save/small, \d+ tensors"
COLD = [rf"cold/{what}" for what in (r"\S+ \S+", "stream of .*", ".* random rows .*", "one row .*")]
INIT, INIT_MAPPED = r"init/\S+ \S+ into \d+", r"init/\S+ \S+ into \d+, aligned"
INIT_WHOLE, INIT_ALONE = r"init/\S+ \S+ whole", r"init/\S+ \S+, mapped"
WARM, WARM_SPLIT = r"warm/.*, one variable", r"warm/.*, \d+ partitions"
WARM_LARGE, WARM_LARGE_SPLIT = r"warm large/.*, one variable", r"warm large/.*, \d+ partitions"
DIFF, DIFF_VALUES = (rf"diff/BERT of \d+ layers, {what}" for what in ("equal", "all changed"))
EDIT, CONVERT = r"edit/.*", r"convert/.*"
AVERAGE = r"average/\d+ BERTs of \d+ layers"

SUMMARY = (OPEN, SMALL, READ, LOAD, ROWS, ROW, GATHER, REMAP, JOIN, STREAM, INIT, WARM_SPLIT)

TARGETS = (
    Target(IMPORT, "at most 25 ms more than numpy and ml_dtypes",
           lambda _, it: it.own.seconds - it.find("numpy").seconds, "s", most=0.025),
    _speedup(OPEN, 8, "TensorFlow reader"),
    _speedup(SMALL, 1.5, "TensorFlow reader"),
    _speedup(MODEL, 2.5, "TensorFlow reader"),
    _speedup(READ, 2, "TensorFlow reader"),
    _speedup(LOAD, 3, "TensorFlow reader"),
    _speedup(LOAD, 2.5, "safetensors"),
    _speedup(STRINGS, 2, "TensorFlow reader"),
    _speedup(V1, 5, "TensorFlow reader"),
    _memory(V1, "8 MB", 8 * MB),
    _seconds(VIEW, 0.001),
    Target(EIGHTH, "an eighth takes at most 0.15 of the time of the whole",
           lambda _, it: it.speedup(it.find("eighth")), most=0.15),
    _speedup(ROW, 1000, "TensorFlow RestoreV2"),
    _speedup(ROW, 1, "safetensors"),
    Target(ROW, "at most two pages read into the page cache",
           lambda _, it: it.own.get("touched"), "B", most=2 * mmap.PAGESIZE),
    Target(GATHER, "in every case at least 0.9 of the speed of the better C baseline",
           lambda run, _: min(it.speedup(it.baseline) for it in run.find_all(r"gather/.*")),
           least=0.9),
    _speedup(GATHER, 1, "numpy.memmap, take"),
    Target(GATHER_ALL, "faster than with 1 thread", _gain_of_threads, "x", 1),
    _memory(GATHER, "32 MB", 32 * MB),
    _speedup(REMAP, 30, "TensorFlow LoadAndRemapMatrix"),
    _memory(REMAP, "32 MB", 32 * MB),
    _memory(JOIN_REMAP, "32 MB and 16 bytes per token", 32 * MB, 2 * 16),
    _speedup(JOIN, 5, "pyarrow"),
    _speedup(JOIN_SMALL, 1.5, "TensorFlow GenerateVocabRemapping"),
    _share(STREAM, 0.8),
    _memory(STREAM_MEMORY.format("warm"), "16 MB and two chunks of 16 MiB", 16 * MB + 32 * MIB),
    _share(STREAM_COLD, 0.8),
    _memory(STREAM_MEMORY.format("cold"), "16 MB and two chunks of 16 MiB", 16 * MB + 32 * MIB),
    *(_share(case, 0.9) for case in COLD),
    _speedup(SAVE, 1.5, "TensorFlow SaveV2, no sync"),
    _memory(SAVE, "64 MB", 64 * MB),
    _speedup(SAVE_SMALL, 1, "TensorFlow SaveV2, no sync"),
    _speedup(INIT, 15, "TensorFlow"),
    _memory(INIT, "1.1 times the table", 0, 1.1),
    _speedup(INIT_MAPPED, 300, "TensorFlow"),
    _memory(INIT_MAPPED, "64 MB, first use included", 64 * MB),
    _speedup(INIT_WHOLE, 1.8, "TensorFlow"),
    Target(INIT_WHOLE, "at every size at most 1 ms slower than TensorFlow",
           lambda run, _: max(it.own.seconds - it.find("TensorFlow").seconds
                              for it in run.find_all(INIT_WHOLE)), "s", most=0.001),
    _seconds(INIT_ALONE, 0.05),
    _memory(INIT_ALONE, "64 MB, first use included", 64 * MB),
    _speedup(WARM, 28, "TensorFlow"),
    _speedup(WARM_SPLIT, 80, "TensorFlow"),
    _share(WARM_LARGE, 0.7),
    _share(WARM_LARGE_SPLIT, 0.7),
    _memory(WARM_LARGE, "1.3 times the table", 0, 1.3 * 4 * 16),
    _memory(WARM_LARGE_SPLIT, "1.3 times the table", 0, 1.3 * 4 * 16),
    _memory(WARM_SPLIT, "1.25 times the table", 0, 1.25 * 4 * DIM),
    _speedup(DIFF, 80, "TensorFlow reader"),
    _speedup(DIFF_VALUES, 1, "TensorFlow reader"),
    _memory(DIFF_VALUES, "32 MB", 32 * MB),
    _speedup(EDIT, 1, "TensorFlow RestoreV2"),
    _memory(EDIT, "96 MB", 96 * MB),
    _speedup(CONVERT, 1, "TensorFlow and safetensors"),
    _memory(CONVERT, "96 MB", 96 * MB),
    _speedup(AVERAGE, 1, "TensorFlow"),
    _memory(AVERAGE, "96 MB", 96 * MB),
    Target(WARM, "at every size at most 50 ms for building the graph",
           lambda run, _: max(it.own.get("building") for it in run.find_all(r"warm/.*")),
           "s", most=0.05),
)  # fmt: skip
