# SPDX-License-Identifier: Apache-2.0
"""Checkpoints written by ``Writer`` and ``save`` read as they were written."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle
from craft.compare import same_bits
from craft.v1 import V1File
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle import dtypes

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
GOLDEN = sorted(DATA.glob("*/*.index"))
NUMERIC = sorted(
    {dtype for dtype in dtypes.BY_NUMBER if dtype.kind != "O"}, key=lambda dtype: dtype.name
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_reads(path: str | Path, values: dict[str, Any]) -> None:
    with tb.open(path, verify="full") as ck:
        assert sorted(ck) == sorted(values)
        for name, value in values.items():
            expected = np.asarray(value)
            assert ck[name].shape == expected.shape, name
            assert ck[name].dtype == expected.dtype.newbyteorder("="), name
            actual = np.asarray(ck[name].read(), expected.dtype)
            assert same_bits(actual, expected), name


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(st.sampled_from(NUMERIC))
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    size = int(np.prod(shape))
    if dtype.kind == "b":
        values = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
    elif dtype.name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn"):
        values = np.array(
            draw(st.lists(st.sampled_from([0, 1]), min_size=size, max_size=size)), np.int8
        ).astype(dtype)
    else:
        data = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
        values = np.frombuffer(data, dtype)
    array = values.reshape(shape)
    if draw(st.booleans()) and array.ndim > 1:
        array = array.T
    if draw(st.booleans()) and array.ndim and dtype.isbuiltin == 1 and dtype.kind != "b":
        array = array.astype(dtype.newbyteorder(">"))
    return array


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(st.text(min_size=1, max_size=8), arrays(), max_size=6),
    st.integers(1, 4),
    st.sampled_from([1, 2, 64, 4096]),
)
def test_every_dtype_and_layout_reads_as_written(
    tmp_path_factory: pytest.TempPathFactory,
    values: dict[str, np.ndarray],
    shards: int,
    alignment: int,
) -> None:
    path = tmp_path_factory.mktemp("w") / "m"
    assert tb.save(path, values, shards=shards, alignment=alignment) == str(path)
    assert len(names_in(path.parent)) == shards + 1
    assert_reads(path, values)


def test_every_numeric_dtype(tmp_path: Path) -> None:
    values = {dtype.name: np.ones((2, 3), np.int8).astype(dtype) for dtype in NUMERIC}
    assert len(values) >= 15
    assert_reads(tb.save(tmp_path / "m", values), values)


def test_negative_narrow_integers(tmp_path: Path) -> None:
    if not hasattr(ml_dtypes, "int4"):
        pytest.skip("this ml_dtypes has no int4")
    values = {"x": np.array([-8, -1, 0, 7], ml_dtypes.int4)}
    assert_reads(tb.save(tmp_path / "m", values), values)
    assert (tmp_path / "m.data-00000-of-00001").read_bytes() == b"\x08\x0f\x00\x07"


def test_strings_of_every_kind(tmp_path: Path) -> None:
    tb.save(
        tmp_path / "m",
        {
            "bytes": b"a\0b\0",
            "str": "\u00e9",
            "objects": np.array([b"a", "\u20ac", b""], object),
            "fixed": np.array([[b"ab", b"c"]]),
            "text": np.array(["x", "yz"]),
            "none": np.zeros((0, 2), object),
            "long": np.array([b"x" * 300_000, b"y" * 200], object),
        },
    )
    with tb.open(tmp_path / "m", verify="full") as ck:
        assert ck["bytes"].read() == b"a\0b\0"
        assert ck["str"].read() == "\u00e9".encode()
        assert ck["objects"].read().tolist() == [b"a", "\u20ac".encode(), b""]
        assert ck["fixed"].read().tolist() == [[b"ab", b"c"]]
        assert ck["text"].read().tolist() == [b"x", b"yz"]
        assert ck["none"].shape == (0, 2)
        assert ck["long"].read().tolist() == [b"x" * 300_000, b"y" * 200]


def test_python_values(tmp_path: Path) -> None:
    values = {"int": 3, "float": 1.5, "bool": True, "list": [[1, 2], [3, 4]], "complex": 1j}
    assert_reads(tb.save(tmp_path / "m", values), values)


def test_large_and_strided_arrays(tmp_path: Path) -> None:
    table = np.arange(20_000_000, dtype=np.float32).reshape(4000, 5000)  # 80 MB
    values = {"table": table, "transposed": table.T, "every_other": table[::2, ::3]}
    assert_reads(tb.save(tmp_path / "m", values, alignment=4096), values)
    with tb.open(tmp_path / "m") as ck:
        assert all(stored.file_offset % 4096 == 0 for t in ck.values() for stored in t.slices)


def test_slices_are_stored_as_slices(tmp_path: Path) -> None:
    table = np.arange(60, dtype=np.int64).reshape(10, 6)
    with tb.Writer(tmp_path / "m", shards=3) as writer:
        writer.add_slices("rows", (10, 6), [((0, 0), table[:4]), ((4, 0), table[4:])])
        grid = [((r, c), table[r : r + 5, c : c + 3]) for r in (0, 5) for c in (0, 3)]
        writer.add_slices("grid", (10, 6), grid)
        writer.add_slices("whole", (10, 6), [((0, 0), table)])
        writer.add_slices(
            "streamed",
            (10, 6),
            [
                ((0, 0), (3, 6), (row[None] for row in table[:3])),
                ((3, 0), (7, 6), [table[3:]]),
            ],
            dtype=np.int64,
        )
        texts = np.array([b"a", b"b", b"c"], object)
        writer.add_slices("texts", (3,), [((2,), texts[2:]), ((0,), texts[:2])])
    with tb.open(tmp_path / "m", verify="full") as ck:
        for name in ("rows", "grid", "whole", "streamed"):
            np.testing.assert_array_equal(ck[name].read(), table)
        assert [(s.offset, s.shape) for s in ck["rows"].slices] == [
            ((0, 0), (4, 6)), ((4, 0), (6, 6)),
        ]  # fmt: skip
        assert len(ck["grid"].slices) == 4
        assert len(ck["whole"].slices) == 1
        assert ck["texts"].read().tolist() == [b"a", b"b", b"c"]


def test_chunks_are_streamed(tmp_path: Path) -> None:
    table = np.arange(40, dtype=np.float32).reshape(10, 4)
    with tb.Writer(tmp_path / "a") as writer:
        writer.add_chunks("x", (10, 4), np.float32, (table[i : i + 3] for i in range(0, 10, 3)))
        writer.add_chunks("s", (2,), object, [[b"a"], ["b"]])
    with tb.open(tmp_path / "a") as ck, tb.Writer(tmp_path / "b") as writer:
        writer.add_chunks("x", ck["x"].shape, ck["x"].dtype, ck["x"].chunks(4))
    assert_reads(tmp_path / "b", {"x": table})
    assert tb.load(tmp_path / "a")["s"].tolist() == [b"a", b"b"]


@pytest.mark.parametrize("index", GOLDEN, ids=lambda path: path.parent.name)
def test_golden_checkpoint_is_copied_with_slices_and_checksums(index: Path, tmp_path: Path) -> None:
    with tb.open(index) as ck:
        tb.save(tmp_path / "m", ck, alignment=1)
        with tb.open(tmp_path / "m", verify="full") as copy:
            assert list(copy) == list(ck)
            for name, tensor in ck.items():
                stored = [(s.offset, s.shape, s.nbytes, s.crc32c) for s in tensor.slices]
                copied = [(s.offset, s.shape, s.nbytes, s.crc32c) for s in copy[name].slices]
                assert copied == stored
                assert copy[name].stored_dtype == tensor.stored_dtype


@pytest.mark.parametrize("big_endian", [False, True])
def test_both_byte_orders_are_copied(big_endian: bool, tmp_path: Path) -> None:
    values = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3),
        "i": np.array(-5, np.int64),
        "c": np.array([1 + 2j, 3j]),
        "w": np.arange(24, dtype=np.float64).reshape(4, 6),
        "s": np.array([b"one", b"", b"three"], object),
    }
    bundle = Bundle(2, big_endian=big_endian)
    for name in "fic":
        bundle.add(name, values[name], shard=1)
    bundle.add_sliced("w", values["w"], tilings.cut((4, 6), 1, [2, 4]))
    bundle.add_strings("s", values["s"].tolist(), (3,))
    bundle.write(tmp_path / "a")
    with tb.open(tmp_path / "a") as ck:
        tb.save(tmp_path / "b", ck)
        assert_reads(tmp_path / "b", values)
        with tb.open(tmp_path / "b") as copy:
            assert [s.shape for s in copy["w"].slices] == [(4, 2), (4, 4)]


def test_variants_in_another_byte_order_are_refused(tmp_path: Path) -> None:
    for big_endian in (False, True):
        bundle = Bundle(big_endian=big_endian)
        bundle.add_variants("v", [b"serialized"], (1,))
        bundle.write(tmp_path / f"a{big_endian}")
    with tb.open(tmp_path / "aFalse") as ck:
        tb.save(tmp_path / "b", ck)
    with tb.open(tmp_path / "b", verify="full") as ck:
        assert ck["v"].read().tolist() == [b"serialized"]
    with tb.open(tmp_path / "aTrue") as ck, pytest.raises(tb.UnsupportedError, match="variant"):
        tb.save(tmp_path / "c", ck)


def test_v1_checkpoint_is_converted(tmp_path: Path) -> None:
    file = V1File()
    table = np.arange(24, dtype=np.float32).reshape(4, 6)
    file.add("ints", 3, np.array([[1, -2], [3, 4]], np.int32))
    file.add("floats", 1, table)
    file.add_sliced("slices", 1, table, tilings.cut((4, 6), 0, [1, 3]))
    file.add("strings", 7, np.array([b"a", b""], object))
    file.write(tmp_path / "v1")
    with tb.open(tmp_path / "v1") as ck:
        assert ck.format == 1
        tb.save(tmp_path / "v2", ck)
        values = {name: np.asarray(tensor.read(), tensor.dtype) for name, tensor in ck.items()}
        assert_reads(tmp_path / "v2", values)
        with tb.open(tmp_path / "v2") as copy:
            assert [s.shape for s in copy["slices"].slices] == [(1, 6), (3, 6)]


def test_corrupt_source_raises_and_leaves_no_file(tmp_path: Path) -> None:
    tb.save(tmp_path / "a", {"x": np.arange(100_000), "y": np.arange(3)})
    data = tmp_path / "a.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[5000] ^= 1
    data.write_bytes(content)
    with (
        tb.open(tmp_path / "a") as ck,
        pytest.raises(tb.CorruptionError, match=r"tensor 'x' at offset 0"),
    ):
        tb.save(tmp_path / "b", ck)
    assert names_in(tmp_path) == ["a.data-00000-of-00001", "a.index"]


# ---- Errors.


def test_existing_checkpoint_is_not_replaced(tmp_path: Path) -> None:
    tb.save(tmp_path / "m", {"x": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="will not replace") as caught:
        tb.save(tmp_path / "m", {"x": 2})
    assert isinstance(caught.value, tb.IOFailure)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_data_file_without_index_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="data-00000-of-00001"):
        tb.save(tmp_path / "m", {"x": 2})
    assert (tmp_path / "m.data-00000-of-00001").read_bytes() == b"precious"


def test_v1_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"precious")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="will not replace"):
            tb.save(tmp_path / "m", {"x": 2}, overwrite=overwrite)
    assert names_in(tmp_path) == ["m"]


@pytest.mark.parametrize("shards", [(1, 1), (1, 3), (3, 1), (2, 2)])
def test_overwriting_leaves_exactly_the_new_files(shards: tuple[int, int], tmp_path: Path) -> None:
    tb.save(tmp_path / "m", {"x": np.arange(5)}, shards=shards[0])
    tb.save(tmp_path / "other", {"x": np.arange(5)})
    tb.save(tmp_path / "m", {"y": np.arange(7)}, shards=shards[1], overwrite=True)
    assert_reads(tmp_path / "m", {"y": np.arange(7)})
    expected = [f"m.data-{i:05d}-of-{shards[1]:05d}" for i in range(shards[1])]
    assert names_in(tmp_path) == [*expected, "m.index", "other.data-00000-of-00001", "other.index"]


def test_open_arrays_keep_the_replaced_checkpoint(tmp_path: Path) -> None:
    tb.save(tmp_path / "m", {"x": np.zeros(1000)})
    with tb.open(tmp_path / "m") as ck:
        view = np.asarray(ck["x"])
        tb.save(tmp_path / "m", {"x": np.ones(1000)}, overwrite=True)
        assert not view.any()


def test_exception_leaves_no_file_and_the_old_checkpoint(tmp_path: Path) -> None:
    tb.save(tmp_path / "m", {"x": 1})
    with pytest.raises(RuntimeError), tb.Writer(tmp_path / "m", overwrite=True) as writer:
        writer.add("x", 2)
        raise RuntimeError
    assert writer.closed
    assert names_in(tmp_path) == ["m.data-00000-of-00001", "m.index"]
    assert tb.load(tmp_path / "m")["x"] == 1


def test_failed_call_discards_the_checkpoint(tmp_path: Path) -> None:
    writer = tb.Writer(tmp_path / "m")
    writer.add("x", 1)
    with pytest.raises(tb.ShapeMismatchError, match="2 rows, expected 3"):
        writer.add_chunks("y", (3, 2), np.float64, [np.zeros((2, 2))])
    assert names_in(tmp_path) == []
    with pytest.raises(ValueError, match=r"an earlier call failed.*2 rows, expected 3"):
        writer.add("z", 1)
    with pytest.raises(ValueError, match="nothing is written"):
        writer.close()


def test_writer_without_with_statement(tmp_path: Path) -> None:
    writer = tb.Writer(tmp_path / "m")
    writer.add("x", 1)
    assert not (tmp_path / "m.index").exists()
    writer.close()
    writer.close()
    writer.discard()
    assert tb.load(tmp_path / "m")["x"] == 1
    with pytest.raises(ValueError, match="is closed"):
        writer.add("y", 1)


def test_forgotten_writer_removes_its_files(tmp_path: Path) -> None:
    writer = tb.Writer(tmp_path / "m")
    writer.add("x", 1)
    assert names_in(tmp_path)
    del writer
    assert names_in(tmp_path) == []


def test_child_process_keeps_the_files_of_its_parent(tmp_path: Path) -> None:
    with tb.Writer(tmp_path / "m") as writer:
        writer.add("x", np.arange(3))
        child = os.fork()
        if child == 0:
            del writer
            os._exit(0)
        os.waitpid(child, 0)
    assert_reads(tmp_path / "m", {"x": np.arange(3)})


def test_child_process_cannot_write_to_the_files_of_its_parent(tmp_path: Path) -> None:
    with tb.Writer(tmp_path / "m") as writer:
        writer.add("x", np.arange(3))
        child = os.fork()
        if child == 0:
            failures = 0
            for call in (lambda: writer.add("y", 1), writer.close):
                try:
                    call()
                except ValueError as error:
                    failures += "belongs to another process" in str(error)
            os._exit(0 if failures == 2 else 1)
        assert os.waitpid(child, 0)[1] == 0
        writer.add("z", 2)
    assert_reads(tmp_path / "m", {"x": np.arange(3), "z": 2})


def test_working_directory_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    writer = tb.Writer("m")
    writer.add("x", 1)
    monkeypatch.chdir(tmp_path / "other")
    writer.close()
    assert writer.path == "m"
    assert_reads(tmp_path / "m", {"x": 1})


def test_discarded_writer_says_so(tmp_path: Path) -> None:
    writer = tb.Writer(tmp_path / "m")
    writer.add("x", 1)
    writer.discard()
    with pytest.raises(ValueError, match="it was discarded"):
        writer.close()
    with tb.Writer(tmp_path / "m") as writer:
        writer.discard()
    assert names_in(tmp_path) == []


def test_callback_that_discards_is_an_error(tmp_path: Path) -> None:
    tb.save(tmp_path / "a", {"x": np.arange(10)})
    writer = tb.Writer(tmp_path / "b")
    with (
        tb.open(tmp_path / "a") as ck,
        pytest.raises(ValueError, match="closed during the call"),
    ):
        writer.copy(dict(ck), progress=lambda _done, _total: writer.discard())
    assert names_in(tmp_path) == ["a.data-00000-of-00001", "a.index"]


def test_lists_of_strings_keep_zero_bytes(tmp_path: Path) -> None:
    tb.save(tmp_path / "m", {"x": [b"a\0", b"b"], "y": [["u"], ["\0"]]})
    assert tb.load(tmp_path / "m")["x"].tolist() == [b"a\0", b"b"]
    assert tb.load(tmp_path / "m")["y"].tolist() == [[b"u"], [b"\0"]]


@pytest.mark.parametrize("counts", [(4,), (2, 2), (3, 1), (1, 9)])
def test_blocks_with_more_rows_than_the_tensor_raise(
    tmp_path: Path, counts: tuple[int, ...]
) -> None:
    writer = tb.Writer(tmp_path / "m")
    with pytest.raises(tb.ShapeMismatchError, match="or more rows, expected 3"):
        writer.add_chunks("x", (3,), np.float64, [np.zeros(count) for count in counts])


def test_blocks_must_be_in_order(tmp_path: Path) -> None:
    writer = tb.Writer(tmp_path / "m")
    with pytest.raises(tb.ShapeMismatchError, match="begins at row 1, expected 0"):
        writer.add_chunks("x", (2,), np.float64, [(1, np.zeros(1)), (0, np.zeros(1))])


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("", 1, ValueError, "must have a name"),
        (3, 1, TypeError, "must be a str or bytes, not int"),
        ("x", np.zeros(2, np.longdouble), TypeError, "no type for the dtype"),
        ("x", np.zeros(2, "M8[s]"), TypeError, "no type for the dtype"),
        ("x", np.zeros(2, "f4,i4"), TypeError, "no type for the dtype"),
        ("x", None, TypeError, "type NoneType is not a string"),
        ("x", ["a", 1], TypeError, "type int is not a string"),
        ("x", np.ma.array([1, 2], mask=[0, 1]), TypeError, "no masked arrays"),
        ("x", np.array([b"a", 3], object), TypeError, "type int is not a string"),
        ("x", "\ud800", UnicodeEncodeError, "surrogates not allowed"),
    ],
)
def test_invalid_tensors(
    name: Any, value: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        tb.save(tmp_path / "m", {name: value})
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("second", ["add", "slices"])
@pytest.mark.parametrize("first", ["add", "slices"])
def test_name_used_twice(first: str, second: str, tmp_path: Path) -> None:
    writer = tb.Writer(tmp_path / "m")

    def add(way: str) -> None:
        if way == "add":
            writer.add("x", np.arange(2))
        else:
            writer.add_slices("x", (2,), [((0,), np.arange(1)), ((1,), np.arange(1))])

    add(first)
    with pytest.raises(ValueError, match="'x' was added before: a name can be used once"):
        add(second)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ([], "no slices"),
        ([((0, 0), np.zeros((2, 2))), ((1, 0), np.zeros((3, 2)))], "overlap"),
        ([((0, 0), np.zeros((2, 2)))], "in no slice"),
        ([((3, 0), np.zeros((2, 2)))], "not inside"),
        ([((0,), np.zeros(4))], "another rank"),
        ([((0, 0), np.zeros((0, 2)))], "empty"),
    ],
)
def test_invalid_slices(slices: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(tb.ShapeMismatchError, match=message), tb.Writer(tmp_path / "m") as writer:
        writer.add_slices("x", (4, 2), slices)
    assert names_in(tmp_path) == []


def test_slices_of_two_dtypes(tmp_path: Path) -> None:
    writer = tb.Writer(tmp_path / "m")
    with pytest.raises(TypeError, match="dtype float32, others float64"):
        writer.add_slices("x", (2,), [((0,), np.zeros(1)), ((1,), np.zeros(1, np.float32))])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"alignment": 3}, ValueError),
        ({"alignment": 0}, ValueError),
        ({"alignment": 1 << 31}, ValueError),
        ({"alignment": 64.0}, TypeError),
        ({"shards": 0}, ValueError),
        ({"shards": 1 << 20}, ValueError),
        ({"shards": "2"}, TypeError),
        ({"threads": 0}, ValueError),
    ],
)
def test_invalid_options(options: Any, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        tb.save(tmp_path / "m", {"x": 1}, **options)
    assert names_in(tmp_path) == []


def test_directory_as_destination(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a directory: append the name"):
        tb.save(tmp_path, {"x": 1})
    with pytest.raises(tb.IOFailure, match="make the directory"):
        tb.save(tmp_path / "a" / "b" / "m", {"x": 1})
    assert names_in(tmp_path) == []
    tb.save(tmp_path / "new" / "m", {"x": 1})
    assert tb.load(tmp_path / "new" / "m")["x"] == 1


def test_tensors_that_are_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be a mapping"):
        tb.save(tmp_path / "m", [("x", 1)])  # type: ignore[arg-type]


def test_threads_share_a_writer(tmp_path: Path) -> None:
    values = {f"t{i}": np.full(1000 * i + 1, i) for i in range(40)}
    with tb.Writer(tmp_path / "m", shards=3) as writer:
        threads = [threading.Thread(target=writer.add, args=item) for item in values.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert_reads(tmp_path / "m", values)


def test_two_writers_of_one_prefix(tmp_path: Path) -> None:
    first = tb.Writer(tmp_path / "m")
    second = tb.Writer(tmp_path / "m")
    first.add("x", 1)
    second.add("x", 2)
    second.close()
    with pytest.raises(FileExistsError):
        first.close()
    assert tb.load(tmp_path / "m")["x"] == 2
    assert names_in(tmp_path) == ["m.data-00000-of-00001", "m.index"]


def test_empty_checkpoint(tmp_path: Path) -> None:
    assert len(tb.open(tb.save(tmp_path / "m", {}))) == 0


KILLED = """
import os, sys
import numpy as np
import tensorbundle as tb
tb.save(sys.argv[1], {"x": np.full(50_000, int(sys.argv[2])), "y": b"text"}, overwrite=True)
print("done", flush=True)
"""


def test_killed_process_leaves_the_old_or_the_new_checkpoint(tmp_path: Path) -> None:
    """tests/cpp/write kills at each system call; this kills at moments of time."""
    tb.save(tmp_path / "m", {"x": np.full(50_000, -1), "y": b"text"})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for moment in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "m"), str(moment)],
            env=environment, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            child.wait(0.1 + moment * 0.02)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        assert child.stdout is not None
        child.stdout.close()
        with tb.open(tmp_path / "m", verify="full") as ck:
            values = np.unique(ck["x"].read())
            assert len(values) == 1
            assert values[0] in range(-1, moment + 1)
    tb.save(tmp_path / "m", {"x": 1}, overwrite=True)
    assert names_in(tmp_path) == ["m.data-00000-of-00001", "m.index"]


def test_incomplete_slice_is_not_recorded(tmp_path: Path) -> None:
    with tb.Writer(tmp_path / "m") as writer:
        assert writer._core is not None
        part = writer._core.begin(b"t", 1, (4,), None, None, 4)
        part.append(np.zeros(3, np.float32))
        with pytest.raises(ValueError, match="not complete"):
            part.finish()
        part.append(np.ones(1, np.float32))
        part.finish()
    assert tb.load(tmp_path / "m")["t"].tolist() == [0, 0, 0, 1]
