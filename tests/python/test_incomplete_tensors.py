# SPDX-License-Identifier: Apache-2.0
"""Tensors with elements that are stored nowhere, or twice.

Boxes and rows of elements that are stored once are readable. Every other read raises
CorruptionError and allocates no memory for the missing elements.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.compare import same_bits
from craft.dtypes import STRING
from craft.ordered_code import slice_key
from craft.tilings import slices
from craft.v1 import V1File
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbundle as tb

Box = tuple[tuple[int, int], ...]


def add_boxes(bundle: Bundle, name: str, source: np.ndarray, boxes: list[Box]) -> None:
    """Stores the given boxes of an array; they may overlap or leave gaps."""
    if source.dtype != object:
        bundle.add_sliced(name, source, boxes)
        return
    for box in boxes:
        array = source[slices(box)]
        bundle.add_strings(slice_key(name.encode(), list(box)), array.ravel().tolist(), array.shape)
    bundle.add_full(name, STRING, source.shape, [list(box) for box in boxes])


def sample(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    numbers = np.arange(np.prod(shape)).reshape(shape)
    if kind == "strings":
        return np.vectorize(lambda n: b"s%d" % n, otypes=[object])(numbers)
    return numbers.astype(np.float32)


@st.composite
def stored_boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box], Box]:
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))

    def box() -> Box:
        starts = [draw(st.integers(0, size - 1)) for size in shape]
        return tuple(
            (a, draw(st.integers(1, size - a))) for a, size in zip(starts, shape, strict=True)
        )

    boxes = [box() for _ in range(draw(st.integers(1, 5)))]
    return shape, list(dict.fromkeys(boxes)), box()


@given(case=stored_boxes(), kind=st.sampled_from(["numbers", "strings"]), data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_read_raises_on_gap_or_overlap(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[tuple[int, ...], list[Box], Box],
    kind: str,
    data: st.DataObject,
) -> None:
    shape, boxes, wanted = case
    source = sample(kind, shape)
    times = np.zeros(shape, int)
    for box in boxes:
        times[slices(box)] += 1
    bundle = Bundle()
    add_boxes(bundle, "t", source, boxes)
    rows = data.draw(st.lists(st.integers(0, shape[0] - 1), max_size=6))
    whole = bool((times == 1).all())
    with tb.open(bundle.write(tmp_path_factory.mktemp("case") / "c")) as ck:
        t = ck["t"]

        def check(readable: bool, read: Callable[[], Any], expected: np.ndarray) -> None:
            if readable:
                np.testing.assert_array_equal(read(), expected)
            else:
                with pytest.raises(tb.CorruptionError, match="'t'"):
                    read()

        index = slices(wanted)
        stored_once = bool((times[index] == 1).all())
        check(stored_once, lambda: t[index], source[index])
        check(stored_once, lambda: t.read(index), source[index])
        check(stored_once, lambda: t.byte_ranges(index) and source[index], source[index])
        rows_stored_once = bool((times[rows] == 1).all())
        check(rows_stored_once, lambda: t[rows], source[rows])
        check(rows_stored_once, lambda: t.take([*rows, -1], fill=source[0])[:-1], source[rows])
        check(rows_stored_once or not rows, lambda: t.byte_ranges(rows) is not None, True)
        check(whole, lambda: np.asarray(t), source)
        check(whole, t.read, source)
        check(whole, lambda: np.concatenate([chunk.copy() for _, chunk in t.chunks(2)]), source)
        check(whole, lambda: next(iter(ck.stream()))[1], source)
        check(whole, lambda: tb.load_variable(ck.path, "t"), source)
        if kind == "numbers":
            check(rows_stored_once, lambda: tb.load_and_remap(t, rows=rows, num_oov_rows=1)[:-1],
                  source[rows])  # fmt: skip
            check(whole, lambda: np.from_dlpack(t), source)
        assert (t.error is None) == whole
        report = ck.verify()
        assert report.ok == whole
        assert [item.tensor for item in report.damaged] == ([] if whole else ["t"])


def test_reads_rows_outside_the_overlap(tmp_path: Path) -> None:
    bundle = Bundle()
    source = sample("numbers", (6, 4))
    bundle.add_sliced("t", source, [((0, 4), (0, 4)), ((3, 3), (0, 4))])
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(ck["t"][0:3], source[0:3])
        assert same_bits(ck["t"][4:], source[4:])
        for index in (np.s_[0:4], np.s_[3], np.s_[3, 2], np.s_[3:]):
            with pytest.raises(tb.CorruptionError, match="overlaps"):
                ck["t"][index]


def test_reports_mention_incomplete_tensor(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add_sliced("t", sample("numbers", (6, 4)), [((0, 2), (0, 4))])
    prefix = bundle.write(tmp_path / "c")
    with tb.open(prefix) as ck:
        assert "stored in part" in ck["t"].error
        (item,) = ck.verify().damaged
        assert "stored in part" in item.message
        assert "8 of the 24 elements" in item.message
        assert (item.file, item.nbytes) == (f"{prefix}.index", 0)
        with pytest.raises(tb.CorruptionError, match="stored in part"):
            ck.verify().raise_for_damage()
    with pytest.raises(tb.CorruptionError, match="stored in part"):
        tb.open(prefix, verify="full")


def test_reads_stored_rows_of_incomplete_v1_tensor(tmp_path: Path) -> None:
    source = sample("numbers", (6, 4))
    file = V1File()
    file.add_sliced("t", 1, source, [((0, 2), (0, 4)), ((4, 2), (0, 4))])
    file.add("u", 1, source)
    with tb.open(file.write(tmp_path / "v1")) as ck:
        assert same_bits(ck["t"][4:], source[4:])
        assert same_bits(ck["t"][[5, 0]], source[[5, 0]])
        for read in (ck["t"].read, lambda: ck["t"][1:3], lambda: ck["t"][[0, 2]]):
            with pytest.raises(tb.CorruptionError, match="stored in part"):
                read()
        assert [item.tensor for item in ck.verify().damaged] == ["t"]
        assert same_bits(ck["u"].read(), source)


def test_reads_rows_from_existing_shards(tmp_path: Path) -> None:
    bundle = Bundle(num_shards=3)
    source = sample("numbers", (9, 4))
    boxes = [((0, 3), (0, 4)), ((3, 3), (0, 4)), ((6, 3), (0, 4))]
    bundle.add_sliced("t", source, boxes, shard_of=lambda i: i)
    prefix = bundle.write(tmp_path / "c")
    (missing,) = tmp_path.glob("c.data-00001-*")
    content = missing.read_bytes()
    missing.unlink()
    with tb.open(prefix) as ck:
        assert same_bits(ck["t"][[8, 0]], source[[8, 0]])
        out = np.zeros((2, 4), np.float32)
        with pytest.raises(tb.CheckpointNotFoundError, match="data-00001"):
            ck["t"].take([0, 4], out=out)
        assert (out == 0).all()  # nothing was written
        missing.write_bytes(content)  # the missing file is looked up again
        assert same_bits(ck["t"].take([0, 4]), source[[0, 4]])
        assert same_bits(ck["t"].read(), source)


HUGE = [(1 << 30,), (1 << 40,), (1 << 60,), (1 << 60, 4), (2, 1 << 61)]

MEMORY = """
import resource, sys
import numpy as np
import tensorbundle as tb

used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if "VmSize" in line)
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), resource.RLIM_INFINITY))
with tb.open(sys.argv[1]) as ck:
    for t in ck.values():
        first = (0,) * t.ndim
        last = tuple(size - 1 for size in t.shape)
        assert t[first] in (7.0, b"a")
        reads = [
            t.read, lambda: np.asarray(t), lambda: t[last], lambda: t[-1:],
            lambda: t.read(np.s_[1:]),
            lambda: t.take([t.shape[0] - 1]), lambda: list(t.chunks()), lambda: list(t.chunks(1)),
            lambda: t[1:], t.explain,
        ]
        if t.dtype != object:
            reads += [lambda: t.__dlpack__(max_version=(1, 0)), t.copy_on_write,
                     lambda: tb.load_and_remap(t, rows=[t.shape[0] - 1]),
                     lambda: tb.load_and_remap(t, fill=1)]
        for read in reads:
            try:
                read()
            except tb.CorruptionError as error:
                assert "stored in part" in str(error), error
            else:
                raise AssertionError("elements that are stored nowhere were read")
# Not getrusage, which includes the peak memory of the parent process.
print(next(line.split()[1] for line in open("/proc/self/status") if "VmHWM" in line))
"""


@pytest.mark.parametrize("kind", ["numbers", "strings"])
def test_huge_missing_elements_allocate_no_memory(tmp_path: Path, kind: str) -> None:
    bundle = Bundle()
    for i, shape in enumerate(HUGE):
        spec = [(0, 1)] * len(shape)
        key = slice_key(b"t%d" % i, spec)
        if kind == "strings":
            bundle.add_strings(key, [b"a"], (1,) * len(shape))
            bundle.add_full(f"t{i}", STRING, shape, [spec])
        else:
            bundle.add(key, np.full((1,) * len(shape), 7, np.int8))
            bundle.add_full(f"t{i}", 6, shape, [spec])
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(bundle.write(tmp_path / "c"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1 << 20  # KiB
