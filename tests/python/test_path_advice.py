# SPDX-License-Identifier: Apache-2.0
"""Paths that miss a checkpoint by little: what is opened all the same, and what is advised."""

from __future__ import annotations

import gzip
import os
import time
from pathlib import Path

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


def refusal(path: object, kind: type[Exception] = tb.CheckpointNotFoundError) -> str:
    with pytest.raises(kind) as caught:
        tb.open(path)  # type: ignore[arg-type]
    return str(caught.value)


# --- another spelling


def test_a_path_that_begins_with_a_tilde_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    v2(home / "run" / "m")
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    for path in ("~/run/m", "~/run/m.index", Path("~/run/m"), b"~/run", "~/run"):
        assert tb.open(path).path == f"{home}/run/m"
    message = refusal("~/run/n")
    assert "no checkpoint at '~/run/n'" in message
    assert f"no checkpoint at '{home}/run/n'" in message
    assert "'~nobody-of-that-name/m'" in refusal("~nobody-of-that-name/m")
    # A path that exists as it stands means itself.
    v2(here / "~" / "run" / "m")
    assert tb.open("~/run/m").path == "~/run/m"


@pytest.mark.parametrize("scheme", ["gs", "s3", "hdfs", "https", "abfss", "GS"])
def test_a_url_that_lost_a_slash(scheme: str) -> None:
    path = Path(f"{scheme}://bucket/a/model.ckpt")
    message = refusal(path, tb.UnsupportedError)
    assert repr(f"{scheme}://bucket/a/model.ckpt") in message
    assert "only local paths" in message


def test_names_that_only_resemble_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    v2(tmp_path / "gs:" / "bucket" / "m")
    assert tb.open(Path("gs://bucket/m")).path == "gs:/bucket/m"
    assert tb.open(Path(f"file://{tmp_path}/gs:/bucket/m")).path == f"{tmp_path}/gs:/bucket/m"
    assert "'step:/m'" in refusal("step:/m")
    assert "'C:/m'" in refusal("C:/m")


def test_a_path_with_backslashes(tmp_path: Path) -> None:
    v2(tmp_path / "a" / "m")
    assert f"give {f'{tmp_path}/a/m'!r}" in refusal(f"{tmp_path}\\a\\m")
    assert f"give {f'{tmp_path}/a'!r}" in refusal(f"{tmp_path}\\a")
    assert "backslash" not in refusal("C:\\Users\\m")


@pytest.mark.parametrize("slashes", ["/", "//"])
def test_a_slash_behind_a_prefix(tmp_path: Path, slashes: str) -> None:
    prefix = v2(tmp_path / "m")
    (tmp_path / "m.meta").write_bytes(b"x")
    assert f"remove the slash, give {str(prefix)!r}" in refusal(f"{prefix}{slashes}")
    v1(tmp_path / "old")
    assert "remove the slash" in refusal(f"{tmp_path}/old{slashes}")
    assert "remove the slash" not in refusal(f"{tmp_path}/new{slashes}")


@pytest.mark.parametrize("path", ["a\ud800", Path("\udfff"), "\ud800/m"])
def test_a_character_that_no_file_name_has(path: object) -> None:
    for function in (tb.open, tb.latest_checkpoint, tb.checkpoint_exists, tb.load_checkpoint):
        with pytest.raises(ValueError, match="a path cannot have the character") as caught:
            function(path)  # type: ignore[operator]
        assert type(caught.value) is ValueError


def test_a_path_longer_than_any(tmp_path: Path) -> None:
    assert len(refusal("x" * 100_000)) < 300


# --- an index that was renamed


@pytest.mark.parametrize("name", ["m.index.txt", "m.index (1)", "m (1).index", "m.index.bak"])
def test_an_index_with_a_name_that_is_nearly_right(tmp_path: Path, name: str) -> None:
    prefix = v2(tmp_path / "m")
    os.rename(tmp_path / "m.index", tmp_path / name)
    message = refusal(prefix)
    assert f"{name!r} exists: if it is the index, rename it to 'm.index'" in message
    if not name.endswith(".index"):
        assert f"{name!r} exists: if it is the index, rename it to 'm.index'" in refusal(tmp_path)
    assert f"'m{DATA}'" in message
    assert "copy" not in message


def test_an_index_that_was_compressed(tmp_path: Path) -> None:
    prefix = v2(tmp_path / "m")
    (tmp_path / "m.index.gz").write_bytes(gzip.compress((tmp_path / "m.index").read_bytes()))
    os.remove(tmp_path / "m.index")
    assert "'m.index.gz' exists, but it is compressed with gzip" in refusal(prefix)


@pytest.mark.parametrize("suffix", [".crdownload", ".part", ".partial", ".download"])
def test_an_index_whose_download_did_not_finish(tmp_path: Path, suffix: str) -> None:
    prefix = v2(tmp_path / "m")
    os.rename(tmp_path / "m.index", tmp_path / f"m.index{suffix}")
    assert f"did not finish: 'm.index{suffix}' exists" in refusal(prefix)
    assert f"'m.index{suffix}'" in refusal(tmp_path)  # the directory has data files alone


def test_an_index_with_the_name_of_another_prefix(tmp_path: Path) -> None:
    v2(tmp_path / "model.ckpt-7")
    v2(tmp_path / "model.ckpt-6")
    os.rename(tmp_path / "model.ckpt-7.index", tmp_path / "model.ckpt.index")
    message = refusal(tmp_path / "model.ckpt-7")
    assert "if 'model.ckpt.index' belongs to them, rename it to 'model.ckpt-7.index'" in message
    assert "ckpt-6" not in message


def test_a_data_file_under_another_name_is_not_opened_as_a_v1_file(tmp_path: Path) -> None:
    v2(tmp_path / "m")
    os.rename(tmp_path / f"m{DATA}", tmp_path / f"m{DATA} (1)")
    message = refusal(tmp_path / f"m{DATA} (1)", tb.CorruptionError)
    assert "has the name of a data file" in message
    assert f"{str(tmp_path / 'm')!r}" in message


# --- V1 files among the suggestions


def test_v1_files_are_suggested(tmp_path: Path) -> None:
    v1(tmp_path / "model.ckpt-100")
    v1(tmp_path / "sharded", 2)
    for name in ("notes.txt", "events.out.tfevents.1", "000003.ldb"):
        (tmp_path / name).write_bytes(b"x" * 300)
    (tmp_path / "000004.ldb").write_bytes((tmp_path / "model.ckpt-100").read_bytes())
    assert f"prefixes are {str(tmp_path / 'model.ckpt-100')!r}" in refusal(
        tmp_path / "model.ckpt-10"
    )
    said = refusal(tmp_path / "zzz")
    assert f"{str(tmp_path)!r} has the prefixes 'model.ckpt-100', 'sharded-?????-of-00002'" in said
    said = refusal(tmp_path, ValueError)
    assert f"{f'{tmp_path}/model.ckpt-100'!r}, {f'{tmp_path}/sharded-?????-of-00002'!r}" in said
    for name in ("notes", "events", "ldb"):
        assert name not in said


def test_shards_of_something_else_are_no_checkpoint(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"train-{i:05d}-of-00003").write_bytes(b"not a table" * 50)
    assert "train-" not in refusal(tmp_path)


def test_a_shard_that_is_a_link_to_nowhere(tmp_path: Path) -> None:
    v1(tmp_path / "m", 2)
    os.remove(tmp_path / "m-00001-of-00002")
    (tmp_path / "m-00001-of-00002").symlink_to(".git/annex/gone")
    assert "'" + str(tmp_path / "m-00001-of-00002") + "'" in refusal(tmp_path / "m")


def test_a_directory_of_many_files_is_answered_soon(tmp_path: Path) -> None:
    for i in range(3000):
        (tmp_path / ("a" * 200 + f"{i:05d}.index")).touch()
        (tmp_path / ("b" * 200 + f"{i:05d}")).touch()
    begin = time.process_time()
    refusal(tmp_path / ("a" * 199 + "x" * 6))
    assert time.process_time() - begin < 2


# --- what TensorFlow would accept


def test_the_rule_of_tensorflow(
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
