# SPDX-License-Identifier: Apache-2.0
"""Makes a test of every contender in every case of the chosen sizes.

The first test of a case lets all contenders run in turns. Then each test hands its own times to
pytest-benchmark, which keeps the statistics, prints the tables and writes the JSON file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from bench import contest, machine, sizes, weigh
from bench.case import Case, Contender


class Entry(NamedTuple):
    """A contender in a case."""

    module: str
    case: Case
    contender: Contender

    def __repr__(self) -> str:
        return f"{self.case.key}: {self.contender.name}"


class ReplayClock:
    """The clock that pytest-benchmark looks at: it shows times that were measured before."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def replay(self, seconds: list[float]) -> Callable[[], None]:
        remaining = iter(seconds)

        def run() -> None:
            self._now += next(remaining)

        return run


CLOCK = ReplayClock()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "tensorbundle's benchmarks")
    group.addoption(
        "--bench-size", default="smoke",
        help=f"comma-separated: {', '.join(sizes.SIZES)}; or all (smoke)",
    )  # fmt: skip
    group.addoption("--bench-rounds", type=int, default=7, help="samples per contender (7)")
    group.addoption("--bench-weigh", action="store_true", help="measure memory and bytes read too")


def pytest_configure(config: pytest.Config) -> None:
    # What rivals warn about is not ours to mend.
    config.addinivalue_line("filterwarnings", "default")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "entry" not in metafunc.fixturenames:
        return
    chosen = sizes.parse(metafunc.config.getoption("--bench-size"))
    cases = {case.key: case for size in chosen for case in metafunc.module.cases(size)}
    entries = [
        Entry(metafunc.module.__name__, case, contender)
        for case in cases.values()
        for contender in case.contenders
    ]
    metafunc.parametrize("entry", entries, ids=repr)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "duel" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(timer=CLOCK.now))


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info.clear()
    machine_info.update(machine.facts())


@pytest.fixture(scope="session")
def contests(request: pytest.FixtureRequest) -> Callable[..., dict[str, contest.Outcome]]:
    """Holds the contest of a case when it is first asked for."""
    option = request.config.option
    rounds = 0 if option.benchmark_disable else option.bench_rounds
    held: dict[str, dict[str, contest.Outcome]] = {}

    def outcomes(module: str, case: Case) -> dict[str, contest.Outcome]:
        if case.key not in held:
            held[case.key] = contest.hold(case, rounds, module)
        return held[case.key]

    return outcomes


@pytest.fixture
def duel(request: pytest.FixtureRequest, contests: Any) -> Callable[[Entry], None]:
    """Fails if the entry raised or gave a wrong result, and hands in its times."""

    def run(entry: Entry) -> None:
        module, case, contender = entry
        outcomes = contests(module, case)
        outcome = outcomes[contender.name]
        if outcome.error is not None:
            raise outcome.error
        if outcome.skipped:
            pytest.skip(outcome.skipped)
        # Only now: a fixture that was asked for and not used is a warning.
        benchmark = request.getfixturevalue("benchmark")
        benchmark.group = case.key
        benchmark.extra_info.update(_facts_of(case, contender))
        benchmark.extra_info.update(contest.comparisons(case, outcomes, contender.name))
        if outcome.seconds:
            benchmark.extra_info["cpu"] = sorted(outcome.cpu)[len(outcome.cpu) // 2]
            benchmark.extra_info.update(outcome.median_parts())
            if case.weigh and request.config.option.bench_weigh:
                benchmark.extra_info.update(weigh.weigh(module, case, contender))
        rounds = max(1, len(outcome.seconds))
        benchmark.pedantic(CLOCK.replay(outcome.seconds or [0.0]), rounds=rounds)

    return run


def _facts_of(case: Case, contender: Contender) -> dict[str, Any]:
    return {
        "case": case.key,
        "title": case.title,
        "contender": contender.name,
        "role": contender.role,
        "checksum": contender.checksum,
        "unit": case.unit,
        "amount": case.amount,
        "fraction": contender.fraction,
        "chunk": case.chunk,
    }
