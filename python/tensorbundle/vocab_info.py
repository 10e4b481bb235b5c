# SPDX-License-Identifier: Apache-2.0
"""How a variable's vocabulary changed between two trainings."""

from __future__ import annotations

from typing import Any, NamedTuple

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
