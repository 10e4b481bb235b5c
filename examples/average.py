# SPDX-License-Identifier: Apache-2.0
"""Averages the last checkpoints of a training run, as translation models often do.

    python examples/average.py DIRECTORY OUTPUT [--last 5] [--decay 1.0]

DIRECTORY has a `checkpoint` state file that lists the checkpoints. With a decay below 1, the
weight of a checkpoint is the decay to the power of its age. No checkpoint is read into memory.
"""

from __future__ import annotations

import argparse
import sys

import tensorbundle as tb


def main() -> int:
    """Averages the last checkpoints, and shows how far the average is from the last one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory")
    parser.add_argument("output")
    parser.add_argument("--last", type=int, default=5)
    parser.add_argument("--decay", type=float, default=1.0)
    options = parser.parse_args()
    state = tb.get_checkpoint_state(options.directory)
    if state is None:
        print(f"{options.directory} has no checkpoint state file", file=sys.stderr)
        return 2
    paths = list(state.all_model_checkpoint_paths)[-options.last :]
    weights = [options.decay**age for age in reversed(range(len(paths)))]
    try:
        report = tb.average(paths, options.output, weights=weights)
    except (tb.Error, ValueError) as error:
        print(f"cannot average: {error}", file=sys.stderr)
        return 2
    print(report)
    for path, weight in zip(report.sources, report.weights, strict=True):
        print(f"  {weight:.3f}  {path}")
    print(tb.diff(paths[-1], report.path, values=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
