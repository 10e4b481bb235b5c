# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and writes docs/performance.md with its plots.

``python -m bench.report --size all`` does both; ``--from FILE`` only writes, from an earlier run's
JSON file. Exits with 1 when a benchmark failed, and writes nothing then.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bench import bars, pages, plots, results, sizes

ROOT = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    measured = options.measured
    if measured is None:
        measured = ROOT / ".benchmarks" / "report.json"
        measured.parent.mkdir(exist_ok=True)
        failed = _run(options, measured)
        if failed:
            print("a benchmark failed: nothing is written", file=sys.stderr)
            return 1
    write(results.load(measured), options.docs, options.suffix)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--size", default="all", help=f"{', '.join(sizes.SIZES)}; or all (all)")
    parser.add_argument("--rounds", type=int, default=7, help="samples per contender (7)")
    parser.add_argument("--only", help="an expression for pytest's -k")
    parser.add_argument("--from", dest="measured", type=Path, help="an earlier run's JSON file")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page goes")
    parser.add_argument("--suffix", default="svg", choices=["svg", "png"], help="of the plots")
    return parser


def _run(options: argparse.Namespace, measured: Path) -> int:
    sizes.parse(options.size)
    command = [
        sys.executable, "-m", "pytest", "bench", "-q", "-rs", f"--bench-size={options.size}",
        f"--bench-rounds={options.rounds}", "--bench-weigh", f"--benchmark-json={measured}",
        "--benchmark-columns=min,median,max", *(["-k", options.only] if options.only else []),
    ]  # fmt: skip
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


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
