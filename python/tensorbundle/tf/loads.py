# SPDX-License-Identifier: Apache-2.0
"""The loads of an assignment map: planned first, then executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tensorbundle import assignment
from tensorbundle.assignment import Assignment, Target
from tensorbundle.load_plan import Policy, Problem, Row
from tensorbundle.tf import initializers, plans, read_backends
from tensorbundle.tf.options import Options
from tensorbundle.tf.source import AnySource
from tensorbundle.variables import Variable


class Loads(NamedTuple):
    """The planned loads of an assignment map.

    Attributes:
        label: The checkpoint's name in the log.
        rows: One row per variable.
        problems: The errors in the map and in its tensors and variables.
        warnings: Messages for the log.
        requests: For each assignment the reads of its variables.
    """

    label: Any
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    requests: Sequence[tuple[Assignment, list[read_backends.ReadRequest]]]

    def run(self) -> None:
        """Initializes the variables from the checkpoint, in TensorFlow's order."""
        import tensorflow as tf

        for planned, each in self.requests:
            initializers.set_initializers(each)
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
    """Plans the loads of an assignment map without changing anything.

    Args:
        source: The checkpoint.
        label: Its name in the log.
        pairs: (name in the checkpoint, target).
        store: The graph's variables by full name.
        options: How values are read.
        policy: Whether values are converted.
        nameless: Why variables cannot be looked up by name, or ``""`` if they can.
    """
    plan = assignment.plan_assignments(
        pairs, source.for_plans(), store, cast=policy.cast, nameless=nameless
    )
    rows: list[Row] = []
    problems = list(plan.problems)
    requests: list[tuple[Assignment, list[read_backends.ReadRequest]]] = []
    for row in plan.rows:
        if row.load is not None:
            try:
                requests.append((row.load, initializers.plan_reads(source, row.load, options)))
            except ValueError as error:
                row = _refused(row, error)
                problems.append(row.problem)  # type: ignore[arg-type]
        rows.append(row)
    return Loads(label, tuple(rows), tuple(problems), plan.warnings, requests)


def _refused(row: Row, error: ValueError) -> Row:
    return row._replace(problem=plans.raised(error), load=None)
