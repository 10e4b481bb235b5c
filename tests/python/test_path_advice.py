# SPDX-License-Identifier: Apache-2.0
"""Nearly correct paths: those that open a checkpoint anyway, and the advice for the others."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.v1 import V1File

import tensorbundle as tb
from tensorbundle.paths import Location, resolve

DATA = ".data-00000-of-00001"


def v2(prefix: Path) -> Path:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    bundle = Bundle()
    bundle.add("w", np.arange(3.0))
    return bundle.write(prefix)


def v1(path: Path, shards: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"{path.name}-{i:05d}-of-{shards:05d}" for i in range(shards)] or [path.name]
    for i, name in enumerate(names):
        file = V1File()
        file.add(f"w{i}", 2, np.arange(3.0))
        file.write(path.with_name(name))
    return path


def open_error(path: object, kind: type[Exception] = tb.CheckpointNotFoundError) -> str:
    with pytest.raises(kind) as caught:
        tb.open(path)  # type: ignore[arg-type]
    return str(caught.value)


# --- alternative forms of a path


def test_expands_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    v2(home / "run" / "m")
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    for path in ("~/run/m", "~/run/m.index", Path("~/run/m"), b"~/run", "~/run"):
        assert tb.open(path).path == f"{home}/run/m"
    message = open_error("~/run/n")
    assert "no checkpoint at '~/run/n'" in message
    assert f"no checkpoint at '{home}/run/n'" in message
    assert "'~no-such-user/m'" in open_error("~no-such-user/m")
    # An existing path with a tilde is literal.
    v2(here / "~" / "run" / "m")
    assert tb.open("~/run/m").path == "~/run/m"


@pytest.mark.parametrize("scheme", ["gs", "s3", "hdfs", "https", "abfss", "GS"])
def test_url_with_one_slash_raises_unsupported_error(scheme: str) -> None:
    path = Path(f"{scheme}://bucket/a/model.ckpt")
    message = open_error(path, tb.UnsupportedError)
    assert repr(f"{scheme}://bucket/a/model.ckpt") in message
    assert "only local paths" in message


def test_paths_resembling_urls_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    v2(tmp_path / "gs:" / "bucket" / "m")
    assert tb.open(Path("gs://bucket/m")).path == "gs:/bucket/m"
    assert tb.open(Path(f"file://{tmp_path}/gs:/bucket/m")).path == f"{tmp_path}/gs:/bucket/m"
    assert "'step:/m'" in open_error("step:/m")
    assert "'C:/m'" in open_error("C:/m")


def test_error_suggests_forward_slashes(tmp_path: Path) -> None:
    v2(tmp_path / "a" / "m")
    assert f"give {f'{tmp_path}/a/m'!r}" in open_error(f"{tmp_path}\\a\\m")
    assert f"give {f'{tmp_path}/a'!r}" in open_error(f"{tmp_path}\\a")
    assert "backslash" not in open_error("C:\\Users\\m")


@pytest.mark.parametrize("slashes", ["/", "//"])
def test_error_suggests_prefix_without_trailing_slash(tmp_path: Path, slashes: str) -> None:
    prefix = v2(tmp_path / "m")
    (tmp_path / "m.meta").write_bytes(b"x")
    assert f"remove the slash, give {str(prefix)!r}" in open_error(f"{prefix}{slashes}")
    v1(tmp_path / "old")
    assert "remove the slash" in open_error(f"{tmp_path}/old{slashes}")
    assert "remove the slash" not in open_error(f"{tmp_path}/new{slashes}")


@pytest.mark.parametrize("path", ["a\ud800", Path("\udfff"), "\ud800/m"])
def test_invalid_path_character_raises_value_error(path: object) -> None:
    for function in (tb.open, tb.latest_checkpoint, tb.checkpoint_exists, tb.load_checkpoint):
        with pytest.raises(ValueError, match="a path cannot have the character") as caught:
            function(path)  # type: ignore[operator]
        assert type(caught.value) is ValueError


def test_long_path_has_short_message(tmp_path: Path) -> None:
    assert len(open_error("x" * 100_000)) < 300


# --- files of another kind


IN_PLACE_OF_THE_INDEX = {
    "HTML": b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n",
    "Git-LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "gzip": gzip.compress(b"x" * 100),
    "zero": bytes(100),
    "empty": b"",
}


@pytest.mark.parametrize("words", IN_PLACE_OF_THE_INDEX)
def test_every_reader_says_what_is_in_place_of_the_index(tmp_path: Path, words: str) -> None:
    prefix = v2(tmp_path / "m")
    index = tmp_path / "m.index"
    index.write_bytes(IN_PLACE_OF_THE_INDEX[words])
    readers: list[Callable[[Any], object]] = [
        tb.open,
        tb.load,
        tb.load_checkpoint,
        lambda path: tb.align(path, tmp_path / "out"),
        lambda path: tb.edit(path, tmp_path / "out"),
        lambda path: tb.average([path, path], tmp_path / "out"),
    ]
    for read in readers:
        with pytest.raises(tb.CorruptionError) as caught:
            read(prefix)
        message = str(caught.value)
        assert repr(str(index)) in message
        assert words in message, message
    assert not (tmp_path / "out.index").exists()


# --- an index that was renamed


@pytest.mark.parametrize("name", ["m.index.txt", "m.index (1)", "m (1).index", "m.index.bak"])
def test_error_suggests_renamed_index(tmp_path: Path, name: str) -> None:
    prefix = v2(tmp_path / "m")
    os.rename(tmp_path / "m.index", tmp_path / name)
    message = open_error(prefix)
    assert f"{name!r} exists: if it is the index, rename it to 'm.index'" in message
    if not name.endswith(".index"):
        assert f"{name!r} exists: if it is the index, rename it to 'm.index'" in open_error(
            tmp_path
        )
    assert f"'m{DATA}'" in message
    assert "copy" not in message


def test_error_reports_compressed_index(tmp_path: Path) -> None:
    prefix = v2(tmp_path / "m")
    (tmp_path / "m.index.gz").write_bytes(gzip.compress((tmp_path / "m.index").read_bytes()))
    os.remove(tmp_path / "m.index")
    assert "'m.index.gz' exists, but it is compressed with gzip" in open_error(prefix)


@pytest.mark.parametrize("suffix", [".crdownload", ".part", ".partial", ".download"])
def test_error_reports_unfinished_download(tmp_path: Path, suffix: str) -> None:
    prefix = v2(tmp_path / "m")
    os.rename(tmp_path / "m.index", tmp_path / f"m.index{suffix}")
    assert f"did not finish: 'm.index{suffix}' exists" in open_error(prefix)
    assert f"'m.index{suffix}'" in open_error(tmp_path)  # the directory contains only data files


def test_error_suggests_index_of_other_prefix(tmp_path: Path) -> None:
    v2(tmp_path / "model.ckpt-7")
    v2(tmp_path / "model.ckpt-6")
    os.rename(tmp_path / "model.ckpt-7.index", tmp_path / "model.ckpt.index")
    message = open_error(tmp_path / "model.ckpt-7")
    assert "if 'model.ckpt.index' belongs to them, rename it to 'model.ckpt-7.index'" in message
    assert "ckpt-6" not in message


def test_renamed_data_file_is_not_opened_as_v1_file(tmp_path: Path) -> None:
    v2(tmp_path / "m")
    os.rename(tmp_path / f"m{DATA}", tmp_path / f"m{DATA} (1)")
    message = open_error(tmp_path / f"m{DATA} (1)", tb.CorruptionError)
    assert "has the name of a data file" in message
    assert f"{str(tmp_path / 'm')!r}" in message


# --- V1 files among the suggestions


def test_error_suggests_v1_files(tmp_path: Path) -> None:
    v1(tmp_path / "model.ckpt-100")
    v1(tmp_path / "sharded", 2)
    for name in ("notes.txt", "events.out.tfevents.1", "000003.ldb"):
        (tmp_path / name).write_bytes(b"x" * 300)
    (tmp_path / "000004.ldb").write_bytes((tmp_path / "model.ckpt-100").read_bytes())
    assert f"prefixes are {str(tmp_path / 'model.ckpt-100')!r}" in open_error(
        tmp_path / "model.ckpt-10"
    )
    message = open_error(tmp_path / "zzz")
    assert (
        f"{str(tmp_path)!r} has the prefixes 'model.ckpt-100', 'sharded-?????-of-00002'" in message
    )
    message = open_error(tmp_path, ValueError)
    assert f"{f'{tmp_path}/model.ckpt-100'!r}, {f'{tmp_path}/sharded-?????-of-00002'!r}" in message
    for name in ("notes", "events", "ldb"):
        assert name not in message


def test_foreign_shards_are_not_suggested(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"train-{i:05d}-of-00003").write_bytes(b"not a table" * 50)
    assert "train-" not in open_error(tmp_path)


def test_dangling_shard_link_error_names_the_shard(tmp_path: Path) -> None:
    v1(tmp_path / "m", 2)
    os.remove(tmp_path / "m-00001-of-00002")
    (tmp_path / "m-00001-of-00002").symlink_to(".git/annex/gone")
    assert "'" + str(tmp_path / "m-00001-of-00002") + "'" in open_error(tmp_path / "m")


def test_error_in_large_directory_is_fast(tmp_path: Path) -> None:
    for i in range(3000):
        (tmp_path / ("a" * 200 + f"{i:05d}.index")).touch()
        (tmp_path / ("b" * 200 + f"{i:05d}")).touch()
    start = time.process_time()
    open_error(tmp_path / ("a" * 199 + "x" * 6))
    assert time.process_time() - start < 2


# --- TensorFlow's rules


def test_as_tensorflow_follows_tensorflows_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = v2(tmp_path / "run" / "m")
    run = prefix.parent
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = Location(2, str(prefix), (f"{prefix}.index",))
    assert resolve(prefix, as_tensorflow=True) == expected
    for path in (f"{prefix}.index", f"{prefix}{DATA}"):
        with pytest.raises(tb.CorruptionError):
            resolve(path, as_tensorflow=True)
    for path in ("~/run/m", f"{prefix}/", f"{run}/nowhere"):
        with pytest.raises(tb.CheckpointNotFoundError):
            resolve(path, as_tensorflow=True)
    v2(run / "variables" / "variables")
    for directory in (run, run / "variables"):
        with pytest.raises(ValueError, match="Couldn't find 'checkpoint' file"):
            resolve(directory, as_tensorflow=True)
    for text, found in [("m", True), ("gone/m", False), ("nowhere", False), ("", None)]:
        (run / "checkpoint").write_text(f'model_checkpoint_path: "{text}"')
        caplog.clear()
        if found is False:
            with pytest.raises(ValueError, match="Couldn't find"):
                resolve(run, as_tensorflow=True)
            assert caplog.messages == [f"Couldn't match files for checkpoint {run}/{text}"]
        if found:
            assert resolve(run, as_tensorflow=True) == expected
        else:
            with pytest.raises(ValueError, match=r"Couldn't find|Invalid checkpoint"):
                resolve(run, as_tensorflow=True)
    v1(tmp_path / "old", 2)
    pattern = f"{tmp_path}/old-?????-of-00002"
    assert resolve(pattern, as_tensorflow=True).prefix == pattern
    with pytest.raises(tb.CheckpointNotFoundError):
        resolve(tmp_path / "old", as_tensorflow=True)
