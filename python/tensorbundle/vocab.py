# SPDX-License-Identifier: Apache-2.0
"""Vocabularies that change between training runs, and tables that follow them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tensorbundle import _core, arguments
from tensorbundle.arguments import MOST, shown, size
from tensorbundle.errors import (
    CheckpointNotFoundError,
    UnsupportedError,
    VocabularyNotFoundError,
)
from tensorbundle.filenames import path_text

Array = np.ndarray[Any, Any]
Tokens = Sequence[str | bytes]
Source = str | bytes | os.PathLike[Any] | Tokens

# Joins that are remembered: enough for the tables of one model, however large their vocabularies.
_MAX_CACHED_BYTES = 512 << 20


@dataclass(frozen=True, eq=False)
class Remap:
    """Where the rows of a new vocabulary lie in an old table.

    Attributes:
        ids: int64, read-only, one per row: the row in the old table, or -1.
        num_present: How many are not -1.
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
    """Looks every token of a new vocabulary up in an old one.

    Means what TensorFlow's ``GenerateVocabRemapping`` means, and refuses what it refuses. Two files
    are joined once per process, whatever part of the new one is asked for, and again when one of
    them changes.

    Args:
        new_vocab: A file with one token per line, or a sequence of tokens (``str`` is UTF-8). Of a
            line, one carriage return before its end is not part of the token.
        old_vocab: Likewise.
        new_size: How many rows of the new vocabulary are wanted; by default all from `new_offset`.
        old_size: How many rows of the old vocabulary count, from the first; by default all.
        new_offset: The first row of the new vocabulary that is wanted.

    Returns:
        The remap, with `new_size` ids.

    Raises:
        VocabularyNotFoundError: No such file. It is a FileNotFoundError.
        CorruptionError: A file has an empty line, or no line, or the old one has a token twice;
            or a file shrinks, or the new one gets other lines, while it is read.
        ValueError: More rows are asked for than there are, a size is negative, or a token cannot be
            written as UTF-8.
        TypeError: A size is not an integer, or a token neither a str nor bytes.
    """
    limit = -1 if old_size is None else size(old_size, "old_size")
    first = size(new_offset, "new_offset")
    count = None if new_size is None else size(new_size, "new_size")
    ids = _joined(new_vocab, old_vocab, limit)
    wanted = len(ids) - first if count is None else count
    if first > len(ids) or wanted > len(ids) - first:
        raise ValueError(
            f"rows {first} to {first + wanted} were asked for, the new vocabulary has {len(ids)}"
        )
    part = ids[first : first + wanted]
    return Remap(part, int(np.count_nonzero(part >= 0)))


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
    """Reads a table with its rows and columns in another order, filling in what it lacks.

    One parallel pass straight into the result; no part of the stored table that is not wanted is
    read. One old row may become several new ones.

    Args:
        tensor: A ``tensorbundle.Tensor`` of rank 1 or more and any dtype of fixed size.
        rows: The old row of each new one, -1 for a row that is new. None: the rows as they are.
        columns: The same for axis 1.
        num_rows: How many rows are wanted, from the first; by default all of `rows`.
        fill: What missing cells get. One element; an array with as many elements as are missing, in
            row-major order, first of the remapped part, then of the out-of-vocabulary rows, then of
            the out-of-vocabulary columns; or a callable from a count to that many values, called
            for each of these parts that has any, in this order.
        num_oov_rows: Rows behind the remapped ones, for out-of-vocabulary buckets: all missing.
        num_oov_columns: Columns behind the remapped ones, likewise.
        out: Where to put the result: C-contiguous, of its shape and the tensor's dtype.

    Returns:
        An array of shape ``(rows + num_oov_rows, columns + num_oov_columns, *shape[2:])``.

    Raises:
        IndexError: A number is neither -1 nor on its axis; nothing has been written then.
        ValueError: The fill has another number of elements than are missing.
        ShapeMismatchError: `out` has another shape.
        TypeError: The fill or `out` has a type that cannot be stored without loss of kind.
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
    """Forgets every join of vocabularies that this process remembers."""
    _cache.clear()


def _ids(remap: Remap | Array | Sequence[int] | None) -> Array | None:
    if remap is None:
        return None
    ids = np.asarray(remap.ids if isinstance(remap, Remap) else remap)
    if ids.size == 0:
        ids = ids.astype(np.int64)
    if ids.dtype.kind not in "iu" or ids.ndim != 1:
        raise TypeError(f"a remap is a 1-D array of integers, not {ids.ndim}-D {ids.dtype}")
    if ids.dtype == np.uint64 and ids.size and ids.max() > MOST:
        raise IndexError(f"{ids.max()} is not the number of a row or column of any table")
    return np.ascontiguousarray(ids, np.int64)


class _JoinCache:
    """Joins by what was joined. Bounded; a join that several threads want is made once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: OrderedDict[Hashable, Array] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], Array]) -> Array:
        with self._lock:
            one_at_a_time = self._making.setdefault(key, threading.Lock())
        with one_at_a_time:
            with self._lock:
                found = self._ids.get(key)
                if found is not None:
                    self._ids.move_to_end(key)
                    return found
            try:
                made = make()
                with self._lock:
                    self._ids[key] = made
                    while len(self._ids) > 1 and self._size() > _MAX_CACHED_BYTES:
                        self._ids.popitem(last=False)
                return made
            finally:
                with self._lock:
                    self._making.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._ids.clear()

    def _size(self) -> int:
        return sum(ids.nbytes for ids in self._ids.values())


_cache = _JoinCache()


def _is_path(source: Source) -> bool:
    return isinstance(source, (str, bytes, os.PathLike))


def _joined(new_vocab: Source, old_vocab: Source, old_size: int) -> Array:
    """The row in the old vocabulary of every row in the new one."""

    def make() -> Array:
        new = _vocabulary(new_vocab, "the new vocabulary")
        old = _vocabulary(old_vocab, "the old vocabulary")
        ids, _ = _core.join(new, old, old_size=old_size, threads=arguments.num_threads(None))
        return ids

    if not (_is_path(new_vocab) and _is_path(old_vocab)):
        return make()
    key = (_identity(new_vocab), _identity(old_vocab), old_size)
    return make() if None in key else _cache.get(key, make)


def _identity(path: Any) -> Hashable:
    """What changes when a file does, or None when there is none to look at."""
    try:
        status = os.stat(os.fspath(path))
    except (OSError, ValueError):
        return None  # whoever opens it says why
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
        raise ValueError(f"the path of {name} cannot hold a NUL byte: {text!r}")
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
            f"token {row} of {name} cannot be written as UTF-8: {shown(token)}"
        ) from None


# TensorFlow's sentence, with its brackets.
INCOMPLETE = (
    "Invalid args: Must provide all of [current_vocab_path, current_vocab_size, prev_ckpt, "
    "prev_vocab_path}."
)


class _VocabInfoFields(NamedTuple):
    new_vocab: Any
    new_vocab_size: int
    num_oov_buckets: int
    old_vocab: Any
    old_vocab_size: int
    backup_initializer: Any
    axis: int


class VocabInfo(_VocabInfoFields):
    """How a variable's vocabulary changed, as ``tf.compat.v1.train.VocabInfo``.

    Args:
        new_vocab: The vocabulary of the model that is being trained: a file with a token per line.
        new_vocab_size: How many of its entries count, from the first.
        num_oov_buckets: How many out-of-vocabulary buckets follow them.
        old_vocab: The vocabulary that the checkpoint was trained with.
        old_vocab_size: How many of its entries count, from the first; -1: all.
        backup_initializer: Initializes what the checkpoint lacks; None: zeros.
        axis: The axis of the variable that the vocabulary numbers: 0, or 1 for output layers.

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
        """Checks the axis, and nothing else, as TensorFlow does."""
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


def check_info(info: Any) -> None:
    """Refuses vocabularies that say too little or what cannot be.

    Raises:
        ValueError: A path or a size is missing, or a number is out of range.
        TypeError: A number is none.
    """
    if not (info.new_vocab and info.new_vocab_size and info.old_vocab):
        raise ValueError(INCOMPLETE)
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
