# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a path means.

Nothing is parsed here. Where the path leads to no checkpoint, or to a file that is often mistaken
for one, the error says what was found instead and what to do (`path_diagnosis`).
"""

from __future__ import annotations

import dataclasses
import os

from tensorbundle import path_diagnosis
from tensorbundle.errors import CheckpointNotFoundError, CorruptionError
from tensorbundle.filenames import (
    INDEX_SUFFIX,
    AnyPath,
    data_file_prefix,
    is_there,
    path_text,
    v1_pattern,
    v1_pattern_parts,
    v1_shard,
    v1_shards_on_disk,
)
from tensorbundle.state import get_checkpoint_state, latest_in

__all__ = ["DirectoryWithoutCheckpointError", "Location", "resolve"]


class DirectoryWithoutCheckpointError(CheckpointNotFoundError, ValueError):
    """A directory was given and nothing says which checkpoint in it is meant.

    TensorFlow raises ``ValueError`` for this.
    """


@dataclasses.dataclass(frozen=True)
class Location:
    """A checkpoint on disk.

    Attributes:
        format: 2 for a tensor bundle (V2), 1 for the older single-table format (V1).
        prefix: The name that TensorFlow knows it by: for V1 the file, or ``P-?????-of-NNNNN``.
            Relative if the path was; decoded as `os.fsdecode` does it.
        files: The files to begin with: V2's index, or V1's table files in shard order.
    """

    format: int
    prefix: str
    files: tuple[str, ...]


def resolve(path: AnyPath) -> Location:
    """Find the checkpoint that a path means.

    Args:
        path: A prefix; a directory (its state file is read, else it is a SavedModel's); an
            ``.index`` or ``.data-SSSSS-of-NNNNN`` file; a V1 file, or V1's ``P-?????-of-NNNNN``.
            If a prefix has both a V2 and a V1 checkpoint, V2 is meant.

    Returns:
        Where it is. The files are not opened, except for a look at the first and last bytes.

    Raises:
        CheckpointNotFoundError: There is none, or files of it are missing. It is a ``ValueError``
            too where a directory has no checkpoint.
        CorruptionError: The file is of another kind, or the directory's state file is damaged.
        IOFailure: The system refused to look.
        TypeError: Not a path.
        UnsupportedError: A URL.
        ValueError: The path holds a NUL byte, at which the system would silently cut it off.
    """
    text = path_text(path)
    if "\0" in text:
        raise ValueError(f"a path cannot hold a NUL byte: {text!r}")
    if not text:
        raise CheckpointNotFoundError("an empty path names no checkpoint", text)
    if os.path.isdir(text):
        return _in_directory(text)
    return _require(text)


def _in_directory(directory: str) -> Location:
    state = get_checkpoint_state(directory)
    if state is not None:
        latest = latest_in(state, directory)
        if latest is not None:
            # Never taken as a directory again: a state file may name its own.
            return _require(latest)
    saved_model = os.path.join(directory, "variables", "variables")
    for prefix in (saved_model, directory):
        if is_there(prefix + INDEX_SUFFIX):
            return _plausible(_bundle(prefix))
    raise DirectoryWithoutCheckpointError(
        path_diagnosis.no_checkpoint_in(directory, state), directory
    )


def _require(text: str) -> Location:
    location = _bundle_at(text) or _table_at(text) or _tables_at(text)
    if location is None:
        raise CheckpointNotFoundError(path_diagnosis.not_found(text), text)
    return _plausible(location)


def _plausible(location: Location) -> Location:
    for file in location.files:
        mistaken = path_diagnosis.mistaken_for_checkpoint(file)
        if mistaken is not None:
            raise CorruptionError(mistaken)
    return location


def _bundle_at(text: str) -> Location | None:
    """The V2 checkpoint of this prefix, or the one that this file belongs to."""
    if is_there(text + INDEX_SUFFIX):
        return _bundle(text)
    if text.endswith(INDEX_SUFFIX) and is_there(text):
        return _bundle(text.removesuffix(INDEX_SUFFIX))
    prefix = data_file_prefix(text)
    if prefix is not None and is_there(prefix + INDEX_SUFFIX):
        return _bundle(prefix)
    return None


def _bundle(prefix: str) -> Location:
    return Location(2, prefix, (prefix + INDEX_SUFFIX,))


def _table_at(text: str) -> Location | None:
    """The V1 checkpoint in one file."""
    if data_file_prefix(text) is not None or os.path.isdir(text) or not is_there(text):
        return None
    return Location(1, text, (text,))


def _tables_at(text: str) -> Location | None:
    """The V1 checkpoint in shards, by its pattern or by the stem alone."""
    pattern = v1_pattern_parts(text)
    if pattern is not None:
        stem, count = pattern
        shards = v1_shards_on_disk(stem).get(count)
        return None if shards is None else _complete(stem, count, shards)
    found = v1_shards_on_disk(text)
    complete = [count for count, shards in found.items() if len(shards) == count]
    if len(complete) > 1:
        patterns = ", ".join(repr(v1_pattern(text, count)) for count in sorted(complete))
        raise CheckpointNotFoundError(
            f"{text!r} may mean several checkpoints; give one of {patterns}", text
        )
    for count in complete or sorted(found):
        return _complete(text, count, found[count])
    return None


def _complete(stem: str, count: int, shards: set[int]) -> Location:
    missing = [v1_shard(stem, shard, count) for shard in range(count) if shard not in shards]
    if missing:
        raise CheckpointNotFoundError(
            f"{len(missing)} of the {count} files of the sharded checkpoint "
            f"{v1_pattern(stem, count)!r} are missing: {path_diagnosis.enumerated(missing)}. "
            "Copy all of them into the same directory",
            missing[0],
        )
    files = tuple(v1_shard(stem, shard, count) for shard in range(count))
    return Location(1, v1_pattern(stem, count), files)
