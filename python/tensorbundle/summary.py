# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint consists of, in numbers: ``Checkpoint.summary``. Reads the index only."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tensorbundle import _core, dtypes, slots
from tensorbundle.tables import count_text, html_table, plural, size_text, text_table

_HEADER = ("", "tensors", "parameters", "bytes")


@dataclass(frozen=True)
class Count:
    """Some tensors in numbers.

    Attributes:
        tensors: The number of tensors.
        parameters: The number of their elements, without strings and variants.
        nbytes: The size of their stored bytes.
    """

    tensors: int = 0
    parameters: int = 0
    nbytes: int = 0

    def __add__(self, other: Count) -> Count:
        """Returns the count of both."""
        return Count(
            self.tensors + other.tensors,
            self.parameters + other.parameters,
            self.nbytes + other.nbytes,
        )

    def _row(self, title: str) -> tuple[str, ...]:
        return title, f"{self.tensors:,}", count_text(self.parameters), size_text(self.nbytes)


@dataclass(frozen=True)
class Summary:
    """What a checkpoint consists of. ``print`` formats it.

    Attributes:
        path: The checkpoint.
        total: All tensors.
        model: All tensors but the slots of optimizers.
        slots: The slots of optimizers, such as the moments of Adam, by their names.
        by_dtype: All tensors by stored type, the largest first.
        by_scope: All tensors by the part of their names before the first slash, the largest first;
            under ``""`` those without a slash.
    """

    path: str
    total: Count
    model: Count
    slots: Count
    by_dtype: Mapping[str, Count]
    by_scope: Mapping[str, Count]

    @property
    def tensors(self) -> int:
        """The number of all tensors."""
        return self.total.tensors

    @property
    def parameters(self) -> int:
        """The number of elements of all tensors, slots included, without strings and variants."""
        return self.total.parameters

    @property
    def nbytes(self) -> int:
        """The size of all tensors in their files."""
        return self.total.nbytes

    @property
    def line(self) -> str:
        """One line: ``"601 tensors, 328.5 M parameters, 1.22 GiB; optimizer slots 835 MiB"``."""
        text = (
            f"{plural(self.tensors, 'tensor')}, {count_text(self.parameters)} "
            f"parameter{'' if self.parameters == 1 else 's'}, {size_text(self.nbytes)}"
        )
        if self.slots.tensors:
            text += f"; optimizer slots {size_text(self.slots.nbytes)}"
        return text

    def __str__(self) -> str:
        return f"{self.line}\n{text_table(_HEADER, self._rows())}"

    def _repr_html_(self) -> str:
        return html_table(f"{self.path}: {self.line}", _HEADER, self._rows())

    def _rows(self) -> list[tuple[str, ...]]:
        rows = [self.model._row("model"), self.slots._row("optimizer slots")]
        if not self.slots.tensors:
            rows.clear()
        rows += [count._row(f"dtype {name}") for name, count in self.by_dtype.items()]
        rows += [
            count._row(f"scope {name}" if name else "no scope")
            for name, count in self.by_scope.items()
        ]
        return rows


def count_tensors(path: str, tensors: Iterable[_core.Tensor]) -> Summary:
    """Implements ``Checkpoint.summary``."""
    rows = [(each.name, each.type_number, each.shape, each.nbytes) for each in tensors]
    slot_names = slots.find_slots(row[0] for row in rows)
    parts: dict[bool, _Sum] = defaultdict(_Sum)  # whether they are slots
    types: dict[int, _Sum] = defaultdict(_Sum)
    scopes: dict[str, _Sum] = defaultdict(_Sum)
    for name, number, shape, nbytes in rows:
        elements = 0 if number in dtypes.VARIABLE_SIZE else math.prod(shape)
        scope, slash, _ = name.partition("/")
        for total in (parts[name in slot_names], types[number], scopes[scope if slash else ""]):
            total.add(elements, nbytes)
    model, slot = parts[False].count(), parts[True].count()
    return Summary(
        path=path,
        total=model + slot,
        model=model,
        slots=slot,
        by_dtype=_largest_first({dtypes.stored_name(n): each for n, each in types.items()}),
        by_scope=_largest_first(scopes),
    )


class _Sum:
    """A count that grows, because there may be a million tensors."""

    __slots__ = ("nbytes", "parameters", "tensors")

    def __init__(self) -> None:
        self.tensors = self.parameters = self.nbytes = 0

    def add(self, parameters: int, nbytes: int) -> None:
        self.tensors += 1
        self.parameters += parameters
        self.nbytes += nbytes

    def count(self) -> Count:
        return Count(self.tensors, self.parameters, self.nbytes)


def _largest_first(sums: Mapping[str, _Sum]) -> dict[str, Count]:
    order = sorted(sums, key=lambda key: (-sums[key].nbytes, key))
    return {key: sums[key].count() for key in order}
