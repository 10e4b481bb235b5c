# SPDX-License-Identifier: Apache-2.0
"""The TensorFlow side: options, plans, the op library, and the patching of TensorFlow's functions.

Importing this package does not import TensorFlow; calling its functions does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tensorbundle.load_plan import LoadReport, Mismatch
from tensorbundle.tf.installation import calls, install, installed, uninstall
from tensorbundle.tf.op_library import load_op_library
from tensorbundle.tf.options import Options, options, set_options

if TYPE_CHECKING:
    from tensorbundle.tf.init_from_checkpoint import plan_init
    from tensorbundle.tf.plans import LoadPlan
    from tensorbundle.tf.warm_start import plan_warm_start

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

# Imported at first use.
_LATER = {
    "LoadPlan": "plans",
    "plan_init": "init_from_checkpoint",
    "plan_warm_start": "warm_start",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_LATER[name]}")
    found = globals()[name] = getattr(module, name)
    return found
