# SPDX-License-Identifier: Apache-2.0
"""`tb.average`: weighted means in float64, other tensors of the last checkpoint."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, index_path, shard_path, write_tensors
from craft.compare import same_bits
from craft.dtypes import KINDS, Kind, sample
from craft.v1 import V1File
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle import blocks

repeatable = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FLOATS = {1, 2, 8, 14, 18, 19, 24, 25, 26, 27, 28, 33}


def write_all(tmp_path: Path, *checkpoints: dict[str, Any]) -> list[Path]:
    return [write_tensors(tmp_path / f"s{i}", tensors) for i, tensors in enumerate(checkpoints)]


def mean(arrays: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Returns the weighted mean by NumPy, in the dtype of the arrays."""
    wide = np.result_type(np.complex128 if arrays[0].dtype.kind == "c" else np.float64)
    with np.errstate(all="ignore"):
        total = sum(
            (array.astype(wide) * weight for array, weight in zip(arrays, weights, strict=True)),
            np.zeros((), wide),
        )
        return np.asarray(total / sum(weights)).astype(arrays[0].dtype)


def close_in_last_place(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Compares floats up to one rounding, because the order of the operations may differ.

    NumPy converts to narrow floats by way of float32, and so rounds twice.
    """
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    x, y = actual.astype(np.complex128), expected.astype(np.complex128)
    with np.errstate(all="ignore"):
        step = float(ml_dtypes.finfo(actual.dtype).eps) if actual.dtype.itemsize < 4 else 1e-6
        near = np.abs(x - y) <= step * np.abs(y)
    return bool(np.all(same | near))


def test_floats_are_averaged_and_others_come_from_the_last(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(7, 5)).astype(np.float32) for _ in range(3)]
    paths = write_all(
        tmp_path,
        *(
            {
                "w": array,
                "global_step": np.int64(100 * i),
                "flag": np.array([i == 2]),
                "words": [b"x", b"y" * i],
                "empty": np.zeros((0, 3), np.float32),
                "scalar": np.float64(i),
                "q": np.int8([i, -i]),
            }
            for i, array in enumerate(arrays)
        ),
    )
    report = tb.average(paths, tmp_path / "mean")
    assert report.averaged == ("w", "scalar")
    assert set(report.copied) == {"global_step", "flag", "words", "empty", "q"}
    assert report.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert report.path == str(tmp_path / "mean")
    with tb.open(tmp_path / "mean", verify="full") as ck:
        assert len(ck) == 7
        assert same_bits(ck["w"], mean(arrays, [1, 1, 1]))
        assert ck["scalar"].item() == 1.0
        assert ck["global_step"].item() == 200
        assert ck["flag"].read().tolist() == [True]
        assert ck["words"].read().tolist() == [b"x", b"yy"]
        assert ck["empty"].shape == (0, 3)
        assert ck["q"].read().tolist() == [2, -2]


@pytest.mark.parametrize("weights", [[1, 2, 4], [0.1, 0.2, 0.4], [1, 1, -1], [0, 0, 2]])
def test_weights_need_not_be_normalized(tmp_path: Path, weights: list[float]) -> None:
    arrays = [np.float32([1, 10, -3]) * (i + 1) for i in range(3)]
    paths = write_all(tmp_path, *({"w": array} for array in arrays))
    report = tb.average(paths, tmp_path / "mean", weights=iter(weights))
    assert sum(report.weights) == pytest.approx(1)
    with tb.open(tmp_path / "mean") as ck:
        assert np.allclose(ck["w"], np.average(arrays, axis=0, weights=weights))


def test_nan_and_infinity_propagate(tmp_path: Path) -> None:
    inf, nan = np.inf, np.nan
    paths = write_all(
        tmp_path,
        {"w": np.float32([1, nan, inf, inf, 3e38])},
        {"w": np.float32([3, 1, 1, -inf, 3e38])},
    )
    tb.average(paths, tmp_path / "mean")
    tb.average(paths, tmp_path / "zero", weights=[0, 1])
    with tb.open(tmp_path / "mean") as ck:
        assert same_bits(np.isnan(ck["w"]), np.array([False, True, False, True, False]))
        assert ck["w"].read()[[0, 2, 4]].tolist() == [2, inf, np.float32(3e38)]
    with tb.open(tmp_path / "zero") as ck:
        assert np.isnan(ck["w"].read()[1])


def test_mean_of_equal_checkpoints_is_that_checkpoint(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {f"t{number}": sample(KINDS[number], (50,)) for number in (1, 14, 19)}
    values = {name: np.nan_to_num(array) for name, array in values.items()}
    values["d"] = rng.normal(size=50)
    paths = write_all(tmp_path, values, values, values, values)
    tb.average(paths, tmp_path / "mean")
    assert tb.diff(paths[0], tmp_path / "mean", values=True).same


@st.composite
def sources(draw: st.DrawFn) -> tuple[list[np.ndarray], list[Any], Kind]:
    """Draws arrays of one kind, and how each is stored."""
    kind = draw(st.sampled_from(list(KINDS.values())))
    shape = tuple(draw(st.lists(st.integers(1, 6), max_size=3)))
    count = draw(st.integers(1, 4))
    arrays = [sample(kind, shape, seed=draw(st.integers(0, 9))) for _ in range(count)]
    kinds = st.sampled_from(["whole", "sliced", "big-endian"])
    layouts = [(draw(kinds), draw(st.integers(0, 99))) for _ in range(count)]
    return arrays, layouts, kind


@given(drawn=sources(), weights=st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=4, max_size=4))
@repeatable
def test_mean_equals_numpys_for_any_dtype_and_layout(
    tmp_path: Path, drawn: Any, weights: list[float]
) -> None:
    arrays, layouts, kind = drawn
    paths, boxes = [], None
    for i, (array, (layout, seed)) in enumerate(zip(arrays, layouts, strict=True)):
        bundle = Bundle(2, big_endian=layout == "big-endian")
        boxes = None
        if layout == "sliced" and array.ndim:
            boxes = tilings.guillotine(array.shape, 4, random.Random(seed))
            bundle.add_sliced("t", array, boxes, number=kind.number, shard_of=lambda i: i % 2)
        else:
            bundle.add("t", array, number=kind.number)
        paths.append(bundle.write(tmp_path / f"s{i}"))
    weights = weights[: len(arrays)]
    tb.average(paths, tmp_path / "mean", weights=weights, overwrite=True)
    with tb.open(tmp_path / "mean", verify="full") as ck:
        result = ck["t"]
        found = np.asarray(result)
        if kind.number in FLOATS and not kind.is_substituted:
            assert close_in_last_place(found, mean(arrays, weights))
        else:
            assert same_bits(found, arrays[-1])
        assert result._core.type_number == kind.number
        expected = [tuple(zip(*box, strict=True)) for box in boxes or []]
        stored = [(part.offset, part.shape) for part in result.slices]
        assert sorted(stored) == sorted(expected) or (not expected and len(stored) == 1)


def test_v1_sources_are_averaged(tmp_path: Path) -> None:
    arrays = [np.float32([[1, 2]]) * i for i in range(1, 3)]
    for i, array in enumerate(arrays):
        file = V1File()
        file.add("w", 1, array)
        file.add("n", 9, np.int64([i]))
        file.write(tmp_path / f"s{i}")
    tb.average([tmp_path / "s0", tmp_path / "s1"], tmp_path / "mean")
    with tb.open(tmp_path / "mean") as ck:
        assert ck.format == 2
        assert same_bits(ck["w"], mean(arrays, [1, 1]))
        assert ck["n"].item() == 1


def test_large_rows_and_many_blocks(tmp_path: Path) -> None:
    shape = (2, 3, blocks.BLOCK_ELEMENTS + 11)
    arrays = [np.arange(np.prod(shape), dtype=np.float32).reshape(shape) * i for i in (1, 3)]
    paths = write_all(tmp_path, *({"w": array} for array in arrays))
    tb.average(paths, tmp_path / "mean", threads=3)
    tb.average(paths, tmp_path / "single", threads=1, shards=2, alignment=4096)
    for name in ("mean", "single"):
        with tb.open(tmp_path / name, verify="full") as ck:
            assert same_bits(ck["w"], mean(arrays, [1, 1]))


def test_differences_are_reported_together_before_anything_is_written(tmp_path: Path) -> None:
    paths = write_all(
        tmp_path,
        {"w": np.zeros(3), "only": np.zeros(1), "t": np.zeros(2, np.float32)},
        {"w": np.zeros(4), "t": np.zeros(2, np.float16), "new": np.zeros(1)},
    )
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError, match="the checkpoints differ") as caught:
        tb.average(paths, tmp_path / "mean")
    text = str(caught.value)
    assert len(text.splitlines()) == 5
    for part in ("'only' is in", "'new' is in", "'w' is float64 [3] in", "'t' is float32 [2] in"):
        assert part in text
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1], ValueError, "1 weights for 2 checkpoints"),
        ([1, -1], ValueError, "sum of the weights"),
        ([1, float("nan")], ValueError, "finite"),
        ([1, float("inf")], ValueError, "finite"),
        ([0.3, -0.1 - 0.2], ValueError, "sum of the weights"),
        (["a", 1], TypeError, "numbers"),
        (3, TypeError, "sequence"),
    ],
)
def test_invalid_weights(
    tmp_path: Path, weights: Any, error: type[Exception], message: str
) -> None:
    paths = write_all(tmp_path, {"w": np.zeros(3)}, {"w": np.zeros(3)})
    with pytest.raises(error, match=message):
        tb.average(paths, tmp_path / "mean", weights=weights)


def test_invalid_sources_and_destinations(tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"w": np.zeros(3)}, {"w": np.ones(3)})
    with pytest.raises(ValueError, match="at least one"):
        tb.average([], tmp_path / "mean")
    with pytest.raises(TypeError, match="srcs"):
        tb.average(str(paths[0]), tmp_path / "mean")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="progress"):
        tb.average(paths, tmp_path / "mean", progress=1)  # type: ignore[arg-type]
    with pytest.raises(tb.CheckpointNotFoundError):
        tb.average([*paths, tmp_path / "absent"], tmp_path / "mean")
    for source in paths:
        with pytest.raises(ValueError, match="one of the sources"):
            tb.average(paths, source, overwrite=True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="one of the sources"):
        tb.average(paths, link / paths[0].name, overwrite=True)
    assert not index_path(tmp_path / "mean").exists()


def test_existing_destination_is_replaced_only_on_request(tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"w": np.zeros(3)}, {"w": np.ones(3)})
    tb.average(paths, tmp_path / "mean")
    with pytest.raises(FileExistsError) as caught:
        tb.average(paths, tmp_path / "mean")
    assert caught.value.errno == errno.EEXIST
    tb.average(paths, tmp_path / "mean", weights=[0, 1], overwrite=True)
    with tb.open(tmp_path / "mean") as ck:
        assert ck["w"].read().tolist() == [1, 1, 1]


@pytest.mark.parametrize("source", [0, 1])
@pytest.mark.parametrize("name", ["w", "n"])
def test_corrupted_sources_leave_nothing(tmp_path: Path, source: int, name: str) -> None:
    count = 2 * blocks.BLOCK_ELEMENTS  # reads of a part of a slice compare no checksum
    tensors = {"w": np.arange(count, dtype=np.float64), "n": np.arange(count)}
    paths = write_all(tmp_path, tensors, tensors)
    with tb.open(paths[source]) as ck:
        at = ck[name].slices[0].file_offset
    data = bytearray(shard_path(paths[source]).read_bytes())
    data[at + 8] ^= 1
    shard_path(paths[source]).write_bytes(data)
    before = sorted(os.listdir(tmp_path))
    if (source, name) == (0, "n"):
        tb.average(paths, tmp_path / "mean")  # it is not read
        return
    with pytest.raises(tb.CorruptionError, match=f"'{name}'"):
        tb.average(paths, tmp_path / "mean")
    assert sorted(os.listdir(tmp_path)) == before


def test_missing_data_file_is_found_first(tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"w": np.zeros(3)}, {"w": np.zeros(3)})
    shard_path(paths[0]).unlink()
    with pytest.raises(tb.CheckpointNotFoundError):
        tb.average(paths, tmp_path / "mean")
    assert not index_path(tmp_path / "mean").exists()


def test_exception_in_progress_leaves_nothing(tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"w": np.zeros(300_000)}, {"w": np.zeros(300_000)})
    before = sorted(os.listdir(tmp_path))

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tb.average(paths, tmp_path / "mean", progress=stop)
    assert sorted(os.listdir(tmp_path)) == before


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    tensors = {"w": np.zeros(300_000), "n": np.arange(10), "s": [b"x"]}
    paths = write_all(tmp_path, tensors, tensors)
    calls: list[tuple[int, int]] = []
    tb.average(paths, tmp_path / "mean", progress=lambda *call: calls.append(call))
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1] == 2 * 2_400_000 + 80 + 6


def test_open_checkpoints_are_accepted_and_stay_open(tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"w": np.zeros(3)}, {"w": np.ones(3)})
    with tb.open(paths[0]) as first:
        report = tb.average([first, paths[1]], tmp_path / "mean")
        assert not first.closed
    assert report.sources == tuple(map(str, paths))


def test_report_prints_and_has_html(tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"w": np.zeros(3)}, {"w": np.ones(3)})
    report = tb.average(paths, tmp_path / "mean", weights=[1, 3])
    assert str(report).endswith(
        "1 tensor averaged from 2 checkpoints, 0 copied from the last, 24 B"
    )
    assert "0.25" in report._repr_html_()


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    paths = write_all(tmp_path, {"\udcff": np.zeros(3)}, {"\udcff": np.ones(3)})
    tb.average(paths, tmp_path / "mean")
    with tb.open(tmp_path / "mean") as ck:
        assert ck["\udcff"].read().tolist() == [0.5, 0.5, 0.5]


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A checkpoint of 64 MB in few tensors, one of them with a single row."""
    shapes = {"a": (1, 8 << 20), "b": (4096, 1024), "c": (4 << 20,)}
    paths = []
    for i in range(2):
        path = tmp_path / f"s{i}"
        tb.save(path, {name: np.full(shape, i, np.float32) for name, shape in shapes.items()})
        paths.append(path)
    baseline = anonymous_memory()
    peak = 0

    def measure(done: int, total: int) -> None:
        nonlocal peak
        peak = max(peak, anonymous_memory() - baseline)

    tb.average(paths, tmp_path / "mean", progress=measure)
    assert peak < 32 << 20
    with tb.open(tmp_path / "mean") as ck:
        assert all((np.asarray(tensor) == 0.5).all() for tensor in ck.values())


def anonymous_memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    pytest.skip("the system does not report anonymous memory")


KILLED = """
import sys
import tensorbundle as tb
*paths, target = sys.argv[1:]
print("ready", flush=True)
while True:
    for weights in ([1, 0], [0, 1]):
        tb.average(paths, target, weights=weights, overwrite=True)
"""


def test_killed_process_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    size = 200_000
    paths = write_all(tmp_path, *({"w": np.full(size, i), "n": np.float32(i)} for i in (0.0, 1.0)))
    target = tmp_path / "out" / "mean"
    target.parent.mkdir()
    tb.average(paths, target, weights=[1, 0])
    rng = random.Random(0)
    for _ in range(10):
        command = [sys.executable, "-c", KILLED, *map(str, paths), str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
        with tb.open(target, verify="full") as ck:
            values = {*np.asarray(ck["w"]).tolist(), ck["n"].item()}
            assert values in ({0.0}, {1.0})
    tb.average(paths, target, overwrite=True)
    names = {path.name for path in target.parent.iterdir()}
    assert names == {"mean.index", "mean.data-00000-of-00001"}


def test_bfloat16_is_rounded_once(tmp_path: Path) -> None:
    one = np.array([1.0, 1.0078125], ml_dtypes.bfloat16)
    paths = write_all(tmp_path, {"w": one}, {"w": one[::-1].copy()})
    tb.average(paths, tmp_path / "mean")
    with tb.open(tmp_path / "mean") as ck:
        assert same_bits(ck["w"], mean([one, one[::-1]], [1, 1]))


@pytest.mark.parametrize("scale", [1e300, 5e-324, 2.0**200])
def test_weights_of_any_magnitude(scale: float, tmp_path: Path) -> None:
    for name, value in (("a", 1e10), ("b", 3e10)):
        tb.save(tmp_path / name, {"x": np.float32(value)})
    tb.average([tmp_path / "a", tmp_path / "b"], tmp_path / "c", weights=[scale, scale])
    assert tb.load(tmp_path / "c")["x"] == np.float32(2e10)


def test_weight_beyond_floats(tmp_path: Path) -> None:
    tb.save(tmp_path / "a", {"x": np.float32(1)})
    with pytest.raises(ValueError, match="must be finite"):
        tb.average([tmp_path / "a"], tmp_path / "b", weights=[10**400])


def test_data_file_that_is_a_link_to_the_destination(tmp_path: Path) -> None:
    tb.save(tmp_path / "s", {"x": np.float32(1)})
    (tmp_path / "link.index").write_bytes((tmp_path / "s.index").read_bytes())
    (tmp_path / "link.data-00000-of-00001").symlink_to(tmp_path / "s.data-00000-of-00001")
    with pytest.raises(ValueError, match="is the source"):
        tb.average([tmp_path / "link"], tmp_path / "s", overwrite=True)
    assert tb.load(tmp_path / "link")["x"] == 1


def test_mean_is_rounded_once(tmp_path: Path) -> None:
    """The mean is just above the middle of two bfloat16; as float32 it is the middle."""
    for name, value in (("a", 1), ("b", 1.0078125)):
        tb.save(tmp_path / name, {"x": np.array([value], ml_dtypes.bfloat16)})
    weights = [0.5 - 2**-40, 0.5 + 2**-40]
    tb.average([tmp_path / "a", tmp_path / "b"], tmp_path / "c", weights=weights)
    assert tb.load(tmp_path / "c")["x"] == 1.0078125


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_mean_near_the_largest_number_is_finite(tmp_path: Path, dtype: Any) -> None:
    large, small = np.finfo(np.float64).max, 5e-324
    values = np.array([large, large, -large, 0.1, small, np.inf, np.nan]).astype(dtype)
    other = np.array([large, large / 2, -large, 0.2, small, 1, 1]).astype(dtype)
    tb.save(tmp_path / "a", {"w": values, "s": values[0]})
    tb.save(tmp_path / "b", {"w": other, "s": other[1]})
    expected = [large, large * 0.75, -large, (0.1 + 0.2) / 2, small, np.inf, np.nan]
    for weights in (None, [7.0, 7.0], [1e30, 1e30], [2.0**-99, 2.0**-99]):
        tb.average(
            [tmp_path / "a", tmp_path / "b"], tmp_path / "m", weights=weights, overwrite=True
        )
        found = tb.load(tmp_path / "m")
        if weights is None:
            assert np.array_equal(found["w"].real, expected, equal_nan=True)
        assert np.allclose(found["w"].real[:4], expected[:4], rtol=1e-15)
        assert found["w"].dtype == found["s"].dtype == dtype and found["s"].shape == ()
        assert np.isclose(found["s"].real, large * 0.75, rtol=1e-15)
    tb.average([tmp_path / "a", tmp_path / "a"], tmp_path / "n", weights=[3, -1])
    assert np.isnan(tb.load(tmp_path / "n")["w"][5].real)


def test_error_is_that_of_the_first_damaged_slice(tmp_path: Path) -> None:
    bundle = Bundle()
    source = np.arange(12, dtype=np.float32).reshape(6, 2)
    bundle.add_sliced("t", source, [((row, 2), (0, 2)) for row in (0, 2, 4)])
    prefix = bundle.write(tmp_path / "c")
    data = bytearray(shard_path(prefix).read_bytes())
    with tb.open(prefix) as ck:
        first, second, _ = ck["t"].slices
        for stored in (first, second):
            data[stored.file_offset] ^= 1
    shard_path(prefix).write_bytes(data)
    with pytest.raises(tb.CorruptionError, match=f"at offset {first.file_offset},"):
        tb.average([prefix, prefix], tmp_path / "mean")
