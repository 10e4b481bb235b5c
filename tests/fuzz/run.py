# SPDX-License-Identifier: Apache-2.0
"""Runs the fuzz targets of a build from their corpora.

    fuzz         python tests/fuzz/run.py BUILD [TARGET] [SECONDS] [--jobs N]
    of record    the same with --record: as many inputs as RECORD_RUNS says. The row of each target
                 in docs/reliability.md is replaced when its run ends. --runs N overrides the number
                 of inputs
    minimize     the same with --minimize: the corpora are replaced by the smallest sets of inputs
                 with the same coverage, from the corpora and what earlier runs have found

What a run finds is in fuzz_findings/TARGET: new inputs in ``corpus``, crashes in ``crashes``.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
FINDINGS = ROOT / "fuzz_findings"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- fuzz: begin -->", "<!-- fuzz: end -->"

LEAF, WHOLE = 10**7, 10**6  # inputs of a run of record: a decoder, a whole checkpoint
RECORD_RUNS = {
    "checkpoints": WHOLE,
    "entries": LEAF,
    "index": LEAF,
    "object_graph": LEAF,
    "slice_spec": LEAF,
    "slices": LEAF,
    "snappy": LEAF,
    "strings": LEAF,
    "v1": LEAF,
    "vocab": LEAF,
}
MAX_LENGTH = {"checkpoints": 200, "slices": 300, "slice_spec": 300}  # of an input; others: 2000
# A small quarantine and no stacks of allocations keep the allocator fast; libFuzzer looks for leaks
# on its own. Run the target with the crashing input alone for the stacks.
ASAN_OPTIONS = (
    "quarantine_size_mb=4:thread_local_quarantine_size_kb=64:detect_stack_use_after_return=0"
    ":malloc_context_size=0"
)


@dataclasses.dataclass
class Result:
    """One run of a target."""

    target: str
    inputs: int
    per_second: int
    corpus: int
    log: str
    crash: str = ""


def number_in(log: str, name: str) -> int:
    """Returns a number of libFuzzer's final statistics."""
    found = re.search(rf"stat::{name}:\s+(\d+)", log)
    return int(found[1]) if found else 0


def run_target(build: Path, target: str, options: list[str]) -> Result:
    """Fuzzes one target from its corpus and from what earlier runs have found."""
    name = f"fuzz_{target}"
    found, crashes = FINDINGS / name / "corpus", FINDINGS / name / "crashes"
    found.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    command = [
        str(build / "tests" / "fuzz" / name), "-print_final_stats=1", "-timeout=30", "-entropic=0",
        "-malloc_limit_mb=256", "-rss_limit_mb=4096", f"-max_len={MAX_LENGTH.get(target, 2000)}",
        f"-artifact_prefix={crashes}/", *options, str(found), str(CORPUS / name),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False,
        env={**os.environ, "ASAN_OPTIONS": ASAN_OPTIONS},
    )  # fmt: skip
    log = done.stdout + done.stderr
    crash = ""
    if done.returncode != 0:
        artifact = re.search(r"Test unit written to (\S+)", log)
        crash = artifact[1] if artifact else f"exit status {done.returncode}"
    return Result(
        target,
        number_in(log, "number_of_executed_units"),
        number_in(log, "average_exec_per_sec"),
        len(list((CORPUS / name).iterdir())),
        log,
        crash,
    )


def minimize(build: Path, target: str) -> None:
    """Replaces the corpus of a target; keeps files with descriptive names."""
    name = f"fuzz_{target}"
    merged = FINDINGS / name / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    sources = [path for path in (CORPUS / name, FINDINGS / name / "corpus") if path.is_dir()]
    subprocess.run(
        [str(build / "tests" / "fuzz" / name), "-merge=1", "-use_counters=0",
         f"-max_len={MAX_LENGTH.get(target, 2000)}", str(merged), *map(str, sources)],
        check=True, capture_output=True, env={**os.environ, "ASAN_OPTIONS": ASAN_OPTIONS},
    )  # fmt: skip
    kept = {path.read_bytes() for path in merged.iterdir()}
    for path in (CORPUS / name).iterdir():
        if re.fullmatch("[0-9a-f]{16}", path.name) and path.read_bytes() not in kept:
            path.unlink()
    known = {path.read_bytes() for path in (CORPUS / name).iterdir()}
    for path in sorted(merged.iterdir()):
        if path.read_bytes() not in known:
            shutil.copyfile(path, CORPUS / name / path.name[:16])
    print(f"{name}: {len(list((CORPUS / name).iterdir()))} inputs", flush=True)


def processor() -> str:
    """Returns the model of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    found = re.search(r"model name\s*:\s*(.*)", text)
    return found[1] if found else platform.machine()


def write_row(result: Result) -> None:
    """Replaces the row of a target in docs/reliability.md, between the two marks."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.check_output([*git, "rev-parse", "--short=10", "HEAD"], text=True).strip()
    if subprocess.check_output([*git, "status", "--porcelain", "cpp", "tests/fuzz"], text=True):
        commit += ", with changes"
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    old, tail = rest.split(END)
    rows = {line.split("`")[1]: line for line in old.splitlines() if line.startswith("| `")}
    found = "a crash" if result.crash else "nothing"
    rows[f"fuzz_{result.target}"] = (
        f"| `fuzz_{result.target}` | {result.inputs:,} | {found} | {result.per_second:,} "
        f"| {result.corpus} | {today} | {commit} | {processor()}, {os.cpu_count()} cores |"
    )
    lines = [
        BEGIN,
        "| target | inputs | found | inputs per second | corpus files | date | commit | machine |",
        "|---|---:|---|---:|---:|---|---|---|",
        *(rows[name] for name in sorted(rows)),
        END,
    ]
    PAGE.write_text(head + "\n".join(lines) + tail, encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Run the fuzz targets.")
    parser.add_argument("build", type=Path)
    parser.add_argument("words", nargs="*", metavar="[TARGET] [SECONDS]")
    parser.add_argument("--jobs", type=int, default=1, help="targets that run at the same time")
    parser.add_argument("--record", action="store_true", help="write docs/reliability.md")
    parser.add_argument("--runs", type=int, help="inputs per target in a run of record")
    parser.add_argument("--minimize", action="store_true", help="replace the corpora")
    return parser.parse_intermixed_args()


def main() -> int:
    """Runs what the command line asks for. Returns 1 if a target crashed."""
    args = arguments()
    seconds = next((word for word in args.words if word.isdecimal()), "60")
    targets = [word.removeprefix("fuzz_") for word in args.words if not word.isdecimal()]
    unknown = [target for target in targets if target not in RECORD_RUNS]
    if unknown:
        print(f"no target {unknown[0]!r}; there are {', '.join(RECORD_RUNS)}", file=sys.stderr)
        return 2
    targets = targets or list(RECORD_RUNS)
    if args.minimize:
        for target in targets:
            minimize(args.build, target)
        return 0

    lock = threading.Lock()

    def run(target: str) -> Result:
        limit = f"-max_total_time={seconds}"
        if args.record:
            limit = f"-runs={args.runs or RECORD_RUNS[target]}"
        result = run_target(args.build, target, [limit])
        text = f"fuzz_{target}: {result.inputs:,} inputs, {result.per_second:,} per second"
        print(f"{text}: {f'FOUND {result.crash}' if result.crash else 'ok'}", flush=True)
        if result.crash:
            print("\n".join(result.log.splitlines()[-60:]), flush=True)
        if args.record:
            with lock:
                write_row(result)
        return result

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(run, targets))
    return 1 if any(result.crash for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
