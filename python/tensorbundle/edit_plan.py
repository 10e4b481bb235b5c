# SPDX-License-Identifier: Apache-2.0
"""Plans of new checkpoints: which tensors of a source they get, under which names, in which form.

``plan_edit`` applies its options to each tensor of the source, in this order:

1. the first rule that matches; then ``keep``, ``drop`` and ``slots``, which leave tensors out
2. the new name, by the rule, else by ``rename``
3. ``cast``, ``transpose`` and ``partition``, by the rule, else by the argument
4. ``update``, whose names are those of the result

Patterns and names in the other options are those of the source. They match the key of a tensor, its
full name in the object graph, and the key without ``/.ATTRIBUTES/VARIABLE_VALUE``.

The plan reads no values, except those of integers that are cast to a smaller type.
"""

from __future__ import annotations

import operator
import re
import warnings as python_warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorbundle import _core, casts, naming
from tensorbundle import slots as optimizer_slots
from tensorbundle.arguments import integer
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.errors import ProblemsError
from tensorbundle.naming import OBJECT_GRAPH, VALUE_SUFFIX
from tensorbundle.planned_tensor import Box, PlannedTensor, row_slices, transposed, whole
from tensorbundle.renaming import Names, Renaming
from tensorbundle.rules import Glob, Patterns, Rule, Selection, globs, is_transpose, read_rules
from tensorbundle.tensor import Tensor

__all__ = ["EditError", "EditPlan", "EditWarning", "PlannedTensor", "plan_edit"]

# The types that TensorFlow's RestoreV2 reads in slices; it refuses all others.
SLICEABLE = frozenset(
    {
        *("float32", "float64", "bfloat16", "complex64", "complex128", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "int4", "uint4", "qint8", "quint8", "qint32"),
    }
)


class EditError(ProblemsError):
    """A checkpoint cannot be edited as requested. Nothing has been written.

    Attributes:
        problems: All problems, one sentence each.
    """

    def _text(self, listed: Sequence[str]) -> str:
        count = f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
        return "\n  ".join([f"{self.path!r} cannot be edited as requested ({count}):", *listed])


class EditWarning(UserWarning):
    """An option that has no effect, or one that the user may not expect."""


@dataclass(frozen=True)
class EditPlan:
    """A new checkpoint, before it is written.

    Attributes:
        path: The source.
        tensors: The tensors of the result, in the order of the source's files; tensors that
            ``update`` adds are last. The object graph is not among them.
        dropped: The keys of the source that are left out, in byte order.
        renamed: Key in the source to name in the result, where they differ.
        cast: Name in the result to (type in the source, type in the result), where they differ.
        warnings: Descriptions of options without effect, with the nearest names.
        graph: The object graph as the source stores it; None without one, or with ``flatten``.
        renamed_full_names: Full name in the source's object graph to full name in the result.
    """

    path: str
    tensors: tuple[PlannedTensor, ...]
    dropped: tuple[str, ...]
    renamed: Mapping[str, str]
    cast: Mapping[str, tuple[str, str]]
    warnings: tuple[str, ...]
    graph: bytes | None = None
    renamed_full_names: Mapping[str, str] = field(default_factory=dict)

    def edited_graph(self) -> bytes | None:
        """Returns the object graph with the keys and full names of the result.

        Raises:
            CorruptionError: The object graph is malformed.
        """
        if self.graph is None:
            return None
        if not (self.dropped or self.renamed or self.renamed_full_names):
            return self.graph
        return _core.edit_object_graph(
            self.graph,
            [naming.as_bytes(key) for key in self.dropped],
            {naming.as_bytes(a): naming.as_bytes(b) for a, b in self.renamed.items()},
            {naming.as_bytes(a): naming.as_bytes(b) for a, b in self.renamed_full_names.items()},
        )


def plan_edit(
    checkpoint: Checkpoint,
    *,
    keep: Any = None,
    drop: Any = None,
    slots: bool = True,
    rename: Any = None,
    cast: Any = None,
    transpose: Any = None,
    partition: Mapping[str, int] | None = None,
    merge: bool = False,
    update: Mapping[str, Any] | None = None,
    rules: Any = None,
    flatten: bool = False,
) -> EditPlan:
    """Plans a new checkpoint. The arguments are those of ``edit``.

    Returns:
        The plan. Its tensors refer to the checkpoint, which must stay open.

    Raises:
        EditError: The options do not fit the checkpoint. It is a ValueError, and lists all
            problems: collisions of names, absent names, casts that are not supported, permutations
            of another rank.
        TypeError: An option has the wrong type.
        ValueError: The rules are invalid.
    """
    planner = _Planner(
        checkpoint=checkpoint,
        keep=None if keep is None else Selection("keep", keep),
        drop=None if drop is None else Selection("drop", drop),
        slots=_flag("slots", slots),
        rename=Renaming(rename),
        cast=_CastOption(cast),
        transpose=Patterns("transpose", _transpose_rows(transpose)),
        partition=Patterns("partition", _partition_rows(partition)),
        merge=_flag("merge", merge),
        update=_updates(update),
        rules=[] if rules is None else read_rules(rules),
        flatten=_flag("flatten", flatten),
    )
    plan = planner.plan()
    for text in plan.warnings:
        python_warnings.warn(text, EditWarning, stacklevel=3)
    return plan


def _flag(option: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{option} must be True or False, not {type(value).__name__}")
    return bool(value)


def _transpose_rows(value: Any) -> list[tuple[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        return [(text, True) for text in globs("transpose", value)]
    for text, permutation in value.items():
        if not isinstance(text, str) or not is_transpose(permutation):
            raise TypeError(
                "transpose must map names or patterns to True or to a permutation such as "
                f"(1, 0), not {text!r} to {permutation!r}"
            )
    return list(value.items())


def _partition_rows(value: Any) -> list[tuple[str, int]]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        raise TypeError(f"partition must be a mapping, not {type(value).__name__}")
    rows = []
    for text, count in value.items():
        if not isinstance(text, str):
            raise TypeError(f"a name in partition must be a str, not {type(text).__name__}")
        number = integer(count, f"partition[{text!r}]")
        if number < 1:
            raise ValueError(f"partition[{text!r}] must be at least 1, not {number}")
        rows.append((text, number))
    return rows


def _updates(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"update must be a mapping, not {type(value).__name__}")
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"a name in update must be a str, not {type(name).__name__}")
    return dict(value)


class _CastOption:
    """The argument ``cast``: the new type of a tensor by its name, else by its type."""

    def __init__(self, value: Any) -> None:
        self.problems: list[str] = []
        self._unused: dict[str, None] = {}
        self._by_type: dict[str, str] = {}
        names: list[tuple[str, str]] = []
        if value is not None and not isinstance(value, Mapping):
            value = dict.fromkeys(("float64", "float32", "float16", "bfloat16"), value)
            is_default = True
        else:
            is_default = False
        for source, target in (value or {}).items():
            found = casts.dtype_of(target)
            if found is None:
                problem = f"cast to {target!r}: TensorFlow has no such type"
                if problem not in self.problems:
                    self.problems.append(problem)
                continue
            by_type = casts.dtype_of(source)
            if by_type is not None:
                self._by_type[by_type[0]] = found[0]
                if not is_default:
                    self._unused[by_type[0]] = None
            elif isinstance(source, str):
                names.append((source, found[0]))
            else:
                raise TypeError(f"cast must map types or names to types, not {source!r}")
        self.patterns = Patterns("cast", names)

    def target(self, names: Sequence[str], stored_dtype: str) -> str:
        """Returns the new type of a tensor, which may be its own."""
        self._unused.pop(stored_dtype, None)
        found = self.patterns.find(names)
        return found[0] if found else self._by_type.get(stored_dtype, stored_dtype)

    @property
    def unused_types(self) -> list[str]:
        """The types that no tensor has."""
        return list(self._unused)


@dataclass
class _Planner:
    """One call of ``plan_edit``."""

    checkpoint: Checkpoint
    keep: Selection | None
    drop: Selection | None
    slots: bool
    rename: Renaming
    cast: _CastOption
    transpose: Patterns[Any]
    partition: Patterns[int]
    merge: bool
    update: dict[str, Any]
    rules: list[Rule]
    flatten: bool
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def plan(self) -> EditPlan:
        """Applies all options to all tensors."""
        self.full = self.checkpoint._read_full_names()
        self.problems += self.cast.problems
        source = self._tensors_in_file_order()
        slots = set() if self.slots else optimizer_slots.find_slots(self.checkpoint)
        planned: list[PlannedTensor] = []
        dropped = []
        graph = None
        full_names: dict[str, str] = {}
        for tensor in source:
            names = Names.of(tensor.name, self.full.by_key.get(tensor.name))
            rule = self._rule_for(names)
            is_graph = tensor.name == OBJECT_GRAPH
            if self._drops(names, rule, slots, is_graph):
                dropped.append(tensor.name)
            elif is_graph:
                graph = self._read_graph()
            else:
                planned.append(self._plan_tensor(tensor, names, rule, full_names))
        if graph is None:
            full_names.clear()
        for old, new in full_names.items():
            self._check_encoding(new, old)
        self._apply_updates(planned, graph)
        self._find_collisions(planned)
        if source and not planned and graph is None:
            self.problems.append("no tensor is left")
        self._warn_of_unused()
        if self.problems:
            raise EditError(self.checkpoint.path, self.problems)
        return EditPlan(
            path=self.checkpoint.path,
            tensors=tuple(planned),
            dropped=tuple(sorted(dropped)),
            renamed={
                tensor.source_name: tensor.name
                for tensor in planned
                if tensor.source_name is not None and tensor.name != tensor.source_name
            },
            cast={
                tensor.name: (tensor.source.stored_dtype, tensor.stored_dtype)
                for tensor in planned
                if isinstance(tensor.source, Tensor)
                and tensor.source.stored_dtype != tensor.stored_dtype
            },
            warnings=tuple(self.warnings),
            graph=graph,
            renamed_full_names=full_names,
        )

    def _tensors_in_file_order(self) -> list[Tensor]:
        def position(tensor: Tensor) -> tuple[str, int]:
            return min(((part.file, part.file_offset) for part in tensor.slices), default=("", 0))

        return sorted(self.checkpoint.values(), key=position)

    def _rule_for(self, names: Names) -> Rule | None:
        for rule in self.rules:
            if any(rule.match.fullmatch(name) for name in names.all):
                rule.used = True
                return rule
        return None

    def _drops(self, names: Names, rule: Rule | None, slots: set[str], is_graph: bool) -> bool:
        """Returns whether a tensor is left out. Evaluates all patterns, to know which are used."""
        is_kept = self.keep is None or self.keep.selects(names.all)
        is_dropped = self.drop is not None and self.drop.selects(names.all)
        if is_graph:
            return self.flatten or is_dropped
        return not is_kept or is_dropped or names.key in slots or (rule is not None and rule.drop)

    def _read_graph(self) -> bytes | None:
        if self.full.error is not None:
            self.problems.append(
                f"{self.full.error}; drop {OBJECT_GRAPH!r}, or write full names (flatten)"
            )
            return None
        if not hasattr(self.checkpoint, "_read_graph"):  # a file in another format
            self.problems.append(
                f"{OBJECT_GRAPH!r} is the name of object graphs, which only checkpoints have: "
                "drop it"
            )
            return None
        return self.checkpoint._read_graph()

    def _plan_tensor(
        self, tensor: Tensor, names: Names, rule: Rule | None, full_names: dict[str, str]
    ) -> PlannedTensor:
        name = self._name(names, rule, full_names)
        stored_dtype = self._stored_dtype(tensor, names, rule)
        permutation = self._permutation(tensor, names, rule)
        shape = (
            tensor.shape
            if permutation is None
            else tuple(tensor.shape[axis] for axis in permutation)
        )
        stored: tuple[Box, ...] = tuple((part.offset, part.shape) for part in tensor.slices)
        slices = self._slices(
            names,
            rule,
            shape,
            transposed(stored, permutation),
            (tensor.stored_dtype, stored_dtype),
        )
        is_unchanged = (
            stored_dtype == tensor.stored_dtype and permutation is None and slices == stored
        )
        error = None if is_unchanged else tensor.error
        if error is not None:
            self.problems.append(f"{tensor.name!r} cannot be read, only copied unchanged: {error}")
        if not is_unchanged and tensor.stored_dtype == "variant":
            self.problems.append(
                f"{tensor.name!r} is a variant, which can only be copied unchanged"
            )
        return PlannedTensor(
            name=name,
            source=tensor,
            source_name=tensor.name,
            dtype=(
                tensor.dtype if stored_dtype == tensor.stored_dtype else casts.BY_NAME[stored_dtype]
            ),
            stored_dtype=stored_dtype,
            shape=shape,
            permutation=permutation,
            slices=slices,
            is_unchanged=is_unchanged,
        )

    def _name(self, names: Names, rule: Rule | None, full_names: dict[str, str]) -> str:
        """Returns the new name of a tensor, and records that of its full name."""
        try:
            if self.flatten:
                return self.rename.flat_name(names, rule)
            key, full = self.rename.key_and_full_name(names, rule)
        except (TypeError, re.error, IndexError) as error:
            self.problems.append(f"{names.key!r} cannot be renamed: {error}")
            return names.key
        if names.full is not None and full is not None and full != names.full:
            full_names[names.full] = full
        return key

    def _stored_dtype(self, tensor: Tensor, names: Names, rule: Rule | None) -> str:
        target = self.cast.target(names.all, tensor.stored_dtype)
        if rule is not None and rule.cast is not None:
            found = casts.dtype_of(rule.cast)
            if found is None:
                self._problem_once(f"{rule.place}: TensorFlow has no type {rule.cast!r}")
                return tensor.stored_dtype
            target = found[0]
        if target == tensor.stored_dtype:
            return target
        obstacle = casts.obstacle(tensor.stored_dtype, target)
        is_checked = not obstacle and casts.depends_on_values(tensor.stored_dtype, target)
        if is_checked and tensor.error is None:
            values = [np.asarray(tensor)] if not tensor.shape else (a for _, a in tensor.chunks())
            obstacle = casts.check_values(values, tensor.stored_dtype, target)
        if obstacle is not None:
            self.problems.append(
                f"{tensor.name!r} cannot be cast from {tensor.stored_dtype} to {target}: {obstacle}"
            )
            return tensor.stored_dtype
        return target

    def _permutation(
        self, tensor: Tensor, names: Names, rule: Rule | None
    ) -> tuple[int, ...] | None:
        found = self.transpose.find(names.all)
        value = found[0] if found else None
        if rule is not None and rule.transpose is not None:
            value = rule.transpose
        if value is None or value is False:
            return None
        axes = tuple(range(tensor.ndim))
        if value is True:
            permutation = axes[::-1]
        else:
            numbers = [operator.index(axis) for axis in value]
            permutation = tuple(axis + tensor.ndim if axis < 0 else axis for axis in numbers)
        if tuple(sorted(permutation)) != axes:
            self.problems.append(
                f"{tensor.name!r} of shape {tensor.shape} cannot be transposed by {tuple(value)}: "
                f"a permutation of {len(axes)} axes is needed"
            )
            return None
        return None if permutation == axes else permutation

    def _slices(
        self,
        names: Names,
        rule: Rule | None,
        shape: tuple[int, ...],
        stored: tuple[Box, ...],
        types: tuple[str, str],
    ) -> tuple[Box, ...]:
        """Returns the slices of a tensor whose stored slices have been transposed.

        `types` are the types in the source and in the result.
        """
        found = self.partition.find(names.all)
        count = found[0] if found else None
        if rule is not None and rule.split is not None:
            count = rule.split
        is_readable = types[1] in SLICEABLE
        if count is None:
            merges = self.merge or not (is_readable or types[0] == types[1])
            return (whole(shape),) if merges else stored
        slices = self._partitioned(names.key, shape, count, types[1])
        return stored if slices is None else slices

    def _partitioned(
        self, name: str, shape: tuple[int, ...], count: int, stored_dtype: str
    ) -> tuple[Box, ...] | None:
        """Returns the slices of a tensor that ``partition`` names, or None after a problem."""
        if not shape:
            self.problems.append(f"{name!r} is a scalar and cannot be partitioned")
            return None
        slices = row_slices(shape, count)
        if len(slices) > 1 and stored_dtype not in SLICEABLE:
            self.problems.append(
                f"{name!r} cannot be partitioned: TensorFlow reads no slices of type {stored_dtype}"
            )
            return None
        return slices

    def _apply_updates(self, planned: list[PlannedTensor], graph: bytes | None) -> None:
        positions = {tensor.name: number for number, tensor in enumerate(planned)}
        for name, value in self.update.items():
            position = positions.get(name)
            if position is None:
                position = self._position_of_alias(name, planned)
            replaced = None if position is None else planned[position]
            new = self._updated(name if replaced is None else replaced.name, value, replaced)
            if new is None:
                continue
            if position is None:
                planned.append(new)
                if graph is not None:
                    self.warnings.append(
                        f"update adds {name!r}, which is not in the object graph: "
                        "tf.train.Checkpoint.restore will not find it"
                    )
            else:
                planned[position] = new

    def _position_of_alias(self, name: str, planned: list[PlannedTensor]) -> int | None:
        """Returns the position of the tensor with that path or full name in an object graph."""
        if self.flatten:
            return None
        keys = set(self.full.keys.get(name, ()))
        found = [
            number
            for number, tensor in enumerate(planned)
            if tensor.name == name + VALUE_SUFFIX or tensor.source_name in keys
        ]
        return found[0] if len(found) == 1 else None

    def _updated(
        self, name: str, value: Any, replaced: PlannedTensor | None
    ) -> PlannedTensor | None:
        """Returns the tensor of a value that the caller passed."""
        source: Tensor | np.ndarray[Any, Any] | bytes
        is_number = replaced is not None and replaced.dtype != object
        if isinstance(value, Tensor) or (isinstance(value, bytes) and not is_number):
            source = value
        else:
            found = _as_array(value, replaced)
            if isinstance(found, str):
                self.problems.append(f"update[{name!r}] cannot be stored: {found}")
                return None
            source = found
        shape = () if isinstance(source, bytes) else source.shape
        if isinstance(source, Tensor):
            dtype, stored_dtype = source.dtype, source.stored_dtype
            slices: tuple[Box, ...] = tuple((part.offset, part.shape) for part in source.slices)
        else:
            dtype = np.dtype(object) if isinstance(source, bytes) else source.dtype
            stored_dtype = casts.stored_name(dtype)
            slices = (whole(shape),)
            if replaced is not None and replaced.dtype == dtype:
                stored_dtype = replaced.stored_dtype  # perhaps a quantized type
        count = self.partition.find([name])
        if count:
            slices = self._partitioned(name, shape, count[0], stored_dtype) or slices
        elif self.merge:
            slices = (whole(shape),)
        if replaced is not None and replaced.stored_dtype != stored_dtype:
            self.warnings.append(
                f"update replaces {name!r} of type {replaced.stored_dtype} by {stored_dtype}"
            )
        return PlannedTensor(
            name=name,
            source=source,
            source_name=None if replaced is None else replaced.source_name,
            dtype=dtype,
            stored_dtype=stored_dtype,
            shape=shape,
            permutation=None,
            slices=slices,
            is_unchanged=isinstance(source, Tensor) and not count and not self.merge,
        )

    def _find_collisions(self, planned: list[PlannedTensor]) -> None:
        sources: dict[str, list[str]] = {}
        for tensor in planned:
            sources.setdefault(tensor.name, []).append(
                "update" if tensor.source_name is None else tensor.source_name
            )
        for name, keys in sources.items():
            self._check_encoding(name, keys[0])
            if not name:
                self.problems.append(f"{keys[0]!r} would get an empty name")
            elif name == OBJECT_GRAPH:
                self.problems.append(f"{keys[0]!r} would get the name of the object graph")
            elif len(keys) > 1:
                first = ", ".join(map(repr, keys[:5])) + ", ..." * (len(keys) > 5)
                self.problems.append(f"{len(keys)} tensors would be named {name!r}: {first}")

    def _check_encoding(self, name: str, old: str) -> None:
        try:
            naming.as_bytes(name)
        except UnicodeEncodeError:
            self._problem_once(f"{old!r} would get the name {name!r}, which has no UTF-8 encoding")

    def _problem_once(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def _warn_of_unused(self) -> None:
        """Reports names that are absent, and patterns and rules that match nothing."""
        options: list[Patterns[Any] | None] = [
            None if self.keep is None else self.keep.patterns,
            None if self.drop is None else self.drop.patterns,
            self.cast.patterns,
            self.transpose,
            self.partition,
        ]
        unused = [
            (each.option, glob) for each in options if each is not None for glob in each.unused
        ]
        unused += [("rename", Glob(name)) for name in self.rename.absent]
        for option, glob in unused:
            if self._exists(glob):
                self.warnings.append(
                    f"{option}: {glob.text!r} matches only tensors that are dropped"
                )
            elif glob.is_literal and option == "cast":
                self.problems.append(
                    f"cast: there is no type and no tensor {self._absent(glob.text)}"
                )
            elif glob.is_literal or option == "rename":
                self.problems.append(f"{option}: there is no tensor {self._absent(glob.text)}")
            else:
                self.warnings.append(f"{option}: no tensor matches {self._absent(glob.text)}")
        for pattern in self.rename.unused:
            self.warnings.append(f"rename: no name matches {self._absent(pattern)}")
        for stored_dtype in self.cast.unused_types:
            self.warnings.append(f"cast: no tensor has the type {stored_dtype}")
        for rule in self.rules:
            if not rule.used:
                self.warnings.append(
                    f"{rule.place}: no other tensor matches {self._absent(rule.match.pattern)}"
                )

    def _exists(self, glob: Glob) -> bool:
        """Returns whether a pattern matches a tensor of the source, or its full name."""
        by_key = self.full.by_key
        return any(glob.matches(Names.of(key, by_key.get(key)).all) for key in self.checkpoint)

    def _absent(self, name: str) -> str:
        """Returns an absent name or pattern, with the nearest names."""
        candidates = [*self.checkpoint, *self.full.keys]
        near = naming.nearest(re.sub(r"[\\^$*+?()\[\]{}|]", "", name), candidates)
        text = repr(name)
        return f"{text}; the nearest names are {', '.join(map(repr, near))}" if near else text


def _as_array(value: Any, replaced: PlannedTensor | None) -> np.ndarray[Any, Any] | str:
    """Converts a caller's value to an array that can be stored, or returns why that fails."""
    try:
        if isinstance(value, np.ma.MaskedArray):
            return "masked arrays have elements without a value"
        if isinstance(value, (np.ndarray, np.generic)):
            array = np.asarray(value)
        elif replaced is not None and replaced.dtype != object:
            return _as_numbers(value, replaced)  # numbers and lists have no type of their own
        elif isinstance(value, str):
            array = np.array(value, object)
        else:
            array = np.asarray(value, None if replaced is None else object)
        if array.dtype.kind in "SU":
            array = array.astype(object)
        if array.dtype == object:
            return _encoded_strings(array)
    except (TypeError, ValueError, OverflowError) as error:
        return str(error)
    if casts.dtype_of(array.dtype) is None:
        return f"TensorFlow has no type {array.dtype}"
    return array


def _as_numbers(value: Any, replaced: PlannedTensor) -> np.ndarray[Any, Any] | str:
    """Converts numbers to the type of the tensor that they replace, or returns why that fails."""
    array = np.asarray(value)
    if array.dtype == object or casts.dtype_of(array.dtype) is None:
        # Integers that no type of NumPy has are objects.
        for element in array.flat:
            if not isinstance(element, int):
                return f"{element!r:.100} is not a number of type {replaced.stored_dtype}"
    return casts.stored_as(array, replaced.dtype.name)


def _encoded_strings(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | str:
    result = np.empty(array.shape, object)
    for index, element in np.ndenumerate(array):
        if isinstance(element, str):
            element = element.encode("utf-8", "surrogateescape")
        if not isinstance(element, bytes):
            return f"an element is a {type(element).__name__}, not bytes or str"
        result[index] = element
    return result
