# SPDX-License-Identifier: Apache-2.0
"""``tf.io.gfile`` and ``tf.gfile`` of the stand-in, for local files.

The functions return and raise what TensorFlow's do; other file systems raise
``tf.errors.UnimplementedError``. ``GFile`` opens its file at the first read or write, and reads
lines that end with a line feed; it decodes them as UTF-8.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import io
import os
import posixpath
import re
import shutil
import stat as _stat
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tensorbundle.filenames import path_text
from tensorbundle.tensorflow_api import errors
from tensorbundle.tensorflow_api.raised import as_tensorflow_raises
from tensorbundle.tensorflow_api.text import as_bytes, as_str_any, path_to_str

_COPIED_BYTES = 1 << 20
_MODES = ("r", "w", "a", "r+", "w+", "a+")
_WILDCARD = re.compile(r"[*?\[{\\]")


class FileStatistics(NamedTuple):
    """What ``stat`` returns."""

    length: int
    mtime_nsec: int
    is_directory: bool


def _shown(path: Any) -> str:
    """Returns a path as text, for a message.

    Raises:
        TypeError: It is not a path.
    """
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(f"Expected binary or unicode string, got {path!r}") from None


@contextlib.contextmanager
def _local(path: Any) -> Iterator[str]:
    """Yields a path for the system's functions, whose errors are converted."""
    shown = _shown(path)
    if "\0" in shown:
        raise errors.InvalidArgumentError(None, None, f"a path cannot have a NUL byte: {shown!r}")
    with as_tensorflow_raises(shown):
        yield path_text(shown)


def exists(path: Any) -> bool:
    """Whether there is a file or a directory."""
    with _local(path) as local:
        return os.path.exists(local)


def isdir(path: Any) -> bool:
    """Whether there is a directory."""
    try:
        with _local(path) as local:
            return os.path.isdir(local)
    except errors.OpError:
        return False


def listdir(path: Any) -> list[str]:
    """Returns the names in a directory.

    Raises:
        NotFoundError: It is not a directory.
    """
    if not isdir(path):
        raise errors.NotFoundError(None, None, f"Could not find directory {path}")
    with _local(path) as local:
        return sorted(os.listdir(local))


def stat(path: Any) -> FileStatistics:
    """Returns size, time and kind of a file."""
    with _local(path) as local:
        found = os.stat(local)
    return FileStatistics(found.st_size, found.st_mtime_ns, _stat.S_ISDIR(found.st_mode))


def mkdir(path: Any) -> None:
    """Creates a directory in an existing one; does nothing if the path exists."""
    with _local(path) as local, contextlib.suppress(FileExistsError):
        if local:
            os.mkdir(local)


def makedirs(path: Any) -> None:
    """Creates a directory and those above it.

    Raises:
        FailedPreconditionError: The path, or one above it, is a file.
    """
    with _local(path) as local:
        missing = []
        while local and not os.path.exists(local):
            missing.append(local)
            local = os.path.dirname(local.rstrip("/"))
        if local and not os.path.isdir(local):
            raise errors.FailedPreconditionError(None, None, f"{local} is not a directory")
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(each)


def remove(path: Any) -> None:
    """Removes a file."""
    with _local(path) as local:
        os.unlink(local)


def rmtree(path: Any) -> None:
    """Removes a directory with all that is in it, or a file."""
    with _local(path) as local:
        if not os.path.exists(local):
            raise errors.NotFoundError(None, None, f"{_shown(path)} not found")
        if not os.path.isdir(local):
            os.unlink(local)
        elif os.path.islink(local):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), local)
        else:
            shutil.rmtree(local)


def rename(src: Any, dst: Any, overwrite: bool = False) -> None:
    """Renames a file or a directory.

    Raises:
        AlreadyExistsError: The new name exists, and ``overwrite`` is false.
    """
    with _local(dst) as target:
        if not overwrite and os.path.exists(target):
            raise errors.AlreadyExistsError(None, None, "file already exists")
    with _local(src) as source:
        os.rename(source, target)


def copy(src: Any, dst: Any, overwrite: bool = False) -> None:
    """Copies the bytes of a file.

    Raises:
        AlreadyExistsError: The new file exists, and ``overwrite`` is false.
        InvalidArgumentError: The source is a directory.
    """
    with _local(dst) as target:
        if not overwrite and os.path.exists(target):
            raise errors.AlreadyExistsError(None, None, "file already exists")
    with _local(src) as source:
        if os.path.isdir(source):
            raise errors.InvalidArgumentError(None, None, f"{_shown(src)} is a directory")
        with open(source, "rb") as reading, _local(dst) as target:
            if os.path.exists(target) and os.path.samefile(source, target):
                return  # opening the target would empty it
            with open(target, "wb") as writing:
                shutil.copyfileobj(reading, writing, _COPIED_BYTES)


def glob(pattern: Any) -> list[str]:
    """Returns the paths that match a pattern, or any of several patterns, in order.

    ``*`` and ``?`` match within one component, also a leading dot; ``[...]`` a set of characters.

    Raises:
        TypeError: The pattern is neither text nor an iterable of patterns.
    """
    if isinstance(pattern, str):
        return _matches(pattern)
    return [path for each in pattern for path in _matches(as_str_any(as_bytes(each)))]


def _matches(pattern: str) -> list[str]:
    if not _WILDCARD.search(pattern):
        return [pattern] if exists(pattern) else []
    scheme = pattern[: len("file://")] if pattern.startswith("file://") else ""
    with _local(pattern) as local:
        first, *others = local.rstrip("/").split("/")
    if _WILDCARD.search(first):
        first, others = ".", [first, *others]  # as TensorFlow shows these paths
    paths = [first] if os.path.exists(first or "/") else []
    for part in others:
        if _WILDCARD.search(part):
            paths = [f"{path}/{name}" for path in paths for name in _names_like(path, part)]
        else:
            paths = [each for path in paths if os.path.exists(each := f"{path}/{part}")]
    return [scheme + path for path in paths]


def _names_like(directory: str, pattern: str) -> list[str]:
    matches = re.compile(_expression(pattern)).match
    try:
        return sorted(name for name in os.listdir(directory or "/") if matches(name))
    except OSError:
        return []


def _expression(pattern: str) -> str:
    """Returns the regular expression of one component of a pattern; a backslash escapes."""
    literal = re.sub(r"\\(.)", lambda match: f"[{match[1]}]", pattern, flags=re.DOTALL)
    return fnmatch.translate(literal.replace("[^", "[!"))


def walk(
    top: Any, topdown: bool = True, onerror: Callable[[Exception], Any] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields (directory, directories in it, files in it) for a directory and all below it."""
    directory = as_str_any(path_to_str(top))
    try:
        names = listdir(directory)
    except errors.NotFoundError as error:
        if onerror is not None:
            onerror(error)
        return
    inner = [name for name in names if isdir(join(directory, name))]
    here = (directory, inner, [name for name in names if name not in inner])
    if topdown:
        yield here
    for name in inner:
        yield from walk(join(directory, name), topdown, onerror)
    if not topdown:
        yield here


def join(path: Any, *paths: Any) -> Any:
    """Joins paths, as ``os.path.join`` does."""
    is_url = "://" in as_str_any(path_to_str(path))[1:]
    joined: Any = (posixpath if is_url else os.path).join(path, *paths)
    return joined


def get_registered_schemes() -> list[str]:
    """Returns the prefixes of the paths that the stand-in opens."""
    return ["", "file"]


class GFile:
    """A file, as ``tf.io.gfile.GFile``."""

    def __init__(self, name: Any, mode: str = "r") -> None:
        """Does not open the file.

        Raises:
            InvalidArgumentError: The mode is not one of r, w, a, r+, w+, a+, with or without b.
        """
        self._name = name
        self._mode = mode
        self._is_binary = "b" in mode
        self._plain_mode = mode.replace("b", "")
        if self._plain_mode not in _MODES:
            words = "mode is not 'r' or 'w' or 'a' or 'r+' or 'w+' or 'a+'"
            raise errors.InvalidArgumentError(None, None, words)
        self._can_read = self._plain_mode in ("r", "r+", "w+", "a+")
        self._can_write = self._plain_mode != "r"
        self._reading: io.BufferedReader | None = None
        self._writing: io.BufferedWriter | None = None

    @property
    def name(self) -> Any:
        """The path."""
        return self._name

    @property
    def mode(self) -> str:
        """The mode."""
        return self._mode

    def _reader(self) -> io.BufferedReader:
        if not self._can_read:
            raise errors.PermissionDeniedError(None, None, "File isn't open for reading")
        if self._reading is None:
            with _local(self._name) as local:
                self._reading = io.BufferedReader(io.FileIO(local, "rb"))
        return self._reading

    def _writer(self) -> io.BufferedWriter:
        if not self._can_write:
            raise errors.PermissionDeniedError(None, None, "File isn't open for writing")
        if self._writing is None:
            # TensorFlow replaces the file also in the mode "r+".
            mode = "ab" if self._plain_mode.startswith("a") else "wb"
            with _local(self._name) as local:
                self._writing = io.BufferedWriter(io.FileIO(local, mode))
        return self._writing

    def _converted(self, data: bytes) -> Any:
        return data if self._is_binary else data.decode("utf-8")

    def size(self) -> int:
        """Returns the size of the file in bytes."""
        return stat(self._name).length

    def read(self, n: int = -1) -> Any:
        """Returns ``n`` bytes, decoded in a mode without b; the rest of the file for -1.

        Raises:
            InvalidArgumentError: ``n`` is a negative number other than -1.
        """
        reader = self._reader()
        if n < -1:
            words = f"Can't read a negative number of bytes: {n}"
            raise errors.InvalidArgumentError(None, None, words)
        with as_tensorflow_raises(_shown(self._name)):
            return self._converted(reader.read(n))

    def readline(self) -> Any:
        """Returns the next line with its line feed; nothing at the end. Drops carriage returns."""
        reader = self._reader()
        with as_tensorflow_raises(_shown(self._name)):
            return self._converted(reader.readline().replace(b"\r", b""))

    def readlines(self) -> list[Any]:
        """Returns the remaining lines."""
        return list(self)

    def seek(self, offset: int | None = None, whence: int = 0, position: int | None = None) -> None:
        """Sets the position of the next read.

        Args:
            offset: The number of bytes.
            whence: From where: 0, the start; 1, the position; 2, the end.
            position: The former name of ``offset``.

        Raises:
            InvalidArgumentError: ``whence`` is another number, or the position negative.
            OutOfRangeError: The position is after the end.
        """
        reader = self._reader()
        if (offset is None) == (position is None):
            raise TypeError("seek(): offset argument required, and only one of offset and position")
        start = {0: 0, 1: reader.tell(), 2: self.size()}.get(whence)
        if start is None:
            words = f"Invalid whence argument: {whence}. Valid values are 0, 1, or 2."
            raise errors.InvalidArgumentError(None, None, words)
        target = start + (offset or position or 0)
        if target < 0:
            words = f"Seeking to a negative position: {target}"
            raise errors.InvalidArgumentError(None, None, words)
        if target > self.size():
            raise errors.OutOfRangeError(None, None, "reached end of file")
        reader.seek(target)

    def tell(self) -> int:
        """Returns the position: of the next read if the mode reads, else of the next write."""
        return (self._reader() if self._can_read else self._writer()).tell()

    def seekable(self) -> bool:
        """Returns true."""
        return True

    def write(self, file_content: Any) -> None:
        """Writes text, or bytes, in any mode."""
        writer = self._writer()
        data = as_bytes(file_content)
        with as_tensorflow_raises(_shown(self._name)):
            writer.write(data)

    def flush(self) -> None:
        """Passes what was written to the system."""
        if self._writing is not None:
            with as_tensorflow_raises(_shown(self._name)):
                self._writing.flush()

    def close(self) -> None:
        """Closes the file. The next read or write opens it again."""
        reading, writing = self._reading, self._writing
        self._reading = self._writing = None
        if reading is not None:
            reading.close()
        if writing is not None:
            with as_tensorflow_raises(_shown(self._name)):
                writing.close()

    def __enter__(self) -> GFile:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        # TensorFlow closes the files that a script forgets, without a warning.
        for file in (getattr(self, "_reading", None), getattr(self, "_writing", None)):
            if isinstance(file, io.IOBase):
                file.close()

    def __iter__(self) -> GFile:
        return self

    def __next__(self) -> Any:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    next = __next__


def read_file_to_string(filename: Any, binary_mode: bool = False) -> Any:
    """Returns the content of a file."""
    with GFile(filename, "rb" if binary_mode else "r") as file:
        return file.read()


def write_string_to_file(filename: Any, file_content: Any) -> None:
    """Replaces the content of a file."""
    with GFile(filename, "w") as file:
        file.write(file_content)
