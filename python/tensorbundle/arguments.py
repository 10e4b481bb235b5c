# SPDX-License-Identifier: Apache-2.0
"""Checks of what callers pass: one sentence of ours, with the argument's name, for odd values."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

# The extension takes sizes as 64-bit numbers; nothing that exists is as large as this.
MOST = (1 << 63) - 1


def integer(value: Any, name: str) -> int:
    """Returns `value` as an int if it is an integer: NumPy's are, bools are not.

    Raises:
        TypeError: It is not an integer.
    """
    if isinstance(value, (bool, np.bool_)) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return operator.index(value)


def size(value: Any, name: str, least: int = 0, most: int = MOST) -> int:
    """Returns `value` as an int if it is an integer in a range.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is out of the range.
    """
    number = integer(value, name)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {shown(number)}")
    if number > most:
        raise ValueError(f"{name} must be at most {most}, not {shown(number)}")
    return number


def shown(value: object) -> str:
    """The repr of a value for a message, the middle of a long one left out."""
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 400 else hex(value)
    return text if len(text) <= 120 else f"{text[:80]}...{text[-30:]}"
