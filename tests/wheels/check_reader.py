# SPDX-License-Identifier: Apache-2.0
"""Reads, verifies and writes checkpoints: ``python check_reader.py [CRC32C]``.

Checks an installed wheel with nothing else but NumPy, also on an emulated processor. CRC32C is the
implementation of the checksum that the processor must select.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

import numpy as np

import tensorbundle as tb
from tensorbundle import _core, plugin

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
CHECK = b"123456789", 0xE3069283  # the check value of CRC-32C


def check_data() -> tuple[int, int]:
    """Reads the checkpoints of the tests in each way. Returns the numbers of files and tensors."""
    tensors = 0
    prefixes = sorted({path.with_suffix("") for path in DATA.rglob("*.index")})
    for prefix in prefixes:
        with tb.open(prefix, verify="full") as ck:
            assert ck.verify().ok, prefix
            for name, tensor in ck.items():
                tensors += 1
                copy = tensor.read()
                values = copy.tolist() if isinstance(copy, np.ndarray) else copy  # one string
                assert np.asarray(tensor).tolist() == values, name
                if tensor.ndim and tensor.shape[0]:
                    rows = list(range(tensor.shape[0]))[::-1]
                    assert np.array_equal(tensor.take(rows), copy[::-1]), name
    return len(prefixes), tensors


def check_new_checkpoint(folder: Path) -> None:
    """Writes a checkpoint with large and small tensors, reads it, and finds a wrong byte in it."""
    rng = np.random.default_rng(1)
    arrays = {
        "large": rng.standard_normal((3000, 257)).astype(np.float32),
        "small": rng.integers(0, 99, 7),
        "empty": np.zeros((0, 3), np.int8),
    }
    prefix = folder / "new.ckpt"
    tb.save(prefix, arrays)
    with tb.open(prefix, verify="full", threads=2) as ck:
        for name, array in arrays.items():
            assert np.array_equal(ck[name].read(), array)
        ids = rng.integers(0, 3000, 10_000)
        assert np.array_equal(ck["large"].take(ids), arrays["large"][ids])
        chunks = np.concatenate([chunk for _, chunk in ck["large"].chunks(700)])
        assert np.array_equal(chunks, arrays["large"])
    (data,) = folder.glob("new.ckpt.data-*")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with tb.open(prefix) as ck:
        assert not ck.verify().ok
        try:
            ck["large"].read()
        except tb.CorruptionError:
            return
    raise AssertionError("a wrong byte was read")


def main() -> None:
    found = _core.crc32c_implementation()
    (expected,) = sys.argv[1:] or [found]
    assert Path(tb.__file__).parents[1] != DATA.parents[2] / "python", "not the wheel"
    assert plugin.find_library() or not sys.platform.startswith("linux"), "no op library"
    assert _core.crc32c(CHECK[0]) == CHECK[1]
    checkpoints, tensors = check_data()
    with tempfile.TemporaryDirectory() as folder:
        check_new_checkpoint(Path(folder))
    print(
        f"{platform.machine()}, CRC32C by {found}: {tensors} tensors of {checkpoints} checkpoints,"
        " and a new checkpoint"
    )
    assert found == expected, expected


if __name__ == "__main__":
    main()
