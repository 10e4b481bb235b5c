# SPDX-License-Identifier: Apache-2.0
"""One call of ``init_from_checkpoint``: plans all loads, then replaces the initializers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import tensorflow as tf

from tensorbundle import assignment
from tensorbundle.assignment import AssignmentMap
from tensorbundle.filenames import AnyPath
from tensorbundle.load_plan import LoadReport, Policy, Problem
from tensorbundle.tf import plans
from tensorbundle.tf.checkpoint_index import CheckpointIndex, open_index
from tensorbundle.tf.options import Options
from tensorbundle.tf.variables import VariableStore, target_of

Result = TypeVar("Result")

_NAMELESS = (
    "In eager mode variables cannot be looked up by name, as names are those of get_variable: pass "
    "the variable itself"
)


def run(path: AnyPath, assignment_map: AssignmentMap, policy: Policy) -> LoadReport:
    """Plans and carries out ``tensorbundle.init_from_checkpoint``."""
    return _prepared(path, assignment_map, policy, plans.Prepared.carry_out)


def plan(path: AnyPath, assignment_map: AssignmentMap, policy: Policy) -> plans.LoadPlan:
    """Plans ``tensorbundle.init_from_checkpoint``."""
    return _prepared(path, assignment_map, policy, plans.planned)


def patched_init_from_checkpoint(
    ckpt_dir_or_file: AnyPath, assignment_map: AssignmentMap, **keywords: Any
) -> LoadReport:
    """Replaces TensorFlow's function. Accepts the paths that TensorFlow accepts."""
    policy = Policy(**keywords)
    return _prepared(
        ckpt_dir_or_file, assignment_map, policy, plans.Prepared.carry_out, as_tensorflow=True
    )


def _prepared(
    path: AnyPath,
    assignment_map: AssignmentMap,
    policy: Policy,
    finish: Callable[[plans.Prepared], Result],
    *,
    as_tensorflow: bool = False,
) -> Result:
    """Prepares a call and passes the result to `finish`, once for all replicas."""

    def work(options: Options) -> Result:
        index = open_index(path, as_tensorflow=as_tensorflow)
        try:
            return finish(_prepare(index, path, assignment_map, options, policy))
        finally:
            index.close()

    return plans.once(work)


def _prepare(
    index: CheckpointIndex,
    path: AnyPath,
    assignment_map: AssignmentMap,
    options: Options,
    policy: Policy,
) -> plans.Prepared:
    """Plans one call in the current context."""
    pairs, problems = _targets(assignment_map)
    store = VariableStore()
    unnamed_reason = _NAMELESS if not store and tf.executing_eagerly() else ""
    planned = plans.prepare(
        index, path, pairs, store, options, policy, unnamed_reason=unnamed_reason
    )
    warnings = planned.warnings
    if not pairs and not problems:
        warnings = ("The assignment map is empty: no variable is initialized",)
    used = [row.stored.key for row in planned.rows if row.stored and row.is_loaded]
    return plans.Prepared(
        f"init_from_checkpoint from {index.label!r}",
        planned.rows,
        (*problems, *planned.problems),
        warnings,
        policy,
        index.unused(used),
        planned.run,
    )


def _targets(
    assignment_map: AssignmentMap,
) -> tuple[list[tuple[str, assignment.Target]], list[Problem]]:
    """Resolves the values of the map. Returns the targets and the problems."""
    pairs = assignment_map.items() if isinstance(assignment_map, Mapping) else assignment_map
    targets: list[tuple[str, assignment.Target]] = []
    problems: list[Problem] = []
    for tensor, value in pairs:
        try:
            targets.append((tensor, target_of(value)))
        except (TypeError, ValueError, RuntimeError) as error:
            problems.append(plans.raised(error))
    return targets, problems
