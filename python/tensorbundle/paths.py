# SPDX-License-Identifier: Apache-2.0
"""Resolution of paths to checkpoints.

This module does not parse checkpoints. For a path without a checkpoint, or to a file that is often
mistaken for one, the error describes the path and the remedy (`path_errors`).
"""

from __future__ import annotations

import dataclasses
import errno
import os

from tensorbundle import path_errors
from tensorbundle.errors import (
    CheckpointNotFoundError,
    CorruptionError,
    IOFailure,
    UnsupportedError,
)
from tensorbundle.filenames import (
    INDEX_SUFFIX,
    AnyPath,
    data_file_prefix,
    names_in,
    path_exists,
    path_text,
    url_without_slash,
    v1_pattern,
    v1_pattern_parts,
    v1_shard,
    v1_shards_on_disk,
)
from tensorbundle.state import (
    DEFAULT_STATE_FILE,
    StateEncodingError,
    find_latest,
    get_checkpoint_state,
    latest_in,
    read_state,
)
from tensorbundle.text_format import ParseError

__all__ = ["DirectoryWithoutCheckpointError", "Location", "describe_wrong_files", "resolve"]

_LONGEST_PATH = 4096  # Linux's PATH_MAX
# The errors for a state file that is a broken link, not a regular file, or too large.
_NOT_A_STATE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EFBIG)


class DirectoryWithoutCheckpointError(CheckpointNotFoundError, ValueError):
    """A directory does not determine a checkpoint.

    TensorFlow raises ``ValueError`` for this.
    """


@dataclasses.dataclass(frozen=True)
class Location:
    """A checkpoint on disk.

    Attributes:
        format: 2 for a tensor bundle (V2), 1 for the older single-table format (V1).
        prefix: The prefix; for V1 the file, or ``P-?????-of-NNNNN``. Relative if the path was
            relative, and decoded by `os.fsdecode`.
        files: The files to open: V2's index, or V1's table files in shard order.
    """

    format: int
    prefix: str
    files: tuple[str, ...]


def resolve(path: AnyPath, *, as_tensorflow: bool = False) -> Location:
    """Find the checkpoint of a path.

    A directory with a state file resolves to the checkpoint that the file names. Without a state
    file, it resolves to the variables of a SavedModel; else to the prefix with the directory's own
    name; else to the only prefix in it.

    Args:
        path: A prefix; a directory; an ``.index`` or ``.data-SSSSS-of-NNNNN`` file; a V1 file, or
            V1's ``P-?????-of-NNNNN``. If a prefix has both a V2 and a V1 checkpoint, V2 is
            returned. A path that does not exist and begins with ``~`` is expanded.
        as_tensorflow: Accept only the paths that ``tf.train.load_checkpoint`` accepts: directories
            whose state file names an existing path; no ``.index`` or ``.data-`` files; no ``~``;
            sharded V1 checkpoints only by their pattern. Log TensorFlow's messages about the state
            file.

    Returns:
        The location. Of V1's files, the first and last bytes are read. Whether a V2 index is one is
        found when it is opened: see `describe_wrong_files`.

    Raises:
        CheckpointNotFoundError: The checkpoint does not exist, or some of its files are missing.
            For a directory with no checkpoint or several, it is also a ``ValueError``.
        CorruptionError: A V1 file is of another kind, or the directory's state file is invalid.
        IOFailure: The system failed to access the path.
        TypeError: `path` is not a path.
        UnsupportedError: `path` is a URL.
        ValueError: The path has a NUL byte or another character that file names cannot have.
    """
    text = path_text(path)
    if "\0" in text:
        raise ValueError(f"a path cannot have a NUL byte: {text!r}")
    if not text:
        raise CheckpointNotFoundError("the path of a checkpoint cannot be empty", text)
    if as_tensorflow:
        if os.path.isdir(text):
            return _in_directory_as_tensorflow(text)
        location = _bundle_at(text) or _table_at(text) or _tables_of_pattern(text)
        return _require_location(location, text)
    if os.path.isdir(text):
        return _in_directory(text)
    location = _locate(text)
    also = _alternative_path(text) if location is None else None
    if also is not None:
        if os.path.isdir(also):
            return _in_directory(also)
        location = _locate(also)
    return _require_location(location, text, also)


def _alternative_path(text: str) -> str | None:
    """Return another path to try for a path that does not exist, or None."""
    url = url_without_slash(text)
    if url is not None:
        if url.lower().startswith("file:"):
            return text[len("file:") :]
        raise UnsupportedError(
            f"{text!r} looks like the URL {url!r}, from which pathlib.Path removes a slash; only "
            "local paths can be read: copy the checkpoint to a local directory, or mount it"
        )
    if text.startswith("~"):
        expanded = os.path.expanduser(text)
        return None if expanded == text else expanded
    return None


def _in_directory(directory: str) -> Location:
    state_file = os.path.join(directory, DEFAULT_STATE_FILE)
    if os.path.lexists(state_file) and not os.path.isdir(state_file):
        # Do not resolve the result as a directory: a state file may name its own directory.
        latest = _latest_by_state(directory, state_file)
        return _require_location(_locate(latest), latest)
    saved_model = os.path.join(directory, "variables", "variables")
    for prefix in (saved_model, directory):
        if path_exists(prefix + INDEX_SUFFIX):
            return _check_files(_bundle(prefix))
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        message = f"cannot list the directory {directory!r}"
        raise IOFailure(message, error.errno or errno.EIO, directory) from error
    prefixes = path_errors.prefixes_in(directory, names)
    if len(prefixes) == 1:
        prefix = os.path.join(directory, prefixes[0])
        return _require_location(_locate(prefix), prefix)
    raise DirectoryWithoutCheckpointError(path_errors.no_checkpoint_in(directory), directory)


def _latest_by_state(directory: str, state_file: str) -> str:
    """Return the path of the latest checkpoint in a directory's state file."""
    try:
        state = read_state(directory, allow_mark=True)
    except ParseError as error:
        kind = path_errors.describe_file(state_file)
        reason = f"it {kind}" if kind else str(error)
        problem = f"its 'checkpoint' file is not a state file of TensorFlow ({reason})"
    except StateEncodingError as error:
        raise error.with_advice(_prefix_advice(directory)) from None
    except CorruptionError as error:
        raise CorruptionError(
            f"{error}: its 'checkpoint' file does not name a checkpoint{_prefix_advice(directory)}"
        ) from None
    except OSError as error:
        if error.errno not in _NOT_A_STATE_FILE:
            number = error.errno or errno.EIO
            message = f"cannot read the state file {state_file!r}"
            raise IOFailure(message, number, state_file) from error
        reason = path_errors.describe_dangling_link(state_file) or str(error.strerror)
        problem = f"its 'checkpoint' file cannot be read ({reason})"
    else:
        latest = find_latest(state, directory)
        if latest is not None:
            return latest
        recorded = state.model_checkpoint_path
        problem = f"its 'checkpoint' file names {recorded!r}, which does not exist"
    raise DirectoryWithoutCheckpointError(
        path_errors.no_checkpoint_in(directory, problem), directory
    )


def _prefix_advice(directory: str) -> str:
    prefixes = path_errors.prefixes_in(directory, names_in(directory))
    return f". {path_errors.list_prefixes(directory, prefixes)}" if prefixes else ""


def _in_directory_as_tensorflow(directory: str) -> Location:
    state = get_checkpoint_state(directory)
    latest = None if state is None else latest_in(state, directory, moved=False)
    if latest is not None:
        return _require_location(
            _bundle_at(latest) or _table_at(latest) or _tables_of_pattern(latest), latest
        )
    recorded = None if state is None else state.model_checkpoint_path
    problem = recorded and f"its 'checkpoint' file names {recorded!r}, which does not exist"
    raise DirectoryWithoutCheckpointError(
        path_errors.no_checkpoint_in(directory, problem), directory
    )


def _require_location(location: Location | None, text: str, also: str | None = None) -> Location:
    if location is None:
        if len(text) > _LONGEST_PATH:
            raise CheckpointNotFoundError(
                f"no checkpoint at {text[:100]!r}...: no file's path has {len(text)} characters",
                text,
            )
        raise CheckpointNotFoundError(path_errors.not_found(text, also), text)
    return _check_files(location)


def _check_files(location: Location) -> Location:
    # What is not an index fails when it is opened, and is described then.
    if location.format == 1:
        describe_wrong_files(location)
    return location


def describe_wrong_files(location: Location) -> None:
    """Raise CorruptionError with the remedy if a file is one that is often mistaken for another."""
    for file in location.files:
        mistaken = path_errors.describe_wrong_file(file, location.format)
        if mistaken is not None:
            raise CorruptionError(mistaken) from None


def _locate(text: str) -> Location | None:
    """Return the checkpoint of a path that is not a directory, or None."""
    prefix = data_file_prefix(text)
    location = _bundle_at(text)
    if location is None and text.endswith(INDEX_SUFFIX) and path_exists(text):
        location = _bundle(text.removesuffix(INDEX_SUFFIX))
    if location is None and prefix is not None:
        location = _bundle_at(prefix)
    if location is None and prefix is None:
        location = _table_at(text)
    return location or _tables_of_pattern(text) or _tables_of_stem(text)


def _bundle_at(prefix: str) -> Location | None:
    """Return the V2 checkpoint of a prefix, or None."""
    return _bundle(prefix) if path_exists(prefix + INDEX_SUFFIX) else None


def _bundle(prefix: str) -> Location:
    return Location(2, prefix, (prefix + INDEX_SUFFIX,))


def _table_at(text: str) -> Location | None:
    """Return the V1 checkpoint in one file, or None."""
    if os.path.isdir(text) or not path_exists(text):
        return None
    return Location(1, text, (text,))


def _tables_of_pattern(text: str) -> Location | None:
    """Return the sharded V1 checkpoint of a pattern, or None."""
    pattern = v1_pattern_parts(text)
    if pattern is None:
        return None
    stem, count = pattern
    shards = v1_shards_on_disk(stem).get(count)
    return None if shards is None else _sharded_location(stem, count, shards)


def _tables_of_stem(text: str) -> Location | None:
    """Return the sharded V1 checkpoint of a stem, or None."""
    found = v1_shards_on_disk(text)
    complete = [count for count, shards in found.items() if len(shards) == count]
    if len(complete) > 1:
        patterns = ", ".join(repr(v1_pattern(text, count)) for count in sorted(complete))
        raise CheckpointNotFoundError(
            f"{text!r} matches several checkpoints; give one of {patterns}", text
        )
    for count in complete or sorted(found):
        return _sharded_location(text, count, found[count])
    return None


def _sharded_location(stem: str, count: int, shards: set[int]) -> Location:
    files = tuple(v1_shard(stem, shard, count) for shard in range(count))
    missing = [
        file for shard, file in enumerate(files) if shard not in shards or not path_exists(file)
    ]
    if missing:
        raise CheckpointNotFoundError(
            f"{len(missing)} of the {count} files of the sharded checkpoint "
            f"{v1_pattern(stem, count)!r} are missing: {path_errors.format_names(missing)}. "
            "Copy all files into the same directory",
            missing[0],
        )
    return Location(1, v1_pattern(stem, count), files)
