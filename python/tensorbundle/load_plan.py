# SPDX-License-Identifier: Apache-2.0
"""What a call is going to do with each variable, before it does it, and how that is shown.

Pure: names, shapes and numbers of types. What a map or a warm start asks for is worked out in
``assignment`` and ``warm_plan``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from tensorbundle import dtypes


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


# None where the rank is unknown, or one dimension.
StaticShape: TypeAlias = "tuple[int | None, ...] | None"

# Between these TensorFlow's Cast converts: float32, float64, bfloat16, float16, float8_e5m2,
# float8_e4m3fn.
FLOATS = frozenset({1, 2, 14, 19, 24, 25})

# Names that a summary lists before it counts the rest.
_LISTED = 10


class Policy:
    """What a call does about what does not fit.

    Attributes:
        missing: ``"raise"`` or ``"skip"``: variables whose tensor the checkpoint lacks.
        mismatch: ``"raise"`` or ``"skip"``: variables of another shape or type than their tensor.
        cast: Whether values are converted between float types.
    """

    __slots__ = ("cast", "mismatch", "missing")

    def __init__(self, missing: str = "raise", mismatch: str = "raise", cast: bool = False) -> None:
        """Takes the keywords of a call.

        Raises:
            ValueError: A word is neither ``"raise"`` nor ``"skip"``.
            TypeError: `cast` is no bool.
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
    def is_tensorflows(self) -> bool:
        """Whether it is what TensorFlow's functions do."""
        return (self.missing, self.mismatch, self.cast) == ("raise", "raise", False)

    def skips(self, problem: Problem) -> bool:
        """Whether the variable is left alone instead of an exception being raised."""
        if problem.kind == "missing":
            return self.missing == "skip"
        return problem.kind in ("shape", "dtype") and self.mismatch == "skip"


class Problem:
    """Why a variable cannot be loaded, or a setting cannot be followed.

    Attributes:
        kind: ``"missing"``, ``"shape"``, ``"dtype"``, or ``"setting"`` for everything else.
    """

    def __init__(self, kind: str, error: Callable[[], Exception]) -> None:
        """Remembers how to say it.

        Args:
            kind: What it is.
            error: Makes the exception that TensorFlow's function raises for it. Called when
                somebody looks, because the nearest names take time to find.
        """
        self.kind = kind
        self._make = error

    @functools.cached_property
    def error(self) -> Exception:
        """The exception."""
        return self._make()

    def __str__(self) -> str:
        return str(self.error)


class Stored(NamedTuple):
    """A tensor of the checkpoint.

    Attributes:
        key: Its name there, which may not be the name that it was asked for by.
        shape: Its shape.
        dtype: The number of its type; None where that is not known.
    """

    key: str
    shape: tuple[int, ...]
    dtype: int | None = None


class Row(NamedTuple):
    """One variable, whole or partitioned, and the tensor that it gets.

    Attributes:
        variable: The whole variable's name, without ``:0``; empty for a list of no variables.
        tensor: The tensor's name, as it was asked for.
        stored: The tensor; None where the checkpoint lacks it, or was not looked into.
        shape: The whole variable's shape.
        dtype: The number of its type.
        action: What happens, if nothing is in the way.
        problem: What is.
        load: The planner's instructions for the load.
        handle: The variable itself, or its first partition: eager variables may share a name.
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
        """Whether a variable gets the tensor."""
        return self.problem is None and bool(self.variable)


def can_cast(stored: int | None, wanted: int | None) -> bool:
    """Whether values of one type can be converted to another on request."""
    return stored in FLOATS and wanted in FLOATS


def type_text(dtype: int | None) -> str:
    """As messages call a type: ``float32``."""
    return "?" if dtype is None else dtypes.stored_name(dtype)


def type_in_tensorflow(dtype: int | None) -> str:
    """As TensorFlow's kernels call it: ``float``."""
    return "?" if dtype is None else dtypes.enum_name(dtype).removeprefix("DT_").lower()


def report_of(rows: Iterable[Row], unused: tuple[str, ...]) -> LoadReport:
    """Returns the report of rows whose problems, if any, are skipped.

    Variables that share a name are told apart: the second is called ``name#2``.
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
    """Returns a name for every variable, by its identity and its own name."""
    names: dict[tuple[int, str], str] = {}
    counts: dict[str, int] = {}
    for row in rows:
        key = id(row.handle), row.variable
        if key not in names:
            count = counts[row.variable] = counts.get(row.variable, 0) + 1
            names[key] = row.variable if count == 1 else f"{row.variable}#{count}"
    return names


def table(rows: Sequence[Row], policy: Policy) -> str:
    """The rows, in columns for people; empty where there is none."""
    if not rows:
        return ""
    cells = [["tensor", "variable", "shape", "dtype", "what happens"]]
    cells += [
        list(
            map(plain, (row.tensor, row.variable, _shapes(row), _types(row), _happens(row, policy)))
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def summary(title: str, texts: Sequence[str]) -> str:
    """``title`` with its number, and one line for each; empty where there is none."""
    if not texts:
        return ""
    return "\n".join([f"{title} ({len(texts)}):", *(f"  - {plain(text)}" for text in texts)])


def listed(title: str, names: Sequence[str]) -> str:
    """``title`` with its number and the first names; empty where there is none."""
    if not names:
        return ""
    rest = len(names) - _LISTED
    more = f", and {rest} more" if rest > 0 else ""
    return f"{title} ({len(names)}): {', '.join(map(repr, names[:_LISTED]))}{more}"


def plain(text: str) -> str:
    """A text that any terminal shows on one line: names in a checkpoint may be any bytes."""
    return text if text.isprintable() else repr(text)[1:-1]


def _shapes(row: Row) -> str:
    wanted = shape_text(row.shape)
    if row.stored is None or shape_text(row.stored.shape) == wanted:
        return wanted
    return f"{shape_text(row.stored.shape)} -> {wanted}"


def _types(row: Row) -> str:
    wanted = type_text(row.dtype)
    if row.stored is None or row.stored.dtype in (None, row.dtype):
        return wanted
    return f"{type_text(row.stored.dtype)} -> {wanted}"


_LEFT_ALONE = {
    "missing": "not in the checkpoint",
    "shape": "another shape",
    "dtype": "another type",
}


def _happens(row: Row, policy: Policy) -> str:
    if row.problem is None:
        return row.action
    why = _LEFT_ALONE.get(row.problem.kind, "see below")
    return f"{'skipped' if policy.skips(row.problem) else 'problem'}: {why}"
