# SPDX-License-Identifier: Apache-2.0
"""The writers and readers of other formats agree with each other and with the libraries."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from craft.compare import same_bits
from craft.dtypes import KINDS, sample
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle.errors import CheckpointNotFoundError
from tensorbundle.formats import hdf5, npz, parquet, safetensors
from tensorbundle.formats.new_files import NewFiles

KIND_LIST = [kind for kind in KINDS.values() if not kind.is_substituted]


class Item:
    """A tensor to write, in blocks of two rows."""

    def __init__(self, name, array):
        self.name, self.array = name, array
        self.stored_rows = None
        self.dtype, self.shape = array.dtype, array.shape

    def blocks(self, max_bytes=1 << 23, splits_rows=False):
        if not self.shape:
            yield self.array
        else:
            yield from (self.array[i : i + 2] for i in range(0, self.shape[0], 2))


def ignore(nbytes):
    pass


def write(module, path, items, **options):
    options = {"overwrite": False, "advance": ignore} | options
    if module is safetensors:
        options.setdefault("max_bytes", None)
    return module.write(str(path), items, **options)


def modules():
    return [
        pytest.param(safetensors, "x.safetensors", id="safetensors"),
        pytest.param(npz, "x.npz", id="npz"),
        pytest.param(hdf5, "x.h5", id="hdf5"),
    ]


formats = pytest.mark.parametrize(("module", "file"), modules())


@pytest.fixture(autouse=True)
def needs_library(request):
    if "hdf5" in request.node.nodeid:
        pytest.importorskip("h5py")


part = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)
names = st.lists(
    part | st.sampled_from(["a", ".", "", "%", "%value", "..", "%25"]), max_size=4
).map("/".join)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
kinds = st.sampled_from(KIND_LIST)
items = st.dictionaries(
    names, st.tuples(kinds, shapes, st.integers(0, 9)).map(lambda row: sample(*row)), max_size=6
)


@formats
@settings(max_examples=60, deadline=None)
@given(items)
def test_written_tensors_are_read_back(module, file, arrays):
    chosen = [
        Item(name, array)
        for name, array in arrays.items()
        if module.unsupported_reason(name, array.dtype, array.shape) is None
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, file)
        assert write(module, path, chosen) == (path,)
        assert os.listdir(folder) == [file]
        with module.read(path) as found:
            assert set(found) == {item.name for item in chosen}
            assert not found.left_out
            for item in chosen:
                tensor = found[item.name]
                assert tensor.shape == item.shape and tensor.dtype == item.dtype
                assert same_bits(np.asarray(tensor), item.array)
                if item.shape:
                    chunks = [(start, np.array(chunk)) for start, chunk in tensor.chunks(2)]
                    assert [start for start, _ in chunks] == list(range(0, item.shape[0], 2))
                    whole = np.concatenate([chunk for _, chunk in chunks] or [item.array[:0]])
                    assert same_bits(whole, item.array)


@settings(max_examples=60, deadline=None)
@given(items)
def test_safetensors_file_equals_that_of_the_library(arrays):
    library = pytest.importorskip("safetensors.numpy")
    arrays = {
        name: array
        for name, array in arrays.items()
        if safetensors.unsupported_reason(name, array.dtype, array.shape) is None
    }
    expected = library.save(arrays, {"format": "pt"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.safetensors")
        write(safetensors, path, [Item(*pair) for pair in arrays.items()])
        assert path.read_bytes() == expected


@settings(max_examples=40, deadline=None)
@given(items)
def test_numpy_reads_the_npz_file(arrays):
    arrays = {
        k: a for k, a in arrays.items() if npz.unsupported_reason(k, a.dtype, a.shape) is None
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npz")
        write(npz, path, [Item(*pair) for pair in arrays.items()])
        with zipfile.ZipFile(path) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy") as member:
                    found = np.lib.format.read_array(io.BytesIO(member.read()))
                assert same_bits(
                    found.view(array.dtype) if found.dtype.kind == "V" else found, array
                )


def test_numpy_load_returns_names_and_scalars(tmp_path):
    write(
        npz, tmp_path / "x.npz", [Item("a/b", np.arange(6.0).reshape(3, 2)), Item("s", np.array(7))]
    )
    with np.load(tmp_path / "x.npz") as found:
        assert set(found) == {"a/b", "s"}
        assert found["s"].shape == () and found["s"] == 7
        assert same_bits(found["a/b"], np.arange(6.0).reshape(3, 2))


def test_h5py_reads_the_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    values = np.array([1, 2, -3], ml_dtypes.bfloat16)
    arrays = {
        "dense/kernel": np.arange(6, dtype=np.float32).reshape(3, 2),
        "dense/kernel/Adam": np.ones(3),
        "step": np.array(7, np.int64),
        "flag": np.array([True, False]),
        "half": values,
    }
    write(hdf5, tmp_path / "x.h5", [Item(*pair) for pair in arrays.items()])
    with h5py.File(tmp_path / "x.h5") as file:
        assert same_bits(file["dense/kernel/%value"][...], arrays["dense/kernel"])
        assert file["dense/kernel/%value"].attrs["name"] == "dense/kernel"
        assert same_bits(file["dense/kernel/Adam"][...], arrays["dense/kernel/Adam"])
        assert file["step"][()] == 7 and file["step"].shape == ()
        assert file["flag"][...].tolist() == [True, False]
        assert same_bits(file["half"][...].view(file["half"].attrs["dtype"]), values)


def test_reader_takes_files_of_the_libraries(tmp_path):
    """Big-endian and Fortran order, compression, chunks, and things that are not tensors."""
    table = np.arange(600.0).reshape(60, 10)
    arrays = {
        "big": table.astype(">f4"),
        "fortran": np.asfortranarray(table),
        "scalar": np.array(3, ">i2"),
        "empty": np.empty((0, 3), np.float32),
    }
    odd = {"text": np.array(["a"]), "record": np.zeros(2, [("x", "i4")])}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", objects=np.array([{}]), **arrays, **odd)
        with npz.read(str(tmp_path / "x.npz")) as found:
            assert set(found.left_out) == {"objects", "text", "record"}
            check_same(found, arrays)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, array in arrays.items():
            file[f"group/{name}"] = array
        file.create_dataset("chunked", data=table, chunks=(7, 3), compression="gzip")
        file["text"] = ["a"]
        file["link"] = h5py.ExternalLink("other.h5", "x")
        file["nothing"] = h5py.Empty("f4")
        file["record"] = odd["record"]
    with hdf5.read(str(tmp_path / "x.h5")) as found:
        assert set(found.left_out) == {"text", "nothing", "record", "link"}
        expected = {f"group/{name}": array for name, array in arrays.items()}
        check_same(found, expected | {"chunked": table})


def check_same(found, arrays):
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        native = array.astype(array.dtype.newbyteorder("="), order="C")
        assert found[name].dtype == native.dtype
        assert same_bits(np.asarray(found[name]), native)
        if array.ndim and array.size:
            chunks = [np.array(chunk) for _, chunk in found[name].chunks()]
            assert same_bits(np.concatenate(chunks), native)
            last = np.asarray(found[name][..., 1:2])
            assert same_bits(last, np.ascontiguousarray(native[..., 1:2]))


def test_shards_are_named_as_transformers_names_them(tmp_path):
    arrays = {f"t{i}": np.full(4, i, np.float32) for i in range(5)}
    arrays["large"] = np.arange(100, dtype=np.float32)
    items = [Item(*pair) for pair in arrays.items()]
    files = write(safetensors, tmp_path / "model.safetensors", items, max_bytes=32)
    names = [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]
    assert [os.path.basename(file) for file in files] == [*names, "model.safetensors.index.json"]
    assert sorted(os.listdir(tmp_path)) == sorted(map(os.path.basename, files))
    index = json.loads(Path(files[-1]).read_text())
    assert index["metadata"] == {"total_size": 480}
    assert index["weight_map"] == {
        "t0": names[0], "t1": names[0], "t2": names[1], "t3": names[1], "large": names[2],
        "t4": names[3],
    }  # fmt: skip
    with safetensors.read(files[-1]) as found:
        check_same(found, arrays)
    os.remove(files[0])
    with pytest.raises(CheckpointNotFoundError, match=names[0]):
        safetensors.read(files[-1])


def test_shards_equal_those_of_huggingface_hub(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    torch = pytest.importorskip("torch")
    sizes = [3, 9, 40, 1, 1, 8, 5, 5, 70, 2]
    items = [Item(f"t{i}", np.zeros(size, np.float32)) for i, size in enumerate(sizes)]
    state = {item.name: torch.from_numpy(item.array) for item in items}
    split = hub.split_torch_state_dict_into_shards(state, max_shard_size=40)
    files = write(safetensors, tmp_path / "model.safetensors", items, max_bytes=40)
    assert json.loads(Path(files[-1]).read_text())["weight_map"] == split.tensor_to_filename


def test_overwriting_removes_files_of_the_old_output(tmp_path):
    items = [Item(f"t{i}", np.full(4, i, np.float32)) for i in range(4)]
    path = tmp_path / "model.safetensors"
    for limit, count in [(16, 5), (32, 3), (None, 1), (16, 5)]:
        if count != 5 or os.listdir(tmp_path):
            with pytest.raises(FileExistsError):
                write(safetensors, path, items, max_bytes=limit)
        files = write(safetensors, path, items, max_bytes=limit, overwrite=True)
        assert len(files) == count
        assert sorted(map(str, tmp_path.iterdir())) == sorted(files)


HEADER = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


def safetensors_file(header, data=b"\0" * 8, size=None):
    text = header.encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        safetensors_file(HEADER, size=1 << 62),
        safetensors_file(HEADER, data=b"\0" * 7),
        safetensors_file(HEADER, data=b"\0" * 9),
        safetensors_file("[]", b""),
        safetensors_file("{", b""),
        safetensors_file("[" * 100_000, b""),
        safetensors_file(HEADER.replace("8]", "-8]")),
        safetensors_file(HEADER.replace("[2]", "[3]")),
        safetensors_file(HEADER.replace("[2]", "2")),
        safetensors_file(HEADER.replace("[2]", "[true]")),
        safetensors_file(HEADER.replace("[0,8]", "[8,0]")),
        safetensors_file(HEADER.replace('"F32"', "3")),
        safetensors_file(f'{{"a":{HEADER[5:-1]},"a":{HEADER[5:-1]}}}'),
        safetensors_file(f'{{"a":{HEADER[5:-1]},"b":{HEADER[5:-1]}}}'),
        safetensors_file('{"a":[]}', b""),
        safetensors_file('{"\\ud800":1}', b""),
    ],
)
def test_invalid_safetensors_file_raises(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(tb.CorruptionError, match=r"x\.safetensors"):
        safetensors.read(str(path))


def test_unknown_safetensors_type_is_left_out(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_file(HEADER.replace("F32", "F4").replace("[2]", "[16]")))
    with safetensors.read(str(path)) as found:
        assert not found and "F4" in found.left_out["a"]


@pytest.mark.parametrize("weights", ['{"a":"../x.safetensors"}', '{"a":3}', "[]", '{"a":""}'])
def test_invalid_safetensors_index_raises(tmp_path, weights):
    path = tmp_path / "x.safetensors.index.json"
    path.write_text(f'{{"weight_map":{weights}}}')
    with pytest.raises(tb.CorruptionError, match="index"):
        safetensors.read(str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_byte_of_npz_raises(tmp_path, save):
    path = tmp_path / "x.npz"
    save(path, a=np.random.default_rng(0).random(40_000))
    data = bytearray(path.read_bytes())
    data[300_000] ^= 1
    path.write_bytes(data)
    for use in (lambda tensor: list(tensor.chunks(100)), np.asarray, lambda tensor: tensor[3]):
        with npz.read(str(path)) as found, pytest.raises(tb.CorruptionError, match="npz"):
            use(found["a"])


@formats
def test_missing_and_foreign_files_raise(module, file, tmp_path):
    with pytest.raises((CheckpointNotFoundError, tb.IOFailure)):
        module.read(str(tmp_path / file))
    (tmp_path / file).write_bytes(b"something else")
    with pytest.raises((tb.CorruptionError, tb.IOFailure), match=file):
        module.read(str(tmp_path / file))


@formats
def test_failed_write_leaves_nothing(module, file, tmp_path):
    class Failing(Item):
        def blocks(self, max_bytes=0, splits_rows=False):
            yield self.array[:1]
            raise ZeroDivisionError

    folder = tmp_path / "new"
    with pytest.raises(ZeroDivisionError):
        write(module, folder / file, [Item("a", np.ones(3)), Failing("b", np.ones(3))])
    assert os.listdir(tmp_path) == []


@formats
def test_full_disk_raises_one_error_and_leaves_nothing(module, file, tmp_path):
    """A limit of the file size stands for the disk's."""
    code = f"""
import resource, signal, sys
import numpy as np
sys.path.insert(0, {str(Path(__file__).parent)!r})
import tensorbundle as tb
from tensorbundle.formats import {module.__name__.rpartition(".")[2]} as module
class Item:
    name, dtype, shape, stored_rows = "a", np.dtype(np.float64), (1 << 20,), None
    def blocks(self, max_bytes=0, splits_rows=False):
        yield from np.ones((8, 1 << 17))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
try:
    module.write({str(tmp_path / file)!r}, [Item()], overwrite=False, advance=lambda n: None,
                 **({{"max_bytes": None}} if module.__name__.endswith("safetensors") else {{}}))
except tb.IOFailure as error:
    print(type(error).__name__, error.errno)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "IOFailure 27\n"), done.stderr
    assert os.listdir(tmp_path) == []


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    for name in ["a.npz.tempstate5-tb", "a-00001-of-00002.safetensors.tempstate6-tb"]:
        (tmp_path / name).touch()
    with NewFiles(str(tmp_path / "a.npz"), overwrite=False) as living:
        names = os.listdir(tmp_path)
        assert "a.npz.tempstate5-tb" not in names and len(names) == 2
        with NewFiles(str(tmp_path / "a.npz"), overwrite=False) as second:
            with second.open() as file:
                file.write(b"second")
            second.publish()
        with living.open() as file:
            file.write(b"first")
        with pytest.raises(FileExistsError):
            living.publish()
    assert (tmp_path / "a.npz").read_bytes() == b"second"
    assert sorted(os.listdir(tmp_path)) == ["a-00001-of-00002.safetensors.tempstate6-tb", "a.npz"]
    write(safetensors, tmp_path / "a.safetensors", [])
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "a.safetensors"]


def test_destination_that_is_a_directory_or_in_none_raises(tmp_path):
    (tmp_path / "x.npz").mkdir()
    for path in (tmp_path / "x.npz", tmp_path / "absent" / "absent" / "x.npz"):
        with pytest.raises(tb.IOFailure):
            write(npz, path, [], overwrite=True)
    assert os.listdir(tmp_path) == ["x.npz"]


@pytest.mark.parametrize("tokens", [None, ["a", "b", "é"], [b"\xff", b"b"]])
def test_parquet_table(tmp_path, tokens):
    pq = pytest.importorskip("pyarrow.parquet")
    table = np.arange(20, dtype=np.float32).reshape(5, 4)
    source = None if tokens is None else parquet.Tokens(tokens)
    path = tmp_path / "t.parquet"
    parquet.write(str(path), Item("t", table), tokens=source, overwrite=False, advance=ignore)
    found = pq.read_table(path)
    assert np.array_equal(np.stack(found["vector"].to_numpy(zero_copy_only=False)), table)
    assert pq.ParquetFile(path).metadata.num_row_groups == 3
    if tokens is None:
        assert found["id"].to_pylist() == [0, 1, 2, 3, 4]
    else:
        assert found["token"].to_pylist() == [*tokens, *[None] * (5 - len(tokens))]


@pytest.mark.parametrize("kind", KIND_LIST, ids=lambda kind: kind.label)
def test_parquet_keeps_types(tmp_path, kind):
    pq = pytest.importorskip("pyarrow.parquet")
    if parquet.unsupported_reason("t", kind.dtype, ()) is not None:
        pytest.skip("no such type")
    table = sample(kind, (3, 2))
    path = tmp_path / "t.parquet"
    parquet.write(str(path), Item("t", table), tokens=None, overwrite=False, advance=ignore)
    column = pq.read_table(path)["vector"].combine_chunks().flatten()
    assert same_bits(column.to_numpy().reshape(3, 2), table)


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\n", [b"a", b"b"]),
        (b"a\n\r", [b"a"]),
        (b"a \n\xff\r\r\n", [b"a ", b"\xff\r"]),
    ],
)
def test_vocabulary_lines_follow_tensorflows_rules(tmp_path, content, tokens):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    assert list(parquet.Tokens(path)) == tokens
    # The same lines as those that the join uses.
    assert tb.remap_vocab(tokens, path).ids.tolist() == list(range(len(tokens)))


@pytest.mark.parametrize("content", [b"\n", b"a\n\nb\n", b"a\n\r\nb"])
def test_empty_line_of_vocabulary_raises(tmp_path, content):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(tb.CorruptionError, match="empty"):
        parquet.Tokens(path)


def test_wrong_tables_for_parquet_raise():
    tokens = parquet.Tokens(["a", "b"])
    for shape in [(3,), (3, 0), (1, 2), (), (2, 2, 2)]:
        with pytest.raises(tb.ShapeMismatchError):
            parquet.check_table(Item("t", np.zeros(shape)), tokens)


def test_absent_libraries_are_named(monkeypatch):
    for name in ("h5py", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"h5py.*tensorbundle\[convert\]"):
        hdf5.import_h5py()
    with pytest.raises(ImportError, match=r"pyarrow.*tensorbundle\[convert\]"):
        parquet.import_pyarrow()
