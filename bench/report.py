# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and writes docs/performance.md with its plots.

Every workload runs in its own process and writes a JSON file. ``--resume`` keeps the files of an
interrupted run, and ``--from FILE...`` only writes the page. If a benchmark fails, the page is not
written and the exit status is 1. Missed targets are reported and do not change the exit status.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Any

from bench.case import BASELINE, COMPETITOR, OURS, SIZES, parse_sizes
from bench.results import MISSING, SUMMARY, TARGETS, Comparison, Figure, Results, fastest

ROOT = Path(__file__).parents[1]
HEADINGS = {
    "import": "Importing",
    "open": "Opening and listing",
    "small": "Small reads",
    "read": "Reading whole tensors",
    "box": "Reading a box or a row",
    "gather": "Gathering rows",
    "remap": "Remapping a table",
    "join": "Joining vocabularies",
    "stream": "Streaming",
    "write": "Saving",
    "edit": "Editing a checkpoint",
    "convert": "Converting to safetensors",
    "cold": "Reading with an empty page cache",
    "init": "Initialising variables",
    "warm": "Warm starting",
    "restore": "TensorFlow's own functions",
    "diff": "Comparing checkpoints",
    "average": "Averaging checkpoints",
    "remote": "Reading from an HTTP server",
}
"""Workload, as in ``test_<workload>.py``, to the heading of its section."""
DASH = "\N{EN DASH}"
MORE_CORES = (8, 32)
_NO_TESTS = 5  # pytest's exit status if no test was selected


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--size", default="all", type=parse_sizes,
                        help=f"comma-separated: {', '.join(SIZES)}; or all (all)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=7, help="samples per contender (7)")
    parser.add_argument("--only", help="an expression for pytest's -k")
    parser.add_argument("--resume", action="store_true", help="keep earlier measurements")
    parser.add_argument("--from", dest="measured", type=Path, nargs="+", help="JSON files of a run")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the page")
    parser.add_argument(
        "--suffix", default="png", choices=["svg", "png"], help="format of the plots"
    )
    options = parser.parse_args(arguments)
    measured, failed = (options.measured, []) if options.measured else run(options)
    if failed or not measured:
        print(f"page not written; failed: {', '.join(failed) or 'no test ran'}", file=sys.stderr)
        return 1
    write(Results(measured), options.docs, options.suffix)
    return 0


def run(options: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """Runs every workload; returns the JSON files, and the workloads that failed."""
    folder = ROOT / ".benchmarks" / "report" / "+".join(options.size)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {workload: folder / f"{workload}.json" for workload in HEADINGS}
    failed = []
    for workload, path in paths.items():
        if not (options.resume and path.exists()):
            path.unlink(missing_ok=True)
            if run_workload(options, workload, path) not in (0, _NO_TESTS):
                failed.append(workload)
    return [path for path in paths.values() if path.exists()], failed


def run_workload(options: argparse.Namespace, workload: str, path: Path) -> int:
    # pytest-benchmark creates the file at the start and fills it at the end.
    unfinished = path.with_suffix(".unfinished")
    command = [
        sys.executable, "-m", "pytest", f"bench/test_{workload}.py", "-q", "-rs",
        "-W", "default",  # a workload may have no case of this size
        f"--bench-size={','.join(options.size)}", "--bench-memory",
        f"--benchmark-min-rounds={options.rounds}", f"--benchmark-json={unfinished}",
        "--benchmark-columns=min,median,max", *(["-k", options.only] if options.only else []),
    ]  # fmt: skip
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if status == 0 and unfinished.exists() and unfinished.stat().st_size:
        unfinished.rename(path)
    unfinished.unlink(missing_ok=True)
    return status


def write(results: Results, docs: Path, suffix: str) -> None:
    """Writes the page and its plots, and prints the targets."""
    workloads: dict[str, list[Comparison]] = {}
    for each in results.comparisons:
        workloads.setdefault(each.workload, []).append(each)
    summarised = [case for pattern in SUMMARY if (case := results.find(pattern))]
    draw(summarised, workloads, docs / "performance", suffix)
    sections = []
    for workload, cases in workloads.items():
        heading = HEADINGS[workload]
        sections += [f"## {heading}", image(heading, f"{workload}.{suffix}")]
        sections += [section(case) for case in cases]
    few = f" **Only {results.rounds} round(s): a test.**" if results.rounds < 5 else ""
    template = Template(Path(__file__).with_name("page.md").read_text(encoding="utf-8"))
    page = template.substitute(
        few=few, rounds=results.rounds, summary=summary(summarised), targets=targets(results),
        machine=machine(results), cores=cores(results), sections="\n\n".join(sections),
        speedups=image("Speedup over every competitor and C baseline", f"speedup.{suffix}"),
    )  # fmt: skip
    (docs / "performance.md").write_text(page, encoding="utf-8")


def image(text: str, file: str) -> str:
    return f"![{text}](performance/{file})"


def table(header: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    """Returns a Markdown table; the first `left` columns are aligned to the left."""
    header = list(header)
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def number(value: float) -> str:
    """Formats with three significant digits and no exponent."""
    return DASH if math.isnan(value) else f"{float(f'{value:.3g}'):,.12g}"


def show(value: float, unit: str) -> str:
    """Formats with a suitable prefix of the unit "s" or "B", or without a prefix."""
    scales = {"s": {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9},
              "B": {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1}}.get(unit, {})  # fmt: skip
    for name, scale in scales.items():
        if abs(value) >= scale:
            return f"{number(value / scale)} {name}"
    return number(value) + unit * (unit == "x" and not math.isnan(value))


def share(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.2f}"


def summary(cases: Iterable[Comparison]) -> str:
    rows = []
    for case in cases:
        others = [each for each in case.figures if each.role == COMPETITOR]
        reader = fastest(each for each in others if each.name.startswith("TensorFlow"))
        best = fastest(each for each in others if not each.name.startswith("TensorFlow"))
        rows.append([
            case.title, show(case.own.seconds, "s"), show(reader.seconds, "s"),
            show(case.speedup(reader), "x"),
            DASH if best is MISSING else f"{best.name}: {show(best.seconds, 's')}",
            show(case.speedup(best), "x"), share(case.speedup(case.baseline)),
            show(case.own.get("peak_memory"), "B"), show(reader.get("peak_memory"), "B"),
        ])  # fmt: skip
    header = ("workload", "tensorbundle", "TensorFlow", "speedup", "best other competitor",
              "speedup", "share of the C baseline", "peak memory", "TensorFlow's")  # fmt: skip
    return table(header, rows)


def targets(results: Results) -> str:
    """Returns the table of targets, and prints every target."""
    rows = []
    for target in TARGETS:
        case = results.find(target.case)
        value = target.value(results, case) if case else math.nan
        if case is None or math.isnan(value):
            print(f"not measured  {target.case}: {target.text}")
        else:
            reached, measured = target.reached(value, case), show(value, target.unit)
            mark = "reached" if reached else "NOT REACHED"
            print(f"{mark:13} {case.title}: {target.text}; {measured}")
            rows.append([case.title, target.text, measured, "yes" if reached else "**no**"])
    return table(["workload", "target", "measured", "reached"], rows, left=4)


def cores(results: Results) -> str:
    """Returns what more cores would give, by Amdahl's law from the times of 1 and of n threads."""
    count, rows = results.machine["processors"], []
    for case, single in results.thread_pairs():
        gain = single / case.own.seconds
        serial = min(max((count / gain - 1) / (count - 1), 0), 1) if count > 1 else math.nan
        row = [case.title, show(single, "s"), show(case.own.seconds, "s"), show(gain, "x")]
        row.append(share(1 - serial))
        for more in MORE_CORES:
            speedup = 1 / (serial + (1 - serial) / more)
            rate = case.amount / single * speedup if case.unit == "bytes" else math.nan
            row.append(show(speedup, "x") + f" ({number(rate / 1e9)} GB/s)" * (rate == rate))
        rows.append(row)
    header = ["workload", "1 thread", f"{count} threads", "gain", "parallel part"]
    return table([*header, *(f"{more} cores" for more in MORE_CORES)], rows)


def machine(results: Results) -> str:
    info = results.machine
    rows = {
        "processor": info["cpu"].get("brand_raw"), "cores": info["processors"],
        "virtual machine": "yes" if info["virtual"] else "no",
        "last-level cache": info["last_level_cache"], "memory": f"{info['memory_gib']} GiB",
        "kernel": f"{info['system']} {info['release'].split('-')[0]}",
        "file system of the data": info["file_system"], "C compiler": info["compiler"],
        "Python": info["python_version"], **info["packages"], "date": results.date,
    }  # fmt: skip
    return table(["", ""], [[name, str(value)] for name, value in rows.items()], left=2)


def section(case: Comparison) -> str:
    """Returns the table of a case without empty columns."""
    rate = ("GB/s", 1e9) if case.unit == "bytes" else (f"M {case.unit}/s", 1e6)
    rows = []
    for each in case.figures:
        spread = f"{show(each.fastest, 's')} {DASH} {show(each.slowest, 's')}"
        counted = case.amount if case.unit and case.amount > 1 else math.nan
        row = {
            "": name(each), "stored checksum": each.info["checksum"],
            "median": show(each.seconds, "s"), "fastest to slowest": spread,
            rate[0]: number(counted / each.seconds / rate[1]),
            "speedup": "" if each is case.own else show(case.speedup(each), "x"),
            "of the baseline": share(case.baseline.seconds / each.seconds),
        }  # fmt: skip
        for phase in ("loading", "building", "running", "first use", "cpu_time"):
            row[phase.replace("_", " ")] = show(each.get(phase), "s")
        for key in ("peak_memory", "peak_with_files", "read", "touched"):
            row[key.replace("_", " ")] = show(each.get(key), "B")
        rows.append(row)
    kept = [title for title in rows[0] if {row[title] for row in rows} - {"", DASH}]
    return (
        f"### {case.title}\n\n{table(kept, [[row[key] for key in kept] for row in rows], left=2)}"
    )


def name(figure: Figure) -> str:
    fraction = figure.info["fraction"]
    text = figure.name if fraction == 1 else f"{figure.name} ({fraction:.0%} of the task)"
    return {OURS: f"**{text}**", BASELINE: f"*{text}*"}.get(figure.role, text)


BLUE, GREY, BLACK, RED = "#1f5fa8", "#a3abb5", "#3a3f45", "#c0504d"
COLOURS = {OURS: BLUE, COMPETITOR: GREY, BASELINE: BLACK}
LINE = 0.2
"""Inches per contender."""


def draw(
    summarised: list[Comparison], workloads: dict[str, list[Comparison]], folder: Path, suffix: str
) -> None:
    """Draws the speedups of the summary, and the times of every workload."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({
        "svg.hashsalt": "tensorbundle", "font.size": 8, "axes.spines.top": False,
        "axes.spines.right": False, "figure.dpi": 110, "savefig.bbox": "tight",
    })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    plots = {"speedup": draw_speedups(summarised)}
    plots |= {workload: draw_times(cases) for workload, cases in workloads.items()}
    for title, figure in plots.items():
        metadata = {"Date": None} if suffix == "svg" else None
        figure.savefig(folder / f"{title}.{suffix}", metadata=metadata)


def add_legend(figure: Any, colours: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=label) for label, colour in colours.items()]
    figure.legend(handles=patches, loc="outside upper right", ncols=len(patches), frameon=False)


def draw_speedups(cases: list[Comparison]) -> Any:
    """Draws a bar per competitor and baseline, to the right of 1 if tensorbundle is faster."""
    from matplotlib import pyplot

    lines = [(case, each) for case in cases for each in case.figures if each.role != OURS]
    figure, axes = pyplot.subplots(figsize=(12, LINE * len(lines) + 1), layout="constrained")
    titled = None
    for i, (case, each) in enumerate(lines):
        value = case.speedup(each)
        colour = BLACK if each.role == BASELINE else BLUE if value >= 1 else RED
        axes.barh(i, value - 1, left=1, height=0.7, color=colour)
        axes.annotate(f"{show(value, 'x')}  {each.name}", (max(value, 1), i), (4, 0), va="center",
                      textcoords="offset points", fontsize=7)  # fmt: skip
        if case is not titled:
            axes.axhline(i - 0.5, color="#dddddd", linewidth=0.6)
            axes.text(-0.01, i, case.title, va="center", ha="right",
                      transform=axes.get_yaxis_transform())  # fmt: skip
            titled = case
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(lambda value, _: show(value, "x"))
    axes.set_xlabel("speedup of tensorbundle")
    add_legend(figure, {
        "tensorbundle is faster": BLUE, "tensorbundle is slower": RED, "C baseline": BLACK,
    })  # fmt: skip
    return figure


def draw_times(cases: list[Comparison]) -> Any:
    """Draws a panel per case with the median and the range of every contender."""
    from matplotlib import pyplot

    columns = 2 if len(cases) > 3 else 1
    counts = [len(case.figures) for case in cases]
    counts = [max(counts[i : i + columns]) for i in range(0, len(counts), columns)]
    figure, grid = pyplot.subplots(
        len(counts), columns, squeeze=False, layout="constrained",
        figsize=(12 if columns == 2 else 8, sum(LINE * count + 0.6 for count in counts) + 0.5),
        gridspec_kw={"height_ratios": [LINE * count + 0.2 for count in counts]},
    )  # fmt: skip
    for axes, case in zip(grid.flat, cases, strict=False):
        axes.set_title(case.title, loc="left", fontsize=8, fontweight="bold")
        for i, each in enumerate(case.figures):
            colour = COLOURS[each.role]
            axes.plot([each.fastest, each.slowest], [i, i], color=colour, linewidth=3, alpha=0.4)
            axes.plot(each.seconds, i, "o", color=colour, markersize=5)
            axes.annotate(show(each.seconds, "s"), (each.slowest, i), (6, 0), va="center",
                          textcoords="offset points", fontsize=7)  # fmt: skip
        axes.set_yticks(range(len(case.figures)), [each.name for each in case.figures], fontsize=7)
        axes.set_ylim(len(case.figures) - 0.4, -0.6)
        axes.set_xscale("log")
        low = math.log10(min(each.fastest for each in case.figures) / 1.1)
        high = math.log10(max(each.slowest for each in case.figures) * 1.5)  # with its label
        axes.set_xlim(10 ** math.floor(low), 10 ** math.ceil(high))
        axes.xaxis.set_major_formatter(lambda value, _: show(value, "s"))
        axes.xaxis.set_minor_formatter(lambda *_: "")
    for axes in grid.flat[len(cases) :]:
        axes.set_axis_off()
    figure.supxlabel("time: the median and the range of the rounds", fontsize=8)
    drawn = {each.role for case in cases for each in case.figures}
    legend = {"tensorbundle": OURS, "competitor": COMPETITOR, "baseline": BASELINE}
    add_legend(figure, {label: COLOURS[role] for label, role in legend.items() if role in drawn})
    return figure


if __name__ == "__main__":
    sys.exit(main())
