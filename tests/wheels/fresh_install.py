# SPDX-License-Identifier: Apache-2.0
"""Installs a wheel into a new environment without a compiler, and measures the time.

``python fresh_install.py WHEEL`` fails if installation with the extra ``cli`` and the first
``tensorbundle --version`` together take more than LIMIT seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 10
COMPILERS = "cc", "c++", "gcc", "g++", "clang", "clang++", "cmake", "ninja"


def main() -> int:
    wheel = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        programs = Path(folder, "bin")
        path = str(programs)
        found = [name for name in COMPILERS if shutil.which(name, path=path)]
        assert not found, found
        environment = {**os.environ, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        for name in ("CC", "CXX", "PYTHONPATH"):
            environment.pop(name, None)
        start, before = time.perf_counter(), os.times()
        subprocess.run(
            [programs / "python", "-m", "pip", "install", "--quiet", "--only-binary=:all:",
             f"{wheel}[cli]"],
            env=environment, check=True,
        )  # fmt: skip
        installed = time.perf_counter()
        version = subprocess.run(
            [programs / "tensorbundle", "--version"],
            env=environment, check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        end, after = time.perf_counter(), os.times()
    processor = sum(after[2:4]) - sum(before[2:4])  # of the two processes
    print(
        f"{version}: installed in {installed - start:.1f} s without a compiler, "
        f"first run {end - installed:.2f} s, together {end - start:.1f} s "
        f"({processor:.1f} s of processor time)"
    )
    return int(end - start > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
