# SPDX-License-Identifier: Apache-2.0
"""Sliced tensors with any axis, order and tiling; and reads of boxes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle
from craft.compare import same_bits, shows_a_file
from craft.dtypes import KINDS, Kind, sample
from craft.ordered_code import slice_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorbundle as tb

FLOAT = KINDS[1]
repeatable = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def tiled(draw: st.DrawFn) -> tuple[np.ndarray, list[tilings.Box], int, Kind]:
    """Draws a tensor of rank 1 to 4, boxes that tile it, a number of shards, and a dtype."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from([KINDS[n] for n in (1, 3, 6, 8, 10, 14, 18, 19, 23, 29)]))
    boxes = tilings.guillotine(shape, draw(st.integers(1, 12)), rng)
    return sample(kind, shape, seed=rng.randrange(100)), boxes, draw(st.integers(1, 4)), kind


def write(
    path: Path, source: np.ndarray, boxes: list[tilings.Box], shards: int, kind: Kind
) -> Path:
    bundle = Bundle(num_shards=shards)
    bundle.pad(source.size % 3)
    bundle.add_sliced(
        "t", source, boxes, number=kind.number, shard_of=lambda i: i * 7 % shards, short=shards == 2
    )
    return bundle.write(path / "c")


@given(tiling=tiled())
@repeatable
def test_reads_any_tiling(tmp_path: Path, tiling: tuple[Any, ...]) -> None:
    source, _, _, _ = tiling
    with tb.open(write(tmp_path, *tiling)) as ck:
        t = ck["t"]
        assert (t.shape, t.dtype) == (source.shape, source.dtype)
        assert same_bits(t, source)
        assert same_bits(t.read(), source)
        assert ck.verify().ok


@given(tiling=tiled(), data=st.data())
@repeatable
def test_reads_any_box_of_any_tiling(
    tmp_path: Path, tiling: tuple[Any, ...], data: st.DataObject
) -> None:
    source, _, _, _ = tiling
    index = tuple(
        data.draw(
            st.one_of(
                st.integers(-size, size - 1),
                st.builds(slice, st.integers(-9, 9) | st.none(), st.integers(-9, 9) | st.none()),
            )
        )
        for size in source.shape[: data.draw(st.integers(1, source.ndim))]
    )
    out = np.zeros_like(source)
    with tb.open(write(tmp_path, *tiling)) as ck:
        t = ck["t"]
        assert same_bits(t[index], source[index])
        assert same_bits(t.read(index), source[index])
        assert t.read(out=out) is out
        assert same_bits(out, source)


def outcome(read: Any) -> Any:
    """Returns the result of a read, or the class of its exception."""
    try:
        return read()
    except Exception as error:
        return type(error)


@given(tiling=tiled(), whole=st.booleans())
@repeatable
def test_row_numbers_of_any_integer_type_select_rows(
    tmp_path: Path, tiling: tuple[Any, ...], whole: bool
) -> None:
    source, boxes, shards, kind = tiling
    if whole:
        boxes = [tuple((0, size) for size in source.shape)]
    rows = len(source)
    with tb.open(write(tmp_path, source, boxes, shards, kind)) as ck:
        t = ck["t"]
        for row in (0, -1, rows - 1, -rows, rows, -rows - 1, 1 << 63, -(1 << 63) - 1, 1 << 70):
            for number in (row, *([np.int8(row), np.int64(row)] if abs(row) < 100 else [])):
                expected = outcome(lambda number=number: source[number])
                for read in (t.__getitem__, t.read):
                    found = outcome(lambda read=read, number=number: read(number))
                    if isinstance(expected, type):
                        assert found is IndexError, number  # NumPy raises OverflowError for some
                    else:
                        assert type(found) is type(expected)
                        assert same_bits(found, expected)


def test_copies_of_rows_are_writable_and_views_are_not(tmp_path: Path) -> None:
    source = np.arange(12, dtype=np.float32).reshape(4, 3)
    with tb.open(write(tmp_path, source, [((0, 4), (0, 3))], 1, FLOAT)) as ck:
        row = ck["t"].read(2)
        row[:] = 7
        assert not ck["t"][2].flags.writeable
        np.testing.assert_array_equal(ck["t"][2], source[2])


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.label)
def test_reads_every_dtype_from_slices(tmp_path: Path, kind: Kind) -> None:
    source = sample(kind, (9, 5))
    boxes = tilings.grid((9, 5), [[4, 5], [2, 3]])
    with tb.open(write(tmp_path, source, boxes, 2, kind)) as ck:
        assert same_bits(ck["t"], source)
        assert same_bits(ck["t"][3:7, 1:4], source[3:7, 1:4])


def test_reads_strings_from_slices(tmp_path: Path) -> None:
    values = np.array([[b"a", b"", b"ccc"], [b"d" * 200, b"\0", b"\xff"]], dtype=object)
    bundle = Bundle()
    boxes = tilings.cut((2, 3), 1, [1, 2])
    for box in boxes:
        stored = values[tilings.slices(box)]
        bundle.add_strings(slice_key(b"s", box), stored.reshape(-1).tolist(), stored.shape)
    bundle.add_full("s", 7, (2, 3), boxes)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(ck["s"], values)
        assert ck.verify().ok


def test_contiguous_slices_are_one_view(tmp_path: Path) -> None:
    source = sample(FLOAT, (20, 6))
    bundle = Bundle(num_shards=2)
    bundle.add_sliced("rows", source, tilings.cut((20, 6), 0, [7, 7, 6]))
    bundle.add_sliced("columns", source, tilings.cut((20, 6), 1, [3, 3]))
    bundle.add_sliced("shards", source, tilings.cut((20, 6), 0, [10, 10]), shard_of=lambda i: i)
    bundle.add_sliced("reversed", source, tilings.cut((20, 6), 0, [10, 10])[::-1])
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        view = np.asarray(ck["rows"])
        assert same_bits(view, source)
        assert shows_a_file(view) and not view.flags.writeable
        assert same_bits(ck["rows"].__array__(copy=False), source)
        for name in ("columns", "shards", "reversed"):
            assert same_bits(ck[name], source)
            with pytest.raises(ValueError, match=f"'{name}'"):
                ck[name].__array__(copy=False)


def test_box_inside_one_slice_is_a_view(tmp_path: Path) -> None:
    source = sample(FLOAT, (20, 6))
    bundle = Bundle()
    bundle.add_sliced("t", source, tilings.cut((20, 6), 1, [4, 2]))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        box = ck["t"][3:9, 1:3]
        assert same_bits(box, source[3:9, 1:3])
        assert shows_a_file(box) and not box.flags.writeable


def test_lists_slices_of_partitioned_variable(tmp_path: Path) -> None:
    source = sample(FLOAT, (10, 4))
    bundle = Bundle(num_shards=2)
    bundle.pad(8, shard=1)
    bundle.add_sliced("t", source, tilings.cut((10, 4), 0, [6, 4])[::-1], shard_of=lambda i: i)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        found = {
            (each.offset, each.shape): (Path(each.file).name, each.file_offset, each.nbytes)
            for each in ck["t"].slices
        }
        assert found == {
            ((6, 0), (4, 4)): ("c.data-00000-of-00002", 0, 64),
            ((0, 0), (6, 4)): ("c.data-00001-of-00002", 8, 96),
        }


def test_accepts_every_encoding_of_full_extents(tmp_path: Path) -> None:
    source = sample(FLOAT, (4, 6))
    bundle = Bundle()
    bundle.add_sliced("short", source, tilings.cut((4, 6), 0, [1, 3]), short=True)
    bundle.add_sliced("one", source, [((0, 4), (0, 6))])
    entry = bundle.add_sliced("minus", source, tilings.cut((4, 6), 0, [1, 3]), short=True)
    for stored in entry.slices:
        stored.extent[1].length = -1
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        for name in ("short", "one", "minus"):
            assert same_bits(ck[name], source)


def test_ignores_shard_of_sliced_tensor_entry(tmp_path: Path) -> None:
    source = sample(FLOAT, (4, 6))
    bundle = Bundle()
    entry = bundle.add_sliced("t", source, tilings.cut((4, 6), 0, [1, 3]))
    entry.shard_id = 7
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(ck["t"], source)


def test_reads_high_rank(tmp_path: Path) -> None:
    shape = (2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 3)
    source = sample(FLOAT, shape)
    bundle = Bundle()
    bundle.add("plain", source)
    bundle.add_sliced("sliced", source, tilings.guillotine(shape, 9, random.Random(5)))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(ck["plain"], source)
        assert same_bits(ck["sliced"], source)
        assert same_bits(ck["sliced"][1, 0, :, 0, 1], source[1, 0, :, 0, 1])


def test_reads_slices_of_empty_tensor(tmp_path: Path) -> None:
    source = np.zeros((0, 6), np.float32)
    bundle = Bundle()
    bundle.add_sliced("t", source, tilings.cut((0, 6), 1, [3, 3]))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(ck["t"], source)


def test_reads_with_steps_and_ellipsis(tmp_path: Path) -> None:
    source = sample(FLOAT, (9, 5))
    with tb.open(write(tmp_path, source, tilings.cut((9, 5), 0, [4, 5]), 3, FLOAT)) as ck:
        t = ck["t"]
        for index in (
            np.s_[::2],
            np.s_[::-1],
            np.s_[7:1:-3, ::2],
            np.s_[..., 1],
            np.s_[None, 2],
            ...,
        ):
            assert same_bits(t[index], source[index])


def test_out_of_bounds_index_raises_index_error(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("t", np.ones((9, 3), np.float32))
    bundle.add("s", np.float32(1))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        for index in (9, -10, (0, 3), (0, 0, 0), (..., ...)):
            with pytest.raises(IndexError):
                ck["t"][index]
        with pytest.raises(IndexError):
            ck["s"][0]
        assert same_bits(ck["s"][()], np.float32(1))


def test_copy_on_write_leaves_file_unchanged(tmp_path: Path) -> None:
    source = sample(FLOAT, (50, 4))
    bundle = Bundle()
    bundle.add("t", source)
    prefix = bundle.write(tmp_path / "c")
    with tb.open(prefix) as ck:
        copied = ck["t"].copy_on_write()
        assert same_bits(copied, source)
        copied[:] = 0
        assert same_bits(ck["t"], source)
    with tb.open(prefix, verify="full") as ck:
        assert same_bits(ck["t"], source)


@pytest.mark.parametrize("stored", ["whole", "adjacent slices", "slices in another order"])
def test_copy_on_write_of_a_part(tmp_path: Path, stored: str) -> None:
    source = sample(FLOAT, (50, 4))
    boxes = tilings.cut(source.shape, 0, [20, 30])
    bundle = Bundle()
    if stored == "whole":
        bundle.add("t", source)
    else:
        bundle.add_sliced("t", source, boxes if stored == "adjacent slices" else boxes[::-1])
    bundle.add("scalar", np.float32(7))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        t = ck["t"]
        inside = (3, -1, np.s_[25:40], np.s_[25:40:3, 1], np.s_[None, 4], np.s_[45, ::-1], (3, 1))
        for index in inside:
            part = t.copy_on_write(index)
            assert isinstance(part, np.ndarray) and part.flags.writeable
            assert same_bits(part, source[index])
            part[...] = 0
            assert same_bits(t.copy_on_write(index), source[index])
            assert same_bits(t.read(index), source[index])
        for index in (np.s_[10:30], np.s_[:, 0], np.s_[5:5], ()):
            if stored != "slices in another order":
                assert same_bits(t.copy_on_write(index), source[index])
            else:
                with pytest.raises(ValueError, match=r"'t' cannot be mapped: .* not adjacent"):
                    t.copy_on_write(index)
        for index in ((), ..., (..., None)):
            scalar = ck["scalar"].copy_on_write(index)
            scalar[...] = 8
            assert same_bits(ck["scalar"].read(), np.float32(7))
        for index in ([1], True, "a"):
            with pytest.raises(TypeError, match="an index consists of"):
                t.copy_on_write(index)
        for index in (50, (0, 4), (0, 0, 0)):
            with pytest.raises(IndexError):
                t.copy_on_write(index)
    with pytest.raises(ValueError, match="closed"):
        t.copy_on_write(3)


@pytest.mark.parametrize("before", [0, 4, 8, 60])
def test_reads_into_destination_at_any_page_offset(tmp_path, before):
    """Destinations close to the source modulo 4 KiB are read through a bounce buffer."""
    values = np.random.default_rng(0).standard_normal(150_000).astype(np.float32)
    bundle = Bundle()
    if before:
        bundle.add("a", np.zeros(before, np.uint8))
    bundle.add("t", values)
    memory = np.empty(values.nbytes + 2 * 4096, np.uint8)
    start = -memory.ctypes.data % 4096
    with tb.open(bundle.write(tmp_path / "ck")) as ck:
        for shift in range(0, 132, 4):
            out = memory[start + shift : start + shift + values.nbytes].view(np.float32)
            out[:] = np.nan
            ck["t"].read(out=out)
            assert same_bits(out, values), shift
