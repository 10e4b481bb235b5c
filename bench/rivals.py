# SPDX-License-Identifier: Apache-2.0
"""Which other libraries are here, and in which versions."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
from typing import Any

PACKAGES = {
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "numpy": ("numpy",),
    "safetensors": ("safetensors",),
    "tensorstore": ("tensorstore",),
    "zarr": ("zarr",),
    "pyarrow": ("pyarrow",),
}
"""Modules to the distributions that may hold them."""


def missing(*modules: str) -> str | None:
    """Why a contender that imports these modules cannot run, or None."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed" if absent else None


def version(module: str) -> str | None:
    """The installed version, or None."""
    for name in PACKAGES.get(module, (module,)):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


@functools.cache
def tensorflow() -> Any:
    """TensorFlow, quietly and on the CPU."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    return importlib.import_module("tensorflow")
