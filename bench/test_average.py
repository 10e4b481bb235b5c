# SPDX-License-Identifier: Apache-2.0
"""Averaging BERT checkpoints into a new one."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import data, test_diff
from bench.case import COMPETITOR, OURS, VERIFIED, Case, Contender, Run, tensorflow
from bench.data import binary
from bench.test_read import BERT_LAYERS, bert_shapes

COUNT = 5


def test_average(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    return [_case(BERT_LAYERS[size])] if size in BERT_LAYERS else []


def _case(layers: int) -> Case:
    shapes = bert_shapes(layers)

    def contender(name: str, run: Callable[[list[Path], Path], Any], **options: Any) -> Contender:
        @contextmanager
        def start() -> Iterator[Run]:
            paths = test_diff.warmed(layers, range(COUNT))
            with tempfile.TemporaryDirectory(dir=data.root()) as folder:
                target = Path(folder, "mean")

                def write() -> Path:
                    run(paths, target)
                    return target

                yield write

        return Contender(name, start, checksum=VERIFIED, **options)

    def tensorbundle(paths: list[Path], target: Path) -> None:
        tb.average(paths, target, overwrite=True)

    def one_thread(paths: list[Path], target: Path) -> None:
        tb.average(paths, target, overwrite=True, threads=1)

    def one_by_one(paths: list[Path], target: Path) -> None:
        """Adds each checkpoint to sums in float64, as tensor2tensor's script does."""
        tf = tensorflow()
        sums: dict[str, Any] = {}
        types = {}
        for path in paths:
            reader = tf.train.load_checkpoint(str(path))
            for name in shapes:
                value = reader.get_tensor(name)
                types[name] = value.dtype
                if name in sums:
                    sums[name] += value
                else:
                    sums[name] = value.astype(np.float64)
        _save(target, {name: (sums[name] / len(paths)).astype(types[name]) for name in shapes})

    def all_in_memory(paths: list[Path], target: Path) -> None:
        tf = tensorflow()
        readers = [tf.train.load_checkpoint(str(path)) for path in paths]
        values = [{name: reader.get_tensor(name) for name in shapes} for reader in readers]
        means = {}
        for name in shapes:
            arrays = [each[name] for each in values]
            means[name] = np.mean(arrays, axis=0, dtype=np.float64).astype(arrays[0].dtype)
        _save(target, means)

    def check(target: Path) -> None:
        with tb.open(target) as checkpoint:
            assert list(checkpoint) == list(shapes)
            assert checkpoint.verify().ok
            for i, (name, shape) in enumerate(shapes.items()):
                start, size = i << 20, math.prod(shape)
                total = np.zeros(size)
                for number in range(COUNT):
                    total += data.elements(start + number, start + number + size)
                expected = (total / COUNT).astype(np.float32).reshape(shape)
                assert np.array_equal(checkpoint[name], expected), name

    total = 4 * sum(map(math.prod, shapes.values()))
    return Case(
        key=f"average/{COUNT} BERTs of {layers} layers",
        title=f"average {COUNT} checkpoints of {len(shapes)} tensors, {binary(total)} each, "
        "in float64, and write the result",
        contenders=[
            contender("tensorbundle", tensorbundle, role=OURS),
            contender("tensorbundle, 1 thread", one_thread, role=OURS),
            contender("TensorFlow, one by one", one_by_one, role=COMPETITOR,
                      needs=("tensorflow",)),
            contender("TensorFlow, all in memory", all_in_memory, role=COMPETITOR,
                      needs=("tensorflow",)),
        ],
        check=check,
        unit="bytes",
        amount=COUNT * total,
        memory=True,
    )  # fmt: skip


def _save(target: Path, tensors: dict[str, Any]) -> None:
    tensorflow().raw_ops.SaveV2(
        prefix=str(target), tensor_names=list(tensors), shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )  # fmt: skip
