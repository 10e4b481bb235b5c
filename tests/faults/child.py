# SPDX-License-Identifier: Apache-2.0
"""Runs scenarios; in run number n of one, call number n of a group of functions fails.

Usage: child.py SHIM SCENARIO,SCENARIO,... DIRECTORY DEPTH. Prints a line per kind of fault.
"""

from __future__ import annotations

import errno
import functools
import gc
import os
import shutil
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import scenarios
from craft.faults import FAIL, FAIL_FROM, INTERRUPT, OFF, SHORT, Shim

import tensorbundle as tb

# The kinds of faults: groups of functions, the mode and the error.
READ_FAULTS = {
    "open EMFILE": (["open", "list"], FAIL, errno.EMFILE),
    "read EIO": (["read"], FAIL, errno.EIO),
    "stat EIO": (["stat"], FAIL, errno.EIO),
    "map ENOMEM": (["map"], FAIL, errno.ENOMEM),
}
# Not in writes: zipfile takes a failed seek for the beginning of a small file.
SEEK_FAULTS = {"seek EIO": (["seek"], FAIL, errno.EIO)}
WRITE_FAULTS = {
    "write ENOSPC": (["open", "write", "size", "name", "sync", "close"], FAIL, errno.ENOSPC),
    "write EIO": (["write", "size", "name", "sync", "remove", "close", "lock"], FAIL, errno.EIO),
    "no stat": (["stat"], FAIL_FROM, errno.EIO),
    "disk full": (["write", "size", "name"], FAIL_FROM, errno.ENOSPC),
}
ALWAYS = {
    "memory": (["memory"], FAIL, errno.ENOMEM),
    "thread EAGAIN": (["thread"], FAIL, errno.EAGAIN),
    "no threads": (["thread"], FAIL_FROM, errno.EAGAIN),
}
HARMLESS = {
    "short": (["read", "write"], SHORT, 0),
    "interrupted": (["open", "read", "write", "sync", "size"], INTERRUPT, errno.EINTR),
}
LIMIT = 20_000


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return (
            isinstance(found, dict)
            and found.keys() == wanted.keys()
            and all(same(found[key], wanted[key]) for key in wanted)
        )
    if isinstance(wanted, (list, tuple)):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, np.ndarray):
        return found.dtype == wanted.dtype and np.array_equal(found, wanted)
    return bool(found == wanted)


class Resources:
    """The descriptors, mappings of files below a directory, and threads of this process."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)

    def now(self) -> dict[str, list[str]]:
        links = []
        for number in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink(f"/proc/self/fd/{number}"))
            except OSError:
                continue  # the descriptor of the listing
        with open("/proc/self/maps") as file:
            maps = [line.split()[-1] for line in file if self._directory in line]
        return {
            "descriptors": sorted(link for link in links if not link.endswith("/fd")),
            "mappings": sorted(maps),
            "threads": sorted(os.listdir("/proc/self/task")),
        }

    def check(self, before: dict[str, list[str]]) -> None:
        for attempt in range(100):
            now = self.now()
            if not any(Counter(now[kind]) - Counter(before[kind]) for kind in now):
                return  # a thread may have ended since
            if attempt == 0:
                gc.collect()
            time.sleep(0.01)
        raise AssertionError(f"left over: before {before}, after {now}")


def is_documented(error: BaseException, kind: str) -> bool:
    if kind == "memory" and isinstance(error, MemoryError):
        return True
    return isinstance(error, tb.IOFailure)


class Driver:
    """One scenario."""

    def __init__(self, shim: Shim, name: str, directory: Path, deep: bool) -> None:
        self.shim, self.name, self.deep = shim, name, deep
        self.src, self.out = directory / "src", directory / "out"
        self.resources = Resources(directory)
        self.found: list[str] = []

    def run_all(self) -> None:
        if self.name in scenarios.READS:
            kinds = {**READ_FAULTS, **SEEK_FAULTS, **ALWAYS, **HARMLESS}
            once = self.read_once
        else:
            kinds = {**READ_FAULTS, **WRITE_FAULTS, **ALWAYS, **HARMLESS}
            once = self.write_once
        once("none", ([], OFF, 0), 0)  # imports what is imported late, and fills caches
        once("none", ([], OFF, 0), 0)
        gc.freeze()
        for kind, fault in kinds.items():
            injected, at = 0, 1
            while at < LIMIT:
                print(f"{self.name}: {kind} at {at}", flush=True)
                try:
                    fired = once(kind, fault, at)
                except AssertionError as error:
                    self.found.append(f"{self.name}: {kind} at {at}: {error}")
                    fired = True
                if not fired:
                    break
                injected += 1
                if fault[1] in (SHORT, INTERRUPT) or len(self.found) > 40:
                    break
                at += self.stride(kind, at)
            assert at < LIMIT
            print(f"= {self.name}: {kind}: {injected}", flush=True)

    def stride(self, kind: str, at: int) -> int:
        """In a sample, allocations with ever larger numbers: a third is added each time."""
        return 1 if self.deep or kind != "memory" else 1 + at // 3

    def attempt(self, kind: str, fault: Any, at: int, body: Any) -> tuple[bool, Any, bool]:
        """Returns whether a fault was injected, the result, and whether the run failed."""
        groups, mode, number = fault
        result, failure = None, None
        try:
            with self.shim.faults(groups, mode, number, at):
                result = body()
        except Exception as error:
            failure = error
        fired = self.shim.count >= at or mode in (SHORT, INTERRUPT, OFF)
        if failure is not None:
            text = "".join(traceback.format_exception(failure))
            if not fired or mode in (SHORT, INTERRUPT, OFF):
                raise AssertionError("fails without a fault: " + text)
            if not is_documented(failure, kind):
                raise AssertionError("an undocumented exception: " + text)
            if kind != "memory" and failure.errno != number:
                raise AssertionError(f"errno {failure.errno} instead of {number}: {text}")
            traceback.clear_frames(failure.__traceback__)
            return fired, None, True
        return fired, result, False

    def read_once(self, kind: str, fault: Any, at: int) -> bool:
        scenario = scenarios.READS[self.name]
        start = self.resources.now()
        with scenario.prepare(self.src) as subject:
            body = functools.partial(scenario.run, subject)
            fired, result, failed = self.attempt(kind, fault, at, body)
            if kind == "none":
                self.expected = result
            if not failed and not (scenario.logs and result is None):
                assert same(result, self.expected), f"wrong values: {result!r}"
            # The same handle works afterwards.
            assert same(scenario.run(subject), self.expected), "wrong values afterwards"
            del body, result
        del subject
        self.resources.check(start)
        return fired

    def write_once(self, kind: str, fault: Any, at: int) -> bool:
        scenario = scenarios.WRITES[self.name]
        scenarios.empty(self.out)
        scenario.prepare(self.out)
        before, files = scenario.load(self.out), scenarios.names_in(self.out)
        start = self.resources.now()
        fired, _, failed = self.attempt(kind, fault, at, lambda: scenario.run(self.src, self.out))
        self.resources.check(start)
        if kind == "none":
            self.expected = scenario.load(self.out)
            self.expected_files = scenarios.names_in(self.out)
        if not failed:
            assert same(scenario.load(self.out), self.expected), "wrong output"
            if kind in HARMLESS or not fired:
                assert scenarios.names_in(self.out) == self.expected_files, "other files"
        else:
            try:
                now = scenario.load(self.out)
            except Exception as error:
                raise AssertionError(f"a broken output: {error!r}") from None
            names = scenarios.names_in(self.out)
            if same(now, before) and "remove" not in fault[0]:
                assert set(names) <= set(files), f"leftovers: {set(names) - set(files)}"
            assert same(now, before) or same(now, self.expected), "neither old nor new"
            if scenario.overwrite or now is None:
                scenario.run(self.src, self.out)
                assert same(scenario.load(self.out), self.expected), "wrong output afterwards"
                names = scenarios.names_in(self.out)
                assert names == self.expected_files, f"leftovers of the failed write: {names}"
        return fired


def main() -> None:
    library, names, folder, depth = sys.argv[1:]
    directory = Path(folder).resolve()
    source = directory / "src"
    shutil.rmtree(directory, ignore_errors=True)
    source.mkdir(parents=True)
    scenarios.write_sources(source)
    shim = Shim(library, directory)
    found = []
    for name in names.split(","):
        driver = Driver(shim, name, directory, depth == "deep")
        driver.run_all()
        found += driver.found
    print(*found, sep="\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
