# SPDX-License-Identifier: Apache-2.0
"""Regressions found by attacking the reader, related to errors that users reported."""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle, index_path, shard_path
from craft.compare import same_bits
from craft.v1 import V1File

import tensorbundle as tb
from tensorbundle import cli, errors

CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"


def bundle_of(**tensors: np.ndarray) -> Bundle:
    bundle = Bundle()
    for name, array in tensors.items():
        bundle.add(name, array)
    return bundle


def test_replacement_in_same_clock_tick_is_detected(tmp_path: Path) -> None:
    old = bundle_of(w=np.full((64, 8), 1, np.float32)).write(tmp_path / "old")
    new = bundle_of(w=np.full((64, 8), 2, np.float32)).write(tmp_path / "new")
    target = tmp_path / "m"
    data = shard_path(new).read_bytes()
    for _ in range(10):
        shutil.copy(shard_path(old), shard_path(target))
        shutil.copy(index_path(old), tmp_path / "i")
        os.replace(tmp_path / "i", index_path(target))
        (tmp_path / "d").write_bytes(data)
        os.replace(tmp_path / "d", shard_path(target))
        with tb.open(target) as ck:
            for read in (lambda t: t[0, 0], lambda t: t[[5]], np.asarray):
                with pytest.raises(tb.CorruptionError):
                    read(ck["w"])


def test_full_names_return_with_the_data_file(tmp_path: Path) -> None:
    source = CHECKPOINTS / "optimizer_slots"
    folder = shutil.copytree(source, tmp_path / "og")
    (shard,) = folder.glob("*.data-*")
    aside = shard.with_name("aside")
    os.rename(shard, aside)
    with tb.open(folder) as ck:
        reader = tb.load_checkpoint(folder)
        assert "Variable" not in ck
        assert not reader.has_tensor("Variable")
        os.rename(aside, shard)
        assert "Variable" in ck
        assert ck["Variable"].name in ck.full_names
        assert same_bits(reader.get_tensor("Variable"), ck["Variable"].read())


def test_pickle_keeps_working_directory_of_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle_of(x=np.arange(3)).write(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    with tb.open("m") as ck:
        monkeypatch.chdir("/")
        assert pickle.loads(pickle.dumps(ck["x"])).read().tolist() == [0, 1, 2]


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_ids_beyond_int64_raise_index_error(tmp_path: Path, axis: str) -> None:
    prefix = bundle_of(x=np.arange(12.0).reshape(4, 3)).write(tmp_path / "c")
    with tb.open(prefix) as ck, pytest.raises(IndexError, match="18446744073709551615"):
        ids = np.array([2**64 - 1, 1], np.uint64)
        tb.load_and_remap(ck["x"], fill=-7, **{axis: ids})


@pytest.mark.parametrize("ids", [[10**30], [2**64], [2**63, -1], [[0, 2**70]]])
def test_huge_row_numbers_in_lists_raise_index_error(tmp_path: Path, ids: list[Any]) -> None:
    prefix = bundle_of(x=np.arange(12.0).reshape(4, 3)).write(tmp_path / "c")
    with tb.open(prefix) as ck:
        for read in (lambda t: t[ids], lambda t: t.take(ids), lambda t: t.take(ids, fill=0)):
            with pytest.raises(IndexError, match="is out of bounds for every"):
                read(ck["x"])
        with pytest.raises(TypeError):
            ck["x"].take([0.5])


def test_fills_missing_rows_of_strings(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add_strings("s", [b"a", b"b", b"c"], (3,))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        take = ck["s"].take
        assert take([-1, 1], fill=b"z").tolist() == [b"z", b"b"]
        assert take([-1, -1], fill=[b"y", b"z"]).tolist() == [b"y", b"z"]
        for fill in ("zz", 5, [b"y", "z"], np.array(["y", "z"])):
            with pytest.raises(TypeError, match="must be bytes"):
                take([-1, -1], fill=fill)
        for fill in ([b"y"], [b"x", b"y", b"z"]):
            with pytest.raises(tb.ShapeMismatchError):
                take([-1, -1], fill=fill)


def test_v1_tensor_without_record_is_reported(tmp_path: Path, capsys: Any) -> None:
    file = V1File()
    file.declare("x", 1, (4, 2), [])
    file.add("y", 1, np.arange(3, dtype=np.float32))
    path = file.write(tmp_path / "v1")
    with tb.open(path) as ck:
        assert "no record of it" in str(ck["x"].error)
        assert ck["y"].error is None
    assert cli.main(["ls", str(path)]) in (0, 1)
    assert "no record of it" in capsys.readouterr().out
    assert cli.main(["verify", str(path)]) == 1


def test_v1_block_of_many_records_counts_once(tmp_path: Path) -> None:
    file = V1File()
    for i in range(20):
        file.add(f"i{i}", 3, np.arange(5, dtype=np.int32))
    path = file.write(tmp_path / "v1")
    with tb.open(path) as ck:
        report = ck.verify()
    assert report.ok
    assert 0 < report.checked_bytes <= path.stat().st_size


FOREIGN_INDEXES: dict[str, Callable[[Path], Any]] = {
    "._a.index": lambda path: path.write_bytes(b"\0\5\26\7Mac OS X" + bytes(100)),
    "x.index": lambda path: path.mkdir(),
    "empty.index": lambda path: path.write_bytes(b""),
    "search.index": lambda path: path.write_bytes(b"an index of words\n" * 50),
}


@pytest.mark.parametrize("name", FOREIGN_INDEXES)
def test_ignores_index_files_of_other_programs(tmp_path: Path, name: str) -> None:
    bundle_of(a=np.arange(4.0)).write(tmp_path / "a")
    FOREIGN_INDEXES[name](tmp_path / name)
    with tb.open(tmp_path) as ck:
        assert ck["a"].read().tolist() == [0, 1, 2, 3]
    bundle_of(a=np.arange(4.0)).write(tmp_path / "b")
    with pytest.raises(ValueError, match=r"2 prefixes .*/a', .*/b'") as caught:
        tb.open(tmp_path)
    assert f"/{name.removesuffix('.index')}'" not in str(caught.value)


def tarred(path: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(path, "x")
    return out.getvalue()


FOREIGN_SHARDS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "text": (lambda _: b"404: Not Found\n", "has nothing but the text '404: Not Found'"),
    "json": (lambda _: b'{"error": "no such file"}', "is JSON text"),
    "gzip": (lambda _: b"\x1f\x8b\x08\0" + bytes(90), "is compressed with gzip"),
    "zip": (lambda _: b"PK\x03\x04" + bytes(90), "is a zip archive"),
    "safetensors": (lambda _: bytes([2, *[0] * 7]) + b"{}", "is a safetensors file"),
    "HTML after a comment": (lambda _: b"<!-- sorry --><html>", "is an HTML page"),
    "HTML from head": (lambda _: b"<head><title>Login", "is an HTML page"),
    "tar": (tarred, "is a tar archive"),
}


@pytest.mark.parametrize("kind", FOREIGN_SHARDS)
def test_error_names_kind_of_data_file(tmp_path: Path, kind: str) -> None:
    prefix = bundle_of(b=np.arange(3), a=np.arange(400.0)).write(tmp_path / "c")
    content, expected = FOREIGN_SHARDS[kind]
    shard_path(prefix).write_bytes(content(shard_path(prefix)))
    with tb.open(prefix) as ck:
        for read in (np.asarray, lambda t: t[:2], lambda t: t[[0]]):
            with pytest.raises(tb.CorruptionError, match=expected):
                read(ck["b"])
        assert not ck.verify().ok


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b""])
def test_align_error_names_kind_of_data_file(tmp_path: Path, content: bytes) -> None:
    prefix = bundle_of(a=np.arange(5.0), b=np.arange(5.0)).write(tmp_path / "c")
    shard_path(prefix).write_bytes(content)
    with pytest.raises(tb.CorruptionError, match=r"is a Git-LFS pointer|is empty"):
        tb.align(prefix, tmp_path / "out")


def test_exhausted_address_space_raises_memory_error(tmp_path: Path) -> None:
    prefix = bundle_of(a=np.zeros(8 << 20)).write(tmp_path / "c")
    script = f"""
import resource, numpy as np, tensorbundle as tb
ck = tb.open({str(prefix)!r})
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), resource.RLIM_INFINITY))
for read in (np.asarray, lambda t: t.take([0]), lambda t: t.copy_on_write(), lambda t: t.read()):
    try:
        read(ck["a"])
    except MemoryError as error:
        print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
assert not ck["a"].read().any()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 4


def test_out_of_memory_error_pickles() -> None:
    error = errors.OutOfMemoryError("cannot map it", 12, "file")
    copied = pickle.loads(pickle.dumps(error))
    assert isinstance(copied, MemoryError) and isinstance(copied, tb.IOFailure)
    assert (str(copied), copied.errno) == (str(error), 12)


@pytest.mark.parametrize("arguments", [["-h"], ["ls", "-h"], ["verify", "-h"], ["align", "-h"]])
def test_help_has_short_option(arguments: list[str], capsys: Any) -> None:
    assert cli.main(arguments) == 0
    assert "Usage:" in capsys.readouterr().out


def test_unlistable_directory_is_not_reported_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle_of(a=np.arange(3)).write(tmp_path / "m")

    def refuse(path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(tb.CheckpointNotFoundError, match=r"cannot be listed .Permission denied"):
        tb.open(tmp_path / "nope")


def test_accepts_localhost_in_file_url(tmp_path: Path) -> None:
    prefix = bundle_of(a=np.arange(3)).write(tmp_path / "c")
    with tb.open(f"file://localhost{prefix}") as ck:
        assert ck["a"].shape == (3,)
    with pytest.raises(tb.CheckpointNotFoundError):
        tb.open("file://c")
