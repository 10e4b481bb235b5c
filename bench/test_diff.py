# SPDX-License-Identifier: Apache-2.0
"""Comparing two BERT checkpoints: equal ones, and ones whose values all differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from craft.bundle import Bundle

import tensorbundle as tb
from bench import data
from bench.case import (
    COMPETITOR,
    OURS,
    UNVERIFIED,
    VERIFIED,
    Case,
    Contender,
    Run,
    tensorflow,
)  # fmt: skip
from bench.data import binary
from bench.test_read import BERT_LAYERS, bert_shapes


def test_diff(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    if size not in BERT_LAYERS:
        return []
    layers = BERT_LAYERS[size]
    return [_case(layers, (0, 0)), _case(layers, (0, 1))]


@data.stored
def model(folder: Path, layers: int, number: int) -> None:
    """Writes one of several models, which differ in every tensor."""
    bundle = Bundle()
    for i, (name, shape) in enumerate(bert_shapes(layers).items()):
        start = (i << 20) + number
        bundle.add(name, data.elements(start, start + math.prod(shape)).reshape(shape))
    bundle.write(folder / "ckpt")


def warmed(layers: int, numbers: Sequence[int]) -> list[Path]:
    """Returns the prefixes of models, after reading them into the page cache."""
    folders = [model(layers, number) for number in numbers]
    for folder in set(folders):
        data.warm(folder.iterdir())
    return [folder / "ckpt" for folder in folders]


def _case(layers: int, numbers: tuple[int, int]) -> Case:
    shapes = bert_shapes(layers)
    are_equal = len(set(numbers)) == 1

    def contender(name: str, run: Callable[[Path, Path], Any], **options: Any) -> Contender:
        @contextmanager
        def start() -> Iterator[Run]:
            yield partial(run, *warmed(layers, numbers))

        return Contender(name, start, **options)

    def by_index(a: Path, b: Path) -> list[str]:
        return [row.name for row in tb.diff(a, b).changed]

    def with_values(a: Path, b: Path) -> list[str]:
        report = tb.diff(a, b, values=True)
        assert all(row.values and row.values.max_abs is not None for row in report.changed)
        return [row.name for row in report.changed]

    def readers(a: Path, b: Path) -> list[str]:
        train = tensorflow().train
        first, second = train.load_checkpoint(str(a)), train.load_checkpoint(str(b))
        names = []
        for name in sorted(first.get_variable_to_shape_map()):
            x, y = first.get_tensor(name), second.get_tensor(name)
            if not np.array_equal(x, y):
                assert np.abs(x - y).max() > 0
                names.append(name)
        return names

    def check(result: list[str]) -> None:
        assert result == ([] if are_equal else list(shapes))

    total = 4 * sum(map(math.prod, shapes.values()))
    ours = [
        contender("tensorbundle, by the index", by_index, role=OURS, checksum=UNVERIFIED),
        contender("tensorbundle, with values", with_values, role=OURS, checksum=VERIFIED),
    ]
    competitor = contender(
        "TensorFlow reader, NumPy", readers, role=COMPETITOR, checksum=VERIFIED,
        needs=("tensorflow",),
    )  # fmt: skip
    return Case(
        key=f"diff/BERT of {layers} layers, {'equal' if are_equal else 'all changed'}",
        title=f"compare two checkpoints of {len(shapes)} tensors, {binary(total)}, "
        + ("which are equal" if are_equal else "and find the largest difference of each tensor"),
        contenders=[*(ours if are_equal else ours[::-1]), competitor],
        check=check,
        unit="bytes",
        amount=2 * total,
        memory=True,
    )
