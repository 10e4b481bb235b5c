# SPDX-License-Identifier: Apache-2.0
"""One test per contender and case; pytest-benchmark summarises and saves the times.

The first test of a case measures all contenders of the case (``measure.compare``). Each test then
replays the times of its contender to the ``benchmark`` fixture.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import baseline, data, measure
from bench.case import Case, Contender, parse_sizes

PACKAGES = ("tensorbundle", "numpy", "tensorflow", "tensorflow-cpu", "safetensors", "tensorstore",
            "zarr", "pyarrow")  # fmt: skip

_now = 0.0


def replayed_time() -> float:
    """Returns the time for pytest-benchmark."""
    return _now


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "tensorbundle's benchmarks")
    group.addoption("--bench-size", default="smoke", type=parse_sizes, metavar="SIZE,...",
                    help="sizes; all is every size but smoke; the default is smoke")  # fmt: skip
    group.addoption("--bench-memory", action="store_true", help="measure peak memory and reads too")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "default")  # a competitor may warn


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "compare" in metafunc.fixturenames:
        sizes = metafunc.config.option.bench_size
        cases = {case.key: case for size in sizes for case in metafunc.module.cases(size)}
        tests = []
        for case in cases.values():
            mark = pytest.mark.benchmark(group=case.key, timer=replayed_time)
            for each in case.contenders:
                test = pytest.param(case, each, id=f"{case.key}: {each.name}", marks=mark)
                tests.append(test)
        metafunc.parametrize(("case", "contender"), tests, scope="module")


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, case: Case) -> dict[str, measure.Outcome]:
    """The measurements of a case, shared by the tests of its contenders."""
    option = request.config.option
    rounds = 0 if option.benchmark_disable else option.benchmark_min_rounds
    return measure.compare(case, rounds, request.module.__name__)


@pytest.fixture
def compare(
    request: pytest.FixtureRequest, benchmark: Any, outcomes: Any, case: Case, contender: Contender
) -> Callable[[], None]:
    """Returns a function that reports a contender's figures; it fails if the contender failed."""

    def run() -> None:
        outcome: measure.Outcome = outcomes[contender.name]
        if outcome.error is not None:
            raise outcome.error
        if outcome.skipped:
            pytest.skip(outcome.skipped)
        info = benchmark.extra_info
        for each, names in (
            (case, "title unit amount"),
            (contender, "name role checksum fraction"),
        ):
            info.update({name: getattr(each, name) for name in names.split()})
        info.update({name: statistics.median(values) for name, values in outcome.samples.items()})
        if outcome.samples and case.memory and request.config.option.bench_memory:
            module = request.module.__name__
            info.update(measure.in_fresh_process("memory", module, case, contender))
        seconds = outcome.samples.get("seconds", [0.0])
        times = iter(seconds)

        def replay() -> None:
            global _now
            _now += next(times)

        benchmark.pedantic(replay, rounds=len(seconds))

    return run


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    del machine_info["node"]  # the machine's name
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    compiler, packages = baseline.compiler(), {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    machine_info.update(
        processors=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        last_level_cache=caches[-1].read_text().strip() if caches else None,
        virtual="hypervisor" in machine_info["cpu"].get("flags", ()),
        file_system=_output("df", "--output=fstype", str(data.root()))[-1],
        compiler=_output(compiler, "--version")[0] if compiler else None,
        packages=packages,
    )


def _output(*command: str) -> list[str]:
    """Returns the lines that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()
