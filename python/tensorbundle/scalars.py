# SPDX-License-Identifier: Apache-2.0
"""A tensor of one element as a Python number: ``int(t)``, ``bool(t)``, ``t.item()``."""

from __future__ import annotations

import numbers
import operator
from typing import Any, Protocol, cast

import numpy as np

from tensorbundle import _core

# What could be meant as the value of a tensor.
_VALUES = (numbers.Number, np.ndarray, np.generic, str, bytes, bytearray, list, tuple)


class _Handle(Protocol):
    """What the conversions need of a ``Tensor``."""

    _core: _core.Tensor

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def size(self) -> int: ...
    @property
    def stored_dtype(self) -> str: ...
    def read(self) -> Any: ...


class ScalarConversions:
    """The part of ``Tensor`` that converts one element, by NumPy's rules for arrays.

    Comparing is not converting. A handle names a tensor: two handles are equal when they name the
    same tensor of the same open checkpoint, and equal handles have equal hashes, so that handles
    can be keys of a dict. If ``handle == 1000`` compared the element, a handle would equal objects
    with other hashes, and every dict and set with both in it would give wrong answers; if it
    compared identity, it would silently be False. So comparing with a value raises TypeError, as
    ``<`` does.
    """

    __slots__ = ()

    def item(self: _Handle) -> Any:
        """The only element, as a Python object: int, float, complex, bool, or ``bytes``.

        Raises:
            ValueError: The tensor has more or fewer elements than one.
            CorruptionError: As ``read``.
        """
        if self.size != 1:
            raise ValueError(
                f"tensor {self.name!r} has {self.size} elements: item() needs exactly one"
            )
        return _element(self)

    def __int__(self: _Handle) -> int:
        """The only element as an int; TypeError for other sizes, and for complex numbers."""
        return int(_only_element(self, "int"))

    def __float__(self: _Handle) -> float:
        """The only element as a float; TypeError for other sizes, and for complex numbers."""
        return float(_only_element(self, "float"))

    def __complex__(self: _Handle) -> complex:
        """The only element as a complex number; TypeError for other sizes."""
        return complex(_only_element(self, "complex"))

    def __index__(self: _Handle) -> int:
        """The element of a scalar of an integer type; TypeError for every other tensor."""
        if self.shape or not _is_integer(self.dtype):
            raise TypeError(
                f"only a scalar of an integer type can be used as an index, not tensor "
                f"{self.name!r} of dtype {self.stored_dtype} and shape {self.shape}"
            )
        return operator.index(_element(self))

    def __bool__(self: _Handle) -> bool:
        """Whether the only element is true, as of a NumPy array; not whether there is a tensor.

        Raises:
            ValueError: The tensor has more or fewer elements than one.
        """
        if self.size != 1:
            raise ValueError(
                f"tensor {self.name!r} has {self.size} elements, so its truth value is ambiguous; "
                "to ask whether a checkpoint holds a tensor, write 'name in checkpoint' or "
                "'checkpoint.get(name) is not None'"
            )
        return bool(_element(self))

    def __eq__(self: _Handle, other: object) -> bool:
        """Whether both are handles of the same tensor of the same open checkpoint.

        Raises:
            TypeError: `other` is a number, an array, a string or a sequence: the element was meant,
                and ``int(t)``, ``t.item()`` or ``t.read()`` gives it.
        """
        if isinstance(other, ScalarConversions):
            return _identity(self) == _identity(cast(_Handle, other))
        if isinstance(other, _VALUES):
            raise TypeError(
                f"tensor {self.name!r} is a handle and cannot be compared with a value of type "
                f"{type(other).__name__}: read it first, with int(t), t.item() or t.read()"
            )
        return NotImplemented

    def __hash__(self: _Handle) -> int:
        """Equal for handles of the same tensor of the same open checkpoint."""
        return hash(_identity(self))


def _identity(tensor: _Handle) -> tuple[int, int]:
    return tensor._core.checkpoint_id, tensor._core.index


def _only_element(tensor: _Handle, wanted: str) -> Any:
    if tensor.size != 1:
        raise TypeError(
            f"only a tensor of one element can be converted to {wanted}, not tensor "
            f"{tensor.name!r} of shape {tensor.shape}"
        )
    return _element(tensor)


def _element(tensor: _Handle) -> Any:
    element = tensor.read()
    # NumPy would cut the zero bytes off the end of a string.
    return element if isinstance(element, bytes) else np.asarray(element).item()


def _is_integer(dtype: np.dtype[Any]) -> bool:
    # The small integers of ml_dtypes are of a kind of their own.
    return dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2", "int1", "uint1")
