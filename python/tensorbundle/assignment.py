# SPDX-License-Identifier: Apache-2.0
"""An assignment map and what it meets, made into a plan: which variable gets which part of what.

Pure: it speaks of names, shapes and slices, imports no TensorFlow and reads no data. The meaning of
a map is that of TensorFlow's ``init_from_checkpoint``, with its order and its corner cases, except
that a scope in which there is nothing to fill is an error, and that shapes are compared everywhere.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from tensorbundle.errors import ShapeMismatchError, TensorNotFoundError

# None where the rank is unknown, or one extent.
StaticShape: TypeAlias = "tuple[int | None, ...] | None"

# Names that a message compares a misspelt one with, so that a huge checkpoint costs no minutes.
_COMPARED = 5000
_PART = "/part_"


class NotInCheckpointError(TensorNotFoundError, ValueError):
    """A map names a tensor that the checkpoint has not.

    TensorFlow raises ``ValueError`` for this.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """Where one piece of a partitioned variable lies in the whole.

    Attributes:
        full_name: The whole variable's name.
        full_shape: Its shape.
        offset: Where the piece begins, per axis.
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


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """What a plan must know of a variable.

    Attributes:
        name: As the variable says it, with its ``:0``.
        shape: Static shape; None where the rank is unknown.
        slice: None where it is no piece of a partitioned variable.
        handle: The variable itself, which nothing here looks at.
    """

    name: str
    shape: StaticShape
    slice: Slice | None
    handle: Any


# What a map's value stands for: a variable, the pieces of one, or a name that is to be looked up.
Target: TypeAlias = "Variable | Sequence[Variable] | str"


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """One tensor for one variable, whole or in pieces.

    Attributes:
        tensor: Its name in the checkpoint.
        shape: Its shape there.
        pieces: (variable, its slice of the tensor, or None where it gets the whole).
        label: What the log calls the variable.
    """

    tensor: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[Variable, Slice | None], ...]
    label: str


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a call will do.

    Attributes:
        assignments: In TensorFlow's order; a later one overrides an earlier.
        remarks: What is odd in the map though it has a meaning.
    """

    assignments: tuple[Assignment, ...]
    remarks: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """The checkpoint, as far as a plan needs it.

    Attributes:
        label: What the caller called it, for messages.
        shape_of: The shape of the tensor of exactly that name, or None.
        names: All names, asked for only when there is something to say about them.
    """

    label: str
    shape_of: Callable[[str], tuple[int, ...] | None]
    names: Callable[[], Sequence[str]]


def slice_spec(full_shape: Sequence[int], offset: Sequence[int], extent: Sequence[int]) -> str:
    """A box of a tensor in the notation of TensorFlow's restore op."""
    dims = "".join(f"{size} " for size in full_shape)
    return dims + ":".join(f"{a},{n}" for a, n in zip(offset, extent, strict=True))


def plan_assignments(
    pairs: Iterable[tuple[str, Target]],
    source: Source,
    store: Mapping[str, Variable],
    *,
    mismatch: Callable[[str], Exception] = ShapeMismatchError,
) -> Plan:
    """Pairs every variable that a map means with the tensor that fills it.

    Changes nothing, so a plan that fails leaves every variable as it was.

    Args:
        pairs: (name in the checkpoint, target), in any order.
        source: The checkpoint.
        store: The graph's variables by full name, pieces as ``name/part_<i>``.
        mismatch: Makes the exception for two shapes that differ.

    Raises:
        NotInCheckpointError: A tensor is not in the checkpoint.
        ShapeMismatchError: A tensor and its variable differ in shape; or what `mismatch` makes.
        TypeError: Names of several kinds cannot be sorted.
        ValueError: A map of scopes is malformed or meets no variable; or slices are not all of one
            variable.
    """
    planner = _Planner(source, store, mismatch)
    # By the checkpoint's name alone, and stable: which entry wins depends on it.
    for tensor, target in sorted(pairs, key=lambda pair: pair[0]):
        planner.add(tensor, target)
    return Plan(tuple(planner.assignments), tuple(planner.remarks))


class _Planner:
    """The plan so far."""

    def __init__(
        self,
        source: Source,
        store: Mapping[str, Variable],
        mismatch: Callable[[str], Exception],
    ) -> None:
        self.assignments: list[Assignment] = []
        self.remarks: list[str] = []
        self._source = source
        self._store = store
        self._mismatch = mismatch

    def add(self, tensor: str, target: Target) -> None:
        found = self._look_up(target) if isinstance(target, str) else target
        if found is None:
            assert isinstance(target, str)
            self._add_scope(tensor, target)
        else:
            self._add_variable(tensor, found)

    def _look_up(self, name: str) -> Variable | Sequence[Variable] | None:
        """The variable of that name in the store, or its pieces up to the first gap."""
        exact = self._store.get(name)
        if exact is not None:
            return exact
        pieces: list[Variable] = []
        while (piece := self._store.get(f"{name}{_PART}{len(pieces)}")) is not None:
            pieces.append(piece)
        return pieces or None

    def _add_variable(self, tensor: str, target: Variable | Sequence[Variable]) -> None:
        shape = self._source.shape_of(tensor)
        if shape is None:
            raise NotInCheckpointError(
                f"Tensor {tensor} is not found in {self._source.label} checkpoint"
                + self._nearest(tensor)
            )
        if isinstance(target, Variable):
            self._append(tensor, shape, target, target.name)
        else:
            self._append(tensor, shape, target, ",".join(piece.name for piece in target))

    def _append(
        self,
        tensor: str,
        shape: tuple[int, ...],
        target: Variable | Sequence[Variable],
        label: str,
    ) -> None:
        pieces = (
            [(target, None)]
            if isinstance(target, Variable)
            else [(piece, piece.slice) for piece in _slices_of_one(target, tensor)]
        )
        for variable, part in pieces:
            self._require_shape(tensor, shape, variable, part)
        self.assignments.append(Assignment(tensor, shape, tuple(pieces), label))

    def _require_shape(
        self, tensor: str, shape: tuple[int, ...], variable: Variable, part: Slice | None
    ) -> None:
        wanted: StaticShape = variable.shape if part is None else part.full_shape
        if _compatible(wanted, shape):
            return
        whole = "" if part is None else f", a slice of {part.full_name}"
        hint = ""
        if part is None and variable.slice is not None and variable.slice.full_shape == shape:
            hint = (
                ". It is one piece of a partitioned variable: give the list of its pieces, or a "
                "list of just this one"
            )
        raise self._mismatch(
            f"Shape of variable {variable.name}{whole} ({_shown(wanted)}) doesn't match with shape "
            f"of tensor {tensor} ({_shown(shape)}) from checkpoint reader of "
            f"{self._source.label}{hint}"
        )

    def _add_scope(self, key: str, value: str) -> None:
        scope = value[: value.rindex("/")] if "/" in value else ""
        if not key.endswith("/"):
            raise ValueError(
                f"Assignment map with scope only name {scope} should map to scope only {key}. "
                f"Should be 'scope/': 'other_scope/'.{self._misspelt(value)}"
            )
        names = self._variables_in(scope)
        if not names:
            where = f"scope {scope!r}" if scope else "this graph"
            raise ValueError(
                f"the assignment map's {key!r}: {value!r} fills nothing: there is no variable made "
                f"by get_variable in {where}{self._misspelt(value)}"
            )
        if not value.endswith("/"):
            self.remarks.append(
                f"The assignment map's {key!r}: {value!r} names no variable, and its last part is "
                f"not looked at: it fills all of {scope + '/' if scope else 'the graph'!r}"
            )
        for name in names:
            self._add_scoped(key, value, scope, name)

    def _variables_in(self, scope: str) -> list[str]:
        """Full names below a scope (everything if it is empty), pieces under their whole's."""
        inside = scope + "/"
        found = set()
        for name in self._store:
            if scope and not name.startswith(inside):
                continue
            # A variable of the user's own may be called so too.
            if _PART in name and self._store[name].slice is not None:
                found.add(name[: name.index(_PART)])
            else:
                found.add(name)
        return sorted(found)

    def _add_scoped(self, key: str, value: str, scope: str, name: str) -> None:
        rest = name[len(scope) :]
        if value != "/":
            rest = rest[1:]
        tensor = (rest if key == "/" else key + rest).removesuffix("/")
        shape = self._source.shape_of(tensor)
        if shape is None:
            raise NotInCheckpointError(
                f"Tensor {tensor} ({name[len(scope) + 1 :]} in {key}) is not found in "
                f"{self._source.label} checkpoint{self._nearest(tensor)}"
            )
        found = self._look_up(name)
        assert found is not None, f"{name} was in the store a moment ago"
        self._append(tensor, shape, found, name)

    def _nearest(self, tensor: str) -> str:
        names = self._source.names()
        nearest = difflib.get_close_matches(tensor, names[:_COMPARED], n=3)
        hint = f"; the nearest are {', '.join(map(repr, nearest))}" if nearest else ""
        return f", which has {len(names)} tensors{hint}"

    def _misspelt(self, value: str) -> str:
        known = list(self._store)[:_COMPARED]
        scopes = {name[: i + 1] for name in known for i, c in enumerate(name) if c == "/"}
        nearest = difflib.get_close_matches(value, [*known, *sorted(scopes)], n=3)
        return f"; the nearest in the graph are {', '.join(map(repr, nearest))}" if nearest else ""


def _slices_of_one(pieces: Sequence[Variable], tensor: str) -> Sequence[Variable]:
    """The pieces, if all are of the same variable; a list of one whole variable is that variable.

    Raises:
        ValueError: They are not.
    """
    first: Slice | None = None
    for piece in pieces:
        if piece.slice is None:
            if len(pieces) == 1:
                break
            raise ValueError(
                f"the list for tensor {tensor!r} has {piece.name!r}, which is no piece of a "
                "partitioned variable: nothing says which part of the tensor it gets"
            )
        first = first or piece.slice
        if piece.slice.full_name != first.full_name:
            raise ValueError(
                "Slices must all be from the same tensor: "
                f"{first.full_name} != {piece.slice.full_name}"
            )
    return pieces


def _compatible(static: StaticShape, shape: tuple[int, ...]) -> bool:
    """Whether what is known of a shape agrees with one that is fully known."""
    if static is None:
        return True
    return len(static) == len(shape) and all(
        known is None or known == size for known, size in zip(static, shape, strict=True)
    )


def _shown(shape: StaticShape) -> str:
    if shape is None:
        return "<unknown>"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
