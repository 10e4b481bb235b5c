# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and writes docs/performance.md with its plots.

``python -m bench.report --size all`` does both. Every workload runs in a process of its own and
leaves a JSON file; ``--resume`` goes on where an earlier run was broken off, and ``--from FILE...``
only writes. Exits with 1 when a benchmark failed, and writes nothing then.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bench import bars, pages, plots, results, sizes

ROOT = Path(__file__).parents[1]
WORKLOADS = ("import", "open", "read", "box", "gather", "remap", "join", "stream", "init", "warm")
_NO_TESTS = 5  # pytest's exit status when nothing was selected


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    sizes.parse(options.size)
    measured = options.measured
    if measured is None:
        measured, failed = _run(options)
        if failed:
            print(f"failed, so that nothing is written: {', '.join(failed)}", file=sys.stderr)
            return 1
    if not measured:
        print("nothing was measured", file=sys.stderr)
        return 1
    write(results.load(measured), options.docs, options.suffix)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--size", default="all", help=f"{', '.join(sizes.SIZES)}; or all (all)")
    parser.add_argument("--rounds", type=int, default=7, help="samples per contender (7)")
    parser.add_argument("--only", help="an expression for pytest's -k")
    parser.add_argument("--resume", action="store_true", help="keep workloads measured before")
    parser.add_argument("--from", dest="measured", type=Path, nargs="+", help="files of a run")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page goes")
    parser.add_argument("--suffix", default="svg", choices=["svg", "png"], help="of the plots")
    return parser


def _run(options: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """Runs every workload; returns the files and the workloads that failed."""
    folder = ROOT / ".benchmarks" / "report" / options.size.replace(",", "+")
    folder.mkdir(parents=True, exist_ok=True)
    measured, failed = [], []
    for workload in WORKLOADS:
        path = folder / f"{workload}.json"
        if not (options.resume and path.exists()):
            path.unlink(missing_ok=True)
            status = _run_one(options, workload, path)
            if status not in (0, _NO_TESTS):
                failed.append(workload)
        if path.exists():
            measured.append(path)
    return measured, failed


def _run_one(options: argparse.Namespace, workload: str, path: Path) -> int:
    # The file is made at once, and filled at the end: only a full one gets its name.
    unfinished = path.with_suffix(".part")
    command = [
        sys.executable, "-m", "pytest", f"bench/test_{workload}.py", "-q", "-rs",
        "-W", "default",  # a workload that has no case of this size is no error
        f"--bench-size={options.size}", f"--bench-rounds={options.rounds}", "--bench-weigh",
        f"--benchmark-json={unfinished}", "--benchmark-columns=min,median,max",
        *(["-k", options.only] if options.only else []),
    ]  # fmt: skip
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if status == 0 and unfinished.exists() and unfinished.stat().st_size:
        unfinished.rename(path)
    unfinished.unlink(missing_ok=True)
    return status


def write(run: results.Results, docs: Path, suffix: str) -> None:
    """Writes the page and its plots, and says which bars were not reached."""
    drawn = plots.draw(run, docs / "performance", suffix)
    where = {path.relative_to(docs).as_posix(): what for path, what in drawn.items()}
    (docs / "performance.md").write_text(pages.performance(run, where), encoding="utf-8")
    for verdict in bars.judge(run):
        mark = {True: "reached", False: "NOT REACHED", None: "not measured"}[verdict.reached]
        print(f"{mark:12} {verdict.workload}: {verdict.bar}; {verdict.measured}")


if __name__ == "__main__":
    sys.exit(main())
