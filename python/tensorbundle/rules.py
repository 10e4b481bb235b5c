# SPDX-License-Identifier: Apache-2.0
r"""Patterns that select tensors, and rules files in TOML.

A rules file is a list of ``[[rule]]`` tables. The first rule whose ``match`` matches a whole name
counts, and the others are not tried for that tensor::

    [[rule]]
    match = '.*/(adam_m|adam_v)|global_step'
    drop = true

    [[rule]]
    match = 'bert/encoder/layer_(\\d+)/(.*)/kernel'
    name = 'layer.\\1.\\2.weight'
    transpose = true
    cast = 'bfloat16'

==============  =============================================================================
``match``       a regular expression for the whole name; required
``name``        the new name, in which ``\\1`` is the first group
``transpose``   true to reverse the axes, or a permutation such as ``[3, 2, 0, 1]``
``cast``        the name of the new dtype
``drop``        true to leave the tensor out
``split``       the number of slices along axis 0 in which the tensor is stored
==============  =============================================================================
"""

from __future__ import annotations

import errno
import fnmatch
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from tensorbundle.errors import CheckpointNotFoundError, IOFailure

Value = TypeVar("Value")

# The arguments `keep` and `drop`, `cast`, `transpose` and `rules`.
Selector = str | Iterable[str] | Callable[[str], object]
DType = str | np.dtype[Any] | type[Any]
Cast = DType | Mapping[Any, DType]
Transpose = str | Iterable[str] | Mapping[str, bool | Sequence[int]]
Rules = str | os.PathLike[str] | Iterable[Mapping[str, Any]]

_KEYS = ("match", "name", "transpose", "cast", "drop", "split")


class Glob:
    """A pattern in which ``*``, ``?`` and ``[...]`` are wildcards; ``*`` also matches ``/``.

    A name that equals the pattern matches too, so names that contain a bracket need no escapes.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.is_literal = not any(sign in text for sign in "*?[")
        self._regex = None if self.is_literal else re.compile(fnmatch.translate(text))

    def matches(self, names: Iterable[str]) -> bool:
        """Returns whether the pattern matches one of the names of a tensor."""
        return any(
            name == self.text or (self._regex is not None and self._regex.match(name) is not None)
            for name in names
        )


class Patterns(Generic[Value]):
    """Patterns with a value each, which remember whether they matched.

    Attributes:
        option: The argument of the caller, for messages.
    """

    def __init__(self, option: str, values: Iterable[tuple[str, Value]]) -> None:
        self.option = option
        self._rows = [(Glob(text), value) for text, value in values]
        # An exact name counts before a pattern.
        self._rows.sort(key=lambda row: not row[0].is_literal)
        self._used: set[str] = set()

    def find(self, names: Sequence[str]) -> tuple[Value, ...]:
        """Returns the value of the first pattern that matches a tensor, as a tuple, or ()."""
        first: tuple[Value, ...] = ()
        for glob, value in self._rows:
            if glob.matches(names):
                self._used.add(glob.text)
                first = first or (value,)
        return first

    @property
    def unused(self) -> list[Glob]:
        """The patterns that matched nothing so far."""
        return [glob for glob, _ in self._rows if glob.text not in self._used]


class Selection:
    """Tensors that ``keep`` or ``drop`` selects: by patterns, or by a callable."""

    def __init__(self, option: str, value: object) -> None:
        """Raises TypeError if `value` is neither a pattern, nor patterns, nor a callable."""
        self._function: Callable[[str], object] | None = None
        self.patterns: Patterns[None] | None = None
        if callable(value):
            self._function = value
        else:
            self.patterns = Patterns(option, ((text, None) for text in globs(option, value)))

    def selects(self, names: Sequence[str]) -> bool:
        """Returns whether a tensor is selected. A callable gets the key, which is the first."""
        if self._function is not None:
            return bool(self._function(names[0]))
        assert self.patterns is not None
        return bool(self.patterns.find(names))


def globs(option: str, value: object) -> list[str]:
    """Returns one pattern, or several, as a list.

    Raises:
        TypeError: `value` is something else.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping)):
        texts = list(value)
        if all(isinstance(text, str) for text in texts):
            return texts
    raise TypeError(
        f"{option} must be a pattern, a sequence of patterns or a callable, not "
        f"{type(value).__name__}"
    )


@dataclass
class Rule:
    """One rule. Options that it does not have are None.

    Attributes:
        place: Where the rule is, for messages.
        used: Whether it matched a tensor.
    """

    place: str
    match: re.Pattern[str]
    name: str | None = None
    transpose: bool | Sequence[int] | None = None
    cast: str | None = None
    drop: bool = False
    split: int | None = None
    used: bool = False


def read_rules(source: Rules) -> list[Rule]:
    """Reads a rules file, or a sequence of mappings that are rules already.

    Raises:
        CheckpointNotFoundError: The file does not exist. It is a FileNotFoundError.
        IOFailure: The file cannot be read.
        ValueError: The file is not TOML, or has invalid rules; the message lists all of them.
    """
    if isinstance(source, (str, os.PathLike)):
        where = os.fspath(source)
        tables = _read_toml(where)
    else:
        where, tables = "rules", list(source)
    rules, problems = [], []
    for number, table in enumerate(tables, 1):
        place = f"{where}: rule {number}"
        wrong = _problems_of(table)
        if wrong:
            problems += [f"{place}: {problem}" for problem in wrong]
        else:
            options = {key: value for key, value in table.items() if key != "match"}
            rules.append(Rule(place, re.compile(table["match"]), **options))
    if problems:
        raise ValueError("invalid rules:\n  " + "\n  ".join(problems))
    return rules


def _read_toml(path: str) -> list[Any]:
    # Only this function needs the parser.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        raise CheckpointNotFoundError(f"the rules file {path!r} does not exist", path) from None
    except OSError as error:
        message = f"cannot read the rules file {path!r}"
        raise IOFailure(message, error.errno or errno.EIO, path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from None
    unknown = sorted(set(content) - {"rule"})
    tables = content.get("rule", [])
    if unknown or not isinstance(tables, list):
        found = f"it has {', '.join(unknown)}" if unknown else "'rule' is not a list"
        raise ValueError(f"{path} must consist of [[rule]] tables, but {found}")
    return tables


def _problems_of(table: object) -> list[str]:
    """Returns what is wrong with a rule."""
    if not isinstance(table, Mapping):
        return [f"it must be a table, not {type(table).__name__}"]
    problems = [
        f"unknown key {key!r}; the keys are {', '.join(_KEYS)}" for key in table if key not in _KEYS
    ]
    match = table.get("match")
    groups = None
    if not isinstance(match, str):
        problems.append("'match' must be a regular expression")
    else:
        try:
            groups = re.compile(match)
        except re.error as error:
            problems.append(f"'match' is not a regular expression: {error}")
    for key, kind in (("name", str), ("cast", str), ("drop", bool)):
        if key in table and not isinstance(table[key], kind):
            problems.append(f"{key!r} must be {'true or false' if kind is bool else 'a string'}")
    if groups is not None and isinstance(table.get("name"), str):
        problems += check_template(groups, table["name"])
    if "transpose" in table and not is_transpose(table["transpose"]):
        problems.append("'transpose' must be true or a list of axes")
    split = table.get("split", 1)
    if not isinstance(split, int) or isinstance(split, bool) or split < 1:
        problems.append("'split' must be a positive integer")
    return problems


def is_transpose(value: object) -> bool:
    """Returns whether a value is a bool or a list of axes."""
    return isinstance(value, bool) or (
        isinstance(value, (list, tuple)) and all(_is_integer(axis) for axis in value)
    )


def _is_integer(value: object) -> bool:
    """Returns whether a value is an integer of any type, such as ``np.int64``, but not a bool."""
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return not isinstance(value, bool)


def check_template(regex: re.Pattern[str], template: str) -> list[str]:
    """Returns what is wrong with a replacement, in at most one message."""
    # An alternative that matches the empty string shows whether the template's groups exist.
    try:
        found = re.compile(f"{regex.pattern}\n|", regex.flags).match("\0")
        if found is not None:
            found.expand(template)
    except (re.error, IndexError) as error:
        return [f"the replacement {template!r} is invalid: {error}"]
    return []
