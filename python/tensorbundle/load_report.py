# SPDX-License-Identifier: Apache-2.0
"""What a call of ``init_from_checkpoint`` or ``warm_start`` has done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Mismatch(NamedTuple):
    """Why a variable was left alone: what is stored for it, and what it is.

    Attributes:
        tensor: The tensor's name in the checkpoint.
        stored_shape: Its shape.
        stored_dtype: Its type.
        shape: The whole variable's shape; None, or None in it, where that is unknown.
        dtype: Its type.
    """

    tensor: str
    stored_shape: tuple[int, ...]
    stored_dtype: str
    shape: tuple[int | None, ...] | None
    dtype: str

    def __str__(self) -> str:
        return (
            f"tensor {self.tensor!r} is {self.stored_dtype} {shape_text(self.stored_shape)}, the "
            f"variable {self.dtype} {shape_text(self.shape)}"
        )


class LoadReport(NamedTuple):
    """What a call did: which variables it loaded, and what it left alone.

    Variables go by their whole names: without ``:0``, and without ``/part_<i>``. Of eager variables
    that share a name, the second is ``name#2``.

    Attributes:
        loaded: From the name of each variable that gets its value from the checkpoint to the name
            of its tensor there. In a graph it gets the value when its initializer runs.
        missing: From the name of each variable that was left alone, because the checkpoint lacks
            its tensor, to the tensor's name. Empty unless ``missing="skip"``.
        unused: The names of the checkpoint's tensors that no variable got, in their order there.
        mismatched: From the name of each variable that was left alone, because it differs from its
            tensor in shape or type, to both sides. Empty unless ``mismatch="skip"``.
    """

    loaded: dict[str, str]
    missing: dict[str, str]
    unused: tuple[str, ...]
    mismatched: dict[str, Mismatch]

    def __str__(self) -> str:
        loaded, unused = len(self.loaded), len(self.unused)
        lines = [f"{counted(loaded, 'variable')} loaded, {counted(unused, 'tensor')} unused"]
        for name, tensor in self.missing.items():
            lines.append(f"{name!r} left alone: tensor {tensor!r} is not in the checkpoint")
        for name, mismatch in self.mismatched.items():
            lines.append(f"{name!r} left alone: {mismatch}")
        return "\n".join(lines)


def shape_text(shape: Sequence[int | None] | None) -> str:
    """``[2, ?]``, or ``<unknown>`` where not even the rank is known."""
    if shape is None:
        return "<unknown>"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def counted(number: int, what: str) -> str:
    """``1 tensor``, ``2 tensors``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
