# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's side: options, plans, the op library, and TensorFlow's own names leading to ours.

Importing this imports no TensorFlow; calling what is in it does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tensorbundle.load_report import LoadReport, Mismatch
from tensorbundle.tf.hooks import calls, install, installed, uninstall
from tensorbundle.tf.library import load_op_library
from tensorbundle.tf.options import Options, options, set_options

if TYPE_CHECKING:
    from tensorbundle.tf.initialization import plan_init
    from tensorbundle.tf.plans import LoadPlan
    from tensorbundle.tf.warm_starting import plan_warm_start

__all__ = [
    "LoadPlan",
    "LoadReport",
    "Mismatch",
    "Options",
    "calls",
    "install",
    "installed",
    "load_op_library",
    "options",
    "plan_init",
    "plan_warm_start",
    "set_options",
    "uninstall",
]

# Imported when they are first asked for.
_LATER = {
    "LoadPlan": "plans",
    "plan_init": "initialization",
    "plan_warm_start": "warm_starting",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_LATER[name]}")
    found = globals()[name] = getattr(module, name)
    return found
