# SPDX-License-Identifier: Apache-2.0
"""Statistics and histograms of tensors, compared with NumPy's."""

from __future__ import annotations

import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from craft.bundle import Bundle, shard_path
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle import blocks, tensor_stats
from tensorbundle.tensor_stats import compute_histogram, compute_stats

TYPES = [
    "float16 bfloat16 float32 float64 float8_e4m3fn float8_e5m2 int4 uint4 int8 uint8 int64 uint64",
]


def write(folder: Path, array: np.ndarray) -> Path:
    bundle = Bundle()
    bundle.add("a", array)
    return bundle.write(folder / "m")


def stats_of(folder: Path, array: np.ndarray) -> tensor_stats.TensorStats:
    with tb.open(write(folder, array)) as checkpoint:
        return compute_stats(checkpoint["a"])


@pytest.mark.parametrize("name", TYPES[0].split())
def test_stats_equal_numpys(tmp_path, name):
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    values = np.random.default_rng(1).normal(2, 3, (70, 3001))
    if "uint" in name:
        values = np.abs(values)
    array = values.astype(dtype)
    wide = array.astype(np.float64)
    assert array.size > 2 * blocks.BLOCK_ELEMENTS
    found = stats_of(tmp_path, array)
    assert (found.count, found.nan, found.inf) == (array.size, 0, 0)
    assert (found.min, found.max) == (wide.min(), wide.max())
    assert found.zeros == np.count_nonzero(wide == 0)
    assert found.mean == pytest.approx(wide.mean(), rel=1e-12)
    assert found.std == pytest.approx(wide.std(), rel=1e-12)
    if "int" in name:
        assert isinstance(found.min, int)


def test_large_integers_are_exact(tmp_path):
    found = stats_of(tmp_path, np.array([-(2**62) - 1, 2**62 + 1]))
    assert (found.min, found.max) == (-(2**62) - 1, 2**62 + 1)


def test_mean_far_from_zero_is_accurate(tmp_path):
    array = 1e9 + np.random.default_rng(1).normal(0, 1e-3, 1_000_000)
    assert stats_of(tmp_path, array).std == pytest.approx(array.std(), rel=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (None, None, None, None, 0, 0, 0)),
        ([np.nan], (None, None, None, None, 0, 1, 0)),
        ([np.nan, 1, 3, -np.inf], (-np.inf, 3, 2, 1, 0, 1, 1)),
        ([np.inf, np.inf], (np.inf, np.inf, None, None, 0, 0, 2)),
        ([1.5e308, 1.5e308], (1.5e308, 1.5e308, 1.5e308, 0, 0, 0, 0)),
        ([-0.0, 0.0], (0, 0, 0, 0, 2, 0, 0)),
    ],
)
def test_values_that_are_not_finite(tmp_path, values, expected):
    found = stats_of(tmp_path, np.array(values, np.float64))
    row = found.min, found.max, found.mean, found.std, found.zeros, found.nan, found.inf
    assert row == expected


def test_bool_and_scalar(tmp_path):
    found = stats_of(tmp_path, np.array([True, False, True, True]))
    assert (found.min, found.max, found.mean, found.zeros) == (0, 1, 0.75, 1)
    assert stats_of(tmp_path, np.float32(3)).mean == 3


def test_strings_and_complex_numbers_have_no_stats(tmp_path):
    bundle = Bundle()
    bundle.add_strings("s", [b"x"], (1,))
    bundle.add("c", np.zeros(2, np.complex64))
    bundle.add("f", np.zeros(2, np.float32))
    with tb.open(bundle.write(tmp_path / "m")) as checkpoint:
        found = {name: tensor_stats.has_stats(tensor) for name, tensor in checkpoint.items()}
    assert found == {"s": False, "c": False, "f": True}


def test_corrupted_values_raise(tmp_path):
    prefix = write(tmp_path, np.zeros(100, np.float32))
    path = shard_path(prefix, 0, 1)
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with tb.open(prefix) as checkpoint, pytest.raises(tb.CorruptionError, match="'a'"):
        compute_stats(checkpoint["a"])


def test_result_does_not_depend_on_threads(tmp_path):
    prefix = write(tmp_path, np.random.default_rng(1).normal(size=500_000))
    found = set()
    for threads in (1, 2, 5):
        with tb.open(prefix, threads=threads) as checkpoint:
            found.add(str(compute_stats(checkpoint["a"])))
    assert len(found) == 1


def test_histogram_counts_as_numpy_does(tmp_path):
    array = np.random.default_rng(1).integers(-50, 50, 200_000).astype(np.float32) + 0.25
    with tb.open(write(tmp_path, array)) as checkpoint:
        found = compute_histogram(checkpoint["a"], compute_stats(checkpoint["a"]), 9)
    counts, edges = np.histogram(array, 9)
    assert found.counts == counts.tolist()
    assert found.edges == pytest.approx(edges.tolist())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30))
@example([sys.float_info.max])
@example([-sys.float_info.max])
def test_histogram_counts_every_finite_value(tmp_path_factory, values):
    array = np.array(values, np.float64)
    with tb.open(write(tmp_path_factory.mktemp("m"), array)) as checkpoint:
        found = compute_histogram(checkpoint["a"], compute_stats(checkpoint["a"]), 7)
    assert sum(found.counts) == np.count_nonzero(np.isfinite(array))


def test_reports_every_byte_as_done(tmp_path):
    array = np.random.default_rng(1).normal(size=(3, 100_000))
    done: list[int] = []
    with tb.open(write(tmp_path, array)) as checkpoint:
        stats = compute_stats(checkpoint["a"], done.append)
        assert sum(done) == array.nbytes
        compute_histogram(checkpoint["a"], stats, 4, done.append)
    assert sum(done) == 2 * array.nbytes
