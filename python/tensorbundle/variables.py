# SPDX-License-Identifier: Apache-2.0
"""What plans know of a variable, and whether a tensor of a checkpoint suits it.

Pure: nothing here looks at the variable itself.
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
    type_in_tensorflow,
    type_text,
)


class TypeMismatchError(Error, ValueError):
    """A tensor and its variable differ in their element types."""


class Slice(NamedTuple):
    """Where one partition of a partitioned variable lies in the whole.

    Attributes:
        full_name: The whole variable's name.
        full_shape: Its shape.
        offset: Where the partition begins, per axis.
        extent: How far it goes, per axis.
    """

    full_name: str
    full_shape: tuple[int, ...]
    offset: tuple[int, ...]
    extent: tuple[int, ...]

    @property
    def spec(self) -> str:
        """As TensorFlow's restore op takes it: ``"10 10 4,3:0,10"``."""
        return slice_spec(self.full_shape, self.offset, self.extent)


class Variable:
    """What a plan must know of a variable.

    Attributes:
        name: As the variable says it, with its ``:0``.
        shape: Static shape; None where the rank is unknown.
        slice: None where it is no partition of a partitioned variable.
        handle: The variable itself, which nothing here looks at.
        dtype: The number of its type; None is not compared.
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
        """Takes the attributes in their order."""
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


def slice_spec(full_shape: Sequence[int], offset: Sequence[int], extent: Sequence[int]) -> str:
    """A box of a tensor in the notation of TensorFlow's restore op."""
    dims = "".join(f"{size} " for size in full_shape)
    return dims + ":".join(f"{a},{n}" for a, n in zip(offset, extent, strict=True))


def compare(
    variable: Variable, part: Slice | None, stored: Stored, tensor: str, label: str, cast: bool
) -> Problem | None:
    """What is wrong with a tensor for a variable, or for the slice that it gets of it.

    Args:
        variable: The variable.
        part: None where it gets the whole tensor.
        stored: The tensor.
        tensor: What messages call it.
        label: What messages call the checkpoint.
        cast: Whether values are converted between float types.
    """
    wanted: StaticShape = variable.shape if part is None else part.full_shape
    if not is_compatible(wanted, stored.shape):
        return Problem("shape", lambda: _other_shape(variable, part, stored, tensor, label))
    have, want = stored.dtype, variable.dtype
    if have == want or have is None or want is None or (cast and can_cast(have, want)):
        return None
    return Problem("dtype", lambda: other_type(variable, stored, tensor))


def is_compatible(static: StaticShape, shape: tuple[int, ...]) -> bool:
    """Whether what is known of a shape agrees with one that is fully known."""
    if static is None:
        return True
    return len(static) == len(shape) and all(
        known is None or known == size for known, size in zip(static, shape, strict=True)
    )


def other_type(variable: Variable, stored: Stored, tensor: str) -> TypeMismatchError:
    """What to say of a tensor that has another type than its variable."""
    cure = ""
    if can_cast(stored.dtype, variable.dtype):
        cure = "; cast=True converts it"
    return TypeMismatchError(
        f"tensor_name = {tensor}; expected dtype {type_in_tensorflow(variable.dtype)} does not "
        f"equal original dtype {type_in_tensorflow(stored.dtype)}: variable {variable.name} is "
        f"{type_text(variable.dtype)}, the tensor is stored as {type_text(stored.dtype)}{cure}"
    )


def _other_shape(
    variable: Variable, part: Slice | None, stored: Stored, tensor: str, label: str
) -> ShapeMismatchError:
    wanted = variable.shape if part is None else part.full_shape
    whole = "" if part is None else f", a slice of {part.full_name}"
    hint = ""
    if part is None and variable.slice is not None and variable.slice.full_shape == stored.shape:
        hint = (
            ". It is one partition of a partitioned variable: give the list of its partitions, or "
            "a list of just this one"
        )
    return ShapeMismatchError(
        f"Shape of variable {variable.name}{whole} ({shape_text(wanted)}) doesn't match with shape "
        f"of tensor {tensor} ({shape_text(stored.shape)}) from checkpoint reader of {label}{hint}"
    )
