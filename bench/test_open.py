# SPDX-License-Identifier: Apache-2.0
"""Opening a checkpoint and listing every name, shape and dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from craft.bundle import Bundle

import tensorbundle as tb
from bench import baseline, data
from bench.case import BASELINE, OURS, Case, Contender, Run, tensorflow

TENSORS = {"smoke": (10, 500), "256MB": (10, 1_000, 40_000, 100_000)}


def test_open(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    return [_case(count) for count in TENSORS.get(size, ())]


@data.stored
def _small_tensors(folder: Path, count: int) -> None:
    """Writes a checkpoint with small tensors, named as in deep models."""
    bundle = Bundle()
    for i in range(count):
        bundle.add(_name(i), np.full((4, 2 + i % 7), i, np.float32))
    bundle.write(folder / "ckpt")


def _name(i: int) -> str:
    return f"model/block_{i // 100:04d}/layer_{i % 100:02d}/kernel"


def _case(count: int) -> Case:
    def contender(name: str, start: Callable[[Path], Iterator[Run]], **options: Any) -> Contender:
        def begin() -> Any:
            return contextmanager(start)(_small_tensors(count) / "ckpt")

        return Contender(name, begin, **options)

    return Case(
        key=f"open/{count} tensors",
        title=f"open and list name, shape and dtype of {count:,} tensors",
        contenders=[
            # The first calls the same functions as the TensorFlow reader, with the same results.
            contender("tensorbundle, TensorFlow's names", _maps_of_tensorbundle, role=OURS),
            contender("tensorbundle, handles", _handles, role=OURS),
            contender("TensorFlow reader", _maps_of_tensorflow, needs=("tensorflow",)),
            contender("C: pread of the index", _pread, role=BASELINE),
        ],
        check=lambda result: _check(result, count),
        unit="tensors",
        amount=count,
        memory=True,
        # The case creates hundreds of thousands of objects; collecting them is part of its cost.
        gc_enabled=True,
    )


def _check(result: Any, count: int) -> None:
    if isinstance(result, np.ndarray):  # the index that the baseline read
        assert result[-8:].tobytes() == bytes.fromhex("57fb808b247547db")
        return
    shapes, dtypes = result
    assert len(shapes) == len(dtypes) == count
    last = _name(count - 1)
    assert list(shapes[last]) == [4, 2 + (count - 1) % 7]
    assert getattr(dtypes[last], "as_numpy_dtype", dtypes[last]) == np.float32


def _handles(prefix: Path) -> Iterator[Run]:
    def run() -> Any:
        shapes, dtypes = {}, {}
        with tb.open(prefix) as ck:
            for name, tensor in ck.items():
                shapes[name] = tensor.shape
                dtypes[name] = tensor.dtype
        return shapes, dtypes

    yield run


def _maps_of_tensorbundle(prefix: Path) -> Iterator[Run]:
    yield lambda: _maps(tb.load_checkpoint(prefix))


def _maps_of_tensorflow(prefix: Path) -> Iterator[Run]:
    tf = tensorflow()
    yield lambda: _maps(tf.train.load_checkpoint(str(prefix)))


def _maps(reader: Any) -> Any:
    return reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()


def _pread(prefix: Path) -> Iterator[Run]:
    index = prefix.with_name("ckpt.index")
    out = np.zeros(index.stat().st_size, np.uint8)

    def run() -> Any:
        with index.open("rb") as file:
            return baseline.pread(file.fileno(), 0, out, 1)

    yield run
