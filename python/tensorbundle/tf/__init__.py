# SPDX-License-Identifier: Apache-2.0
"""The TensorFlow side: options, plans, the op library, and the patching of TensorFlow's functions.

Importing this package does not import TensorFlow; its functions do, at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tensorbundle.load_plan import LoadReport, Mismatch
from tensorbundle.tf.functions import plan_init, plan_warm_start
from tensorbundle.tf.options import Options, options, set_options

if TYPE_CHECKING:
    from tensorbundle.tf.installation import calls, install, installed, uninstall
    from tensorbundle.tf.op_library import load_op_library
    from tensorbundle.tf.plans import LoadPlan

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

# Names that need TensorFlow, by module. They are imported at first use.
_LAZY_IMPORTS = {
    "LoadPlan": "plans",
    "calls": "installation",
    "install": "installation",
    "installed": "installation",
    "load_op_library": "op_library",
    "uninstall": "installation",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_LAZY_IMPORTS[name]}")
    found = globals()[name] = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY_IMPORTS})
