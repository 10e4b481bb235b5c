# SPDX-License-Identifier: Apache-2.0
"""``init_from_checkpoint``: variables that start from a checkpoint's values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from tensorbundle import assignment
from tensorbundle.filenames import AnyPath
from tensorbundle.load_plan import Policy, Problem
from tensorbundle.load_report import LoadReport
from tensorbundle.tf import facts, loads, plans, replicas
from tensorbundle.tf.options import Options
from tensorbundle.tf.source import AnySource, open_source

Result = TypeVar("Result")
AssignmentMap = Mapping[str, Any] | Iterable[tuple[str, Any]]

_NAMELESS = (
    "In eager mode no variable is known by its name, as names are those of get_variable: give the "
    "variable itself"
)


def init_from_checkpoint(
    ckpt_dir_or_file: AnyPath,
    assignment_map: AssignmentMap,
    *,
    missing: str = "raise",
    mismatch: str = "raise",
    cast: bool = False,
) -> LoadReport:
    """Replaces the initializers of variables, so that they load their values from a checkpoint.

    As ``tf.compat.v1.train.init_from_checkpoint``: until the initializers run, nothing is read but
    the checkpoint's index. In eager mode the values are assigned now. ``tensorbundle.tf.options``
    says how values are read; what is in force at the call counts.

    Args:
        ckpt_dir_or_file: As for ``tensorbundle.open``. Remote paths are read by TensorFlow's own
            reader and op.
        assignment_map: A mapping, or an iterable of pairs, from names in the checkpoint to what
            gets their values: a variable, of Keras too; a list or tuple of the pieces of a
            partitioned one; a ``PartitionedVariable`` or ``ShardedVariable``; the name of a
            variable in the current graph; or from one scope to another, each ending in ``/``, where
            ``/`` alone is the root. A list of pairs can give one tensor to several variables. A
            name that is no key of an object-based checkpoint is a full name in its object graph.
        missing: ``"skip"`` leaves variables alone whose tensor the checkpoint lacks.
        mismatch: ``"skip"`` leaves variables alone that differ from their tensor in shape or type.
        cast: Whether values are converted between float types. Never between other types.

    Returns:
        What was loaded, what was left alone, and what of the checkpoint no variable got.

    Raises:
        ValueError: A tensor is not in the checkpoint; a shape or a type differs; a scope has no
            variable; a directory has no checkpoint; or with ``mode="map"`` something cannot be
            mapped. No variable has been touched then.
        TypeError: A path or a map of another type.
        OpError: There is no such checkpoint, or its index is damaged; a shape or a type differs.

    Example:
        >>> tb.init_from_checkpoint("model.ckpt-1000", {"embedding": table, "old/": "new/"})
    """
    policy = Policy(missing, mismatch, cast)
    return _prepared(ckpt_dir_or_file, assignment_map, policy, plans.Prepared.carry_out)


def served_init_from_checkpoint(
    ckpt_dir_or_file: AnyPath, assignment_map: AssignmentMap, **keywords: Any
) -> LoadReport:
    """The same behind TensorFlow's name, which accepts the paths that TensorFlow accepts."""
    policy = Policy(**keywords)
    return _prepared(
        ckpt_dir_or_file, assignment_map, policy, plans.Prepared.carry_out, as_tensorflow=True
    )


def plan_init(
    ckpt_dir_or_file: AnyPath,
    assignment_map: AssignmentMap,
    *,
    missing: str = "raise",
    mismatch: str = "raise",
    cast: bool = False,
) -> plans.LoadPlan:
    """What ``init_from_checkpoint`` would do, without touching a variable.

    What is wrong with the map or does not fit is among the plan's ``problems``, all of it at once.

    Args:
        ckpt_dir_or_file: As for ``init_from_checkpoint``.
        assignment_map: Likewise.
        missing: Likewise.
        mismatch: Likewise.
        cast: Likewise.

    Returns:
        The plan. ``print`` it, and ``apply`` it.

    Raises:
        ValueError: A directory has no checkpoint.
        TypeError: A path or a map of another type.
        OpError: There is no such checkpoint, or its index is damaged.

    Example:
        >>> print(tb.tf.plan_init("model.ckpt-1000", {"/": "/"}))
    """
    policy = Policy(missing, mismatch, cast)
    return _prepared(ckpt_dir_or_file, assignment_map, policy, plans.planned)


def _prepared(
    path: AnyPath,
    assignment_map: AssignmentMap,
    policy: Policy,
    finish: Callable[[plans.Prepared], Result],
    *,
    as_tensorflow: bool = False,
) -> Result:
    """Prepares a call, and does something with it, once for all replicas that ask for it."""

    def work(options: Options) -> Result:
        source = open_source(path, as_tensorflow=as_tensorflow)
        try:
            return finish(_prepare(source, path, assignment_map, options, policy))
        finally:
            source.close()

    return replicas.once_unconverted(work)


def _prepare(
    source: AnySource,
    path: AnyPath,
    assignment_map: AssignmentMap,
    options: Options,
    policy: Policy,
) -> plans.Prepared:
    """Decides everything about one call, in the current context."""
    pairs, problems = _targets(assignment_map)
    store = facts.VariableStore()
    nameless = _NAMELESS if not store and _is_eager() else ""
    made = loads.prepare(source, path, pairs, store, options, policy, nameless=nameless)
    warnings = made.warnings
    if not pairs and not problems:
        warnings = ("The assignment map is empty: no variable is initialized",)
    used = [row.stored.key for row in made.rows if row.stored and row.is_loaded]
    return plans.Prepared(
        f"init_from_checkpoint from {source.label!r}",
        made.rows,
        (*problems, *made.problems),
        warnings,
        policy,
        source.unused(used),
        made.run,
    )


def _targets(
    assignment_map: AssignmentMap,
) -> tuple[list[tuple[str, assignment.Target]], list[Problem]]:
    """What the map's values stand for, and what is wrong with them."""
    pairs = assignment_map.items() if isinstance(assignment_map, Mapping) else assignment_map
    targets: list[tuple[str, assignment.Target]] = []
    problems: list[Problem] = []
    for tensor, value in pairs:
        try:
            targets.append((tensor, facts.target_of(value)))
        except (TypeError, ValueError, RuntimeError) as error:
            problems.append(plans.raised(error))
    return targets, problems


def _is_eager() -> bool:
    import tensorflow as tf

    return bool(tf.executing_eagerly())
