# SPDX-License-Identifier: Apache-2.0
"""Tables that follow another vocabulary, made into initializers of variables.

Nothing of a table or a vocabulary is read while the graph is built. When it runs, both vocabularies
are joined once per process, for all partitions of all tables that share them.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, NamedTuple, Protocol

from tensorbundle.filenames import path_text
from tensorbundle.load_plan import Stored
from tensorbundle.remap_pieces import PieceRemap
from tensorbundle.tf import backend, backup, facts, remap_cast, remote, values
from tensorbundle.tf.backup import Fills
from tensorbundle.tf.errors import path_with_nul
from tensorbundle.tf.options import Options
from tensorbundle.tf.remap_numpy import NumpyRemap
from tensorbundle.tf.remap_stock import StockRemap
from tensorbundle.tf.source import key_of
from tensorbundle.warm_plan import Remap

_NAME = "checkpoint_initializer"


class Remapper(Protocol):
    """One way to remap one table."""

    def num_missing(self, piece: PieceRemap, variable: Any, /) -> Any:
        """A scalar tensor: how many cells of a partition are missing."""

    def value(self, piece: PieceRemap, fills: Fills, variable: Any, dtype: Any, /) -> Any:
        """The remapped partition, of shape `piece.made`, in the table's type."""

    def verification(self, near: Any, dtype: Any, /) -> Any:
        """A tensor that is computed only if the table, of that type, is undamaged, or None."""


class OpRemap(NamedTuple):
    """One table, remapped by our own ops in the process where they run.

    Attributes:
        library: The op library.
        prefix: The checkpoint.
        tensor: The table in it.
        new_vocab: The new vocabulary's path.
        old_vocab: The old one's.
        new_size: How many entries of the new one any partition needs, from the first.
        old_size: How many entries of the old one count; -1: all.
        options: What was in force at the call.
    """

    library: Any
    prefix: bytes
    tensor: bytes
    new_vocab: bytes
    old_vocab: bytes
    new_size: int
    old_size: int
    options: Options

    def num_missing(self, piece: PieceRemap, variable: Any) -> Any:
        """A scalar, int32 where that suffices: how many cells of a partition are missing."""
        import tensorflow as tf

        with values.on_cpu_of(variable):
            count = self.library.tensorbundle_missing_v1(
                new_vocab=self.new_vocab,
                old_vocab=self.old_vocab,
                new_size=self.new_size,
                old_size=self.old_size,
                offset=piece.first_entry,
                num_new=piece.num_entries,
                cells_per_entry=piece.cells_per_entry,
                out_type=tf.int32 if piece.counts_in_int32 else tf.int64,
                name="missing_cells",
            )
        count.set_shape([])
        return count

    def value(self, piece: PieceRemap, fills: Fills, variable: Any, dtype: Any) -> Any:
        """The remapped partition, of shape `piece.made`."""
        with values.on_cpu_of(variable):
            value = self.library.tensorbundle_remap_v1(
                fills=list(fills.tensors),
                prefix=self.prefix,
                tensor=self.tensor,
                dtype=dtype,
                axis=piece.axis,
                new_vocab=self.new_vocab,
                old_vocab=self.old_vocab,
                new_size=self.new_size,
                old_size=self.old_size,
                offset=piece.offset,
                num_rows=piece.num_rows,
                num_cols=piece.num_cols,
                num_oov=piece.num_oov,
                fill_layout=fills.layout,
                shape=list(piece.made),
                threads=self.options.threads or 0,
                name=_NAME,
            )
        value.set_shape(piece.made)
        return value

    def verification(self, near: Any, dtype: Any) -> Any:
        """A tensor that is computed only if the table is undamaged; None where nobody asks."""
        if self.options.verification(mapped=False) != "full":
            return None
        with values.on_cpu_of(near):
            return self.library.tensorbundle_verify_v1(
                parts=[],
                prefix=self.prefix,
                tensor=self.tensor,
                dtype=dtype,
                name="checkpoint_initializer_verify",
            )


def remapped(
    prefix: bytes, step: Remap, stored: Stored | None, variables: list[Any], options: Options
) -> list[Any]:
    """The values that a table's variables start from: the checkpoint's, by the new vocabulary.

    Args:
        prefix: The checkpoint.
        step: The plan for this table.
        stored: The table; None where it is not known yet.
        variables: Its partitions, in the order of the plan's pieces.
        options: What was in force at the call.

    Returns:
        A tensor for each of them. None of them is computed if the table has to be verified, and is
        damaged.

    Raises:
        UnsupportedError: Only TensorFlow's own ops may be used, and they cannot do it.
        TypeError: The backup initializer makes no values of the variables' type.
    """
    import tensorflow as tf

    dtype = variables[0].dtype.base_dtype
    if stored is not None and stored.dtype is not None:
        dtype = tf.as_dtype(stored.dtype)
    key = step.tensor if stored is None else stored.key
    remapper = _remapper(prefix, step, key, variables, options)
    verified = None
    if not all(piece.all_new for piece in step.pieces):
        verified = remapper.verification(variables[0], dtype)
    made = []
    for piece, variable in zip(step.pieces, variables, strict=True):
        with _near(remapper, variable):
            value = _value(remapper, piece, step, variable, dtype)
        made.append(_after(verified, value, variable))
    return made


def _near(remapper: Remapper, variable: Any) -> contextlib.AbstractContextManager[None]:
    """Where a variable's missing cells are made: on its own task, so that none of them travels.

    In this process their device is the caller's, as TensorFlow's is: seeded values depend on it.
    """
    if isinstance(remapper, OpRemap) and facts.on_another_job(variable):
        return values.on_cpu_of(variable)
    return contextlib.nullcontext()


def _value(remapper: Remapper, piece: PieceRemap, step: Remap, variable: Any, stored: Any) -> Any:
    """A partition's initial value."""
    import tensorflow as tf

    dtype = variable.dtype.base_dtype
    if step.slot_of is not None:
        own = backup.initial_value(variable)
        if piece.all_new:
            return own
        fills = backup.in_place(own, piece)
    else:
        initializer = step.info.backup_initializer
        if piece.all_new:
            return backup.whole(initializer, piece, dtype)
        fills = backup.fills(
            initializer, piece, dtype, lambda: remapper.num_missing(piece, variable)
        )
    value = remap_cast.value(remapper, piece, fills, variable, stored)
    return tf.slice(value, piece.begin, piece.shape) if piece.is_window else value


def _after(verified: Any, value: Any, variable: Any) -> Any:
    """A value that nobody gets before its table was found undamaged."""
    import tensorflow as tf

    if verified is None or tf.executing_eagerly():
        return value
    with values.on_cpu_of(variable), tf.control_dependencies([verified]):
        return tf.identity(value, name=_NAME)


def _remapper(
    prefix: bytes, step: Remap, key: str, variables: list[Any], options: Options
) -> Remapper:
    info = step.info
    new_vocab, old_vocab = map(path_in_ops, (info.new_vocab, info.old_vocab))
    size = step.wanted
    way = _way((prefix, new_vocab, old_vocab), variables, options)
    if way == "stock":
        old_size = info.old_vocab_size
        return StockRemap(prefix, key_of(key), (new_vocab, old_vocab), old_size, size)
    if way == "op":
        return OpRemap(
            library=values.library_in_use(),
            prefix=prefix,
            tensor=key_of(key),
            new_vocab=new_vocab,
            old_vocab=old_vocab,
            new_size=size,
            old_size=info.old_vocab_size,
            options=options,
        )
    verify = options.verification(mapped=False) == "full"
    return NumpyRemap(
        prefix, key, new_vocab, old_vocab, info.old_vocab_size, verify, options.threads
    )


def _way(paths: tuple[bytes, ...], variables: list[Any], options: Options) -> str:
    """Whose ops all partitions of a table use: ``"op"``, ``"numpy"`` or ``"stock"``."""
    if any(remote.is_remote(path) for path in paths):
        return "stock"
    ways = {backend.way_for(variable, options) for variable in variables}
    return ways.pop() if len(ways) == 1 else "stock"


def path_in_ops(path: Any) -> bytes:
    """A vocabulary's path as ops carry it; relative if it was.

    Raises:
        TypeError: It is no path.
        ValueError: It holds a NUL byte, or a character that no file name can have.
    """
    try:
        text = os.fsencode(path)
    except UnicodeEncodeError:
        text = os.fsencode(path_text(path))  # raises: it says which character is wrong
    if b"\0" in text:
        raise path_with_nul(os.fsdecode(text))
    return text if remote.is_remote(text) else os.fsencode(path_text(text))
