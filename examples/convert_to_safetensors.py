# SPDX-License-Identifier: Apache-2.0
"""Writes the numeric tensors of a TensorFlow checkpoint into one safetensors file.

    pip install 'safetensors>=0.8'
    python examples/convert_to_safetensors.py CHECKPOINT OUT.safetensors

Names, shapes, types and values are unchanged; a scalar stays a scalar. The exit status is 1 if
tensors were left out, with one line on stdout for each, and 2 if no file was written. The tensors
are passed as views of the mapped file; only the writer copies them.
"""

from __future__ import annotations

import argparse
import os
import sys

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

import tensorbundle as tb

# The types of safetensors' NumPy writer, which have the same names in TensorFlow and NumPy.
DTYPES = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "bfloat16"),
    *("float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz"),
}
# Quantized types, which are stored as integers; their scale is stored elsewhere.
QUANTIZED = {"qint8", "quint8", "qint16", "quint16", "qint32"}


def unsupported_reason(tensor: tb.Tensor) -> str | None:
    """Returns why the format cannot store a tensor, or None."""
    stored = tensor.stored_dtype
    # The dtype has another name if the installed ml_dtypes lacks the stored type.
    supported = stored in QUANTIZED or (stored in DTYPES and tensor.dtype.name == stored)
    if not supported:
        return f"safetensors has no type {stored}"
    if tensor.name == "__metadata__":
        return "safetensors reserves that name"
    try:
        tensor.name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return None


def convert(source: str, target: str) -> dict[str, str]:
    """Converts a checkpoint.

    Args:
        source: The checkpoint: a prefix, directory or SavedModel.
        target: The file to write.

    Returns:
        The names of the tensors that were left out, with the reasons.
    """
    with tb.open(source, verify="full") as checkpoint:
        files = {stored.file for tensor in checkpoint.values() for stored in tensor.slices}
        if os.path.exists(target) and any(os.path.samefile(target, file) for file in files):
            raise FileExistsError(f"{target!r} is a file of the checkpoint itself")
        reasons = {name: unsupported_reason(tensor) for name, tensor in checkpoint.items()}
        kept = {
            name: np.asarray(checkpoint[name]) for name, reason in reasons.items() if reason is None
        }
        save_file(kept, target, metadata={"source": source.encode(errors="replace").decode()})
        return {name: reason for name, reason in reasons.items() if reason is not None}


def main() -> int:
    """Runs the conversion, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("out")
    options = parser.parse_args()
    try:
        left_out = convert(options.checkpoint, options.out)
    except (tb.Error, OSError, SafetensorError) as error:
        print(error, file=sys.stderr)
        return 2
    for name, reason in left_out.items():
        print(f"left out: {name!r}: {reason}")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
