# SPDX-License-Identifier: Apache-2.0
"""What the package has to reach, and whether a run did."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.results import Contest, Figure, Results
from bench.sizes import DIM

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


def _initialising(results: Results) -> Iterator[Verdict]:
    split = results.match(r"init/\S+ \S+ into \d+")
    yield _ratio(split, "TensorFlow", 15, "init_from_checkpoint into 8 partitions, copied")
    yield _peak(split, 1.1, 1, "memory of init_from_checkpoint, copied")
    mapped = results.match(r"init/\S+ \S+ into \d+, aligned")
    yield _ratio(mapped, "TensorFlow", 300, "init_from_checkpoint into 8 partitions, mapped")
    yield _anonymous(mapped, "memory of init_from_checkpoint, mapped")
    whole = results.match(r"init/\S+ \S+ whole")
    yield _ratio(whole, "TensorFlow", 1.8, "init_from_checkpoint into one variable, copied")
    yield _never_slower(results)
    alone = results.match(r"init/\S+ \S+, mapped")
    task = "a variable of 40 GiB, mapped"
    yield _at_most(alone, lambda ours: ours.seconds, 0.05, task, "ms", 1e-3)
    yield _anonymous(alone, f"memory of {task}")


def _never_slower(results: Results) -> Verdict:
    """The largest difference over all sizes of a whole variable, ours less TensorFlow's."""
    found = []
    for contest in results.contests:
        theirs = contest.find("TensorFlow")
        if re.fullmatch(r"init/\S+ \S+ whole", contest.key) and contest.ours and theirs:
            found.append((contest.ours.seconds - theirs.seconds, contest.key.split("/")[1]))
    text, task = "never slower by more than 1 ms", "init_from_checkpoint, all sizes, copied"
    if not found:
        return Verdict(task, text, "not measured", None)
    worst, where = max(found)
    return Verdict(task, text, f"{worst * 1e3:+.2f} ms at worst ({where})", worst <= 1e-3)


def _peak(contest: Contest | None, bar: float, nbytes: int, workload: str) -> Verdict:
    """The peak of memory as a multiple of the table, which has `nbytes` for each thing counted."""
    table = contest.amount * nbytes if contest else 1
    return _at_most(
        contest, lambda ours: ours.facts.get("anonymous"), bar * table, workload,
        "of the table in memory", table,
    )  # fmt: skip


def _anonymous(contest: Contest | None, workload: str) -> Verdict:
    return _at_most(
        contest, lambda ours: ours.facts.get("anonymous"), 64 * MB, workload,
        "MB of memory, first use included", MB,
    )  # fmt: skip


def _warm_starting(results: Results) -> Iterator[Verdict]:
    whole = results.match(r"warm/.* tokens, one variable")
    yield _ratio(whole, "TensorFlow", 15, "warm_start into one variable")
    split = results.match(r"warm/.* tokens, \d+ partitions")
    yield _ratio(split, "TensorFlow", 50, "warm_start into 8 partitions")
    yield _peak(split, 1.25, 4 * DIM, "memory of warm_start into 8 partitions")
    found = [
        (each.ours.facts["building"] * 1e3, f"{each.ours.facts['building'] * 1e3:.1f}")
        for each in results.contests
        if each.group == "warm" and each.ours and "building" in each.ours.facts
    ]
    task, text = "warm_start, building the graph", "≤ 50 ms per table, whatever its size"
    if not found:
        yield Verdict(task, text, "not measured", None)
        return
    yield Verdict(task, text, ", ".join(shown for _, shown in found) + " ms", max(found)[0] <= 50)


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
    _streaming, _initialising, _warm_starting,
]  # fmt: skip
