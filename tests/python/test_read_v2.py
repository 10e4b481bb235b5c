# SPDX-License-Identifier: Apache-2.0
"""V2 checkpoints: dtypes, shapes, index layouts, names, shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from craft import table
from craft.bundle import Bundle, shard_path
from craft.compare import same_bits, shows_a_file
from craft.dtypes import KINDS, STRING, VARIANT, Kind, sample
from craft.messages import TrackableObjectGraph

import tensorbundle as tb
from tensorbundle import dtypes


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.label)
@pytest.mark.parametrize("shape", [(3, 5), (), (0,), (2, 0, 3), (1,)], ids=str)
@pytest.mark.parametrize("lead", [0, 1])
def test_reads_every_dtype(tmp_path: Path, kind: Kind, shape: tuple[int, ...], lead: int) -> None:
    source = sample(kind, shape)
    bundle = Bundle()
    bundle.pad(lead)
    bundle.add("x", source, number=kind.number)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        t = ck["x"]
        assert (t.name, t.shape, t.dtype) == ("x", shape, kind.dtype)
        assert (t.ndim, t.size, t.nbytes) == (source.ndim, source.size, source.nbytes)
        assert t.error is None
        view = np.asarray(t)
        assert same_bits(view, source)
        widened = kind.is_substituted and view.dtype == np.int8
        assert widened or (shows_a_file(view) and not view.flags.writeable)
        owned = t.read()
        assert same_bits(owned, source)
        if shape:
            assert owned.flags.writeable
            assert owned.flags.aligned
            assert not shows_a_file(owned)
        if kind.is_substituted:
            assert t.stored_dtype == kind.label
        assert ck.verify().ok


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.label)
def test_tensorflow_api_reads_every_dtype(tmp_path: Path, kind: Kind) -> None:
    bundle = Bundle()
    source, scalar = sample(kind, (4, 3)), sample(kind, (), seed=2)
    bundle.add("x", source, number=kind.number)
    bundle.add("s", scalar, number=kind.number)
    reader = tb.load_checkpoint(str(bundle.write(tmp_path / "c")))
    assert reader.get_variable_to_dtype_map() == {"x": kind.dtype, "s": kind.dtype}
    assert reader.get_variable_to_shape_map() == {"x": [4, 3], "s": []}
    got = reader.get_tensor("x")
    assert same_bits(got, source)
    assert got.flags.writeable and got.flags.aligned
    got = reader.get_tensor("s")
    assert same_bits(got, scalar)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.label)
def test_swaps_big_endian_into_a_copy(tmp_path: Path, kind: Kind) -> None:
    source, scalar = sample(kind, (5, 3)), sample(kind, (), seed=1)
    bundle = Bundle(big_endian=True)
    bundle.add("x", source, number=kind.number)
    bundle.add("s", scalar, number=kind.number)
    bundle.add_sliced("p", source, [((2, 3), (0, 3)), ((0, 2), (0, 3))], number=kind.number)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(ck["x"], source)
        assert same_bits(ck["s"], scalar)
        assert same_bits(ck["p"], source)
        assert same_bits(ck["x"].read(), source)
        assert same_bits(ck["x"][1:4, 1], source[1:4, 1])
        assert same_bits(ck["p"][1:4, 1], source[1:4, 1])
        assert ck.verify().ok


def test_reads_big_endian_strings(tmp_path: Path) -> None:
    values = [b"", b"a\0b", b"x" * 300]
    bundle = Bundle(big_endian=True)
    bundle.add_strings("s", values, (3,))
    with tb.open(bundle.write(tmp_path / "c"), verify="full") as ck:
        assert np.asarray(ck["s"]).tolist() == values
        assert ck.verify().ok


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ([b"hello"], ()),
        ([b""], ()),
        ([], (0,)),
        ([], (2, 0)),
        ([b"", b"", b""], (3,)),
        ([b"a\0b", b"\xff\xfe", b"", b"\0"], (2, 2)),
        ([bytes([i % 256]) * i for i in range(400)], (20, 20)),
        ([b"x" * 3_000_000, b"y"], (2, 1)),
    ],
    ids=["scalar", "empty scalar", "none", "none 2-d", "all empty", "binary", "lengths", "large"],
)
def test_reads_strings(tmp_path: Path, values: list[bytes], shape: tuple[int, ...]) -> None:
    bundle = Bundle()
    bundle.pad(3)
    bundle.add_strings("s", values, shape)
    bundle.add_strings("after", [b"z"], (1,))
    prefix = bundle.write(tmp_path / "c")
    with tb.open(prefix) as ck:
        t = ck["s"]
        assert t.dtype == np.dtype(object)
        assert t.shape == shape
        got = np.asarray(t)
        assert got.shape == shape
        assert got.reshape(-1).tolist() == values
        assert got.dtype == np.dtype(object)
        assert all(type(value) is bytes for value in got.reshape(-1))
        assert ck["after"].read().tolist() == [b"z"]
        assert ck.verify().ok
    got = tb.load_variable(str(prefix), "s")
    if shape == ():
        assert type(got) is bytes
        assert got == values[0]
    else:
        assert got.reshape(-1).tolist() == values


def test_reads_old_string_layout(checkpoints: Path) -> None:
    with tb.open(checkpoints / "old_string_tensors" / "foo", verify="full") as ck:
        strings = [name for name in ck if ck[name].dtype == np.dtype(object)]
        assert strings
        for name in strings:
            values = np.asarray(ck[name]).reshape(-1).tolist()
            assert len(values) == ck[name].size
            assert all(isinstance(value, bytes) for value in values)
        assert ck.verify().ok


def test_variants_are_read_as_raw_bytes(tmp_path: Path) -> None:
    elements = [b"\x0a\x03abc\x12\x01z", b"", b"\xff" * 200]
    bundle = Bundle()
    bundle.add("a", np.arange(3.0))
    bundle.add_variants("v", elements, (3,))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        t = ck["v"]
        assert (t.shape, t.size) == ((3,), 3)
        assert "variant" in t.stored_dtype
        assert np.asarray(t).tolist() == elements
        assert same_bits(ck["a"], np.arange(3.0))
        assert ck.verify().ok


@pytest.mark.parametrize("kind", [table.NONE, table.SNAPPY], ids=["plain", "snappy"])
@pytest.mark.parametrize("restart_interval", [1, 3, 16, 10_000])
@pytest.mark.parametrize("block_size", [1, 100, 4096, table.BLOCK_SIZE])
def test_reads_every_index_layout(
    tmp_path: Path, kind: int, restart_interval: int, block_size: int
) -> None:
    bundle = Bundle()
    for i in range(300):
        bundle.add(f"layer_{i % 7}/kernel/part_{i:05d}", np.int32(i))
    prefix = bundle.write(
        tmp_path / "c", kind=kind, restart_interval=restart_interval, block_size=block_size
    )
    with tb.open(prefix) as ck:
        assert len(ck) == 300
        assert list(ck) == sorted(ck)
        assert [int(np.asarray(ck[name])) for name in ck] == [int(name[-5:]) for name in ck]


def test_reads_entry_larger_than_a_block(tmp_path: Path) -> None:
    bundle = Bundle()
    source = np.arange(20_000, dtype=np.int16)
    bundle.add_sliced("many", source, [((i, 1),) for i in range(20_000)])
    bundle.add("x" * 600_000, np.float32(1.5))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert len(ck) == 2
        assert same_bits(ck["many"], source)
        assert float(np.asarray(ck["x" * 600_000])) == 1.5


def test_reads_index_without_prefix_compression(tmp_path: Path) -> None:
    bundle = Bundle()
    for name in ("aa/b", "aa/c", "ab"):
        bundle.add(name, np.arange(2.0))
    index = bundle.table()
    index.blocks[0].body = table.encode_block(bundle.records(), share=False)
    bundle.write_shards(tmp_path / "c")
    (tmp_path / "c.index").write_bytes(index.encode().data)
    with tb.open(tmp_path / "c") as ck:
        assert list(ck) == ["aa/b", "aa/c", "ab"]


def test_reads_several_shards(tmp_path: Path) -> None:
    bundle = Bundle(num_shards=12)
    sources = {f"t{i:02d}": sample(KINDS[1], (i + 1, 3), seed=i) for i in range(40)}
    for i, (name, source) in enumerate(sources.items()):
        bundle.add(name, source, shard=(i * 5) % 12)
    prefix = bundle.write(tmp_path / "c")
    with tb.open(prefix) as ck:
        assert all(same_bits(ck[name], source) for name, source in sources.items())
        ((_, _, file, offset, nbytes, _),) = ck["t01"].slices
        assert Path(file).name == "c.data-00005-of-00012"
        assert (offset, nbytes) == (0, 24)
        assert ck.verify().ok


def test_data_order_may_differ_from_name_order(tmp_path: Path) -> None:
    bundle = Bundle()
    for name in ("z", "a", "m"):
        bundle.add(name, np.full(4, ord(name), np.uint16))
        bundle.pad(5)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert list(ck) == ["a", "m", "z"]
        assert {name: int(np.asarray(ck[name])[0]) for name in ck} == {"a": 97, "m": 109, "z": 122}


def test_two_names_may_share_data(tmp_path: Path) -> None:
    bundle = Bundle()
    entry = bundle.add("a", np.arange(6, dtype=np.int32))
    copied = type(entry)()
    copied.CopyFrom(entry)
    bundle.entries[b"b"] = copied
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(ck["a"], ck["b"])
        assert ck.verify().ok


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe/w", b"caf\xc3\xa9", b"\x00", b"\x00w\x00\x01", b"\x00\x01\x02\x03", b"a\x00b",
     b"\xed\xa0\x80", b"x" * 5000],
    ids=repr,
)  # fmt: skip
def test_accepts_names_of_arbitrary_bytes(tmp_path: Path, name: bytes) -> None:
    bundle = Bundle()
    bundle.add("plain", np.arange(3.0))
    bundle.add(name, np.arange(4, dtype=np.int8))
    bundle.add_sliced("sliced", np.arange(4.0), [((0, 2),), ((2, 2),)])
    text = name.decode("utf-8", "surrogateescape")
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert set(ck) == {"plain", "sliced", text}
        assert text in ck
        assert same_bits(ck[text], np.arange(4, dtype=np.int8))
        assert ck[text].name == text
        assert same_bits(ck["sliced"], np.arange(4.0))


def test_reads_tensor_beyond_4_gib(tmp_path: Path) -> None:
    offset = 5 * 2**30 + 3
    source = np.arange(1000, dtype=np.float32)
    bundle = Bundle()
    bundle.add("far", source).offset = offset
    bundle.shards[0].clear()
    prefix = bundle.write(tmp_path / "c")
    with shard_path(prefix).open("r+b") as file:
        file.seek(offset)
        file.write(source.tobytes())
    with tb.open(prefix) as ck:
        t = ck["far"]
        assert same_bits(t, source)
        assert same_bits(t.read(), source)
        assert same_bits(t[3:999:7], source[3:999:7])
        assert t.slices[0].file_offset == offset
        assert not t.aligned
        assert ck.verify(["far"]).ok


@pytest.mark.parametrize("io", ["auto", "mmap", "pread", "direct"])
@pytest.mark.parametrize("verify", ["none", "lazy", "full"])
def test_every_policy_returns_same_values(tmp_path: Path, io: str, verify: str) -> None:
    bundle = Bundle(num_shards=2)
    source = sample(KINDS[1], (70, 300))
    bundle.add("plain", source, shard=1)
    bundle.add_sliced("sliced", source, [((0, 30), (0, 300)), ((30, 40), (0, 300))])
    bundle.add_strings("s", [b"one", b""], (2,))
    with tb.open(bundle.write(tmp_path / "c"), io=io, verify=verify, threads=2) as ck:
        for name in ("plain", "sliced"):
            assert same_bits(ck[name], source)
            assert same_bits(ck[name].read(), source)
            assert same_bits(ck[name][20:40, 7:9], source[20:40, 7:9])
            if io == "pread":
                assert not shows_a_file(np.asarray(ck[name]))
        assert ck["s"].read().tolist() == [b"one", b""]


@pytest.mark.parametrize("change", ["producer 2", "no version", "unknown fields"])
def test_accepts_headers_of_other_writers(tmp_path: Path, change: str) -> None:
    bundle = Bundle()
    bundle.add("a", np.arange(3.0))
    if change == "producer 2":
        bundle.header.version.producer = 2
    elif change == "no version":
        bundle.header.ClearField("version")
    else:
        bundle.header = bundle.header.SerializeToString() + b"\x78\x05\x8a\x01\x03abc"
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(ck["a"], np.arange(3.0))


def test_skips_unknown_fields_and_dimension_names(tmp_path: Path) -> None:
    bundle = Bundle()
    entry = bundle.add("a", np.arange(3.0))
    entry.shape.dim[0].name = b"\xff\xfe not utf-8"
    bundle.entries[b"a"] = entry.SerializeToString() + b"\x78\x05\x8a\x01\x03abc"
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(ck["a"], np.arange(3.0))


def object_graph(bundle: Bundle) -> None:
    """Adds the tensors of a small object-based checkpoint and their graph, which has a cycle."""
    key = "model/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    bundle.add(key, np.arange(6.0))
    graph = TrackableObjectGraph()
    root, model, kernel = graph.nodes.add(), graph.nodes.add(), graph.nodes.add()
    root.children.add(node_id=1, local_name=b"model")
    model.children.add(node_id=2, local_name=b"kernel")
    model.children.add(node_id=0, local_name=b"back")
    kernel.attributes.add(
        name=b"VARIABLE_VALUE", full_name=b"dense/kernel", checkpoint_key=key.encode()
    )
    bundle.add_strings("_CHECKPOINTABLE_OBJECT_GRAPH", [graph.SerializeToString()], ())


def test_full_names_are_aliases(tmp_path: Path) -> None:
    bundle = Bundle()
    object_graph(bundle)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        key = "model/kernel/.ATTRIBUTES/VARIABLE_VALUE"
        assert set(ck) == {key, "_CHECKPOINTABLE_OBJECT_GRAPH"}
        assert "dense/kernel" in ck
        assert ck["dense/kernel"].name == key
        assert same_bits(ck["dense/kernel"], np.arange(6.0))
        assert "dense/bias" not in ck
        with pytest.raises(tb.TensorNotFoundError, match="dense/kernel"):
            ck["dense/kernels"]


def test_opens_saved_model_directory(tmp_path: Path) -> None:
    (tmp_path / "model" / "variables").mkdir(parents=True)
    bundle = Bundle()
    object_graph(bundle)
    bundle.write(tmp_path / "model" / "variables" / "variables")
    with tb.open(tmp_path / "model") as ck:
        assert same_bits(ck["dense/kernel"], np.arange(6.0))


def test_checkpoint_implements_mapping_protocol(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("emb", np.arange(3.0))
    bundle.add("bias", np.arange(2.0))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert list(ck.keys()) == ["bias", "emb"]
        assert [t.name for t in ck.values()] == ["bias", "emb"]
        assert {name: t.shape for name, t in ck.items()} == {"bias": (2,), "emb": (3,)}
        assert ck.get("nothing") is None
        with pytest.raises(tb.TensorNotFoundError) as caught:
            ck["emv"]
        assert "emb" in str(caught.value) and isinstance(caught.value, KeyError)
        with pytest.raises(TypeError):
            ck["emb"] = np.arange(3.0)  # type: ignore[index]


@pytest.mark.parametrize(("number", "bits"), [(29, 4), (31, 2)])
def test_narrow_integers_are_sign_extended_without_their_type(
    monkeypatch: pytest.MonkeyPatch, number: int, bits: int
) -> None:
    """As with an ml_dtypes that does not have the type."""
    monkeypatch.setitem(dtypes.SIGN_EXTENDED, number, bits)
    values = np.arange(-(1 << bits - 1), 1 << bits - 1, dtype=np.int8)
    stored = values & np.int8((1 << bits) - 1)
    dtypes.sign_extend(number, stored)
    assert stored.tolist() == values.tolist()


def test_load_variable_removes_one_output_number(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("x", np.array([1, 2], np.int32))
    prefix = bundle.write(tmp_path / "c")
    for name in ("x", "x:0", b"x:0"):
        assert tb.load_variable(prefix, name).tolist() == [1, 2]
    for name in ("x:1", "x:0:0"):
        with pytest.raises(tb.TensorNotFoundError):
            tb.load_variable(prefix, name)


def test_debug_string_has_a_line_for_each_tensor(tmp_path: Path) -> None:
    """Also for types without a name, and for names that are not UTF-8."""
    bundle = Bundle()
    bundle.add("scalar", np.float32(1))
    expected = [b"scalar (DT_FLOAT) []"]
    for number in range(-1, 40):
        name = b"t\xff%d" % number
        shape = (0, 1 << 40, 7)[: 1 + number % 3]
        if number == STRING:
            bundle.add_strings(name, [], shape)
        elif number == VARIANT:
            bundle.add_variants(name, [], shape)
        else:
            bundle.add_payload(name, number, shape, b"")
        label = dtypes.enum_name(number).encode()
        expected.append(b"%s (%s) [%s]" % (name, label, b",".join(b"%d" % n for n in shape)))
    reader = tb.load_checkpoint(bundle.write(tmp_path / "c"))
    assert reader.debug_string().splitlines() == sorted(expected)
    assert reader.debug_string().endswith(b"\n")
