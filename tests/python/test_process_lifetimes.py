# SPDX-License-Identifier: Apache-2.0
"""fork() and exit in the middle of reads and streams, child processes, and thousands of opens."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import faults, workers
from craft.bundle import Bundle, index_path, shard_path
from craft.v1 import V1File

import tensorbundle as tb

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

TABLE = np.arange(40_000 * 32, dtype=np.float32).reshape(40_000, 32)
WORDS = [b"word%d" % (i % 100) for i in range(5000)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A V2 checkpoint "c", a V1 checkpoint "v1", and two vocabularies."""
    folder = tmp_path_factory.mktemp("files")
    bundle = Bundle(num_shards=2)
    bundle.add("table", TABLE)
    boxes = [((0, 20_000), (0, 32)), ((20_000, 20_000), (0, 32))]
    bundle.add_sliced("sliced", TABLE, boxes, shard_of=lambda i: i)
    bundle.add_strings("words", WORDS, (len(WORDS),))
    bundle.write(folder / "c")
    file = V1File()
    for i in range(30):
        file.add(f"t{i}", 3, np.arange(i, i + 50, dtype=np.int32))
    file.write(folder / "v1")
    for name, step in (("old", 1), ("new", 2)):
        text = "".join(f"token{i}\n" for i in range(0, 100_000 * step, step))
        (folder / f"{name}.txt").write_text(text)
    return folder


PRELUDE = """
import faulthandler, os, signal, sys, threading, time
from pathlib import Path
import numpy as np
import tensorbundle as tb

faulthandler.enable()  # prints the stacks of a child that aborts
faulthandler.register(signal.SIGALRM, chain=True)  # prints all stacks, and ends the process
signal.alarm(200)
os.register_at_fork(after_in_child=lambda: signal.alarm(60))
folder = Path(sys.argv[1])
TABLE = np.arange(40_000 * 32, dtype=np.float32).reshape(40_000, 32)
checkpoint = tb.open(folder / "c", threads=2)
table, sliced, words = checkpoint["table"], checkpoint["sliced"], checkpoint["words"]
"""


def run(script: str, folder: Path, *arguments: str, **environment: str) -> str:
    """Runs a script, which must succeed and print no error. Returns its output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c",
         PRELUDE + textwrap.dedent(script), str(folder), *arguments],
        capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    if done.stderr:  # pytest shortens texts that it compares
        pytest.fail(done.stderr[:8000] + "\n...\n" + done.stderr[-4000:], pytrace=False)
    assert done.returncode == 0, done.returncode
    return done.stdout


READS = """
v1 = tb.open(folder / "v1")
def read(): assert np.array_equal(table.read(), TABLE)
def view(): assert np.asarray(table)[-1, -1] == TABLE[-1, -1]
def take(): assert np.array_equal(sliced.take([5, 39_999]), TABLE[[5, 39_999]])
def text(): assert words.read()[123] == b"word23"
def old_format(): assert v1["t7"].read().tolist() == list(range(7, 57))
def verify(): assert checkpoint.verify().ok
def chunks(): assert sum(len(c) for _, c in sliced.chunks(7000)) == 40_000
def join():
    tb.clear_caches()
    ids = tb.remap_vocab(folder / "new.txt", folder / "old.txt").ids
    assert ids[7] == 14 and ids[-1] == -1
everything = [read, view, take, text, old_format, verify, chunks, join]
"""


@linux
def test_fork_in_the_middle_of_reads(folder: Path) -> None:
    """A child of fork() has none of the other threads, and must not wait for them."""
    output = run(
        READS
        + """
stop, counts, failures = threading.Event(), {}, []
def loop(work):
    while not stop.is_set():
        try:
            work()
        except BaseException as error:
            failures.append(repr(error))
            return
        counts[work.__name__] = counts.get(work.__name__, 0) + 1
threads = [threading.Thread(target=loop, args=(work,)) for work in everything]
for thread in threads:
    thread.start()
for turn in range(60):
    time.sleep(0.003 * (turn % 4))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for i in range(len(everything)):
                everything[(i + turn) % len(everything)]()
            with tb.open(folder / "c") as fresh:
                assert np.array_equal(fresh["table"][3], TABLE[3])
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, (turn, status)
stop.set()
for thread in threads:
    thread.join()
assert not failures, failures
assert min(counts.values()) > 0 and len(counts) == len(everything), counts
print("good")
""",
        folder,
    )
    assert output == "good\n"


# Forks while four threads call work(). Each child returns from in_child() whether all is well.
FORKS = """
def fork_while_threads_work(turns, work, in_child):
    stop = threading.Event()
    def loop():
        while not stop.is_set():
            work()
    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(turns):
            child = os.fork()
            if child == 0:
                os._exit(0 if in_child() else 1)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status == 0, (turn, status)
    finally:
        stop.set()
    for thread in threads:
        thread.join()
    print("good")
"""


# With the lock of a checkpoint held by another thread during the fork, about one child in 50 waited
# forever on a busy machine.
@linux
def test_many_forks_while_threads_gather(folder: Path) -> None:
    output = run(
        FORKS
        + """
def in_child(): return table.take([7])[0, 0] == 7 * 32
fork_while_threads_work(200, lambda: table.take([5]), in_child)
""",
        folder,
    )
    assert output == "good\n"


# glibc frees the thread-local variables of an ended thread when it starts another one in the same
# memory. A child that is forked in the middle frees them again, and aborts. The library makes the
# middle longer, and without its caches per thread, glibc notices every time that memory is freed
# twice: without StartLock, one child in three aborted.
@linux
def test_many_forks_while_threads_start(folder: Path, tmp_path: Path) -> None:
    library = faults.build(tmp_path)
    output = run(
        FORKS
        + """
import ctypes
def work():
    checkpoint.verify()
    next(table.chunks(10))
def in_child():
    for _ in range(3):
        work()
    return True
work()  # the library looks up functions at their first call
ctypes.c_int.in_dll(ctypes.CDLL(sys.argv[2]), "fault_mode").value = int(sys.argv[3])
fork_while_threads_work(60, work, in_child)
""",
        folder, str(library), str(faults.SLOW_START),
        LD_PRELOAD=str(library), GLIBC_TUNABLES="glibc.malloc.tcache_count=0",
    )  # fmt: skip
    assert output == "good\n"


@linux
@pytest.mark.parametrize("leave", ["os._exit(0)", "sys.exit(0)"])
def test_fork_in_the_middle_of_streams(folder: Path, leave: str) -> None:
    """The parent's streams continue; those of the child raise, and end with it."""
    output = run(
        """
for turn in range(20):
    streams = [table.chunks(1000), sliced.chunks(3000), checkpoint.stream()]
    held = [next(stream) for stream in streams]
    child = os.fork()
    if child == 0:
        assert np.array_equal(held[0][1], TABLE[:1000])
        for stream in streams:
            try:
                next(stream)
            except RuntimeError:
                continue
            os._exit(2)
        if turn % 2:
            for stream in streams:
                stream.close()
            del streams, held
        assert sum(len(chunk) for _, chunk in table.chunks(9000)) == 40_000
        LEAVE
    rows = [sum(len(chunk) for _, chunk in stream) for stream in streams[:2]]
    assert rows == [39_000, 37_000], rows
    assert sorted(name for name, _ in streams[2]) and held[0][1][5, 5] == TABLE[5, 5]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, (turn, status)
print("good")
""".replace("LEAVE", leave),
        folder,
    )
    assert output == "good\n"


@linux
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_worker_processes_share_a_checkpoint(folder: Path, method: str) -> None:
    context = multiprocessing.get_context(method)
    with tb.open(folder / "c", threads=2) as ck:
        stream = ck["table"].chunks(1000)
        next(stream)  # its thread runs while the workers start
        workers.inherited = ck
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            if method == "fork":
                found = list(pool.map(workers.use_inherited, range(20)))
                assert found == [(row * 32 + 1, WORDS[row]) for row in range(20)]
            assert set(pool.map(workers.use_sent, [ck["table"]] * 4)) == {165 + 224}
            assert set(pool.map(workers.open_and_read, [str(folder / "c")] * 4)) == {40_000}
        assert sum(len(chunk) for _, chunk in stream) == 39_000
        workers.inherited = None


LIVE: dict[str, str] = {
    "a stream": "stream = table.chunks(1000); next(stream)",
    "a stream of tensors": "stream = checkpoint.stream(); held = next(stream)",
    "a stream in a cycle": "loop = [table.chunks(1000)]; loop.append(loop); held = next(loop[0])",
    "views": "held = [np.asarray(table), table[5], table.copy_on_write(), np.from_dlpack(table)]",
    "a view in a builtin": "import builtins; builtins.kept = (np.asarray(table), table.chunks(99))",
    "a view that atexit uses": """
import atexit
view = np.asarray(table)
atexit.register(lambda: print(int(view[1, 1]), int(table.read()[1, 1])))""",
    "a writer": "w = tb.Writer(folder / sys.argv[2]); w.add('a', TABLE[:3])",
    "a thread that reads": """
def work():
    for _ in range(20):
        assert np.array_equal(table.read(), TABLE)
threading.Thread(target=work).start()""",
}
DAEMONS: dict[str, str] = {
    "reads": "table.read()",
    "views": "np.asarray(sliced)[0]; table.take([1, 2, 3])",
    "strings": "words.read()",
    "streams": "list(table.chunks(5000))",
    "verifies": "checkpoint.verify()",
    "joins": "tb.clear_caches(); tb.remap_vocab(folder / 'new.txt', folder / 'old.txt')",
    "opens": "tb.open(folder / 'c').close()",
}


@pytest.mark.parametrize("case", LIVE)
def test_exit_with_live_objects(folder: Path, case: str) -> None:
    output = run(LIVE[case], folder, "unfinished")
    assert output == ("33 33\n" if "atexit" in case else "")
    assert not list(folder.glob("unfinished*"))


@pytest.mark.parametrize("case", DAEMONS)
@pytest.mark.parametrize("delay", [0, 0.05])
def test_exit_while_daemon_threads_work(folder: Path, case: str, delay: float) -> None:
    """Python freezes or ends daemon threads as soon as they need the interpreter."""
    run(
        f"""
def work():
    while True:
        {DAEMONS[case]}
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep({delay})
""",
        folder,
    )


# Thousands of opens and failures.


def counts() -> dict[str, int]:
    """Returns the numbers of descriptors, mappings and threads of this process."""
    with open("/proc/self/maps") as file:
        mappings = sum(1 for line in file if "/" in line)
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mappings": mappings,
        "threads": len(os.listdir("/proc/self/task")),
    }


def resident() -> int:
    """Returns the bytes of resident anonymous memory of this process."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def small(prefix: Path) -> Path:
    bundle = Bundle()
    bundle.add("t", np.arange(3000, dtype=np.float32).reshape(100, 30))
    bundle.add_strings("s", [b"a", b"bb"], (2,))
    return bundle.write(prefix)


def open_and_use(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        ck["t"].read()
        np.asarray(ck["t"]).sum()
        ck["t"].take([5, 99])
        list(ck.items())
        assert ck["s"].read().tolist() == [b"a", b"bb"]


def leave_open(prefix: Path) -> None:
    np.asarray(tb.open(prefix)["t"])[5]


def open_stream(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        next(ck["t"].chunks(7))


USES: dict[str, tuple[int, Callable[[Path], None]]] = {
    "closed": (10_000, open_and_use),
    "left open": (10_000, leave_open),
    "with a stream": (3000, open_stream),  # a thread each
}


def fails(error: type[Exception], function: Callable[[], Any]) -> None:
    with pytest.raises(error):
        function()


def read_missing_data(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        fails(tb.CheckpointNotFoundError, ck["t"].read)


def read_corrupt_data(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        fails(tb.CorruptionError, ck["t"].read)
        fails(tb.TensorNotFoundError, lambda: ck["v"])


def stream_corrupt_data(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        fails(tb.CorruptionError, lambda: list(ck["t"].chunks(30)))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


FAILURES: dict[str, tuple[int, Callable[[Path], Any], Callable[[Path], None]]] = {
    "no index": (
        10_000,
        lambda p: index_path(p).unlink(),
        lambda p: fails(tb.CheckpointNotFoundError, lambda: tb.open(p)),
    ),
    "short index": (
        10_000,
        lambda p: os.truncate(index_path(p), 60),
        lambda p: fails(tb.CorruptionError, lambda: tb.open(p)),
    ),
    "corrupt index": (
        10_000,
        lambda p: flip(index_path(p)),
        lambda p: fails(tb.CorruptionError, lambda: tb.open(p)),
    ),
    "no data": (10_000, lambda p: shard_path(p).unlink(), read_missing_data),
    "corrupt data": (10_000, lambda p: flip(shard_path(p)), read_corrupt_data),
    "corrupt stream": (3000, lambda p: flip(shard_path(p)), stream_corrupt_data),
}


def repeat(number: int, once: Callable[[Path], None], prefix: Path) -> None:
    for _ in range(300):
        once(prefix)
    gc.collect()
    before, memory = counts(), resident()
    for _ in range(number):
        once(prefix)
    gc.collect()
    assert counts() == before
    # A leak of 300 bytes in each of 10,000 turns would be 3 MB; less is noise of the allocator.
    assert resident() - memory < 3 << 20


@linux
@pytest.mark.parametrize("use", USES)
def test_thousands_of_opens_leak_nothing(tmp_path: Path, use: str) -> None:
    number, once = USES[use]
    repeat(number, once, small(tmp_path / "c"))


@linux
@pytest.mark.parametrize("failure", FAILURES)
def test_thousands_of_failures_leak_nothing(tmp_path: Path, failure: str) -> None:
    number, damage, once = FAILURES[failure]
    prefix = small(tmp_path / "c")
    damage(prefix)
    repeat(number, once, prefix)
