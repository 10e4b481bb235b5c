# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that another process replaces by renaming: the data files first, the index last.

Reading new data with an old index always raises.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle, index_path, shard_path
from craft.compare import same_bits

import tensorbundle as tb


def contents(step: int, *, only: str = "") -> dict[str, np.ndarray]:
    """Returns tensors whose values depend on the step, or only those of the tensor `only`."""
    shapes = {"bias": (10,), "kernel": (300, 8), "table": (40_000, 8)}
    return {
        name: np.full(shape, step if only in ("", name) else 0, np.float32)
        for name, shape in shapes.items()
    }


def save(prefix: Path, tensors: dict[str, np.ndarray], shards: int = 1) -> Path:
    bundle = Bundle(num_shards=shards)
    for i, (name, array) in enumerate(tensors.items()):
        bundle.add(name, array, shard=i % shards)
    boxes = [((0, 1), (0, 4)), ((1, 2), (0, 4))]
    sliced = np.full((3, 4), tensors["bias"][0], np.float32)
    bundle.add_sliced("sliced", sliced, boxes, shard_of=lambda i: i % shards)
    bundle.add_strings("words", [b"%d" % int(tensors["bias"][0])], (1,))
    prefix.parent.mkdir(exist_ok=True)
    return bundle.write(prefix)


def move(source: Path, target: Path) -> None:
    """Replaces a file by renaming, as TensorFlow's writer does."""
    aside = target.with_name(target.name + ".tempstate")
    shutil.copyfile(source, aside)
    os.replace(aside, target)


def wait_for_clock_tick() -> None:
    """Sleeps longer than a tick of the file system clock, which is some milliseconds."""
    time.sleep(0.03)


READS: dict[str, Callable[[tb.Tensor], Any]] = {
    "view": np.asarray,
    "slice": lambda t: t[1:2],
    "copied slice": lambda t: t.read(np.s_[1:2]),
    "gather": lambda t: t[[1, 0]],
    "remap": lambda t: tb.load_and_remap(t, rows=[1, 0]),
    "chunks": lambda t: np.concatenate([chunk.copy() for _, chunk in t.chunks(1 << 12)]),
    "copy on write": lambda t: t.copy_on_write(),
    "copy on write of a part": lambda t: t.copy_on_write(np.s_[1:2]),
    "read": lambda t: t.read(),
    "dlpack": np.from_dlpack,
}


@pytest.mark.parametrize("io", ["auto", "pread"])
@pytest.mark.parametrize("verify", ["lazy", "none"])
@pytest.mark.parametrize("only", ["", "bias", "table"])
@pytest.mark.parametrize("shards", [1, 2])
def test_new_data_file_with_old_index_raises_error(
    tmp_path: Path, shards: int, only: str, verify: str, io: str
) -> None:
    prefix = save(tmp_path / "old" / "c", contents(0), shards)
    new = save(tmp_path / "new" / "c", contents(1, only=only), shards)
    wait_for_clock_tick()
    for shard in range(shards):
        move(shard_path(new, shard, shards), shard_path(prefix, shard, shards))
    changed = {only} if only else {"bias", "kernel", "table"}
    with tb.open(prefix, verify=verify, io=io) as ck:
        for name in ("bias", "kernel", "table"):
            for method, read in READS.items():
                if io == "pread" and method.startswith("copy on write"):
                    continue
                if name in changed:
                    with pytest.raises(tb.CorruptionError, match=f"'{name}'"):
                        read(ck[name])
                else:
                    assert (read(ck[name]) == 0).all()
        if only in ("", "bias"):
            for name in ("sliced", "words"):
                for read in (lambda t: t.read(), lambda t: t[0:1], lambda t: t[[0]]):
                    with pytest.raises(tb.CorruptionError, match=f"'{name}'"):
                        read(ck[name])


def test_message_advises_to_open_again(tmp_path: Path) -> None:
    prefix = save(tmp_path / "old" / "c", contents(0))
    new = save(tmp_path / "new" / "c", contents(1))
    wait_for_clock_tick()
    move(shard_path(new), shard_path(prefix))
    with tb.open(prefix) as ck, pytest.raises(tb.CorruptionError) as caught:
        ck["table"][0:1]
    assert str(shard_path(prefix)) in str(caught.value)
    assert "newer than its index" in str(caught.value)
    assert "Open it again" in str(caught.value)


def test_reopened_checkpoint_reads_new_values(tmp_path: Path) -> None:
    prefix = save(tmp_path / "old" / "c", contents(0))
    new = save(tmp_path / "new" / "c", contents(1))
    before = tb.open(prefix)
    move(shard_path(new), shard_path(prefix))
    move(index_path(new), index_path(prefix))
    with tb.open(prefix) as ck:
        for read in READS.values():
            assert (read(ck["table"]) == 1).all()
    with before as ck:  # opened before the replacement: reads the old values
        for read in READS.values():
            assert (read(ck["table"]) == 0).all()


def test_copy_with_older_index_is_read(tmp_path: Path) -> None:
    source = save(tmp_path / "c", contents(3))
    target = tmp_path / "copy" / "c"
    target.parent.mkdir()
    shutil.copyfile(index_path(source), index_path(target))
    wait_for_clock_tick()
    shutil.copyfile(shard_path(source), shard_path(target))
    with tb.open(target) as ck:
        for read in READS.values():
            assert (read(ck["table"]) == 3).all()
        assert ck["words"].read().tolist() == [b"3"]


def test_late_data_file_of_new_checkpoint_raises_error(tmp_path: Path) -> None:
    prefix = save(tmp_path / "old" / "c", contents(0))
    new = save(tmp_path / "new" / "c", contents(1))
    shard_path(prefix).unlink()
    with tb.open(prefix) as ck:
        with pytest.raises(tb.CheckpointNotFoundError):
            ck["table"].read()
        move(shard_path(new), shard_path(prefix))
        move(index_path(new), index_path(prefix))
        for read in READS.values():
            with pytest.raises(tb.CorruptionError, match="replaced since"):
                read(ck["table"])


@pytest.mark.parametrize("in_place", [False, True], ids=["renamed", "index rewritten"])
def test_concurrent_replacement_never_mixes_saves(tmp_path: Path, in_place: bool) -> None:
    """TensorFlow renames the index of a simple save, and rewrites the index of a merged save."""
    sources = [save(tmp_path / str(step) / "c", contents(step)) for step in (1, 2)]
    prefix = tmp_path / "c"
    for path in (shard_path, index_path):
        shutil.copyfile(path(sources[0]), path(prefix))
    done = threading.Event()

    def write() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            source = sources[turn % 2]
            move(shard_path(source), shard_path(prefix))
            if in_place:
                data = index_path(source).read_bytes()
                with open(index_path(prefix), "wb", buffering=0) as file:
                    for start in range(0, len(data), 100):
                        file.write(data[start : start + 100])
            else:
                move(index_path(source), index_path(prefix))
            time.sleep(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    opened = errors = 0
    end = time.monotonic() + 3
    try:
        while time.monotonic() < end:
            opened += 1
            try:
                with tb.open(prefix) as ck:
                    row = ck["table"][5]
                    assert same_bits(row, np.full(8, row[0], np.float32))
                    # read() compares the checksum, so its value identifies the save.
                    assert row[0] == ck["bias"].read()[0]
            except tb.CorruptionError:
                errors += 1
    finally:
        done.set()
        writer.join()
    assert opened > 100
    if not in_place:  # a partially written index is an error, as in TensorFlow
        assert errors < opened / 100
