# SPDX-License-Identifier: Apache-2.0
"""Starts a program of this package for one contender in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import sizes
from bench.case import Case, Contender


def call(program: str, module: str, case: Case, contender: Contender) -> dict[str, Any]:
    """Runs ``python -m PROGRAM MODULE CASE CONTENDER`` and reads the JSON object it prints last.

    Raises:
        RuntimeError: The child failed.
    """
    command = [sys.executable, "-m", program, module, case.key, contender.name]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{program}: {contender.name} for {case.key} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def asked_for(module: str, key: str, name: str) -> tuple[Case, Contender]:
    """In the child: the case and the contender of the command line."""
    cases = importlib.import_module(module).cases
    case = next(case for size in sizes.SIZES.values() for case in cases(size) if case.key == key)
    return case, next(each for each in case.contenders if each.name == name)
