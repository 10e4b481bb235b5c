# SPDX-License-Identifier: Apache-2.0
"""Compares reads of rows by number with NumPy."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle
from craft.compare import same_bits
from craft.dtypes import KINDS, Kind, sample
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbundle as tb

FLOAT = KINDS[1]
SHAPE = (23, 6)


def _write(path: Path, source: np.ndarray, boxes: list[tilings.Box] | None, kind: Kind) -> Path:
    bundle = Bundle(num_shards=2)
    if boxes is None:
        bundle.add("t", source, number=kind.number)
    else:
        bundle.add_sliced("t", source, boxes, number=kind.number, shard_of=lambda i: i % 2)
    return bundle.write(path / "c")


TILINGS = {
    "whole": None,
    "rows": tilings.cut(SHAPE, 0, [5, 1, 17]),
    "rows out of order": tilings.cut(SHAPE, 0, [5, 1, 17])[::-1],
    "columns": tilings.cut(SHAPE, 1, [1, 2, 3]),
    "both": tilings.grid(SHAPE, [[10, 13], [2, 4]]),
}


@pytest.mark.parametrize("io", ["auto", "pread"])
@pytest.mark.parametrize("boxes", TILINGS.values(), ids=TILINGS.keys())
def test_reads_rows_of_every_tiling(
    tmp_path: Path, boxes: list[tilings.Box] | None, io: str
) -> None:
    source = sample(FLOAT, SHAPE)
    ids = np.array([[22, 0, -1], [5, 5, -23]])
    with tb.open(_write(tmp_path, source, boxes, FLOAT), io=io) as ck:
        assert same_bits(ck["t"][ids], source[ids])
        assert same_bits(ck["t"].take(ids), source[ids])
        assert same_bits(ck["t"][[3, -2]], source[[3, -2]])


class ForeignArray:
    """An array of another library. Like one of PyTorch, it is an integer if it has one element."""

    def __init__(self, values: object) -> None:
        self._values = np.asarray(values)
        self.ndim = self._values.ndim

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self._values

    def __index__(self) -> int:
        if self._values.size != 1:
            raise TypeError("only one element can be an index")
        return int(self._values.reshape(()))


@pytest.mark.parametrize("ids", [[3, 0, -1], [3], [[3], [4]]])
@pytest.mark.parametrize("convert", [ForeignArray, np.uint8, np.array])
def test_rows_by_array_of_another_library(tmp_path: Path, ids: list, convert: type) -> None:
    if convert is np.uint8:
        ids = np.abs(ids).tolist()
    source = sample(FLOAT, SHAPE)
    with tb.open(_write(tmp_path, source, TILINGS["rows"], FLOAT)) as ck:
        t, given = ck["t"], convert(ids)
        assert same_bits(t[given], source[ids])
        assert t.explain(given).shape == source[ids].shape
        assert t.byte_ranges(given) == t.byte_ranges(np.array(ids))
        assert same_bits(t[ForeignArray(3)], source[3])  # an integer
        assert same_bits(t[range(5, 1, -2)], source[5:1:-2])


def test_arrays_are_not_taken_for_integers(tmp_path: Path) -> None:
    source = sample(FLOAT, SHAPE)
    with tb.open(_write(tmp_path, source, None, FLOAT)) as ck:
        t = ck["t"]
        assert same_bits(t[ForeignArray([3]), 0], source[[3], 0])
        for index in ((0, ForeignArray([3])), (slice(2), [3]), ([3], ForeignArray([3]))):
            with pytest.raises(TypeError, match="an index consists of integers"):
                t[index]
        with pytest.raises(TypeError, match="an index consists of integers"):
            t.read(ForeignArray([3]))
        assert same_bits(t[ForeignArray(3), 1:3], source[3, 1:3])
        for mask in (ForeignArray([True] * 23), ForeignArray([1.5])):
            with pytest.raises(TypeError, match="row ids must be integers"):
                t[mask]


@pytest.mark.parametrize("boxes", [None, TILINGS["both"]], ids=["whole", "both"])
@pytest.mark.parametrize("kind", [FLOAT, KINDS[14]], ids=lambda kind: kind.label)
def test_rows_with_index_of_other_axes(tmp_path: Path, kind: Kind, boxes: Any) -> None:
    source = sample(kind, SHAPE)
    rest: list[tuple[Any, ...]] = [
        (), (...,), (np.s_[:3],), (np.s_[::-2],), (2,), (-1, None), (None, 3), (..., 0, None),
    ]  # fmt: skip
    with tb.open(_write(tmp_path, source, boxes, kind)) as ck:
        t = ck["t"]
        for ids in ([3, 0, -1], [[3], [4]], range(4), np.array([], np.int32)):
            for part in rest:
                found = t[(ids, *part)]
                assert same_bits(found, source[(np.asarray(ids, np.intp), *part)]), (ids, part)
                assert found.flags.writeable
        for index in (([3], 0, 0, 0), ([3], source.shape[1]), ([99], 0), ([3], ..., ...)):
            with pytest.raises(IndexError):
                t[index]
        with pytest.raises(TypeError, match="row ids must be integers, not a boolean mask"):
            t[np.ones(len(t), bool), 0]


def test_rows_of_other_tensors_with_index_of_other_axes(tmp_path: Path) -> None:
    words = np.array([[b"a", b"bc"], [b"", b"d"]], object)
    tb.save(tmp_path / "c", {"words": words, "none": np.zeros((0, 3)), "line": np.arange(3)})
    with tb.open(tmp_path / "c") as ck:
        assert same_bits(ck["words"][[1, 0], 1], words[[1, 0], 1])
        assert ck["none"][[], :2].shape == (0, 2)
        assert same_bits(ck["line"][[2], None], np.array([[2]]))
        with pytest.raises(IndexError, match="too many indices"):
            ck["line"][[2], 0]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_matches_numpy_on_random_tilings(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    cuts = data.draw(st.integers(0, 6))
    boxes = tilings.guillotine(shape, cuts, random.Random(data.draw(st.integers(0, 99))))
    kind = KINDS[data.draw(st.sampled_from([1, 9, 10, 14]))]
    id_type = data.draw(st.sampled_from([np.int8, np.int32, np.int64, np.uint32, np.uint64]))
    low = 0 if np.dtype(id_type).kind == "u" else -shape[0]
    ids = np.array(data.draw(st.lists(st.integers(low, shape[0] - 1), max_size=20)), id_type)
    source = sample(kind, shape)
    path = _write(tmp_path_factory.mktemp("c"), source, boxes, kind)
    with tb.open(path, threads=data.draw(st.integers(1, 3))) as ck:
        assert same_bits(ck["t"].take(ids), source[ids.astype(np.int64)])


@pytest.mark.parametrize("boxes", [None, TILINGS["both"]], ids=["whole", "both"])
def test_fills_missing_rows(tmp_path: Path, boxes: list[tilings.Box] | None) -> None:
    source = sample(FLOAT, SHAPE)
    with tb.open(_write(tmp_path, source, boxes, FLOAT)) as ck:
        t = ck["t"]
        ids = [2, -1, 0, -1]
        expected = source[[2, 0, 0, 0]]
        expected[[1, 3]] = 7
        assert same_bits(t.take(ids, fill=7), expected)
        row = np.arange(6, dtype=np.float32)
        expected[[1, 3]] = row
        assert same_bits(t.take(ids, fill=row), expected)
        rows = np.arange(12, dtype=np.float32).reshape(2, 6)
        expected[[1, 3]] = rows
        assert same_bits(t.take(ids, fill=rows), expected)
        assert same_bits(t.take([0, 1], fill=rows[:0]), source[:2])


def test_gathers_in_parallel_with_nontemporal_stores(tmp_path: Path) -> None:
    source = np.arange(70_000 * 64, dtype=np.float32).reshape(70_000, 64)
    rng = np.random.default_rng(0)
    ids = rng.integers(-1, 70_000, 120_000)
    fill = rng.random((int((ids < 0).sum()), 64), np.float32)
    expected = source[ids]
    expected[ids < 0] = fill
    with tb.open(_write(tmp_path, source, None, FLOAT), threads=3) as ck:
        assert same_bits(ck["t"].take(ids, fill=fill), expected)
        out = np.zeros((120_001, 64), np.float32)
        ck["t"].take(ids, out=out[1:], fill=fill)
        assert same_bits(out[1:], expected)


@pytest.mark.parametrize("cuts", [None, [0], [1]], ids=["whole", "rows", "columns"])
def test_gathers_rows_that_are_not_in_the_page_cache(
    tmp_path: Path, cuts: list[int] | None
) -> None:
    shape = (40_000, 16)
    source = sample(FLOAT, shape)
    halves = {0: [10_000, 30_000], 1: [6, 10]}
    boxes = None if cuts is None else tilings.cut(shape, cuts[0], halves[cuts[0]])
    prefix = _write(tmp_path, source, boxes, FLOAT)
    rng = np.random.default_rng(0)
    requests = [rng.integers(-1, shape[0], 20_000), np.arange(0, shape[0], 12), np.arange(100)]
    for ids in requests:
        for path in tmp_path.iterdir():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)  # the page cache cannot drop dirty pages
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
        expected = source[ids]
        expected[ids < 0] = 7
        with tb.open(prefix, threads=2) as ck:
            assert same_bits(ck["t"].take(ids, fill=7), expected)


def test_invalid_arguments_leave_destination_unchanged(tmp_path: Path) -> None:
    with tb.open(_write(tmp_path, np.ones((9, 3), np.float32), None, FLOAT)) as ck:
        t = ck["t"]
        out = np.zeros((2, 3), np.float32)
        for ids, fill in (([1, 9], None), ([1, -10], None), ([1, -2], 0.0), ([1, 9], 0.0)):
            with pytest.raises(IndexError, match=r"position 1 .*'t' of 9 rows"):
                t.take(ids, out=out, fill=fill)
        with pytest.raises(IndexError, match="18446744073709551615"):
            t.take(np.array([2**64 - 1], np.uint64), out=out[:1])
        for ids in (np.array([True, False]), [0.5, 1.0], ["a", "b"]):
            with pytest.raises(TypeError):
                t.take(ids, out=out)
        for fill in (np.zeros(3, np.float64), "x", None.__class__):
            with pytest.raises(TypeError):
                t.take([0, -1], out=out, fill=fill)
        with pytest.raises(tb.ShapeMismatchError, match=r"\(1, 3\)"):
            t.take([0, -1], out=out, fill=np.zeros((2, 3), np.float32))
        with pytest.raises(TypeError, match="float64"):
            t.take([0, 1], out=np.zeros((2, 3), np.float64))
        for shape in ((3, 3), (3, 2), (6,), (1, 2, 3)):
            with pytest.raises(tb.ShapeMismatchError, match=re.escape(str(shape))):
                t.take([0, 1], out=np.zeros(shape, np.float32))
        locked = np.zeros((2, 3), np.float32)
        locked.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            t.take([0, 1], out=locked)
        assert not out.any()
        assert not locked.any()


def test_lossy_fill_raises_type_error(tmp_path: Path) -> None:
    with tb.open(_write(tmp_path, np.ones((4, 2), np.int8), None, KINDS[6])) as ck:
        for fill in (1.5, 300, -129, 1j, "1", None.__class__):
            with pytest.raises(TypeError, match=r"cannot be (converted to|represented in) int8"):
                ck["t"].take([-1], fill=fill)
        assert ck["t"].take([-1], fill=-128).tolist() == [[-128, -128]]


def test_accepts_strided_destination(tmp_path: Path) -> None:
    source = sample(FLOAT, SHAPE)
    with tb.open(_write(tmp_path, source, None, FLOAT)) as ck:
        out = np.zeros((3, 12), np.float32)[:, ::2]
        assert ck["t"].take([4, 1, 22], out=out) is out
        assert same_bits(np.ascontiguousarray(out), source[[4, 1, 22]])


def test_accepts_empty_tensors(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("none", np.zeros((0, 3), np.float32))
    bundle.add("thin", np.zeros((5, 0), np.float32))
    bundle.add("scalar", np.float32(1))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert ck["none"].take([]).shape == (0, 3)
        assert ck["thin"].take([4, 0]).shape == (2, 0)
        assert same_bits(ck["none"].take([-1], fill=2), np.full((1, 3), 2, np.float32))
        for name in ("none", "thin"):
            with pytest.raises(IndexError):
                ck[name].take([5])
        with pytest.raises(TypeError, match="scalar"):
            ck["scalar"].take([0])


def test_gathers_strings_and_bfloat16(tmp_path: Path) -> None:
    names = np.array([b"a", b"bc", b""], object)
    bundle = Bundle()
    bundle.add_strings("names", names.tolist(), (3,))
    bundle.add("half", np.arange(6).reshape(3, 2).astype(ml_dtypes.bfloat16))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert ck["names"].take([2, 0]).tolist() == [b"", b"a"]
        assert ck["names"].take([[1], [-1]], fill=b"?").tolist() == [[b"bc"], [b"?"]]
        out = np.empty((2, 2), object)
        assert ck["names"].take([[0, 1], [2, -1]], out=out, fill=b"?") is out
        assert out.tolist() == [[b"a", b"bc"], [b"", b"?"]]
        for ids, message in (([3], "row 3 at position 0"), ([0, 1, -4], "row -4 at position 2")):
            with pytest.raises(IndexError, match=f"{message} is not in tensor 'names' of 3 rows"):
                ck["names"].take(ids)
        assert ck["half"].take([-1], fill=0.5).astype(float).tolist() == [[0.5, 0.5]]


def test_swaps_big_endian_data(tmp_path: Path) -> None:
    source = sample(FLOAT, (9, 4))
    bundle = Bundle(big_endian=True)
    bundle.add("t", source)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        fill = np.full(4, 3, np.float32)
        expected = np.stack([source[8], fill, source[0]])
        assert same_bits(ck["t"].take([8, -1, 0], fill=fill), expected)


def test_closed_checkpoint_raises_value_error(tmp_path: Path) -> None:
    ck = tb.open(_write(tmp_path, sample(FLOAT, SHAPE), None, FLOAT))
    t = ck["t"]
    rows = t.take([1])
    ck.close()
    with pytest.raises(ValueError, match="closed"):
        t.take([1])
    assert rows.shape == (1, 6)


def test_truncation_after_open_raises_corruption_error(tmp_path: Path) -> None:
    path = _write(tmp_path, np.ones((4096, 64), np.float32), None, FLOAT)
    with tb.open(path) as ck:
        ck["t"].take([0])
        shard = path.with_name("c.data-00000-of-00002")
        with shard.open("r+b") as file:
            file.truncate(100)
        with pytest.raises(tb.CorruptionError, match="shrunk"):
            ck["t"].take([4095])
