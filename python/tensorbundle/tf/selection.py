# SPDX-License-Identifier: Apache-2.0
"""Which variables a warm start is for, and what they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorbundle.load_report import LoadReport
from tensorbundle.tf import facts
from tensorbundle.variables import Variable
from tensorbundle.warm_plan import Group, selected


def report_by_names(wanted: Any, infos: Mapping[str, Any], names: Mapping[str, str]) -> LoadReport:
    """What TensorFlow's function has loaded, as it raises nothing: known from names alone."""
    groups = grouped(wanted)[0]
    loaded = {name: names.get(name) or name for name in groups if wanted or infos.get(name)}
    return LoadReport(loaded, {}, (), {})


def grouped(wanted: Any) -> tuple[dict[str, list[Variable]], dict[str, list[Any]], bool]:
    """The selected variables by name, in the order of selection.

    Returns:
        All pieces of each; each as it was given; and whether only trainable ones were looked at.
    """
    import tensorflow as tf

    def collection(key: str, scope: str | None) -> list[Any]:
        return list(tf.compat.v1.get_collection(key, scope=scope))

    def is_variable(thing: Any) -> bool:
        return facts.is_variable(facts.plain(thing)) or facts.pieces_of(thing) is not None

    found, from_trainable = selected(wanted, collection, is_variable)
    by_name: dict[str, list[Variable]] = {}
    originals: dict[str, list[Any]] = {}
    for variable in found:
        pieces = facts.pieces_of(variable) or [facts.of_variable(variable)]
        name = name_of(pieces[0])
        by_name.setdefault(name, []).extend(pieces)
        originals.setdefault(name, []).append(variable)
    return by_name, originals, from_trainable


def name_of(piece: Variable) -> str:
    """The name that TensorFlow's saver gives a variable: without ``:0``, and of the whole."""
    from tensorflow.python.training.saving import saveable_object_util

    if piece.slice is not None:
        return piece.slice.full_name
    if piece.name != piece.handle.name:  # Keras's name for it.
        return piece.name
    names = list(saveable_object_util.op_list_to_dict([piece.handle]))
    return str(names[0])


def target(pieces: list[Variable], given: list[Any]) -> Variable | list[Variable]:
    """A variable that was selected alone is itself, even if it is a piece of another."""
    is_single = len(pieces) == len(given) == 1 and facts.pieces_of(given[0]) is None
    return pieces[0] if is_single else pieces


def as_given(variables: list[Any]) -> Any:
    """One variable, or the list of several, as log lines show them."""
    return variables[0] if len(variables) == 1 else variables


def group_of(pieces: list[Variable], wanted: Any) -> Group:
    """A variable as ``warm_plan`` knows it."""
    trainable = not isinstance(wanted, list) or any(piece.handle.trainable for piece in pieces)
    return Group(tuple(pieces), trainable)


def nothing_selected(wanted: Any) -> str:
    """What to say where a selection is empty."""
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
