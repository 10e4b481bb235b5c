# SPDX-License-Identifier: Apache-2.0
"""Converts a safetensors file of a PyTorch model to a TensorFlow checkpoint.

    pip install 'safetensors>=0.8'
    python examples/pytorch_to_tf.py MODEL.safetensors CHECKPOINT --embedding 'word*'

The inverse of examples/tf_to_pytorch.py. A weight of rank 2 is the kernel of a dense layer, unless
its layer's name matches ``--embedding``; one of rank 3 to 5 is that of a convolution.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys

from safetensors import SafetensorError, safe_open

import tensorbundle as tb

# The axes of a weight in TensorFlow's order, by rank.
WEIGHT_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}


def convert(source: str, target: str, embeddings: list[str]) -> tb.ConvertReport:
    """Converts a file; see the top of this file."""
    with safe_open(source, "np") as file:
        ranks = {name: len(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    rename, transpose = {}, {}
    for name, rank in ranks.items():
        layer, _, last = name.rpartition(".")
        is_norm = ranks.get(f"{layer}.weight") == 1
        if last == "weight" and any(fnmatch.fnmatch(layer, glob) for glob in embeddings):
            last = "embeddings"
        elif last == "weight" and rank in WEIGHT_AXES:
            last, transpose[name] = "kernel", WEIGHT_AXES[rank]
        elif is_norm:
            last = {
                "weight": "gamma",
                "bias": "beta",
                "running_mean": "moving_mean",
                "running_var": "moving_variance",
            }.get(last, last)
        rename[name] = f"{layer.replace('.', '/')}/{last}" if layer else last
    counters = [name for name in ranks if name.endswith("num_batches_tracked")]
    for name in counters:
        del rename[name]
    return tb.convert(source, target, to="checkpoint", drop=counters, rename=rename,
                      transpose=transpose)  # fmt: skip


def main() -> int:
    """Runs the conversion, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("checkpoint")
    parser.add_argument("--embedding", action="append", default=[], metavar="GLOB")
    options = parser.parse_args()
    try:
        report = convert(options.model, options.checkpoint, options.embedding)
    except (tb.Error, OSError, SafetensorError) as error:
        print(error, file=sys.stderr)
        return 2
    print(report)
    return 1 if report.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
