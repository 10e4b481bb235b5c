# SPDX-License-Identifier: Apache-2.0
"""Converts a TensorFlow checkpoint to a safetensors file with PyTorch's names and layouts.

    python examples/tf_to_pytorch.py CHECKPOINT OUT.safetensors

For models of dense, convolutional, embedding and normalization layers, without TensorFlow:

- Optimizer slots and the step are dropped. An object graph is replaced by its full names.
- The kernel of a dense layer (inputs, outputs) becomes a weight (outputs, inputs).
- The kernel of a convolution (height, width, inputs, outputs) becomes (outputs, inputs, height,
  width); likewise for one and three dimensions.
- gamma, beta, moving_mean and moving_variance become weight, bias, running_mean and running_var.

A model with other layers needs other names: see examples/bert_to_pytorch.toml.
"""

from __future__ import annotations

import argparse
import sys

import tensorbundle as tb
from tensorbundle.errors import LeftOutError

# The axes of a kernel in PyTorch's order, by rank.
KERNEL_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1), 5: (4, 3, 0, 1, 2)}
LAST_PARTS = {
    "kernel": "weight",
    "embeddings": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def new_name(name: str) -> str:
    """Returns the name in PyTorch: ``layer/conv/kernel`` becomes ``layer.conv.weight``."""
    *scopes, last = name.split("/")
    return ".".join([*scopes, LAST_PARTS.get(last, last)])


def convert(source: str, target: str) -> tb.ConvertReport:
    """Converts a checkpoint; see the top of this file."""
    with tb.open(source) as checkpoint:
        names = {key: checkpoint.full_names.get(key, key) for key in checkpoint}
        transpose = {
            key: KERNEL_AXES[checkpoint[key].ndim]
            for key, name in names.items()
            if name.rpartition("/")[2] == "kernel" and checkpoint[key].ndim in KERNEL_AXES
        }
        steps = [
            key for key, name in names.items() if name in ("global_step", "iter", "save_counter")
        ]
    return tb.convert(
        source, target, to="safetensors", slots=False, drop=steps, flatten=True, rename=new_name,
        transpose=transpose, strict=True,
    )  # fmt: skip


def main() -> int:
    """Runs the conversion, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("out")
    options = parser.parse_args()
    try:
        report = convert(options.checkpoint, options.out)
    except LeftOutError as error:
        print(error, file=sys.stderr)
        return 1
    except (tb.Error, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
