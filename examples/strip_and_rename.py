# SPDX-License-Identifier: Apache-2.0
"""Prepares a training checkpoint for inference: no optimizer slots, new names, bfloat16.

    python examples/strip_and_rename.py CHECKPOINT OUT [OLD=NEW ...]

Each OLD=NEW is a regular expression and its replacement. Nothing is written if something is wrong:
all problems are printed, and the exit status is 2. Neither TensorFlow nor the memory for the model
is needed.
"""

from __future__ import annotations

import sys

import tensorbundle as tb


def strip_and_rename(source: str, target: str, rename: list[tuple[str, str]]) -> tb.EditReport:
    """Writes a checkpoint without slots, in bfloat16, and with new names.

    Args:
        source: The checkpoint: a prefix, directory or SavedModel.
        target: The prefix to write.
        rename: Regular expressions with replacements, applied in this order.

    Returns:
        What was dropped, renamed and cast.
    """
    return tb.edit(
        source,
        target,
        slots=False,
        drop=lambda name: name == "global_step",
        rename=rename,
        cast={"float32": "bfloat16"},
    )


def main(arguments: list[str]) -> int:
    """Runs the program and returns its exit status."""
    if len(arguments) < 2 or not all("=" in each for each in arguments[2:]):
        print(__doc__, file=sys.stderr)
        return 2
    source, target, *pairs = arguments
    rename = [(old, new) for old, _, new in (pair.partition("=") for pair in pairs)]
    try:
        report = strip_and_rename(source, target, rename)
    except (tb.Error, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
