# SPDX-License-Identifier: Apache-2.0
"""Rows of a load plan, one per variable, and the tables and reports that are built from them.

Pure functions of names, shapes and type numbers. The rows are created for an assignment map by
``assignment``, and for a warm start from the steps of ``warm_plan``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from tensorbundle import dtypes
from tensorbundle.arguments import OnProblem

# A shape that may be unknown (None) or have unknown dimensions (None).
StaticShape: TypeAlias = "tuple[int | None, ...] | None"

# The type numbers between which TensorFlow's Cast converts: float32, float64, bfloat16, float16,
# float8_e5m2, float8_e4m3fn.
FLOATS = frozenset({1, 2, 14, 19, 24, 25})

# The number of names in a line before the rest is counted.
_MAX_NAMES = 10

_SKIP_REASONS = {
    "missing": "not in the checkpoint",
    "shape": "another shape",
    "dtype": "another type",
}


class Mismatch(NamedTuple):
    """The shapes and types of a tensor and of a variable that was skipped because they differ.

    Attributes:
        tensor: The tensor's name in the checkpoint.
        stored_shape: The tensor's shape.
        stored_dtype: The tensor's type.
        shape: The whole variable's shape; None if it is unknown, with None for unknown dimensions.
        dtype: The variable's type.
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
    """The result of a load: the variables that were loaded and those that were skipped.

    Names of variables do not have ``:0`` or ``/part_<i>``. If eager variables share a name, the
    second is listed as ``name#2``.

    Attributes:
        loaded: Variable name to tensor name, for variables that were loaded. In a graph, the
            variable gets the value when its initializer runs.
        missing: Variable name to tensor name, for variables that were skipped because the
            checkpoint does not have the tensor. Empty unless ``missing="skip"``.
        unused: The names of tensors that were not loaded, in the checkpoint's order.
        mismatched: Variable name to `Mismatch`, for variables that were skipped because their shape
            or type differs from the tensor's. Empty unless ``mismatch="skip"``.
    """

    loaded: dict[str, str]
    missing: dict[str, str]
    unused: tuple[str, ...]
    mismatched: dict[str, Mismatch]

    def __str__(self) -> str:
        loaded, unused = len(self.loaded), len(self.unused)
        lines = [
            f"{format_count(loaded, 'variable')} loaded, {format_count(unused, 'tensor')} unused"
        ]
        for name, tensor in self.missing.items():
            lines.append(f"{name!r} skipped: tensor {tensor!r} is not in the checkpoint")
        for name, mismatch in self.mismatched.items():
            lines.append(f"{name!r} skipped: {mismatch}")
        return "\n".join(lines)


def shape_text(shape: Sequence[int | None] | None) -> str:
    """Returns ``[2, ?]``, or ``<unknown>`` for a shape of unknown rank."""
    if shape is None:
        return "<unknown>"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def format_count(number: int, noun: str) -> str:
    """Returns ``1 tensor``, ``2 tensors``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Policy:
    """The handling of missing tensors and of mismatches.

    Attributes:
        missing: ``"raise"`` or ``"skip"``, if the checkpoint does not have a variable's tensor.
        mismatch: ``"raise"`` or ``"skip"``, if a variable and its tensor differ in shape or type.
        cast: Whether values are converted between float types.
    """

    __slots__ = ("cast", "mismatch", "missing")

    def __init__(
        self, missing: OnProblem = "raise", mismatch: OnProblem = "raise", cast: bool = False
    ) -> None:
        """Checks the keyword arguments of a call.

        Raises:
            ValueError: A value is neither ``"raise"`` nor ``"skip"``.
            TypeError: `cast` is not a bool.
        """
        for name, value in (("missing", missing), ("mismatch", mismatch)):
            if value not in ("raise", "skip"):
                raise ValueError(f"{name} must be 'raise' or 'skip', not {value!r}")
        if not isinstance(cast, bool):
            raise TypeError(f"cast must be True or False, not {cast!r}")
        self.missing = missing
        self.mismatch = mismatch
        self.cast = cast

    @property
    def is_default(self) -> bool:
        """Whether this is the behavior of TensorFlow's functions."""
        return (self.missing, self.mismatch, self.cast) == ("raise", "raise", False)

    def skips(self, problem: Problem) -> bool:
        """Returns whether the variable is skipped instead of raising an exception."""
        if problem.kind == "missing":
            return self.missing == "skip"
        return problem.kind in ("shape", "dtype") and self.mismatch == "skip"


class Problem:
    """The reason why a variable cannot be loaded, or a setting cannot be applied.

    Attributes:
        kind: ``"missing"``, ``"shape"``, ``"dtype"``, or ``"setting"`` for all other reasons.
    """

    def __init__(self, kind: str, error: Callable[[], Exception]) -> None:
        """Stores the kind and the factory of the exception.

        Args:
            kind: The kind.
            error: Creates the exception that TensorFlow's function raises for this problem. Called
                on first use, because the search for the nearest names is slow.
        """
        self.kind = kind
        self._create_error = error

    @classmethod
    def from_error(cls, error: Exception) -> Problem:
        """Returns the problem of an exception that a setting has raised."""
        return cls("setting", lambda: error)

    @functools.cached_property
    def error(self) -> Exception:
        """The exception."""
        return self._create_error()

    def __str__(self) -> str:
        return str(self.error)


class Stored(NamedTuple):
    """A tensor of the checkpoint.

    Attributes:
        key: The stored key, which may differ from the requested name.
        shape: The shape.
        dtype: The number of the type; None if it is unknown.
    """

    key: str
    shape: tuple[int, ...]
    dtype: int | None = None


class Row(NamedTuple):
    """One variable, whole or partitioned, and the tensor that is loaded into it.

    Attributes:
        variable: The whole variable's name, without ``:0``; empty for an empty list of variables.
        tensor: The requested name of the tensor.
        stored: The tensor; None if the checkpoint does not have it, or was not searched.
        shape: The whole variable's shape.
        dtype: The number of the variable's type.
        action: A description of the load, for a row without a problem.
        problem: The reason why the variable cannot be loaded, or None.
        load: The planner's instructions for the load.
        handle: The variable object, or its first partition. It identifies eager variables that
            share a name.
    """

    variable: str
    tensor: str
    stored: Stored | None
    shape: StaticShape
    dtype: int | None
    action: str
    problem: Problem | None = None
    load: Any = None
    handle: Any = None

    @property
    def is_loaded(self) -> bool:
        """Whether the tensor is loaded into a variable."""
        return self.problem is None and bool(self.variable)


def can_cast(stored: int | None, wanted: int | None) -> bool:
    """Returns whether ``cast=True`` converts values between two types."""
    return stored in FLOATS and wanted in FLOATS


def type_text(dtype: int | None) -> str:
    """Returns a type's name for messages: ``float32``."""
    return "?" if dtype is None else dtypes.stored_name(dtype)


def tensorflow_type_name(dtype: int | None) -> str:
    """Returns a type's name in TensorFlow's kernels: ``float``."""
    return "?" if dtype is None else dtypes.enum_name(dtype).removeprefix("DT_").lower()


def build_report(rows: Iterable[Row], unused: tuple[str, ...]) -> LoadReport:
    """Builds the report of rows, whose problems must all be skipped.

    If variables share a name, the second is listed as ``name#2``.
    """
    rows = list(rows)
    names = _distinct_names(rows)
    loaded: dict[str, str] = {}
    missing: dict[str, str] = {}
    mismatched: dict[str, Mismatch] = {}
    for row in rows:
        if row.is_loaded:
            loaded[names[id(row.handle), row.variable]] = (
                row.tensor if row.stored is None else row.stored.key
            )
        elif not row.variable:
            continue
        elif row.stored is None:
            missing[names[id(row.handle), row.variable]] = row.tensor
        else:
            mismatched[names[id(row.handle), row.variable]] = Mismatch(
                row.stored.key,
                row.stored.shape,
                type_text(row.stored.dtype),
                row.shape,
                type_text(row.dtype),
            )
    return LoadReport(loaded, missing, unused, mismatched)


def _distinct_names(rows: Sequence[Row]) -> dict[tuple[int, str], str]:
    """Returns a unique name for every variable, by its identity and its name."""
    names: dict[tuple[int, str], str] = {}
    counts: dict[str, int] = {}
    for row in rows:
        key = id(row.handle), row.variable
        if key not in names:
            count = counts[row.variable] = counts.get(row.variable, 0) + 1
            names[key] = row.variable if count == 1 else f"{row.variable}#{count}"
    return names


def format_table(rows: Sequence[Row], policy: Policy) -> str:
    """Formats the rows as a table; ``""`` without rows."""
    if not rows:
        return ""
    cells = [["tensor", "variable", "shape", "dtype", "action"]]
    cells += [list(map(escape_text, table_cells(row, policy))) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def table_cells(row: Row, policy: Policy) -> tuple[str, ...]:
    """Returns the tensor, the variable, the shapes, the types and the action of a row."""
    return row.tensor, row.variable, _shapes(row), _types(row), _action(row, policy)


def format_list(title: str, texts: Sequence[str], count: int | None = None) -> str:
    """Formats a title with the number of texts, and one line for each; ``""`` without texts.

    `count` is the number, if `texts` are only the first ones.
    """
    if not texts:
        return ""
    lines = [f"  - {escape_text(text)}" for text in texts]
    return "\n".join([f"{title} ({len(texts) if count is None else count}):", *lines])


def format_names(title: str, names: Sequence[str]) -> str:
    """Formats a title with the number of names and the first names; ``""`` without names."""
    if not names:
        return ""
    omitted = len(names) - _MAX_NAMES
    more = f", and {omitted} more" if omitted > 0 else ""
    return f"{title} ({len(names)}): {', '.join(map(repr, names[:_MAX_NAMES]))}{more}"


def escape_text(text: str) -> str:
    """Escapes unprintable characters, because names in a checkpoint may be any bytes."""
    return text if text.isprintable() else repr(text)[1:-1]


def _shapes(row: Row) -> str:
    shape = shape_text(row.shape)
    if row.stored is None or shape_text(row.stored.shape) == shape:
        return shape
    return f"{shape_text(row.stored.shape)} -> {shape}"


def _types(row: Row) -> str:
    dtype = type_text(row.dtype)
    if row.stored is None or row.stored.dtype in (None, row.dtype):
        return dtype
    return f"{type_text(row.stored.dtype)} -> {dtype}"


def _action(row: Row, policy: Policy) -> str:
    if row.problem is None:
        return row.action
    reason = _SKIP_REASONS.get(row.problem.kind, "see below")
    return f"{'skipped' if policy.skips(row.problem) else 'problem'}: {reason}"
