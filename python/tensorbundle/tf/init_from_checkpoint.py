# SPDX-License-Identifier: Apache-2.0
"""``init_from_checkpoint``: initializes variables with the values of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from tensorbundle import assignment
from tensorbundle.filenames import AnyPath
from tensorbundle.load_plan import LoadReport, Policy, Problem
from tensorbundle.tf import plans
from tensorbundle.tf.checkpoint_index import AnySource, open_source
from tensorbundle.tf.options import Options
from tensorbundle.tf.variables import VariableStore, target_of

Result = TypeVar("Result")
AssignmentMap = Mapping[str, Any] | Iterable[tuple[str, Any]]

_NAMELESS = (
    "In eager mode variables cannot be looked up by name, as names are those of get_variable: pass "
    "the variable itself"
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

    As ``tf.compat.v1.train.init_from_checkpoint``: only the checkpoint's index is read before the
    initializers run. In eager mode the values are assigned immediately. The
    ``tensorbundle.tf.options`` in effect at the call apply.

    Args:
        ckpt_dir_or_file: As for ``tensorbundle.open``. Remote paths are read by TensorFlow's own
            reader and op.
        assignment_map: A mapping, or an iterable of pairs, from names in the checkpoint to their
            targets: a variable, also of Keras; a list or tuple of the partitions of one; a
            ``PartitionedVariable`` or ``ShardedVariable``; the name of a variable in the current
            graph; or from one scope to another, each ending in ``/``, where ``/`` alone is the
            root. A list of pairs can load one tensor into several variables. In an object-based
            checkpoint a name is a key, else a full name in its object graph.
        missing: ``"skip"`` skips variables whose tensor is not in the checkpoint.
        mismatch: ``"skip"`` skips variables that differ from their tensor in shape or type.
        cast: Whether values are converted between float types. Other types are never converted.

    Returns:
        The variables that were loaded, those that were skipped, and the unused tensors.

    Raises:
        ValueError: A tensor is not in the checkpoint; a shape or a type differs; a scope has no
            variable; a directory has no checkpoint; or with ``mode="map"`` a tensor cannot be
            mapped. No variable has been changed then.
        TypeError: The path or the map has an invalid type.
        OpError: There is no such checkpoint, or its index is corrupt; a shape or a type differs.

    Example:
        >>> tb.init_from_checkpoint("model.ckpt-1000", {"embedding": table, "old/": "new/"})
    """
    policy = Policy(missing, mismatch, cast)
    return _prepared(ckpt_dir_or_file, assignment_map, policy, plans.Prepared.carry_out)


def patched_init_from_checkpoint(
    ckpt_dir_or_file: AnyPath, assignment_map: AssignmentMap, **keywords: Any
) -> LoadReport:
    """Replaces TensorFlow's function. Accepts the paths that TensorFlow accepts."""
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
    """Plans an ``init_from_checkpoint`` without changing any variable.

    All errors in the map and all mismatches are in the plan's ``problems``.

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
        TypeError: The path or the map has an invalid type.
        OpError: There is no such checkpoint, or its index is corrupt.

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
    """Prepares a call and passes the result to `finish`, once for all replicas."""

    def work(options: Options) -> Result:
        source = open_source(path, as_tensorflow=as_tensorflow)
        try:
            return finish(_prepare(source, path, assignment_map, options, policy))
        finally:
            source.close()

    return plans.once_unconverted(work)


def _prepare(
    source: AnySource,
    path: AnyPath,
    assignment_map: AssignmentMap,
    options: Options,
    policy: Policy,
) -> plans.Prepared:
    """Plans one call in the current context."""
    pairs, problems = _targets(assignment_map)
    store = VariableStore()
    unnamed_reason = _NAMELESS if not store and _is_eager() else ""
    planned = plans.prepare(
        source, path, pairs, store, options, policy, unnamed_reason=unnamed_reason
    )
    warnings = planned.warnings
    if not pairs and not problems:
        warnings = ("The assignment map is empty: no variable is initialized",)
    used = [row.stored.key for row in planned.rows if row.stored and row.is_loaded]
    return plans.Prepared(
        f"init_from_checkpoint from {source.label!r}",
        planned.rows,
        (*problems, *planned.problems),
        warnings,
        policy,
        source.unused(used),
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


def _is_eager() -> bool:
    import tensorflow as tf

    return bool(tf.executing_eagerly())
