# SPDX-License-Identifier: Apache-2.0
"""Arguments that share memory with the destination, or that another thread modifies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle

import tensorbundle as tb

TABLE = np.arange(60, dtype=np.float32).reshape(6, 10)
COUNT = 6000


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    bundle = Bundle()
    bundle.add("t", TABLE)
    bundle.add("wide", np.arange(12, dtype=np.int64).reshape(3, 4))
    bundle.add_strings("s", [b"a", b"b", b"c"], (3,))
    return bundle.write(tmp_path / "c")


def destination_with(*arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns a destination of COUNT rows, and copies of the arrays inside its memory."""
    memory = np.zeros(TABLE.itemsize * TABLE.shape[1] * COUNT, np.uint8)
    copies, end = [], 0
    for array in arrays:
        copied = memory[end : end + array.nbytes].view(array.dtype).reshape(array.shape)
        copied[...] = array
        copies.append(copied)
        end += array.nbytes
    return memory.view(np.float32).reshape(COUNT, 10), copies


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64])
@pytest.mark.parametrize("io", ["auto", "pread"])
def test_ids_may_share_memory_with_destination(prefix: Path, dtype: type, io: str) -> None:
    ids = (np.arange(COUNT) * 7 % 6).astype(dtype)
    out, (shared,) = destination_with(ids)
    with tb.open(prefix, io=io) as ck:
        assert ck["t"].take(shared, out=out) is out
    np.testing.assert_array_equal(out, TABLE[ids])


@pytest.mark.parametrize("kind", ["element", "row", "rows"])
def test_fill_may_share_memory_with_destination(prefix: Path, kind: str) -> None:
    ids = np.arange(COUNT) % 7 - 1
    missing = int((ids < 0).sum())
    shape = {"element": (), "row": (10,), "rows": (missing, 10)}[kind]
    values = -1 - np.arange(np.prod(shape, dtype=int))
    fill = values.astype(np.float32).reshape(shape)
    out, (shared_ids, shared_fill) = destination_with(ids, fill)
    expected = TABLE[ids]
    expected[ids < 0] = fill
    with tb.open(prefix) as ck:
        ck["t"].take(shared_ids, out=out, fill=shared_fill)
    np.testing.assert_array_equal(out, expected)


def test_string_fill_may_be_in_destination(prefix: Path) -> None:
    out = np.array([b"x", b"y", b"z"], object)
    with tb.open(prefix) as ck:
        ck["s"].take([2, -1, 0], out=out, fill=out[:1])
    assert out.tolist() == [b"c", b"x", b"a"]


def test_remap_arguments_may_share_memory_with_destination(prefix: Path) -> None:
    rows = np.arange(COUNT) % 7 - 1
    columns = np.arange(10)[::-1].copy()
    missing = int((rows < 0).sum()) * 10
    fill = -1 - np.arange(missing, dtype=np.float32)
    out, (shared_rows, shared_columns, shared_fill) = destination_with(rows, columns, fill)
    expected = TABLE[rows][:, columns]
    expected[rows < 0] = fill.reshape(-1, 10)
    with tb.open(prefix) as ck:
        tb.load_and_remap(
            ck["t"], rows=shared_rows, columns=shared_columns, fill=shared_fill, out=out
        )
    np.testing.assert_array_equal(out, expected)


def test_callable_may_return_memory_of_destination(prefix: Path) -> None:
    rows = np.array([0, -1, 2])
    out = np.arange(30, dtype=np.float32).reshape(3, 10)
    expected = np.stack([TABLE[0], np.arange(10, dtype=np.float32), TABLE[2]])
    with tb.open(prefix) as ck:
        tb.load_and_remap(ck["t"], rows=rows, fill=lambda count: out.reshape(-1)[:count], out=out)
    np.testing.assert_array_equal(out, expected)


def test_ids_may_be_a_view_of_destination(prefix: Path) -> None:
    ids = np.array([[2, 0, 1, 2]] * 3)
    out = ids.copy()
    with tb.open(prefix) as ck:
        ck["wide"].take(out[:, 0], out=out)
    np.testing.assert_array_equal(out, np.arange(12).reshape(3, 4)[ids[:, 0]])


SCRIBBLER = """
import sys, threading, time
import numpy as np
import tensorbundle as tb

table = tb.open(sys.argv[1])["t"]
ids = np.zeros(400_000, np.int64)
fill = np.zeros((1000, 10), np.float32)
work = {
    "take": lambda: table.take(ids),
    "fill": lambda: table.take(ids, fill=fill),
    "remap": lambda: tb.load_and_remap(table, rows=ids, fill=0.0),
    "columns": lambda: tb.load_and_remap(table, rows=ids, columns=[1, 0], fill=0.0),
}[sys.argv[2]]
bad = -1 if sys.argv[2] == "fill" else 1 << 45
done = False

def scribble():
    while not done:
        ids[-1000:] = bad
        ids[-1000:] = 0

thread = threading.Thread(target=scribble)
thread.start()
end = time.monotonic() + 2
while time.monotonic() < end:
    try:
        work()
    except (IndexError, ValueError):
        pass
done = True
thread.join()
"""


@pytest.mark.parametrize("work", ["take", "fill", "remap", "columns"])
def test_concurrent_writes_to_ids_never_crash(prefix: Path, work: str) -> None:
    command = [sys.executable, "-c", SCRIBBLER, str(prefix), work]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
