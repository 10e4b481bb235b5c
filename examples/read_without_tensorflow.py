# SPDX-License-Identifier: Apache-2.0
"""Reads a TensorFlow checkpoint on a machine that has no TensorFlow.

    python examples/read_without_tensorflow.py [PATH]

PATH is a prefix, a directory or a SavedModel; default: a small model in this repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import tensorbundle as tb

DEFAULT = Path(__file__).parents[1] / "tests" / "data" / "checkpoints" / "mnist_tf1"


def main() -> int:
    """Lists the tensors, views the largest without a copy, and verifies every byte."""
    path = sys.argv[1] if len(sys.argv) > 1 else DEFAULT
    with tb.open(path) as checkpoint:
        for name, tensor in checkpoint.items():
            print(f"{name:40} {tensor.stored_dtype or tensor.dtype!s:10} {tensor.shape}")

        dense = [tensor for tensor in checkpoint.values() if tensor.dtype.kind in "biufc"]
        largest = max(dense, key=lambda tensor: tensor.nbytes)
        view = np.asarray(largest)
        kind = "a copy" if view.flags.owndata else "a view of the file"
        access = "writable" if view.flags.writeable else "read-only"
        print(f"\n{largest.name}: {kind}, {access}, {view.nbytes} bytes")

        report = checkpoint.verify()
        print(f"checksums: {'ok' if report.ok else 'mismatch'}")
    # The view keeps the mapping alive after the checkpoint is closed.
    print(f"mean after closing: {view.mean():.6f}")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
