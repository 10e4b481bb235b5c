# SPDX-License-Identifier: Apache-2.0
"""Compares the speed of two commits or wheels: ``python -m bench.compare BASE``.

Builds both commits into folders of their own, and starts one worker process per commit. The workers
run tensorbundle's contenders of the benchmarks in this tree, sample by sample in turns, so that a
slow minute of the machine affects both. The table has the ratio of the medians: above 1, the new
commit is slower. Cases that the older commit cannot run are listed without a ratio.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import measure
from bench.case import OURS, SIZES, Case, Contender, parse_sizes
from bench.report import show

ROOT = Path(__file__).parents[1]
NOTABLE = 1.05
"""Ratios above this, and below its inverse, are marked."""

Found = dict[str, tuple[Case, Contender, str]]


@dataclass(frozen=True)
class Row:
    """A contender in both commits.

    Attributes:
        name: The case and the contender.
        base: Seconds in the base commit, one per round; empty if it cannot run the case.
        new: Seconds in the new commit.
        error: The reason why one of them was not measured, or "".
    """

    name: str
    base: list[float]
    new: list[float]
    error: str = ""

    @property
    def ratio(self) -> float:
        return statistics.median(self.new) / statistics.median(self.base)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("base", help="the commit, or wheel (*.whl), to compare with")
    parser.add_argument("--new", help="the other commit or wheel (default: this tree)")
    parser.add_argument("--size", default="all", type=parse_sizes,
                        help=f"comma-separated: {', '.join(SIZES)}; or all (all)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=7, help="samples per contender (7)")
    parser.add_argument("--only", default="", help="a part of the names of cases or contenders")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        packages = [Path(folder, "base"), Path(folder, "new")]
        for commit, package in zip((options.base, options.new), packages, strict=True):
            build(commit, package)
        slower = 0
        for row in compare(packages, options.size, options.only, options.rounds):
            print(line(row), flush=True)
            slower += not row.error and row.ratio > NOTABLE
    print(f"\n{slower} slower by more than {NOTABLE - 1:.0%}")
    return 0


def build(commit: str | None, package: Path) -> None:
    """Installs the package of a commit, a wheel, or this tree (None) into a folder."""
    with ExitStack() as stack:
        source = ROOT
        if commit is not None and commit.endswith(".whl"):
            source = Path(commit)
        elif commit is not None:
            source = Path(stack.enter_context(tempfile.TemporaryDirectory()), "source")
            git = ["git", "-C", str(ROOT), "worktree"]
            subprocess.run([*git, "add", "--quiet", "--detach", str(source), commit], check=True)
            stack.callback(subprocess.run, [*git, "remove", "--force", str(source)], check=True)
        print(f"installing {commit or 'this tree'}", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(package), str(source)], check=True)


def compare(packages: Sequence[Path], sizes: list[str], only: str, rounds: int) -> Iterator[Row]:
    """Yields a row per contender. `packages` are the folders with the base and the new package."""
    with ExitStack() as stack:
        base, new = (stack.enter_context(Worker(each, sizes, only)) for each in packages)
        for name in new.names:
            yield compare_contender(base, new, name, rounds)


def compare_contender(base: Worker, new: Worker, name: str, rounds: int) -> Row:
    if name not in base.names:
        return Row(name, [], [], "not in the base commit")
    times: dict[Worker, list[float]] = {base: [], new: []}
    try:
        for worker in (base, new):
            worker.ask("start", name)
        for i in range(rounds):
            for worker in (base, new) if i % 2 else (new, base):
                times[worker].append(worker.ask("sample"))
    except RuntimeError as error:
        return Row(name, [], [], str(error))
    finally:
        for worker in (base, new):
            worker.ask("stop")
    return Row(name, times[base], times[new])


def line(row: Row) -> str:
    if row.error:
        return f"{'':32}  {row.name}: {row.error}"
    mark = "+" if row.ratio > NOTABLE else "-" if row.ratio < 1 / NOTABLE else " "
    base, new = (show(statistics.median(each), "s") for each in (row.base, row.new))
    return f"{base:>10}  {new:>10}  {row.ratio:5.2f}x {mark}  {row.name}"


class Worker:
    """A process that imports one of the packages and runs samples on demand."""

    def __init__(self, package: Path, sizes: list[str], only: str) -> None:
        self._environment = dict(
            os.environ,
            PYTHONPATH=os.pathsep.join(map(str, [package, ROOT, ROOT / "tests" / "python"])),
        )
        self._command = [sys.executable, "-m", "bench.compare", "--worker", ",".join(sizes), only]

    def __enter__(self) -> Worker:
        self._process = subprocess.Popen(
            self._command, env=self._environment, cwd=ROOT, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.names: list[str] = self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, action: str, name: str = "") -> Any:
        """Returns the answer. Raises RuntimeError with the error in the worker."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([action, name]) + "\n")
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("a worker ended")
        result, error = json.loads(answer)
        if error:
            raise RuntimeError(error)
        return result


def work(sizes: list[str], only: str) -> None:
    """Answers the requests of a ``Worker``: start a contender, take a sample, stop it."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what contenders print
    found = find(sizes, only)
    print(json.dumps([list(found), ""]), file=answers)
    with ExitStack() as stack:
        sample: Any = None
        for request in sys.stdin:
            action, name = json.loads(request)
            result, error = None, ""
            try:
                if action == "start":
                    case, contender, module = found[name]
                    stack.callback(case.destination.free)
                    sample = measure.prepare(case, contender, 1, stack, module)
                    sample()
                elif action == "sample":
                    result = sample()["seconds"]
                else:
                    sample = None
                    stack.close()
            except Exception as problem:
                error = f"{type(problem).__name__}: {problem}".splitlines()[-1][:200]
            print(json.dumps([result, error]), file=answers)


def find(sizes: list[str], only: str) -> Found:
    """Finds tensorbundle's contenders that can run here.

    A module of benchmarks that imports what this tensorbundle does not have is left out.
    """
    found: Found = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = f"bench.{path.stem}"
        try:
            cases = getattr(importlib.import_module(module), "cases", None)
        except ImportError as error:
            if not (error.name or "").startswith("tensorbundle"):
                raise
            print(f"without {module}: {error}", file=sys.stderr)
            continue
        for case in (case for size in sizes for case in (cases(size) if cases else ())):
            for each in case.contenders:
                name = f"{case.key}: {each.name}"
                if each.role == OURS and only in name and each.unavailable() is None:
                    found[name] = case, each, module
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2].split(","), sys.argv[3])
    else:
        sys.exit(main())
