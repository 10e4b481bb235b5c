# SPDX-License-Identifier: Apache-2.0
"""Tensors written as a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tensorbundle import casts
from tensorbundle.formats.tensors import Advance, Array
from tensorbundle.planned_tensor import PlannedTensor
from tensorbundle.writer import Writer


def unsupported_reason(name: str, dtype: np.dtype[Any]) -> str | None:
    """Returns why a checkpoint cannot store a tensor, or None."""
    if not name:
        return "its name is empty"
    return None if casts.dtype_of(dtype) else f"TensorFlow has no type {dtype.name}"


def write(
    path: str,
    source: Sequence[PlannedTensor],
    *,
    shards: int,
    alignment: int,
    overwrite: bool,
    advance: Advance,
) -> tuple[str, ...]:
    """Writes tensors with their planned slices.

    Returns:
        The prefix, as the only element.
    """
    with Writer(path, shards=shards, alignment=alignment, overwrite=overwrite) as writer:
        for tensor in source:
            _add(writer, tensor, advance)
    return (writer.path,)


def _add(writer: Writer, tensor: PlannedTensor, advance: Advance) -> None:
    if not tensor.shape:
        for value in tensor.blocks():
            writer.add(tensor.name, value)
            advance(value.nbytes)
        return
    if len(tensor.slices) == 1:
        blocks = _counted(tensor.blocks(), advance)
        writer.add_chunks(tensor.name, tensor.shape, tensor.dtype, blocks)
        return
    stored = tensor.slice_blocks()

    def blocks_of_next() -> Iterator[Array]:
        _, blocks = next(stored)
        yield from _counted(map(tensor.finish, blocks), advance)

    slices = [(offset, shape, blocks_of_next()) for offset, shape in tensor.slices]
    writer.add_slices(tensor.name, tensor.shape, slices, dtype=tensor.dtype)


def _counted(blocks: Iterable[Array], advance: Advance) -> Iterator[Array]:
    for block in blocks:
        yield block
        advance(block.nbytes)
