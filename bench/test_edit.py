# SPDX-License-Identifier: Apache-2.0
"""Editing a checkpoint: a BERT without its optimizer slots, renamed, and cast to bfloat16.

tensorbundle syncs its files to the disk before it names them; TensorFlow does not.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import tensorbundle as tb
from bench import data
from bench.case import OURS, VERIFIED, Case, Contender, Destination, Run, tensorflow
from bench.test_convert import trained_bert, trained_tensors
from bench.test_read import bert_shapes

LAYERS = {"smoke": 2, "1GB": 12}
"""The layers of the BERT model. With its optimizer slots, BERT-base has 1.3 GB."""


def test_edit(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    return [_strip(LAYERS[size])] if size in LAYERS else []


def _strip(layers: int) -> Case:
    shapes = bert_shapes(layers)
    positions = {name: i for i, name in enumerate(trained_tensors(layers))}
    folder = data.root() / f".edited.{os.getpid()}"

    def contender(name: str, edit: Callable[[str], None], **options: Any) -> Contender:
        @contextmanager
        def start() -> Iterator[Run]:
            prefix = trained_bert(layers) / "ckpt"
            data.warm(prefix.parent.iterdir())
            folder.mkdir(parents=True, exist_ok=True)

            def run() -> Path:
                for path in folder.iterdir():
                    path.unlink()
                edit(str(prefix))
                return folder / "ckpt"

            yield run
            shutil.rmtree(folder, ignore_errors=True)

        return Contender(name, start, checksum=VERIFIED, **options)

    def tensorbundle(prefix: str) -> None:
        options = {"slots": False, "cast": {"float32": "bfloat16"}, "rename": [("^", "new/")]}
        tb.edit(prefix, folder / "ckpt", **options)

    def save(values: list[Any]) -> None:
        tf = tensorflow()
        tf.raw_ops.SaveV2(
            prefix=str(folder / "ckpt"),
            tensor_names=[f"new/{name}" for name in shapes],
            shape_and_slices=[""] * len(shapes),
            tensors=[tf.cast(value, tf.bfloat16) for value in values],
        )

    def get_tensor(prefix: str) -> None:
        reader = tensorflow().train.load_checkpoint(prefix)
        save([reader.get_tensor(name) for name in shapes])

    def restore(prefix: str) -> None:
        tf = tensorflow()
        save(
            tf.raw_ops.RestoreV2(
                prefix=prefix,
                tensor_names=list(shapes),
                shape_and_slices=[""] * len(shapes),
                dtypes=[tf.float32] * len(shapes),
            )
        )

    def check(path: Path) -> None:
        with tb.open(path, verify="full") as found:
            assert set(found) == {f"new/{name}" for name in shapes}
            for name, shape in shapes.items():
                start = positions[name] << 20
                expected = data.elements(start, start + math.prod(shape)).reshape(shape)
                actual = np.asarray(found[f"new/{name}"])
                assert np.array_equal(actual, expected.astype(ml_dtypes.bfloat16)), name

    nbytes = 2 * sum(map(math.prod, shapes.values()))
    needs = ("tensorflow",)
    return Case(
        key=f"edit/BERT of {layers} layers",
        title=f"the weights of a BERT of {layers} layers, renamed, as bfloat16: "
        f"{nbytes / 1e6:.4g} MB",
        contenders=[
            contender("tensorbundle edit, with fsync", tensorbundle, role=OURS),
            contender("TensorFlow get_tensor, cast, SaveV2", get_tensor, needs=needs),
            contender("TensorFlow RestoreV2, cast, SaveV2", restore, needs=needs),
        ],
        check=check,
        unit="bytes",
        amount=nbytes,
        destination=Destination(0),
        memory=True,
    )
