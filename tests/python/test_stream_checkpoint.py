# SPDX-License-Identifier: Apache-2.0
"""Streaming all tensors of a checkpoint in file order."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle, shard_path
from craft.compare import same_bits
from craft.dtypes import KINDS, sample
from craft.specimen import TENSORS, specimen
from craft.threads import num_threads

import tensorbundle as tb

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.mark.parametrize("max_bytes", [0, 10, 1 << 20])
@pytest.mark.parametrize("shards", [1, 2])
def test_yields_every_tensor_in_file_order(tmp_path: Path, shards: int, max_bytes: int) -> None:
    with tb.open(specimen(shards).write(tmp_path / "c")) as ck:
        seen = list(ck.stream(max_bytes=max_bytes))
        offsets = [
            min((each.file, each.file_offset) for each in ck[name].slices) for name, _ in seen
        ]
    assert offsets == sorted(offsets)
    assert {name for name, _ in seen} == set(TENSORS)
    for name, array in seen:
        assert isinstance(array, np.ndarray)
        assert array.flags.writeable
        assert same_bits(array, np.asarray(TENSORS[name]))


def test_yields_every_dtype(tmp_path: Path) -> None:
    bundle = Bundle()
    sources = {kind.label: sample(kind, (3, 5)) for kind in KINDS.values()}
    for kind in KINDS.values():
        bundle.add(kind.label, sources[kind.label], number=kind.number)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        for name, array in ck.stream():
            assert same_bits(array, sources[name])


def test_yields_selected_tensors(tmp_path: Path) -> None:
    with tb.open(specimen().write(tmp_path / "c")) as ck:
        assert [name for name, _ in ck.stream(["w", "a"])] == ["a", "w"]
        assert list(ck.stream([])) == []
        with pytest.raises(tb.TensorNotFoundError):
            ck.stream(["a", "nothing"])
        with pytest.raises(TypeError):
            ck.stream("a")
        with pytest.raises(ValueError, match="max_bytes"):
            ck.stream(max_bytes=-1)


def test_corrupt_tensor_raises_at_its_position(tmp_path: Path) -> None:
    bundle = Bundle()
    sources = {name: np.full((50,), i, np.int32) for i, name in enumerate("abcde")}
    for name, source in sources.items():
        bundle.add(name, source)
    path = bundle.write(tmp_path / "c")
    data = bytearray(shard_path(path).read_bytes())
    data[200 * 2 + 7] ^= 1
    shard_path(path).write_bytes(data[:-1])
    with tb.open(path) as ck:
        stream = ck.stream()
        seen: list[Any] = []
        while True:
            try:
                seen.append(next(stream)[0])
            except StopIteration:
                break
            except tb.CorruptionError as error:
                seen.append(str(error))
    assert seen[:2] == ["a", "b"]
    assert "tensor 'c'" in seen[2]
    assert "CRC32C" in seen[2]
    assert seen[3] == "d"
    assert "tensor 'e'" in seen[4]
    assert len(seen) == 5


def test_kept_arrays_are_not_overwritten(tmp_path: Path) -> None:
    bundle = Bundle()
    sources = {f"{i:03}": np.full((1 + i * 37 % 50, 9), i, np.int64) for i in range(200)}
    for name, source in sources.items():
        bundle.add(name, source)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        kept = dict(ck.stream(max_bytes=5000))
    gc.collect()
    assert all(same_bits(kept[name], source) for name, source in sources.items())
    with tb.open(tmp_path / "c") as ck:
        kept = {name: array for name, array in ck.stream(max_bytes=5000) if name.endswith("7")}
    assert all(same_bits(array, sources[name]) for name, array in kept.items())


@linux
def test_dropped_stream_stops_its_threads(tmp_path: Path) -> None:
    before = num_threads()
    with tb.open(specimen().write(tmp_path / "c")) as ck:
        stream = ck.stream(max_bytes=0)
        next(stream)
        assert num_threads() > before
        del stream
        gc.collect()
        assert num_threads() == before


_PEAK = """
import sys
import tensorbundle as tb
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
with tb.open(sys.argv[1], verify="none") as ck:
    before = peak()
    for _, array in ck.stream(max_bytes=32 << 20):
        array += 1
    print(peak() - before)
"""


@linux
def test_memory_is_bounded_by_max_bytes(tmp_path: Path) -> None:
    bundle = Bundle()
    for i in range(24):
        entry = bundle.add(f"{i:02}", np.zeros((1, 256), np.float32))
        entry.offset = (8 << 20) * i
        entry.size = 8 << 20
        entry.shape.dim[0].size = 8192
    path = bundle.write(tmp_path / "c")
    os.truncate(shard_path(path), (8 << 20) * 24)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(path)], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) <= (32 + 8 + 16) << 20
