# SPDX-License-Identifier: Apache-2.0
"""Many small reads: every tensor by name, a small checkpoint whole, and one view by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from craft.bundle import Bundle

import tensorbundle as tb
from bench import data
from bench.case import (
    BASELINE,
    OURS,
    UNVERIFIED,
    VERIFIED,
    Case,
    Contender,
    Run,
    tensorflow,
)

SCALARS = {"smoke": 100, "256MB": 40_000}
LAYERS = 9


def test_small(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    if size not in SCALARS:
        return []
    return [_scalars(SCALARS[size]), _model(), _view()]


@data.stored
def _one_element(folder: Path, count: int) -> None:
    """Writes a checkpoint with tensors of one float32, named as in deep models."""
    bundle = Bundle()
    for i in range(count):
        bundle.add(f"model/block_{i // 100:04d}/layer_{i % 100:02d}/scale", np.full(1, i, "<f4"))
    bundle.write(folder / "ckpt")


@data.stored
def _small_model(folder: Path, layers: int) -> None:
    """Writes 3 tensors per layer: a kernel, and two vectors; 78 KB per layer."""
    bundle = Bundle()
    for layer in range(layers):
        values = data.elements(layer << 16, (layer << 16) + 138 * 141)
        bundle.add(f"layer_{layer}/bias", values[:138])
        bundle.add(f"layer_{layer}/kernel", values[: 138 * 140].reshape(138, 140))
        bundle.add(f"layer_{layer}/scale", values[-138:])
    bundle.write(folder / "ckpt")


def _contender(name: str, start: Callable[[], Iterator[Run]], **options: Any) -> Contender:
    return Contender(name, contextmanager(start), **options)


def _by_name(reader: Any) -> dict[str, Any]:
    # In the order of the map, which is random, TensorFlow would take ten times as long.
    names = sorted(reader.get_variable_to_shape_map())
    return {name: reader.get_tensor(name) for name in names}


def _readers(prefix: Callable[[], Path]) -> list[Contender]:
    """Returns contenders that open a checkpoint, list it and read all tensors by name."""

    def tensorbundle() -> Iterator[Run]:
        path = prefix()

        def run() -> Any:
            return _by_name(tb.load_checkpoint(path))

        yield run

    def handles() -> Iterator[Run]:
        path = prefix()

        def run() -> Any:
            with tb.open(path) as ck:
                return {name: ck[name].read() for name in ck}

        yield run

    def load() -> Iterator[Run]:
        path = prefix()
        yield lambda: tb.load(path)

    def tensorflow_reader() -> Iterator[Run]:
        tf, path = tensorflow(), str(prefix())

        def run() -> Any:
            return _by_name(tf.train.load_checkpoint(path))

        yield run

    def create() -> Iterator[Run]:
        with tb.open(prefix()) as ck:
            shapes = {name: tensor.shape for name, tensor in ck.items()}
        yield lambda: {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    return [
        _contender("tensorbundle, get_tensor", tensorbundle, role=OURS, checksum=VERIFIED),
        _contender("tensorbundle, handles", handles, role=OURS, checksum=VERIFIED),
        _contender("tensorbundle, load", load, role=OURS, checksum=VERIFIED),
        _contender(
            "TensorFlow reader, get_tensor", tensorflow_reader, checksum=VERIFIED,
            needs=("tensorflow",),
        ),
        _contender("NumPy creates the arrays", create, role=BASELINE, needs=("numpy",)),
    ]  # fmt: skip


def _scalars(count: int) -> Case:
    def check(result: Any) -> None:
        values = [result[name].item() for name in sorted(result)]
        assert values in (list(range(count)), [0] * count)  # the baseline creates zeros

    return Case(
        key=f"small/{count} tensors by name",
        title=f"open, and read {count:,} tensors of 4 bytes by name",
        contenders=_readers(lambda: _one_element(count) / "ckpt"),
        check=check,
        unit="tensors",
        amount=count,
        gc_enabled=True,
    )


def _model() -> Case:
    def check(result: Any) -> None:
        assert len(result) == 3 * LAYERS
        assert result["layer_8/kernel"].shape == (138, 140)

    return Case(
        key="small/model of 27 tensors",
        title="open, list and read all of a checkpoint of 27 tensors, 0.7 MB",
        contenders=_readers(lambda: _small_model(LAYERS) / "ckpt"),
        check=check,
        unit="tensors",
        amount=3 * LAYERS,
    )


def _view() -> Case:
    name = "layer_4/bias"

    def prefix() -> Path:
        return _small_model(LAYERS) / "ckpt"

    def tensorbundle() -> Iterator[Run]:
        with tb.open(prefix()) as ck:
            yield lambda: np.asarray(ck[name])

    def tensorflow_reader() -> Iterator[Run]:
        reader = tensorflow().train.load_checkpoint(str(prefix()))
        yield lambda: reader.get_tensor(name)

    def memmap() -> Iterator[Run]:
        with tb.open(prefix()) as ck:
            stored = ck[name].slices[0]
        source = np.memmap(stored.file, np.uint8, "r")
        start, stop = stored.file_offset, stored.file_offset + stored.nbytes
        yield lambda: source[start:stop].view(np.float32)

    def check(result: Any) -> None:
        assert np.array_equal(result, data.elements(4 << 16, (4 << 16) + 138))

    return Case(
        key="small/view by name",
        title="np.asarray(ck[name]) of an open small checkpoint",
        contenders=[
            _contender("tensorbundle", tensorbundle, role=OURS, checksum=UNVERIFIED),
            _contender(
                "TensorFlow reader (a copy)", tensorflow_reader, checksum=VERIFIED,
                needs=("tensorflow",),
            ),
            _contender("numpy.memmap, place known", memmap, checksum=UNVERIFIED),
        ],
        check=check,
    )  # fmt: skip
