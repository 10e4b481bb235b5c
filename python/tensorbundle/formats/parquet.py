# SPDX-License-Identifier: Apache-2.0
"""Parquet: an embedding table, with a column of tokens and a column of vectors.

``token`` has a line of the vocabulary for each row; null for the rows after the last line, such as
buckets of unknown tokens. Without a vocabulary the column is ``id``, the number of the row.
``vector`` has lists of fixed size. The table is written by row groups.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorbundle.errors import (
    CorruptionError,
    IOFailure,
    ShapeMismatchError,
    VocabularyNotFoundError,
)
from tensorbundle.filenames import path_text
from tensorbundle.formats.new_files import NewFiles
from tensorbundle.formats.tensors import Advance, SourceTensor

SUFFIX = ".parquet"

# A row group has this number of bytes of vectors at most, which Arrow holds several times.
_ROW_GROUP_BYTES = 8 << 20
_TYPES = frozenset(
    {
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    }
)


def import_pyarrow() -> tuple[Any, Any]:
    """Imports pyarrow and pyarrow.parquet, which are optional dependencies.

    Raises:
        ImportError: They are not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            "Parquet files need pyarrow: pip install 'tensorbundle[convert]' or pip install pyarrow"
        ) from error
    return pyarrow, parquet


def unsupported_reason(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str | None:
    """Returns why the format cannot store a tensor, or None."""
    del name, shape  # the file does not have the name; check_table compares the shape
    return None if dtype.name in _TYPES else f"Parquet has no type {dtype.name}"


class Tokens:
    """The lines of a vocabulary, by TensorFlow's rules, or a sequence of tokens.

    Attributes:
        count: The number of tokens.
        is_text: Whether all are UTF-8.
    """

    def __init__(self, vocabulary: Any) -> None:
        """Reads all tokens once, without keeping them.

        Raises:
            VocabularyNotFoundError: The file does not exist.
            CorruptionError: It has an empty line.
            TypeError: A token is neither a str nor bytes.
        """
        self._source = vocabulary
        self._path: str | None = None
        if isinstance(vocabulary, (str, bytes, os.PathLike)):
            self._path = path_text(vocabulary)
        self.count, self.is_text = 0, True
        for token in self:
            self.count += 1
            if self.is_text:
                try:
                    token.decode("utf-8")
                except UnicodeDecodeError:
                    self.is_text = False

    def __iter__(self) -> Iterator[bytes]:
        return self._tokens() if self._path is None else self._lines(self._path)

    def _tokens(self) -> Iterator[bytes]:
        for token in self._source:
            if not isinstance(token, (str, bytes)):
                raise TypeError(f"a token must be a str or bytes, not {type(token).__name__}")
            yield token.encode("utf-8") if isinstance(token, str) else token

    def _lines(self, path: str) -> Iterator[bytes]:
        try:
            with open(path, "rb") as file:
                for number, line in enumerate(file, 1):
                    token = line.removesuffix(b"\n").removesuffix(b"\r")
                    if not token:
                        if line == b"\r":  # without a newline: the end of the file
                            return
                        raise CorruptionError(f"{path!r}: line {number} is empty")
                    yield token
        except FileNotFoundError:
            raise VocabularyNotFoundError(f"{path!r} does not exist", path) from None
        except OSError as error:
            raise IOFailure(f"cannot read {path!r}", error.errno or errno.EIO, path) from error


def write(
    path: str,
    table: SourceTensor,
    *,
    tokens: Tokens | None,
    overwrite: bool,
    advance: Advance,
) -> tuple[str, ...]:
    """Writes a table, row group by row group.

    Raises:
        ShapeMismatchError: The tensor is not a table, or has fewer rows than the vocabulary.
    """
    pyarrow, parquet = import_pyarrow()
    check_table(table, tokens)
    columns = table.shape[1]
    values = pyarrow.from_numpy_dtype(table.dtype)
    vector = pyarrow.list_(values, columns)
    if tokens is None:
        label = pyarrow.field("id", pyarrow.int64(), nullable=False)
    else:
        kind = pyarrow.string() if tokens.is_text else pyarrow.binary()
        label = pyarrow.field("token", kind)
    schema = pyarrow.schema([label, pyarrow.field("vector", vector, nullable=False)])
    source = iter(tokens) if tokens is not None else iter(())
    with NewFiles(path, overwrite=overwrite) as files:
        with (
            files.open() as file,
            # Numbers of a trained table neither repeat nor compress.
            parquet.ParquetWriter(
                file, schema, use_dictionary=False, compression={label.name: "snappy"}
            ) as writer,
        ):
            start = 0
            for block in table.blocks(_ROW_GROUP_BYTES):
                count = len(block)
                if tokens is None:
                    labels = pyarrow.array(np.arange(start, start + count))
                else:
                    found: list[bytes | None] = list(itertools.islice(source, count))
                    found += [None] * (count - len(found))
                    labels = pyarrow.array(found, pyarrow.binary()).cast(label.type)
                flat = pyarrow.array(np.ascontiguousarray(block).reshape(-1))
                vectors = pyarrow.FixedSizeListArray.from_arrays(flat, columns)
                writer.write_table(
                    pyarrow.Table.from_arrays([labels, vectors], schema=schema),
                    row_group_size=max(count, 1),
                )
                start += count
                advance(block.nbytes)
        files.publish()
    return (path,)


def check_table(table: SourceTensor, tokens: Tokens | None) -> None:
    """Checks that a tensor is a table whose rows a vocabulary can name.

    Raises:
        ShapeMismatchError: It is not.
    """
    if len(table.shape) != 2 or table.shape[1] == 0:
        raise ShapeMismatchError(
            f"Parquet takes a table of rank 2 with columns: tensor {table.name!r} has shape "
            f"{table.shape}"
        )
    if tokens is not None and tokens.count > table.shape[0]:
        raise ShapeMismatchError(
            f"the vocabulary has {tokens.count} tokens, tensor {table.name!r} has "
            f"{table.shape[0]} rows"
        )
