# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a path means.

Nothing is parsed here. Where the path leads to no checkpoint, or to a file that is often mistaken
for one, the error says what was found instead and what to do (`path_diagnosis`).
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
    is_there,
    names_in,
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

__all__ = ["DirectoryWithoutCheckpointError", "Location", "resolve"]


_LONGEST_PATH = 4096  # Linux's PATH_MAX
# What the system says of a state file that is a link to nowhere, no regular file, or far too large.
_NOT_A_STATE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EFBIG)


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


def resolve(path: AnyPath, *, as_tensorflow: bool = False) -> Location:
    """Find the checkpoint that a path means.

    Args:
        path: A prefix; a directory (see below); an ``.index`` or ``.data-SSSSS-of-NNNNN`` file; a
            V1 file, or V1's ``P-?????-of-NNNNN``. If a prefix has both a V2 and a V1 checkpoint, V2
            is meant. A path that does not exist and begins with ``~`` is expanded.
        as_tensorflow: Accept what ``tf.train.load_checkpoint`` accepts, and nothing else: of a
            directory, only the checkpoint that its state file names, under exactly that name; no
            ``.index`` or ``.data-`` file; no ``~``; sharded V1 checkpoints only by their pattern.
            What is logged about the state file is what TensorFlow logs.

    A directory with a state file means what the file says. Without one it means the variables of a
    SavedModel; else the prefix of the same name beside it; else the only prefix in it.

    Returns:
        Where it is. The files are not opened, except for a look at the first and last bytes.

    Raises:
        CheckpointNotFoundError: There is none, or files of it are missing. It is a ``ValueError``
            too where a directory has no checkpoint, or several.
        CorruptionError: The file is of another kind, or the directory's state file is damaged.
        IOFailure: The system refused to look.
        TypeError: Not a path.
        UnsupportedError: A URL.
        ValueError: The path has a NUL byte, at which the system would silently cut it off, or
            another character that no file name can have.
    """
    text = path_text(path)
    if "\0" in text:
        raise ValueError(f"a path cannot have a NUL byte: {text!r}")
    if not text:
        raise CheckpointNotFoundError("an empty path names no checkpoint", text)
    if as_tensorflow:
        if os.path.isdir(text):
            return _in_directory_as_tensorflow(text)
        location = _bundle_at(text) or _table_at(text) or _tables_of_pattern(text)
        return _checked(location, text)
    if os.path.isdir(text):
        return _in_directory(text)
    location = _locate(text)
    also = _other_meaning(text) if location is None else None
    if also is not None:
        if os.path.isdir(also):
            return _in_directory(also)
        location = _locate(also)
    return _checked(location, text, also)


def _other_meaning(text: str) -> str | None:
    """What a path that does not exist may also be meant as."""
    url = url_without_slash(text)
    if url is not None:
        if url.lower().startswith("file:"):
            return text[len("file:") :]
        raise UnsupportedError(
            f"{text!r} looks like the URL {url!r}, from which pathlib.Path takes a slash; only "
            "local paths can be read: copy the checkpoint to a local directory, or mount it"
        )
    if text.startswith("~"):
        expanded = os.path.expanduser(text)
        return None if expanded == text else expanded
    return None


def _in_directory(directory: str) -> Location:
    state_file = os.path.join(directory, DEFAULT_STATE_FILE)
    if os.path.lexists(state_file) and not os.path.isdir(state_file):
        # Never taken as a directory again: a state file may name its own.
        latest = _latest_by_state(directory, state_file)
        return _checked(_locate(latest), latest)
    saved_model = os.path.join(directory, "variables", "variables")
    for prefix in (saved_model, directory):
        if is_there(prefix + INDEX_SUFFIX):
            return _plausible(_bundle(prefix))
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        message = f"cannot list the directory {directory!r}"
        raise IOFailure(message, error.errno or errno.EIO, directory) from error
    prefixes = path_errors.prefixes_in(directory, names)
    if len(prefixes) == 1:
        prefix = os.path.join(directory, prefixes[0])
        return _checked(_locate(prefix), prefix)
    raise DirectoryWithoutCheckpointError(path_errors.no_checkpoint_in(directory), directory)


def _latest_by_state(directory: str, state_file: str) -> str:
    """The checkpoint that a directory's state file names."""
    try:
        state = read_state(directory, allow_mark=True)
    except ParseError as error:
        kind = path_errors.kind_of_file(state_file)
        reason = f"it {kind}" if kind else str(error)
        problem = f"its 'checkpoint' file is not a state file of TensorFlow ({reason})"
    except StateEncodingError as error:
        raise error.with_advice(_advice(directory)) from None
    except CorruptionError as error:
        raise CorruptionError(
            f"{error}: its 'checkpoint' file names no checkpoint{_advice(directory)}"
        ) from None
    except OSError as error:
        if error.errno not in _NOT_A_STATE_FILE:
            number = error.errno or errno.EIO
            message = f"cannot read the state file {state_file!r}"
            raise IOFailure(message, number, state_file) from error
        reason = path_errors.dangling(state_file) or str(error.strerror)
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


def _advice(directory: str) -> str:
    prefixes = path_errors.prefixes_in(directory, names_in(directory))
    return f". {path_errors.give_one_of(directory, prefixes)}" if prefixes else ""


def _in_directory_as_tensorflow(directory: str) -> Location:
    state = get_checkpoint_state(directory)
    latest = None if state is None else latest_in(state, directory, moved=False)
    if latest is not None:
        return _checked(
            _bundle_at(latest) or _table_at(latest) or _tables_of_pattern(latest), latest
        )
    recorded = None if state is None else state.model_checkpoint_path
    problem = recorded and f"its 'checkpoint' file names {recorded!r}, which does not exist"
    raise DirectoryWithoutCheckpointError(
        path_errors.no_checkpoint_in(directory, problem), directory
    )


def _checked(location: Location | None, text: str, also: str | None = None) -> Location:
    if location is None:
        if len(text) > _LONGEST_PATH:
            raise CheckpointNotFoundError(
                f"no checkpoint at {text[:100]!r}...: no file's path has {len(text)} characters",
                text,
            )
        raise CheckpointNotFoundError(path_errors.not_found(text, also), text)
    return _plausible(location)


def _plausible(location: Location) -> Location:
    for file in location.files:
        mistaken = path_errors.mistaken_for_checkpoint(file, location.format)
        if mistaken is not None:
            raise CorruptionError(mistaken)
    return location


def _locate(text: str) -> Location | None:
    """The checkpoint of a path that is not a directory, whichever way it is named."""
    prefix = data_file_prefix(text)
    location = _bundle_at(text)
    if location is None and text.endswith(INDEX_SUFFIX) and is_there(text):
        location = _bundle(text.removesuffix(INDEX_SUFFIX))
    if location is None and prefix is not None:
        location = _bundle_at(prefix)
    if location is None and prefix is None:
        location = _table_at(text)
    return location or _tables_of_pattern(text) or _tables_of_stem(text)


def _bundle_at(prefix: str) -> Location | None:
    """The V2 checkpoint of this prefix."""
    return _bundle(prefix) if is_there(prefix + INDEX_SUFFIX) else None


def _bundle(prefix: str) -> Location:
    return Location(2, prefix, (prefix + INDEX_SUFFIX,))


def _table_at(text: str) -> Location | None:
    """The V1 checkpoint in one file."""
    if os.path.isdir(text) or not is_there(text):
        return None
    return Location(1, text, (text,))


def _tables_of_pattern(text: str) -> Location | None:
    """The V1 checkpoint in shards, by its pattern."""
    pattern = v1_pattern_parts(text)
    if pattern is None:
        return None
    stem, count = pattern
    shards = v1_shards_on_disk(stem).get(count)
    return None if shards is None else _complete(stem, count, shards)


def _tables_of_stem(text: str) -> Location | None:
    """The V1 checkpoint in shards, by what comes before the numbers."""
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
    files = tuple(v1_shard(stem, shard, count) for shard in range(count))
    missing = [
        file for shard, file in enumerate(files) if shard not in shards or not is_there(file)
    ]
    if missing:
        raise CheckpointNotFoundError(
            f"{len(missing)} of the {count} files of the sharded checkpoint "
            f"{v1_pattern(stem, count)!r} are missing: {path_errors.enumerated(missing)}. "
            "Copy all of them into the same directory",
            missing[0],
        )
    return Location(1, v1_pattern(stem, count), files)
