# SPDX-License-Identifier: Apache-2.0
"""The instruments themselves: the floor, the scales and the page cache tell the truth."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import ceiling, contest, page_cache, weigh
from bench.case import Case, Contender, Run
from bench.fresh import Report
from bench.sizes import Size

BYTES = 48 << 20


def cases(size: Size) -> list[Case]:
    """For the scales: fill memory. For times from a fresh process: sleep in two parts."""
    if not size.imports:
        return []

    @contextmanager
    def filling() -> Iterator[Run]:
        yield lambda: np.full(BYTES, 1, np.uint8)

    @contextmanager
    def sleeping() -> Iterator[Run]:
        def run() -> Report:
            report = Report(value=os.getpid())
            with report.part("long", counts=False):
                time.sleep(0.5)
            with report.part("short"):
                time.sleep(0.05)
            return report

        yield run

    def check(report: Report) -> None:
        assert report.value == os.getpid(), "not the process that ran it"

    return [
        Case("instruments/fill", "fill memory", [Contender("fill", filling)], lambda _: None),
        Case("instruments/sleep", "sleep", [Contender("sleep", sleeping)], check, fresh=True),
        Case("instruments/wrong", "sleep", [Contender("sleep", sleeping)], _fail, fresh=True),
    ]


def _fail(_: Any) -> None:
    raise AssertionError("a wrong result")


def a_case(run: Any, check: Any) -> Case:
    @contextmanager
    def start() -> Iterator[Run]:
        yield run

    return Case("instruments/one", "one", [Contender("one", start)], check)


def test_a_wrong_result_is_an_error() -> None:
    def check(result: Any) -> None:
        assert result == 2

    assert contest.hold(a_case(lambda: 2, check), 3)["one"].error is None
    assert isinstance(contest.hold(a_case(lambda: 1, check), 3)["one"].error, AssertionError)


def test_every_round_has_its_time() -> None:
    outcome = contest.hold(a_case(lambda: None, lambda _: None), 3)["one"]
    assert len(outcome.seconds) == len(outcome.cpu) == 3


def test_a_fresh_process_reports_what_counts() -> None:
    _, case, _ = cases(Size("any", imports=True))
    outcome = contest.hold(case, 2, __name__)["sleep"]
    assert outcome.error is None
    assert [0.05 <= seconds < 0.5 for seconds in outcome.seconds] == [True, True]
    assert outcome.median_parts()["long"] >= 0.5
    assert len(outcome.cpu) == 2


def test_a_wrong_result_in_a_fresh_process_is_an_error() -> None:
    *_, case = cases(Size("any", imports=True))
    outcome = contest.hold(case, 2, __name__)["sleep"]
    assert "a wrong result" in str(outcome.error)
    assert not outcome.seconds


@pytest.mark.parametrize("nbytes", [1, 100, 3 << 18])
def test_floor_reads_what_it_checks(tmp_path: Path, nbytes: int) -> None:
    if ceiling.unavailable():
        pytest.skip("no C compiler")
    path = tmp_path / "file"
    stored = np.random.default_rng(1).integers(0, 256, nbytes + 8).astype(np.uint8)
    path.write_bytes(stored.tobytes())
    out = np.zeros(nbytes, np.uint8)
    with path.open("rb") as file:
        ceiling.pread_checked(file.fileno(), 8, nbytes, out, threads=2)
        assert np.array_equal(out, stored[8:])
        ceiling.pread_checked(file.fileno(), 8, nbytes, None, threads=2)
        with pytest.raises(OSError, match="ends early"):
            ceiling.pread_checked(file.fileno(), 9, nbytes, out, threads=1)


def test_scales_see_what_a_run_allocates() -> None:
    if ceiling.unavailable():
        pytest.skip("no C compiler")
    case, *_ = cases(Size("any", imports=True))
    found = weigh.weigh(__name__, case, case.contenders[0])
    assert BYTES * 0.95 < found["anonymous"] < BYTES * 1.3
    assert found["read"] < BYTES


def test_page_cache_lets_go_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(bytes(1 << 22))
        file.flush()
        # What is not on the disk cannot be dropped.
        os.fsync(file.fileno())
    page_cache.warm([path])
    assert page_cache.resident(path) == 1 << 22
    try:
        page_cache.drop([path])
    except OSError:
        pytest.skip("a file system in memory")
    assert page_cache.resident(path) < 1 << 20


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("parts", [1, 4])
def test_floor_gathers_the_right_rows(streaming: bool, threads: int, parts: int) -> None:
    if ceiling.unavailable():
        pytest.skip("no C compiler")
    table = np.arange(64 * 16, dtype=np.float32).reshape(64, 16)
    ids = np.random.default_rng(1).integers(-1, 64, 500)
    out, fill = np.zeros((500, 16), np.float32), np.full(16, 7, np.float32)
    ceiling.gather(
        out, np.split(table, parts), ids, threads=threads, streaming=streaming, fill=fill
    )
    assert np.array_equal(out, np.where(ids[:, None] < 0, fill, table[ids]))
