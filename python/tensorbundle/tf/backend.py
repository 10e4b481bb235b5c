# SPDX-License-Identifier: Apache-2.0
"""Which way a value takes: our op, our reader in this process, or TensorFlow's own op."""

from __future__ import annotations

import os
import warnings
from typing import Any

from tensorbundle.tf import facts, placement
from tensorbundle.tf.options import Options

_CLUSTER = "TF_CONFIG"

_warned: set[str] = set()


def way_for(variable: Any, options: Options) -> str:
    """``"op"``, ``"numpy"`` or ``"stock"``.

    Warns, once per reason, if the op library is the reason why it is not ``"op"``.
    """
    if why_not_ours(variable, options) is not None:
        return "stock"
    missing = why_no_library()
    if missing is None:
        return "op"
    way = "numpy" if _is_in_this_process(variable) else "stock"
    _warn_once(missing)
    return way


def why_not_op(variable: Any, options: Options) -> str | None:
    """Why a variable is not read by our op, None where it is."""
    return why_not_ours(variable, options) or why_no_library()


def why_not_ours(variable: Any, options: Options) -> str | None:
    """Why only TensorFlow's own op may be named for a variable, None where ours may."""
    if options.op == "stock":
        return "op='stock' is in force, and TensorFlow's own op does not map"
    if not placement.allows(variable.device):
        return (
            f"it is on {variable.device}, whose process may not have our op: "
            "install(remote=True) says that it has"
        )
    return None


def why_no_library() -> str | None:
    """Why the op library cannot be used, None where it can."""
    from tensorbundle.tf import library

    if library.load() is not None:
        return None
    return f"the op library is not there: {library.why_not()}"


def _is_in_this_process(variable: Any) -> bool:
    """Whether what runs for a variable runs here, as far as can be seen while a graph is built.

    A NumPy function is known to its own process only, and so is a type that NumPy has not.
    """
    import tensorflow as tf

    if tf.executing_eagerly():
        return True
    if facts.on_another_job(variable) or "cluster" in os.environ.get(_CLUSTER, ""):
        return False
    return not variable.dtype.base_dtype.is_quantized


def _warn_once(why: str) -> None:
    if why in _warned:
        return
    _warned.add(why)
    warnings.warn(
        f"tensorbundle reads checkpoints the slow way, because {why}", RuntimeWarning, stacklevel=2
    )
