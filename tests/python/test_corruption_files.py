# SPDX-License-Identifier: Apache-2.0
"""Missing, truncated and special files.

An unusable index raises at open; an unusable shard affects only its tensors.
"""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from craft import user
from craft.bundle import Bundle, index_path, shard_path
from craft.compare import same_bits
from craft.specimen import TENSORS, specimen

import tensorbundle as tb

IN_SHARD_1 = {"b", "w"}


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_symlink_loop(path: Path) -> None:
    path.symlink_to(path)


def make_dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def test_missing_index_raises_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(tb.CheckpointNotFoundError) as caught:
        tb.open(tmp_path / "c")
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.errno == errno.ENOENT
    assert str(tmp_path / "c") in str(caught.value)
    assert str(caught.value.filename).startswith(str(tmp_path / "c"))
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.filename) == (str(caught.value), caught.value.filename)


def test_missing_index_with_data_raises_not_found_error(tmp_path: Path) -> None:
    specimen().write_shards(tmp_path / "c")
    with pytest.raises(tb.CheckpointNotFoundError, match=r"c\.index"):
        tb.open(tmp_path / "c")
    with pytest.raises(tb.CheckpointNotFoundError, match=r"c\.index"):
        tb.open(shard_path(tmp_path / "c"))


def test_recognises_meta_file(tmp_path: Path) -> None:
    (tmp_path / "c.meta").write_bytes(b"\x0a\x05graph")
    with pytest.raises(tb.Error, match="meta"):
        tb.open(tmp_path / "c.meta")


@pytest.mark.parametrize("path", ["no\0where", b"no\0where"], ids=["str", "bytes"])
def test_nul_in_path_raises_value_error(path: str | bytes) -> None:
    with pytest.raises(ValueError):
        tb.open(path)


@pytest.mark.parametrize("name", ["a[0]", "a*", "a?b", "{x}", "~", "a b", "é"])
def test_pattern_characters_in_paths_are_literal(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    prefix = specimen().write(folder / name)
    for path in (prefix, str(prefix), os.fsencode(prefix), index_path(prefix), shard_path(prefix)):
        with tb.open(path) as ck:
            assert same_bits(ck["a"], TENSORS["a"])
    with pytest.raises(tb.CheckpointNotFoundError):
        tb.open(tmp_path / "*" / "*")


@pytest.mark.parametrize(
    "make", [make_fifo, make_symlink_loop, Path.mkdir], ids=["FIFO", "loop", "directory"]
)
def test_special_file_as_index_raises_io_failure(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    specimen().write_shards(tmp_path / "c")
    make(index_path(tmp_path / "c"))
    with pytest.raises(tb.IOFailure) as caught:
        tb.open(tmp_path / "c")
    assert isinstance(caught.value, OSError)
    assert caught.value.errno
    assert str(index_path(tmp_path / "c")) in str(caught.value)
    if make is make_symlink_loop:
        assert caught.value.errno == errno.ELOOP


def test_unreadable_index_raises_eacces() -> None:
    with user.normal_user() as folder:
        prefix = specimen().write(folder / "c")
        tb.open(prefix).close()
        index_path(prefix).chmod(0)
        with pytest.raises(tb.IOFailure) as caught:
            tb.open(prefix)
    assert caught.value.errno == errno.EACCES


UNUSABLE_SHARDS: dict[str, tuple[Callable[[Path], object] | None, type[Exception]]] = {
    "missing": (None, tb.CheckpointNotFoundError),
    "dangling link": (make_dangling, tb.CheckpointNotFoundError),
    "FIFO": (make_fifo, tb.IOFailure),
    "loop": (make_symlink_loop, tb.IOFailure),
    "directory": (Path.mkdir, tb.IOFailure),
    "empty": (Path.touch, tb.CorruptionError),
    "short": (lambda path: path.write_bytes(bytes(50)), tb.CorruptionError),
}


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("case", UNUSABLE_SHARDS)
def test_corrupt_shard_affects_only_its_tensors(tmp_path: Path, case: str, io: str) -> None:
    prefix = specimen(num_shards=2).write(tmp_path / "c")
    bad = shard_path(prefix, 1, 2)
    bad.unlink()
    make, expected = UNUSABLE_SHARDS[case]
    if make is not None:
        make(bad)
    affected = {"w"} if case == "short" else IN_SHARD_1  # "b" ends before byte 50
    with tb.open(prefix, io=io, verify="none") as ck:
        assert set(ck) == set(TENSORS)
        for name in TENSORS:
            assert ck[name].shape == TENSORS[name].shape
            assert ck[name].dtype == TENSORS[name].dtype
        for name in sorted(affected):
            assert str(bad) in str(ck[name].error)
            for attempt in (np.asarray, lambda t: t.read()):
                with pytest.raises(expected, match=f"'{name}'") as caught:
                    attempt(ck[name])
                assert type(caught.value) is expected
                assert str(bad) in str(caught.value)
        for name in sorted(set(TENSORS) - affected):
            assert ck[name].error is None
            if not (case == "short" and name == "b"):
                assert same_bits(ck[name], TENSORS[name])
        report = ck.verify()
        assert not report.ok
        assert {item.tensor for item in report.damaged} >= affected
        assert {str(item.file) for item in report.damaged} == {str(bad)}


def test_reads_slice_whose_shard_exists(tmp_path: Path) -> None:
    prefix = specimen(num_shards=2).write(tmp_path / "c")
    shard_path(prefix, 1, 2).unlink()
    with tb.open(prefix) as ck:
        assert same_bits(ck["w"][:2], TENSORS["w"][:2])
        with pytest.raises(tb.CheckpointNotFoundError):
            ck["w"][1:3]


def test_full_verification_requires_every_shard(tmp_path: Path) -> None:
    prefix = specimen(num_shards=2).write(tmp_path / "c")
    shard_path(prefix, 1, 2).unlink()
    with pytest.raises(tb.Error, match=str(shard_path(prefix, 1, 2))):
        tb.open(prefix, verify="full")


def test_wrong_shard_count_raises_not_found_error(tmp_path: Path) -> None:
    bundle = specimen()
    bundle.header.num_shards = 2
    prefix = bundle.write(tmp_path / "c")
    with tb.open(prefix) as ck, pytest.raises(tb.CheckpointNotFoundError, match="00000-of-00002"):
        np.asarray(ck["a"])


@pytest.mark.parametrize("cut", [1, 8, 100])
def test_truncated_data_raises_corruption_error(tmp_path: Path, cut: int) -> None:
    prefix = specimen().write(tmp_path / "c")
    data = shard_path(prefix).read_bytes()
    shard_path(prefix).write_bytes(data[:-cut])
    with tb.open(prefix) as ck:
        assert set(ck) == set(TENSORS)
        with pytest.raises(tb.CorruptionError, match="'z'") as caught:
            np.asarray(ck["z"])
        assert str(len(data) - cut) in str(caught.value)
        # Only reads that compare a checksum are allowed in a truncated file.
        assert same_bits(ck["a"].read(), TENSORS["a"])
        with pytest.raises(tb.CorruptionError, match="'a'"):
            np.asarray(ck["a"])


def test_accepts_bytes_after_last_tensor(tmp_path: Path) -> None:
    bundle = specimen()
    bundle.pad(1000)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert all(same_bits(ck[name], TENSORS[name]) for name in TENSORS)
        assert ck.verify().ok


def test_empty_tensor_beyond_file_raises_corruption_error(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("at_end", np.zeros((0, 3), np.float32))
    bundle.add("beyond", np.zeros((0, 3), np.float32)).offset = 1
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert np.asarray(ck["at_end"]).shape == (0, 3)
        with pytest.raises(tb.CorruptionError, match="'beyond'"):
            np.asarray(ck["beyond"])


def test_truncation_after_open_raises_error(tmp_path: Path) -> None:
    source = np.arange(100_000, dtype=np.float32)
    bundle = Bundle()
    bundle.add("t", source)
    prefix = bundle.write(tmp_path / "c")
    for io in ("mmap", "pread"):
        shard_path(prefix).write_bytes(source.tobytes())
        with tb.open(prefix, io=io, verify="none") as ck:
            os.truncate(shard_path(prefix), 4096)
            for attempt in (np.asarray, lambda t: t.read(), lambda t: t[99_999]):
                with pytest.raises((tb.CorruptionError, tb.IOFailure), match=r"c\.data"):
                    attempt(ck["t"])
            assert not ck.verify().ok


def test_open_checkpoint_keeps_replaced_data_file(tmp_path: Path) -> None:
    prefix = specimen().write(tmp_path / "c")
    with tb.open(prefix) as ck:
        shard_path(prefix).rename(tmp_path / "aside")
        shard_path(prefix).write_bytes(b"new")
        assert same_bits(ck["a"], TENSORS["a"])


def test_accepts_directory_name_that_is_not_utf8(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"\xff\xfe")
    os.mkdir(folder)
    bundle = Bundle()
    bundle.add("a", np.zeros(3, np.float32))
    prefix = bundle.write(Path(os.fsdecode(folder)) / "c")
    os.unlink(os.fsdecode(folder) + "/c.data-00000-of-00001")
    with tb.open(os.path.join(folder, b"c")) as ck:
        assert ck.path == str(prefix)
        assert "\udcff" in ck["a"].error
        assert "\udcff" in ck.verify().damaged[0].message
        with pytest.raises(tb.CheckpointNotFoundError, match="\udcff"):
            ck["a"].read()
