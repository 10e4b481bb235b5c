# SPDX-License-Identifier: Apache-2.0
"""Lifetimes of mappings, effects of close(), and writability of arrays."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle, shard_path
from craft.compare import same_bits, shows_a_file
from craft.specimen import TENSORS, specimen
from craft.v1 import V1File

import tensorbundle as tb

SOURCE = np.arange(300_000, dtype=np.float32).reshape(1000, 300)

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    bundle = Bundle()
    bundle.add("t", SOURCE)
    bundle.add("u", SOURCE[:2])
    return bundle.write(tmp_path / "c")


def mappings(path: Path) -> int:
    """Returns the number of mappings of ``path`` in this process."""
    with open("/proc/self/maps") as file:
        return sum(line.rstrip().endswith(str(path)) for line in file)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_view_outlives_checkpoint_and_file(prefix: Path) -> None:
    ck = tb.open(prefix)
    t = ck["t"]
    view = np.asarray(t)
    box = t[10:20, 3]
    ck.close()
    del ck, t
    gc.collect()
    shard_path(prefix).unlink()
    assert same_bits(view, SOURCE)
    del view
    gc.collect()
    assert same_bits(box, SOURCE[10:20, 3])


@linux
def test_last_view_releases_mapping(prefix: Path) -> None:
    before = descriptors()
    ck = tb.open(prefix)
    views = [np.asarray(ck["t"]), ck["t"][5], np.asarray(ck["u"])]
    assert mappings(shard_path(prefix)) == 1
    ck.close()
    del ck
    while views:
        assert mappings(shard_path(prefix)) == 1
        views.pop()
        gc.collect()
    assert mappings(shard_path(prefix)) == 0
    assert descriptors() == before


@linux
def test_dropped_checkpoint_releases_everything(prefix: Path) -> None:
    before = descriptors()
    ck = tb.open(prefix)
    np.asarray(ck["t"]).sum()
    watch = weakref.ref(ck)
    del ck
    gc.collect()
    assert watch() is None
    assert mappings(shard_path(prefix)) == 0
    assert descriptors() == before


def test_base_of_view_owns_mapping(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        view = np.asarray(ck["t"])
    assert shows_a_file(view)
    assert view.base is not None


def test_views_stay_read_only(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        for view in (np.asarray(ck["t"]), ck["t"][1:3], ck["t"][1:3, 4]):
            assert not view.flags.writeable
            with pytest.raises(ValueError):
                view.setflags(write=True)
            with pytest.raises(ValueError):
                view[0] = 1
            assert memoryview(view).readonly


OWNED: dict[str, Callable[[Any], np.ndarray]] = {
    "read": lambda ck: ck["t"].read(),
    "read box": lambda ck: ck["t"].read(np.s_[3:5, 7]),
    "read with steps": lambda ck: ck["t"].read(np.s_[::-3, None, ..., 5:2:-1]),
    "np.array": lambda ck: np.array(ck["t"]),
}


@pytest.mark.parametrize("read", OWNED)
def test_copies_are_writable_and_independent(prefix: Path, read: str) -> None:
    with tb.open(prefix) as ck:
        array = OWNED[read](ck)
        assert array.flags.writeable and array.flags.aligned
        array[...] = -1
        assert same_bits(ck["t"], SOURCE)
    assert (array == -1).all()


def test_get_tensor_returns_independent_copy(prefix: Path) -> None:
    reader = tb.load_checkpoint(str(prefix))
    first, second = reader.get_tensor("t"), reader.get_tensor("t")
    assert first.flags.writeable and first.flags.aligned
    first[:] = 0
    assert same_bits(second, SOURCE)
    assert same_bits(reader.get_tensor("t"), SOURCE)


HANDLE_USES: dict[str, Callable[[Any], Any]] = {
    "asarray": np.asarray,
    "read": lambda t: t.read(),
    "index": lambda t: t[0],
    "copy_on_write": lambda t: t.copy_on_write(),
    "copy_on_write of a part": lambda t: t.copy_on_write(0),
    "dlpack": np.from_dlpack,
}

CHECKPOINT_USES: dict[str, Callable[[Any], Any]] = {
    "lookup": lambda ck: ck["t"],
    "keys": lambda ck: list(ck),
    "len": len,
    "in": lambda ck: "t" in ck,
    "verify": lambda ck: ck.verify(),
}


@pytest.mark.parametrize("use", HANDLE_USES)
def test_tensor_of_closed_checkpoint_raises_value_error(prefix: Path, use: str) -> None:
    with tb.open(prefix) as ck:
        t = ck["t"]
        HANDLE_USES[use](t)
    with pytest.raises(ValueError, match="closed") as caught:
        HANDLE_USES[use](t)
    assert not isinstance(caught.value, tb.Error)


@pytest.mark.parametrize("use", CHECKPOINT_USES)
def test_closed_checkpoint_raises_value_error(prefix: Path, use: str) -> None:
    ck = tb.open(prefix)
    CHECKPOINT_USES[use](ck)
    ck.close()
    ck.close()
    with pytest.raises(ValueError, match="closed"):
        CHECKPOINT_USES[use](ck)


def test_strings_outlive_checkpoint(tmp_path: Path) -> None:
    with tb.open(specimen().write(tmp_path / "c")) as ck:
        strings = np.asarray(ck["s"])
    assert same_bits(strings, TENSORS["s"])


def test_v1_views_outlive_checkpoint(tmp_path: Path) -> None:
    file = V1File()
    file.add("t", 1, SOURCE[:10])
    path = file.write(tmp_path / "v1")
    with tb.open(path) as ck:
        view = np.asarray(ck["t"])
    path.unlink()
    gc.collect()
    assert same_bits(view, SOURCE[:10])
    assert not view.flags.writeable
