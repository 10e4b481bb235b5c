# SPDX-License-Identifier: Apache-2.0
"""Compares remapped tables with a brute-force oracle."""

from __future__ import annotations

import random
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle
from craft.compare import same_bits
from craft.dtypes import KINDS, sample
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbundle as tb


def oracle(table, rows, columns, values, oov_rows, oov_columns):
    """Remaps cell by cell; `values` fill the body, the OOV rows and the OOV columns in order."""
    width = None if table.ndim < 2 else len(columns)
    body = (len(rows), *(() if width is None else (width,)), *table.shape[2:])
    shape = (body[0] + oov_rows, *body[1:])
    if oov_columns:
        shape = (shape[0], body[1] + oov_columns, *body[2:])
    result = np.zeros(shape, table.dtype)
    supply = iter(values)

    def fill(where):
        for at in np.ndindex(where.shape):
            where[at] = next(supply)

    for i, row in enumerate(rows):
        if width is None:
            if row < 0:
                fill(result[i : i + 1])
            else:
                result[i] = table[row]
            continue
        for j, column in enumerate(columns):
            if row < 0 or column < 0:
                fill(result[i : i + 1, j : j + 1])
            else:
                result[i, j] = table[row, column]
    fill(result[len(rows) :] if width is None else result[len(rows) :, :width])
    if oov_columns:
        fill(result[:, width:])
    assert next(supply, None) is None
    return result


def missing_counts(rows, columns, shape, oov_rows, oov_columns):
    rest = int(np.prod(shape[2:], dtype=int))
    width = 1 if len(shape) < 2 else len(columns)
    missing_columns = 0 if len(shape) < 2 else sum(column < 0 for column in columns)
    missing_rows = sum(row < 0 for row in rows)
    body = (missing_rows * width + (len(rows) - missing_rows) * missing_columns) * rest
    return [body, oov_rows * width * rest, oov_columns * (len(rows) + oov_rows) * rest]


def write(path: Path, table: np.ndarray, number: int, cuts: int = 0, seed: int = 0) -> Path:
    bundle = Bundle()
    if cuts:
        boxes = tilings.guillotine(table.shape, cuts, random.Random(seed))
        bundle.add_sliced("t", table, boxes, number=number)
    else:
        bundle.add("t", table, number=number)
    return bundle.write(path / "c")


@st.composite
def cases(draw):
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    rows = draw(st.lists(st.integers(-1, shape[0] - 1), max_size=9))
    columns = None
    if len(shape) > 1 and draw(st.booleans()):
        columns = draw(st.lists(st.integers(-1, shape[1] - 1), max_size=7))
    oov_columns = draw(st.integers(0, 2)) if len(shape) > 1 else 0
    return shape, rows, columns, draw(st.integers(0, 2)), oov_columns, draw(st.integers(0, 4))


@given(case=cases(), number=st.sampled_from([1, 2, 6, 9, 14, 18]), threads=st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_matches_oracle(tmp_path_factory, case, number, threads) -> None:
    shape, rows, columns, oov_rows, oov_columns, cuts = case
    table = sample(KINDS[number], shape)
    wanted = columns if columns is not None or len(shape) < 2 else list(range(shape[1]))
    counts = missing_counts(rows, wanted, shape, oov_rows, oov_columns)
    values = (np.arange(sum(counts)) % 50).astype(table.dtype)
    result = oracle(table, rows, wanted, values, oov_rows, oov_columns)
    options = {
        "rows": rows, "columns": columns, "num_oov_rows": oov_rows, "num_oov_columns": oov_columns,
    }  # fmt: skip
    path = write(tmp_path_factory.mktemp("c"), table, number, cuts)
    with tb.open(path, threads=threads) as ck:
        assert same_bits(tb.load_and_remap(ck["t"], fill=values, **options), result)
        calls = []
        supply = iter(np.split(values, np.cumsum(counts)[:-1]))

        def fill(count: int) -> np.ndarray:
            chunk = next(chunk for chunk in supply if chunk.size)
            calls.append(count)
            return chunk

        out = np.zeros_like(result)
        assert tb.load_and_remap(ck["t"], fill=fill, out=out, **options) is out
        assert same_bits(out, result)
        assert calls == [count for count in counts if count]


def test_scalar_fill_applies_to_all_missing_cells(tmp_path: Path) -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    with tb.open(write(tmp_path, table, 1)) as ck:
        got = tb.load_and_remap(
            ck["t"], rows=[3, -1], columns=[-1, 0], fill=7, num_oov_rows=1, num_oov_columns=1
        )
        assert got.tolist() == [[7, 9, 7], [7, 7, 7], [7, 7, 7]]
        assert tb.load_and_remap(ck["t"], num_rows=2).tolist() == table[:2].tolist()
        remap = tb.remap_vocab(["d", "b", "b", "new"], ["a", "b", "c", "d"])
        assert (
            tb.load_and_remap(ck["t"], rows=remap, num_rows=3).tolist() == table[[3, 1, 1]].tolist()
        )


def test_remaps_many_rows_in_parallel(tmp_path: Path) -> None:
    table = np.random.default_rng(0).random((40_000, 64), np.float32)
    rng = np.random.default_rng(1)
    rows = rng.integers(-1, 40_000, 70_000)
    columns = rng.integers(-1, 64, 48)
    with tb.open(write(tmp_path, table, 1), threads=3) as ck:
        for wanted in (None, columns):
            expected = table[rows] if wanted is None else table[rows][:, wanted]
            missing = np.repeat((rows < 0)[:, None], expected.shape[1], 1)
            if wanted is not None:
                missing |= wanted < 0
            values = rng.random(int(missing.sum()), np.float32)
            expected[missing] = values
            got = tb.load_and_remap(ck["t"], rows=rows, columns=wanted, fill=values)
            assert same_bits(got, expected)


def test_invalid_arguments_raise_and_leave_destination(tmp_path: Path) -> None:
    table = np.zeros((4, 3), np.float32)
    out = np.ones((2, 3), np.float32)
    with tb.open(write(tmp_path, table, 1)) as ck:
        t = ck["t"]
        for options, message in (
            ({"rows": [0, 4]}, "row 4 at position 1"),
            ({"rows": [0, -2]}, "row -2"),
            ({"rows": [0, 1], "columns": [0, 1, 3]}, "column 3"),
            ({"num_rows": 5}, "4 rows"),
        ):
            with pytest.raises(IndexError, match=message):
                tb.load_and_remap(t, out=None if "num_rows" in options else out, **options)
        assert tb.load_and_remap(t, rows=[0, 1], num_rows=2).shape == (2, 3)
        with pytest.raises(ValueError, match="num_rows is 3, but the remap has 2 rows"):
            tb.load_and_remap(t, rows=[0, 1], num_rows=3)
        with pytest.raises(ValueError, match="2 elements, but 3"):
            tb.load_and_remap(t, rows=[0, -1], fill=np.zeros(2, np.float32), out=out)
        with pytest.raises(ValueError, match="5 values instead of 3"):
            tb.load_and_remap(t, rows=[0, -1], fill=lambda n: np.zeros(n + 2), out=out)
        with pytest.raises(tb.ShapeMismatchError):
            tb.load_and_remap(t, rows=[0], out=out)
        with pytest.raises(TypeError, match="float64"):
            tb.load_and_remap(t, rows=[0, 1], out=out.astype(float))
        with pytest.raises(TypeError, match="complex"):
            tb.load_and_remap(t, rows=[0, -1], fill=1j, out=out)
        with pytest.raises(TypeError, match="integers"):
            tb.load_and_remap(t, rows=[0.5, 1], out=out)
        with pytest.raises(ValueError, match="num_oov_rows"):
            tb.load_and_remap(t, num_oov_rows=-1)
        with pytest.raises(TypeError, match="Tensor"):
            tb.load_and_remap(table)
        assert (out == 1).all()


def test_remaps_rank_1_and_rejects_other_types(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("bias", np.arange(4).astype(ml_dtypes.bfloat16))
    bundle.add("scalar", np.float32(1))
    bundle.add_strings("names", [b"a"], (1,))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        got = tb.load_and_remap(ck["bias"], rows=[3, -1, 0], fill=0.5, num_oov_rows=1)
        assert got.astype(float).tolist() == [3, 0.5, 0, 0.5]
        with pytest.raises(ValueError, match="rank 1"):
            tb.load_and_remap(ck["bias"], columns=[0])
        with pytest.raises(ValueError, match="scalar"):
            tb.load_and_remap(ck["scalar"])
        with pytest.raises(tb.UnsupportedError, match="names"):
            tb.load_and_remap(ck["names"])


def test_counts_three_billion_missing_cells(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("t", np.ones((1, 100_000), np.int8))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        counts = []

        def fill(count: int) -> np.ndarray:
            counts.append(count)
            raise MemoryError

        with pytest.raises(MemoryError):
            tb.load_and_remap(ck["t"], rows=np.full(30_000, -1), fill=fill)
        assert counts == [3_000_000_000]


@pytest.mark.parametrize("name", ["num_rows", "num_oov_rows", "num_oov_columns"])
@pytest.mark.parametrize("value", [True, 1.5, float("nan"), "1", [], -1, 2**64])
def test_invalid_counts_raise_error(tmp_path: Path, name: str, value: object) -> None:
    bundle = Bundle()
    bundle.add("t", np.zeros((3, 2), np.float32))
    with (
        tb.open(bundle.write(tmp_path / "c")) as ck,
        pytest.raises((TypeError, ValueError), match=name),
    ):
        tb.load_and_remap(ck["t"], **{name: value})


@pytest.mark.parametrize("count", [4, 2**31, 2**60])
def test_num_rows_beyond_table_raises_index_error(tmp_path: Path, count: int) -> None:
    bundle = Bundle()
    bundle.add("t", np.zeros((3, 2), np.float32))
    with tb.open(bundle.write(tmp_path / "c")) as ck, pytest.raises(IndexError, match="3 rows"):
        tb.load_and_remap(ck["t"], num_rows=count)
