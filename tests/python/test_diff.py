# SPDX-License-Identifier: Apache-2.0
"""`tb.diff`: checksums decide first, values where they must be read, renamed tensors."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, shard_path, write_tensors
from craft.dtypes import KINDS, Kind, sample
from craft.v1 import FIELDS, V1File
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle import blocks
from tensorbundle.value_diff import ValueDiff

repeatable = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
COMPLEX = {8: np.complex128, 18: np.complex128}


def write_both(tmp_path: Path, a: dict[str, Any], b: dict[str, Any]) -> tuple[Path, Path]:
    return write_tensors(tmp_path / "a", a), write_tensors(tmp_path / "b", b)


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("values were read")

    monkeypatch.setattr(blocks, "read_box", fail)
    monkeypatch.setattr(blocks, "damage", fail)


def test_equal_checkpoints_are_the_same_by_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {"w": np.arange(6.0).reshape(2, 3), "s": [b"x", b""], "n": np.float32(np.nan)}
    a, b = write_both(tmp_path, tensors, tensors)
    forbid_reading(monkeypatch)
    for options in ({}, {"values": True}, {"rtol": 0.1, "atol": 1}):
        report = tb.diff(a, b, **options)
        assert report.same
        assert report.ok
        assert report.unchanged == 3
        assert str(report) == "same: 3 tensors"


def test_differing_checksums_are_a_change_by_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = write_both(
        tmp_path,
        {"same": np.arange(3.0), "w": np.zeros(3), "s": [b"x"]},
        {"same": np.arange(3.0), "w": np.ones(3), "s": [b"y"]},
    )
    forbid_reading(monkeypatch)
    report = tb.diff(a, b)
    assert not report.same
    assert [(row.name, row.reasons, row.values) for row in report.changed] == [
        ("s", ("values",), None),
        ("w", ("values",), None),
    ]


@pytest.mark.parametrize("cuts", [(4, 6), (1, 2, 3, 4), (10,)])
def test_slices_along_axis_0_are_compared_by_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: tuple[int, ...]
) -> None:
    array = np.arange(30, dtype=np.float32).reshape(10, 3)
    whole = write_tensors(tmp_path / "a", {"t": array})
    bundle = Bundle(2)
    boxes = tilings.cut(array.shape, 0, cuts)
    bundle.add_sliced("t", array, boxes[::-1], shard_of=lambda i: i % 2)
    sliced = bundle.write(tmp_path / "b")
    changed = write_tensors(tmp_path / "c", {"t": array + 1})
    forbid_reading(monkeypatch)
    assert tb.diff(whole, sliced).same
    assert tb.diff(sliced, whole).same
    assert [row.reasons for row in tb.diff(sliced, changed).changed] == [("values",)]


def test_shapes_and_dtypes_are_reported(tmp_path: Path) -> None:
    a, b = write_both(
        tmp_path,
        {"dtype": np.zeros(3, np.float32), "shape": np.zeros((2, 3)), "both": np.zeros(2)},
        {"dtype": np.zeros(3, np.float16), "shape": np.zeros((3, 2)), "both": np.zeros(3, int)},
    )
    report = tb.diff(a, b)
    assert [(row.name, row.reasons) for row in report.changed] == [
        ("both", ("dtype", "shape")),
        ("dtype", ("dtype",)),
        ("shape", ("shape",)),
    ]
    assert report.changed[1].dtypes == ("float32", "float16")
    assert report.changed[2].shapes == ((2, 3), (3, 2))


def test_values_of_another_dtype_are_compared_but_stay_a_change(tmp_path: Path) -> None:
    exact = np.float32([1, 1.001, np.nan, np.inf])
    a, b = write_both(tmp_path, {"w": exact}, {"w": exact.astype(ml_dtypes.bfloat16)})
    (row,) = tb.diff(a, b, values=True).changed
    assert row.reasons == ("dtype", "values")
    assert row.values is not None
    assert (row.values.different, row.values.not_finite) == (1, 0)
    assert row.values.max_abs == pytest.approx(0.001, rel=1e-3)
    (row,) = tb.diff(a, b, rtol=0.01).changed
    assert row.reasons == ("dtype",)


def test_figures_count_elements_and_differences(tmp_path: Path) -> None:
    a, b = write_both(
        tmp_path,
        {"w": np.array([1.0, 2, 0, np.nan, np.inf, 5])},
        {"w": np.array([1.0, 4, 3, 1, -np.inf, 5])},
    )
    report = tb.diff(a, b, values=True)
    (row,) = report.changed
    assert row.values is not None
    assert dataclasses.astuple(row.values) == (6, 4, 2, 3.0, 1.0)
    assert "4 of 6" in str(report)
    assert "2 with NaN or infinity" in str(report)
    json.dumps(dataclasses.asdict(report), allow_nan=False)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (np.int64([-(2**63)]), np.int64([2**63 - 1]), 2**64 - 1),
        (np.uint64([0]), np.uint64([2**64 - 1]), 2**64 - 1),
        (np.int8([-128]), np.int8([127]), 255),
        (np.int64([2**60]), np.int64([2**60 + 1]), 1),
    ],
)
def test_differences_of_integers_are_exact(
    tmp_path: Path, a: np.ndarray, b: np.ndarray, distance: int
) -> None:
    (row,) = tb.diff(*write_both(tmp_path, {"n": a}, {"n": b}), values=True).changed
    assert row.values is not None
    assert (row.values.different, row.values.max_abs) == (1, distance)
    assert isinstance(row.values.max_abs, int)


def test_bits_decide_without_a_tolerance(tmp_path: Path) -> None:
    nans = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    zeros = np.float32([0.0, -0.0])
    a, b = write_both(tmp_path, {"n": nans, "z": zeros}, {"n": nans[::-1], "z": zeros[::-1]})
    assert [row.name for row in tb.diff(a, b).changed] == ["n", "z"]
    found = [row.values for row in tb.diff(a, b, values=True).changed]
    assert [each and each.different for each in found] == [2, 2]
    report = tb.diff(a, b, atol=1e-9)
    assert report.same
    assert report.unchanged == 2


@pytest.mark.parametrize(
    ("x", "y", "rtol", "atol", "same"),
    [
        (1.0, 1.1, 0, 0.2, True),
        (1.0, 1.1, 0, 0.05, False),
        (100.0, 101.0, 0.01, 0, True),
        (100.0, 102.0, 0.01, 0, False),
        (np.nan, 1.0, 10, 10, False),
        (np.inf, np.inf, 0.1, 0, True),
        (np.inf, 1.0, 10, 10, False),
        (1.0, np.inf, 10, 10, False),
        (np.inf, -np.inf, 10, 10, False),
    ],
)
def test_tolerance_is_that_of_numpy(
    tmp_path: Path, x: float, y: float, rtol: float, atol: float, same: bool
) -> None:
    a, b = write_both(tmp_path, {"w": np.float64([x, 7])}, {"w": np.float64([y, 7])})
    report = tb.diff(a, b, rtol=rtol, atol=atol)
    assert report.same is same
    assert np.isclose(x, y, rtol=rtol, atol=atol, equal_nan=True) == same
    assert len(report.close) == (same and x != y)


def test_strings_and_bools_have_no_tolerance(tmp_path: Path) -> None:
    a, b = write_both(
        tmp_path,
        {"s": [b"a", b"b\0"], "b": np.array([True])},
        {"s": [b"a", b"b"], "b": ~np.array([True])},
    )
    report = tb.diff(a, b, rtol=9, atol=9)
    assert [(row.name, row.values and row.values.different) for row in report.changed] == [
        ("b", 1),
        ("s", 1),
    ]


@st.composite
def pair_of_arrays(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Kind]:
    """Draws two arrays of the same kind and shape, of which some elements differ."""
    kind = draw(st.sampled_from(list(KINDS.values())))
    shape = tuple(draw(st.lists(st.integers(1, 6), max_size=3)))
    a = sample(kind, shape, seed=draw(st.integers(0, 9)))
    b = np.where(sample(KINDS[10], shape, seed=draw(st.integers(0, 9))), a, sample(kind, shape, 99))
    return a, b.astype(a.dtype).reshape(shape), kind


def write_layout(path: Path, array: np.ndarray, kind: Kind, layout: str, seed: int) -> Path:
    """Writes a tensor "t" in some layout."""
    path = path.with_name(f"{path.name}-{layout}")
    if layout == "v1":
        file = V1File()
        file.add("t", kind.number, array)
        return file.write(path)
    bundle = Bundle(2, big_endian=layout == "big-endian")
    if layout == "sliced" and array.ndim:
        boxes = tilings.guillotine(array.shape, 5, random.Random(seed))
        bundle.add_sliced("t", array, boxes, number=kind.number, shard_of=lambda i: i % 2)
    else:
        bundle.add("t", array, number=kind.number)
    return bundle.write(path)


@given(
    pair=pair_of_arrays(),
    layouts=st.tuples(*[st.sampled_from(["whole", "big-endian", "sliced", "v1"])] * 2),
    seed=st.integers(0, 99),
    tolerance=st.sampled_from([0.0, 0.5]),
)
@repeatable
def test_values_equal_numpys_in_any_layout(
    tmp_path: Path, pair: Any, layouts: tuple[str, str], seed: int, tolerance: float
) -> None:
    a, b, kind = pair
    if "v1" in layouts and kind.number not in FIELDS:
        return
    paths = [
        write_layout(tmp_path / name, array, kind, layout, seed)
        for name, array, layout in zip("ab", (a, b), layouts, strict=True)
    ]
    report = tb.diff(*paths, rtol=tolerance, atol=tolerance, values=True)
    expected = oracle(a, b, kind, tolerance)
    assert report.same == (expected.different == 0)
    if expected.different:
        (row,) = report.changed
        assert row.values is not None
        assert_figures(row.values, expected)
    assert tb.diff(*paths).same == (a.tobytes() == b.tobytes())


def assert_figures(found: ValueDiff, expected: ValueDiff) -> None:
    assert dataclasses.astuple(found)[:3] == dataclasses.astuple(expected)[:3]
    for figure, wanted in ((found.max_abs, expected.max_abs), (found.max_rel, expected.max_rel)):
        if wanted is None:
            assert figure is None
        else:  # NumPy's absolute values of complex numbers differ in the last bit
            assert figure == pytest.approx(wanted, rel=1e-14, abs=0)


def oracle(a: np.ndarray, b: np.ndarray, kind: Kind, tolerance: float) -> ValueDiff:
    """Returns the figures, by Python's integers or by NumPy's arrays."""
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    size = a.dtype.itemsize
    bits = (flat_a.view(np.uint8) != flat_b.view(np.uint8)).reshape(-1, size).any(axis=1)
    has_no_numbers = kind.is_substituted and "float" in kind.label
    if kind.label == "bool" or has_no_numbers:
        return ValueDiff(a.size, int(bits.sum()))
    wide = COMPLEX.get(kind.number, np.float64)
    with np.errstate(all="ignore"):
        x, y = flat_a[bits].astype(wide), flat_b[bits].astype(wide)
        close = np.isclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
        distance, divisor = np.abs(x - y), np.abs(y)
        finite = np.isfinite(x) & np.isfinite(y)
        relative = (distance / divisor)[finite & (divisor != 0)]
    if "int" in kind.label:  # exact
        distance = np.array(
            [abs(int(i) - int(j)) for i, j in zip(flat_a[bits], flat_b[bits], strict=True)], object
        )
    far = ~close if tolerance else np.ones_like(close)
    return ValueDiff(
        a.size,
        int(far.sum()),
        int((far & ~finite).sum()),
        max(distance[finite].tolist(), default=None),
        max(relative.tolist(), default=None),
    )


def test_large_tensors_are_compared_in_many_blocks(tmp_path: Path) -> None:
    shape = (3, 5, blocks.BLOCK_ELEMENTS // 3 + 7)
    a = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    b = a.copy()
    b[2, 4, -1] += 8
    b[0, 0, 0] = -1
    report = tb.diff(*write_both(tmp_path, {"w": a}, {"w": b}), values=True)
    assert report.changed[0].values is not None
    assert dataclasses.astuple(report.changed[0].values)[:4] == (a.size, 2, 0, 8.0)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A tensor of 32 MB in one row, stored in two slices that are not contiguous in the tensor."""
    array = np.arange(8 << 20, dtype=np.float32).reshape(2, -1)
    bundle = Bundle()
    bundle.add_sliced("w", array, tilings.cut(array.shape, 1, [1 << 20, 3 << 20]))
    a, b = write_tensors(tmp_path / "a", {"w": array}), bundle.write(tmp_path / "b")
    del bundle
    before = anonymous_memory()
    peak = 0
    compare = blocks.read_box

    def measure(*arguments: Any) -> np.ndarray:
        nonlocal peak
        peak = max(peak, anonymous_memory() - before)
        return compare(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "read_box", measure)
        assert tb.diff(a, b).same
    assert peak < 16 << 20


def anonymous_memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    pytest.skip("the system does not report anonymous memory")


@given(shape=st.lists(st.integers(0, 9), max_size=4), limit=st.integers(1, 40), data=st.data())
@repeatable
def test_boxes_partition_any_shape_in_order(
    shape: list[int], limit: int, data: st.DataObject
) -> None:
    offset = [data.draw(st.integers(0, 3)) for _ in shape]
    whole = np.arange(int(np.prod([n + 4 for n in shape]))).reshape([n + 4 for n in shape])
    box = whole[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))]
    parts = [whole[part] for part in blocks.boxes(shape, offset, limit)]
    assert all(1 <= part.size <= limit for part in parts)
    joined = np.concatenate([part.reshape(-1) for part in parts]) if parts else np.empty(0)
    assert np.array_equal(joined, box.reshape(-1))


def test_names_of_one_side_are_listed(tmp_path: Path) -> None:
    a, b = write_both(
        tmp_path, {"both": np.zeros(1), "a1": np.zeros(2)}, {"both": np.zeros(1), "b1": np.ones(3)}
    )
    report = tb.diff(a, b)
    assert (report.only_a, report.only_b, report.renamed) == (("a1",), ("b1",), ())
    assert report.unchanged == 1
    assert str(report).splitlines()[0] == "different: 1 only in a, 1 only in b, 1 unchanged"


def test_renamed_tensors_are_paired_by_their_contents(tmp_path: Path) -> None:
    old, twins = np.arange(20.0).reshape(5, 4), np.zeros(4)
    a = write_tensors(tmp_path / "a", {"old": old, "z1": twins, "z2": twins, "gone": np.ones(9)})
    bundle = Bundle()
    bundle.add_sliced("new", old, tilings.cut(old.shape, 1, [1, 3]))  # no combined checksum
    for name in ("y1", "y2"):
        bundle.add(name, twins)
    report = tb.diff(a, bundle.write(tmp_path / "b"))
    assert report.renamed == (("old", "new"),)
    assert [(group.names_a, group.names_b) for group in report.ambiguous] == [
        (("z1", "z2"), ("y1", "y2"))
    ]
    assert report.only_a == ("gone", "z1", "z2")
    assert report.only_b == ("y1", "y2")
    assert not report.same
    assert "old -> new" in str(report)


def test_renamed_strings_and_other_formats_are_paired(tmp_path: Path) -> None:
    array = np.arange(7, dtype=np.int32)
    a = write_tensors(tmp_path / "a", {"s": [b"x", b"yy"], "n": array})
    b = write_tensors(tmp_path / "b", {"t": [b"x", b"yy"], "m": array})
    assert tb.diff(a, b).renamed == (("n", "m"), ("s", "t"))
    file = V1File()
    file.add("m", 3, array)
    file.write(tmp_path / "v1")
    assert tb.diff(a, tmp_path / "v1").renamed == (("n", "m"),)


@pytest.mark.parametrize(
    "rename",
    [
        {"bert/w": "model/w", "bert/b": "model/b"},
        [("^bert/", "model/")],
        lambda name: name.replace("bert", "model"),
    ],
)
def test_rename_maps_names_of_a_to_names_of_b(tmp_path: Path, rename: Any) -> None:
    a, b = write_both(
        tmp_path,
        {"bert/w": np.zeros(3), "bert/b": np.ones(1)},
        {"model/w": np.zeros(3), "model/b": np.zeros(1)},
    )
    report = tb.diff(a, b, rename=rename)
    assert [(row.name, row.name_b) for row in report.changed] == [("bert/b", "model/b")]
    assert report.unchanged == 1
    assert "bert/b -> model/b" in str(report)


def test_rename_lists_all_mistakes(tmp_path: Path) -> None:
    a, b = write_both(tmp_path, {"old1": np.zeros(1), "old2": np.zeros(1)}, {"w": np.zeros(1)})
    with pytest.raises(ValueError, match=r"'w': 'old1', 'old2'") as caught:
        tb.diff(a, b, rename={"old1": "w", "old2": "w", "old3": "x"})
    assert "'old3'; the nearest names are 'old1', 'old2'" in str(caught.value)
    with pytest.raises(ValueError, match="not a regular expression"):
        tb.diff(a, b, rename=[("(", "")])
    with pytest.raises(TypeError, match="rename"):
        tb.diff(a, b, rename="w")
    report = tb.diff(a, b, rename=[("v", "u")])
    assert report.warnings == ("rename: no name matches 'v'",)


def test_corrupted_tensors_are_reported_and_the_others_compared(tmp_path: Path) -> None:
    good = {"w": np.zeros(3), "v": np.arange(4.0)}
    a, b = write_both(tmp_path, good, {"w": np.ones(3), "v": np.arange(4.0) + 1})
    data = shard_path(b)
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    report = tb.diff(a, b, values=True)
    (bad,) = report.unreadable
    assert (bad.path, bad.name) == (str(b), "w")
    assert [row.name for row in report.changed] == ["v"]
    assert not report.same


def test_missing_data_files_make_checkpoints_different(tmp_path: Path) -> None:
    a, b = write_both(tmp_path, {"w": np.zeros(3)}, {"w": np.zeros(3)})
    shard_path(b).unlink()
    report = tb.diff(a, b)
    assert [bad.name for bad in report.unreadable] == ["w"]
    assert not report.same


def test_unknown_types_are_compared_by_their_checksums(tmp_path: Path) -> None:
    paths = []
    for name, payload in (("a", b"abcd"), ("b", b"abcd"), ("c", b"abce")):
        bundle = Bundle()
        bundle.add_payload("t", 99, (4,), payload)
        paths.append(bundle.write(tmp_path / name))
    assert tb.diff(paths[0], paths[1], values=True).same
    (row,) = tb.diff(paths[0], paths[2], values=True).changed
    assert (row.reasons, row.values) == (("values",), None)


def test_open_checkpoints_stay_open(tmp_path: Path) -> None:
    a, b = write_both(tmp_path, {"w": np.zeros(3)}, {"w": np.zeros(3)})
    with tb.open(a) as first:
        assert tb.diff(first, b).same
        assert not first.closed


def test_progress_counts_the_bytes_that_are_read(tmp_path: Path) -> None:
    a, b = write_both(
        tmp_path, {"w": np.zeros(8), "v": np.zeros(9)}, {"w": np.ones(8), "v": np.zeros(9)}
    )
    calls: list[tuple[int, int]] = []
    tb.diff(a, b, values=True, progress=lambda *call: calls.append(call))
    assert calls == [(128, 128)]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"rtol": -1}, ValueError),
        ({"atol": float("nan")}, ValueError),
        ({"rtol": "1e-3x"}, TypeError),
        ({"progress": 1}, TypeError),
    ],
)
def test_invalid_arguments(tmp_path: Path, options: Any, error: type[Exception]) -> None:
    a = write_tensors(tmp_path / "a", {"w": np.zeros(3)})
    with pytest.raises(error, match=next(iter(options))):
        tb.diff(a, a, **options)


def test_report_escapes_names(tmp_path: Path) -> None:
    name = "<b>\n\x1b[31m\udcff"
    a, b = write_both(tmp_path, {name: np.zeros(1)}, {name: np.ones(1)})
    report = tb.diff(a, b)
    assert r"<b>\n\x1b[31m\xff" in str(report)
    assert r"&lt;b&gt;\n\x1b[31m\xff" in report._repr_html_()
    assert "<b>" not in report._repr_html_()


def test_tiny_constants_are_no_evidence_of_a_renaming(tmp_path: Path) -> None:
    shapes = [(), (1,), (0, 3), (40,), (2, 3)]
    values: dict[str, Any] = {f"a{n}": np.zeros(shape) for n, shape in enumerate(shapes)}
    values |= {"step": np.int64(1000), "large": np.zeros(300), "varied": np.array([0.0, 1.0])}
    values["text"] = [b"x" * 50]
    a = write_tensors(tmp_path / "a", values)
    b = write_tensors(tmp_path / "b", {f"new_{name}": value for name, value in values.items()})
    report = tb.diff(a, b)
    assert report.renamed == (("large", "new_large"), ("varied", "new_varied"))
    assert len(report.only_a) == len(report.only_b) == 7 and not report.ambiguous


def test_sum_of_the_parts_of_a_tensor_has_the_largest_differences() -> None:
    first, second = ValueDiff(2, 1, 0, 3.0, 0.5), ValueDiff(3, 2, 1, 2.0, 0.75)
    assert first + second == second + first == ValueDiff(5, 3, 1, 3.0, 0.75)
    assert first + ValueDiff(4) == ValueDiff(4) + first == ValueDiff(6, 1, 0, 3.0, 0.5)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_imaginary_parts_are_compared(tmp_path: Path, dtype: type) -> None:
    a, b = np.full(4, 1 + 2j, dtype), np.array([1 + 2j, 1 + 3j, 2 + 2j, 1 + 2j], dtype)
    paths = [write_tensors(tmp_path / name, {"t": each}) for name, each in (("a", a), ("b", b))]
    (row,) = tb.diff(*paths, values=True).changed
    assert row.values is not None
    assert (row.values.elements, row.values.different, row.values.max_abs) == (4, 2, 1)
