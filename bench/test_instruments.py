# SPDX-License-Identifier: Apache-2.0
"""Tests of the instruments: rounds, fresh processes, memory, page cache, baselines, comparisons."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorbundle
from bench import baseline, compare, data, measure
from bench.case import Case, Contender, Phases, Run

BYTES = 48 << 20

needs_compiler = pytest.mark.skipif(not baseline.compiler(), reason="no C compiler")


def cases(size: str) -> list[Case]:
    """Returns a case that fills memory, and cases that sleep in two phases in a fresh process."""
    if size != "smoke":
        return []

    @contextmanager
    def filling() -> Iterator[Run]:
        yield lambda: np.full(BYTES, 1, np.uint8)

    @contextmanager
    def sleeping() -> Iterator[Run]:
        def run() -> Phases:
            phases = Phases(result=os.getpid())
            with phases.phase("long", counts=False):
                time.sleep(0.5)
            with phases.phase("short"):
                time.sleep(0.05)
            return phases

        yield run

    def check(phases: Phases) -> None:
        assert phases.result == os.getpid(), "check ran in another process"

    sleep = [Contender("sleep", sleeping)]
    return [
        Case("instruments/fill", "fill memory", [Contender("fill", filling)], lambda _: None),
        Case("instruments/sleep", "sleep", sleep, check, fresh_process=True),
        Case("instruments/wrong", "sleep", sleep, _fail, fresh_process=True),
    ]


def _fail(_: Any) -> None:
    raise AssertionError("a wrong result")


def case_of(run: Any, check: Any) -> Case:
    @contextmanager
    def start() -> Iterator[Run]:
        yield run

    return Case("instruments/one", "one", [Contender("one", start)], check)


def test_wrong_result_is_an_error() -> None:
    def check(result: Any) -> None:
        assert result == 2

    assert measure.compare(case_of(lambda: 2, check), 3)["one"].error is None
    wrong = measure.compare(case_of(lambda: 1, check), 3)["one"]
    assert isinstance(wrong.error, AssertionError)
    assert not wrong.samples


def test_every_round_has_a_time() -> None:
    samples = measure.compare(case_of(lambda: None, lambda _: None), 3)["one"].samples
    assert len(samples["seconds"]) == len(samples["cpu_time"]) == 3


def test_fresh_process_reports_counted_phases() -> None:
    _, case, _ = cases("smoke")
    outcome = measure.compare(case, 2, __name__)["sleep"]
    assert outcome.error is None
    assert [0.05 <= seconds < 0.5 for seconds in outcome.samples["seconds"]] == [True, True]
    assert min(outcome.samples["long"]) >= 0.5
    assert len(outcome.samples["cpu_time"]) == 2


def test_wrong_result_in_fresh_process_is_an_error() -> None:
    *_, case = cases("smoke")
    outcome = measure.compare(case, 2, __name__)["sleep"]
    assert "a wrong result" in str(outcome.error)
    assert not outcome.samples


@needs_compiler
@pytest.mark.parametrize("nbytes", [1, 100, 3 << 18])
def test_checked_baseline_reads_the_file(tmp_path: Path, nbytes: int) -> None:
    path = tmp_path / "file"
    content = np.random.default_rng(1).integers(0, 256, nbytes + 8).astype(np.uint8)
    path.write_bytes(content.tobytes())
    out = np.zeros(nbytes, np.uint8)
    with path.open("rb") as file:
        baseline.pread_checked(file.fileno(), 8, nbytes, out, threads=2)
        assert np.array_equal(out, content[8:])
        baseline.pread_checked(file.fileno(), 8, nbytes, None, threads=2)
        with pytest.raises(OSError, match="ends early"):
            baseline.pread_checked(file.fileno(), 9, nbytes, out, threads=1)


@needs_compiler
def test_peak_memory_includes_allocations_of_a_run() -> None:
    case, *_ = cases("smoke")
    found = measure.in_fresh_process("memory", __name__, case, case.contenders[0])
    assert BYTES * 0.95 < found["peak_memory"] < BYTES * 1.3
    assert found["read"] < BYTES


def test_drop_removes_a_file_from_the_page_cache(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(bytes(1 << 22))
        file.flush()
        os.fsync(file.fileno())  # the page cache cannot drop dirty pages
    data.warm([path])
    assert measure.resident(path) == 1 << 22
    try:
        measure.drop([path])
    except measure.ColdCacheError:
        pytest.skip("a file system in memory")
    assert measure.resident(path) < 1 << 20


@needs_compiler
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("slices", [1, 4])
def test_baseline_gathers_rows(streaming: bool, threads: int, slices: int) -> None:
    table = np.arange(64 * 16, dtype=np.float32).reshape(64, 16)
    ids = np.random.default_rng(1).integers(-1, 64, 500)
    out, fill = np.zeros((500, 16), np.float32), np.full(16, 7, np.float32)
    baseline.gather(out, np.split(table, slices), ids, threads, streaming=streaming, fill=fill)
    assert np.array_equal(out, np.where(ids[:, None] < 0, fill, table[ids]))


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_baseline_joins_tokens_of_any_length(threads: int) -> None:
    rng = np.random.default_rng(1)
    tokens = [b"x" * int(size) + b"%d" % i for i, size in enumerate(rng.integers(0, 50, 3_000))]
    old = [tokens[i] for i in rng.permutation(2_000)]
    new = [tokens[i] for i in rng.permutation(3_000)]
    lines = {token: line for line, token in enumerate(old)}
    texts = [np.frombuffer(b"".join(b"%s\n" % token for token in each), np.uint8)
             for each in (new, old)]  # fmt: skip
    ids = baseline.join(*texts, 4_096, np.empty(len(new), np.int64), threads)
    assert ids.tolist() == [lines.get(token, -1) for token in new]
    with pytest.raises(OSError, match="number of lines"):
        baseline.join(*texts, 4_096, np.empty(len(new) - 1, np.int64), threads)


def test_comparison_of_a_package_with_itself() -> None:
    package = Path(tensorbundle.__file__).parents[1]
    rows = {row.name: row for row in compare.compare([package] * 2, ["smoke"], "view/", 3)}
    row = rows["view/2 MiB: tensorbundle: view"]
    assert len(row.base) == len(row.new) == 3
    assert 0.01 < row.ratio < 100
    assert row.name in compare.line(row)


def test_comparison_lists_what_the_base_cannot_run(tmp_path: Path) -> None:
    new = Path(tensorbundle.__file__).parents[1]
    old = tmp_path / "old"
    shutil.copytree(new / "tensorbundle", old / "tensorbundle")
    with (old / "tensorbundle" / "__init__.py").open("a") as file:
        file.write("\ndel load\n")
    only = "small/model"
    rows = {row.name.split(": ")[1]: row for row in compare.compare([old, new], ["smoke"], only, 1)}
    assert "load" in rows["tensorbundle, load"].error
    assert not rows["tensorbundle, handles"].error
    shutil.rmtree(old / "tensorbundle" / "formats")  # a module of benchmarks imports it
    rows = {row.name: row for row in compare.compare([old, new], ["smoke"], "convert/", 1)}
    assert {row.error for row in rows.values()} == {"not in the base commit"}
