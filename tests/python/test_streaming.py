# SPDX-License-Identifier: Apache-2.0
"""Streaming one tensor in chunks: values, buffers, and cleanup."""

from __future__ import annotations

import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, shard_path
from craft.compare import same_bits
from craft.dtypes import KINDS, Kind, sample
from craft.specimen import specimen
from craft.threads import num_threads
from craft.v1 import V1File
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorbundle as tb

SOURCE = np.arange(1000 * 60, dtype=np.float32).reshape(1000, 60)
repeatable = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@st.composite
def tiled(draw: st.DrawFn) -> tuple[np.ndarray, list[tilings.Box], int, Kind, bool]:
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from([KINDS[n] for n in (1, 3, 6, 8, 10, 14, 18, 19, 23, 29, 31)]))
    boxes = tilings.guillotine(shape, draw(st.integers(0, 12)), rng)
    source = sample(kind, shape, seed=rng.randrange(100))
    return source, boxes, draw(st.integers(1, 3)), kind, draw(st.booleans())


def write(
    path: Path, source: np.ndarray, boxes: list[tilings.Box], shards: int, kind: Kind, big: bool
) -> Path:
    bundle = Bundle(shards, big_endian=big)
    bundle.pad(source.size % 3)
    bundle.add_sliced("t", source, boxes, number=kind.number, shard_of=lambda i: i * 7 % shards)
    return bundle.write(path / "c")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    bundle = Bundle()
    bundle.pad(3)
    bundle.add_sliced("t", SOURCE, tilings.cut(SOURCE.shape, 0, [300, 700]))
    bundle.add("scalar", np.float32(1))
    bundle.add("empty", np.empty((0, 4), np.float32))
    bundle.add("thin", np.empty((5, 0), np.float32))
    return bundle.write(tmp_path / "c")


def joined(stream: Any, rows: int, shape: tuple[int, ...]) -> np.ndarray:
    """Checks the offset and shape of every chunk, and returns the concatenated chunks."""
    chunks = []
    for number, (start, chunk) in enumerate(stream):
        assert start == number * rows
        assert chunk.shape == (min(rows, shape[0] - start), *shape[1:])
        chunks.append(chunk.copy())
    return np.concatenate(chunks)


@given(tiling=tiled(), rows=st.integers(1, 10), verify=st.sampled_from(["none", "lazy"]))
@repeatable
def test_reads_any_tiling_in_chunks_of_any_size(
    tmp_path: Path, tiling: tuple[Any, ...], rows: int, verify: str
) -> None:
    source = tiling[0]
    with tb.open(write(tmp_path, *tiling), verify=verify) as ck:
        assert same_bits(joined(ck["t"].chunks(rows), rows, source.shape), source)


def test_chunks_is_also_the_shape_of_a_chunk(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        shapes = {name: tuple(ck[name].chunks) for name in ("t", "scalar", "empty", "thin")}
        assert shapes == {"t": (1000, 60), "scalar": (), "empty": (1, 4), "thin": (5, 0)}
        (_, chunk), *_ = ck["t"].chunks()
        assert chunk.shape == shapes["t"]
        method = pickle.loads(pickle.dumps(ck["t"].chunks))
        assert [start for start, _ in method(rows=600)] == [0, 600]
        assert "'t'" in repr(method)
    assert "Streams the tensor" in (tb.Tensor.chunks.__doc__ or "")


def test_shape_of_a_chunk_is_that_of_the_stream(tmp_path: Path) -> None:
    tb.save(tmp_path / "ck", {"t": np.zeros((5000, 1000), np.float32)})
    with tb.open(tmp_path / "ck") as ck:
        (_, first), *_ = ck["t"].chunks()
        assert tuple(ck["t"].chunks) == first.shape == (2097, 1000)


@given(tiling=tiled(), rows=st.integers(1, 10), count=st.integers(1, 3))
@repeatable
def test_reads_into_callers_arrays(
    tmp_path: Path, tiling: tuple[Any, ...], rows: int, count: int
) -> None:
    source = tiling[0]
    outs = [np.empty((rows, *source.shape[1:]), source.dtype) for _ in range(count)]
    with tb.open(write(tmp_path, *tiling)) as ck:
        stream = ck["t"].chunks(out=outs[0] if count == 1 else outs)
        chunks = []
        for number, (_, chunk) in enumerate(stream):
            assert np.shares_memory(chunk, outs[number % count])
            time.sleep(0 if number % 3 else 0.001)  # prefetching must not overwrite this chunk
            chunks.append(chunk.copy())
        assert same_bits(np.concatenate(chunks), source)


def test_reads_v1_file(tmp_path: Path) -> None:
    file = V1File()
    file.add("plain", 1, SOURCE)
    file.add("decoded", 1, SOURCE, packed=False)
    boxes = tilings.grid(SOURCE.shape, [[400, 600], [10, 50]])
    file.add_sliced("sliced", 1, SOURCE, boxes)
    with tb.open(file.write(tmp_path / "v1")) as ck:
        for name in ck:
            assert same_bits(joined(ck[name].chunks(70), 70, SOURCE.shape), SOURCE)


def test_yields_strings_as_objects(tmp_path: Path) -> None:
    values = [f"value {i}".encode() * (i % 4) for i in range(60)]
    source = np.array(values, object).reshape(20, 3)
    bundle = Bundle()
    bundle.add_strings("t", values, (20, 3))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(joined(ck["t"].chunks(7), 7, source.shape), source)
        assert same_bits(joined(ck["t"].chunks(), 20, source.shape), source)
        out = np.empty((7, 3), object)
        assert same_bits(joined(ck["t"].chunks(out=out), 7, source.shape), source)


def test_fills_arrays_of_strings_in_turn(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add_strings("t", [b"%d" % i for i in range(10)], (10,))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        outs = [np.empty(4, object) for _ in range(2)]
        found = []
        for number, (start, chunk) in enumerate(ck["t"].chunks(out=outs)):
            assert np.shares_memory(chunk, outs[number % 2])
            found.append((start, b"".join(chunk)))
    assert found == [(0, b"0123"), (4, b"4567"), (8, b"89")]
    assert outs[1].tolist() == [b"4", b"5", b"6", b"7"]


def test_chunks_handles_tensors_without_rows(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        with pytest.raises(ValueError, match="scalar"):
            ck["scalar"].chunks()
        with pytest.raises(ValueError, match="rows must be at least 1"):
            ck["t"].chunks(0)
        assert list(ck["empty"].chunks()) == []
        assert [(start, chunk.shape) for start, chunk in ck["thin"].chunks(2)] == [
            (0, (2, 0)), (2, (2, 0)), (4, (1, 0)),
        ]  # fmt: skip


def test_unsuitable_destination_raises_error(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        t = ck["t"]
        good = np.empty((10, 60), np.float32)
        with pytest.raises(tb.ShapeMismatchError):
            t.chunks(out=np.empty((10, 61), np.float32))
        with pytest.raises(tb.ShapeMismatchError):
            t.chunks(11, out=good)
        with pytest.raises(tb.ShapeMismatchError):
            t.chunks(out=[good, np.empty((11, 60), np.float32)])
        with pytest.raises(TypeError):
            t.chunks(out=np.empty((10, 60), np.float64))
        with pytest.raises(ValueError, match="C-contiguous"):
            t.chunks(out=np.empty((60, 10), np.float32).T)
        with pytest.raises(ValueError, match="share memory"):
            t.chunks(out=[good, good])
        with pytest.raises(ValueError, match="at least one array"):
            t.chunks(out=[])


def test_chunks_are_writable_and_stay_valid(prefix: Path) -> None:
    ck = tb.open(prefix)
    kept = [chunk for _, chunk in ck["t"].chunks(10)]
    ck.close()
    gc.collect()
    assert same_bits(np.concatenate(kept), SOURCE)
    for chunk in kept:
        assert chunk.flags.writeable
        chunk[...] = 0


def test_views_keep_their_chunk_alive(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        firsts = [chunk[0, 5:9] for _, chunk in ck["t"].chunks(10)]
    assert same_bits(np.stack(firsts), SOURCE[::10, 5:9])


def test_kept_chunks_are_not_overwritten(prefix: Path) -> None:
    kept = {}
    with tb.open(prefix) as ck:
        for start, chunk in ck["t"].chunks(10):
            if start % 20:
                kept[start] = chunk
    for start, chunk in kept.items():
        assert same_bits(chunk, SOURCE[start : start + 10])


def test_memory_of_dropped_chunks_is_reused(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("t", np.zeros((64, 1 << 18), np.float32))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        addresses = {chunk.ctypes.data for _, chunk in ck["t"].chunks(5)}
    assert len(addresses) <= 3  # the last is shorter


def test_corrupt_slice_raises_before_its_last_rows(prefix: Path) -> None:
    shard = shard_path(prefix)
    data = bytearray(shard.read_bytes())
    data[3 + 450 * 240] ^= 1  # row 450, in the second slice (rows 300 to 1000)
    shard.write_bytes(data)
    with tb.open(prefix) as ck:
        stream = ck["t"].chunks(100)
        seen = []
        with pytest.raises(tb.CorruptionError, match=r"'t', slice \[300:1000, 0:60\].*CRC32C"):
            seen.extend(start for start, _ in stream)
        assert next(stream, None) is None
        stream = ck["t"].chunks(100)
        starts = [start for start, _ in zip(range(0, 900, 100), stream, strict=False)]
        assert starts == list(range(0, 900, 100))
        with pytest.raises(tb.CorruptionError):
            next(stream)
    with tb.open(prefix, verify="none") as ck:
        assert not same_bits(joined(ck["t"].chunks(100), 100, SOURCE.shape), SOURCE)


def test_verified_slices_are_remembered(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        assert "compared before" not in ck["t"].explain().checksum
        for _ in ck["t"].chunks(100):
            pass
        assert "2 of 2 slices compared before" in ck["t"].explain().checksum


def test_truncation_while_streaming_raises_error(prefix: Path) -> None:
    with tb.open(prefix, io="pread") as ck:
        stream = ck["t"].chunks(out=np.empty((10, 60), np.float32))  # one buffer: no prefetching
        next(stream)
        os.truncate(shard_path(prefix), 100)
        with pytest.raises(tb.CorruptionError, match=r"'t'.*ends early"):
            list(stream)


def test_missing_shard_raises_not_found_error(tmp_path: Path) -> None:
    path = specimen(2).write(tmp_path / "c")
    shard_path(path, 1, 2).unlink()
    with tb.open(path) as ck, pytest.raises(tb.CheckpointNotFoundError):
        list(ck["w"].chunks(1))


@linux
@pytest.mark.parametrize("end", ["close", "collect", "with", "exhaust"])
def test_ended_stream_stops_its_threads(prefix: Path, end: str) -> None:
    with tb.open(prefix) as ck:
        before = num_threads()
        stream = ck["t"].chunks(10)
        assert num_threads() <= before  # threads start at the first next()
        next(stream)
        if end == "close":
            stream.close()
            assert next(stream, None) is None
        elif end == "collect":
            del stream
            gc.collect()
        elif end == "with":
            with stream:
                next(stream)
        else:
            list(stream)
            del stream
        assert num_threads() <= before  # a thread of another test may have ended meanwhile


@linux
def test_dropped_stream_closes_files(prefix: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ck = tb.open(prefix)
    stream = ck["t"].chunks(10)
    _, kept = next(stream)
    ck.close()
    assert same_bits(next(stream)[1], SOURCE[10:20])  # the stream outlives the checkpoint
    del stream, ck
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert same_bits(kept, SOURCE[:10])


def test_two_threads_may_share_a_stream(prefix: Path) -> None:
    found: dict[int, np.ndarray] = {}

    def consume(stream: Any) -> None:
        for start, chunk in stream:
            found[start] = chunk.copy()

    with tb.open(prefix) as ck:
        stream = ck["t"].chunks(7)
        threads = [threading.Thread(target=consume, args=(stream,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert same_bits(np.concatenate([found[start] for start in sorted(found)]), SOURCE)


@linux
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() in a threaded process
def test_stream_in_forked_child_raises_runtime_error(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        stream = ck["t"].chunks(10)
        _, chunk = next(stream)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                next(stream)
            except RuntimeError:
                del stream, chunk
                gc.collect()
                fresh = joined(ck["t"].chunks(10), 10, SOURCE.shape)
                status = 0 if same_bits(fresh, SOURCE) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert sum(len(chunk) for _, chunk in stream) == 990


def sparse(path: Path, nbytes: int) -> Path:
    """Writes a checkpoint of one tensor of zeros with a sparse data file."""
    bundle = Bundle()
    entry = bundle.add("t", np.zeros((1, 256), np.float32))
    entry.size = nbytes
    entry.shape.dim[0].size = nbytes // 1024
    bundle.write(path / "c")
    os.truncate(shard_path(path / "c"), nbytes)
    return path / "c"


@linux
def test_signal_interrupts_wait(tmp_path: Path) -> None:
    path = sparse(tmp_path, 1 << 30)

    def interrupt(*_: Any) -> None:
        raise InterruptedError("by the timer")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with tb.open(path, io="pread", threads=1) as ck:
            stream = ck["t"].chunks(1 << 20)  # the whole tensor
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(InterruptedError):
                next(stream)
            stream.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_PEAK = """
import os, sys
import numpy as np
import tensorbundle as tb
path, io, function = sys.argv[1:]
def high():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
with tb.open(path, io=io, verify="none") as ck:
    t = ck["t"]
    before = high()
    if function == "chunks":
        for _, chunk in t.chunks(16384):
            chunk[:, ::16] += 1
    else:
        for _, array in ck.stream(max_bytes=32 << 20):
            array[...] = 1
            del array
    print(high() - before)
"""


def peak(path: Path, io: str, function: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(path), io, function],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout)


@linux
@pytest.mark.parametrize("io", ["auto", "pread", "direct"])
def test_peak_memory_is_two_chunks(tmp_path: Path, io: str) -> None:
    path = sparse(tmp_path, 256 << 20)
    try:
        assert peak(path, io, "chunks") <= (2 * 16 + 16) << 20
    except subprocess.CalledProcessError as error:
        if io == "direct" and "no direct I/O" in error.stderr:
            pytest.skip("this file system has no direct I/O")
        raise


@pytest.mark.parametrize("value", [True, 1.5, float("nan"), "1", [], -1, 0, 2**64, np.bool_(True)])
def test_invalid_row_count_raises_error(tmp_path: Path, value: object) -> None:
    bundle = Bundle()
    bundle.add("t", np.arange(6, dtype=np.int32))
    bundle.add_strings("s", [b"a", b"b"], (2,))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        for name in ("t", "s"):
            if isinstance(value, int) and value == 2**64:
                ((start, array),) = ck[name].chunks(value)
                assert (start, len(array)) == (0, len(ck[name]))
                continue
            with pytest.raises((TypeError, ValueError), match="row"):
                ck[name].chunks(value)
        ((start, array), *_) = ck["t"].chunks(np.int64(4))
        assert (start, array.tolist()) == (0, [0, 1, 2, 3])


@pytest.mark.parametrize("value", [True, 1.5, float("inf"), "1", [], -1, 2**64, None])
def test_invalid_max_bytes_raises_error(tmp_path: Path, value: object) -> None:
    bundle = Bundle()
    bundle.add("t", np.arange(6, dtype=np.int32))
    with (
        tb.open(bundle.write(tmp_path / "c")) as ck,
        pytest.raises((TypeError, ValueError), match="max_bytes"),
    ):
        ck.stream(max_bytes=value)
