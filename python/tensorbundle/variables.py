# SPDX-License-Identifier: Apache-2.0
"""Variable metadata for plans, and comparison of variables with tensors of a checkpoint.

Pure functions: this module does not access the variable objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tensorbundle.errors import Error, ShapeMismatchError
from tensorbundle.load_plan import (
    Problem,
    StaticShape,
    Stored,
    can_cast,
    shape_text,
    tensorflow_type_name,
    type_text,
)


class TypeMismatchError(Error, ValueError):
    """A tensor and its variable have different element types."""


class Slice(NamedTuple):
    """The box of one partition in a partitioned variable.

    Attributes:
        full_name: The whole variable's name.
        full_shape: The whole variable's shape.
        offset: The partition's first element per axis.
        shape: The partition's elements per axis.
    """

    full_name: str
    full_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def spec(self) -> str:
        """The slice in the notation of TensorFlow's restore op: ``"10 10 4,3:0,10"``."""
        return slice_spec(self.full_shape, self.offset, self.shape)


class Variable:
    """The metadata of a variable, or of one partition of a partitioned variable.

    Attributes:
        name: The variable's name, with ``:0``.
        shape: The static shape; None if the rank is unknown.
        slice: The slice of a partition; None for a variable that is not a partition.
        handle: The variable object, which this module does not access.
        dtype: The number of the type; None if types are not compared.
    """

    __slots__ = ("dtype", "handle", "name", "shape", "slice")

    def __init__(
        self,
        name: str,
        shape: StaticShape,
        slice: Slice | None,
        handle: Any,
        dtype: int | None = None,
    ) -> None:
        """Stores the attributes."""
        self.name = name
        self.shape = shape
        self.slice = slice
        self.handle = handle
        self.dtype = dtype

    @property
    def full_name(self) -> str:
        """The whole variable's name, without ``:0``."""
        if self.slice is not None:
            return self.slice.full_name
        return self.name.rpartition(":")[0] or self.name

    @property
    def full_shape(self) -> StaticShape:
        """The whole variable's shape."""
        return self.shape if self.slice is None else self.slice.full_shape


def slice_spec(full_shape: Sequence[int], offset: Sequence[int], shape: Sequence[int]) -> str:
    """Returns a box of a tensor in the notation of TensorFlow's restore op."""
    dims = "".join(f"{size} " for size in full_shape)
    return dims + ":".join(f"{a},{n}" for a, n in zip(offset, shape, strict=True))


def compare(
    variable: Variable,
    tensor_slice: Slice | None,
    stored: Stored,
    tensor: str,
    label: str,
    cast: bool,
) -> Problem | None:
    """Compares a variable with the tensor that is loaded into it; returns None if they match.

    Args:
        variable: The variable.
        tensor_slice: The slice of the tensor that is loaded; None for the whole tensor.
        stored: The tensor.
        tensor: The tensor's name in messages.
        label: The checkpoint's name in messages.
        cast: Whether values are converted between float types.
    """
    expected: StaticShape = variable.shape if tensor_slice is None else tensor_slice.full_shape
    if not is_compatible(expected, stored.shape):
        return Problem(
            "shape",
            lambda: _shape_mismatch_error(variable, tensor_slice, stored, tensor, label),
        )
    have, expect = stored.dtype, variable.dtype
    if have == expect or have is None or expect is None or (cast and can_cast(have, expect)):
        return None
    return Problem("dtype", lambda: type_mismatch_error(variable, stored, tensor))


def is_compatible(static: StaticShape, shape: tuple[int, ...]) -> bool:
    """Returns whether a shape is an instance of a static shape."""
    if static is None:
        return True
    return len(static) == len(shape) and all(
        known is None or known == size for known, size in zip(static, shape, strict=True)
    )


def type_mismatch_error(variable: Variable, stored: Stored, tensor: str) -> TypeMismatchError:
    """Returns the error for a tensor and a variable of different types."""
    remedy = ""
    if can_cast(stored.dtype, variable.dtype):
        remedy = "; cast=True converts it"
    return TypeMismatchError(
        f"tensor_name = {tensor}; expected dtype {tensorflow_type_name(variable.dtype)} does not "
        f"equal original dtype {tensorflow_type_name(stored.dtype)}: variable {variable.name} is "
        f"{type_text(variable.dtype)}, the tensor is stored as {type_text(stored.dtype)}{remedy}"
    )


def _shape_mismatch_error(
    variable: Variable, tensor_slice: Slice | None, stored: Stored, tensor: str, label: str
) -> ShapeMismatchError:
    expected = variable.shape if tensor_slice is None else tensor_slice.full_shape
    whole = "" if tensor_slice is None else f", a slice of {tensor_slice.full_name}"
    partition = variable.slice if tensor_slice is None else None
    hint = ""
    if partition is not None and partition.full_shape == stored.shape:
        hint = (
            ". It is one partition of a partitioned variable: give the list of its partitions, or "
            "a list of only this one"
        )
    return ShapeMismatchError(
        f"Shape of variable {variable.name}{whole} ({shape_text(expected)}) doesn't match with "
        f"shape of tensor {tensor} ({shape_text(stored.shape)}) from checkpoint reader of "
        f"{label}{hint}"
    )
