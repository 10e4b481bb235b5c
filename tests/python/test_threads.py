# SPDX-License-Identifier: Apache-2.0
"""Checkpoints shared between threads, and reads that release the GIL."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle
from craft.compare import same_bits
from craft.dtypes import KINDS, sample
from craft.v1 import V1File

import tensorbundle as tb

THREADS = 8


def test_eight_threads_may_share_a_v2_checkpoint(tmp_path: Path) -> None:
    source = sample(KINDS[1], (997, 33))
    strings = [bytes([i % 256]) * (i % 50) for i in range(500)]
    bundle = Bundle(num_shards=3)
    bundle.add("plain", source)
    bundle.add_sliced("rows", source, tilings.cut((997, 33), 0, [500, 497]), shard_of=lambda i: i)
    bundle.add_sliced("columns", source, tilings.cut((997, 33), 1, [20, 13]), shard_of=lambda i: 2)
    bundle.add_strings("s", strings, (500,), shard=2)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        barrier.wait()
        for _ in range(30):
            name = ("plain", "rows", "columns")[rng.integers(3)]
            start, stop = sorted(rng.integers(0, 997, 2))
            assert same_bits(handles[name], source)
            assert same_bits(handles[name].read(), source)
            assert same_bits(handles[name][start:stop, 5:9], source[start:stop, 5:9])
            assert same_bits(ck[name].read(np.s_[start:stop, 3]), source[start:stop, 3])
            assert np.asarray(handles["s"]).tolist() == strings

    barrier = threading.Barrier(THREADS)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        handles = dict(ck.items())
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(THREADS)))


def test_eight_threads_may_share_a_v1_file(tmp_path: Path) -> None:
    file = V1File()
    sources = {str(n): sample(KINDS[n], (200, 7)) for n in (1, 3, 19)}
    for number, source in sources.items():
        file.add(number, int(number), source)
    with tb.open(file.write(tmp_path / "v1")) as ck, ThreadPoolExecutor(THREADS) as pool:
        handles = dict(ck.items())
        list(
            pool.map(
                lambda i: [same_bits(handles[n].read(), sources[n]) or 1 / 0 for n in sources],
                range(50),
            )
        )


def test_close_during_read_returns_data_or_raises(tmp_path: Path) -> None:
    source = sample(KINDS[1], (2000, 100))
    bundle = Bundle()
    bundle.add("t", source)
    prefix = bundle.write(tmp_path / "c")

    def work(t: Any) -> int:
        count = 0
        try:
            while True:
                assert same_bits(t.read(), source)
                assert same_bits(np.asarray(t), source)
                count += 1
        except ValueError as error:
            assert "closed" in str(error)
        return count

    for _ in range(10):
        ck = tb.open(prefix)
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(work, ck["t"]) for _ in range(4)]
            time.sleep(0.01)
            ck.close()
            assert all(future.result(timeout=30) >= 0 for future in running)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tensor of 256 MiB and a tensor of 1 M short strings."""
    bundle = Bundle()
    bundle.add("t", np.arange(1 << 26, dtype=np.float32).reshape(-1, 64))
    bundle.add_strings("s", [b"abcdefgh"] * 1_000_000, (1_000_000,))
    return bundle.write(tmp_path_factory.mktemp("large") / "c")


WORK: dict[str, Callable[[Any, Any], Any]] = {
    "read": lambda ck, out: ck["t"].read(out=out),
    "verify": lambda ck, out: ck.verify(["t"]),
}


@pytest.mark.parametrize("operation", WORK)
def test_read_and_verify_release_the_gil(large: Path, operation: str) -> None:
    with tb.open(large, threads=1) as ck:
        out = np.zeros(ck["t"].shape, np.float32)
        ticks: list[float] = []
        started, stop = threading.Event(), threading.Event()

        def tick() -> None:
            started.set()
            while not stop.is_set():
                ticks.append(time.perf_counter())
                time.sleep(0.0005)

        thread = threading.Thread(target=tick)
        thread.start()
        started.wait()
        start = time.perf_counter()
        WORK[operation](ck, out)
        end = time.perf_counter()
        stop.set()
        thread.join()
    during = [t for t in ticks if start < t < end]
    gaps = np.diff([start, *during, end])
    # If the work held the GIL, one gap would be as long as the work.
    assert gaps.max() < 0.6 * (end - start) + sys.getswitchinterval(), (len(during), end - start)
    assert len(during) >= 3


def test_concurrent_reads_of_corrupt_tensor_all_raise(tmp_path: Path) -> None:
    source = sample(KINDS[1], (500, 100))
    bundle = Bundle()
    bundle.add("t", source).crc32c ^= 1
    with tb.open(bundle.write(tmp_path / "c")) as ck, ThreadPoolExecutor(THREADS) as pool:

        def attempt(_: int) -> None:
            with pytest.raises(tb.CorruptionError):
                ck["t"].read()

        list(pool.map(attempt, range(40)))
