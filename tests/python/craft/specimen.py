# SPDX-License-Identifier: Apache-2.0
"""A small checkpoint with one tensor of each kind, which tests corrupt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from craft import tilings
from craft.bundle import Bundle, index_path

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(5, dtype=np.int64) - 2,
    "s": np.array([b"one", b"", b"three"], dtype=object),
    "w": np.arange(24, dtype=np.float32).reshape(4, 6) / 7,
    "z": np.array(1.5),
}


def specimen(num_shards: int = 1) -> Bundle:
    """Builds the checkpoint; ``b`` and the second slice of ``w`` are in the last shard."""
    last = num_shards - 1
    bundle = Bundle(num_shards)
    bundle.add("a", TENSORS["a"])
    bundle.add("b", TENSORS["b"], shard=last)
    bundle.add_strings("s", TENSORS["s"].tolist(), (3,))
    boxes = tilings.cut((4, 6), 0, [2, 2])
    bundle.add_sliced("w", TENSORS["w"], boxes, shard_of=lambda i: i * last)
    bundle.add("z", TENSORS["z"])
    return bundle


def place_index(prefix: Path, data: bytes) -> Path:
    """Writes ``data`` as the index of ``prefix``."""
    index_path(prefix).write_bytes(data)
    return prefix
