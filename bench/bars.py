# SPDX-License-Identifier: Apache-2.0
"""What the package has to reach, and whether a run did."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.results import Contest, Figure, Results

MB = 1_000_000
TIMES = "\N{MULTIPLICATION SIGN}"
_TASK = r"uniform, 1 thread"


@dataclass(frozen=True)
class Verdict:
    """One bar. `reached` is None where the run does not tell."""

    workload: str
    bar: str
    measured: str
    reached: bool | None


def judge(results: Results) -> list[Verdict]:
    """All bars, in the order of the workloads."""
    return [verdict for rule in _RULES for verdict in rule(results)]


def _ratio(
    contest: Contest | None, rival: str, bar: float, workload: str, ours: str = "tensorbundle"
) -> Verdict:
    """At least `bar` times as fast as a rival in the same contest."""
    text = f"≥ {bar:,g}{TIMES} {rival}"
    left = contest.find(ours) if contest else None
    right = contest.find(rival) if contest else None
    if contest is None or left is None or right is None:
        return Verdict(workload, text, "not measured", None)
    value = right.seconds / left.seconds
    return Verdict(contest.title, text, f"{value:,.3g}{TIMES}", value >= bar)


def _share(contest: Contest | None, bar: float, workload: str) -> Verdict:
    """At least this share of what C does without checks."""
    text = f"≥ {bar:g} of the floor in C"
    if contest is None or contest.ours is None or contest.floor is None:
        return Verdict(workload, text, "not measured", None)
    value = contest.floor.seconds / contest.ours.seconds
    return Verdict(contest.title, text, f"{value:.2f}", value >= bar)


def _at_most(
    contest: Contest | None, value: Callable[[Figure], float | None], bar: float, workload: str,
    unit: str, scale: float,
) -> Verdict:  # fmt: skip
    """A figure of ours that must not exceed `bar`; both are divided by `scale` for the text."""
    text = f"≤ {bar / scale:,.4g} {unit}"
    found = value(contest.ours) if contest and contest.ours else None
    if contest is None or found is None:
        return Verdict(workload, text, "not measured", None)
    return Verdict(contest.title, text, f"{found / scale:,.3g} {unit}", found <= bar)


def _opening(results: Results) -> Iterator[Verdict]:
    contest = results.match(r"open/(40000|500) tensors")
    yield _ratio(
        contest, "TensorFlow reader", 8, "open and list 40,000 tensors",
        ours="tensorbundle, TensorFlow's names",
    )  # fmt: skip


def _reading(results: Results) -> Iterator[Verdict]:
    contest = results.match(r"read/(256|2) MiB, warm")
    yield _ratio(contest, "TensorFlow reader", 2, "read 256 MiB, checksum compared")
    contest = results.match(r"view/(256|2) MiB")
    yield _at_most(contest, lambda ours: ours.seconds, 1e-3, "view of 256 MiB", "ms", 1e-3)


def _gathering(results: Results) -> Iterator[Verdict]:
    alone = results.match(rf"gather/.* x 256 B of \d+, {_TASK}")
    yield _share(alone, 0.9, "gather, 1 thread")
    yield _ratio(alone, "numpy.memmap, take", 1, "gather, 1 thread")
    together = results.match(r"gather/.* x 256 B of \d+, uniform, \d+ threads")
    if alone and together and alone.ours and together.ours:
        gain = alone.ours.seconds / together.ours.seconds
        limit = together.floor
        share = f", {limit.seconds / together.ours.seconds:.2f} of the floor" if limit else ""
        yield Verdict(together.title, "faster than 1 thread", f"{gain:.2f}{TIMES}{share}", gain > 1)
    yield _at_most(
        alone, lambda ours: ours.facts.get("anonymous"), 32 * MB,
        "extra memory of a gather", "MB beyond the output", MB,
    )  # fmt: skip


def _remapping(results: Results) -> Iterator[Verdict]:
    contest = results.match(r"remap/\d+ of \d+ rows, 10 % missing")
    yield _ratio(contest, "TensorFlow LoadAndRemapMatrix", 30, "remap, 10 % missing")
    yield _at_most(
        contest, lambda ours: ours.facts.get("anonymous"), 32 * MB,
        "extra memory of a remap", "MB beyond the output", MB,
    )  # fmt: skip
    warm = results.match(r"remap/\d+ rows, from vocabularies")
    tokens = 2 * warm.amount if warm else 0
    yield _at_most(
        warm, lambda ours: ours.facts.get("anonymous"), 32 * MB + 16 * tokens,
        "extra memory of a join and a remap", "MB beyond the output", MB,
    )  # fmt: skip


def _joining(results: Results) -> Iterator[Verdict]:
    yield _ratio(results.match(r"join/\d+ tokens"), "pyarrow", 5, "join of two vocabularies")


def _streaming(results: Results) -> Iterator[Verdict]:
    for state in ("warm", "cold"):
        contest = results.match(rf"stream/\S+ \S+, {state}")
        yield _share(contest, 0.8, f"chunks, {state}")
        chunk = contest.ours.facts.get("chunk", 0) if contest and contest.ours else 0
        yield _at_most(
            contest, lambda ours: ours.facts.get("anonymous"), 2 * chunk + 16 * MB,
            f"memory of chunks, {state}", "MB", MB,
        )  # fmt: skip


def _one_row(results: Results) -> Iterator[Verdict]:
    contest = results.match(r"row/of \S+ \S+")
    yield _ratio(contest, "TensorFlow RestoreV2", 1000, "one row of 400 MiB")
    yield _at_most(
        contest, lambda ours: ours.facts.get("touched"), 2 * mmap.PAGESIZE,
        "one row of 400 MiB, cold", "KiB touched", 1024,
    )  # fmt: skip


def _proportion(results: Results) -> Iterator[Verdict]:
    contest = results.match(r"box/whole and an eighth of (256|2) MiB")
    text, bar = "≤ 1/8 of the whole's time, within 20 %", 0.15
    whole = contest.find("whole") if contest else None
    eighth = contest.find("eighth") if contest else None
    if contest is None or whole is None or eighth is None:
        yield Verdict("read an eighth", text, "not measured", None)
        return
    value = eighth.seconds / whole.seconds
    yield Verdict(contest.title, text, f"1/{1 / value:.2f}", value <= bar)


def _importing(results: Results) -> Iterator[Verdict]:
    contest = results.match(r"import/fresh process")
    base = contest.find("numpy and ml_dtypes") if contest else None
    if contest is None or contest.ours is None or base is None:
        yield Verdict("import", "< 100 ms over numpy and ml_dtypes", "not measured", None)
        return
    value = contest.ours.seconds - base.seconds
    text = "< 100 ms over numpy and ml_dtypes"
    yield Verdict("import tensorbundle", text, f"{value * 1e3:.0f} ms", value < 0.1)


_RULES: list[Callable[[Results], Iterator[Verdict]]] = [
    _importing, _opening, _reading, _proportion, _one_row, _gathering, _remapping, _joining,
    _streaming,
]  # fmt: skip
