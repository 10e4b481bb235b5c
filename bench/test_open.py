# SPDX-License-Identifier: Apache-2.0
"""Opening a checkpoint and listing every name, shape and dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import ceiling, data, rivals
from bench.case import FLOOR, OURS, Case, Contender, Run
from bench.sizes import Size


def test_open(entry: Any, duel: Callable[[Any], None]) -> None:
    duel(entry)


def cases(size: Size) -> list[Case]:
    return [_case(count) for count in size.tensors]


def _case(count: int) -> Case:
    def contender(name: str, start: Callable[[Path], Iterator[Run]], **options: Any) -> Contender:
        return Contender(name, lambda: contextmanager(start)(data.many(count)), **options)

    return Case(
        key=f"open/{count} tensors",
        title=f"open and list name, shape and dtype of {count:,} tensors",
        contenders=[
            # The same calls, which make the same objects, come first: like is compared with like.
            contender("tensorbundle, TensorFlow's names", _by_tensorflows_names, role=OURS),
            contender("tensorbundle, handles", _ours, role=OURS),
            contender("TensorFlow reader", _tensorflow, needs=("tensorflow",)),
            contender("C: pread of the index", _floor, role=FLOOR),
        ],
        check=lambda result: _check(result, count),
        unit="tensors",
        amount=count,
        weigh=True,
        collecting=True,
    )


def _check(result: Any, count: int) -> None:
    if isinstance(result, np.ndarray):  # the floor's: bytes of the index
        assert result[-8:].tobytes() == bytes.fromhex("57fb808b247547db")
        return
    shapes, dtypes = result
    assert len(shapes) == len(dtypes) == count
    last = f"model/block_{(count - 1) // 100:04d}/layer_{(count - 1) % 100:02d}/kernel"
    assert list(shapes[last]) == [4, 2 + (count - 1) % 7]
    found = dtypes[last]
    assert getattr(found, "as_numpy_dtype", found) == np.float32


def _ours(prefix: Path) -> Iterator[Run]:
    def run() -> Any:
        shapes, dtypes = {}, {}
        with tb.open(prefix) as ck:
            for name, tensor in ck.items():
                shapes[name] = tensor.shape
                dtypes[name] = tensor.dtype
        return shapes, dtypes

    yield run


def _by_tensorflows_names(prefix: Path) -> Iterator[Run]:
    yield lambda: _maps(tb.load_checkpoint(prefix))


def _tensorflow(prefix: Path) -> Iterator[Run]:
    tf = rivals.tensorflow()
    yield lambda: _maps(tf.train.load_checkpoint(str(prefix)))


def _maps(reader: Any) -> Any:
    return reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()


def _floor(prefix: Path) -> Iterator[Run]:
    index = prefix.with_name("ckpt.index")
    out = np.zeros(index.stat().st_size, np.uint8)

    def run() -> Any:
        with index.open("rb") as file:
            return ceiling.pread(file.fileno(), 0, out, 1)

    yield run
