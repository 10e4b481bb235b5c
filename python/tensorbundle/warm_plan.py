# SPDX-License-Identifier: Apache-2.0
"""Plans for warm starts, computed from names and shapes.

The rules are those of ``tf.compat.v1.train.warm_start``: which variables form a group, which tensor
fills it, whether it is remapped by a vocabulary, and the remap of each partition. This module does
not read tensors or vocabularies, and does not import TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tensorbundle.errors import Error, ShapeMismatchError, TensorNotFoundError
from tensorbundle.load_plan import Problem, Stored, can_cast, shape_text
from tensorbundle.variables import Variable, type_mismatch_error
from tensorbundle.vocab import VocabInfo, check_vocab_info

__all__ = [
    "Group",
    "Load",
    "Plan",
    "Remap",
    "VocabInfo",
    "compare_table",
    "find_keys",
    "log_messages",
    "plan_warm_start",
    "select_variables",
]

Shape = tuple[int, ...]

_INT32_MAX = 2**31 - 1


class PartitionRemap(NamedTuple):
    """The remap of one partition.

    Attributes:
        axis: The axis that the vocabulary indexes.
        shape: The partition's shape.
        remapped_shape: The shape of the remap's result: `shape`, but with all columns if the
            partition has only some.
        window_offset: The offset of the partition in `remapped_shape`.
        offset: The first row: in the vocabulary (axis 0) or in the table (axis 1).
        num_rows: The number of rows, without out-of-vocabulary rows.
        num_cols: The number of columns from the vocabulary; -1 for axis 0.
        num_oov: The number of out-of-vocabulary rows (axis 0) or columns (axis 1) at the end.
        is_all_oov: Whether all rows are out-of-vocabulary, so the table is not read.
    """

    axis: int
    shape: Shape
    remapped_shape: Shape
    window_offset: Shape
    offset: int
    num_rows: int
    num_cols: int
    num_oov: int
    is_all_oov: bool

    @property
    def is_window(self) -> bool:
        """Whether the partition has only some of the columns."""
        return self.remapped_shape != self.shape

    @property
    def first_entry(self) -> int:
        """The first entry of the new vocabulary in this partition."""
        return self.offset if self.axis == 0 else 0

    @property
    def num_entries(self) -> int:
        """The number of entries of the new vocabulary in this partition."""
        return self.num_rows if self.axis == 0 else self.num_cols

    @property
    def cells_per_entry(self) -> int:
        """The number of missing cells per entry that is not in the old vocabulary."""
        if self.axis == 0:
            return math.prod(self.remapped_shape[1:])
        return self.num_rows * math.prod(self.remapped_shape[2:])

    @property
    def counts_in_int32(self) -> bool:
        """Whether the number of missing cells fits into int32, which TensorFlow uses for it."""
        return self.num_entries * self.cells_per_entry <= _INT32_MAX

    @property
    def oov_shape(self) -> Shape:
        """The shape of the block of out-of-vocabulary rows (axis 0) or columns (axis 1)."""
        if self.axis == 0:
            return (self.num_oov, *self.remapped_shape[1:])
        return (self.num_rows, self.num_oov, *self.remapped_shape[2:])


def plan_partitions(
    name: str, partitions: Sequence[Variable], *, axis: int, new_size: int, num_oov: int
) -> tuple[PartitionRemap, ...]:
    """Plans the remap of every partition of a variable.

    Args:
        name: The variable's name, for messages.
        partitions: All partitions, or the selected ones.
        axis: The axis that the vocabulary indexes.
        new_size: The number of entries of the new vocabulary in use.
        num_oov: The number of out-of-vocabulary buckets after the entries.

    Raises:
        ShapeMismatchError: A shape is unknown, does not have the axis, or does not match the sizes.
    """
    return tuple(
        _plan_partition(name, partition, axis, new_size, num_oov) for partition in partitions
    )


def _plan_partition(
    name: str, partition: Variable, axis: int, new_size: int, num_oov: int
) -> PartitionRemap:
    shape = _known_shape(name, partition, axis)
    whole = shape if partition.slice is None else partition.slice.full_shape
    offsets = (0,) * len(shape) if partition.slice is None else partition.slice.offset
    remapped_shape = (shape[0], *whole[1:])
    if axis == 0:
        rows, oov_rows = new_size, num_oov
    else:
        rows, oov_rows = whole[0], 0
        _check_width(name, whole, new_size, num_oov)
    offset = offsets[0]
    if offset + shape[0] > rows + oov_rows:
        raise ShapeMismatchError(
            f"{name!r}: Trying to initialize {shape[0]} additional rows after {offset} rows have "
            "already been initialized, which would exceed expected total row count of "
            f"new_row_vocab_size ({rows}) + num_row_oov_buckets ({oov_rows}) = {rows + oov_rows}."
        )
    num_oov_rows = min(shape[0], max(0, offset + shape[0] - rows))
    return PartitionRemap(
        axis=axis,
        shape=shape,
        remapped_shape=remapped_shape,
        window_offset=(0, *offsets[1:]),
        offset=offset,
        num_rows=shape[0] - num_oov_rows,
        num_cols=-1 if axis == 0 else new_size,
        num_oov=num_oov_rows if axis == 0 else num_oov,
        # For offset == rows, TensorFlow uses the ordinary path with zero rows.
        is_all_oov=offset > rows,
    )


def _known_shape(name: str, partition: Variable, axis: int) -> Shape:
    if partition.shape is None:
        raise ShapeMismatchError(f"{name!r}: a variable of unknown rank cannot be remapped")
    shape = tuple(size for size in partition.shape if size is not None)
    if len(shape) != len(partition.shape):
        raise ShapeMismatchError(
            f"{name!r}: expected a known shape, but received: {list(partition.shape)}"
        )
    if len(shape) <= axis:
        raise ShapeMismatchError(
            f"{name!r}: Expected {axis + 1}-dim shape or more for a vocabulary on axis {axis}, but "
            f"received: {list(shape)}"
        )
    if shape[0] <= 0:
        raise ShapeMismatchError(
            f"{name!r}: Expected 1st dim of shape to be > 0, but received shape: {list(shape)}"
        )
    return shape


def _check_width(name: str, whole: Shape, new_size: int, num_oov: int) -> None:
    if whole[1] != new_size + num_oov:
        raise ShapeMismatchError(
            f"{name!r}: Expected 2nd dim of shape to be new_col_vocab_size ({new_size}) + "
            f"num_col_oov_buckets ({num_oov}) = {new_size + num_oov}, but received shape: "
            f"{list(whole)}"
        )


class Group(NamedTuple):
    """The variable, or the partitions of a variable, that one stored tensor fills.

    Attributes:
        partitions: The partitions in the order of selection.
        trainable: Whether the variable is trainable, and thus not a slot of another variable.
        given: The objects that the caller selected.
    """

    partitions: tuple[Variable, ...]
    trainable: bool = True
    given: Sequence[Any] = ()


class Remap(NamedTuple):
    """A group that is remapped by a vocabulary.

    Attributes:
        group: The group's name.
        tensor: The stored tensor's name.
        renamed: The stored tensor's name if the caller specified it, else None.
        info: The vocabularies.
        partitions: The remap of each partition, in the group's order.
        slot_of: The table of which this group is an optimizer slot, or None. Missing rows of a slot
            keep their own initial values.
    """

    group: str
    tensor: str
    renamed: str | None
    info: Any
    partitions: tuple[PartitionRemap, ...]
    slot_of: str | None = None

    @property
    def wanted(self) -> int:
        """The number of entries of the new vocabulary, from the first, that the group needs."""
        # A partition of out-of-vocabulary rows needs no entries; its offset may be out of bounds.
        remapped = [partition for partition in self.partitions if not partition.is_all_oov]
        return max(
            (partition.first_entry + partition.num_entries for partition in remapped), default=0
        )


class Load(NamedTuple):
    """A group that is loaded without a remap.

    Attributes:
        group: The group's name.
        tensor: The stored tensor's name.
        renamed: The stored tensor's name if the caller specified it, else None.
        repeats: An earlier group with the same tensor, which must be loaded first, because
            TensorFlow's map from tensors to variables has one entry per tensor.
    """

    group: str
    tensor: str
    renamed: str | None
    repeats: str | None = None


class Plan(NamedTuple):
    """The steps of a warm start and the problems of its settings.

    Attributes:
        steps: The steps in TensorFlow's order, without groups that have a problem.
        groups: The names of all selected groups.
        problems: The problems of groups.
        unused: The problems of settings for variables that were not selected, which TensorFlow
            raises last.
    """

    steps: tuple[Remap | Load, ...]
    groups: tuple[str, ...]
    problems: tuple[Problem, ...]
    unused: tuple[Problem, ...]


def select_variables(
    wanted: Any, collection: Callable[[str, str | None], list[Any]], is_variable: Any
) -> tuple[list[Any], bool]:
    """Selects the variables of ``vars_to_warm_start``.

    Args:
        wanted: A regular expression, None, a list of regular expressions, or a list of variables.
        collection: Returns the variables of a graph's collection, for a key and a regular
            expression.
        is_variable: Returns whether an object is a variable.

    Returns:
        The variables, and whether they come from the trainable collection. A variable that matches
        two expressions is listed twice.

    Raises:
        ValueError: `wanted` has another type.
    """
    if wanted is None or isinstance(wanted, str):
        return collection("trainable_variables", wanted), True
    if not isinstance(wanted, list):
        raise ValueError(
            f"`vars_to_warm_start` must be a `list` or `str`.  Given type is {type(wanted)}"
        )
    if all(isinstance(each, str) for each in wanted):
        return [found for each in wanted for found in collection("variables", each)], False
    if all(is_variable(each) for each in wanted):
        return list(wanted), False
    raise ValueError(
        "If `vars_to_warm_start` is a list, it must be all `Variable` or all `str`.  Given types "
        f"are {[type(each) for each in wanted]}"
    )


def find_keys(
    find: Callable[[str], Stored | None], groups: Iterable[str], *, skip: bool
) -> tuple[dict[str, str], list[Problem]]:
    """Finds the keys of groups in an object-based checkpoint.

    Args:
        find: Returns the tensor of a name, or None. May raise an ``Error``.
        groups: The groups' names.
        skip: Whether to ignore groups that are not in the checkpoint.

    Returns:
        Keys by group, and the problems.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    missing: set[str] = set()
    for name in groups:
        try:
            stored = find(name)
        except Error as error:
            problems.append(Problem.from_error(error))
            continue
        if stored is None:
            missing.add(name)
        else:
            found[name] = stored.key
    if missing and not skip:
        missing_error = ValueError(
            "Attempting to warm-start from an object-based checkpoint, but found that the "
            "checkpoint did not contain values for all variables. The following variables were "
            f"missing: {missing}"
        )
        problems.append(Problem("missing", lambda: missing_error))
    return found, problems


def plan_warm_start(
    groups: Mapping[str, Group],
    infos: Mapping[str, Any],
    names: Mapping[str, str],
    *,
    load_others: bool,
    stored: Callable[[str], Shape | None],
) -> Plan:
    """Plans the steps of a warm start.

    Does not raise: errors of a group are the plan's problems.

    Args:
        groups: The groups by the whole variable's name, in the order of selection.
        infos: Vocabularies by group: objects with `VocabInfo`'s fields. False values are ignored.
        names: Stored names by group. False values are ignored.
        load_others: Whether groups without a vocabulary are loaded as well.
        stored: Returns the shape of a stored tensor, or None. Called only for tables with a
            vocabulary and for tensors that may be their optimizer slots.
    """
    planner = _Planner(groups, infos, names, stored)
    for name, group in groups.items():
        try:
            planner.add(name, group, load_others)
        except (ValueError, TypeError, AttributeError) as error:
            planner.problems.append(Problem.from_error(error))
    return Plan(
        tuple(planner.steps), tuple(groups), tuple(planner.problems), tuple(planner.unused())
    )


class _Planner:
    """Accumulates the steps and problems of a plan."""

    def __init__(
        self,
        groups: Mapping[str, Group],
        infos: Mapping[str, Any],
        names: Mapping[str, str],
        stored: Callable[[str], Shape | None],
    ) -> None:
        self.steps: list[Remap | Load] = []
        self.problems: list[Problem] = []
        self._groups = groups
        self._infos = infos
        self._names = names
        self._stored = stored
        self._pending: dict[str, str] = {}

    def add(self, name: str, group: Group, load_others: bool) -> None:
        renamed = self._names.get(name) or None
        tensor = renamed or name
        info = self._infos.get(name)
        if info:
            if renamed is None:
                _check_one_variable(name, group)
            self.steps.append(Remap(name, tensor, renamed, info, _partitions(name, group, info)))
        elif load_others:
            _check_one_variable(name, group)
            table = _table_of_slot(
                name, group, self._groups, self._infos, self._names, self._stored
            )
            if table is not None:
                partitions = _partitions(name, group, self._infos[table])
                self.steps.append(
                    Remap(name, tensor, renamed, self._infos[table], partitions, table)
                )
                return
            repeats = self._pending.get(tensor)
            if repeats is not None:
                self._pending.clear()
            self._pending[tensor] = name
            self.steps.append(Load(name, tensor, renamed, repeats))

    def unused(self) -> Iterator[Problem]:
        """Yields the problems of settings for variables that were not selected, names first."""
        for settings, setting in (
            (self._names, "var_name_to_prev_var_name"),
            (self._infos, "var_name_to_vocab_info"),
        ):
            unused = settings.keys() - {name for name in self._groups if settings.get(name)}
            if unused:
                yield Problem.from_error(
                    ValueError(
                        f"You provided the following variables in {setting} that were not used: "
                        f"{set(unused)}.  Perhaps you misspelled them?  Here is the list of viable "
                        f"variable names: {list(self._groups)}{_output_hint(unused)}"
                    )
                )


def _output_hint(unused: Iterable[str]) -> str:
    outputs = sorted(name for name in unused if str(name).endswith(":0"))
    return f". Remove ':0': {', '.join(repr(name[:-2]) for name in outputs)}" if outputs else ""


def compare_table(
    step: Remap, variables: Sequence[Variable], stored: Stored | None, label: str, cast: bool
) -> Problem | None:
    """Compares a stored table with the variables that are remapped from it; None if they match.

    Args:
        step: The remap.
        variables: The partitions, in the order of the step's partitions.
        stored: The table; None if the checkpoint does not have it.
        label: The checkpoint's name in messages.
        cast: Whether values are converted between float types.
    """
    if stored is None:
        return Problem(
            "missing",
            lambda: TensorNotFoundError(
                f"Key {step.tensor} not found in checkpoint {label}: it is the old table of the "
                f"remapped variable {step.group!r}"
            ),
        )
    mismatch = next(
        (partition for partition in step.partitions if not _is_remappable(partition, stored.shape)),
        None,
    )
    if mismatch is not None:
        return Problem("shape", lambda: _table_mismatch_error(step, mismatch, stored, label))
    have, expect = stored.dtype, variables[0].dtype
    if have == expect or have is None or expect is None or (cast and can_cast(have, expect)):
        return None
    return Problem("dtype", lambda: type_mismatch_error(variables[0], stored, step.tensor))


def _is_remappable(partition: PartitionRemap, table: Shape) -> bool:
    """Returns whether a partition can be remapped from a table with some vocabularies."""
    first_kept = partition.axis + 1
    if (
        len(table) != len(partition.remapped_shape)
        or table[first_kept:] != partition.remapped_shape[first_kept:]
    ):
        return False
    return partition.axis == 0 or partition.offset + partition.num_rows <= table[0]


def _table_mismatch_error(
    step: Remap, partition: PartitionRemap, stored: Stored, label: str
) -> ShapeMismatchError:
    return ShapeMismatchError(
        f"Shape of variable {step.group} doesn't match with shape of tensor {step.tensor} "
        f"({shape_text(stored.shape)}) from checkpoint reader of {label}: a vocabulary on axis "
        f"{partition.axis} cannot remap it to the shape {shape_text(partition.remapped_shape)}"
    )


def _partitions(name: str, group: Group, info: Any) -> tuple[PartitionRemap, ...]:
    check_vocab_info(info)
    return plan_partitions(
        name,
        group.partitions,
        axis=int(info.axis),
        new_size=info.new_vocab_size,
        num_oov=info.num_oov_buckets,
    )


def _check_one_variable(name: str, group: Group) -> None:
    """Raises ValueError if a group has two variables of the same name."""
    slices = sum(partition.slice is not None for partition in group.partitions)
    if len(group.partitions) > 1 and slices == 0:
        raise ValueError(f"At least two variables have the same name: {name}")
    if 0 < slices < len(group.partitions):
        raise ValueError(f"Mixing slices and non-slices with the same name: {name}")


def _table_of_slot(
    name: str,
    group: Group,
    groups: Mapping[str, Group],
    infos: Mapping[str, Any],
    names: Mapping[str, str],
    stored: Callable[[str], Shape | None],
) -> str | None:
    """Returns the remapped table of which a group is an optimizer slot, or None.

    A slot has the name ``<table>/<Slot>``, is not trainable, and has the shape of its table, both
    in the model and in the checkpoint, so the same vocabulary indexes its rows.
    """
    table, slash, _ = name.rpartition("/")
    if not slash or group.trainable or not infos.get(table) or table not in groups:
        return None
    shapes = {partition.full_shape for partition in (*group.partitions, *groups[table].partitions)}
    if len(shapes) != 1 or None in shapes:
        return None
    slot_shape = stored(names.get(name) or name)
    return table if slot_shape and slot_shape == stored(names.get(table) or table) else None


def log_messages(step: Remap | Load) -> Iterator[str]:
    """Yields the lines that TensorFlow logs about a group before it loads it."""
    renamed = step.renamed or "Unchanged"
    if isinstance(step, Load) or step.slot_of is not None:
        yield f"Warm-starting variable: {step.group}; prev_var_name: {renamed}"
        return
    info = step.info
    size = info.old_vocab_size if info.old_vocab_size > 0 else "All"
    yield (
        f"Warm-starting variable: {step.group}; current_vocab: {info.new_vocab} "
        f"current_vocab_size: {info.new_vocab_size} prev_vocab: {info.old_vocab} "
        f"prev_vocab_size: {size} current_oov: {info.num_oov_buckets} prev_tensor: {renamed} "
        f"initializer: {info.backup_initializer or 'zero-initialized'}"
    )
