# SPDX-License-Identifier: Apache-2.0
"""The variables that a warm start selects, and their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorbundle.load_report import LoadReport
from tensorbundle.tf import variable_metadata
from tensorbundle.variables import Variable
from tensorbundle.warm_plan import Group, selected


def report_by_names(wanted: Any, infos: Mapping[str, Any], names: Mapping[str, str]) -> LoadReport:
    """Returns the report after TensorFlow's own function succeeded, based on names alone."""
    groups = grouped(wanted)[0]
    loaded = {name: names.get(name) or name for name in groups if wanted or infos.get(name)}
    return LoadReport(loaded, {}, (), {})


def grouped(wanted: Any) -> tuple[dict[str, list[Variable]], dict[str, list[Any]], bool]:
    """Returns the selected variables by name, in the order of selection.

    Returns:
        The partitions of each; the objects that were selected; whether the selection is limited to
        trainable variables.
    """
    import tensorflow as tf

    def collection(key: str, scope: str | None) -> list[Any]:
        return list(tf.compat.v1.get_collection(key, scope=scope))

    def is_variable(thing: Any) -> bool:
        return (
            variable_metadata.is_variable(variable_metadata.plain(thing))
            or variable_metadata.partitions_of(thing) is not None
        )

    found, from_trainable = selected(wanted, collection, is_variable)
    by_name: dict[str, list[Variable]] = {}
    originals: dict[str, list[Any]] = {}
    for variable in found:
        partitions = variable_metadata.partitions_of(variable) or [
            variable_metadata.of_variable(variable)
        ]
        name = name_of(partitions[0])
        by_name.setdefault(name, []).extend(partitions)
        originals.setdefault(name, []).append(variable)
    return by_name, originals, from_trainable


def name_of(partition: Variable) -> str:
    """Returns the name that TensorFlow's saver uses: without ``:0``, of the whole variable."""
    from tensorflow.python.training.saving import saveable_object_util

    if partition.slice is not None:
        return partition.slice.full_name
    if partition.name != partition.handle.name:  # the path of a Keras variable
        return partition.name
    names = list(saveable_object_util.op_list_to_dict([partition.handle]))
    return str(names[0])


def target(partitions: list[Variable], given: list[Any]) -> Variable | list[Variable]:
    """Returns a variable that was selected alone as such, even if it is a partition."""
    is_single = (
        len(partitions) == len(given) == 1 and variable_metadata.partitions_of(given[0]) is None
    )
    return partitions[0] if is_single else partitions


def as_given(variables: list[Any]) -> Any:
    """Returns one variable, or a list of several, for log lines."""
    return variables[0] if len(variables) == 1 else variables


def group_of(partitions: list[Variable], wanted: Any) -> Group:
    """Returns a variable's group for ``warm_plan``."""
    trainable = not isinstance(wanted, list) or any(
        partition.handle.trainable for partition in partitions
    )
    return Group(tuple(partitions), trainable)


def nothing_selected(wanted: Any) -> str:
    """Returns the message for an empty selection."""
    import tensorflow as tf

    what = f"vars_to_warm_start={wanted!r} selects no variable: nothing is warm-started"
    if tf.executing_eagerly() and not (isinstance(wanted, list) and not wanted):
        return f"{what}. In eager mode variables are in no collection: give a list of the variables"
    is_trainable = wanted is None or isinstance(wanted, str)
    known = tf.compat.v1.trainable_variables() if is_trainable else tf.compat.v1.global_variables()
    kind = "trainable" if is_trainable else "global"
    return (
        f"{what}. The graph has {len(known)} {kind} variables; an expression is matched with the "
        "beginnings of their names, which end in ':0'"
    )
