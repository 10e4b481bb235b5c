# SPDX-License-Identifier: Apache-2.0
"""What opening costs in memory: a small multiple of the index, whatever the data's size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle, index_path, shard_path

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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's accounting")
def test_peak_memory_is_a_small_multiple_of_the_index(tmp_path: Path) -> None:
    bundle = Bundle()
    value = np.zeros((2, 3), np.float32)
    for i in range(20_000):
        bundle.add(f"tensor/{i:04d}/weights", value)
    prefix = bundle.write(tmp_path / "c")
    with shard_path(prefix).open("r+b") as file:
        file.truncate(50 << 30)  # sparse: large data that nobody reads
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(prefix)], capture_output=True, text=True, check=True
    )
    index_size = index_path(prefix).stat().st_size
    assert index_size > 500_000
    assert int(done.stdout) < 12 * index_size + (1 << 20)
