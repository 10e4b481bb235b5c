# SPDX-License-Identifier: Apache-2.0
"""Fails a build if a checkpoint is not the expected one.

    python examples/diff_in_ci.py EXPECTED ACTUAL [--rtol 1e-5] [--atol 1e-8] [--ignore REGEX]

For example, after a refactoring of the training script: train a few steps with fixed seeds, and
compare with a checkpoint from before. Equal checkpoints are compared by the checksums in their
indexes, in milliseconds; so are those that another partitioner has cut along the first axis.

Prints one summary line and a table of the differences. Exit status: 0 same, 1 different,
2 unreadable.
"""

from __future__ import annotations

import argparse
import re
import sys

import tensorbundle as tb


def main() -> int:
    """Compares two checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("expected")
    parser.add_argument("actual")
    parser.add_argument("--rtol", type=float, default=0.0)
    parser.add_argument("--atol", type=float, default=0.0)
    parser.add_argument("--ignore", default="", metavar="REGEX", help="names that may differ")
    options = parser.parse_args()
    try:
        report = tb.diff(
            options.expected, options.actual, rtol=options.rtol, atol=options.atol, values=True
        )
    except (tb.Error, ValueError) as error:
        print(f"cannot compare: {error}", file=sys.stderr)
        return 2
    print(report)
    changed = [row.name for row in report.changed]
    changed += [*report.only_a, *report.only_b, *(name for name, _ in report.renamed)]
    if options.ignore:
        changed = [name for name in changed if not re.search(options.ignore, name)]
    return 2 if report.unreadable else 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
