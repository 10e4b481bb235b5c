# SPDX-License-Identifier: Apache-2.0
"""Tensors for variables, as a map pairs them: all that is decided before, and then done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tensorbundle import assignment
from tensorbundle.assignment import Assignment, Target
from tensorbundle.load_plan import Policy, Problem, Row
from tensorbundle.tf import plans, restore, values
from tensorbundle.tf.options import Options
from tensorbundle.tf.source import AnySource
from tensorbundle.variables import Variable


class Loads(NamedTuple):
    """What a map comes to.

    Attributes:
        label: What the caller called the checkpoint.
        rows: A row for each variable.
        problems: What is wrong with the map and with what it meets.
        warnings: What is odd.
        readings: What is loaded, and how.
    """

    label: Any
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    readings: Sequence[tuple[Assignment, list[values.Reading]]]

    def run(self) -> None:
        """Makes the variables start from the checkpoint, in TensorFlow's order."""
        import tensorflow as tf

        for planned, each in self.readings:
            restore.assign(each)
            tf.compat.v1.logging.debug(
                "Initialize variable %s from checkpoint %s with %s",
                planned.label,
                self.label,
                planned.name,
            )


def prepare(
    source: AnySource,
    label: Any,
    pairs: Iterable[tuple[str, Target]],
    store: Mapping[str, Variable],
    options: Options,
    policy: Policy,
    *,
    nameless: str = "",
) -> Loads:
    """Decides what a map does. Changes nothing.

    Args:
        source: The checkpoint.
        label: What the log calls it.
        pairs: (name in the checkpoint, target).
        store: The graph's variables by full name.
        options: How values are read.
        policy: Whether values are converted.
        nameless: Why no variable is known by its name, if that is so.
    """
    plan = assignment.plan_assignments(
        pairs, source.for_plans(), store, cast=policy.cast, nameless=nameless
    )
    rows: list[Row] = []
    problems = list(plan.problems)
    readings: list[tuple[Assignment, list[values.Reading]]] = []
    for row in plan.rows:
        if row.load is not None:
            try:
                readings.append((row.load, restore.plan_readings(source, row.load, options)))
            except ValueError as error:
                row = _refused(row, error)
                problems.append(row.problem)  # type: ignore[arg-type]
        rows.append(row)
    return Loads(label, tuple(rows), tuple(problems), plan.warnings, readings)


def _refused(row: Row, error: ValueError) -> Row:
    return row._replace(problem=plans.raised(error), load=None)
