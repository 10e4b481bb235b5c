# SPDX-License-Identifier: Apache-2.0
"""An assignment map and what it meets, made into a plan: which variable gets which part of what.

Pure: it speaks of names, shapes and slices, imports no TensorFlow and reads no data. The meaning of
a map is that of TensorFlow's ``init_from_checkpoint``, with its order and its corner cases, except
that a scope in which there is nothing to fill is an error, and that shapes and types are compared
everywhere.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from tensorbundle.errors import Error, TensorNotFoundError
from tensorbundle.load_plan import Problem, Row, Stored, type_text
from tensorbundle.variables import Slice, Variable, compare

_PART = "/part_"


class NotInCheckpointError(TensorNotFoundError, ValueError):
    """A map names a tensor that the checkpoint has not.

    TensorFlow raises ``ValueError`` for this.
    """


# The value of a map: a variable, the partitions of one, or a name that is to be looked up.
Target: TypeAlias = "Variable | Sequence[Variable] | str"


class Assignment(NamedTuple):
    """One tensor for one variable, whole or in partitions.

    Attributes:
        tensor: Its key in the checkpoint.
        shape: Its shape there.
        partitions: (variable, its slice of the tensor, or None where it gets the whole).
        label: What the log calls the variable.
        name: What the map calls the tensor.
        dtype: The number of its type there; None is the variable's.
    """

    tensor: str
    shape: tuple[int, ...]
    partitions: tuple[tuple[Variable, Slice | None], ...]
    label: str
    name: str
    dtype: int | None = None


class Plan(NamedTuple):
    """What a map asks for.

    Attributes:
        rows: A row for each variable, in TensorFlow's order: a later one overrides an earlier. The
            ``load`` of one without a problem is an `Assignment`.
        problems: All problems in the order in which TensorFlow would meet them, those of rows too.
        warnings: What is odd in the map though it has a meaning.
    """

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """What can be loaded, in order."""
        return tuple(row.load for row in self.rows if row.load is not None)


class Source(NamedTuple):
    """The checkpoint, as far as a plan needs it.

    Attributes:
        label: What the caller called it, for messages.
        find: The tensor that a name means, or None. It may raise an ``Error``, where a name means
            several.
        names: All names, asked for only when there is something to say about them.
    """

    label: str
    find: Callable[[str], Stored | None]
    names: Callable[[], Sequence[str]]


def plan_assignments(
    pairs: Iterable[tuple[str, Target]],
    source: Source,
    store: Mapping[str, Variable],
    *,
    cast: bool = False,
    nameless: str = "",
) -> Plan:
    """Pairs every variable that a map means with the tensor that fills it.

    Changes nothing, and raises nothing: what is wrong with a map is among the plan's problems.

    Args:
        pairs: (name in the checkpoint, target), in any order.
        source: The checkpoint.
        store: The graph's variables by full name, partitions as ``name/part_<i>``.
        cast: Whether values are converted between float types.
        nameless: Why no variable is known by its name, if that is so; for messages.
    """
    planner = _Planner(source, store, cast, nameless)
    try:
        # By the checkpoint's name alone, and stable: which entry wins depends on it.
        ordered = sorted(pairs, key=lambda pair: pair[0])
    except TypeError as error:
        again = error  # The name of an except clause is gone after it.
        return Plan((), (Problem("setting", lambda: again),), ())
    for tensor, target in ordered:
        planner.add(tensor, target)
    return Plan(tuple(planner.rows), tuple(planner.problems), tuple(planner.warnings))


class _Planner:
    """The plan so far."""

    def __init__(
        self, source: Source, store: Mapping[str, Variable], cast: bool, nameless: str
    ) -> None:
        self.rows: list[Row] = []
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self._source = source
        self._store = store
        self._cast = cast
        self._nameless = nameless

    def add(self, tensor: Any, target: Target) -> None:
        found = self._look_up(target) if isinstance(target, str) else target
        if found is not None:
            label = (
                found.name
                if isinstance(found, Variable)
                else ",".join(partition.name for partition in found)
            )
            self._add(tensor, found, label, lambda: self._not_found(tensor, target))
        elif isinstance(tensor, str):
            assert isinstance(target, str)
            self._add_scope(tensor, target)
        else:
            self._fail("missing", lambda: self._not_found(tensor, target))

    def _look_up(self, name: str) -> Variable | Sequence[Variable] | None:
        """The variable of that name in the store, or its partitions up to the first gap."""
        exact = self._store.get(name)
        if exact is not None:
            return exact
        partitions: list[Variable] = []
        while (partition := self._store.get(f"{name}{_PART}{len(partitions)}")) is not None:
            partitions.append(partition)
        return partitions or None

    def _add(
        self,
        tensor: str,
        target: Variable | Sequence[Variable],
        label: str,
        not_found: Callable[[], Exception],
    ) -> None:
        """One tensor for one variable."""
        partitions = [target] if isinstance(target, Variable) else target
        stored, problem = self._find(tensor, not_found)
        if not partitions:
            self._add_nothing(tensor, stored, problem)
            return
        parts = (
            [None]
            if isinstance(target, Variable)
            else [partition.slice for partition in partitions]
        )
        problem = problem or _mixed_slices(partitions, tensor)
        if problem is None:
            assert stored is not None
            for partition, part in zip(partitions, parts, strict=True):
                problem = problem or compare(
                    partition, part, stored, tensor, self._source.label, self._cast
                )
        self._append(tensor, stored, problem, partitions, parts, label)

    def _add_nothing(self, tensor: str, stored: Stored | None, problem: Problem | None) -> None:
        """A list of no variables, for which TensorFlow logs a line."""
        load = None
        if stored is not None:
            load = Assignment(stored.key, stored.shape, (), "", tensor, stored.dtype)
            self.warnings.append(f"The list for tensor {tensor!r} is empty: no variable gets it")
        if problem is not None:
            self.problems.append(problem)
        self.rows.append(Row("", tensor, stored, None, None, "nothing", problem, load))

    def _append(
        self,
        tensor: str,
        stored: Stored | None,
        problem: Problem | None,
        partitions: Sequence[Variable],
        parts: Sequence[Slice | None],
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
                tuple(zip(partitions, parts, strict=True)),
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
            again = error  # The name of an except clause is gone after it.
            return None, Problem("setting", lambda: again)
        return stored, None if stored is not None else Problem("missing", not_found)

    def _fail(self, kind: str, error: Callable[[], Exception]) -> None:
        self.problems.append(Problem(kind, error))

    def _add_scope(self, key: str, value: str) -> None:
        scope = value[: value.rindex("/")] if "/" in value else ""
        if not key.endswith("/"):
            self._fail("setting", lambda: self._no_scope(key, value, scope))
            return
        names = self._variables_in(scope)
        if not names:
            self._fail("setting", lambda: self._empty_scope(key, value, scope))
            return
        if not value.endswith("/"):
            self.warnings.append(
                f"The assignment map's {key!r}: {value!r} names no variable, and its last part is "
                f"not looked at: it fills all of {scope + '/' if scope else 'the graph'!r}"
            )
        for name in names:
            self._add_scoped(key, value, scope, name)

    def _variables_in(self, scope: str) -> list[str]:
        """Full names below a scope (everything if it is empty), partitions under their whole's."""
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
        found = self._look_up(name)
        assert found is not None, f"{name} was in the store a moment ago"

        def not_found() -> Exception:
            return NotInCheckpointError(
                f"Tensor {tensor} ({name[len(scope) + 1 :]} in {key}) is not found in "
                f"{self._source.label} checkpoint{nearest(tensor, self._source.names())}"
                f"{scope_without_slash(value, self._store)}"
            )

        self._add(tensor, found, name, not_found)

    def _not_found(self, tensor: Any, target: Target) -> Exception:
        names = self._source.names()
        value = target if isinstance(target, str) else None
        return NotInCheckpointError(
            f"Tensor {tensor} is not found in {self._source.label} checkpoint"
            f"{nearest(tensor, names)}"
            f"{of_key(tensor, value, names, self._store)}"
        )

    def _no_scope(self, key: str, value: str, scope: str) -> Exception:
        return ValueError(
            f"Assignment map with scope only name {scope} should map to scope only {key}. "
            f"Should be 'scope/': 'other_scope/'."
            f"{of_value(key, value, self._source.names(), self._store, self._nameless)}"
        )

    def _empty_scope(self, key: str, value: str, scope: str) -> Exception:
        where = f"scope {scope!r}" if scope else "this graph"
        hint = of_value(key, value, self._source.names(), self._store, self._nameless)
        end = "" if not hint or hint.startswith(";") else "."
        return ValueError(
            f"the assignment map's {key!r}: {value!r} fills nothing: there is no variable made "
            f"by get_variable in {where}{end}{hint}"
        )


def _mixed_slices(partitions: Sequence[Variable], tensor: str) -> Problem | None:
    """What is wrong with a list: a list of one whole variable is that variable."""
    if len(partitions) < 2:
        return None
    whole = next((partition for partition in partitions if partition.slice is None), None)
    if whole is not None:
        return Problem(
            "setting",
            lambda: ValueError(
                f"the list for tensor {tensor!r} has {whole.name!r}, which is no partition of a "
                "partitioned variable: nothing says which part of the tensor it gets"
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


# Names that a message compares a misspelt one with, so that a huge checkpoint costs no minutes.
_COMPARED = 5000
_OUTPUT = re.compile(r":\d+$")


class Names(Container[str], Iterable[str], Protocol):
    """Names of a graph's variables."""


def nearest(tensor: Any, names: Sequence[str]) -> str:
    """How many tensors there are, and which names are nearest to one that is not there."""
    found = _closest(tensor, names)
    hint = f"; the nearest are {_quoted(found)}" if found else ""
    return f", which has {len(names)} tensors{hint}"


def of_key(tensor: Any, value: str | None, names: Sequence[str], store: Names) -> str:
    """About a name that no tensor has.

    Args:
        tensor: The map's key.
        value: What it leads to, where that is a name.
        names: The tensors' names.
        store: The variables' names.
    """
    if not isinstance(tensor, str):
        kind = type(tensor).__name__
        return f". A key of the map is a tensor's name, a str, not {kind}"
    if _OUTPUT.search(tensor):
        return _without_output(tensor, names, "tensors")
    if value is not None and _has_variable(store, tensor) and value in names:
        return _turned_round(tensor, value)
    return ""


def of_value(key: str, value: str, names: Sequence[str], store: Names, nameless: str) -> str:
    """About a value that names neither a variable nor a scope with variables.

    Args:
        key: The map's key.
        value: What it leads to.
        names: The tensors' names.
        store: The variables' names.
        nameless: Why no variable is known by its name, if that is so.
    """
    if nameless:
        return f" {nameless}"
    if _OUTPUT.search(value):
        return _without_output(value, store, "variables")
    if _has_variable(store, key) and value in names:
        return _turned_round(key, value)
    inside, outside = _as_scope(key), _as_scope(value)
    if _any_in(store, inside) and _any_in(names, outside) and not _any_in(store, outside):
        return _turned_round(inside, outside)
    if value.endswith("/") and not key.endswith("/") and _any_in(names, inside):
        return f" {key!r} is a scope of the checkpoint: give {inside!r}"
    known = list(store)[:_COMPARED]
    scopes = {name[: i + 1] for name in known for i, c in enumerate(name) if c == "/"}
    found = _closest(value, [*known, *sorted(scopes)])
    return f"; the nearest in the graph are {_quoted(found)}" if found else ""


def scope_without_slash(value: str, store: Names) -> str:
    """About a scope that leads to all variables of the graph, as it has no slash at all."""
    if "/" in value or not value:
        return ""
    if not _any_in(store, _as_scope(value)):
        return f". {value!r} names no variable, and without a slash it means the whole graph"
    return (
        f". {value!r} has no slash at its end, so it means the whole graph: give {value + '/'!r} "
        "for the variables in it"
    )


def _without_output(name: str, names: Names, kind: str) -> str:
    plain = _OUTPUT.sub("", name)
    number = name[len(plain) :]
    known = f": {plain!r} is there" if _has_variable(names, plain) else ""
    return f" Names of {kind} have no {number!r} here: take {number!r} off{known}"


def _turned_round(key: str, value: str) -> str:
    return (
        f" The map is turned round: {key!r} is in the graph and {value!r} in the checkpoint, but a "
        "map leads from the checkpoint's names to the graph's, {checkpoint: graph}: give "
        f"{{{value!r}: {key!r}}}"
    )


def _has_variable(store: Names, name: str) -> bool:
    return name in store or f"{name}{_PART}0" in store


def _any_in(names: Iterable[str], scope: str) -> bool:
    return scope != "/" and any(name.startswith(scope) for name in names)


def _as_scope(name: str) -> str:
    return name if name.endswith("/") else name + "/"


def _closest(name: Any, names: Sequence[str]) -> list[str]:
    if not isinstance(name, str):
        return []
    return difflib.get_close_matches(name, names[:_COMPARED], n=3)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
