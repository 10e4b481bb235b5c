# SPDX-License-Identifier: Apache-2.0
"""Data files that do not match the index: pointers, web pages, truncated or renamed files.

Their bytes are returned only after a checksum comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle, shard_path
from craft.compare import same_bits

import tensorbundle as tb

SMALL = np.arange(4, dtype=np.float32)
LARGE = np.arange(600, dtype=np.float32).reshape(60, 10)

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7c5a28\nsize 435778770\n"
TEXTS = {
    "Git-LFS pointer": (LFS, "Git-LFS pointer.*git lfs pull"),
    "HTML page": (b"<!DOCTYPE html><html>404</html>", "HTML page"),
    "HTML without a type": (b"\r\n <HTML><body>sign in</body>", "HTML page"),
    "XML error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML document"),
    "XML with a byte order mark": (b"\xef\xbb\xbf<?xml version='1.0'?>", "XML document"),
    "XML without a head": (b"<Error><Code>NoSuchKey</Code></Error>", "XML document"),
    "empty": (b"", "is empty"),
    "other bytes": (b"\x00\x01\x02" * 30, "90 bytes, its stored slices end at 2416"),
}


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    bundle = Bundle()
    bundle.add("a", SMALL)
    bundle.add("large", LARGE)
    return bundle.write(tmp_path / "model.ckpt-7")


UNVERIFIED_READS: dict[str, Callable[[tb.Tensor], Any]] = {
    "view": np.asarray,
    "slice": lambda t: t[1:3],
    "row": lambda t: t[0],
    "copied slice": lambda t: t.read(np.s_[:2]),
    "gather": lambda t: t[[0, 1]],
    "take": lambda t: t.take([1]),
    "remap": lambda t: tb.load_and_remap(t, rows=[1, 0]),
    "chunks": lambda t: list(t.chunks(1)),
    "copy on write": lambda t: t.copy_on_write(),
    "copy on write of a part": lambda t: t.copy_on_write(np.s_[1:2]),
    "ranges": lambda t: t.byte_ranges(np.s_[:2]),
}


@pytest.mark.parametrize("io", ["auto", "pread"])
@pytest.mark.parametrize("padding", [0, 5000], ids=["short", "long"])
@pytest.mark.parametrize("kind", TEXTS)
def test_error_names_kind_of_data_file(prefix: Path, kind: str, padding: int, io: str) -> None:
    content, words = TEXTS[kind]
    if padding and kind in ("empty", "other bytes"):
        pytest.skip("a long file of any bytes may be a data file with bytes after its tensors")
    shard_path(prefix).write_bytes(content + b" " * padding)
    with tb.open(prefix, io=io) as ck:
        for name, read in UNVERIFIED_READS.items():
            if name.startswith("copy on write") and io == "pread":
                continue
            for tensor in ("a", "large"):
                with pytest.raises(tb.CorruptionError, match=words) as caught:
                    read(ck[tensor])
                assert f"'{tensor}'" in str(caught.value)
                assert str(shard_path(prefix)) in str(caught.value)
        for tensor in ("a", "large"):
            with pytest.raises(tb.CorruptionError, match=f"'{tensor}'"):
                ck[tensor].read()  # a wrong checksum, or truncated


def test_verified_tensor_before_truncation_is_read(prefix: Path) -> None:
    path = shard_path(prefix)
    path.write_bytes(path.read_bytes()[:-100])
    with tb.open(prefix) as ck:
        assert same_bits(ck["a"].read(), SMALL)
        assert same_bits(tb.load_variable(prefix, "a"), SMALL)
        assert ck["a"].error is None
        assert ck["large"].error is not None
        names = [name for name, _ in take_until_error(ck.stream())]
        assert names == ["a"]
        report = ck.verify()
        assert [item.tensor for item in report.damaged] == ["large"]
        assert report.checked_bytes == SMALL.nbytes
    with tb.open(prefix, verify="none") as ck, pytest.raises(tb.CorruptionError, match="cut off"):
        ck["a"].read()


def take_until_error(stream: Any) -> Any:
    while True:
        try:
            yield next(stream)
        except (tb.CorruptionError, StopIteration):
            return


def test_verify_reports_shared_cause_once(tmp_path: Path) -> None:
    bundle = Bundle(num_shards=2)
    for i in range(50):
        bundle.add(f"t{i}", SMALL, shard=i % 2)
    prefix = bundle.write(tmp_path / "c")
    shard_path(prefix, 0, 2).write_bytes(LFS)
    shard_path(prefix, 1, 2).unlink()
    with tb.open(prefix) as ck:
        report = ck.verify()
    assert len(report.damaged) == 50
    assert report.checked_bytes == 0
    assert {item.cause for item in report.damaged if "00000-of" in item.file} == {
        f"{shard_path(prefix, 0, 2)} is a Git-LFS pointer, not the data: run 'git lfs pull' in its "
        "repository"
    }
    with pytest.raises(tb.CorruptionError) as caught:
        report.raise_for_damage()
    message = str(caught.value)
    assert message.count("Git-LFS") == message.count("is missing") == 1
    assert message.count("25 tensors") == 2


NEIGHBOURS = [
    "model.ckpt-7.data-00000-of-00001.txt",
    "model.ckpt-7.data-00000-of-00001 (1)",
    "model.ckpt-7.data-00000-of-00001.crdownload",
    "model.ckpt-7.data-00000-of-00002",
    "model.ckpt-7.data",
    "model.ckpt.data-00000-of-00001",
]


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_error_suggests_renamed_data_file(prefix: Path, name: str) -> None:
    shard_path(prefix).rename(prefix.with_name(name))
    (prefix.parent / "checkpoint").write_text("unrelated")
    with tb.open(prefix) as ck:
        for read in (np.asarray, lambda t: t.read(), lambda t: t[[0]]):
            with pytest.raises(tb.CheckpointNotFoundError, match="under another name") as caught:
                read(ck["a"])
            assert f"'{name}'" in str(caught.value)
            assert caught.value.filename == str(shard_path(prefix))


def test_data_file_of_other_checkpoint_is_not_suggested(prefix: Path) -> None:
    other = Bundle()
    other.add("a", SMALL)
    other.write(prefix.with_name("model.ckpt-8"))
    shard_path(prefix).unlink()
    with tb.open(prefix) as ck, pytest.raises(tb.CheckpointNotFoundError) as caught:
        ck["a"].read()
    assert "ckpt-8" not in str(caught.value)
    assert "copied in part" in str(caught.value)


def test_dangling_link_error_names_its_target(prefix: Path) -> None:
    path = shard_path(prefix)
    path.unlink()
    path.symlink_to("../../blobs/0a1b")
    with tb.open(prefix) as ck:
        with pytest.raises(
            tb.CheckpointNotFoundError, match=r"symbolic link to '../../blobs/0a1b'"
        ):
            np.asarray(ck["a"])
        assert "symbolic link" in ck.verify().damaged[0].cause


def test_restored_data_file_is_read(prefix: Path) -> None:
    path = shard_path(prefix)
    content = path.read_bytes()
    path.unlink()
    with tb.open(prefix) as ck:
        for read in (np.asarray, lambda t: t.read(), lambda t: t[[0, 1]]):
            with pytest.raises(tb.CheckpointNotFoundError):
                read(ck["large"])
        path.write_bytes(content)
        assert same_bits(np.asarray(ck["large"]), LARGE)
        assert same_bits(ck["large"][[0, 1]], LARGE[[0, 1]])
        assert ck.verify().ok
