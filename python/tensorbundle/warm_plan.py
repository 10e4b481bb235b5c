# SPDX-License-Identifier: Apache-2.0
"""What a warm start means, worked out from names and shapes alone.

TensorFlow's rules for ``tf.compat.v1.train.warm_start``: which variables make up a group, which
tensor fills it, whether a vocabulary stands between the two, and what that asks of each partition.
Nothing here reads tensors or vocabularies, and nothing knows TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tensorbundle import reader, remap_pieces
from tensorbundle.assignment import Variable
from tensorbundle.remap_pieces import PieceRemap
from tensorbundle.vocab_info import VocabInfo, check_info

Shape = tuple[int, ...]

__all__ = [
    "Group",
    "Load",
    "Plan",
    "Remap",
    "VocabInfo",
    "described",
    "object_graph_names",
    "plan_warm_start",
    "renames",
    "selected",
]

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


@dataclass(frozen=True)
class Group:
    """The variables, or the partitions of one, that a single stored tensor fills.

    Attributes:
        pieces: In the order in which they were selected.
        trainable: Whether an optimizer changes it: then it is no slot of another variable.
    """

    pieces: tuple[Variable, ...]
    trainable: bool = True


@dataclass(frozen=True)
class Remap:
    """A group that is filled through a vocabulary.

    Attributes:
        group: Its name.
        tensor: The stored tensor's name.
        renamed: That name where it was given, else None.
        info: The vocabularies.
        pieces: What each partition takes, in the group's order.
        slot_of: The table whose optimizer slot this is. Its missing rows keep their own initial
            values.
    """

    group: str
    tensor: str
    renamed: str | None
    info: Any
    pieces: tuple[PieceRemap, ...]
    slot_of: str | None = None


@dataclass(frozen=True)
class Load:
    """A group that is filled as it is stored.

    Attributes:
        repeats: The earlier group that takes the same tensor, and has to be dealt with first:
            TensorFlow's map from tensors to variables has room for one.
    """

    group: str
    tensor: str
    renamed: str | None
    repeats: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a warm start does, in order, and what of its settings nobody asked for."""

    steps: tuple[Remap | Load, ...]
    groups: tuple[str, ...]
    unused_names: frozenset[str]
    unused_vocabularies: frozenset[str]

    @property
    def is_unused(self) -> bool:
        """Whether there is something that nobody asked for."""
        return bool(self.unused_names or self.unused_vocabularies)

    def raise_for_unused(self) -> None:
        """Refuses settings for variables that were not selected.

        Raises:
            ValueError: There are some. Renamed ones are named first.
        """
        for unused, setting in (
            (self.unused_names, "var_name_to_prev_var_name"),
            (self.unused_vocabularies, "var_name_to_vocab_info"),
        ):
            if unused:
                raise ValueError(
                    f"You provided the following variables in {setting} that were not used: "
                    f"{set(unused)}.  Perhaps you misspelled them?  Here is the list of viable "
                    f"variable names: {list(self.groups)}"
                )


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


def object_graph_names(checkpoint: reader.Checkpoint) -> dict[str, str] | None:
    """Names that variables had in their program, to keys of an object-based checkpoint.

    Returns:
        None if the checkpoint is name-based.

    Raises:
        CorruptionError: The object graph is damaged.
    """
    graph = checkpoint.get(_OBJECT_GRAPH)
    if graph is None:
        return None
    graph.read()  # Says what is wrong with it, where the names below would stay away.
    return dict(checkpoint._full_names())


def renames(keys: Mapping[str, str] | None, groups: Iterable[str]) -> dict[str, str]:
    """The stored names of all groups, by an object graph's names.

    Raises:
        ValueError: The object graph lacks some of them.
    """
    if keys is None:
        return {}
    names = list(groups)
    missing = {name for name in names if name not in keys}
    if missing:
        raise ValueError(
            "Attempting to warm-start from an object-based checkpoint, but found that the "
            "checkpoint did not contain values for all variables. The following variables were "
            f"missing: {missing}"
        )
    return {name: keys[name] for name in names}


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

    Raises:
        ValueError: A group's shape, sizes or partitions do not suit its vocabulary, or two
            variables have the same name.
        TypeError: A vocabulary's setting is not of its type.
    """
    steps: list[Remap | Load] = []
    pending: dict[str, str] = {}
    for name, group in groups.items():
        renamed = names.get(name) or None
        tensor = renamed or name
        info = infos.get(name)
        table = _table_of(name, group, groups, infos, names, stored) if not info else None
        if info:
            if renamed is None:
                _check_one_variable(name, group)
            steps.append(Remap(name, tensor, renamed, info, _pieces(name, group, info)))
        elif load_others:
            _check_one_variable(name, group)
            if table is not None:
                pieces = _pieces(name, group, infos[table])
                steps.append(Remap(name, tensor, renamed, infos[table], pieces, table))
                continue
            repeats = pending.get(tensor)
            if repeats is not None:
                pending.clear()
            pending[tensor] = name
            steps.append(Load(name, tensor, renamed, repeats))
    used = {name for name in groups if names.get(name)}
    informed = {name for name in groups if infos.get(name)}
    return Plan(
        tuple(steps),
        tuple(groups),
        frozenset(names.keys() - used),
        frozenset(infos.keys() - informed),
    )


def _pieces(name: str, group: Group, info: Any) -> tuple[PieceRemap, ...]:
    check_info(info)
    return remap_pieces.plan_pieces(
        name,
        group.pieces,
        axis=int(info.axis),
        new_size=info.new_vocab_size,
        num_oov=info.num_oov_buckets,
    )


def _check_one_variable(name: str, group: Group) -> None:
    """A group of several is one partitioned variable, not two of the same name."""
    slices = sum(piece.slice is not None for piece in group.pieces)
    if len(group.pieces) > 1 and slices == 0:
        raise ValueError(f"At least two variables have the same name: {name}")
    if 0 < slices < len(group.pieces):
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
    wholes = {remap_pieces.whole_shape(piece) for piece in (*group.pieces, *groups[table].pieces)}
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
