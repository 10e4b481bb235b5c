# SPDX-License-Identifier: Apache-2.0
"""The ``checkpoint`` state file of a directory, and TensorFlow's functions that use it.

The functions behave as those of TensorFlow 2.21, including log messages (under the logger
``tensorbundle``), with two exceptions: paths are not patterns, and a checkpoint that was moved
together with its state file is found.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import numbers
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tensorbundle import path_errors
from tensorbundle.errors import CorruptionError, IOFailure
from tensorbundle.filenames import (
    INDEX_SUFFIX,
    AnyPath,
    path_text,
    printable,
    v1_pattern_parts,
    v1_shards_on_disk,
)
from tensorbundle.text_format import (
    CheckpointState,
    ParseError,
    format_checkpoint_state,
    parse_checkpoint_state,
)

if TYPE_CHECKING:
    import logging

__all__ = [
    "CheckpointState",
    "checkpoint_exists",
    "checkpoints_iterator",
    "find_latest",
    "get_checkpoint_state",
    "latest_checkpoint",
    "latest_in",
    "read_state",
    "update_checkpoint_state",
]

DEFAULT_STATE_FILE = "checkpoint"

# A state file with 100,000 paths has about 10 MB; a file above this limit is not a state file.
_MAX_STATE_FILE_BYTES = 64 << 20

_POLL_SECONDS = 1
_LONGEST_SLEEP = 86400.0  # the system rejects very long sleeps

# The names of TensorFlow's exceptions, with which its log lines begin.
_TENSORFLOW_NAMES = {
    errno.EISDIR: "FailedPreconditionError",
    errno.ENOTDIR: "FailedPreconditionError",
    errno.EACCES: "PermissionDeniedError",
    errno.EPERM: "PermissionDeniedError",
    errno.ENOENT: "NotFoundError",
}


class StateEncodingError(CorruptionError, UnicodeDecodeError):
    """A state file that is not UTF-8 text."""

    def __str__(self) -> str:
        return self.reason

    def with_advice(self, advice: str) -> StateEncodingError:
        """Return the same error with `advice` appended to the message."""
        return StateEncodingError(
            self.encoding, self.object, self.start, self.end, self.reason + advice
        )


@functools.cache
def _logger() -> logging.Logger:
    """Returns the logger. Importing `logging` would be a tenth of the time of the package's."""
    import logging

    return logging.getLogger("tensorbundle")


def get_checkpoint_state(
    checkpoint_dir: AnyPath, latest_filename: AnyPath | None = None
) -> CheckpointState | None:
    """Read a directory's state file.

    Args:
        checkpoint_dir: The directory.
        latest_filename: The state file's name in it; ``checkpoint`` if None.

    Returns:
        The state, with relative paths joined to ``checkpoint_dir``; None if the state file does not
        exist, or if it cannot be read or parsed (which is logged).

    Raises:
        CorruptionError: The file does not name a latest checkpoint, or is not UTF-8.
    """
    directory = path_text(checkpoint_dir)
    name = DEFAULT_STATE_FILE if latest_filename is None else path_text(latest_filename)
    state_file = os.path.join(directory, name)
    if not os.path.exists(state_file):
        return None
    try:
        return read_state(directory, name)
    except OSError as error:
        kind = _TENSORFLOW_NAMES.get(error.errno or 0, "UnknownError")
        _log_ignored(state_file, kind, f"{state_file}; {error.strerror}")
        return None
    except ParseError as error:
        _log_ignored(state_file, type(error).__name__, str(error))
        return None


def read_state(
    directory: str, name: str = DEFAULT_STATE_FILE, *, allow_mark: bool = False
) -> CheckpointState:
    """Read a state file as `get_checkpoint_state` does, but raise all errors.

    Args:
        directory: The directory.
        name: The state file's name in it.
        allow_mark: Skip a UTF-8 byte-order mark at the beginning, which TensorFlow rejects.

    Raises:
        OSError: The file cannot be read.
        ParseError: The file is not the text of a state file.
        CorruptionError: The file does not name a latest checkpoint, or is not UTF-8.
    """
    text = _read_text(os.path.join(directory, name))
    state = parse_checkpoint_state(text.removeprefix("\ufeff") if allow_mark else text)
    if not state.model_checkpoint_path:
        raise CorruptionError(f"Invalid checkpoint state loaded from {printable(directory)}")
    return CheckpointState(
        # os.path.join() returns an absolute second path unchanged.
        os.path.join(directory, state.model_checkpoint_path),
        [os.path.join(directory, path) for path in state.all_model_checkpoint_paths],
        state.all_model_checkpoint_timestamps,
        state.last_preserved_timestamp,
    )


def latest_checkpoint(
    checkpoint_dir: AnyPath, latest_filename: AnyPath | None = None
) -> str | None:
    """Return the prefix of the latest checkpoint in a directory's state file.

    Args:
        checkpoint_dir: The directory.
        latest_filename: The state file's name in it; ``checkpoint`` if None.

    Returns:
        The prefix; None without a state, or if the checkpoint does not exist (which is logged).

    Raises:
        CorruptionError: The state file does not name a latest checkpoint, or is not UTF-8.
    """
    state = get_checkpoint_state(checkpoint_dir, latest_filename)
    return None if state is None else latest_in(state, path_text(checkpoint_dir))


def latest_in(state: CheckpointState, directory: str, *, moved: bool = True) -> str | None:
    """Return what `find_latest` returns, and log a message if it is None."""
    found = find_latest(state, directory, moved=moved)
    if found is None:
        _logger().error("Couldn't match files for checkpoint %s", state.model_checkpoint_path)
    return found


def find_latest(state: CheckpointState, directory: str, *, moved: bool = True) -> str | None:
    """Return the prefix of the latest checkpoint of a state, or None if it does not exist.

    State files have absolute paths, which become invalid if the directory is moved, possibly from
    Windows. If the path does not exist, its last component is looked up in ``directory``, then the
    path with backslashes replaced by slashes.

    Args:
        state: The state.
        directory: The directory of the state file.
        moved: Whether to search for a checkpoint that was moved. TensorFlow does not.
    """
    recorded = state.model_checkpoint_path
    if _any_file_exists(recorded):
        return recorded
    if not moved:
        return None
    names = [os.path.basename(recorded)]
    if "\\" in recorded:
        relative = recorded.removeprefix(os.path.join(directory, ""))
        names += [relative.replace("\\", "/"), relative.rpartition("\\")[2]]
    for name in names:
        path = os.path.join(directory, name)
        if not os.path.isdir(path) and _any_file_exists(path):
            _logger().warning("Checkpoint %s does not exist; using %s instead", recorded, path)
            return path
    return None


def update_checkpoint_state(
    directory: AnyPath,
    prefix: AnyPath,
    all_model_checkpoint_paths: Iterable[AnyPath] | None = None,
) -> None:
    """Write a directory's state file, as ``tf.compat.v1.train.update_checkpoint_state`` does.

    The file is replaced at once, after it was synced to the disk. If `directory` is relative,
    relative paths are rewritten to be relative to it.

    Args:
        directory: The directory.
        prefix: The prefix of the latest checkpoint.
        all_model_checkpoint_paths: The prefixes of all checkpoints, oldest first; `prefix` is
            appended if it is not the last one.

    Raises:
        IOFailure: The system failed a write.
        RuntimeError: `prefix` is the path of the state file itself.
    """
    folder = path_text(directory)
    latest = path_text(prefix)
    paths = [path_text(path) for path in all_model_checkpoint_paths or ()]
    if not paths or paths[-1] != latest:
        paths.append(latest)
    if not os.path.isabs(folder):
        latest, *paths = (
            path if os.path.isabs(path) else os.path.relpath(path, folder)
            for path in (latest, *paths)
        )
    state_file = os.path.join(folder, DEFAULT_STATE_FILE)
    if state_file == latest:
        raise RuntimeError(f"the prefix {latest!r} is the path of the state file")
    text = format_checkpoint_state(CheckpointState(latest, paths, [], 0.0))
    temporary = f"{state_file}.tempstate{os.getpid()}-{os.urandom(8).hex()}"
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, state_file)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise IOFailure(
            f"cannot write {state_file}", error.errno or errno.EIO, state_file
        ) from None


def checkpoint_exists(checkpoint_prefix: AnyPath) -> bool:
    """Return whether a V2 or V1 checkpoint exists (a sharded V1 checkpoint by its pattern).

    As in TensorFlow, the result is also true for any file or directory of exactly that name.
    """
    return _any_file_exists(path_text(checkpoint_prefix))


def checkpoints_iterator(
    checkpoint_dir: AnyPath,
    min_interval_secs: float = 0,
    timeout: float | None = None,
    timeout_fn: Callable[[], object] | None = None,
) -> Iterator[str]:
    """Yield the prefix of each new latest checkpoint of a directory, polling once a second.

    Args:
        checkpoint_dir: The directory, which may not exist yet.
        min_interval_secs: The minimum time between two yields.
        timeout: The time to wait for a new checkpoint, in seconds; None means no limit.
        timeout_fn: Called after every timeout and after every yield. A true result ends the
            iteration. Without it, a timeout ends the iteration.

    Yields:
        The prefix, whenever it differs from the last one.

    Raises:
        CorruptionError: The state file does not name a latest checkpoint, or is not UTF-8.
        TypeError, ValueError: An interval or a timeout is not a number. Raised by the first step.
    """
    interval = _seconds("min_interval_secs", min_interval_secs)
    timeout = None if timeout is None else _seconds("timeout", timeout)
    if timeout_fn is not None and not callable(timeout_fn):
        raise TypeError(f"timeout_fn must be callable, not {type(timeout_fn).__name__}")
    previous: str | None = None
    while True:
        found = _wait_for_new_checkpoint(checkpoint_dir, previous, timeout)
        if found is not None:
            previous = found
            start = time.monotonic()
            yield found
            pause = start + interval - time.monotonic()
            while pause > 0:
                time.sleep(min(pause, _LONGEST_SLEEP))
                pause -= _LONGEST_SLEEP
        elif timeout_fn is None:
            _logger().info("Timed-out waiting for a checkpoint (without timeout_fn).")
            return
        if timeout_fn is not None and timeout_fn():
            _logger().info("Done. No new checkpoints will be generated.")
            return


def _seconds(name: str, value: Any) -> float:
    """Return a number of seconds as a float; integers that overflow become infinite."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = -math.inf if value < 0 else math.inf
    if math.isnan(seconds):
        raise ValueError(f"{name} must be a number of seconds, not {seconds}")
    return seconds


def _wait_for_new_checkpoint(
    checkpoint_dir: AnyPath, previous: str | None, timeout: float | None
) -> str | None:
    _logger().info("Waiting for new checkpoint at %s", path_text(checkpoint_dir))
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        found = latest_checkpoint(checkpoint_dir)
        if found is not None and found != previous:
            _logger().info("Found new checkpoint at %s", found)
            return found
        # Do not wait for a poll after the deadline.
        if deadline is not None and time.monotonic() + _POLL_SECONDS > deadline:
            return None
        time.sleep(_POLL_SECONDS)


def _log_ignored(state_file: str, kind: str, reason: str) -> None:
    _logger().warning("%s: %s", kind, reason)
    _logger().warning("%s: Checkpoint ignored", state_file)


def _read_text(path: str) -> str:
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    # Opening a FIFO would block until it has a writer.
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", path)
    if status.st_size > _MAX_STATE_FILE_BYTES:
        raise OSError(errno.EFBIG, f"{status.st_size} bytes are too many for a state file", path)
    with open(path, "rb", buffering=0) as file:
        data = file.readall()  # read(limit) would allocate the limit
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = (
            f"{path!r} is not a state file of TensorFlow: {_describe_decode_error(data, error)}"
        )
        # Keep only the invalid bytes in the exception, not the whole file.
        invalid = data[error.start : error.end]
        raise StateEncodingError("utf-8", invalid, 0, len(invalid), reason) from None


def _describe_decode_error(data: bytes, error: UnicodeDecodeError) -> str:
    kind = path_errors.describe_content(data)
    if kind is not None:
        return f"it {kind}"
    return f"byte {data[error.start]:#04x} at offset {error.start} is not UTF-8 text"


def _any_file_exists(prefix: str) -> bool:
    if os.path.exists(prefix + INDEX_SUFFIX) or os.path.exists(prefix):
        return True
    sharded = v1_pattern_parts(prefix)
    return sharded is not None and sharded[1] in v1_shards_on_disk(sharded[0])
