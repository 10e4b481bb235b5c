# SPDX-License-Identifier: Apache-2.0
"""Loading many whole tensors at once: ``tb.load`` and ``Checkpoint.load``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, shard_path
from craft.compare import same_bits
from craft.dtypes import KINDS, sample
from craft.specimen import TENSORS, specimen
from craft.v1 import V1File
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorbundle as tb

OPTIONS = [{}, {"threads": 1}, {"threads": 3}, {"io": "pread"}, {"io": "direct"},
           {"verify": "none"}, {"verify": "full"}]  # fmt: skip


def big_bundle(shards: int = 1) -> tuple[Bundle, dict[str, Any]]:
    """Builds a checkpoint of tensors below, at and above the size of one task of a read."""
    bundle, sources = Bundle(shards), {}
    for i, count in enumerate([1, 70_000, 65_536, 65_537, 0, 1_000_000, 3]):
        name = f"t{i}"
        sources[name] = np.arange(count, dtype=np.float32) + i
        bundle.add(name, sources[name], shard=i % shards)
    whole = np.arange(400 * 1000, dtype=np.int32).reshape(400, 1000)
    boxes = tilings.cut((400, 1000), 0, [100, 300])
    bundle.add_sliced("w", whole, boxes, shard_of=lambda i: i % shards)
    sources["w"] = whole
    return bundle, sources


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shards", [1, 2])
def test_loads_tensors_of_all_sizes(tmp_path: Path, shards: int, options: dict[str, Any]) -> None:
    bundle, sources = big_bundle(shards)
    loaded = tb.load(bundle.write(tmp_path / "c"), **options)
    assert list(loaded) == sorted(sources)
    for name, source in sources.items():
        assert same_bits(loaded[name], source), name
        assert loaded[name].flags.writeable
        loaded[name][...] = 0  # must not crash, and must not change the file
    assert same_bits(tb.load_variable(tmp_path / "c", "w"), sources["w"])


def test_loads_what_read_returns(tmp_path: Path) -> None:
    bundle, sources = specimen(), dict(TENSORS)
    for kind in KINDS.values():
        sources[kind.label] = sample(kind, (3, 5))
        bundle.add(kind.label, sources[kind.label], number=kind.number)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        loaded = ck.load()
        assert list(loaded) == list(ck)
        for name, value in loaded.items():
            read = ck[name].read()
            assert type(value) is type(read), name
            assert same_bits(value, read), name
            assert same_bits(value, np.asarray(sources[name])), name


def test_loads_v1_files(tmp_path: Path) -> None:
    file = V1File()
    sources = {"a": np.arange(100_000, dtype=np.float32), "b": np.arange(4, dtype=np.float32)}
    for name, source in sources.items():
        file.add(name, 1, source)
    file.write(tmp_path / "c")
    loaded = tb.load(tmp_path / "c")
    assert all(same_bits(loaded[name], source) for name, source in sources.items())
    assert list(loaded) == list(sources)


@given(names=st.lists(st.sampled_from([*TENSORS, b"a", b"w"])))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_result_has_the_given_names_in_order(tmp_path: Path, names: list[Any]) -> None:
    with tb.open(specimen().write(tmp_path / "c")) as ck:
        loaded = ck.load(iter(names))
    assert list(loaded) == list(dict.fromkeys(names))
    arrays = [value for value in loaded.values() if isinstance(value, np.ndarray)]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_rejects_wrong_arguments(tmp_path: Path) -> None:
    with tb.open(specimen().write(tmp_path / "c")) as ck:
        with pytest.raises(tb.TensorNotFoundError):
            ck.load(["a", "nothing"])
        with pytest.raises(TypeError, match="single str"):
            ck.load("a")
        with pytest.raises(ValueError, match="threads"):
            ck.load(threads=0)
    with pytest.raises(ValueError, match="closed"):
        ck.load()
    with pytest.raises(tb.CheckpointNotFoundError):
        tb.load(tmp_path / "absent")


@pytest.mark.parametrize("name", ["t0", "t1", "t5", "w"])
@pytest.mark.parametrize("threads", [1, 2])
def test_corrupt_tensor_raises(tmp_path: Path, name: str, threads: int) -> None:
    path = big_bundle()[0].write(tmp_path / "c")
    with tb.open(path) as ck:
        stored = ck[name].slices[-1]
    data = bytearray(shard_path(path).read_bytes())
    data[stored.file_offset + stored.nbytes - 1] ^= 1
    shard_path(path).write_bytes(data)
    with pytest.raises(tb.CorruptionError, match=f"'{name}'"):
        tb.load(path, threads=threads)
    assert len(tb.load(path, verify="none")) == 8
    with tb.open(path) as ck:
        others = ck.load(each for each in ck if each != name)
        assert len(others) == 7
        with pytest.raises(tb.CorruptionError):
            ck.load()


@pytest.mark.parametrize("name", ["t1", "t6"])
def test_short_file_raises_before_memory_is_filled(tmp_path: Path, name: str) -> None:
    path = big_bundle()[0].write(tmp_path / "c")
    with tb.open(path) as ck:
        end = ck[name].slices[0].file_offset + ck[name].nbytes
    data = shard_path(path).read_bytes()
    shard_path(path).write_bytes(data[: end - 1])
    with pytest.raises(tb.CorruptionError):
        tb.load(path)


def test_missing_shard_raises(tmp_path: Path) -> None:
    path = big_bundle(shards=2)[0].write(tmp_path / "c")
    shard_path(path, 1, 2).unlink()
    with tb.open(path) as ck:
        with pytest.raises(tb.CheckpointNotFoundError):
            ck.load()
        assert list(ck.load(["t0", "t2"])) == ["t0", "t2"]
