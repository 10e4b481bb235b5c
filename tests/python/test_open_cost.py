# SPDX-License-Identifier: Apache-2.0
"""Memory used by open (a small multiple of the index size) and garbage collection of listings."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle, index_path, shard_path

import tensorbundle as tb

MANY = 10_000  # from this size on, listing adjusts the garbage collector

OPEN = """
import sys
import numpy, ml_dtypes
import tensorbundle as tb

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) << 10

before = peak()
ck = tb.open(sys.argv[1])
assert ck["tensor/0007/weights"].shape == (2, 3)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_peak_memory_is_a_small_multiple_of_the_index(tmp_path: Path) -> None:
    bundle = Bundle()
    value = np.zeros((2, 3), np.float32)
    for i in range(20_000):
        bundle.add(f"tensor/{i:04d}/weights", value)
    prefix = bundle.write(tmp_path / "c")
    with shard_path(prefix).open("r+b") as file:
        file.truncate(50 << 30)  # sparse: large data that is never read
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(prefix)], capture_output=True, text=True, check=True
    )
    index_size = index_path(prefix).stat().st_size
    assert index_size > 500_000
    assert int(done.stdout) < 12 * index_size + (1 << 20)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = Bundle()
    value = np.zeros((2, 3), np.int8)
    for i in range(MANY):
        bundle.add(f"{i:05d}", value)
    return bundle.write(tmp_path_factory.mktemp("many") / "c")


@pytest.fixture
def collector() -> Iterator[None]:
    """Restores the state of the garbage collector after the test."""
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.parametrize("enabled", [True, False])
def test_listing_restores_garbage_collector_state(
    enabled: bool, many: Path, collector: None
) -> None:
    (gc.enable if enabled else gc.disable)()
    shapes = tb.load_checkpoint(many).get_variable_to_shape_map()
    assert gc.isenabled() is enabled
    assert gc.get_freeze_count() == 0
    assert len(shapes) == MANY


def test_listing_keeps_frozen_objects_frozen(many: Path, collector: None) -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    assert frozen > 0
    tb.load_checkpoint(many).get_variable_to_shape_map()
    assert gc.get_freeze_count() == frozen


def test_cycle_through_listing_is_collected(many: Path) -> None:
    class Node:
        def __init__(self, shape: list[object]) -> None:
            shape.append(self)
            self.shape = shape

    node = weakref.ref(Node(tb.load_checkpoint(many).get_variable_to_shape_map()["00000"]))  # type: ignore[arg-type]
    assert node() is not None
    gc.collect()
    assert node() is None


def test_garbage_collector_skips_listed_objects(many: Path) -> None:
    reader = tb.load_checkpoint(many)
    gc.collect()
    listed = reader.get_variable_to_shape_map()
    young = len(gc.get_objects(generation=0)) + len(gc.get_objects(generation=1))
    assert len(listed) == MANY
    assert young < MANY
