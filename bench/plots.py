# SPDX-License-Identifier: Apache-2.0
"""The pictures of docs/performance.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.bars import TIMES
from bench.case import FLOOR, OURS
from bench.results import Contest, Figure, Results

OURS_COLOUR, RIVAL_COLOUR, FLOOR_COLOUR = "#1f5fa8", "#b8bfc7", "#5c6670"
SLOWER = "#c0504d"
_COLOURS = {OURS: OURS_COLOUR, FLOOR: FLOOR_COLOUR}

_SPEEDUPS = (
    (r"import/.*", "import", ("tensorflow",)),
    (r"open/(40000|500) tensors", "open and list {amount:,} tensors", ("TensorFlow reader",)),
    (r"read/(256|2) MiB, warm", "read {size} whole",
     ("TensorFlow reader", "safetensors", "TensorStore", "zarr", "numpy")),
    (r"box/rows, an eighth.*", "read 1/8 of its rows", ("TensorFlow", "safetensors", "numpy")),
    (r"row/.*", "read one row", ("TensorFlow",)),
    (r"gather/.* 256 B .*uniform, \d+ threads", "gather {amount:,} rows of 256 B",
     ("TensorStore", "safetensors", "tf.gather", "numpy.memmap[", "numpy.memmap, take")),
    (r"remap/.* 10 % missing", "remap {amount:,} rows", ("TensorFlow", "numpy")),
    (r"join/.*", "join {amount:,} tokens", ("TensorFlow", "pyarrow", "Python dict")),
    (r"remap/.*from vocabularies", "join and remap {amount:,} rows", ("TensorFlow", "pyarrow")),
    (r"init/\S+ \S+ into \d+", "initialise 8 partitions of {size}", ("TensorFlow",)),
    (r"init/\S+ \S+ into \d+, aligned", "the same, mapped", ("TensorFlow",)),
    (r"init/\S+ \S+ whole", "initialise one variable of {size}", ("TensorFlow",)),
    (r"warm/.*, one variable", "warm-start {amount:,} rows", ("TensorFlow",)),
    (r"warm/.*, \d+ partitions", "the same in 8 partitions", ("TensorFlow",)),
)  # fmt: skip


def draw(results: Results, folder: Path, suffix: str = "svg") -> dict[Path, str]:
    """Draws what the run has figures for; returns the files, each with what it shows."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update(
        {
            "svg.hashsalt": "tensorbundle", "font.size": 9, "axes.spines.top": False,
            "axes.spines.right": False, "figure.dpi": 100, "savefig.bbox": "tight",
        }
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[Path, str] = {}
    plots: dict[str, tuple[Callable[[Results], Any], str]] = {
        "speedups": (_speedups, "How many times as fast as others tensorbundle is"),
        "gather": (_gather, "Gathering rows: bytes per second by row size, beside NumPy and C"),
        "throughput": (_throughput, "Reading and streaming: bytes per second"),
    }
    for name, (plot, what) in plots.items():
        figure = plot(results)
        if figure is not None:
            path = folder / f"{name}.{suffix}"
            figure.savefig(path, metadata={"Date": None} if suffix == "svg" else None)
            drawn[path] = what
    return drawn


def _speedups(results: Results) -> Any:
    from matplotlib import pyplot

    lines = []
    for pattern, label, rivals in _SPEEDUPS:
        contest = results.match(pattern)
        if contest is None or contest.ours is None:
            continue
        task = label.format(amount=contest.amount, size=f"{contest.amount / 2**20:,.0f} MiB")
        for rival in rivals:
            other = contest.find(rival)
            if other is not None:
                lines.append((task, other.name, other.seconds / contest.ours.seconds))
    if not lines:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 0.27 * len(lines) + 1.1))
    for i, (task, rival, times) in enumerate(lines):
        repeated = i > 0 and lines[i - 1][0] == task
        axes.barh(i, times - 1, left=1, height=0.7, color=OURS_COLOUR if times >= 1 else SLOWER)
        axes.text(max(times, 1) * 1.08, i, f"{times:,.3g}{TIMES}  {rival}", va="center", fontsize=8)
        if not repeated:
            axes.text(-0.01, i, task, va="center", ha="right", transform=_beside(axes))
            if i:
                axes.axhline(i - 0.5, color="#dddddd", linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, *(times for *_, times in lines)), max(t for *_, t in lines) * 60)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xlabel("times as long as tensorbundle takes (logarithmic)")
    return figure


def _beside(axes: Any) -> Any:
    """x by the axes' width, y by the data."""
    return axes.get_yaxis_transform()


def _gather(results: Results) -> Any:
    from matplotlib import pyplot

    panels: dict[str, list[tuple[int, Contest]]] = {}
    for contest in results.contests:
        found = re.fullmatch(r"gather/\d+ x (\d+) B of \d+, uniform, (\d+ threads?)", contest.key)
        if found:
            panels.setdefault(found[2], []).append((int(found[1]), contest))
    if not panels:
        return None
    figure, many = pyplot.subplots(1, len(panels), figsize=(8, 3.2), sharey=True, squeeze=False)
    names = (("tensorbundle", OURS_COLOUR), ("numpy.memmap, take", RIVAL_COLOUR),
             ("C:", FLOOR_COLOUR))  # fmt: skip
    for axes, (threads, contests) in zip(many[0], panels.items(), strict=True):
        contests.sort(key=lambda pair: pair[0])
        for shift, (name, colour) in enumerate(names):
            pairs = [(row, _named(contest, name)) for row, contest in contests]
            heights = [row * (each.rate or 0) / 1e9 if each else 0 for row, each in pairs]
            places = [i + (shift - 1) * 0.27 for i in range(len(pairs))]
            label = {"C:": "C, the faster of two"}.get(name, name)
            bars = axes.bar(places, heights, 0.25, color=colour, label=label)
            axes.bar_label(bars, fmt="%.3g", fontsize=7)
        axes.set_xticks(range(len(contests)), [f"{row} B" for row, _ in contests])
        axes.set_title(f"{threads} (NumPy: 1)" if threads != "1 thread" else threads)
        axes.set_xlabel("row")
    many[0][0].set_ylabel("GB/s gathered")
    handles, labels = many[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=3, frameon=False,
                  bbox_to_anchor=(0.5, 1.06))  # fmt: skip
    figure.tight_layout()
    return figure


def _named(contest: Contest, name: str) -> Figure | None:
    return contest.floor if name == "C:" else contest.find(name)


def _throughput(results: Results) -> Any:
    from matplotlib import pyplot

    patterns = (
        r"read/.*, warm",
        r"read/.*, cold",
        r"stream/\S+ \S+, warm",
        r"stream/\S+ \S+, cold",
    )
    contests = [each for each in map(results.match, patterns) if each is not None]
    if not contests:
        return None
    rows = (len(contests) + 1) // 2
    most = max(len(each.figures) for each in contests)
    figure, many = pyplot.subplots(rows, 2, figsize=(9.5, rows * (0.24 * most + 0.9)),
                                   squeeze=False)  # fmt: skip
    for axes, contest in zip(many.flat, contests, strict=False):
        for i, each in enumerate(contest.figures):
            rate = (each.rate or 0) / 1e9
            axes.barh(i, rate, color=_COLOURS.get(each.role, RIVAL_COLOUR), height=0.7)
            checked = " ✓" if each.facts["checksum"] == "compared" else ""
            axes.text(rate, i, f" {rate:.3g}{checked}", va="center", fontsize=7)
        axes.set_yticks(range(len(contest.figures)), [e.name for e in contest.figures], fontsize=7)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title(contest.key.replace("/", " "), loc="left", fontsize=9)
        axes.set_xlabel("GB/s   (✓ checksum compared)", fontsize=8)
    for axes in many.flat[len(contests) :]:
        axes.set_axis_off()
    figure.tight_layout()
    return figure
