# SPDX-License-Identifier: Apache-2.0
"""``align`` changes the offsets of the data and nothing else."""

from __future__ import annotations

import errno
import filecmp
import os
import random
from pathlib import Path

import numpy as np
import pytest
from craft import tilings, wire
from craft.bundle import Bundle, index_path, shard_path
from craft.compare import same_bits, shows_a_file
from craft.dtypes import KINDS, sample
from craft.specimen import TENSORS, specimen
from craft.v1 import V1File
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbundle as tb

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
GOLDEN = sorted(DATA.glob("*/*.index"))
LARGE = 10**6


def assert_aligned(path: str, alignment: int = 4096) -> None:
    with tb.open(path, verify="full") as ck:
        for tensor in ck.values():
            assert tensor.error is None
            for stored in tensor.slices:
                step = alignment if stored.nbytes >= LARGE else 64
                assert stored.file_offset % step == 0, (tensor, stored)
            view = tensor._core.view()
            if view is not None:
                assert tensor.aligned, tensor


def assert_same(before: str | Path, after: str | Path) -> None:
    """Requires equal names, dtypes, values, slices and shards of every tensor."""
    with tb.open(before) as old, tb.open(after) as new:
        assert list(old) == list(new)
        for name, tensor in old.items():
            other = new[name]
            assert other.stored_dtype == tensor.stored_dtype, name
            assert same_bits(other.read(), tensor.read()), name
            actual = [(s.offset, s.shape, s.file[len(new.path) :]) for s in other.slices]
            expected = [(s.offset, s.shape, s.file[len(old.path) :]) for s in tensor.slices]
            assert actual == expected, name


def check(source: str | Path, folder: Path, alignment: int = 4096) -> tb.AlignReport:
    """Aligns a checkpoint, compares it, and requires a second align to change nothing."""
    report = tb.align(source, folder / "aligned", alignment=alignment)
    assert_aligned(report.path, alignment)
    assert_same(source, report.path)
    again = tb.align(report.path, folder / "again", alignment=alignment)
    assert (again.moved, again.bytes_after) == (0, report.bytes_after)
    for name in sorted(os.listdir(folder)):
        if name.startswith("aligned."):
            other = folder / name.replace("aligned", "again", 1)
            assert filecmp.cmp(folder / name, other, shallow=False), name
    return report


@pytest.mark.parametrize("index", GOLDEN, ids=lambda path: path.parent.name)
def test_aligns_real_checkpoints(index: Path, tmp_path: Path) -> None:
    report = check(index, tmp_path)
    sizes = [path.stat().st_size for path in index.parent.glob(f"{index.stem}.data-*")]
    assert report.bytes_before == sum(sizes)


def everything(num_shards: int = 1, *, big_endian: bool = False) -> Bundle:
    """Returns misaligned tensors: every dtype, strings, slices and large tensors."""
    bundle = Bundle(num_shards, big_endian=big_endian)
    bundle.add("0/pad", np.array([True]))
    for at, kind in enumerate(KINDS.values()):
        if kind.label in ("string", "variant"):
            continue
        for shape in ((), (0,), (7, 3)):
            name = f"{kind.label}/{shape}"
            array = sample(kind, shape)
            bundle.add(name, array, number=kind.number, shard=at % num_shards)
    words = [b"", b"word", b"\xff\x00", bytes(300)]
    bundle.add_strings("strings", words, (2, 2), shard=num_shards - 1)
    bundle.add_strings("strings/none", [], (0, 3))
    long = [b"x" * 600_000, b"", b"y" * 300_000]  # several chunks
    bundle.add_strings("strings/long", long, (3,))
    if not big_endian:
        bundle.add_variants("variants", [b"\x0a\x01T", b"", bytes(280_000)], (3,))
    bundle.add(b"not \xff utf-8 \x00", np.arange(3))
    rng = np.random.default_rng(5)
    bundle.add("large", rng.random((1000, 250), np.float32), shard=num_shards - 1)
    table = rng.random((1500, 200), np.float32)
    rows = tilings.cut(table.shape, 0, [1000, 1, 499])
    bundle.add_sliced("rows", table, rows, shard_of=lambda i: i % num_shards, short=True)
    boxes = tilings.guillotine((30, 20), 12, random.Random(5))
    bundle.add_sliced("boxes", table[:30, :20], boxes, shard_of=lambda i: i % num_shards)
    return bundle


@pytest.mark.parametrize("alignment", [64, 4096, 1 << 20])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_aligns_every_dtype_and_layout(num_shards: int, alignment: int, tmp_path: Path) -> None:
    source = everything(num_shards).write(tmp_path / "c", block_size=300)
    report = check(source, tmp_path, alignment)
    assert report.moved > 20
    assert report.bytes_after > report.bytes_before


def test_preserves_big_endian_byte_order(tmp_path: Path) -> None:
    source = everything(big_endian=True).write(tmp_path / "c")
    report = tb.align(source, tmp_path / "aligned")
    assert_same(source, report.path)
    with tb.open(report.path, verify="full") as ck:
        assert ck._core.big_endian


def test_copies_unknown_dtypes(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("pad", np.array([1], np.int8))
    bundle.add_payload("x", 99, (2, 2), b"anything")
    bundle.add_payload("resource", 20, (), b"")
    report = tb.align(bundle.write(tmp_path / "c"), tmp_path / "aligned")
    with tb.open(report.path) as ck:
        ((_, _, file, offset, nbytes, _),) = ck["x"].slices
        assert (offset, nbytes) == (64, 8)
        assert Path(file).read_bytes()[64:] == b"anything"


def test_preserves_unknown_fields(tmp_path: Path) -> None:
    bundle = specimen()
    unknown = wire.bytes_field(77, b"from the future")
    bundle.header = bundle.header.SerializeToString() + unknown
    bundle.entries[b"b"] = bundle.entries[b"b"].SerializeToString() + unknown
    report = tb.align(bundle.write(tmp_path / "c"), tmp_path / "aligned")
    assert index_path(Path(report.path)).read_bytes().count(unknown) == 2
    assert_same(tmp_path / "c", report.path)


def test_drops_bytes_outside_the_tensors(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.pad(5000)
    bundle.add("a", np.arange(3))
    bundle.pad(70)
    bundle.add("b", np.arange(4))
    bundle.pad(9000)
    report = tb.align(bundle.write(tmp_path / "c"), tmp_path / "aligned")
    assert (report.slices, report.moved) == (2, 2)
    assert report.bytes_after == 64 + 32
    assert_same(tmp_path / "c", report.path)


def test_large_tensors_become_mappable(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("pad", np.array([1], np.int8))
    bundle.add("table", np.arange(500_000, dtype=np.float32).reshape(5000, 100))
    source = bundle.write(tmp_path / "c")
    with tb.open(source) as ck:
        assert not ck["table"].aligned
    with tb.open(tb.align(source, tmp_path / "aligned").path) as ck:
        assert ck["table"].aligned
        assert shows_a_file(np.asarray(ck["table"]))


arrays = st.builds(
    lambda n, kind: np.arange(n).astype(kind),
    st.integers(0, 300),
    st.sampled_from([np.int8, np.int16, np.float32, np.float64, np.complex128]),
)


@settings(max_examples=60, deadline=None)
@given(
    tensors=st.dictionaries(st.binary(min_size=1, max_size=6), arrays, max_size=12),
    pads=st.lists(st.integers(0, 100), min_size=12, max_size=12),
    alignment=st.sampled_from([64, 128, 4096]),
)
def test_aligns_any_small_checkpoint(tmp_path_factory, tensors, pads, alignment) -> None:
    folder = tmp_path_factory.mktemp("any")
    bundle = Bundle()
    for (name, array), pad in zip(tensors.items(), pads, strict=False):
        bundle.add(name, array)
        bundle.pad(pad)
    check(bundle.write(folder / "c"), folder, alignment)


def test_accepts_every_form_of_source_path(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    prefix = specimen().write(folder / "model.ckpt-7")
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    sources = [
        prefix,
        str(prefix),
        os.fsencode(prefix),
        folder,
        index_path(prefix),
        shard_path(prefix),
    ]
    for number, source in enumerate(sources):
        report = tb.align(source, tmp_path / f"out{number}")
        assert report.path == str(tmp_path / f"out{number}")
        assert_same(prefix, report.path)


def test_accepts_every_form_of_destination_path(tmp_path: Path) -> None:
    source = specimen().write(tmp_path / "c")
    (tmp_path / "there").mkdir()
    destinations = {
        str(tmp_path / "1" / "x"): tmp_path / "1" / "x",  # creates the directory
        os.fsencode(tmp_path / "2"): tmp_path / "2",
        tmp_path / "3.index": tmp_path / "3",
        tmp_path / "4.data-00000-of-00001": tmp_path / "4",
        tmp_path / "there": tmp_path / "there" / "c",
        f"{tmp_path}/missing/": tmp_path / "missing" / "c",
        tmp_path / "[5]*?": tmp_path / "[5]*?",
        os.fsdecode(os.fsencode(tmp_path) + b"/\xff"): os.fsdecode(
            os.fsencode(tmp_path) + b"/\xff"
        ),
    }
    for destination, expected in destinations.items():
        report = tb.align(source, destination)
        assert report.path == str(expected)
        assert_same(source, report.path)


def test_relative_destination_stays_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = specimen().write(tmp_path / "c")
    monkeypatch.chdir(tmp_path)
    assert tb.align("c", "d").path == "d"
    assert_same(source, tmp_path / "d")


def test_expands_tilde_in_destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle()
    bundle.add("a", np.arange(3.0))
    source = bundle.write(tmp_path / "m")
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    assert tb.align(source, "~/aligned").path == str(tmp_path / "home" / "aligned")
    (tmp_path / "here" / "~").mkdir()
    assert tb.align(source, "~/aligned").path == "~/aligned"


def test_reports_progress(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    source = everything().write(tmp_path / "c")
    tb.align(source, tmp_path / "d", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] > 2 * LARGE
    assert calls == sorted(calls)


def test_refuses_to_replace_a_checkpoint(tmp_path: Path) -> None:
    source = specimen().write(tmp_path / "c")
    tb.align(source, tmp_path / "d")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=r"d\.index") as caught:
        tb.align(source, tmp_path / "d")
    assert isinstance(caught.value, tb.IOFailure)
    assert caught.value.errno == errno.EEXIST
    assert caught.value.filename == str(tmp_path / "d.index")
    for same in ("c", "c.index", "./c", "../" + tmp_path.name + "/c"):
        with pytest.raises(ValueError, match="is the source"):
            tb.align(source, tmp_path / same)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_v1_checkpoint_raises_unsupported_error(tmp_path: Path) -> None:
    file = V1File()
    file.add("x", 1, np.arange(3, dtype=np.float32))
    with pytest.raises(tb.UnsupportedError, match="save it again"):
        tb.align(file.write(tmp_path / "v1"), tmp_path / "d")


@pytest.mark.parametrize("alignment", [0, -1, -64, 1, 32, 63, 65, 96, 4095, 1 << 31, 1 << 64])
def test_invalid_alignment_raises_value_error(alignment: int, tmp_path: Path) -> None:
    source = specimen().write(tmp_path / "c")
    with pytest.raises(ValueError, match="power of two"):
        tb.align(source, tmp_path / "d", alignment=alignment)
    assert not index_path(tmp_path / "d").exists()


def test_rejects_arguments_of_other_types(tmp_path: Path) -> None:
    source = specimen().write(tmp_path / "c")
    with pytest.raises(TypeError):
        tb.align(source, tmp_path / "d", alignment=4096.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        tb.align(source, 7)  # type: ignore[arg-type]
    for path in ("", "a\0b", b"a\0b"):
        with pytest.raises(ValueError):
            tb.align(source, path)
    with pytest.raises(tb.UnsupportedError):
        tb.align(source, "gs://bucket/model")
    report = tb.align(source, tmp_path / "d", alignment=np.int64(128), threads=3)
    assert_same(source, report.path)


def test_aligned_specimen_has_every_value(tmp_path: Path) -> None:
    report = tb.align(specimen(2).write(tmp_path / "c"), tmp_path / "d")
    with tb.open(report.path, verify="full") as ck:
        for name, value in TENSORS.items():
            assert same_bits(ck[name].read(), value)
