# SPDX-License-Identifier: Apache-2.0
"""Cuts a shape into boxes."""

from __future__ import annotations

import random
from collections.abc import Sequence

Box = tuple[tuple[int, int], ...]
"""One (start, length) per axis."""


def cut(shape: Sequence[int], axis: int, lengths: Sequence[int]) -> list[Box]:
    """Returns adjacent boxes of the given lengths along ``axis``; they span the other axes."""
    if sum(lengths) != shape[axis]:
        raise ValueError(f"{lengths} do not add up to axis {axis} of {shape}")
    boxes, start = [], 0
    for length in lengths:
        box = [(0, size) for size in shape]
        box[axis] = (start, length)
        boxes.append(tuple(box))
        start += length
    return boxes


def grid(shape: Sequence[int], lengths: Sequence[Sequence[int]]) -> list[Box]:
    """Returns a grid from one list of lengths per axis, in row-major order."""
    boxes: list[Box] = [()]
    for axis, sizes in enumerate(lengths):
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        if sum(sizes) != shape[axis]:
            raise ValueError(f"{sizes} do not add up to axis {axis} of {shape}")
        boxes = [(*box, pair) for box in boxes for pair in zip(starts, sizes, strict=True)]
    return boxes


def guillotine(shape: Sequence[int], cuts: int, rng: random.Random) -> list[Box]:
    """Makes up to ``cuts`` straight cuts through random boxes; returns them in random order."""
    boxes: list[Box] = [tuple((0, size) for size in shape)]
    for _ in range(cuts):
        at = rng.randrange(len(boxes))
        axes = [axis for axis, (_, length) in enumerate(boxes[at]) if length > 1]
        if not axes:
            continue
        box, axis = boxes.pop(at), rng.choice(axes)
        start, length = box[axis]
        left = rng.randrange(1, length)
        for pair in ((start, left), (start + left, length - left)):
            boxes.append((*box[:axis], pair, *box[axis + 1 :]))
    rng.shuffle(boxes)
    return boxes


def slices(box: Box) -> tuple[slice, ...]:
    """Returns the box as a NumPy index."""
    return tuple(slice(start, start + length) for start, length in box)
