# SPDX-License-Identifier: Apache-2.0
"""What a warm start means, worked out from names and shapes alone.

TensorFlow's rules for ``tf.compat.v1.train.warm_start``: which variables make up a group, which
tensor fills it, whether a vocabulary stands between the two, and what that asks of each partition.
Nothing here reads tensors or vocabularies, and nothing knows TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tensorbundle.checkpoint import Checkpoint
from tensorbundle.errors import Error, ShapeMismatchError, TensorNotFoundError
from tensorbundle.load_plan import Problem, Stored, can_cast, shape_text
from tensorbundle.variables import Variable, other_type
from tensorbundle.vocab import VocabInfo, check_info

Shape = tuple[int, ...]

_INT32_MAX = 2**31 - 1


class PartitionRemap(NamedTuple):
    """One partition's share of a remap.

    Attributes:
        axis: The axis that the vocabulary numbers.
        shape: The partition's.
        remapped_shape: The shape that the remap produces: `shape`, but with all columns if the
            partition has only some.
        window_offset: Where the partition begins in `remapped_shape`.
        offset: The first row: in the vocabulary (axis 0), in the table (axis 1).
        num_rows: Rows from there on, without out-of-vocabulary rows.
        num_cols: Columns from the vocabulary; -1 for axis 0.
        num_oov: Out-of-vocabulary rows (axis 0) or columns (axis 1) behind them.
        is_all_oov: Whether all rows are out-of-vocabulary, so nothing comes from the table.
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
        """The first of the new vocabulary's entries that matter here."""
        return self.offset if self.axis == 0 else 0

    @property
    def num_entries(self) -> int:
        """How many entries of the new vocabulary matter here."""
        return self.num_rows if self.axis == 0 else self.num_cols

    @property
    def cells_per_entry(self) -> int:
        """Cells that are missing for each entry that the old vocabulary lacks."""
        if self.axis == 0:
            return math.prod(self.remapped_shape[1:])
        return self.num_rows * math.prod(self.remapped_shape[2:])

    @property
    def counts_in_int32(self) -> bool:
        """Whether the number of missing cells fits the type that TensorFlow counts them in."""
        return self.num_entries * self.cells_per_entry <= _INT32_MAX

    @property
    def oov_shape(self) -> Shape:
        """The block of out-of-vocabulary cells; axis 1: of all rows."""
        if self.axis == 0:
            return (self.num_oov, *self.remapped_shape[1:])
        return (self.num_rows, self.num_oov, *self.remapped_shape[2:])


def plan_partitions(
    name: str, partitions: Sequence[Variable], *, axis: int, new_size: int, num_oov: int
) -> tuple[PartitionRemap, ...]:
    """Works out the remap of every partition of a variable.

    Args:
        name: The variable's, for messages.
        partitions: All its partitions, or those that were selected.
        axis: Which axis the vocabulary numbers.
        new_size: How many entries of the new vocabulary count.
        num_oov: How many out-of-vocabulary buckets follow them.

    Raises:
        ShapeMismatchError: A shape is unknown, has no such axis, or does not suit the sizes.
    """
    return tuple(
        _plan_partition(name, partition, axis, new_size, num_oov) for partition in partitions
    )


def _plan_partition(
    name: str, partition: Variable, axis: int, new_size: int, num_oov: int
) -> PartitionRemap:
    shape = _known_shape(name, partition, axis)
    whole = shape if partition.slice is None else partition.slice.full_shape
    start = (0,) * len(shape) if partition.slice is None else partition.slice.offset
    remapped_shape = (shape[0], *whole[1:])
    if axis == 0:
        rows, oov_rows = new_size, num_oov
    else:
        rows, oov_rows = whole[0], 0
        _check_width(name, whole, new_size, num_oov)
    offset = start[0]
    if offset + shape[0] > rows + oov_rows:
        raise ShapeMismatchError(
            f"{name!r}: Trying to initialize {shape[0]} additional rows after {offset} rows have "
            "already been initialized, which would exceed expected total row count of "
            f"new_row_vocab_size ({rows}) + num_row_oov_buckets ({oov_rows}) = {rows + oov_rows}."
        )
    oov_here = min(shape[0], max(0, offset + shape[0] - rows))
    return PartitionRemap(
        axis=axis,
        shape=shape,
        remapped_shape=remapped_shape,
        window_offset=(0, *start[1:]),
        offset=offset,
        num_rows=shape[0] - oov_here,
        num_cols=-1 if axis == 0 else new_size,
        num_oov=oov_here if axis == 0 else num_oov,
        # TensorFlow goes the ordinary way, with no row, where a partition begins right behind them.
        is_all_oov=offset > rows,
    )


def _known_shape(name: str, partition: Variable, axis: int) -> Shape:
    if partition.shape is None:
        raise ShapeMismatchError(f"{name!r}: a variable of unknown rank cannot follow a vocabulary")
    shape = tuple(extent for extent in partition.shape if extent is not None)
    if len(shape) != len(partition.shape):
        raise ShapeMismatchError(
            f"{name!r}: expected a shape that is known, but received: {list(partition.shape)}"
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


__all__ = [
    "Group",
    "Load",
    "Plan",
    "Remap",
    "VocabInfo",
    "compare_table",
    "described",
    "is_object_based",
    "plan_warm_start",
    "renames",
    "selected",
]

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


class Group(NamedTuple):
    """The variables, or the partitions of one, that a single stored tensor fills.

    Attributes:
        partitions: In the order in which they were selected.
        trainable: Whether an optimizer changes it: then it is no slot of another variable.
    """

    partitions: tuple[Variable, ...]
    trainable: bool = True


class Remap(NamedTuple):
    """A group that is filled through a vocabulary.

    Attributes:
        group: Its name.
        tensor: The stored tensor's name.
        renamed: That name where it was given, else None.
        info: The vocabularies.
        partitions: What each partition takes, in the group's order.
        slot_of: The table whose optimizer slot this is. Its missing rows keep their own initial
            values.
    """

    group: str
    tensor: str
    renamed: str | None
    info: Any
    partitions: tuple[PartitionRemap, ...]
    slot_of: str | None = None

    @property
    def wanted(self) -> int:
        """How many entries of the new vocabulary any partition needs, from the first."""
        # What lies behind all entries needs none, and begins at none that there has to be.
        needed = [partition for partition in self.partitions if not partition.is_all_oov]
        return max(
            (partition.first_entry + partition.num_entries for partition in needed), default=0
        )


class Load(NamedTuple):
    """A group that is filled as it is stored.

    Attributes:
        repeats: The earlier group that takes the same tensor, and has to be dealt with first:
            TensorFlow's map from tensors to variables has room for one.
    """

    group: str
    tensor: str
    renamed: str | None
    repeats: str | None = None


class Plan(NamedTuple):
    """What a warm start does, in order, and what is wrong with its settings.

    Attributes:
        steps: In TensorFlow's order. Groups whose own settings are wrong have none.
        groups: All that were selected.
        problems: What is wrong with groups.
        unused: Settings for variables that were not selected: TensorFlow finds these last.
    """

    steps: tuple[Remap | Load, ...]
    groups: tuple[str, ...]
    problems: tuple[Problem, ...]
    unused: tuple[Problem, ...]


def selected(
    wanted: Any, collection: Callable[[str, str | None], list[Any]], is_variable: Any
) -> tuple[list[Any], bool]:
    """The variables that ``vars_to_warm_start`` stands for.

    Args:
        wanted: A regular expression, None, a list of regular expressions, or a list of variables.
        collection: ``(key, regular expression)`` to the variables of a graph's collection.
        is_variable: Whether an object is one.

    Returns:
        The variables, and whether they are those of the trainable collection. A variable that two
        expressions match is there twice.

    Raises:
        ValueError: None of these.
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


def is_object_based(checkpoint: Checkpoint) -> bool:
    """Whether variables go by the names of an object graph, and not by keys of their own.

    Raises:
        CorruptionError: The object graph is damaged.
    """
    graph = checkpoint.get(_OBJECT_GRAPH)
    if graph is None:
        return False
    graph.read()  # Says what is wrong with it, where its names would stay away.
    return True


def renames(
    find: Callable[[str], Stored | None], groups: Iterable[str], *, skip: bool
) -> tuple[dict[str, str], list[Problem]]:
    """The keys of groups in an object-based checkpoint.

    Args:
        find: The tensor that a name means, or None. It may raise an ``Error``.
        groups: The groups' names.
        skip: Whether groups that the checkpoint lacks are no problem.

    Returns:
        Keys by group, and what is wrong.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    missing: set[str] = set()
    for name in groups:
        try:
            stored = find(name)
        except Error as error:
            problems.append(_problem(error))
            continue
        if stored is None:
            missing.add(name)
        else:
            found[name] = stored.key
    if missing and not skip:
        absent = ValueError(
            "Attempting to warm-start from an object-based checkpoint, but found that the "
            "checkpoint did not contain values for all variables. The following variables were "
            f"missing: {missing}"
        )
        problems.append(Problem("missing", lambda: absent))
    return found, problems


def plan_warm_start(
    groups: Mapping[str, Group],
    infos: Mapping[str, Any],
    names: Mapping[str, str],
    *,
    load_others: bool,
    stored: Callable[[str], Shape | None],
) -> Plan:
    """Works out what each group is filled with.

    Args:
        groups: By the whole variable's name, in the order of selection.
        infos: Vocabularies by group; anything with `VocabInfo`'s fields. A false one is none.
        names: Stored names by group. A false one is none.
        load_others: Whether groups without a vocabulary are filled as well.
        stored: The shape of a stored tensor, None if there is none. Asked only about what may be an
            optimizer's slot of a table with a vocabulary, and about that table.

    Raises nothing: what is wrong with a group is among the plan's problems.
    """
    planner = _Planner(groups, infos, names, stored)
    for name, group in groups.items():
        try:
            planner.add(name, group, load_others)
        except (ValueError, TypeError, AttributeError) as error:
            planner.problems.append(_problem(error))
    return Plan(
        tuple(planner.steps), tuple(groups), tuple(planner.problems), tuple(planner.unused())
    )


class _Planner:
    """The steps so far."""

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
            table = _table_of(name, group, self._groups, self._infos, self._names, self._stored)
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
        """Settings for variables that were not selected; renamed ones come first."""
        for settings, setting in (
            (self._names, "var_name_to_prev_var_name"),
            (self._infos, "var_name_to_vocab_info"),
        ):
            unused = settings.keys() - {name for name in self._groups if settings.get(name)}
            if unused:
                yield _problem(
                    ValueError(
                        f"You provided the following variables in {setting} that were not used: "
                        f"{set(unused)}.  Perhaps you misspelled them?  Here is the list of viable "
                        f"variable names: {list(self._groups)}{_output_hint(unused)}"
                    )
                )


def _problem(error: Exception) -> Problem:
    return Problem("setting", lambda: error)


def _output_hint(unused: Iterable[str]) -> str:
    named = sorted(name for name in unused if str(name).endswith(":0"))
    return f". Take ':0' off: {', '.join(repr(name[:-2]) for name in named)}" if named else ""


def compare_table(
    step: Remap, variables: Sequence[Variable], stored: Stored | None, label: str, cast: bool
) -> Problem | None:
    """What is wrong with a stored table for the variables that are to follow a vocabulary.

    Args:
        step: What is to be done with them.
        variables: The partitions, in the order of the step's partitions.
        stored: The table; None where the checkpoint lacks it.
        label: What messages call the checkpoint.
        cast: Whether values are converted between float types.
    """
    if stored is None:
        return Problem(
            "missing",
            lambda: TensorNotFoundError(
                f"Key {step.tensor} not found in checkpoint {label}: variable {step.group!r} is to "
                "follow a vocabulary"
            ),
        )
    odd = next(
        (partition for partition in step.partitions if not _fits(partition, stored.shape)), None
    )
    if odd is not None:
        return Problem("shape", lambda: _other_table(step, odd, stored, label))
    have, want = stored.dtype, variables[0].dtype
    if have == want or have is None or want is None or (cast and can_cast(have, want)):
        return None
    return Problem("dtype", lambda: other_type(variables[0], stored, step.tensor))


def _fits(partition: PartitionRemap, table: Shape) -> bool:
    """Whether a partition can be made of a table, whatever the vocabularies say."""
    kept = partition.axis + 1
    if (
        len(table) != len(partition.remapped_shape)
        or table[kept:] != partition.remapped_shape[kept:]
    ):
        return False
    return partition.axis == 0 or partition.offset + partition.num_rows <= table[0]


def _other_table(
    step: Remap, partition: PartitionRemap, stored: Stored, label: str
) -> ShapeMismatchError:
    return ShapeMismatchError(
        f"Shape of variable {step.group} doesn't match with shape of tensor {step.tensor} "
        f"({shape_text(stored.shape)}) from checkpoint reader of {label}: no variable of shape "
        f"{shape_text(partition.remapped_shape)} can be made of it by another vocabulary on axis "
        f"{partition.axis}"
    )


def _partitions(name: str, group: Group, info: Any) -> tuple[PartitionRemap, ...]:
    check_info(info)
    return plan_partitions(
        name,
        group.partitions,
        axis=int(info.axis),
        new_size=info.new_vocab_size,
        num_oov=info.num_oov_buckets,
    )


def _check_one_variable(name: str, group: Group) -> None:
    """A group of several is one partitioned variable, not two of the same name."""
    slices = sum(partition.slice is not None for partition in group.partitions)
    if len(group.partitions) > 1 and slices == 0:
        raise ValueError(f"At least two variables have the same name: {name}")
    if 0 < slices < len(group.partitions):
        raise ValueError(f"Mixing slices and non-slices with the same name: {name}")


def _table_of(
    name: str,
    group: Group,
    groups: Mapping[str, Group],
    infos: Mapping[str, Any],
    names: Mapping[str, str],
    stored: Callable[[str], Shape | None],
) -> str | None:
    """The remapped table that a group is an optimizer's slot of, or None.

    A slot is called ``<table>/<Slot>``, is not trained itself, and has a row for every row of its
    table, in the model as in the checkpoint: then its rows are numbered by the same vocabulary.
    """
    table, slash, _ = name.rpartition("/")
    if not slash or group.trainable or not infos.get(table) or table not in groups:
        return None
    wholes = {partition.full_shape for partition in (*group.partitions, *groups[table].partitions)}
    if len(wholes) != 1 or None in wholes:
        return None
    of_slot = stored(names.get(name) or name)
    return table if of_slot and of_slot == stored(names.get(table) or table) else None


def described(step: Remap | Load) -> Iterator[str]:
    """The lines that TensorFlow logs about a group before it deals with it."""
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
