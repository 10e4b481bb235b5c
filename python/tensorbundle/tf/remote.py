# SPDX-License-Identifier: Apache-2.0
"""Paths on remote file systems, which only TensorFlow's own reader and op can read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")

# TensorFlow's original functions by name, while they are patched.
_originals: dict[str, Callable[..., Any]] = {}


def is_remote(path: Any) -> bool:
    """Whether a path is on a remote file system: ``gs://``, ``hdfs://``, ``ram://``.

    ``file://`` is local. Returns False for anything that is not a path.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        return False
    found = _SCHEME.match(text)
    return found is not None and found["scheme"].lower() != "file"


def set_original_functions(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Stores TensorFlow's functions before they are patched; an empty mapping clears them."""
    _originals.clear()
    _originals.update(functions)


def original_function(name: str) -> Callable[..., Any]:
    """Returns the original function of that name in ``tf.compat.v1.train``, patched or not."""
    if name in _originals:
        return _originals[name]
    import tensorflow as tf

    function: Callable[..., Any] = getattr(tf.compat.v1.train, name)
    return function
