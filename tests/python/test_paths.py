# SPDX-License-Identifier: Apache-2.0
"""Resolving paths to checkpoints, and the messages for paths without a checkpoint."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

import tensorbundle as tb
from tensorbundle import errors
from tensorbundle.filenames import v1_shard_parts, v1_shards_on_disk
from tensorbundle.paths import DirectoryWithoutCheckpointError, Location, resolve

MAGIC = bytes.fromhex("57fb808b247547db")


def touch(path: Path, data: bytes = b"") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def bundle(prefix: Path, shards: int = 1) -> Location:
    """Creates the files of an empty V2 checkpoint; returns its expected location."""
    for shard in range(shards):
        touch(prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}"))
    index = touch(prefix.with_name(f"{prefix.name}.index"), MAGIC)
    return Location(2, str(prefix), (index,))


def tables(stem: Path, shards: int) -> Location:
    """Creates the files of a sharded V1 checkpoint; returns its expected location."""
    files = tuple(touch(Path(f"{stem}-{s:05d}-of-{shards:05d}"), MAGIC) for s in range(shards))
    return Location(1, f"{stem}-?????-of-{shards:05d}", files)


def message_of(path, exception: type[BaseException], call=resolve) -> str:
    """Returns the message of the exception that a function raises, which must pickle."""
    with pytest.raises(exception) as caught:
        call(path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return str(caught.value)


# --- paths that resolve


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00001-of-00003", ".data-?????-of-00003"])
def test_resolves_prefix_and_files_of_v2_checkpoint(tmp_path: Path, suffix: str) -> None:
    expected = bundle(tmp_path / "m", 3)
    assert resolve(f"{tmp_path}/m{suffix}") == expected


def test_resolves_name_of_missing_data_file(tmp_path: Path) -> None:
    expected = bundle(tmp_path / "m", 2)
    os.remove(tmp_path / "m.data-00001-of-00002")
    assert resolve(tmp_path / "m.data-00001-of-00002") == expected


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, "file://{}".format])
def test_accepts_every_path_type(tmp_path: Path, kind) -> None:
    expected = bundle(tmp_path / "m")
    found = resolve(kind(str(tmp_path / "m")))
    assert found == expected
    assert type(found.prefix) is str


def test_keeps_path_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tmp_path / "a" / "m")
    touch(tmp_path / "a" / "checkpoint", b'model_checkpoint_path: "m"')
    monkeypatch.chdir(tmp_path)
    for path, prefix in [
        ("a/m", "a/m"),
        ("./a/m", "./a/m"),
        ("./a/../a//m.index", "./a/../a//m"),
        ("a", "a/m"),
        ("a/", "a/m"),
        ("./a/.", "./a/./m"),
    ]:
        assert resolve(path) == Location(2, prefix, (f"{prefix}.index",))
    monkeypatch.chdir(tmp_path / "a")
    assert resolve(".").prefix == "./m"
    assert resolve("m").prefix == "m"


def test_accepts_name_that_is_not_utf8(tmp_path: Path) -> None:
    prefix = os.fsencode(tmp_path) + b"/\xffm"
    try:
        with open(prefix + b".index", "wb") as file:
            file.write(MAGIC)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    assert os.fsencode(resolve(prefix).prefix) == prefix


@pytest.mark.parametrize("name", ["[", "m[1]", "m*", "m?", "a\\b", "m-?????", "ü 1"])
def test_pattern_characters_are_literal(tmp_path: Path, name: str) -> None:
    bundle(tmp_path / "m1")
    expected = bundle(tmp_path / name / name)
    assert resolve(tmp_path / name / name) == expected
    (tmp_path / name / "checkpoint").write_text(
        f"model_checkpoint_path: '{name}'".replace("\\", r"\\")
    )
    assert resolve(tmp_path / name) == expected


def test_resolves_v1_file(tmp_path: Path) -> None:
    file = touch(tmp_path / "m", MAGIC)
    assert resolve(file) == Location(1, file, (file,))


def test_v2_has_precedence_over_v1(tmp_path: Path) -> None:
    touch(tmp_path / "m", MAGIC)
    tables(tmp_path / "m", 2)
    expected = bundle(tmp_path / "m")
    assert resolve(tmp_path / "m") == expected


def test_name_with_known_suffix_is_first_a_prefix(tmp_path: Path) -> None:
    bundle(tmp_path / "m")
    expected = [bundle(tmp_path / name) for name in ("m.index", "m.data-00000-of-00001", "m.meta")]
    assert [resolve(location.prefix) for location in expected] == expected


def test_resolves_sharded_v1_by_pattern_and_by_stem(tmp_path: Path) -> None:
    expected = tables(tmp_path / "m", 3)
    touch(tmp_path / "m2-00000-of-00003")
    assert resolve(f"{tmp_path}/m-?????-of-00003") == expected
    assert resolve(tmp_path / "m") == expected


def test_single_v1_shard_resolves_to_itself(tmp_path: Path) -> None:
    shard = tables(tmp_path / "m", 2).files[1]
    assert resolve(shard) == Location(1, shard, (shard,))


def test_file_named_like_pattern_resolves_to_itself(tmp_path: Path) -> None:
    tables(tmp_path / "m", 2)
    file = touch(tmp_path / "m-?????-of-00002", MAGIC)
    assert resolve(file) == Location(1, file, (file,))


def test_complete_shard_set_has_precedence_over_leftovers(tmp_path: Path) -> None:
    touch(tmp_path / "m-00000-of-00002")
    expected = tables(tmp_path / "m", 3)
    assert resolve(tmp_path / "m") == expected


@pytest.mark.parametrize("name", ["m-0-of-00002", "m-000000-of-00002", "m-00000-of-2"])
def test_shard_numbers_have_five_digits(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name, MAGIC)
    assert v1_shard_parts(name) is None
    assert v1_shards_on_disk(f"{tmp_path}/m") == {}
    assert resolve(tmp_path / name) == Location(1, f"{tmp_path}/{name}", (f"{tmp_path}/{name}",))


def test_two_complete_shard_sets_raise_error(tmp_path: Path) -> None:
    tables(tmp_path / "m", 2)
    expected = tables(tmp_path / "m", 3)
    message = message_of(tmp_path / "m", errors.CheckpointNotFoundError)
    assert "m-?????-of-00002" in message
    assert "m-?????-of-00003" in message
    assert resolve(expected.prefix) == expected


@pytest.mark.parametrize("name", ["m", "m-?????-of-00004"])
def test_error_names_missing_v1_shards(tmp_path: Path, name: str) -> None:
    files = tables(tmp_path / "m", 4).files
    os.remove(files[1])
    os.remove(files[3])
    with pytest.raises(errors.CheckpointNotFoundError) as caught:
        resolve(tmp_path / name)
    assert caught.value.filename == files[1]
    assert files[1] in str(caught.value)
    assert files[3] in str(caught.value)
    assert files[0] not in str(caught.value)


def test_special_files_are_left_to_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.index")
    os.mkfifo(tmp_path / "v1")
    assert resolve(tmp_path / "m").format == 2
    assert resolve(tmp_path / "v1").format == 1


# --- directories


def test_resolves_directory_by_state_file(tmp_path: Path) -> None:
    bundle(tmp_path / "m-1")
    expected = bundle(tmp_path / "m-2")
    bundle(tmp_path / "variables" / "variables")
    touch(tmp_path / "checkpoint", b'model_checkpoint_path: "m-2"')
    assert resolve(tmp_path) == expected
    assert resolve(os.fsencode(tmp_path)) == expected


def test_resolves_directory_with_sharded_v1_checkpoint(tmp_path: Path) -> None:
    expected = tables(tmp_path / "m", 2)
    touch(tmp_path / "checkpoint", b'model_checkpoint_path: "m-?????-of-00002"')
    assert resolve(tmp_path) == expected


def test_resolves_moved_directory(tmp_path: Path) -> None:
    expected = bundle(tmp_path / "m-2")
    touch(tmp_path / "checkpoint", b'model_checkpoint_path: "/no/such/place/m-2"')
    assert resolve(tmp_path) == expected


def test_resolves_saved_model(tmp_path: Path) -> None:
    touch(tmp_path / "saved_model.pb")
    expected = bundle(tmp_path / "variables" / "variables")
    assert resolve(tmp_path) == expected


def test_state_file_selects_directory_over_prefix(tmp_path: Path) -> None:
    sibling = bundle(tmp_path / "m")
    (tmp_path / "m").mkdir()
    assert resolve(tmp_path / "m") == sibling
    assert resolve(tmp_path / "m.index") == sibling
    inside = bundle(tmp_path / "m" / "best")
    touch(tmp_path / "m" / "checkpoint", b'model_checkpoint_path: "best"')
    assert resolve(tmp_path / "m") == inside


def test_state_file_naming_its_directory_raises_error(tmp_path: Path) -> None:
    touch(tmp_path / "checkpoint", b'model_checkpoint_path: "."')
    message_of(tmp_path, errors.CheckpointNotFoundError)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, "m-1"),
        (b"nonsense", "not a state file of TensorFlow"),
        (b'model_checkpoint_path: "gone"', "gone"),
    ],
)
def test_directory_without_checkpoint_raises_error(
    tmp_path: Path, state: bytes | None, reason: str
) -> None:
    bundle(tmp_path / "m-1")
    tables(tmp_path / "old", 2)
    if state is not None:
        touch(tmp_path / "checkpoint", state)
    message = message_of(tmp_path, ValueError)
    assert message == message_of(tmp_path, DirectoryWithoutCheckpointError)
    assert message == message_of(tmp_path, FileNotFoundError)
    start = f"Couldn't find 'checkpoint' file or checkpoints in given directory {tmp_path}"
    assert message.startswith(start)
    assert reason in message
    assert repr(f"{tmp_path}/m-1") in message
    assert repr(f"{tmp_path}/old-?????-of-00002") in message
    assert ".data" not in message


def test_empty_directory_raises_error(tmp_path: Path) -> None:
    assert "no file whose name ends in '.index'" in message_of(
        tmp_path, DirectoryWithoutCheckpointError
    )


def test_long_lists_are_truncated(tmp_path: Path) -> None:
    for number in range(12):
        touch(tmp_path / f"m-{number:02}.index")
    message = message_of(tmp_path, DirectoryWithoutCheckpointError)
    assert "m-04" in message
    assert "m-05" not in message
    assert "and 7 more" in message


@pytest.mark.parametrize("state", [b"", b"\xff"])
def test_invalid_state_file_raises_corruption_error(tmp_path: Path, state: bytes) -> None:
    touch(tmp_path / "checkpoint", state)
    assert str(tmp_path) in message_of(tmp_path, errors.CorruptionError)


# --- paths that do not resolve


@pytest.mark.parametrize("path", [None, 3, 1.5, ["m"], object()])
def test_other_type_raises_type_error(path) -> None:
    assert type(path).__name__ in message_of(path, TypeError)


@pytest.mark.parametrize("path", ["a\0b", b"a\0b", Path("\0")])
def test_nul_byte_raises_value_error(path) -> None:
    assert "NUL" in message_of(path, ValueError)


@pytest.mark.parametrize("path", ["gs://b/m", "hdfs://n/m", "ram://m", b"s3://b/m", "https://h/m"])
def test_remote_path_raises_unsupported_error(path) -> None:
    assert "local paths" in message_of(path, errors.UnsupportedError)


def test_empty_path_raises_not_found_error() -> None:
    message_of("", errors.CheckpointNotFoundError)


def test_error_suggests_similar_prefixes(tmp_path: Path) -> None:
    bundle(tmp_path / "model.ckpt-1000")
    bundle(tmp_path / "unrelated")
    with pytest.raises(errors.CheckpointNotFoundError) as caught:
        resolve(tmp_path / "model.ckpt-100")
    assert caught.value.filename == f"{tmp_path}/model.ckpt-100"
    assert f"{tmp_path}/model.ckpt-100.index" in str(caught.value)
    assert repr(f"{tmp_path}/model.ckpt-1000") in str(caught.value)
    assert "unrelated" not in str(caught.value)


@pytest.mark.parametrize("name", ["m/", "m.index/"])
def test_error_suggests_path_without_trailing_slash(tmp_path: Path, name: str) -> None:
    bundle(tmp_path / "m")
    assert repr(f"{tmp_path}/m") in message_of(f"{tmp_path}/{name}", errors.CheckpointNotFoundError)


@pytest.mark.parametrize("name", ["zzz", "zzz.index", "zzz.data-00000-of-00001"])
def test_error_lists_other_checkpoints(tmp_path: Path, name: str) -> None:
    message = message_of(tmp_path / name, errors.CheckpointNotFoundError)
    assert "There is no checkpoint in" in message
    bundle(tmp_path / "model")
    message = message_of(tmp_path / name, errors.CheckpointNotFoundError)
    assert "'model'" in message
    assert f"{tmp_path}/zzz.index" in message


def test_error_names_existing_parent_directory(tmp_path: Path) -> None:
    message = message_of(tmp_path / "a" / "b" / "m", errors.CheckpointNotFoundError)
    assert (
        f"The directory {str(tmp_path / 'a' / 'b')!r} does not exist ({str(tmp_path)!r} does)"
        in message
    )
    touch(tmp_path / "file")
    message = message_of(tmp_path / "file" / "m", errors.CheckpointNotFoundError)
    assert "is not a directory" in message


def test_does_not_expand_patterns(tmp_path: Path) -> None:
    bundle(tmp_path / "model")
    assert "Patterns are not expanded" in message_of(tmp_path / "mod*", FileNotFoundError)


def test_error_reports_missing_index(tmp_path: Path) -> None:
    expected = bundle(tmp_path / "m", 2)
    os.remove(expected.files[0])
    for name in ("m", "m.index", "m.data-00000-of-00002"):
        message = message_of(tmp_path / name, errors.CheckpointNotFoundError)
        assert "m.data-00001-of-00002" in message
        assert "copy 'm.index' too" in message


def test_error_lists_leftovers_of_interrupted_save(tmp_path: Path) -> None:
    touch(tmp_path / "m.index.tempstate1234")
    touch(tmp_path / "m_temp_0a1b" / "part-00000-of-00001.index")
    touch(tmp_path / "m_temp_report.txt")
    message = message_of(tmp_path / "m", errors.CheckpointNotFoundError)
    assert "'m.index.tempstate1234', 'm_temp_0a1b'" in message
    assert "m_temp_report" not in message


def test_error_mentions_meta_file(tmp_path: Path) -> None:
    touch(tmp_path / "m.meta")
    assert "'m.meta' exists" in message_of(tmp_path / "m", errors.CheckpointNotFoundError)


@pytest.mark.parametrize("name", ["m.index", "m"])
def test_error_names_target_of_dangling_link(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(".git/annex/objects/gone")
    message = message_of(tmp_path / "m", errors.CheckpointNotFoundError)
    assert ".git/annex/objects/gone" in message


def test_symlink_loop_raises_io_failure(tmp_path: Path) -> None:
    (tmp_path / "m.index").symlink_to("m.index")
    with pytest.raises(errors.IOFailure) as caught:
        resolve(tmp_path / "m")
    assert caught.value.filename == f"{tmp_path}/m.index"


def test_too_long_name_raises_not_found_error(tmp_path: Path) -> None:
    message_of(tmp_path / ("m" * 5000), errors.CheckpointNotFoundError)


# --- files that are often mistaken for a checkpoint

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("name", ["m.index", "m", "m-00001-of-00002"])
def test_git_lfs_pointer_raises_corruption_error(tmp_path: Path, name: str) -> None:
    if name == "m-00001-of-00002":
        tables(tmp_path / "m", 2)
    file = touch(tmp_path / name, LFS)
    message = message_of(tmp_path / "m", errors.CorruptionError, tb.open)
    assert "git lfs pull" in message
    assert file in message


@pytest.mark.parametrize(
    ("name", "data", "advice"),
    [
        ("m.meta", b"\x0a\x01graph", "give the prefix"),
        ("saved_model.pb", b"\x08\x01", "give its directory"),
        ("checkpoint", b'model_checkpoint_path: "m"\n', "give the directory"),
        ("state", b'\nall_model_checkpoint_paths : ["m"]', "give the directory"),
        ("m", b"<!DOCTYPE html>\n<html>", "download"),
        ("m", b"\x89HDF\r\n\x1a\n" + bytes(80), "h5py"),
    ],
)
def test_other_files_raise_corruption_error_with_advice(
    tmp_path: Path, name: str, data: bytes, advice: str
) -> None:
    file = touch(tmp_path / name, data)
    message = message_of(file, errors.CorruptionError)
    assert message.startswith(repr(file))
    assert advice in message


@pytest.mark.parametrize("name", ["m.meta", "checkpoint", "saved_model.pb"])
@pytest.mark.parametrize("head", [b"", LFS, b'model_checkpoint_path: "m"'])
def test_table_of_any_name_resolves_to_v1_file(tmp_path: Path, name: str, head: bytes) -> None:
    file = touch(tmp_path / name, head + MAGIC)
    assert resolve(file) == Location(1, file, (file,))


@pytest.mark.parametrize("data", [b"\0\1\2\3" * 100, MAGIC[:7], b"\xff" * 5000])
def test_unknown_content_is_left_to_the_reader(tmp_path: Path, data: bytes) -> None:
    file = touch(tmp_path / "m", data)
    assert resolve(file) == Location(1, file, (file,))


# --- checkpoints written by TensorFlow


def test_resolves_real_checkpoints(checkpoints: Path) -> None:
    indexes = sorted(checkpoints.glob("*/*.index"))
    assert len(indexes) > 5
    for index in indexes:
        prefix = str(index).removesuffix(".index")
        for path in (prefix, index, f"{prefix}.data-00000-of-00001"):
            assert resolve(path) == Location(2, prefix, (str(index),))
    latest = checkpoints / "mnist_tf1" / "model.ckpt-46900"
    assert resolve(checkpoints / "mnist_tf1").prefix == str(latest)
    graph = checkpoints / "embedding_feature_column" / "embedding.ckpt.meta"
    assert "give the prefix" in message_of(graph, errors.CorruptionError)
