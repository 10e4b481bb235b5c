# SPDX-License-Identifier: Apache-2.0
"""What a person probably meant by an assignment map that does not work.

Each function returns the end of a message, or nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Sequence
from typing import Any, Protocol

# Names that a message compares a misspelt one with, so that a huge checkpoint costs no minutes.
_COMPARED = 5000
_PART = "/part_"
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
