# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C ends every long call soon, and leaves nothing behind.

The data files are sparse: they have 4 GB of zeros, and take no space on the disk.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle, shard_path

import tensorbundle as tb

ROWS, COLUMNS = 1 << 20, 1 << 10
NBYTES = ROWS * COLUMNS * 4
FLOAT = 1
# From the beginning of the call to the signal; and from there to the exception.
BEFORE, LIMIT = 0.1, 0.2
ATTEMPTS = 5

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
    pytest.mark.skipif(
        hasattr(os, "sysconf") and os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 12e9,
        reason="an array of 4 GB cannot be allocated",
    ),
]


def sparse(prefix: Path, crc: int, *names: str) -> Path:
    """Writes a checkpoint of one table, which all names share."""
    bundle = Bundle()
    for name in names or ("table",):
        entry = bundle.add_payload(name, FLOAT, (ROWS, COLUMNS), b"", crc=crc)
        entry.offset, entry.size = 0, NBYTES
    bundle.write(prefix)
    os.truncate(shard_path(prefix), NBYTES)
    return prefix


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signals")
    sparse(path / "a", 1)
    sparse(path / "b", 2)
    with shard_path(path / "a").open("rb") as file:  # into the page cache
        while file.read(1 << 24):
            pass
    return path


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    path = tmp_path_factory.mktemp("vocabularies")
    count = 4_000_000
    digits = np.arange(count)[:, None] // 10 ** np.arange(7, -1, -1) % 10 + ord("0")
    newlines = np.full((count, 1), ord("\n"))
    lines = np.concatenate([digits, newlines], axis=1).astype(np.uint8)
    lines.tofile(path / "old.txt")
    lines[::-1].tofile(path / "new.txt")
    return path / "new.txt", path / "old.txt"


def state() -> tuple[int, list[str]]:
    """Returns the number of threads, and the open files."""
    files = [os.readlink(entry) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry)]
    return len(os.listdir("/proc/self/task")), sorted(files)


def settled_state() -> tuple[int, list[str]]:
    """Returns the state without threads that are about to end, and cycles of references."""
    gc.collect()
    while True:
        before = state()
        time.sleep(0.02)
        if state() == before:
            return before


def seconds_to_stop(call: Any) -> float | None:
    """Interrupts a call, and returns the time that it takes to end; None if it was too fast."""
    sent = []

    def interrupt() -> None:
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    before = settled_state()
    timer = threading.Timer(BEFORE, interrupt)
    ended = None
    timer.start()
    try:
        call()
    except KeyboardInterrupt:
        ended = time.perf_counter()
    finally:  # another error, too, must not leave a signal for pytest
        with contextlib.suppress(KeyboardInterrupt):
            timer.join()
            time.sleep(0.01)
    if ended is None:
        return None
    assert settled_state() == before
    return ended - sent[0]


def stops_soon(call: Any) -> None:
    # Other processes may keep the processors busy.
    times = []
    for _ in range(ATTEMPTS):
        times.append(seconds_to_stop(call))
        if times[-1] is not None and times[-1] < LIMIT:
            return
    pytest.fail(f"{times} s from the signal to KeyboardInterrupt, at most {LIMIT} expected")


@pytest.fixture(autouse=True)
def default_handler() -> Any:
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


READS = {
    "read": lambda t: t.read(),
    # NumPy 1 copies the view itself, and hears of no signal.
    **({"array": lambda t: np.array(t)} if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else {}),
    "take": lambda t: t.take(np.random.default_rng(0).permutation(ROWS)),
    "take in order": lambda t: t.take(np.arange(ROWS)),
    "chunks": lambda t: [None for _ in t.chunks()],
    "small chunks": lambda t: [None for _ in t.chunks(7)],
}


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("threads", [1, 2])
def test_reads_stop(folder, how, threads):
    with tb.open(folder / "a", verify="none", threads=threads) as ck:
        stops_soon(lambda: READS[how](ck["table"]))
        assert ck["table"][5, 5] == 0  # the handle still works


def test_load_stops(folder):
    stops_soon(lambda: tb.load(folder / "a", verify="none"))


def test_verified_reads_stop(folder):
    stops_soon(lambda: tb.open(folder / "a", verify="full"))
    with tb.open(folder / "a") as ck:
        stops_soon(lambda: ck["table"].read())


def test_verify_stops(folder):
    with tb.open(folder / "a") as ck:
        stops_soon(ck.verify)


def test_join_stops(vocabularies):
    new, old = vocabularies

    def join() -> None:
        tb.clear_caches()
        tb.remap_vocab(str(new), str(old))

    stops_soon(join)


def test_load_and_remap_stops(folder):
    rows = np.random.default_rng(0).permutation(ROWS)
    with tb.open(folder / "a", verify="none") as ck:
        stops_soon(lambda: tb.load_and_remap(ck["table"], rows=rows))
        columns = np.arange(COLUMNS)[::-1].copy()
        stops_soon(lambda: tb.load_and_remap(ck["table"], rows=rows, columns=columns))


WRITES = {
    "save": lambda a, b, out: tb.save(out, {"t": np.zeros((ROWS, COLUMNS), np.float32)}),
    "edit": lambda a, b, out: tb.edit(a, out, rename={"table": "t"}),
    "cast": lambda a, b, out: tb.edit(a, out, cast={"float32": "bfloat16"}),
    "align": lambda a, b, out: tb.align(a, out),
    "average": lambda a, b, out: tb.average([a, b], out),
    "safetensors": lambda a, b, out: tb.convert(a, f"{out}.safetensors"),
    "npz": lambda a, b, out: tb.convert(a, f"{out}.npz"),
    "diff": lambda a, b, out: tb.diff(a, b, values=True),
}


@pytest.mark.parametrize("how", WRITES)
def test_writes_stop_and_leave_nothing(folder, tmp_path, how):
    if shutil.disk_usage(tmp_path).free < NBYTES + (1 << 30):
        pytest.skip("align() reserves 4 GB on the disk, which has less")
    (tmp_path / "out").mkdir()
    stops_soon(lambda: WRITES[how](folder / "a", folder / "b", tmp_path / "out" / "x"))
    assert os.listdir(tmp_path / "out") == []
