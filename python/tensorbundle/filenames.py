# SPDX-License-Identifier: Apache-2.0
"""The names of a checkpoint's files, and look-ups of names on disk.

A V2 checkpoint of prefix ``P`` has the files ``P.index`` and ``P.data-SSSSS-of-NNNNN``. A V1
checkpoint is the file ``P``, or the shards ``P-SSSSS-of-NNNNN``, whose pattern is
``P-?????-of-NNNNN``. This package expands no other pattern: every other name is taken literally.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from tensorbundle.errors import DestinationExistsError, IOFailure, UnsupportedError

AnyPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

INDEX_SUFFIX = ".index"

_DATA_FILE = re.compile(r"(?P<prefix>.+)\.data-(?:\d{5,}|\?{5})-of-\d{5,}", re.DOTALL)
_V1_PATTERN = re.compile(r"(?P<stem>.+)-\?{5}-of-(?P<count>\d{5})", re.DOTALL)
_V1_SHARD = re.compile(r"(?P<stem>.+)-(?P<shard>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
# A URL, after the names of fsspec's file systems that wrap another one: "simplecache::s3://...".
_CHAINED_URL = re.compile(r"(?:[a-z0-9]+::)*" + _SCHEME.pattern)
# URLs of remote file systems after pathlib.Path has removed one of the two slashes.
_LOST_SLASH = re.compile(
    r"(?P<scheme>gs|gcs|s3|s3a|s3n|hdfs|webhdfs|viewfs|har|https?|ftp|abfss?|adl|az|wasbs?|oss|cos|"
    r"dbfs|memory|ram|hf|file):/(?!/)",
    re.IGNORECASE,
)

# The errors of stat() for a path that does not exist.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


def path_text(path: AnyPath) -> str:
    """Return a local path as text, decoded with the file system's encoding.

    Args:
        path: ``str``, ``bytes`` or ``os.PathLike``; a leading ``file://`` or ``file://host`` is
            removed.

    Raises:
        TypeError: The path has another type.
        UnsupportedError: The path is a URL.
        ValueError: The path has a character that the file system's encoding cannot represent.
    """
    try:
        text = str(os.fsdecode(path))
    except TypeError:
        kind = type(path).__name__
        message = f"a path must be a str, bytes or os.PathLike, not {kind}: {path!r:.100}"
        raise TypeError(message) from None
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a path cannot have the character {text[error.start]!r}, which the file system's "
            f"encoding ({sys.getfilesystemencoding()}) cannot represent: {text!r}"
        ) from None
    scheme = _SCHEME.match(text)
    if scheme is None:
        return text
    if scheme["scheme"].lower() == "file":
        # The text between the slashes is a host name, which TensorFlow ignores.
        _, slash, path = text[scheme.end() :].partition("/")
        return slash + path
    raise UnsupportedError(
        f"{text!r} is a URL, and only local paths can be used here: copy the checkpoint to a local "
        "directory, or mount it (tensorbundle.open, load, diff, edit and convert read URLs)"
    )


def as_url(path: Any) -> str | None:
    """Return a path that is the URL of a remote store as text, or None for a local path."""
    text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
    found = _CHAINED_URL.match(text) if isinstance(text, str) else None
    return None if found is None or found["scheme"].lower() == "file" else text


def is_remote(path: Any) -> bool:
    """Return whether a path is a URL of a remote file system, such as ``gs://`` or ``ram://``.

    ``file://`` is local. False for anything that is not a path.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        return False
    scheme = _SCHEME.match(text)
    return scheme is not None and scheme["scheme"].lower() != "file"


def printable(text: str) -> str:
    """Return a name with escapes for bytes that are not UTF-8, for a message without quotes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def url_without_slash(path: str) -> str | None:
    """Return the URL that ``pathlib.Path`` turned into this path by removing a slash, or None."""
    match = _LOST_SLASH.match(path)
    return f"{match['scheme']}://{path[match.end() :]}" if match else None


def path_exists(path: str) -> bool:
    """Return whether a path exists, following links.

    Raises:
        IOFailure: The system failed stat() (no permission, a loop of links, a failing disk).
    """
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise IOFailure(f"cannot access {path!r}", error.errno or errno.EIO, path) from error
    return True


def names_in(directory: str) -> list[str]:
    """Return the sorted names in a directory, or an empty list if it cannot be listed."""
    try:
        return sorted(os.listdir(directory or os.curdir))
    except OSError:
        return []


def listing_error(directory: str) -> str | None:
    """Return the system's reason why a directory cannot be listed; None if it can."""
    try:
        with os.scandir(directory or os.curdir):
            return None
    except OSError as error:
        return str(error.strerror)


def data_file_prefix(path: str) -> str | None:
    """Return the prefix of a V2 data file's name, or of the pattern of all data files, or None."""
    match = _DATA_FILE.fullmatch(path)
    return match["prefix"] if match else None


def v1_pattern_parts(path: str) -> tuple[str, int] | None:
    """Return the stem and shard count of a V1 pattern ``P-?????-of-NNNNN``, or None."""
    match = _V1_PATTERN.fullmatch(path)
    return (match["stem"], int(match["count"])) if match else None


def v1_shard_parts(path: str) -> tuple[str, int, int] | None:
    """Return stem, shard number and shard count of a name ``P-SSSSS-of-NNNNN``, or None."""
    match = _V1_SHARD.fullmatch(path)
    return (match["stem"], int(match["shard"]), int(match["count"])) if match else None


def v1_pattern(stem: str, count: int) -> str:
    """Return the pattern under which TensorFlow records ``count`` V1 shards of one checkpoint."""
    return f"{stem}-?????-of-{count:05d}"


def v1_shard(stem: str, shard: int, count: int) -> str:
    """Return the name of one V1 shard."""
    return f"{stem}-{shard:05d}-of-{count:05d}"


def v1_shards_on_disk(stem: str) -> dict[int, set[int]]:
    """Return the existing V1 shards of a stem, as shard numbers by shard count."""
    directory, base = os.path.split(stem)
    found: dict[int, set[int]] = {}
    for name in names_in(directory):
        parts = v1_shard_parts(name)
        if parts is not None and parts[0] == base:
            found.setdefault(parts[2], set()).add(parts[1])
    return found


def destination_prefix(path: AnyPath, base: str | None = None) -> str:
    """Returns the prefix of a checkpoint to be written.

    Args:
        path: The prefix, or one of its file names (``.index``, ``.data-...``).
        base: The base name in a directory, or in a path that ends in a slash.

    Raises:
        ValueError: The path is empty, has a null character, or is a directory and `base` is None.
    """
    text = path_text(path)
    if not text or "\0" in text:
        raise ValueError(f"the destination must be a path, not {text!r}")
    if text.startswith("~") and not os.path.lexists(text.partition("/")[0]):
        text = os.path.expanduser(text)
    if text.endswith(os.sep) or os.path.isdir(text):
        if base is None:
            raise ValueError(
                f"{text!r} is a directory: append the name of the checkpoint, such as "
                f"{os.path.join(text, 'model.ckpt')!r}"
            )
        return os.path.join(text, base)
    return data_file_prefix(text) or text.removesuffix(INDEX_SUFFIX)


def checkpoint_files(prefix: str) -> list[str]:
    """Returns the paths of the index and the data files that a prefix has on the disk."""
    directory, base = os.path.split(prefix)
    return [
        os.path.join(directory, name)
        for name in names_in(directory)
        if name == base + INDEX_SUFFIX or name.startswith(base + ".data-")
    ]


def shared_file(paths: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    """Returns a path of each list that are the same file, or None.

    Symbolic and hard links are other names of the same file, so the files are compared and not
    their names. Paths without a file are ignored.
    """
    found = {_identity(path): path for path in paths}
    for other in others:
        identity = _identity(other)
        if identity is not None and identity in found:
            return found[identity], other
    return None


def check_not_source(prefix: str, sources: Iterable[str]) -> None:
    """Raises ValueError if a file of a destination is also a file that will be read.

    Writing replaces all files of the destination's prefix.

    Args:
        prefix: The prefix of the destination.
        sources: The files of the sources: indexes and data files, not prefixes.

    Raises:
        ValueError: A file of a source is ``<prefix>.index`` or ``<prefix>.data-SSSSS-of-NNNNN``.
    """
    shared = shared_file(checkpoint_files(prefix), sources)
    if shared is not None:
        raise ValueError(
            f"the destination {prefix!r} is the source: {shared[0]!r} and {shared[1]!r} are the "
            "same file; choose another prefix"
        )


def _identity(path: str) -> tuple[int, int] | None:
    """Returns the device and the inode of a file, following links; None without a file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def destination_errors() -> Iterator[None]:
    """Raises DestinationExistsError in place of an IOFailure about an existing file."""
    try:
        yield
    except IOFailure as error:
        if error.errno != errno.EEXIST:
            raise
        raise DestinationExistsError(error._message, errno.EEXIST, error.filename) from None
