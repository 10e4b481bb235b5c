# SPDX-License-Identifier: Apache-2.0
"""``Tensor.torch`` and ``Checkpoint.state_dict``, with PyTorch and with a stand-in for it."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_stand_in
from craft import tilings
from craft.bundle import Bundle, shard_path
from craft.compare import mapped_file, same_bits
from craft.dtypes import KINDS, STRING

import tensorbundle as tb
from tensorbundle import torch_tensors

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
SOURCE = np.arange(4000, dtype=np.float32).reshape(100, 40)
LACKING = {"float8_e4m3b11fnuz", "int4", "uint4", "int2", "uint2", "float4_e2m1fn"}
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(params=["stand-in", "pytorch"])
def torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "pytorch":
        return pytest.importorskip("torch")
    module = torch_stand_in.create()
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Aligned and unaligned tensors, stored whole and in slices, and some without numbers."""
    bundle = Bundle()
    bundle.pad(64)
    bundle.add("t", SOURCE)
    bundle.add_sliced("sliced", SOURCE, tilings.cut(SOURCE.shape, 0, [30, 70])[::-1])
    bundle.add("step", np.int64(9))
    bundle.add("scalar", np.float32(7))
    bundle.add("empty", np.zeros((0, 3), np.float32))
    bundle.add_strings("words", [b"a", b"bc"], (2,))
    bundle.pad(1)
    bundle.add("odd", SOURCE)
    return bundle.write(tmp_path / "c")


def digest(prefix: Path) -> str:
    return hashlib.sha256(shard_path(prefix).read_bytes()).hexdigest()


def as_array(tensor: Any, torch: Any, dtype: Any) -> np.ndarray:
    """Returns the memory of a tensor as an array of a dtype."""
    dtype = np.dtype(dtype)
    if dtype.isbuiltin != 1:
        tensor = tensor.view(torch.int16 if dtype.itemsize == 2 else torch.uint8)
    return tensor.numpy().view(dtype)


def check_mapped(array: np.ndarray, prefix: Path, expected: bool = True) -> None:
    """Checks whether the memory is a private mapping of the checkpoint."""
    if sys.platform.startswith("linux"):
        assert (mapped_file(array) == (str(shard_path(prefix)), "rw-p")) == expected


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.label)
def test_every_type(kind: Any, torch: Any, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1 << min(kind.bits, 8), 640, np.uint8)
    source = values.view(kind.dtype).reshape(10, -1)
    bundle = Bundle()
    bundle.pad(64)
    bundle.add("t", source, number=kind.number)
    prefix = bundle.write(tmp_path / "c")
    before = digest(prefix)
    with tb.open(prefix) as ck:
        if kind.label in LACKING:
            with pytest.raises(TypeError, match=f"has no type {kind.label}.*'t'.*astype") as caught:
                ck["t"].torch()
            cure = re.search(r"torch\.as_tensor\(.*", str(caught.value))[0]
            if not hasattr(torch, "as_tensor"):
                return
            cured = eval(cure, {"torch": torch, "t": ck["t"]})
            np.testing.assert_array_equal(cured.numpy(), ck["t"].read().astype(cured.numpy().dtype))
            return
        tensor = ck["t"].torch()
        expected = ck["t"].read()
    assert tensor.dtype is getattr(torch, kind.plain)
    assert tuple(tensor.shape) == source.shape
    array = as_array(tensor, torch, kind.dtype)
    assert same_bits(array, expected)
    check_mapped(array, prefix)
    array.view(np.uint8)[:] = 1
    with tb.open(prefix, verify="full") as ck:
        assert same_bits(ck["t"].read(), expected)
        assert same_bits(as_array(ck["t"].torch(), torch, kind.dtype), expected)
    assert digest(prefix) == before


def test_type_of_newer_versions_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    types = ("uint16", "uint32", "uint64")
    monkeypatch.setitem(sys.modules, "torch", torch_stand_in.create(*types))
    tb.save(tmp_path / "c", {name: np.zeros(3, name) for name in types})
    with tb.open(tmp_path / "c") as ck:
        for name, wider in zip(types, ("int32", "int64", "int64"), strict=True):
            with pytest.raises(TypeError, match=rf"0\.0 has no type {name}.*astype\('{wider}'\)"):
                ck[name].torch()


@pytest.mark.parametrize("number", [STRING, 21, 20])
def test_types_without_numbers(number: int, torch: Any, tmp_path: Path) -> None:
    bundle = Bundle()
    if number == STRING:
        bundle.add_strings("t", [b"a"], (1,))
    elif number == 21:
        bundle.add_variants("t", [b"a"], (1,))
    else:
        bundle.add_payload("t", number, (3,), b"abc")
    message = r"no tensors of the type (string|variant|unknown \(20\)), which tensor 't' has"
    message += "$" if number == 20 else r": read it with t\.read\(\)$"
    with tb.open(bundle.write(tmp_path / "c")) as ck, pytest.raises(TypeError, match=message):
        ck["t"].torch()


INDICES = {
    "all": (..., True),
    "row": (3, True),
    "last row": (-1, True),
    "element": ((3, 4), True),
    "element by NumPy's integers": ((np.int64(3), np.array(4)), True),
    "rows": (np.s_[5:20], True),
    "columns": (np.s_[:, 5:20], True),
    "column": (np.s_[..., 0], True),
    "steps": (np.s_[5:90:7, ::3], True),
    "new axes": (np.s_[None, 3:5, None], True),
    "empty tuple": ((), True),
    "no rows": (np.s_[5:5], None),
    "backwards": (np.s_[::-1], False),
    "columns backwards": (np.s_[2, ::-2], False),
}


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("name", ["t", "odd"])
def test_index_equals_that_of_read(index: str, name: str, torch: Any, prefix: Path) -> None:
    position, mapped = INDICES[index]
    with tb.open(prefix) as ck:
        tensor = ck[name].torch(position)
        expected = np.asarray(ck[name].read(position))
    array = as_array(tensor, torch, np.float32)
    assert same_bits(array, expected)
    assert array.flags.writeable
    if mapped is not None:
        check_mapped(array, prefix, mapped and name == "t")
        array[...] = -1
    with tb.open(prefix, verify="full") as ck:
        assert same_bits(ck[name].read(), SOURCE)


def test_tensor_has_alignment_of_its_elements(torch: Any, tmp_path: Path) -> None:
    bundle = Bundle()
    values = np.arange(10)
    for before in (64, 8, 4, 2, 1):
        for each in (np.float32, np.complex128):
            bundle.pad(-sum(map(len, bundle.shards)) % 64 + before)
            bundle.add(f"{np.dtype(each)} {before}", values.astype(each))
    prefix = bundle.write(tmp_path / "c")
    with tb.open(prefix) as ck:
        for name, t in ck.items():
            array = as_array(t.torch(), torch, t.dtype)
            assert array.ctypes.data % t.dtype.itemsize == 0
            np.testing.assert_array_equal(array, values)
            check_mapped(array, prefix, int(name.split()[1]) % t.dtype.itemsize == 0)


def test_scalars_and_empty_tensors(torch: Any, prefix: Path) -> None:
    with tb.open(prefix) as ck:
        scalar, empty = ck["scalar"].torch(), ck["empty"].torch()
        check_mapped(as_array(scalar, torch, np.float32), prefix)
        assert tuple(ck["scalar"].torch(()).shape) == ()
        assert tuple(ck["empty"].torch(np.s_[:, 1]).shape) == (0,)
    assert tuple(scalar.shape) == ()
    assert same_bits(as_array(scalar, torch, np.float32), np.float32(7))
    assert tuple(empty.shape) == (0, 3)
    assert empty.dtype is torch.float32


@pytest.mark.parametrize(
    ("index", "mapped"),
    [(np.s_[35:60], True), (40, True), (np.s_[35:60:2, 3:9], True), (np.s_[20:40], False)],
)
def test_slices(index: Any, mapped: bool, torch: Any, prefix: Path) -> None:
    with tb.open(prefix) as ck:
        array = as_array(ck["sliced"].torch(index), torch, np.float32)
        whole = as_array(ck["sliced"].torch(), torch, np.float32)
    assert same_bits(array, SOURCE[index])
    assert same_bits(whole, SOURCE)
    check_mapped(array, prefix, mapped)
    check_mapped(whole, prefix, False)


@pytest.mark.parametrize("missing", ["file", "slice"])
def test_rest_of_tensor_may_be_missing(missing: str, torch: Any, tmp_path: Path) -> None:
    bundle = Bundle(num_shards=3)
    cut = tilings.cut(SOURCE.shape, 0, [30, 40, 30])
    stored = cut[:2] if missing == "slice" else cut
    bundle.add_sliced("t", SOURCE, stored, shard_of=lambda i: i)
    prefix = bundle.write(tmp_path / "c")
    if missing == "file":
        shard_path(prefix, 2, 3).unlink()
    error = tb.CorruptionError if missing == "slice" else tb.CheckpointNotFoundError
    with tb.open(prefix) as ck:
        for index in (np.s_[35:60], np.s_[20:40]):
            assert same_bits(as_array(ck["t"].torch(index), torch, np.float32), SOURCE[index])
        for index in (..., np.s_[60:80], 90):
            with pytest.raises(error):
                ck["t"].torch(index)


def test_invalid_arguments(torch: Any, prefix: Path) -> None:
    with tb.open(prefix) as ck:
        t = ck["t"]
        for index in ([1, 2], np.array([1]), True, "a", 1.0, SOURCE > 0):
            with pytest.raises(TypeError, match="an index consists of"):
                t.torch(index)
        for index in (100, -101, (0, 40), (0, 0, 0), (..., ...)):
            with pytest.raises(IndexError):
                t.torch(index)
        for dtype in ("float32", np.float32, np.dtype("float32"), 1):
            with pytest.raises(TypeError, match=r"dtype must be a torch\.dtype, not"):
                t.torch(dtype=dtype)
            with pytest.raises(TypeError, match=r"dtype must be a torch\.dtype, not"):
                ck.state_dict(dtype=dtype)
    for call in (t.torch, lambda: t.torch(0), lambda: t.torch(dtype=torch.float64), ck.state_dict):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_tensor_outlives_checkpoint(torch: Any, prefix: Path) -> None:
    with tb.open(prefix) as ck:
        tensors = [ck["t"].torch(), ck["t"].torch(), ck["t"].torch(np.s_[5:, 1])]
    arrays = [as_array(tensor, torch, np.float32) for tensor in tensors]
    arrays[0][...] = 0  # each has a mapping of its own
    assert same_bits(arrays[1], SOURCE)
    assert same_bits(arrays[2], SOURCE[5:, 1])


@pytest.mark.parametrize("io", ["pread", "direct"])
def test_copies_without_mapping(io: Any, torch: Any, prefix: Path) -> None:
    with tb.open(prefix, io=io) as ck:
        for index in (..., 4, np.s_[3:9, 2]):
            array = as_array(ck["t"].torch(index), torch, np.float32)
            assert same_bits(array, SOURCE[index])
            assert array.flags.writeable
            check_mapped(array, prefix, False)
        for name, tensor in ck.state_dict().items():
            array = as_array(tensor, torch, ck[name].dtype)
            assert same_bits(array, ck[name].read()), name
            check_mapped(array, prefix, False)


def test_copies_of_remote_checkpoint(torch: Any, prefix: Path) -> None:
    files = pytest.importorskip("fsspec").filesystem("memory")
    for path in prefix.parent.iterdir():
        files.pipe(f"/torch/{path.name}", path.read_bytes())
    with tb.open("memory://torch/c") as ck:
        for index in (..., 4, np.s_[3:9, 2]):
            assert same_bits(as_array(ck["t"].torch(index), torch, np.float32), SOURCE[index])
        state = ck.state_dict()
    assert list(state) == ["empty", "odd", "scalar", "sliced", "step", "t"]
    assert same_bits(as_array(state["odd"], torch, np.float32), SOURCE)


def test_copies_if_system_refuses_mapping(
    torch: Any, prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise tb.IOFailure("cannot map")

    monkeypatch.setattr(tb.Tensor, "_map_privately", refuse)
    with tb.open(prefix) as ck:
        assert same_bits(as_array(ck["t"].torch(), torch, np.float32), SOURCE)
        assert same_bits(as_array(ck.state_dict()["t"], torch, np.float32), SOURCE)


def test_conversions(torch: Any, prefix: Path) -> None:
    with tb.open(prefix) as ck:
        for index in (..., np.s_[3:9, 2], (1, 2)):
            wide = ck["t"].torch(index, dtype=torch.float64)
            assert wide.dtype is torch.float64
            assert same_bits(wide.numpy(), np.asarray(SOURCE[index], np.float64))
        half = ck["t"].torch(dtype=torch.bfloat16, device="cpu")
        assert half.dtype is torch.bfloat16
        for same in ({"dtype": torch.float32}, {"device": "cpu"}, {"device": torch.device("cpu")}):
            check_mapped(ck["t"].torch(**same).numpy(), prefix)
        meta = ck["t"].torch(np.s_[1:3], device="meta")
        assert meta.device.type == "meta"
        assert tuple(meta.shape) == (2, 40)


def test_copy_to_device(monkeypatch: pytest.MonkeyPatch, prefix: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch_stand_in.create())
    with tb.open(prefix) as ck:
        for index in (..., np.s_[3:9, 2]):
            tensor = ck["t"].torch(index, device="cuda:1")
            assert tensor.device.type == "cuda"
            assert same_bits(tensor.numpy(), SOURCE[index])


def test_checksums_of_what_is_read(torch: Any, prefix: Path) -> None:
    with tb.open(prefix) as ck:
        place = ck["t"].slices[0].file_offset
    data = bytearray(shard_path(prefix).read_bytes())
    data[place + 1000] ^= 1
    shard_path(prefix).write_bytes(data)
    with tb.open(prefix) as ck:
        ck["t"].torch()
        ck["t"].torch(device="cpu")
        ck.state_dict(["t"])
        with pytest.raises(tb.CorruptionError):
            ck["t"].torch(dtype=torch.float64)
        with pytest.raises(tb.CorruptionError):
            ck.state_dict(["t"], dtype=torch.float64)
    with tb.open(prefix, verify="none") as ck:
        ck["t"].torch(dtype=torch.float64)
    with tb.open(prefix, io="pread") as ck, pytest.raises(tb.CorruptionError):
        ck.state_dict(["t"])


USES = {
    "Tensor.torch": lambda ck: ck["t"].torch(),
    "Checkpoint.state_dict": lambda ck: ck.state_dict(),
}


@pytest.mark.parametrize("name", USES)
def test_missing_torch(name: str, prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # cannot be imported
    message = rf"^{name} needs torch .*'tensorbundle\[torch\]'"
    with tb.open(prefix) as ck, pytest.raises(ImportError, match=message):
        USES[name](ck)


def test_broken_torch(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("import package_that_torch_needs")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    message = "package_that_torch_needs"
    with tb.open(prefix) as ck, pytest.raises(ModuleNotFoundError, match=message):
        ck["t"].torch()


# ---- state_dict


def test_state_dict_equals_load(torch: Any, prefix: Path) -> None:
    before = digest(prefix)
    with tb.open(prefix) as ck:
        state = ck.state_dict()
        expected = ck.load()
        names = ["t", "odd", "t", "scalar"]
        assert list(ck.state_dict(names)) == ["t", "odd", "scalar"]
        assert list(ck.state_dict(iter(names[:2]))) == ["t", "odd"]
        assert list(ck.state_dict([b"t"])) == ["t"]
        assert ck.state_dict([]) == {}
    assert list(state) == [name for name in expected if name != "words"]
    arrays = {name: as_array(each, torch, expected[name].dtype) for name, each in state.items()}
    for name, array in arrays.items():
        assert same_bits(array, expected[name]), name
        if array.size:
            check_mapped(array, prefix, name not in ("odd", "sliced"))
        array[...] = 1
    assert digest(prefix) == before


def test_state_dict_maps_the_largest_tensors(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (30, 50, 10, 60, 20, 40)
    tensors = {f"t{size}": np.full(size, size, np.float32) for size in sizes}
    tb.save(tmp_path / "c", tensors)
    monkeypatch.setattr(torch_tensors, "_MAX_MAPPINGS", 3)
    with tb.open(tmp_path / "c") as ck:
        state = ck.state_dict(tensors)
    assert list(state) == list(tensors)
    for name, value in tensors.items():
        array = as_array(state[name], torch, np.float32)
        assert same_bits(array, value)
        check_mapped(array, tmp_path / "c", value.size > 30)


def test_state_dict_refuses_types_that_pytorch_lacks(torch: Any, tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("a", SOURCE)
    bundle.add("narrow", np.zeros(3, np.int8), number=29)
    bundle.add_strings("words", [b"a"], (1,))
    bundle.add_variants("variants", [b"a"], (1,))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        with pytest.raises(TypeError, match="no type int4, which tensor 'narrow' has"):
            ck.state_dict()  # a weight is never left out silently
        for name in ("words", "variants"):
            with pytest.raises(TypeError, match=f"which tensor '{name}' has: read it with t.read"):
                ck.state_dict(["a", name])
        assert list(ck.state_dict(["a"])) == ["a"]


def test_state_dict_names(torch: Any, prefix: Path) -> None:
    with tb.open(prefix) as ck:
        with pytest.raises(tb.TensorNotFoundError, match="absent"):
            ck.state_dict(["t", "absent"])
        with pytest.raises(TypeError, match="names must be a sequence of names"):
            ck.state_dict("t")


def test_state_dict_converts_floating_point_only(torch: Any, tmp_path: Path) -> None:
    tensors = {
        "bool": np.array([True, False]),
        "complex": np.ones(3, np.complex64),
        "double": np.arange(3.0),
        "half": np.arange(3, dtype=np.float16),
        "int": np.arange(3),
        "scalar": np.float32(3),
        "single": SOURCE,
    }
    tb.save(tmp_path / "c", tensors)
    with tb.open(tmp_path / "c") as ck:
        state = ck.state_dict(dtype=torch.float64)
        assert list(state) == list(ck)
        for kind in (torch.int32, torch.bool, torch.complex64):
            with pytest.raises(TypeError, match="dtype must be a floating-point type"):
                ck.state_dict(dtype=kind)
    for name, value in tensors.items():
        expected = value if name in ("bool", "complex", "int") else np.asarray(value, np.float64)
        assert same_bits(state[name].numpy(), expected), name


RENAMES: dict[str, tuple[Any, list[str]]] = {
    "mapping": ({"t": "w", "odd": "t"}, ["t", "scalar", "w"]),
    "expressions": ([("^t$", "a.t"), (r"(o)d", r"\1.")], ["o.d", "scalar", "a.t"]),
    "callable": (str.upper, ["ODD", "SCALAR", "T"]),
    "nothing": ([("x", "y")], ["odd", "scalar", "t"]),
    "mapping of a tensor that is not wanted": ({"step": "s"}, ["odd", "scalar", "t"]),
}


@pytest.mark.parametrize("name", RENAMES)
def test_state_dict_renames(name: str, torch: Any, prefix: Path) -> None:
    rename, expected = RENAMES[name]
    with tb.open(prefix) as ck:
        state = ck.state_dict(["odd", "scalar", "t"], rename=rename)
        assert list(state) == expected
        assert tuple(state[expected[0]].shape) == SOURCE.shape
        assert tuple(state[expected[1]].shape) == ()


def test_state_dict_refuses_renames(torch: Any, prefix: Path) -> None:
    with tb.open(prefix) as ck:
        for rename in ({"t": "odd"}, [("^t$", "odd")], lambda name: "same"):
            with pytest.raises(
                ValueError, match=r"would be named '\w+': '(odd|empty)' and '(t|odd)'"
            ):
                ck.state_dict(rename=rename)
        assert list(ck.state_dict(["t"], rename={"t": "odd"})) == ["odd"]
        with pytest.raises(tb.TensorNotFoundError, match="'absent'"):
            ck.state_dict(rename={"absent": "x"})
        with pytest.raises(TypeError, match="rename returned int"):
            ck.state_dict(rename=len)
        with pytest.raises(TypeError, match="rename must be"):
            ck.state_dict(rename="t")
        with pytest.raises(ValueError, match="not a regular expression"):
            ck.state_dict(rename=[("(", "")])


def object_graphs() -> list[str]:
    found = []
    for index in sorted(DATA.rglob("*.index")):
        with tb.open(index) as ck:
            if "_CHECKPOINTABLE_OBJECT_GRAPH" in ck:
                found.append(str(index.relative_to(DATA)))
    return found


@pytest.mark.parametrize("path", object_graphs())
def test_state_dict_of_object_graph(path: str, torch: Any) -> None:
    with tb.open(DATA / path) as ck:
        state = ck.state_dict()
        assert list(state) == [name for name, t in ck.items() if t.dtype != object]
        for name, tensor in state.items():
            assert same_bits(as_array(tensor, torch, ck[name].dtype), ck[name].read())
        with pytest.raises(TypeError, match="_CHECKPOINTABLE_OBJECT_GRAPH"):
            ck.state_dict(["_CHECKPOINTABLE_OBJECT_GRAPH"])


def test_names_of_object_graph(torch: Any) -> None:
    with tb.open(DATA / "keras_weights") as ck:
        key, full = next((k, f) for k, f in ck.full_names.items() if f.endswith("kernel"))
        path = key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
        assert path != key
        assert list(ck.state_dict([full])) == [full]
        for name in (key, path, full):
            assert "w" in ck.state_dict(rename={name: "w"})
            assert list(ck.state_dict([key, full][:1], rename={name: "w"})) == ["w"]
            assert list(ck.state_dict([full], rename=[(f"^{re.escape(name)}$", "w")])) == ["w"]
        # A name that is replaced by itself.
        assert list(ck.state_dict([key], rename={full: full})) == [full]
        # Expressions are tried with the full name first, and others keep the key.
        assert list(ck.state_dict([key], rename=[("/", ".")])) == [full.replace("/", ".")]
        state = ck.state_dict(rename=[("kernel", "weight")])
        assert full.replace("kernel", "weight") in state
        assert all(name.endswith("weight") or name in ck for name in state)
        with pytest.raises(ValueError, match=re.escape(f"'w': {key!r} and {full!r}")):
            ck.state_dict([key, full], rename={key: "w"})


def resident(path: Path) -> int:
    """Returns the bytes of a file's mappings that are in this process's memory."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) << 10
    return total


@linux
def test_state_dict_reads_nothing(torch: Any, tmp_path: Path) -> None:
    table = np.ones((1 << 20, 4), np.float32)
    tb.save(tmp_path / "c", {"a": table, "b": table})
    path = shard_path(tmp_path / "c")
    with tb.open(tmp_path / "c") as ck:
        state = ck.state_dict()
        assert resident(path) == 0
        as_array(state["a"], torch, np.float32)[::4] = 2
        assert resident(path) >= table.nbytes
        assert same_bits(ck["a"].read(), table)


TRAINING_SHAPES = {"0.weight": (32, 64), "0.bias": (32,), "2.weight": (10, 32), "2.bias": (10,)}


@pytest.mark.parametrize("alignment", [64, 1])
def test_training_leaves_file_unchanged(alignment: int, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    weights = {
        f"net/{name.replace('.', '/')}": rng.normal(size=shape).astype(np.float32)
        for name, shape in TRAINING_SHAPES.items()
    }
    prefix = tmp_path / "c"
    tb.save(prefix, {"a": np.uint8(1), **weights}, alignment=alignment)
    before = digest(prefix)
    ck = tb.open(prefix)
    state = ck.state_dict(weights, rename=[("^net/", ""), ("/", ".")])
    with torch.device("meta"):
        model = torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
        )
    model.load_state_dict(state, assign=True)
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() == state[name].data_ptr()
        check_mapped(parameter.detach().numpy(), prefix, alignment == 64)
    first = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(5, 64)).square().sum().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, first[name])
    assert digest(prefix) == before
    assert ck.verify().ok
    for name, value in weights.items():
        assert same_bits(ck[name].read(), value)
