# SPDX-License-Identifier: Apache-2.0
"""Without the op library TensorFlow's own kernels run the same graphs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

FILES = [
    "test_init_corruption.py",
    "test_init_maps.py",
    "test_init_modes.py",
    "test_init_options.py",
    "test_init_partitions.py",
    "test_init_strategies.py",
    "test_init_types.py",
    "test_plans.py",
    "test_warm_beyond_tensorflow.py",
    "test_warm_modes.py",
    "test_warm_reading.py",
    "test_warm_seeds.py",
    "test_warm_selection.py",
    "test_warm_slots.py",
    "test_warm_vocabularies.py",
    "test_warm_warnings.py",
]


def test_reads_and_remaps_pass_without_the_op_library() -> None:
    """Runs the tests of both functions again, in a process in which the library is not found."""
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-W", "ignore::RuntimeWarning"]
    environment = {
        **os.environ,
        "TENSORBUNDLE_TESTS_WITHOUT_LIBRARY": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.run(
        [*command, "-p", "no:cacheprovider", *(str(here / name) for name in FILES)],
        env=environment,
        cwd=here.parents[1],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
