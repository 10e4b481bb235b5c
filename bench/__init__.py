# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of tensorbundle, its competitors and C baselines. See ``bench/README.md``."""

import sys
from pathlib import Path

# `craft`, the checkpoint writer of the tests, writes the data.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "python"))
