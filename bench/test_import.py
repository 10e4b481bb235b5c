# SPDX-License-Identifier: Apache-2.0
"""Importing a package in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.case import OURS, Case, Contender, Run

ALONE = ("tensorflow", "safetensors.numpy", "tensorstore", "zarr", "pyarrow")


def test_import(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    if size not in ("smoke", "256MB"):
        return []
    contenders = [
        _importing("tensorbundle", "tensorbundle", role=OURS),
        _importing("numpy and ml_dtypes", "numpy", "ml_dtypes"),
        *(_importing(name, name) for name in ALONE),
    ]
    return [Case("import/fresh process", "start Python and import", contenders, _check)]


def _check(result: Any) -> None:
    assert result.returncode == 0, result.stderr.decode()


def _importing(name: str, *modules: str, **options: Any) -> Contender:
    @contextmanager
    def start() -> Iterator[Run]:
        command = [sys.executable, "-c", f"import {', '.join(modules)}"]
        yield lambda: subprocess.run(command, capture_output=True, check=False)

    packages = tuple(module.split(".")[0] for module in modules)
    return Contender(name, start, needs=packages, **options)
