# SPDX-License-Identifier: Apache-2.0
"""Resolving a directory: the checkpoint of its state file, or its only checkpoint."""

from __future__ import annotations

import codecs
import errno
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.v1 import V1File

import tensorbundle as tb
from tensorbundle import paths, state
from tensorbundle.paths import DirectoryWithoutCheckpointError, resolve


def v2(prefix: Path) -> str:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    bundle = Bundle()
    bundle.add("w", np.arange(3.0))
    return str(bundle.write(prefix))


def v1(path: Path, shards: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"{path.name}-{i:05d}-of-{shards:05d}" for i in range(shards)] or [path.name]
    for i, name in enumerate(names):
        file = V1File()
        file.add(f"w{i}", 2, np.arange(3.0))
        file.write(path.with_name(name))
    return f"{path}-?????-of-{shards:05d}" if shards else str(path)


def open_error(path: Path, kind: type[Exception] = DirectoryWithoutCheckpointError) -> str:
    with pytest.raises(kind) as caught:
        tb.open(path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return str(caught.value)


# --- without a state file

CHECKPOINTS = {
    "V2": lambda path: v2(path),
    "V1": lambda path: v1(path),
    "sharded V1": lambda path: v1(path, 3),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_opens_the_only_checkpoint_of_a_directory(tmp_path: Path, kind: str) -> None:
    prefix = CHECKPOINTS[kind](tmp_path / "run" / "model.ckpt-7")
    for name in ("notes.txt", "model.ckpt-7.meta", "graph.pbtxt", "events.out.tfevents.17"):
        (tmp_path / "run" / name).write_bytes(b"x" * 300)
    (tmp_path / "run" / "checkpoint.d").mkdir()
    os.mkfifo(tmp_path / "run" / "pipe")
    for directory in (tmp_path / "run", f"{tmp_path}/run/", os.fsencode(tmp_path / "run")):
        with tb.open(directory) as checkpoint:
            assert os.path.normpath(checkpoint.path) == prefix
    assert tb.list_variables(tmp_path / "run") == tb.list_variables(prefix)
    assert tb.load_checkpoint(tmp_path / "run").has_tensor(tb.list_variables(prefix)[0][0])
    # latest_checkpoint still returns what TensorFlow returns.
    assert tb.latest_checkpoint(tmp_path / "run") is None


@pytest.mark.parametrize("first", CHECKPOINTS)
@pytest.mark.parametrize("second", CHECKPOINTS)
def test_several_checkpoints_raise_error_with_list(tmp_path: Path, first: str, second: str) -> None:
    prefixes = [CHECKPOINTS[first](tmp_path / "a-1"), CHECKPOINTS[second](tmp_path / "b-2")]
    message = open_error(tmp_path)
    assert message == open_error(tmp_path, ValueError) == open_error(tmp_path, FileNotFoundError)
    assert message.startswith(
        f"Couldn't find 'checkpoint' file or checkpoints in given directory {tmp_path}"
    )
    assert "It has 2 prefixes and no state file" in message
    assert ", ".join(map(repr, prefixes)) in message


def test_v1_and_v2_of_one_prefix_are_one_checkpoint(tmp_path: Path) -> None:
    v1(tmp_path / "m")
    v2(tmp_path / "m")
    with tb.open(tmp_path) as checkpoint:
        assert checkpoint.format == 2


def test_saved_model_has_precedence_over_prefix(tmp_path: Path) -> None:
    v2(tmp_path / "m")
    variables = v2(tmp_path / "variables" / "variables")
    assert tb.open(tmp_path).path == variables
    assert tb.open(tmp_path / "variables").path == variables  # its only prefix


def test_saved_model_has_precedence_over_prefix_of_its_name(tmp_path: Path) -> None:
    v2(tmp_path / "model")
    variables = v2(tmp_path / "model" / "variables" / "variables")
    assert resolve(tmp_path / "model").prefix == variables
    assert tb.open(tmp_path / "model").path == variables


def test_prefix_has_precedence_over_directory_of_same_name(tmp_path: Path) -> None:
    sibling = v2(tmp_path / "m")
    inside = v2(tmp_path / "m" / "best")
    assert tb.open(tmp_path / "m").path == sibling
    assert tb.open(f"{tmp_path}/m/").path == inside


def test_incomplete_sharded_checkpoint_raises_error(tmp_path: Path) -> None:
    v1(tmp_path / "m", 3)
    os.remove(tmp_path / "m-00001-of-00003")
    assert "m-00001-of-00003" in open_error(tmp_path, tb.CheckpointNotFoundError)


def test_corrupt_only_checkpoint_raises_corruption_error(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(b"\0\0\x08" * 30)
    assert "m.index" in open_error(tmp_path, tb.CorruptionError)


def test_error_lists_prefixes_in_subdirectories(tmp_path: Path) -> None:
    v2(tmp_path / "model" / "checkpoint" / "ckpt-0")
    v2(tmp_path / "model" / "another" / "m")
    message = open_error(tmp_path / "model")
    # The directory with the name of a state file comes first.
    named = [f"{tmp_path}/model/checkpoint/ckpt-0", f"{tmp_path}/model/another/m"]
    assert ", ".join(map(repr, named)) in message
    assert "state file" not in message


def test_directory_named_checkpoint_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoint").mkdir()
    prefix = v2(tmp_path / "m")
    assert tb.open(tmp_path).path == prefix
    assert not caplog.records


# --- with a state file


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'model_checkpoint_path: "gone"', "gone', which does not exist"),
        (b"nonsense", "no field 'nonsense'"),
        (b'model_checkpoint_path: "\\U99999999"', "is not a character"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull"),
        (b"<html><body>404", "HTML page"),
        (b'{"model": 1}', "JSON text"),
        (
            'model_checkpoint_path: "m"\n'.encode("utf-16-le"),
            "UTF-16 text",
        ),  # without a byte order mark
    ],
)
def test_unusable_state_file_has_precedence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, reason: str
) -> None:
    prefix = v2(tmp_path / "m")
    (tmp_path / "checkpoint").write_bytes(content)
    message = open_error(tmp_path)
    assert reason in message
    assert f"Give one of its prefixes: {prefix!r}" in message
    assert not caplog.records  # the message contains the reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x83\xa7version\x03\xa9optimizer\x82\xa5state\xcd\xff", "msgpack file"),
        ('model_checkpoint_path: "m"\n'.encode("utf-16"), "UTF-16 text"),
        (codecs.BOM_UTF16_BE + 'model_checkpoint_path: "m"\n'.encode("utf-16-be"), "UTF-16 text"),
        (b'model_checkpoint_path: "\xff"', "byte 0xff at offset 24 is not UTF-8"),
        (b"\x80\x03}q\x00(X\x05\x00\x00\x00state", "Python pickle"),
    ],
)
def test_binary_state_file_error_names_its_kind(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    prefix = v2(tmp_path / "m")
    (tmp_path / "checkpoint").write_bytes(content)
    message = open_error(tmp_path, tb.CorruptionError)
    assert f"{f'{tmp_path}/checkpoint'!r} is not a state file of TensorFlow: " in message
    assert reason in message
    assert f"Give one of its prefixes: {prefix!r}" in message
    assert "codec" not in message
    for function in (tb.latest_checkpoint, tb.get_checkpoint_state):
        with pytest.raises(UnicodeDecodeError) as caught:  # as in TensorFlow
            function(tmp_path)
        assert message.startswith(str(caught.value))


@pytest.mark.parametrize("content", [b"", b"  \n# nothing\n", b"last_preserved_timestamp: 1"])
def test_state_file_without_path_raises_error(tmp_path: Path, content: bytes) -> None:
    prefix = v2(tmp_path / "m")
    (tmp_path / "checkpoint").write_bytes(content)
    message = open_error(tmp_path, tb.CorruptionError)
    assert message.startswith(
        f"Invalid checkpoint state loaded from {tmp_path}"
    )  # TensorFlow's words
    assert repr(prefix) in message


def test_byte_order_mark_is_skipped_unlike_tensorflow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    v2(tmp_path / "m-1")
    prefix = v2(tmp_path / "m-2")
    (tmp_path / "checkpoint").write_bytes(codecs.BOM_UTF8 + b'model_checkpoint_path: "m-2"\n')
    assert tb.open(tmp_path).path == prefix
    assert not caplog.records
    assert tb.latest_checkpoint(tmp_path) is None
    with pytest.raises(DirectoryWithoutCheckpointError):
        paths.resolve(tmp_path, as_tensorflow=True)


@pytest.mark.parametrize(
    "recorded",
    [
        r"C:\Users\me\train\m-7",
        r"train\m-7",
        r"\\server\share\train\m-7",
        r"C:\Users/me/train\m-7",
        r".\m-7",
    ],
)
def test_accepts_state_file_with_windows_paths(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recorded: str
) -> None:
    v2(tmp_path / "m-6")
    prefix = v2(tmp_path / "m-7")
    escaped = recorded.replace("\\", r"\\")
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{escaped}"\r\n')
    assert os.path.normpath(tb.latest_checkpoint(tmp_path) or "") == prefix
    assert os.path.normpath(tb.open(tmp_path).path) == prefix
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "using" in caplog.messages[0]


def test_existing_path_with_backslashes_is_literal(tmp_path: Path) -> None:
    v2(tmp_path / "m-7")
    exact = v2(tmp_path / r"train\m-7")
    below = v2(tmp_path / "eval" / "m-7")
    for recorded, expected in [(r"train\\m-7", exact), (r"eval\\m-7", below)]:
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{recorded}"')
        assert tb.latest_checkpoint(tmp_path) == expected
    (tmp_path / "checkpoint").write_text(r'model_checkpoint_path: "C:\\gone\\"')
    assert tb.latest_checkpoint(tmp_path) is None


def test_unreadable_state_file_raises_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    v2(tmp_path / "m")
    (tmp_path / "checkpoint").symlink_to("gone")
    assert "symbolic link to 'gone'" in open_error(tmp_path)
    os.remove(tmp_path / "checkpoint")
    os.mkfifo(tmp_path / "checkpoint")
    assert "Not a regular file" in open_error(tmp_path)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(paths, "read_state", refuse)
    with pytest.raises(tb.IOFailure) as caught:
        tb.open(tmp_path)
    assert caught.value.errno == errno.EACCES
    assert caught.value.filename == f"{tmp_path}/checkpoint"


def test_unlistable_directory_raises_io_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    v2(tmp_path / "m")

    def refuse(path: object) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(tb.IOFailure) as caught:
        tb.open(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EACCES, str(tmp_path))


def test_read_state_and_find_latest_match_public_api(tmp_path: Path) -> None:
    v2(tmp_path / "m")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m"')
    read = state.read_state(str(tmp_path))
    assert read == tb.get_checkpoint_state(tmp_path)
    assert state.find_latest(read, str(tmp_path)) == f"{tmp_path}/m"
    with pytest.raises(FileNotFoundError):
        state.read_state(str(tmp_path), "other")
