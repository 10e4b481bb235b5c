# SPDX-License-Identifier: Apache-2.0
"""Converting a checkpoint to a safetensors file on the same file system."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from craft.bundle import Bundle, shard_path

import tensorbundle as tb
from bench import data
from bench.case import OURS, VERIFIED, Case, Contender, Destination, Run, tensorflow
from bench.data import FLOAT
from bench.test_read import bert_shapes
from tensorbundle.formats import safetensors

SLOTS = ("adam_m", "adam_v")
LAYERS = {"smoke": 2, "1GB": 12}
"""The layers of the BERT model. With its optimizer slots, BERT-base has 1.3 GB."""


def test_convert(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    if size not in LAYERS:
        return []
    return [_convert(LAYERS[size], weights_only=False), _convert(LAYERS[size], weights_only=True)]


def trained_tensors(layers: int) -> dict[str, tuple[int, ...]]:
    shapes = bert_shapes(layers)
    slots = {f"{name}/{slot}": shape for name, shape in shapes.items() for slot in SLOTS}
    return dict(sorted({**shapes, **slots}.items()))


@data.stored
def trained_bert(folder: Path, layers: int) -> None:
    """Writes a BERT model with its optimizer slots."""
    prefix, bundle, offset = folder / "ckpt", Bundle(), 0
    bundle.write_shards(prefix)
    for i, (name, shape) in enumerate(trained_tensors(layers).items()):
        count = math.prod(shape)
        crc = data.write_elements(shard_path(prefix), offset, i << 20, (i << 20) + count)
        entry = bundle.add_payload(name, FLOAT, shape, b"", crc=crc)
        entry.offset, entry.size = offset, 4 * count
        offset += 4 * count
    data.write_index(bundle, prefix)


def _convert(layers: int, *, weights_only: bool) -> Case:
    shapes = trained_tensors(layers)
    positions = {name: i for i, name in enumerate(shapes)}
    if weights_only:
        shapes = bert_shapes(layers)
    dtype = np.dtype(ml_dtypes.bfloat16) if weights_only else np.dtype(np.float32)
    target = data.root() / f"converted-{os.getpid()}.safetensors"

    def contender(name: str, convert: Callable[[Path], None], **options: Any) -> Contender:
        @contextmanager
        def start() -> Iterator[Run]:
            prefix = trained_bert(layers) / "ckpt"
            data.warm(prefix.parent.iterdir())

            def run() -> Path:
                target.unlink(missing_ok=True)
                convert(prefix)
                return target

            yield run
            target.unlink(missing_ok=True)

        return Contender(name, start, checksum=VERIFIED, **options)

    def tensorbundle(prefix: Path) -> None:
        options = {"slots": False, "cast": {"float32": "bfloat16"}} if weights_only else {}
        tb.convert(prefix, target, **options)

    def in_memory(prefix: Path) -> None:
        from safetensors.numpy import save_file

        reader = tensorflow().train.load_checkpoint(str(prefix))
        save_file(
            {name: reader.get_tensor(name).astype(dtype, copy=False) for name in shapes}, target
        )

    def in_memory_synced(prefix: Path) -> None:
        in_memory(prefix)
        with target.open("rb") as file:
            os.fsync(file.fileno())

    def check(path: Path) -> None:
        with safetensors.read(str(path)) as found:
            assert found.keys() == shapes.keys()
            for name, shape in shapes.items():
                start = positions[name] << 20
                expected = data.elements(start, start + math.prod(shape)).reshape(shape)
                assert np.array_equal(np.asarray(found[name]), expected.astype(dtype)), name

    nbytes = sum(map(math.prod, shapes.values())) * dtype.itemsize
    what = "the weights, as bfloat16," if weights_only else "weights and optimizer slots"
    needs = ("tensorflow", "safetensors")
    return Case(
        key=f"convert/BERT of {layers} layers, {'weights as bfloat16' if weights_only else 'all'}",
        title=f"{what} of a BERT of {layers} layers to a safetensors file of {nbytes / 1e6:.4g} MB",
        contenders=[
            contender("tensorbundle convert, with fsync", tensorbundle, role=OURS),
            contender("TensorFlow and safetensors, with fsync", in_memory_synced, needs=needs),
            contender("TensorFlow and safetensors", in_memory, needs=needs),
        ],
        check=check,
        unit="bytes",
        amount=nbytes,
        destination=Destination(0),
        memory=True,
    )
