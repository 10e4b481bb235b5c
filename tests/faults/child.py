# SPDX-License-Identifier: Apache-2.0
"""Runs scenarios; in run number n of one, call number n of a group of functions fails.

Usage: child.py SHIM SCENARIO,SCENARIO,... DIRECTORY DEPTH. Prints a line per kind of fault.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import gc
import os
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scenarios

import tensorbundle as tb

OFF, FAIL, FAIL_FROM, SHORT, INTERRUPT = range(5)
NAMES = (
    "open", "read", "map", "stat", "write", "sync", "name", "remove", "size", "memory", "thread",
    "list", "close", "lock", "seek",
)  # fmt: skip
GROUPS = {name: 1 << bit for bit, name in enumerate(NAMES)}
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


class Shim:
    """The variables of the preloaded library."""

    def __init__(self, library: str, folder: Path) -> None:
        shim = ctypes.CDLL(library)
        self._mode = ctypes.c_int.in_dll(shim, "fault_mode")
        self._groups = ctypes.c_uint32.in_dll(shim, "fault_groups")
        self._at = ctypes.c_int64.in_dll(shim, "fault_at")
        self._errno = ctypes.c_int.in_dll(shim, "fault_errno")
        self._count = ctypes.c_int64.in_dll(shim, "fault_count")
        (ctypes.c_char * 4096).in_dll(shim, "fault_folder").value = os.fsencode(folder)
        code = (ctypes.c_size_t * 16).in_dll(shim, "fault_code")
        code[:4] = [*code_range("/_core."), *code_range("/libstdc++")]

    @property
    def count(self) -> int:
        return self._count.value

    @contextmanager
    def faults(self, groups: list[str], mode: int, number: int, at: int) -> Iterator[None]:
        self._groups.value = sum(GROUPS[group] for group in groups)
        self._errno.value, self._at.value, self._count.value = number, at, 0
        self._mode.value = mode
        try:
            yield
        finally:
            self._mode.value = OFF


def code_range(library: str) -> tuple[int, int]:
    """Returns the address range of a mapped library."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if library in line]
    return int(ranges[0][0], 16), int(ranges[-1][1], 16)


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
