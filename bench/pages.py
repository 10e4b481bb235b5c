# SPDX-License-Identifier: Apache-2.0
"""The text of docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench import bars
from bench.case import FLOOR, OURS
from bench.results import Contest, Figure, Results

TIMES, DASH = bars.TIMES, "\N{EN DASH}"
_HEADINGS = {
    "import": "Importing",
    "open": "Opening and listing",
    "read": "Reading whole tensors",
    "view": "Views",
    "read V1": "The older format",
    "box": "Parts of a tensor",
    "row": "One row",
    "gather": "Gathering rows",
    "remap": "Remapping a table",
    "join": "Joining vocabularies",
    "stream": "Streaming",
    "init": "Initialising variables",
    "warm": "Warm starting",
}

_HIDDEN = """\
- **Warm and cold.** Unless a table says "cold", everything lies in the page cache and every
  mapping has been touched before. The first pass over a new mapping also pays for page faults,
  and a disk is slower than any of this. Cold runs empty the page cache of this system; where it
  is a guest, the host may still hold the file.
- **Where the result goes.** Whoever can write into a given array does, and its pages exist
  already. TensorFlow, safetensors, TensorStore and zarr return new memory on every run, as they
  do for their users; touching new pages costs about as much as copying into old ones.
- **Checksums.** TensorFlow compares the stored checksum of every piece that it reads, whole, even
  for one row. Ours does for pieces read whole, and not for views, slices, gathers and remaps,
  unless the checkpoint is opened with `verify="full"`. NumPy and C never do. The column says
  which it was: compare like with like.
- **The garbage collector** of Python is off, except where tensors are opened and listed: that makes
  hundreds of thousands of objects, and the collector's passes are part of what they cost. How much
  depends on what else lives in the process; here, TensorFlow does.
- **Formats.** safetensors, TensorStore and zarr read their own formats, which hold the same
  table: one safetensors file; one Zarr 3 array in chunks of 16 MiB, neither compressed nor with
  checksums.
- **TensorFlow's start.** Its ops run eagerly in a process that has imported it long ago. What a
  graph costs to build and to optimize is in no figures but those of initialising and warm starting.
  The first session of a process is in none, nor is what oneDNN's graph pass finds out about a kind
  of op when a process first runs one: a millisecond or two, for Identity in TensorFlow's
  initializers and for Slice in ours. The model that uses the variable is built after it was
  initialised.
- **What comes after.** A mapped variable is paid for when its rows are first used: "first use" is
  the first lookup of 1,000 rows and the first update of one row per partition. Training that
  updates every row copies every page in the end, and more slowly than a copy at the start.
- **Random numbers.** The tables hold pseudo-random float32 and the ids are drawn as the title
  says. Your ids have another distribution, your rows another length, your machine more cores, and
  other processes to feed.
- **The floor** is C without checks, compiled for this very processor: `memcpy`, `pread`, a gather
  that prefetches (with ordinary stores, and with stores that bypass the caches). It knows where
  the bytes lie and trusts every id."""

_METHOD = """\
The contenders of one table run in one process, in turns, round by round, in an order drawn anew
for every round. The first run of each is looked at for its result, every element of it, and not
timed. A figure is the median of {rounds} rounds or more, with the fastest and slowest beside it;
short runs are repeated within a round. Processor time counts all threads. Memory, bytes read and
pages touched come from one more run, in a fresh process of its own: "memory" is the peak of what
belongs to no file, beyond what was there when the run began (sampled every 0.2 ms; the given
destination was there), "with files" the peak with mapped pages of files (`VmHWM`), "read" what
read calls handed over (`rchar`), "touched" what one run brought into an empty page cache. Where a
contender would need too long it did a part of the task, named beside it, and its time is scaled
up.

Vocabularies are joined in a process of its own for every figure, after a small join for which
libraries are loaded: who keeps memory that he freed would find new memory dear only once, and a
process joins two vocabularies only once.

Variables are initialised in a process of its own for every figure, too. It imports TensorFlow,
runs a trivial session, builds the variables and reads the files into the page cache; then the
call that sets the initialisers is timed ("building") and the `session.run` of the initialisers
("running"). The median is of the sum. Ours imports its TensorFlow side and loads its op library
once per process, which is told ("loading") and not added, as TensorFlow's own ops come with its
import. Some rows are compared before and after an update, every time; memory counts from before
the call to after that update.
The floor of initialising is one parallel `pread` of the table's bytes into memory that the system
has yet to give, with a CRC-32C of every block while the caches hold it. A mapping is a few system
calls, whatever the size: its floor is what TensorFlow needs to run any initialisers at all, those
that fill as many variables of a few rows with zeros. The floor of warm starting is a sum: both
vocabularies read, their lines found and one random slot of memory touched for each; the old table
read once for its CRC-32C; its rows, their numbers known, gathered into new memory.

`python -m bench.report --size all` measures all of this anew and writes this page."""

_MACHINE = (
    ("processor", "processor"), ("processors", "cores"), ("virtual", "virtual machine"),
    ("last_level_cache", "last-level cache"), ("memory_gib", "memory, GiB"), ("system", "kernel"),
    ("file_system", "file system of the data"), ("compiler", "compiler of the floor"),
    ("python", "Python"), ("tensorbundle", "tensorbundle"), ("numpy", "NumPy"),
    ("tensorflow", "TensorFlow"), ("safetensors", "safetensors"), ("tensorstore", "TensorStore"),
    ("zarr", "zarr"), ("pyarrow", "pyarrow"), ("date", "date"),
)  # fmt: skip


def performance(results: Results, plots: dict[str, str]) -> str:
    """The page.

    Args:
        results: A run.
        plots: Where each plot lies, relative to the page, and what it shows.
    """
    parts = ["# Performance", _note(results)]
    parts += ["## What these benchmarks hide", _HIDDEN]
    parts += ["## The machine", _machine(results.machine)]
    parts += ["## What was to be reached", _bars(results)]
    parts += [f"![{what}]({where})" for where, what in plots.items()]
    parts += ["## How it was measured", _METHOD.format(rounds=results.rounds)]
    for group in results.groups():
        parts.append(f"## {_HEADINGS.get(group, group)}")
        parts += [_contest(each) for each in results.contests if each.group == group]
    return "\n\n".join(parts) + "\n"


def _note(results: Results) -> str:
    if results.rounds >= 5:
        return "Written by `python -m bench.report`; not to be edited by hand."
    return (
        f"**Written from {results.rounds} round(s) only: a rehearsal, whose figures mean nothing.**"
    )


def _table(header: list[str], rows: list[list[str]], left: int = 1) -> str:
    """A Markdown table; columns from number `left` on are set to the right."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def _machine(facts: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        if value is None:
            return "not installed"
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)

    rows = [[label, text(facts.get(name))] for name, label in _MACHINE]
    return _table(["", ""], rows, left=2)


def _bars(results: Results) -> str:
    words = {True: "yes", False: "**no**", None: DASH}
    rows = [
        [each.workload, each.bar, each.measured, words[each.reached]]
        for each in bars.judge(results)
    ]
    return _table(["workload", "bar", "measured", "reached"], rows, left=4)


Column = tuple[str, Callable[[Figure], str]]


def _contest(contest: Contest) -> str:
    columns = _columns(contest)
    rows = [[shown(figure) for _, shown in columns] for figure in contest.figures]
    kept = [i for i in range(len(columns)) if any(row[i] not in ("", DASH) for row in rows)]
    header = [columns[i][0] for i in kept]
    table = _table(header, [[row[i] for i in kept] for row in rows], left=2)
    return f"### {contest.title[0].upper()}{contest.title[1:]}\n\n{table}"


def _columns(contest: Contest) -> list[Column]:
    def fact(name: str, shown: Callable[[float], str]) -> Callable[[Figure], str]:
        return lambda figure: shown(figure.facts[name]) if name in figure.facts else DASH

    def against(figure: Figure) -> str:
        ours = contest.ours
        return "" if ours is None or figure is ours else f"{figure.seconds / ours.seconds:,.3g}"

    return [
        ("", _name),
        ("stored checksum", lambda figure: figure.facts["checksum"]),
        ("median", lambda figure: duration(figure.seconds)),
        (
            "fastest to slowest",
            lambda each: f"{duration(each.fastest)} {DASH} {duration(each.slowest)}",
        ),
        (_rate_name(contest), lambda figure: _rate(contest, figure)),
        (f"{TIMES} ours", against),
        ("of the floor", fact("share_of_floor", lambda share: f"{share:.2f}")),
        ("loading", fact("loading", duration)),
        ("building", fact("building", duration)),
        ("running", fact("running", duration)),
        ("first use", fact("first use", duration)),
        ("processor time", fact("cpu", duration)),
        ("memory", fact("anonymous", megabytes)),
        ("with files", fact("resident", megabytes)),
        ("read", fact("read", megabytes)),
        ("touched", fact("touched", lambda value: f"{value / 1024:,.0f} KiB")),
    ]


def _name(figure: Figure) -> str:
    part = figure.facts["fraction"]
    text = figure.name if part == 1 else f"{figure.name} ({part:.0%} of the task)"
    marked = {OURS: f"**{text}**", FLOOR: f"*{text}*"}
    return marked.get(figure.role, text)


def _rate_name(contest: Contest) -> str:
    return {"bytes": "GB/s", "": ""}.get(contest.unit, f"M {contest.unit}/s")


def _rate(contest: Contest, figure: Figure) -> str:
    if figure.rate is None or contest.amount == 1:
        return DASH
    return f"{figure.rate / (1e9 if contest.unit == 'bytes' else 1e6):,.3g}"


def duration(seconds: float) -> str:
    """Three digits in the unit that suits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def megabytes(value: float) -> str:
    """Bytes as MB."""
    return f"{value / bars.MB:,.3g} MB" if value else "0"
