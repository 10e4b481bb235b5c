# SPDX-License-Identifier: Apache-2.0
"""Remapping of vocabularies between training runs, and of tables indexed by them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tensorbundle import _core, arguments
from tensorbundle.arguments import MAX_SIZE, format_value, size
from tensorbundle.errors import (
    CheckpointNotFoundError,
    UnsupportedError,
    VocabularyNotFoundError,
)
from tensorbundle.filenames import path_text

Array = np.ndarray[Any, Any]
Tokens = Sequence[str | bytes]
Source = str | bytes | os.PathLike[Any] | Tokens

# The size limit of cached joins: enough for the tables of one model with large vocabularies.
_MAX_CACHED_BYTES = 512 << 20

# TensorFlow's message, with its mismatched brackets.
INCOMPLETE_MESSAGE = (
    "Invalid args: Must provide all of [current_vocab_path, current_vocab_size, prev_ckpt, "
    "prev_vocab_path}."
)


@dataclass(frozen=True, eq=False)
class Remap:
    """The rows of a new vocabulary in an old table.

    Attributes:
        ids: int64, read-only: for each new row, the row in the old table, or -1.
        num_present: The number of ids that are not -1.
    """

    ids: Array
    num_present: int

    def __len__(self) -> int:
        return len(self.ids)


def remap_vocab(
    new_vocab: Source,
    old_vocab: Source,
    *,
    new_size: int | None = None,
    old_size: int | None = None,
    new_offset: int = 0,
) -> Remap:
    """Looks up every token of a new vocabulary in an old one.

    Follows the rules of TensorFlow's ``GenerateVocabRemapping``, including its errors. Each pair of
    files is joined once per process, for all values of `new_size` and `new_offset`, and again if
    one of the files changes.

    Args:
        new_vocab: A file with one token per line, or a sequence of tokens (``str`` is encoded as
            UTF-8). One carriage return at the end of a line is not part of the token.
        old_vocab: The old vocabulary, in the same form.
        new_size: The number of rows of the new vocabulary; default: all from `new_offset`.
        old_size: The number of rows of the old vocabulary, from the first; default: all.
        new_offset: The first row of the new vocabulary.

    Returns:
        The remap, with `new_size` ids.

    Raises:
        VocabularyNotFoundError: A file does not exist. It is a FileNotFoundError.
        CorruptionError: A file has an empty line or no lines, the old vocabulary has a token twice,
            a file shrinks while it is read, or the lines of the new one change.
        ValueError: The new vocabulary has fewer rows than requested, a size is negative, or a token
            cannot be encoded as UTF-8.
        TypeError: A size is not an integer, or a token is neither a str nor bytes.
    """
    limit = -1 if old_size is None else size(old_size, "old_size")
    first = size(new_offset, "new_offset")
    count = None if new_size is None else size(new_size, "new_size")
    ids = _join(new_vocab, old_vocab, limit)
    if count is None:
        count = len(ids) - first
    if first > len(ids) or count > len(ids) - first:
        raise ValueError(
            f"rows {first} to {first + count} are out of bounds: the new vocabulary has "
            f"{len(ids)} rows"
        )
    selected = ids[first : first + count]
    return Remap(selected, int(np.count_nonzero(selected >= 0)))


def load_and_remap(
    tensor: Any,
    *,
    rows: Remap | Array | Sequence[int] | None = None,
    columns: Remap | Array | Sequence[int] | None = None,
    num_rows: int | None = None,
    fill: Any = 0,
    num_oov_rows: int = 0,
    num_oov_columns: int = 0,
    out: Array | None = None,
) -> Array:
    """Reads a table with reordered rows and columns, and fills in missing cells.

    Reads only the selected rows, in one parallel pass into the result. Several new rows may have
    the same old row.

    Args:
        tensor: A ``tensorbundle.Tensor`` of rank 1 or more and any dtype of fixed size.
        rows: The old row of each new row, or -1 for a missing one. None means all rows in order.
        columns: The same for axis 1.
        num_rows: The number of rows to read, from the first; default: all of `rows`.
        fill: The values of missing cells: one element; an array with one element per missing cell,
            in row-major order, first for the remapped rows, then for the out-of-vocabulary rows,
            then for the out-of-vocabulary columns; or a callable that returns a given number of
            values. It is called for each of these three blocks with missing cells, in this order.
        num_oov_rows: The number of out-of-vocabulary rows, which follow the remapped rows. All
            their cells are missing.
        num_oov_columns: The number of out-of-vocabulary columns, likewise.
        out: The destination: C-contiguous, of the result's shape and the tensor's dtype.

    Returns:
        An array of shape ``(rows + num_oov_rows, columns + num_oov_columns, *shape[2:])``.

    Raises:
        IndexError: A row or column is out of bounds and not -1; `out` is unchanged.
        ValueError: The number of elements in the fill is not the number of missing cells.
        ShapeMismatchError: `out` has another shape.
        TypeError: `out` has another dtype, or the fill cannot be cast to the tensor's dtype.
    """
    from tensorbundle import remap
    from tensorbundle.tensor import Tensor

    if not isinstance(tensor, Tensor):
        raise TypeError(f"expected a tensorbundle.Tensor, not {type(tensor).__name__}")

    return remap.load(
        tensor._core,
        _ids(rows),
        _ids(columns),
        None if num_rows is None else size(num_rows, "num_rows"),
        fill,
        size(num_oov_rows, "num_oov_rows"),
        size(num_oov_columns, "num_oov_columns"),
        out,
    )


def clear_caches() -> None:
    """Clears the process's cache of vocabulary joins."""
    _cache.clear()


def _ids(remap: Remap | Array | Sequence[int] | None) -> Array | None:
    if remap is None:
        return None
    ids = np.asarray(remap.ids if isinstance(remap, Remap) else remap)
    if ids.size == 0:
        ids = ids.astype(np.int64)
    if ids.dtype.kind not in "iu" or ids.ndim != 1:
        raise TypeError(f"a remap must be a 1-D array of integers, not {ids.ndim}-D {ids.dtype}")
    if ids.dtype == np.uint64 and ids.size and ids.max() > MAX_SIZE:
        raise IndexError(f"row or column {ids.max()} is out of bounds for every table")
    return np.ascontiguousarray(ids, np.int64)


class _JoinCache:
    """A bounded cache of joins. Each join is computed by one thread at a time."""

    def __init__(self) -> None:
        self._ids: OrderedDict[Hashable, Array] = OrderedDict()
        self.renew_locks()

    def renew_locks(self) -> None:
        """Replaces locks that a thread may hold which a child of fork() does not have."""
        self._lock = threading.Lock()
        self._key_locks: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, compute: Callable[[], Array]) -> Array:
        with self._lock:
            key_lock = self._key_locks.setdefault(key, threading.Lock())
        with key_lock:
            with self._lock:
                cached = self._ids.get(key)
                if cached is not None:
                    self._ids.move_to_end(key)
                    return cached
            try:
                ids = compute()
                with self._lock:
                    self._ids[key] = ids
                    while len(self._ids) > 1 and self._size() > _MAX_CACHED_BYTES:
                        self._ids.popitem(last=False)
                return ids
            finally:
                with self._lock:
                    self._key_locks.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._ids.clear()

    def _size(self) -> int:
        return sum(ids.nbytes for ids in self._ids.values())


_cache = _JoinCache()
os.register_at_fork(after_in_child=_cache.renew_locks)


def _is_path(source: Source) -> bool:
    return isinstance(source, (str, bytes, os.PathLike))


def _join(new_vocab: Source, old_vocab: Source, old_size: int) -> Array:
    """Returns the row in the old vocabulary, or -1, of every row in the new one."""

    def compute() -> Array:
        new = _vocabulary(new_vocab, "the new vocabulary")
        old = _vocabulary(old_vocab, "the old vocabulary")
        ids, _ = _core.join(new, old, old_size, arguments.num_threads(None))
        return ids

    if not (_is_path(new_vocab) and _is_path(old_vocab)):
        return compute()
    key = (_file_identity(new_vocab), _file_identity(old_vocab), old_size)
    return compute() if None in key else _cache.get(key, compute)


def _file_identity(path: Any) -> Hashable:
    """Returns a value that changes when the file changes; None if the file does not exist."""
    try:
        status = os.stat(os.fspath(path))
    except (OSError, ValueError):
        return None  # opening the file raises the error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _vocabulary(source: Any, name: str) -> _core.Vocabulary:
    if _is_path(source):
        return _vocabulary_file(source, name)
    if not isinstance(source, Iterable):
        raise TypeError(
            f"{name} must be a path or a sequence of tokens, not {type(source).__name__}"
        )
    tokens = [_token(token, name, row) for row, token in enumerate(source)]
    offsets = np.zeros(len(tokens) + 1, np.uint64)
    np.cumsum([len(token) for token in tokens], out=offsets[1:])
    return _core.Vocabulary.of_tokens(name, b"".join(tokens), offsets)


def _vocabulary_file(path: Any, name: str) -> _core.Vocabulary:
    try:
        text = path_text(path)
    except UnsupportedError:
        message = f"{name} {os.fsdecode(path)!r} is on a remote file system; copy it to a local one"
        raise UnsupportedError(message) from None
    if "\0" in text:
        raise ValueError(f"the path of {name} cannot have a NUL byte: {text!r}")
    try:
        return _core.Vocabulary.of_file(os.fsencode(text))
    except CheckpointNotFoundError as error:
        message = f"{name} {text!r} does not exist"
        raise VocabularyNotFoundError(message, error.filename) from None


def _token(token: Any, name: str, row: int) -> bytes:
    if isinstance(token, bytes):
        return token
    if not isinstance(token, str):
        raise TypeError(f"token {row} of {name} must be a str or bytes, not {type(token).__name__}")
    try:
        return token.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(
            f"token {row} of {name} cannot be encoded as UTF-8: {format_value(token)}"
        ) from None


class _VocabInfoFields(NamedTuple):
    new_vocab: Any
    new_vocab_size: int
    num_oov_buckets: int
    old_vocab: Any
    old_vocab_size: int
    backup_initializer: Any
    axis: int


class VocabInfo(_VocabInfoFields):
    """The old and the new vocabulary of a variable, as ``tf.compat.v1.train.VocabInfo``.

    Args:
        new_vocab: The vocabulary of the new model: a file with one token per line.
        new_vocab_size: The number of entries in use, from the first.
        num_oov_buckets: The number of out-of-vocabulary buckets after the entries.
        old_vocab: The vocabulary with which the checkpoint was trained.
        old_vocab_size: The number of entries in use, from the first; -1 means all.
        backup_initializer: The initializer of missing cells; None means zeros.
        axis: The axis of the variable that the vocabulary indexes: 0, or 1 for output layers.

    Raises:
        ValueError: `axis` is neither 0 nor 1.
    """

    __slots__ = ()

    def __new__(
        cls,
        new_vocab: Any,
        new_vocab_size: int,
        num_oov_buckets: int,
        old_vocab: Any,
        old_vocab_size: int = -1,
        backup_initializer: Any = None,
        axis: int = 0,
    ) -> VocabInfo:
        """Checks only the axis, as TensorFlow does."""
        _check_axis(axis)
        return super().__new__(
            cls,
            new_vocab,
            new_vocab_size,
            num_oov_buckets,
            old_vocab,
            old_vocab_size,
            backup_initializer,
            axis,
        )


def check_vocab_info(info: Any) -> None:
    """Checks that a `VocabInfo` is complete and its numbers are in range.

    Raises:
        ValueError: A path or a size is missing, or a number is out of range.
        TypeError: A size is not a number.
    """
    if not (info.new_vocab and info.new_vocab_size and info.old_vocab):
        raise ValueError(INCOMPLETE_MESSAGE)
    _check_axis(info.axis)
    if info.old_vocab_size < -1:
        raise ValueError(f"old_vocab_size must be -1 (all) or more, not {info.old_vocab_size}")
    if info.num_oov_buckets < 0:
        raise ValueError(f"num_oov_buckets must be >= 0, but received {info.num_oov_buckets}")


def _check_axis(axis: Any) -> None:
    if axis not in (0, 1):
        raise ValueError(
            f"The only supported values for the axis argument are 0 and 1.  Provided axis: {axis}"
        )
