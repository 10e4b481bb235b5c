# SPDX-License-Identifier: Apache-2.0
"""The byte ranges of a read, and its description by explain()."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, shard_path
from craft.dtypes import KINDS, sample
from craft.specimen import specimen
from craft.v1 import V1File
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorbundle as tb

repeatable = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inspects the page cache")


@st.composite
def tiled(draw: st.DrawFn) -> tuple[np.ndarray, list[tilings.Box], int, int]:
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    number = draw(st.sampled_from([1, 2, 10, 19]))
    boxes = tilings.guillotine(shape, draw(st.integers(0, 9)), rng)
    return sample(KINDS[number], shape), boxes, draw(st.integers(1, 3)), number


def write(
    path: Path, source: np.ndarray, boxes: list[tilings.Box], shards: int, number: int
) -> Path:
    bundle = Bundle(num_shards=shards)
    bundle.pad(source.size % 5)
    bundle.add_sliced("t", source, boxes, number=number, shard_of=lambda i: i * 7 % shards)
    return bundle.write(path / "c")


def touched(t: tb.Tensor, wanted: np.ndarray) -> set[tuple[str, int]]:
    """Returns (file, byte) of every element that is set in `wanted`, one by one."""
    size = t.dtype.itemsize
    found = set()
    for stored in t.slices:
        axes = zip(stored.offset, stored.shape, strict=True)
        selected = wanted[tuple(slice(start, start + n) for start, n in axes)]
        for element in np.flatnonzero(selected.reshape(-1)).tolist():
            found |= {
                (stored.file, stored.file_offset + element * size + byte) for byte in range(size)
            }
    return found


def check(ranges: list[tuple[str, int, int]], expected: set[tuple[str, int]]) -> None:
    covered = [(file, byte) for file, start, n in ranges for byte in range(start, start + n)]
    assert set(covered) == expected
    assert covered == sorted(covered)
    assert len(set(covered)) == len(covered)
    for (file, start, n), (other, following, _) in itertools.pairwise(ranges):
        assert file != other or start + n < following  # contiguous ranges are merged


@given(tiling=tiled(), data=st.data())
@repeatable
def test_byte_ranges_covers_selected_box(
    tmp_path: Path, tiling: tuple[Any, ...], data: st.DataObject
) -> None:
    source = tiling[0]
    index = tuple(
        data.draw(
            st.one_of(
                st.integers(-size, size - 1),
                st.builds(slice, st.integers(-9, 9) | st.none(), st.integers(-9, 9) | st.none()),
            )
        )
        for size in source.shape[: data.draw(st.integers(0, source.ndim))]
    )
    wanted = np.zeros(source.shape, bool)
    wanted[index] = True
    with tb.open(write(tmp_path, *tiling)) as ck:
        t = ck["t"]
        check(t.byte_ranges(index), touched(t, wanted))
        assert t.explain(index).shape == source[index].shape


@given(tiling=tiled(), data=st.data())
@repeatable
def test_byte_ranges_covers_selected_rows(
    tmp_path: Path, tiling: tuple[Any, ...], data: st.DataObject
) -> None:
    source = tiling[0]
    count = len(source)
    ids = data.draw(st.lists(st.integers(-count, count - 1), max_size=12))
    wanted = np.zeros(source.shape, bool)
    wanted[np.array(ids, np.int64)] = True
    with tb.open(write(tmp_path, *tiling)) as ck:
        t = ck["t"]
        check(t.byte_ranges(ids), touched(t, wanted))
        check(t.byte_ranges(np.array(ids, np.int32)), touched(t, wanted))
        assert t.explain(ids).shape == (len(ids), *source.shape[1:])


def test_decoded_tensors_have_whole_ranges(tmp_path: Path) -> None:
    with tb.open(specimen().write(tmp_path / "c")) as ck:
        (stored,) = ck["s"].slices
        for index in (0, slice(1, 2), [2, 0]):
            assert ck["s"].byte_ranges(index) == [(stored.file, stored.file_offset, stored.nbytes)]
        assert ck["s"].explain(0).means == "decode"
        assert ck["s"].byte_ranges(slice(0, 0)) == []


@pytest.mark.parametrize(
    ("offset", "alignment"), [(0, 4096), (8192, 4096), (4096, 4096), (2048, 2048), (36, 4)]
)
def test_explain_reports_alignment_up_to_4096(tmp_path: Path, offset: int, alignment: int) -> None:
    bundle = Bundle()
    bundle.pad(offset)
    bundle.add("t", np.arange(3, dtype=np.float32))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert ck["t"].explain().alignment == alignment


@pytest.mark.parametrize(
    ("first", "last", "pages"),
    [(0, 1, 1), (0, 8192, 2), (0, 8193, 3), (4095, 4097, 2), (4096, 5000, 1)],
)
def test_explain_counts_touched_pages(tmp_path: Path, first: int, last: int, pages: int) -> None:
    page = os.sysconf("SC_PAGESIZE")
    scale = page // 4096
    bundle = Bundle()
    bundle.add("t", np.zeros(16384 * scale, np.uint8))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        plan = ck["t"].explain(np.s_[first * scale : last * scale])
    assert plan.bytes_touched == pages * page


def test_byte_ranges_stays_inside_v1_slice(tmp_path: Path) -> None:
    file = V1File()
    source = np.arange(60, dtype=np.float32).reshape(12, 5)
    file.add("t", 1, source)
    with tb.open(file.write(tmp_path / "v1")) as ck:
        t = ck["t"]
        (stored,) = t.slices
        for _, offset, nbytes in t.byte_ranges(3):
            assert stored.file_offset <= offset
            assert offset + nbytes <= stored.file_offset + stored.nbytes
        assert t.explain(3).shape == (5,)


def test_invalid_index_and_truncation_raise_errors(tmp_path: Path) -> None:
    path = specimen(2).write(tmp_path / "c")
    with tb.open(path) as ck:
        t = ck["w"]
        for function in (t.byte_ranges, t.explain):
            with pytest.raises(IndexError):
                function(4)
            with pytest.raises(IndexError):
                function([0, 4])
            with pytest.raises(IndexError):
                function([-5])
            with pytest.raises(TypeError):
                function(1.5)
            with pytest.raises(TypeError):
                function(np.array([True, False, True, False]))
        with pytest.raises(TypeError):
            ck["z"].byte_ranges([0])
    os.truncate(shard_path(path, 1, 2), 3)
    with tb.open(path) as ck:
        assert len(ck["w"].byte_ranges(slice(0, 2))) == 1
        with pytest.raises(tb.CorruptionError):
            ck["w"].byte_ranges(slice(2, 4))


def test_explain_distinguishes_views_copies_and_gathers(tmp_path: Path) -> None:
    path = specimen(2).write(tmp_path / "c")
    with tb.open(path) as ck:
        assert ck["a"].explain().means == "view"
        assert ck["w"].explain(slice(0, 2)).means == "view"
        whole = ck["w"].explain()
        assert (whole.means, whole.slices) == ("pread", 2)
        assert whole.why_no_view is not None
        assert ck["w"].explain([1, 2]).means == "gather"
        assert ck["w"].explain(slice(0, 0)).means == "nothing"
        assert (whole.bytes_asked, whole.bytes_read) == (96, 96)
        for word in ("pread", "2 slices", "96 asked", "threads", "checksum"):
            assert word in str(whole)
    with tb.open(path, io="pread", verify="none") as ck:
        plan = ck["a"].explain()
        assert plan.means == "pread"
        assert "memory mapping" in str(plan.why_no_view)
        assert "none" in plan.checksum


def test_one_row_touches_at_most_two_pages(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.pad(64)
    bundle.add("t", np.zeros((40_000, 64), np.float32))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        plan = ck["t"].explain(20_001)
    assert plan.bytes_asked == plan.bytes_read == 256
    assert plan.bytes_touched <= 8192


def is_local_disk(folder: Path) -> bool:
    """Returns whether streams use direct I/O on the file system of a directory."""
    command = ["stat", "--file-system", "--format=%T", str(folder)]
    kind = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return kind in ("ext2/ext3", "xfs", "btrfs", "f2fs", "overlayfs")


@linux
def test_uncached_stream_bypasses_page_cache(tmp_path: Path) -> None:
    source = np.random.default_rng(1).integers(0, 256, (80, 1 << 20), dtype=np.uint8)
    bundle = Bundle()
    bundle.pad(5)
    bundle.add("t", source)
    path = bundle.write(tmp_path / "c")
    with tb.open(path) as ck:
        assert ck["t"].explain().resident == pytest.approx(1, abs=0.01)
        assert ck["t"].explain().stream_means == "pread"
        with open(shard_path(path), "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        plan = ck["t"].explain()
        if plan.resident is None or plan.resident > 0.1 or not is_local_disk(path.parent):
            pytest.skip("the pages stay cached, or the file system is not on a local disk")
        assert plan.stream_means == "direct"
        assert np.array_equal(np.concatenate([chunk for _, chunk in ck["t"].chunks(16)]), source)
        after = ck["t"].explain().resident
        assert after is not None
        assert after < 0.1
