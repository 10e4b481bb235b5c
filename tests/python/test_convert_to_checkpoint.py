# SPDX-License-Identifier: Apache-2.0
"""``convert`` from other formats to checkpoints."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from craft.bundle import Bundle
from craft.compare import same_bits
from craft.dtypes import KINDS, sample
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle.errors import LeftOutError

KIND_LIST = [
    kind for kind in KINDS.values() if not kind.is_substituted and not kind.label.startswith("q")
]
SUFFIXES = ["safetensors", "npz", "h5"]
suffixes = pytest.mark.parametrize("suffix", SUFFIXES)


@pytest.fixture(autouse=True)
def needs_library(request):
    if "h5" in request.node.nodeid:
        pytest.importorskip("h5py")


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
names |= st.lists(st.sampled_from(["a", "b", "%"]), min_size=1, max_size=3).map("/".join)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
arrays_by_name = st.dictionaries(
    names,
    st.tuples(st.sampled_from(KIND_LIST), shapes, st.integers(0, 9)).map(lambda row: sample(*row)),
    min_size=1,
    max_size=6,
)


@suffixes
@settings(max_examples=40, deadline=None)
@given(arrays_by_name)
def test_checkpoint_to_file_to_checkpoint(suffix, arrays):
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle()
        for name, array in arrays.items():
            bundle.add(name, array)
        file, result = os.path.join(folder, f"x.{suffix}"), os.path.join(folder, "result")
        report = tb.convert(bundle.write(Path(folder, "m")), file)
        back = tb.convert(file, result)
        assert (back.path, back.format, back.files) == (result, "checkpoint", ())
        assert back.tensors == report.tensors and back.nbytes == report.nbytes
        expected = {name: array for name, array in arrays.items() if name not in report.left_out}
        assert suffix == "safetensors" or expected == arrays
        with tb.open(result, verify="full") as found:
            assert found.keys() == expected.keys()
            for name, array in expected.items():
                assert same_bits(np.asarray(found[name]), array)


def write_file(path, arrays):
    """Writes a file with the library of the format."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    else:
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)


ARRAYS = {
    "layer.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "layer.bias": np.arange(3, dtype=np.float32),
    "step": np.array(7, np.int64),
}


@suffixes
def test_file_of_the_library_becomes_a_checkpoint(tmp_path, suffix):
    write_file(tmp_path / f"x.{suffix}", ARRAYS)
    tb.convert(
        tmp_path / f"x.{suffix}", tmp_path / "m", rename=[(r"\.", "/")],
        transpose={"*.weight": True}, cast={"layer.bias": "bfloat16"},
        partition={"layer.weight": 2}, shards=2, alignment=1,
    )  # fmt: skip
    with tb.open(tmp_path / "m", verify="full") as found:
        assert same_bits(np.asarray(found["layer/weight"]), ARRAYS["layer.weight"].T.copy())
        assert [part.shape for part in found["layer/weight"].slices] == [(2, 3), (2, 3)]
        bias = ARRAYS["layer.bias"].astype(ml_dtypes.bfloat16)
        assert same_bits(np.asarray(found["layer/bias"]), bias)
        assert found["step"].shape == () and int(found["step"]) == 7
    assert len(list(tmp_path.glob("m.data-*-of-00002"))) == 2


@suffixes
def test_file_becomes_another_format(tmp_path, suffix):
    write_file(tmp_path / f"x.{suffix}", ARRAYS)
    tb.convert(tmp_path / f"x.{suffix}", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as found:
        assert all(same_bits(found[name], array) for name, array in ARRAYS.items())


def test_sharded_safetensors_become_a_checkpoint(tmp_path):
    write_file(tmp_path / "x.safetensors", ARRAYS)
    report = tb.convert(tmp_path / "x.safetensors", tmp_path / "model.safetensors", max_bytes=50)
    tb.convert(report.files[-1], tmp_path / "m")
    with tb.open(tmp_path / "m") as found:
        assert all(same_bits(np.asarray(found[name]), array) for name, array in ARRAYS.items())


def test_objects_and_text_are_left_out(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(2), text=np.array("b"), wide=np.ones(2, np.longdouble))
    with pytest.raises(LeftOutError, match="text"):
        tb.convert(tmp_path / "x.npz", tmp_path / "m", strict=True)
    assert os.listdir(tmp_path) == ["x.npz"]
    report = tb.convert(tmp_path / "x.npz", tmp_path / "m")
    assert report.left_out["text"] == "strings"
    assert set(report.left_out) == {"text", "wide"}
    with tb.open(tmp_path / "m") as found:
        assert list(found) == ["a"]


@suffixes
def test_existing_checkpoint_is_kept_without_overwrite(tmp_path, suffix):
    write_file(tmp_path / f"x.{suffix}", ARRAYS)
    tb.convert(tmp_path / f"x.{suffix}", tmp_path / "m")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError):
        tb.convert(tmp_path / f"x.{suffix}", tmp_path / "m", drop="step")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    tb.convert(tmp_path / f"x.{suffix}", tmp_path / "m", drop="step", overwrite=True)
    with tb.open(tmp_path / "m") as found:
        assert list(found) == ["layer.bias", "layer.weight"]


def test_corrupt_npz_leaves_no_checkpoint(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.random.default_rng(0).random(40_000))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[300_000] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(tb.CorruptionError, match="npz"):
        tb.convert(tmp_path / "x.npz", tmp_path / "m")
    assert os.listdir(tmp_path) == ["x.npz"]


def test_directory_gets_the_name_of_the_file(tmp_path):
    write_file(tmp_path / "x.safetensors", ARRAYS)
    assert tb.convert(tmp_path / "x.safetensors", f"{tmp_path}/out/").path == str(
        tmp_path / "out" / "x"
    )


def test_update_adds_strings_to_a_new_checkpoint(tmp_path):
    write_file(tmp_path / "x.safetensors", ARRAYS)
    update = {"words": np.array([b"a", b"\0"], object), "note": b"b", "step": np.int64(8)}
    report = tb.convert(tmp_path / "x.safetensors", tmp_path / "m.index", update=update)
    assert not report.left_out and report.path == str(tmp_path / "m")
    with tb.open(tmp_path / "m") as found:
        assert found["words"].read().tolist() == [b"a", b"\0"]
        assert found["note"].read() == b"b" and int(found["step"]) == 8
        assert len(found) == 5


@suffixes
def test_rows_larger_than_a_block(tmp_path, suffix):
    """They are written, read and transposed in parts."""
    values = np.arange(2 * 3_000_000, dtype=np.float32).reshape(1, 2, 3_000_000)
    bundle = Bundle()
    bundle.add("a", values)
    prefix, file = bundle.write(tmp_path / "m"), tmp_path / f"x.{suffix}"
    tb.convert(prefix, file)
    tb.convert(file, tmp_path / "back")
    with tb.open(tmp_path / "back", verify="full") as found:
        assert same_bits(np.asarray(found["a"]), values)
    tb.convert(prefix, file, transpose={"a": (1, 2, 0)}, overwrite=True)
    tb.convert(file, tmp_path / "back", transpose={"a": (2, 0, 1)}, overwrite=True)
    with tb.open(tmp_path / "back", verify="full") as found:
        assert same_bits(np.asarray(found["a"]), values)


def test_compressed_npz_with_large_rows(tmp_path):
    values = np.arange(2 * 3_000_000, dtype=np.float32).reshape(2, 3_000_000)
    np.savez_compressed(tmp_path / "x.npz", a=values)
    tb.convert(tmp_path / "x.npz", tmp_path / "m")
    with tb.open(tmp_path / "m", verify="full") as found:
        assert same_bits(np.asarray(found["a"]), values)


@pytest.mark.parametrize("name", ["m.npy", "m.safetensor", "m.hd5", "m.NPZ"])
def test_a_misspelled_suffix_is_not_a_prefix(tmp_path, name):
    np.savez(tmp_path / "x.npz", a=np.arange(3))
    with pytest.raises(ValueError, match=r"selects no format.*to=, 'checkpoint' for the prefix"):
        tb.convert(tmp_path / "x.npz", tmp_path / name)
    tb.convert(tmp_path / "x.npz", tmp_path / name, to="checkpoint")
    assert (tmp_path / f"{name}.index").exists()


@pytest.mark.parametrize("name", ["m", "model.ckpt", "model.ckpt-10", "m-0.5", "m.v2", "m.pt"])
def test_any_other_suffix_is_part_of_a_prefix(tmp_path, name):
    np.savez(tmp_path / "x.npz", a=np.arange(3))
    tb.convert(tmp_path / "x.npz", tmp_path / name)
    assert (tmp_path / f"{name}.index").exists()
