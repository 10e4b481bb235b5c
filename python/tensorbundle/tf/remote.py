# SPDX-License-Identifier: Apache-2.0
"""Paths on other file systems, which only TensorFlow's own reader and op can read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")

# TensorFlow's own functions by their names, while those names lead to ours.
_originals: dict[str, Callable[..., Any]] = {}


def is_remote(path: Any) -> bool:
    """Whether a path says that it is on another file system: ``gs://``, ``hdfs://``, ``ram://``.

    ``file://`` is local. What is no path at all is not remote either.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        return False
    found = _SCHEME.match(text)
    return found is not None and found["scheme"].lower() != "file"


def keep_originals(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Remembers TensorFlow's functions, before their names are taken over; an empty one forgets."""
    _originals.clear()
    _originals.update(functions)


def tensorflows_own(name: str) -> Callable[..., Any]:
    """TensorFlow's function of that name in ``tf.compat.v1.train``, wherever the name leads now."""
    if name in _originals:
        return _originals[name]
    import tensorflow as tf

    function: Callable[..., Any] = getattr(tf.compat.v1.train, name)
    return function
