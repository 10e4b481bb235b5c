# SPDX-License-Identifier: Apache-2.0
"""`import tensorbundle` is fast and loads no package other than NumPy and ml_dtypes."""

import json
import subprocess
import sys

UNWANTED = {
    "tensorflow",
    "torch",
    "jax",
    "keras",
    "dask",
    "rich",
    "click",
    "argparse",
    "google",
    "cramjam",
}
LIMIT_SECONDS = 0.100
TIMED = """
import sys, time
import numpy, ml_dtypes
start = time.perf_counter()
import tensorbundle
print(time.perf_counter() - start)
"""
LOADED = """
import sys
import numpy, ml_dtypes
before = set(sys.modules)
import tensorbundle
import json
print(json.dumps(sorted({name.split('.')[0] for name in set(sys.modules) - before})))
"""


def run(code, cwd):
    # Outside the checkout, so that the installed package is imported.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_no_heavy_package(tmp_path):
    loaded = set(json.loads(run(LOADED, tmp_path)))
    assert "tensorbundle" in loaded
    assert not loaded & UNWANTED


def test_import_takes_less_than_a_tenth_of_a_second(tmp_path):
    run(TIMED, tmp_path)  # fills the byte code and page caches
    times = [float(run(TIMED, tmp_path)) for _ in range(5)]
    assert min(times) < LIMIT_SECONDS, times  # other processes only slow it down
