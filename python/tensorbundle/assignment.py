# SPDX-License-Identifier: Apache-2.0
"""Plans for assignment maps, which pair variables with tensors of a checkpoint, and their hints.

Pure functions of names, shapes and slices: this module does not import TensorFlow and reads no
data. A map means what it means to TensorFlow's ``init_from_checkpoint``, including order and corner
cases, with two exceptions: a scope without variables is an error, and shapes and types are always
compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from tensorbundle.errors import Error, TensorNotFoundError
from tensorbundle.load_plan import Problem, Row, Stored, type_text
from tensorbundle.load_source import LoadSource
from tensorbundle.variables import Slice, Variable, compare

_PARTITION_INFIX = "/part_"

# Names compared with a misspelled one. The limit bounds the time for huge checkpoints.
_MAX_COMPARED = 5000
_OUTPUT = re.compile(r":\d+$")


class NotInCheckpointError(TensorNotFoundError, ValueError):
    """A map names a tensor that the checkpoint does not have.

    TensorFlow raises ``ValueError`` for this.
    """


# A value of the map: a variable, the partitions of a variable, or a name to look up.
Target: TypeAlias = "Variable | Sequence[Variable] | str"
# What the caller gives: from names in the checkpoint to targets as TensorFlow's objects.
AssignmentMap: TypeAlias = "Mapping[str, Any] | Iterable[tuple[str, Any]]"


class Assignment(NamedTuple):
    """A tensor and the variable, whole or partitioned, that it is loaded into.

    Attributes:
        tensor: The tensor's key in the checkpoint.
        shape: The tensor's shape.
        partitions: (variable, its slice of the tensor, or None for the whole tensor).
        label: The variable's name in log messages.
        name: The tensor's name in the map.
        dtype: The number of the tensor's type; None means the variable's type.
    """

    tensor: str
    shape: tuple[int, ...]
    partitions: tuple[tuple[Variable, Slice | None], ...]
    label: str
    name: str
    dtype: int | None = None


class Plan(NamedTuple):
    """The plan for an assignment map.

    Attributes:
        rows: A row for each variable, in TensorFlow's order: later rows override earlier ones. The
            ``load`` of a row without a problem is an `Assignment`.
        problems: All problems, including those of rows, in the order in which TensorFlow would
            raise them.
        warnings: Descriptions of valid but suspicious entries of the map.
    """

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """The assignments of rows without a problem, in order."""
        return tuple(row.load for row in self.rows if row.load is not None)


def plan_assignments(
    pairs: Iterable[tuple[str, Target]],
    source: LoadSource,
    store: Mapping[str, Variable],
    *,
    cast: bool = False,
    unnamed_reason: str = "",
) -> Plan:
    """Pairs every variable of an assignment map with the tensor that fills it.

    Does not change variables and does not raise: errors in the map are the plan's problems.

    Args:
        pairs: (name in the checkpoint, target), in any order.
        source: The checkpoint.
        store: The graph's variables by full name, partitions as ``name/part_<i>``.
        cast: Whether values are converted between float types.
        unnamed_reason: Why variables cannot be looked up by name, or ``""``; for messages.
    """
    planner = _Planner(source, store, cast, unnamed_reason)
    try:
        # A stable sort by the checkpoint's name, as in TensorFlow: the order decides which entry
        # wins.
        ordered = sorted(pairs, key=lambda pair: pair[0])
    except TypeError as error:
        return Plan((), (Problem.from_error(error),), ())
    for tensor, target in ordered:
        planner.add(tensor, target)
    return Plan(tuple(planner.rows), tuple(planner.problems), tuple(planner.warnings))


class _Planner:
    """Accumulates the rows, problems and warnings of a plan."""

    def __init__(
        self, source: LoadSource, store: Mapping[str, Variable], cast: bool, unnamed_reason: str
    ) -> None:
        self.rows: list[Row] = []
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self._source = source
        self._store = store
        self._cast = cast
        self._unnamed_reason = unnamed_reason

    def add(self, tensor: Any, target: Target) -> None:
        found = self._look_up(target) if isinstance(target, str) else target
        if found is not None:
            label = (
                found.name
                if isinstance(found, Variable)
                else ",".join(partition.name for partition in found)
            )
            self._add(tensor, found, label, lambda: self._not_found_error(tensor, target))
        elif isinstance(tensor, str):
            assert isinstance(target, str)
            self._add_scope(tensor, target)
        else:
            self._fail("missing", lambda: self._not_found_error(tensor, target))

    def _look_up(self, name: str) -> Variable | Sequence[Variable] | None:
        """Returns the variable of that name in the store, or its partitions up to the first gap."""
        exact = self._store.get(name)
        if exact is not None:
            return exact
        partitions: list[Variable] = []
        while (
            partition := self._store.get(f"{name}{_PARTITION_INFIX}{len(partitions)}")
        ) is not None:
            partitions.append(partition)
        return partitions or None

    def _add(
        self,
        tensor: str,
        target: Variable | Sequence[Variable],
        label: str,
        not_found: Callable[[], Exception],
    ) -> None:
        """Adds one tensor for one variable."""
        partitions = [target] if isinstance(target, Variable) else target
        stored, problem = self._find(tensor, not_found)
        if not partitions:
            self._add_empty_list(tensor, stored, problem)
            return
        slices = (
            [None]
            if isinstance(target, Variable)
            else [partition.slice for partition in partitions]
        )
        problem = problem or _mixed_slices(partitions, tensor)
        if problem is None:
            assert stored is not None
            for partition, tensor_slice in zip(partitions, slices, strict=True):
                problem = problem or compare(
                    partition, tensor_slice, stored, tensor, self._source.label, self._cast
                )
        self._append(tensor, stored, problem, partitions, slices, label)

    def _add_empty_list(self, tensor: str, stored: Stored | None, problem: Problem | None) -> None:
        """Adds an empty list of variables, for which TensorFlow logs a line."""
        load = None
        if stored is not None:
            load = Assignment(stored.key, stored.shape, (), "", tensor, stored.dtype)
            self.warnings.append(
                f"The list for tensor {tensor!r} is empty: it is not loaded into any variable"
            )
        if problem is not None:
            self.problems.append(problem)
        self.rows.append(Row("", tensor, stored, None, None, "nothing", problem, load))

    def _append(
        self,
        tensor: str,
        stored: Stored | None,
        problem: Problem | None,
        partitions: Sequence[Variable],
        slices: Sequence[Slice | None],
        label: str,
    ) -> None:
        first = partitions[0]
        load = None
        action = "loaded"
        if problem is not None:
            self.problems.append(problem)
        elif stored is not None:
            load = Assignment(
                stored.key,
                stored.shape,
                tuple(zip(partitions, slices, strict=True)),
                label,
                tensor,
                stored.dtype,
            )
            if None not in (stored.dtype, first.dtype) and stored.dtype != first.dtype:
                action = f"loaded, cast to {type_text(first.dtype)}"
        self.rows.append(
            Row(
                first.full_name,
                tensor,
                stored,
                first.full_shape,
                first.dtype,
                action,
                problem,
                load,
                first.handle,
            )
        )

    def _find(
        self, tensor: str, not_found: Callable[[], Exception]
    ) -> tuple[Stored | None, Problem | None]:
        try:
            stored = self._source.find(tensor)
        except Error as error:
            return None, Problem.from_error(error)
        return stored, None if stored is not None else Problem("missing", not_found)

    def _fail(self, kind: str, error: Callable[[], Exception]) -> None:
        self.problems.append(Problem(kind, error))

    def _add_scope(self, key: str, value: str) -> None:
        scope = value[: value.rindex("/")] if "/" in value else ""
        if not key.endswith("/"):
            self._fail("setting", lambda: self._no_scope_error(key, value, scope))
            return
        names = self._variables_in(scope)
        if not names:
            self._fail("setting", lambda: self._empty_scope_error(key, value, scope))
            return
        if not value.endswith("/"):
            self.warnings.append(
                f"The assignment map's {key!r}: {value!r} does not name a variable, and its last "
                f"component is ignored: it fills all of {scope + '/' if scope else 'the graph'!r}"
            )
        for name in names:
            self._add_scoped(key, value, scope, name)

    def _variables_in(self, scope: str) -> list[str]:
        """Returns the full names of variables in a scope, or of all if the scope is empty."""
        scope_prefix = scope + "/"
        found = set()
        for name in self._store:
            if scope and not name.startswith(scope_prefix):
                continue
            # An unpartitioned variable may have such a name too.
            if _PARTITION_INFIX in name and self._store[name].slice is not None:
                found.add(name[: name.index(_PARTITION_INFIX)])
            else:
                found.add(name)
        return sorted(found)

    def _add_scoped(self, key: str, value: str, scope: str, name: str) -> None:
        relative = name[len(scope) :]
        if value != "/":
            relative = relative[1:]
        tensor = (relative if key == "/" else key + relative).removesuffix("/")
        found = self._look_up(name)
        assert found is not None, f"{name} must be in the store"

        def not_found() -> Exception:
            return NotInCheckpointError(
                f"Tensor {tensor} ({name[len(scope) + 1 :]} in {key}) is not found in "
                f"{self._source.label} checkpoint{nearest_hint(tensor, self._source.names())}"
                f"{scope_hint(value, self._store)}"
            )

        self._add(tensor, found, name, not_found)

    def _not_found_error(self, tensor: Any, target: Target) -> Exception:
        names = self._source.names()
        value = target if isinstance(target, str) else None
        return NotInCheckpointError(
            f"Tensor {tensor} is not found in {self._source.label} checkpoint"
            f"{nearest_hint(tensor, names)}"
            f"{key_hint(tensor, value, names, self._store)}"
        )

    def _no_scope_error(self, key: str, value: str, scope: str) -> Exception:
        return ValueError(
            f"Assignment map with scope only name {scope} should map to scope only {key}. "
            f"Should be 'scope/': 'other_scope/'."
            f"{value_hint(key, value, self._source.names(), self._store, self._unnamed_reason)}"
        )

    def _empty_scope_error(self, key: str, value: str, scope: str) -> Exception:
        place = f"scope {scope!r}" if scope else "this graph"
        hint = value_hint(key, value, self._source.names(), self._store, self._unnamed_reason)
        end = "" if not hint or hint.startswith(";") else "."
        return ValueError(
            f"the assignment map's {key!r}: {value!r} does not match a variable: get_variable has "
            f"not created one in {place}{end}{hint}"
        )


def _mixed_slices(partitions: Sequence[Variable], tensor: str) -> Problem | None:
    """Returns the problem of a list that is neither one variable nor partitions of one."""
    if len(partitions) < 2:
        return None
    whole = next((partition for partition in partitions if partition.slice is None), None)
    if whole is not None:
        return Problem(
            "setting",
            lambda: ValueError(
                f"the list for tensor {tensor!r} has {whole.name!r}, which is not a partition of a "
                "partitioned variable: its slice of the tensor is unknown"
            ),
        )
    names = [partition.full_name for partition in partitions]
    other = next((name for name in names if name != names[0]), None)
    if other is None:
        return None
    return Problem(
        "setting",
        lambda: ValueError(f"Slices must all be from the same tensor: {names[0]} != {other}"),
    )


class Names(Container[str], Iterable[str], Protocol):
    """The names of a graph's variables."""


def nearest_hint(tensor: Any, names: Sequence[str]) -> str:
    """Describes the number of tensors and the names nearest to a missing one."""
    found = _closest_names(tensor, names)
    hint = f"; the nearest are {_join_names(found)}" if found else ""
    return f", which has {len(names)} tensor{'' if len(names) == 1 else 's'}{hint}"


def key_hint(tensor: Any, value: str | None, names: Sequence[str], store: Names) -> str:
    """Returns a hint about a map's key that is not the name of a tensor.

    Args:
        tensor: The map's key.
        value: The map's value, if it is a name.
        names: The tensors' names.
        store: The variables' names.
    """
    if not isinstance(tensor, str):
        kind = type(tensor).__name__
        return f". A key of the map must be a tensor's name, a str, not {kind}"
    if _OUTPUT.search(tensor):
        return _output_suffix_hint(tensor, names, "tensors")
    if value is not None and _has_variable(store, tensor) and value in names:
        return _reversed_hint(tensor, value)
    return ""


def value_hint(
    key: str, value: str, names: Sequence[str], store: Names, unnamed_reason: str
) -> str:
    """Returns a hint about a map's value that is neither a variable nor a scope with variables.

    Args:
        key: The map's key.
        value: The map's value.
        names: The tensors' names.
        store: The variables' names.
        unnamed_reason: Why variables cannot be looked up by name, or ``""``.
    """
    if unnamed_reason:
        return f" {unnamed_reason}"
    if _OUTPUT.search(value):
        return _output_suffix_hint(value, store, "variables")
    if _has_variable(store, key) and value in names:
        return _reversed_hint(key, value)
    key_scope, value_scope = _as_scope(key), _as_scope(value)
    if (
        _any_in(store, key_scope)
        and _any_in(names, value_scope)
        and not _any_in(store, value_scope)
    ):
        return _reversed_hint(key_scope, value_scope)
    if value.endswith("/") and not key.endswith("/") and _any_in(names, key_scope):
        return f" {key!r} is a scope of the checkpoint: give {key_scope!r}"
    known = list(store)[:_MAX_COMPARED]
    scopes = {name[: i + 1] for name in known for i, c in enumerate(name) if c == "/"}
    found = _closest_names(value, [*known, *sorted(scopes)])
    return f"; the nearest in the graph are {_join_names(found)}" if found else ""


def scope_hint(value: str, store: Names) -> str:
    """Returns a hint about a scope without a slash, which means all variables of the graph."""
    if "/" in value or not value:
        return ""
    if not _any_in(store, _as_scope(value)):
        return f". {value!r} is not a variable, and without a slash it means the whole graph"
    return (
        f". {value!r} does not end in a slash, so it means the whole graph: give {value + '/'!r} "
        "for the variables in it"
    )


def _output_suffix_hint(name: str, names: Names, kind: str) -> str:
    plain = _OUTPUT.sub("", name)
    number = name[len(plain) :]
    known = f": {plain!r} exists" if _has_variable(names, plain) else ""
    return f" Names of {kind} do not end in {number!r} here: remove {number!r}{known}"


def _reversed_hint(key: str, value: str) -> str:
    return (
        f" The map is reversed: {key!r} is in the graph and {value!r} in the checkpoint, but a map "
        "goes from the checkpoint's names to the graph's, {checkpoint: graph}: give "
        f"{{{value!r}: {key!r}}}"
    )


def _has_variable(store: Names, name: str) -> bool:
    return name in store or f"{name}{_PARTITION_INFIX}0" in store


def _any_in(names: Iterable[str], scope: str) -> bool:
    return scope != "/" and any(name.startswith(scope) for name in names)


def _as_scope(name: str) -> str:
    return name if name.endswith("/") else name + "/"


def _closest_names(name: Any, names: Sequence[str]) -> list[str]:
    if not isinstance(name, str):
        return []
    import difflib  # only an error needs it

    return difflib.get_close_matches(name, names[:_MAX_COMPARED], n=3)


def _join_names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
