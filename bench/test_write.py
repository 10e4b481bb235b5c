# SPDX-License-Identifier: Apache-2.0
"""Saving a checkpoint of large or of small tensors, into the page cache and from there to the disk.

tensorbundle syncs its files to the disk before it names them. TensorFlow does not: its time is
measured without and with a sync of its files.
"""

from __future__ import annotations

import functools
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import data
from bench.case import BASELINE, NONE, OURS, VERIFIED, Case, Contender, Phases, Run, tensorflow
from bench.data import DIM, MIB, Array, binary

SIZES = {"smoke": (4 * MIB, 1_000), "1GB": (1024 * MIB, 20_000)}
"""The bytes of a few large tensors, and the number of small ones, which have one row."""
TENSORS = 16

Tensors = dict[str, Array]


def test_write(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    if size not in SIZES:
        return []
    nbytes, count = SIZES[size]
    large = nbytes // (4 * DIM * TENSORS)
    return [
        _case(TENSORS, large, f"save/{binary(nbytes)}"),
        _case(count, 1, f"save/small, {count} tensors"),
    ]


def _case(count: int, rows: int, key: str) -> Case:
    def contender(name: str, prepare: Prepare, *options: Any, **more: Any) -> Contender:
        return Contender(name, _saving(count, rows, prepare), *options, **more)

    theirs, synced = (functools.partial(_theirs, sync=sync) for sync in (False, True))
    return Case(
        key=key,
        title=f"{count:,} tensors of {binary(rows * DIM * 4)} saved to a disk",
        contenders=[
            contender("tensorbundle save", _ours, OURS, VERIFIED),
            contender(
                "TensorFlow SaveV2, no sync", theirs, checksum=VERIFIED, needs=("tensorflow",)
            ),
            contender(
                "TensorFlow SaveV2, then fsync", synced, checksum=VERIFIED, needs=("tensorflow",)
            ),
            contender("safetensors save_file, no sync", _safetensors, needs=("safetensors",)),
            contender("pwrite, then fsync", _pwrite, BASELINE, NONE, ("numpy",)),
        ],
        check=lambda _: None,  # in the process that writes
        unit="bytes",
        amount=count * rows * DIM * 4,
        memory=True,
        fresh_process=True,
    )


# Prepares the tensors; returns a function that writes them to a folder, and one that reads them.
Prepare = Callable[[Tensors], tuple[Callable[[Path], None], Callable[[Path], Tensors]]]


def _saving(count: int, rows: int, prepare: Prepare) -> Callable[[], Any]:
    """Saves once, after a save of one row that loads libraries."""

    @contextmanager
    def start() -> Iterator[Run]:
        size = rows * DIM
        tensors = {
            f"tensor_{i:05d}": data.elements(i * size, (i + 1) * size).reshape(rows, DIM)
            for i in range(count)
        }
        write, read = prepare(tensors)
        folder = data.root() / f".save.{os.getpid()}"
        (folder / "first").mkdir(parents=True)
        try:
            prepare({"tensor": data.elements(0, DIM).reshape(1, DIM)})[0](folder / "first")

            def run() -> Phases:
                phases = Phases()
                with phases.phase("save"):
                    write(folder)
                for name, array in read(folder).items():
                    same = zlib.crc32(array) == zlib.crc32(tensors[name])  # takes no memory
                    assert same, name
                return phases

            yield run
        finally:
            shutil.rmtree(folder)

    return start


def _ours(tensors: Tensors) -> Any:
    return (
        lambda folder: tb.save(folder / "ckpt", tensors),
        lambda folder: {name: np.asarray(t) for name, t in tb.open(folder / "ckpt").items()},
    )


def _theirs(tensors: Tensors, *, sync: bool) -> Any:
    tf = tensorflow()
    values = [tf.constant(array) for array in tensors.values()]

    def write(folder: Path) -> None:
        tf.raw_ops.SaveV2(
            prefix=str(folder / "ckpt"),
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=values,
        )
        if sync:
            for path in (*folder.iterdir(), folder):
                _fsync(path)

    return write, _ours(tensors)[1]


def _safetensors(tensors: Tensors) -> Any:
    import safetensors.numpy

    return (
        lambda folder: safetensors.numpy.save_file(tensors, folder / "model.safetensors"),
        lambda folder: safetensors.numpy.load_file(folder / "model.safetensors"),
    )


def _pwrite(tensors: Tensors) -> Any:
    def write(folder: Path) -> None:
        file = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT)
        try:
            at = 0
            for array in tensors.values():
                view = memoryview(array).cast("B")
                for start in range(0, len(view), 8 * MIB):
                    at += os.pwrite(file, view[start : start + 8 * MIB], at)
            os.fsync(file)
        finally:
            os.close(file)

    def read(folder: Path) -> Tensors:
        shape = (len(tensors), *next(iter(tensors.values())).shape)
        stored = np.memmap(folder / "raw", np.float32, "r", shape=shape)
        return dict(zip(tensors, stored, strict=True))

    return write, read


def _fsync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.close(file)
