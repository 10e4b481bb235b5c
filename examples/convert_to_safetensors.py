# SPDX-License-Identifier: Apache-2.0
"""Writes the numeric tensors of a TensorFlow checkpoint into one safetensors file.

    pip install safetensors
    python examples/convert_to_safetensors.py CHECKPOINT OUT.safetensors

The tensors are handed over as views of the mapped file: only the writer copies.
"""

from __future__ import annotations

import argparse

import numpy as np
from safetensors.numpy import save_file

import tensorbundle as tb

# What safetensors' NumPy writer takes; strings, for example, have no place in its format.
DTYPES = {np.dtype(code) for code in "?bBhHiIlLefd"}


def convert(source: str, target: str) -> list[str]:
    """Converts a checkpoint.

    Args:
        source: A checkpoint: prefix, directory or SavedModel.
        target: The file to write.

    Returns:
        The names of the tensors that were left out, because the format has no room for their dtype.
    """
    with tb.open(source, verify="full") as checkpoint:
        kept = {name: tensor for name, tensor in checkpoint.items() if tensor.dtype in DTYPES}
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in kept.items()},
            target,
            metadata={"source": source},
        )
        return [name for name in checkpoint if name not in kept]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("out")
    options = parser.parse_args()
    for name in convert(options.checkpoint, options.out):
        print(f"left out: {name}")


if __name__ == "__main__":
    main()
