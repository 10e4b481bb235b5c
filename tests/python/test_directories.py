# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a directory means: its state file's, or the only one in it."""

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
from tensorbundle.paths import DirectoryWithoutCheckpointError


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


def refusal(path: Path, kind: type[Exception] = DirectoryWithoutCheckpointError) -> str:
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
def test_the_only_checkpoint_of_a_directory_is_meant(tmp_path: Path, kind: str) -> None:
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
    # TensorFlow's own answer about the state file stays.
    assert tb.latest_checkpoint(tmp_path / "run") is None


@pytest.mark.parametrize("first", CHECKPOINTS)
@pytest.mark.parametrize("second", CHECKPOINTS)
def test_several_checkpoints_in_a_directory_are_listed(
    tmp_path: Path, first: str, second: str
) -> None:
    prefixes = [CHECKPOINTS[first](tmp_path / "a-1"), CHECKPOINTS[second](tmp_path / "b-2")]
    said = refusal(tmp_path)
    assert said == refusal(tmp_path, ValueError) == refusal(tmp_path, FileNotFoundError)
    assert said.startswith(
        f"Couldn't find 'checkpoint' file or checkpoints in given directory {tmp_path}"
    )
    assert "It has 2 prefixes and no state file" in said
    assert ", ".join(map(repr, prefixes)) in said


def test_one_prefix_of_both_formats_is_one_checkpoint(tmp_path: Path) -> None:
    v1(tmp_path / "m")
    v2(tmp_path / "m")
    with tb.open(tmp_path) as checkpoint:
        assert checkpoint.format == 2


def test_a_saved_model_comes_before_another_prefix(tmp_path: Path) -> None:
    v2(tmp_path / "m")
    variables = v2(tmp_path / "variables" / "variables")
    assert tb.open(tmp_path).path == variables
    assert tb.open(tmp_path / "variables").path == variables  # the only prefix in there


def test_a_prefix_beside_a_directory_of_its_name_comes_before_those_in_it(tmp_path: Path) -> None:
    beside = v2(tmp_path / "m")
    inside = v2(tmp_path / "m" / "best")
    assert tb.open(tmp_path / "m").path == beside
    assert tb.open(f"{tmp_path}/m/").path == inside


def test_an_incomplete_sharded_checkpoint_is_not_passed_over(tmp_path: Path) -> None:
    v1(tmp_path / "m", 3)
    os.remove(tmp_path / "m-00001-of-00003")
    assert "m-00001-of-00003" in refusal(tmp_path, tb.CheckpointNotFoundError)


def test_the_only_checkpoint_may_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(b"\0\0\x08" * 30)
    assert "m.index" in refusal(tmp_path, tb.CorruptionError)


def test_prefixes_in_subdirectories_are_named(tmp_path: Path) -> None:
    v2(tmp_path / "model" / "checkpoint" / "ckpt-0")
    v2(tmp_path / "model" / "another" / "m")
    said = refusal(tmp_path / "model")
    # The directory that others call a state file comes first.
    named = [f"{tmp_path}/model/checkpoint/ckpt-0", f"{tmp_path}/model/another/m"]
    assert ", ".join(map(repr, named)) in said
    assert "state file" not in said


def test_a_directory_called_checkpoint_is_not_a_state_file(
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
        ('model_checkpoint_path: "m"\n'.encode("utf-16-le"), "UTF-16 text"),  # without its mark
    ],
)
def test_the_state_file_wins_even_if_it_is_of_no_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, reason: str
) -> None:
    prefix = v2(tmp_path / "m")
    (tmp_path / "checkpoint").write_bytes(content)
    said = refusal(tmp_path)
    assert reason in said
    assert f"Give one of its prefixes: {prefix!r}" in said
    assert not caplog.records  # the message has the reason


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
def test_a_state_file_that_is_not_text_gets_a_sentence(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    prefix = v2(tmp_path / "m")
    (tmp_path / "checkpoint").write_bytes(content)
    said = refusal(tmp_path, tb.CorruptionError)
    assert f"{f'{tmp_path}/checkpoint'!r} is not a state file of TensorFlow: " in said
    assert reason in said
    assert f"Give one of its prefixes: {prefix!r}" in said
    assert "codec" not in said
    for function in (tb.latest_checkpoint, tb.get_checkpoint_state):
        with pytest.raises(UnicodeDecodeError) as caught:  # as TensorFlow's do
            function(tmp_path)
        assert said.startswith(str(caught.value))


@pytest.mark.parametrize("content", [b"", b"  \n# nothing\n", b"last_preserved_timestamp: 1"])
def test_a_state_file_that_names_nothing(tmp_path: Path, content: bytes) -> None:
    prefix = v2(tmp_path / "m")
    (tmp_path / "checkpoint").write_bytes(content)
    said = refusal(tmp_path, tb.CorruptionError)
    assert said.startswith(f"Invalid checkpoint state loaded from {tmp_path}")  # TensorFlow's words
    assert repr(prefix) in said


def test_a_byte_order_mark_is_skipped_where_tensorflow_stops(
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
def test_a_state_file_from_windows(
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


def test_backslashes_that_lead_somewhere_mean_themselves(tmp_path: Path) -> None:
    v2(tmp_path / "m-7")
    exact = v2(tmp_path / r"train\m-7")
    below = v2(tmp_path / "eval" / "m-7")
    for recorded, expected in [(r"train\\m-7", exact), (r"eval\\m-7", below)]:
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{recorded}"')
        assert tb.latest_checkpoint(tmp_path) == expected
    (tmp_path / "checkpoint").write_text(r'model_checkpoint_path: "C:\\gone\\"')
    assert tb.latest_checkpoint(tmp_path) is None


def test_a_state_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    v2(tmp_path / "m")
    (tmp_path / "checkpoint").symlink_to("gone")
    assert "symbolic link to 'gone'" in refusal(tmp_path)
    os.remove(tmp_path / "checkpoint")
    os.mkfifo(tmp_path / "checkpoint")
    assert "Not a regular file" in refusal(tmp_path)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(paths, "read_state", refuse)
    with pytest.raises(tb.IOFailure) as caught:
        tb.open(tmp_path)
    assert caught.value.errno == errno.EACCES
    assert caught.value.filename == f"{tmp_path}/checkpoint"


def test_a_directory_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    v2(tmp_path / "m")

    def refuse(path: object) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(tb.IOFailure) as caught:
        tb.open(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EACCES, str(tmp_path))


def test_the_steps_of_reading_a_state_are_public_to_the_package(tmp_path: Path) -> None:
    v2(tmp_path / "m")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m"')
    read = state.read_state(str(tmp_path))
    assert read == tb.get_checkpoint_state(tmp_path)
    assert state.find_latest(read, str(tmp_path)) == f"{tmp_path}/m"
    with pytest.raises(FileNotFoundError):
        state.read_state(str(tmp_path), "other")
