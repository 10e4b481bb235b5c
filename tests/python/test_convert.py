# SPDX-License-Identifier: Apache-2.0
"""``convert`` from checkpoints to other formats and back."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from craft import user
from craft.bundle import Bundle
from craft.compare import same_bits
from craft.dtypes import KINDS, sample

import tensorbundle as tb
from tensorbundle.errors import LeftOutError
from tensorbundle.formats import hdf5, npz, safetensors

READERS = {"safetensors": safetensors.read, "npz": npz.read, "h5": hdf5.read}
# What safetensors' library writes.
SAFETENSORS = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("half", "float", "double", "complex64", "bfloat16"),
    *("float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz"),
    *("qint8", "quint8", "qint16", "quint16", "qint32"),
}


@pytest.fixture(params=list(READERS))
def suffix(request):
    if request.param == "h5":
        pytest.importorskip("h5py")
    return request.param


def model(folder, **arrays):
    bundle = Bundle()
    arrays = arrays or {
        "dense/kernel": np.arange(12, dtype=np.float32).reshape(4, 3),
        "dense/kernel/Adam": np.ones((4, 3), np.float32),
        "step": np.array(7, np.int64),
    }
    for name, array in arrays.items():
        bundle.add(name, array)
    return bundle.write(folder / "model")


def read(path):
    """Returns the arrays of a file."""
    with READERS[str(path).rpartition(".")[2]](str(path)) as found:
        return {name: np.array(tensor) for name, tensor in found.items()}


def test_every_dtype_and_shape_is_written(tmp_path, suffix):
    bundle, expected, left_out = Bundle(), {}, set()
    for kind in KINDS.values():
        for shape in [(), (1,), (3, 4), (0, 2), (2, 1, 5)]:
            name, array = f"{kind.label}{shape}", sample(kind, shape)
            bundle.add(name, array, number=kind.number)
            is_stored = not kind.is_substituted
            if suffix == "safetensors":
                is_stored &= kind.label in SAFETENSORS
            if is_stored:
                expected[name] = array
            else:
                left_out.add(name)
    sliced = np.arange(12.0).reshape(4, 3)
    bundle.add_sliced("sliced", sliced, [((2, 2), (0, 3)), ((0, 2), (0, 3))])
    expected["sliced"] = sliced
    path = tmp_path / f"x.{suffix}"
    report = tb.convert(bundle.write(tmp_path / "m"), path)
    found = read(path)
    assert found.keys() == expected.keys()
    assert all(same_bits(found[name], array) for name, array in expected.items())
    assert set(report.left_out) == left_out
    assert report.tensors == len(expected)
    assert report.nbytes == sum(array.nbytes for array in expected.values())
    assert report.files == (str(path),) and report.path == str(path)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    "boxes",
    [
        [((3, 3), (0, 4)), ((0, 1), (0, 4)), ((1, 2), (0, 4))],
        [((0, 6), (2, 2)), ((0, 6), (0, 2))],
        [((0, 4), (0, 3)), ((0, 4), (3, 1)), ((4, 2), (0, 4))],
    ],
    ids=["rows", "columns", "grid"],
)
def test_slices_are_merged(tmp_path, suffix, boxes, big_endian):
    table = np.arange(24, dtype=np.float32).reshape(6, 4)
    bundle = Bundle(2, big_endian=big_endian)
    bundle.add("first", np.arange(5))
    bundle.add_sliced("table", table, boxes, shard_of=lambda index: index % 2)
    tb.convert(bundle.write(tmp_path / "m"), tmp_path / f"x.{suffix}")
    found = read(tmp_path / f"x.{suffix}")
    assert same_bits(found["table"], table)
    assert same_bits(found["first"], np.arange(5))


def test_what_no_format_stores_is_left_out(tmp_path, suffix):
    bundle = Bundle()
    bundle.add("kept", np.arange(3.0))
    bundle.add_strings("words", [b"a"], (1,))
    bundle.add_strings("_CHECKPOINTABLE_OBJECT_GRAPH", [b""], ())
    bundle.add(b"\xff", np.arange(3.0))
    prefix = bundle.write(tmp_path / "m")
    path = tmp_path / f"x.{suffix}"
    for dry_run in (False, True):
        with pytest.raises(LeftOutError, match="words") as caught:
            tb.convert(prefix, path, strict=True, dry_run=dry_run)
        assert set(caught.value.left_out) == {"words", "\udcff", "_CHECKPOINTABLE_OBJECT_GRAPH"}
        assert not path.exists()
    report = tb.convert(prefix, path)
    assert report.left_out == {
        "words": "strings",
        "\udcff": "its name is not UTF-8",
        "_CHECKPOINTABLE_OBJECT_GRAPH": "the object graph",
    }
    assert "left out: 'words': strings" in str(report)
    assert list(read(path)) == ["kept"]
    drop = ["words", "_CHECKPOINTABLE_OBJECT_GRAPH", "\udcff"]
    assert not tb.convert(prefix, path, drop=drop, strict=True, overwrite=True).left_out


def test_cast_that_helps_is_named(tmp_path):
    prefix = model(tmp_path, a=np.ones(2, np.complex128), b=np.ones(2, ml_dtypes.int4))
    path = tmp_path / "x.safetensors"
    left_out = tb.convert(prefix, path).left_out
    assert 'cast={"complex128": "complex64"}' in left_out["a"]
    assert 'cast={"int4": "int8"}' in left_out["b"]
    cast = {"complex128": "complex64", "int4": "int8"}
    report = tb.convert(prefix, path, cast=cast, overwrite=True)
    assert not report.left_out
    assert report.cast == {"a": ("complex128", "complex64"), "b": ("int4", "int8")}
    assert {name: array.dtype for name, array in read(path).items()} == {
        "a": np.complex64, "b": np.int8,
    }  # fmt: skip


def test_reserved_name_of_safetensors_is_left_out(tmp_path):
    prefix = model(tmp_path, __metadata__=np.ones(2), a=np.ones(2))
    report = tb.convert(prefix, tmp_path / "x.safetensors")
    assert report.left_out == {"__metadata__": "safetensors reserves that name"}


def test_edits_are_applied(tmp_path, suffix):
    prefix = model(tmp_path)
    rules = [{"match": "(.*)/kernel", "name": r"\1.weight", "transpose": True, "cast": "bfloat16"}]
    report = tb.convert(prefix, tmp_path / f"x.{suffix}", slots=False, rules=rules)
    found = read(tmp_path / f"x.{suffix}")
    assert found.keys() == {"dense.weight", "step"}
    expected = np.arange(12, dtype=np.float32).reshape(4, 3).T.astype(ml_dtypes.bfloat16)
    assert same_bits(found["dense.weight"], np.ascontiguousarray(expected))
    assert report.renamed == {"dense/kernel": "dense.weight"}
    assert report.cast == {"dense.weight": ("float32", "bfloat16")}
    assert report.dropped == ("dense/kernel/Adam",)


def test_wrong_edits_raise_before_anything_is_written(tmp_path, suffix):
    prefix = model(tmp_path)
    with pytest.raises(ValueError, match="absent") as caught:
        tb.convert(
            prefix, tmp_path / f"x.{suffix}", rename={"absent": "x"}, transpose={"step": [1, 0]}
        )
    assert "step" in str(caught.value)
    assert not (tmp_path / f"x.{suffix}").exists()


def test_max_bytes_splits_a_checkpoint(tmp_path):
    prefix = model(tmp_path)
    report = tb.convert(prefix, f"{tmp_path}/out/", to="safetensors", max_bytes=60)
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = "model.safetensors.index.json"
    assert [os.path.basename(file) for file in report.files] == [*names, index]
    assert "3 files" in str(report)
    tb_index = json.loads((tmp_path / "out" / index).read_text())
    assert tb_index["weight_map"]["dense/kernel"] == names[0]


def test_dry_run_writes_nothing(tmp_path, suffix):
    prefix = model(tmp_path)
    before = sorted(os.listdir(tmp_path))
    report = tb.convert(prefix, tmp_path / f"x.{suffix}", dry_run=True)
    assert (report.tensors, report.files) == (3, ())
    assert sorted(os.listdir(tmp_path)) == before


def test_progress_reaches_the_total(tmp_path, suffix):
    calls = []
    tb.convert(model(tmp_path), tmp_path / f"x.{suffix}", progress=lambda *call: calls.append(call))
    assert calls[-1] == (104, 104)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_existing_file_is_kept_without_overwrite(tmp_path, suffix):
    prefix, path = model(tmp_path), tmp_path / f"x.{suffix}"
    path.write_text("old")
    with pytest.raises(FileExistsError, match=path.name) as caught:
        tb.convert(prefix, path)
    assert isinstance(caught.value, tb.IOFailure)
    assert path.read_text() == "old"
    tb.convert(prefix, path, overwrite=True)
    assert len(read(path)) == 3


def test_corrupt_tensor_raises_and_leaves_nothing(tmp_path, suffix):
    prefix = model(tmp_path)
    data = Path(f"{prefix}.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    for options in ({}, {"transpose": "*kernel"}, {"cast": {"float32": "float64"}}):
        with pytest.raises(tb.CorruptionError, match="dense/kernel"):
            tb.convert(prefix, tmp_path / "out" / f"x.{suffix}", **options)
        assert not (tmp_path / "out").exists()


def test_read_only_directory_raises(tmp_path, suffix):
    tb.convert(model(tmp_path), tmp_path / f"x.{suffix}")  # imports everything
    with user.normal_user() as home:
        prefix = model(home)
        folder = home / "locked"
        folder.mkdir(mode=0o500)
        with pytest.raises(tb.IOFailure, match="locked") as caught:
            tb.convert(prefix, folder / f"x.{suffix}")
        assert list(folder.iterdir()) == []
    assert caught.value.errno == errno.EACCES


@pytest.mark.parametrize(
    ("destination", "options", "message"),
    [
        ("x.bin", {}, "suffix"),
        ("x", {"to": "checkpoint"}, "use edit"),
        ("x", {"to": "zip"}, "to must be one of"),
        ("x.npz", {"max_bytes": 10}, "max_bytes is only for"),
        ("x.npz", {"name": "step"}, "name is only for"),
        ("x.npz", {"vocab": ["a"]}, "vocab is only for"),
        ("x.npz", {"partition": {"dense/kernel": 2}}, "partition is only for"),
        ("x.npz", {"shards": 2}, "shards is only for"),
        ("x.safetensors", {"max_bytes": 0}, "at least 1"),
        ("", {"to": "npz"}, "must be a path"),
        ("model.index", {"to": "npz"}, "is a file of the source"),
        ("model.data-00000-of-00001", {"to": "npz"}, "is a file of the source"),
    ],
)
def test_wrong_arguments_raise(tmp_path, destination, options, message):
    prefix = model(tmp_path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError, match=message):
        tb.convert(prefix, destination and tmp_path / destination, overwrite=True, **options)
    assert sorted(os.listdir(tmp_path)) == before


def test_absent_source_raises(tmp_path):
    for name in ("m", "m.npz", "m.safetensors", "m.safetensors.index.json"):
        with pytest.raises(FileNotFoundError):
            tb.convert(tmp_path / name, tmp_path / "out.npz")


def test_directories_get_a_file_name(tmp_path):
    prefix = model(tmp_path)
    assert tb.convert(prefix, tmp_path, to="npz").path == str(tmp_path / "model.npz")
    assert tb.convert(prefix, f"{tmp_path}/out/", to="safetensors").path == str(
        tmp_path / "out" / "model.safetensors"
    )


MEMORY = """
import re, sys
from pathlib import Path
import numpy, ml_dtypes
import tensorbundle as tb
from tensorbundle import conversion
conversion._import_libraries(sys.argv[3])
def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]) << 10
before, peak = anonymous(), 0
def progress(done, total):
    global peak
    peak = max(peak, anonymous() - before)
tb.convert(sys.argv[1], sys.argv[2], to=sys.argv[3], progress=progress)
print(peak)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("target", ["safetensors", "npz", "hdf5", "parquet"])
def test_memory_does_not_depend_on_the_size_of_the_tensor(tmp_path, target):
    library = {"hdf5": "h5py", "parquet": "pyarrow"}.get(target)
    if library is not None:
        pytest.importorskip(library)
    rows = 240 << 10  # 240 MB
    prefix = model(tmp_path, emb=np.ones((rows, 256), np.float32))
    command = [sys.executable, "-c", MEMORY, prefix, tmp_path / "x", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 96 << 20


def table(folder):
    values = np.arange(20, dtype=np.float32).reshape(5, 4)
    prefix = model(folder, emb=values, bias=np.ones(3), step=np.array(1))
    (folder / "vocab.txt").write_text("a\nb\né\n", encoding="utf-8")
    return prefix, values


def test_embedding_table_becomes_parquet(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    prefix, values = table(tmp_path)
    report = tb.convert(prefix, tmp_path / "x.parquet", vocab=tmp_path / "vocab.txt")
    assert (report.tensors, report.nbytes, dict(report.left_out)) == (1, 80, {})
    found = pq.read_table(tmp_path / "x.parquet")
    assert found["token"].to_pylist() == ["a", "b", "é", None, None]
    assert found["vector"].to_pylist() == values.tolist()


def test_table_for_parquet_is_chosen_by_name(tmp_path):
    pytest.importorskip("pyarrow")
    prefix = model(tmp_path)
    path = tmp_path / "x.parquet"
    with pytest.raises(ValueError, match=r"2 tensors have rank 2.*'dense/kernel', 'dense/kernel/A"):
        tb.convert(prefix, path)
    with pytest.raises(tb.TensorNotFoundError, match="kernel"):
        tb.convert(prefix, path, name="kernel")
    with pytest.raises(ValueError, match="not among"):
        tb.convert(prefix, path, name="dense/kernel/Adam", slots=False)
    with pytest.raises(tb.ShapeMismatchError, match="rank 2"):
        tb.convert(prefix, path, name="step")
    with pytest.raises(tb.ShapeMismatchError, match="5 tokens"):
        tb.convert(prefix, path, name="dense/kernel", vocab=list("abcde"))
    with pytest.raises(ValueError, match=r'cast=\{"bfloat16": "float32"\}'):
        tb.convert(prefix, path, name="dense/kernel", cast={"float32": "bfloat16"})
    assert not path.exists()
    assert tb.convert(prefix, path, name="emb", rename={"dense/kernel": "emb"}).tensors == 1
    assert tb.convert(prefix, path, name="dense/kernel", overwrite=True).tensors == 1
    with pytest.raises(ValueError, match="cannot be converted"):
        tb.convert(path, tmp_path / "back")


def test_no_file_of_the_source_is_replaced(tmp_path: Path) -> None:
    """Also not one of several files of a source, or one under another name."""
    tb.save(tmp_path / "s", {"a": np.zeros(8, np.float32), "b": np.ones(8, np.float32)})
    shards = tb.convert(tmp_path / "s", tmp_path / "o.safetensors", max_bytes=40)
    assert len(shards.files) > 2
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "l.index")
    (tmp_path / "l.index").symlink_to(tmp_path / "s.index")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for source, target in [
        ("o.safetensors.index.json", "o.safetensors"),
        ("s", "link.safetensors"),
        ("s", "s.data-00000-of-00001"),
    ]:
        with pytest.raises(ValueError, match="is a file of the source"):
            tb.convert(tmp_path / source, tmp_path / target, to="safetensors", overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
