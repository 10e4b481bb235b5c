# SPDX-License-Identifier: Apache-2.0
"""New names of tensors: the argument ``rename``, the ``name`` of a rule, and flattened names.

A tensor of an object-graph checkpoint has up to three names, of which the key and the full name are
renamed independently, each by its own match:

==========  ========================================================================
key         ``model/dense/kernel/.ATTRIBUTES/VARIABLE_VALUE``
path        ``model/dense/kernel``, the key without its ending
full name   ``dense/kernel``, from the object graph
==========  ========================================================================

A flattened checkpoint has one name per tensor: the full name, else the path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorbundle.naming import VALUE_SUFFIX
from tensorbundle.rules import Rule, check_template

# The argument `rename`.
Rename = Mapping[str, str] | Sequence[tuple[str, str]] | Callable[[str], str]


@dataclass(frozen=True)
class Names:
    """The names of one tensor.

    Attributes:
        key: The stored name.
        path: The key without ``/.ATTRIBUTES/VARIABLE_VALUE``, or None if it has another ending.
        full: The full name in the object graph, or None.
        all: These names, without duplicates, the key first.
    """

    key: str
    path: str | None
    full: str | None
    all: tuple[str, ...]

    @classmethod
    def of(cls, key: str, full: str | None) -> Names:
        """Creates the names of a tensor from its key and its full name."""
        path = key.removesuffix(VALUE_SUFFIX) if key.endswith(VALUE_SUFFIX) else None
        return cls(key, path, full, tuple(dict.fromkeys(n for n in (key, path, full) if n)))

    @property
    def flat(self) -> str:
        """The name in a flattened checkpoint."""
        return self.full or self.path or self.key


class Renaming:
    """The argument ``rename``: a mapping, regular expressions with replacements, or a callable."""

    def __init__(self, value: Any) -> None:
        """Checks the argument.

        Raises:
            TypeError: It has the wrong type.
            ValueError: A regular expression or a replacement is invalid.
        """
        self._mapping: dict[str, str] = {}
        self._regexes: list[tuple[re.Pattern[str], str | Callable[..., str]]] = []
        self._function: Callable[[str], Any] | None = None
        self._unused: dict[object, None] = {}
        if value is None:
            return
        if isinstance(value, Mapping):
            for old, new in value.items():
                if not isinstance(old, str) or not isinstance(new, str):
                    raise TypeError(f"rename must map str to str, not {old!r} to {new!r}")
                self._mapping[old] = new
        elif callable(value):
            self._function = value
        else:
            self._regexes = [_regex_row(row) for row in _rows(value)]
        self._unused = dict.fromkeys([*self._mapping, *(regex for regex, _ in self._regexes)])

    @property
    def absent(self) -> list[str]:
        """The names in the mapping that no tensor had so far."""
        return [name for name in self._unused if isinstance(name, str)]

    @property
    def unused(self) -> list[str]:
        """The regular expressions that matched nothing so far."""
        return [each.pattern for each in self._unused if isinstance(each, re.Pattern)]

    def key_and_full_name(self, names: Names, rule: Rule | None) -> tuple[str, str | None]:
        """Returns the new key and the new full name of a tensor.

        Raises:
            TypeError: The callable returned something else than a str.
            re.error: The replacement of a rule is invalid.
        """
        key = self._new_name(names.key, rule)
        if key == names.key and names.path is not None:
            key = self._new_name(names.path, rule)
            key = names.key if key == names.path else key + VALUE_SUFFIX
        full = None if names.full is None else self._new_name(names.full, rule)
        return key, full

    def each_name(self, names: Names) -> tuple[str, str | None, str | None]:
        """Returns the new key, path and full name of a tensor, each renamed by its own match.

        Raises:
            TypeError: The callable returned something else than a str.
        """
        path = None if names.path is None else self._new_name(names.path, None)
        full = None if names.full is None else self._new_name(names.full, None)
        return self._new_name(names.key, None), path, full

    def flat_name(self, names: Names, rule: Rule | None) -> str:
        """Returns the name of a tensor in a flattened checkpoint.

        Raises:
            TypeError: The callable returned something else than a str.
            re.error: The replacement of a rule is invalid.
        """
        if rule is not None and rule.name is not None:
            found = next(m for m in map(rule.match.fullmatch, names.all) if m is not None)
            return found.expand(rule.name)
        for name in names.all:
            if name in self._mapping:
                self._unused.pop(name, None)
                return self._mapping[name]
        return self._new_name(names.flat, None)

    def new_name(self, names: Names, default: str) -> str:
        """Returns the first new name by which one of a tensor's names is replaced.

        A mapping may have any of the names. Regular expressions and callables are tried with the
        full name, the path and the key, in this order, until one changes.

        Args:
            names: The names of the tensor.
            default: The result if there is no new name.

        Raises:
            TypeError: The callable returned something else than a str.
        """
        for name in names.all if self._mapping else reversed(names.all):
            new = self._new_name(name, None)
            if new != name or name in self._mapping:
                return new
        return default

    def _new_name(self, name: str, rule: Rule | None) -> str:
        if rule is not None and rule.name is not None:
            found = rule.match.fullmatch(name)
            return name if found is None else found.expand(rule.name)
        if name in self._mapping:
            self._unused.pop(name, None)
            return self._mapping[name]
        if self._function is not None:
            result = self._function(name)
            if not isinstance(result, str):
                raise TypeError(f"rename returned {type(result).__name__}, not a str")
            return result
        for regex, replacement in self._regexes:
            name, count = regex.subn(replacement, name)
            if count:
                self._unused.pop(regex, None)
        return name


def _rows(value: Any) -> list[Any]:
    try:
        rows = list(value)
    except TypeError:
        rows = [None]
    if isinstance(value, (str, bytes)) or not all(
        isinstance(row, (tuple, list)) and len(row) == 2 for row in rows
    ):
        raise TypeError(
            "rename must be a mapping, a callable, or a sequence of (regular expression, "
            f"replacement), not {type(value).__name__}"
        )
    return rows


def _regex_row(row: Any) -> tuple[re.Pattern[str], str | Callable[..., str]]:
    pattern, replacement = row
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"rename: {pattern!r} is not a regular expression: {error}") from None
    if isinstance(replacement, str):
        for problem in check_template(regex, replacement):
            raise ValueError(f"rename: {problem}")
    elif not callable(replacement):
        raise TypeError(f"a replacement must be a str, not {type(replacement).__name__}")
    return regex, replacement
