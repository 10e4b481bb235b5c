# SPDX-License-Identifier: Apache-2.0
"""Checkpoints shared between threads, and reads that release the GIL."""

from __future__ import annotations

import contextlib
import os
import statistics
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
from craft.threads import most_threads
from craft.v1 import V1File

import tensorbundle as tb
from tensorbundle import _core

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
                if count == 2:
                    have_read.release()
        except ValueError as error:
            assert "closed" in str(error)
        return count

    for _ in range(10):
        ck = tb.open(prefix)
        have_read = threading.Semaphore(0)
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(work, ck["t"]) for _ in range(4)]
            for _ in running:
                assert have_read.acquire(timeout=30)
            ck.close()
            assert all(future.result(timeout=30) >= 2 for future in running)


ROWS = 1 << 19
WIDTH = 64


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tensor of 128 MiB."""
    bundle = Bundle()
    bundle.add("t", np.arange(ROWS * WIDTH, dtype=np.float32).reshape(-1, WIDTH))
    return bundle.write(tmp_path_factory.mktemp("large") / "c")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of a million tokens."""
    path = tmp_path_factory.mktemp("vocabulary") / "tokens"
    path.write_bytes(b"".join(b"token%d\n" % i for i in range(1_000_000)))
    return path


class Job:
    """What the calls under test read and write."""

    def __init__(self, ck: tb.Checkpoint, tokens: Path, folder: Path) -> None:
        self.ck, self.tokens, self.folder = ck, tokens, folder
        self.out = np.zeros((ROWS, WIDTH), np.float32)
        self.ids = np.random.default_rng(1).integers(0, ROWS, ROWS)
        self.writer = tb.Writer(folder / "w")
        self.stream = ck.stream(["t"])

    def copy_rows(self) -> None:
        """As ``convert`` does, without progress, which would take the GIL from time to time."""
        path = self.folder / "rows"
        with open(path, "wb") as file:
            copies = [(self.ck["t"]._core, 0)]
            _core.copy_rows(os.fsencode(path), file.fileno(), copies, 1, None)

    def close(self) -> None:
        self.stream.close()
        self.writer.discard()


LONG_CALLS: dict[str, Callable[[Job], Any]] = {
    "read": lambda job: job.ck["t"].read(out=job.out),
    "load": lambda job: job.ck.load(["t"]),
    "verify": lambda job: job.ck.verify(["t"]),
    "take": lambda job: job.ck["t"].take(job.ids, out=job.out),
    "load_and_remap": lambda job: tb.load_and_remap(job.ck["t"], rows=job.ids, out=job.out),
    "stream": lambda job: next(job.stream),
    "align": lambda job: tb.align(job.ck.path, job.folder / "a", threads=1),
    "vocabularies": lambda job: tb.remap_vocab(job.tokens, job.tokens),
    "add": lambda job: job.writer.add("t", job.out[: ROWS // 2]),
    "add in parts": lambda job: job.writer.add("t", job.out),
    "copy": lambda job: job.writer.copy({"t": job.ck["t"]}),
    "copy rows": lambda job: job.copy_rows(),
    "publish": lambda job: job.writer.close(),
}


def longest_pause(work: Callable[[], object]) -> tuple[float, int]:
    """Returns the share of the call in which another thread did not run, and how often it ran."""
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
    work()
    end = time.perf_counter()
    stop.set()
    thread.join()
    during = [t for t in ticks if start < t < end]
    return float(np.diff([start, *during, end]).max() / (end - start)), len(during)


@pytest.mark.parametrize("name", LONG_CALLS)
def test_long_calls_release_the_gil(large: Path, tokens: Path, tmp_path: Path, name: str) -> None:
    pauses = []
    for attempt in range(8):  # on a busy machine the other thread may have to wait
        tb.clear_caches()
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with tb.open(large, threads=1) as ck, contextlib.closing(Job(ck, tokens, folder)) as job:
            call = LONG_CALLS[name]
            if name == "publish":
                job.writer.add("t", job.out)
            pauses.append(longest_pause(lambda call=call, job=job: call(job)))
        # If the call held the GIL, one pause would be nearly as long as the call.
        if pauses[-1][0] < 0.6 and pauses[-1][1] >= 3:
            return
    raise AssertionError(pauses)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("of_checkpoint", "of_call", "used"), [(1, None, 1), (3, None, 3), (1, 3, 3), (3, 1, 1)]
)
def test_reads_use_as_many_threads_as_asked_for(
    large: Path, of_checkpoint: int, of_call: int | None, used: int
) -> None:
    found = [0]
    with tb.open(large, threads=of_checkpoint) as ck:
        for attempt in range(30):  # on a busy machine the other thread may see too little
            if attempt > 3 and max(found) >= used:
                break
            # The caller is one of them.
            found.append(1 + most_threads(lambda: ck.load(["t"], threads=of_call)))
            if of_call is None:
                found.append(1 + most_threads(ck["t"].read))
        assert max(found) >= used
        assert statistics.median(found) <= used  # a thread of an earlier test may have run too


def test_default_number_of_threads(large: Path) -> None:
    try:
        tb.set_num_threads(5)
        with tb.open(large) as ck, tb.open(large, threads=2) as other:
            assert (ck.threads, other.threads) == (5, 2)
            assert (ck["t"].explain().threads, other["t"].explain().threads) == (5, 2)
            tb.set_num_threads(4)  # also for checkpoints that are open
            assert (ck.threads, other.threads) == (4, 2)
    finally:
        tb.set_num_threads(None)
    with tb.open(large) as ck:
        assert 1 <= ck.threads <= len(os.sched_getaffinity(0))


def test_concurrent_reads_of_corrupt_tensor_all_raise(tmp_path: Path) -> None:
    source = sample(KINDS[1], (500, 100))
    bundle = Bundle()
    bundle.add("t", source).crc32c ^= 1
    with tb.open(bundle.write(tmp_path / "c")) as ck, ThreadPoolExecutor(THREADS) as pool:

        def attempt(_: int) -> None:
            with pytest.raises(tb.CorruptionError):
                ck["t"].read()

        list(pool.map(attempt, range(40)))
