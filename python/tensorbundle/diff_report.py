# SPDX-License-Identifier: Apache-2.0
"""The result of ``diff``, which prints as one summary line and a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensorbundle.tables import html_table, plural, shape_text, text_table
from tensorbundle.value_diff import ValueDiff

_HEADER = ("", "tensor", "dtype", "shape", "different", "max abs", "max rel", "note")


@dataclass(frozen=True)
class TensorDiff:
    """A tensor of both checkpoints that differs.

    Attributes:
        name: Its name in a.
        name_b: Its name in b.
        reasons: ``"dtype"``, ``"shape"``, ``"values"``, as far as they differ.
        dtypes: The stored types in a and b.
        shapes: The shapes in a and b.
        values: How the values differ; None if they were not read.
    """

    name: str
    name_b: str
    reasons: tuple[str, ...]
    dtypes: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    values: ValueDiff | None = None


@dataclass(frozen=True)
class Ambiguity:
    """Tensors of a and b that have the same contents, so that they cannot be paired.

    Attributes:
        names_a: Names of a that are not in b.
        names_b: Names of b that are not in a.
    """

    names_a: tuple[str, ...]
    names_b: tuple[str, ...]


@dataclass(frozen=True)
class Unreadable:
    """A tensor that cannot be compared.

    Attributes:
        path: The checkpoint.
        name: The tensor.
        message: The error.
    """

    path: str
    name: str
    message: str


@dataclass(frozen=True)
class DiffReport:
    """The result of ``diff``.

    Attributes:
        a: The first checkpoint.
        b: The second checkpoint.
        changed: Tensors of both that differ, in the order of the names of a.
        only_a: Names of a without a partner in b.
        only_b: Names of b without a partner in a.
        renamed: (Name in a, name in b) of tensors without a partner of the same name, which have
            the same type, shape and checksum as exactly one other. They are not in `only_a` and
            `only_b`. This is a guess; pass it as `rename` to rely on it.
        ambiguous: Such tensors that have the contents of several others. They are also in `only_a`
            and `only_b`.
        unchanged: The number of tensors that are the same, or within the tolerance.
        close: Those that are within the tolerance and not the same.
        unreadable: Tensors that are corrupted, or whose data files are missing.
        warnings: Rules of `rename` that match nothing.
    """

    a: str
    b: str
    changed: tuple[TensorDiff, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    ambiguous: tuple[Ambiguity, ...]
    unchanged: int
    close: tuple[TensorDiff, ...]
    unreadable: tuple[Unreadable, ...]
    warnings: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether both have the same tensors by the same names, within the tolerance."""
        return not (self.changed or self.only_a or self.only_b or self.renamed or self.unreadable)

    ok = same

    @property
    def summary(self) -> str:
        """One line: ``"different: 2 changed, 1 only in a, 198 unchanged"``."""
        parts = [
            f"{count:,} {text}"
            for count, text in (
                (len(self.unreadable), "unreadable"),
                (len(self.changed), "changed"),
                (len(self.only_a), "only in a"),
                (len(self.only_b), "only in b"),
                (len(self.renamed), "renamed"),
            )
            if count
        ]
        close = f" ({len(self.close):,} within the tolerance)" if self.close else ""
        if not parts:
            return f"same: {plural(self.unchanged, 'tensor')}{close}"
        return f"different: {', '.join(parts)}, {self.unchanged:,} unchanged{close}"

    def __str__(self) -> str:
        rows = list(self._rows())
        return f"{self.summary}\n{text_table(_HEADER, rows)}" if rows else self.summary

    def _repr_html_(self) -> str:
        return html_table(f"{self.summary} (a: {self.a}, b: {self.b})", _HEADER, list(self._rows()))

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for text in self.warnings:
            yield "warning", "", "", "", "", "", "", text
        for item in self.unreadable:
            yield "unreadable", item.name, "", "", "", "", "", item.message
        for kind, rows in (("changed", self.changed), ("close", self.close)):
            for row in rows:
                yield kind, _pair(row.name, row.name_b), *_both(row), *_figures(row)
        for kind, names in (("only in a", self.only_a), ("only in b", self.only_b)):
            for name in names:
                yield kind, name, "", "", "", "", "", ""
        for name, other in self.renamed:
            yield "renamed", _pair(name, other), "", "", "", "", "", "has the same contents"
        for group in self.ambiguous:
            pair = _pair(", ".join(group.names_a), ", ".join(group.names_b))
            yield "ambiguous", pair, "", "", "", "", "", "all have the same contents"


def _both(row: TensorDiff) -> tuple[str, str]:
    """Returns the dtypes and the shapes."""
    return _pair(*row.dtypes), _pair(*map(shape_text, row.shapes))


def _pair(first: str, second: str) -> str:
    return first if first == second else f"{first} -> {second}"


def _figures(row: TensorDiff) -> tuple[str, str, str, str]:
    found = row.values
    if found is None:
        return "", "", "", ""
    note = f"{found.not_finite:,} with NaN or infinity" if found.not_finite else ""
    different = f"{found.different:,} of {found.elements:,}" if found.different else ""
    return different, _number(found.max_abs), _number(found.max_rel), note


def _number(value: int | float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
