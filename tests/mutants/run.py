# SPDX-License-Identifier: Apache-2.0
"""Applies mutants one by one, and reports which of them the tests find.

``python tests/mutants/run.py`` works on copies of the tree, one for the C++ tests and one for the
Python tests, which run side by side. For each mutant it runs the test that the list names, and the
rest of the suite only if that test passes. Exits with 1 if a mutant survives that is not listed as
equivalent. ``--record`` writes the test that found a mutant into the list.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import mutants
from mutants import ROOT, SUITES, Mutant

FOLDERS = ("cpp", "docs", "examples", "python", "tests")
SECONDS_PER_PROGRAM = 90  # of C++: the slowest takes some 30 seconds
SECONDS_OF_SUITE = 3600
# Without debug information and with little optimization: the compiler takes most of the time.
# pybind11 checks that the GIL is held.
FLAGS = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DPYBIND11_ASSERT_GIL_HELD_INCREF_DECREF",
]


class BuildError(Exception):
    """The mutant does not compile, which tells nothing about the tests."""


@dataclasses.dataclass
class Result:
    """What became of a mutant."""

    mutant: Mutant
    outcome: str  # "killed", "survived" or "error"
    killer: str
    seconds: float

    @property
    def is_as_listed(self) -> bool:
        return self.outcome == ("survived" if self.mutant.equivalent else "killed")


def refresh(tree: Path) -> None:
    """Makes a copy of the tree current. Rewrites only what differs, for the build's sake."""
    ignored = {"__pycache__", "build"}
    sources = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and not ignored & set(path.parts) and path.suffix != ".so":
                sources.append(path)
    for source in sources:
        target = tree / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != source.read_bytes():
            shutil.copyfile(source, target)


def finish(command: list[str], timeout: float, **options: object) -> tuple[int, str]:
    """Runs a command. Returns its status, -9 after a time-out, and its output."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True, **options,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output, _ = process.communicate()
    return process.returncode, output


class Lane:
    """A copy of the tree, its builds, and the mutants of some suites."""

    def __init__(self, work: Path, jobs: int, near: bool = False) -> None:
        self.near = near
        self.tree = work / "tree"
        self.build = work / "build"
        self.jobs = jobs
        self.applied: Mutant | None = None
        refresh(self.tree)

    def configure(self, *options: str) -> None:
        ccache = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
        command = ["cmake", "-S", str(self.tree), "-B", str(self.build), "-G", "Ninja"]
        status, output = finish([*command, *FLAGS, *ccache, *options], SECONDS_OF_SUITE)
        if status:
            raise BuildError(output[-4000:])

    def compile(self, *targets: str) -> None:
        command = ["ninja", "-C", str(self.build), "-j", str(self.jobs), *targets]
        status, output = finish(command, SECONDS_OF_SUITE)
        if status:
            raise BuildError(output[-4000:])

    def switch(self, mutant: Mutant | None) -> None:
        """Restores the file of the last mutant, and applies the next one."""
        if self.applied is not None:
            shutil.copyfile(ROOT / self.applied.file, self.tree / self.applied.file)
        self.applied = mutant
        if mutant is not None:
            mutant.apply(self.tree)

    def prepare(self) -> None:
        """Builds the tree without mutants."""

    def baseline(self, hints: list[str]) -> None:
        """Runs the tests of the hints without mutants. Raises: RuntimeError if one fails."""

    def killer(self, mutant: Mutant) -> str:
        """Returns the test that finds the applied mutant, or an empty text."""
        raise NotImplementedError


class CppLane(Lane):
    """The core, and the programs below tests/cpp."""

    def prepare(self) -> None:
        self.configure("-DTENSORBUNDLE_BUILD_TESTS=ON")
        self.programs = {
            path.stem: path.parent.name for path in sorted(self.tree.glob("tests/cpp/*/*_test.cc"))
        }
        self.compile()
        self.programs = {name: room for name, room in self.programs.items() if self.program(name)}

    def program(self, name: str) -> Path | None:
        return next((p for p in self.build.rglob(name) if p.is_file()), None)

    def baseline(self, hints: list[str]) -> None:
        command = ["ctest", "--test-dir", str(self.build), f"-j{self.jobs}", "--timeout", "300"]
        status, output = finish(command, SECONDS_OF_SUITE)
        if status:
            raise RuntimeError(output[-4000:])

    def killer(self, mutant: Mutant) -> str:
        hinted, _, tests = mutant.killed_by.partition(" ")
        if hinted and (found := self.failure(hinted, tests)):
            return found
        room, stem = mutant.file.split("/")[-2:]
        stem = stem.partition(".")[0]

        def distance(name: str) -> tuple[bool, bool, bool, str]:
            return (not name.startswith(stem), stem not in name, self.programs[name] != room, name)

        for name in sorted(self.programs, key=distance):
            if self.near and self.programs[name] != room:
                continue
            if found := self.failure(name, ""):
                return found
        return ""

    def failure(self, name: str, tests: str) -> str:
        """Returns the program and its first test that fails, or an empty text."""
        self.compile(name)
        command = [str(self.program(name)), "--gtest_fail_fast"]
        if tests:
            command.append(f"--gtest_filter={tests}")
        environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
        status, output = finish(
            command, SECONDS_PER_PROGRAM, cwd=self.program(name).parent, env=environment
        )
        if "Running 0 tests" in output:
            raise BuildError(f"{name} has no test {tests}")
        if status == 0:
            return ""
        failed = re.search(r"\[  FAILED  \] ([\w./]+)", output)
        started = re.findall(r"\[ RUN      \] ([\w./]+)", output)  # of a crash or a time-out
        which = failed.group(1) if failed else started[-1] if started else ""
        return f"{name} {which}".rstrip()


class PythonLane(Lane):
    """The Python package, the extension and the op library, and the tests of pytest."""

    def prepare(self) -> None:
        import pybind11

        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        version = mutants.tomllib.loads(text)["project"]["version"]
        self.configure(
            "-DTENSORBUNDLE_BUILD_PYTHON=ON", f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DSKBUILD_PROJECT_VERSION_FULL={version}",
        )  # fmt: skip
        self.link()

    def link(self) -> None:
        """Builds the extension and the op library into the package."""
        self.compile()
        for path in self.build.rglob("*.so"):
            target = self.tree / "python/tensorbundle" / path.name
            # A new file: other processes may have mapped the old one.
            target.unlink(missing_ok=True)
            shutil.copyfile(path, target)

    def baseline(self, hints: list[str]) -> None:
        for suite in ("tests/python", "tests/tf"):
            wanted = {word for hint in hints for word in hint.split() if word.startswith(suite)}
            if wanted:
                status, output = self.pytest(["-n", str(self.jobs), *sorted(wanted)])
                if status:
                    raise RuntimeError(output[-4000:])

    def pytest(self, arguments: list[str]) -> tuple[int, str]:
        paths = [str(self.tree / "python"), str(self.tree / "tests/python")]
        environment = dict(
            os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONDONTWRITEBYTECODE="1"
        )
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        return finish([*command, *arguments], SECONDS_OF_SUITE, cwd=self.tree, env=environment)

    def killer(self, mutant: Mutant) -> str:
        if mutant.file.endswith((".cc", ".h")):
            self.link()
        if mutant.killed_by and (found := self.failure(mutant.killed_by.split())):
            return found
        if self.near:
            return ""
        many = ["-n", str(self.jobs)] if self.jobs > 1 else []
        return self.failure([SUITES[mutant.suite][0], *many])

    def switch(self, mutant: Mutant | None) -> None:
        was_built = self.applied is not None and self.applied.file.endswith((".cc", ".h"))
        super().switch(mutant)
        if was_built and not (mutant is not None and mutant.file.endswith((".cc", ".h"))):
            self.link()

    def failure(self, arguments: list[str]) -> str:
        """Returns the first test that fails, or an empty text."""
        status, output = self.pytest(["-x", "--no-header", *arguments])
        if status == 0:
            return ""
        failed = re.search(
            r"(?m)^(?:FAILED|ERROR) (tests/[\w/.]+(?:::\w+(?:\[[\w.-]+\])?)?)", output
        )
        if failed:
            return failed.group(1)
        if status in (4, 5):
            raise BuildError(f"pytest cannot run {arguments}:\n{output[-2000:]}")
        # The process died. pytest, which writes the name of the current test, is gone too.
        crashed = re.search(r"crashed while running '(tests/[\w/.]+::\w+)", output)
        return crashed.group(1) if crashed else arguments[0]


def run_lane(lane: Lane, todo: list[Mutant], options: argparse.Namespace) -> list[Result]:
    results = []
    try:
        for mutant in todo:
            start = time.monotonic()
            try:
                lane.switch(mutant)
                killer = lane.killer(mutant)
                outcome = "killed" if killer else "survived"
            except BuildError as error:
                killer, outcome = str(error), "error"
            result = Result(mutant, outcome, killer, time.monotonic() - start)
            results.append(result)
            if options.record and outcome == "killed" and killer != mutant.killed_by:
                mutant.record(killer)
            mark = "" if result.is_as_listed else "  <-- "
            print(
                f"{mark}{mutant.id:6}{outcome:9}{result.seconds:6.1f} s  {mutant.file}: "
                f"{mutant.bug}  [{killer}]",
                flush=True,
            )
    finally:
        lane.switch(None)
    return results


def summary(results: list[Result]) -> str:
    """Returns a table with a line per suite."""
    lines = ["| mutants in | tests | mutants | killed | equivalent | survived |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for suite, (tests, folder) in SUITES.items():
        own = [result for result in results if result.mutant.suite == suite]
        if own:
            count = collections.Counter(
                "equivalent" if r.mutant.equivalent and r.is_as_listed else r.outcome for r in own
            )
            lines.append(
                f"| `{folder}` | `{tests}` | {len(own)} | {count['killed']} | "
                f"{count['equivalent']} | {count['survived'] + count['error']} |"
            )
    return "\n".join(lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", help="ids, suites or words of paths; default: all")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "mutants")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time in each lane")
    parser.add_argument("--near", action="store_true", help="run only the tests of the same room")
    parser.add_argument("--record", action="store_true", help="write the tests into the list")
    parser.add_argument("--no-baseline", action="store_true", help="assume that the tests pass")
    return parser.parse_args(arguments)


def selected(which: list[str]) -> list[Mutant]:
    def matches(mutant: Mutant, word: str) -> bool:
        return word in (mutant.id, mutant.suite) or ("/" in word and word in mutant.file)

    listed = mutants.load()
    if not which:
        return listed
    return [mutant for mutant in listed if any(matches(mutant, word) for word in which)]


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    chosen = selected(options.which)
    results: list[Result] = []
    errors: list[str] = []

    def work(name: str, kind: type[Lane], todo: list[Mutant]) -> None:
        try:
            lane = kind(options.work.resolve() / name, options.jobs, options.near)
            lane.prepare()
            if not options.no_baseline:
                lane.baseline([mutant.killed_by for mutant in todo])
            results.extend(run_lane(lane, todo, options))
        except Exception as error:
            errors.append(f"{name}: {error}")
            print(errors[-1], file=sys.stderr, flush=True)  # the other lane may take an hour

    threads = []
    for name, kind in (("cpp", CppLane), ("python", PythonLane)):
        todo = [mutant for mutant in chosen if (mutant.suite == "cpp") == (name == "cpp")]
        if todo:
            threads.append(threading.Thread(target=work, args=(name, kind, todo)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("\n" + summary(results))
    wrong = [result for result in results if not result.is_as_listed]
    for result in wrong:
        print(f"{result.mutant.id}: {result.outcome}: {result.mutant.bug}\n    {result.killer}")
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if wrong or errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
