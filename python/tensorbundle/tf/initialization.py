# SPDX-License-Identifier: Apache-2.0
"""``init_from_checkpoint``: variables that start from a checkpoint's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensorbundle import assignment
from tensorbundle.filenames import AnyPath
from tensorbundle.tf import errors, facts, remote, replicas, restore
from tensorbundle.tf.options import Options
from tensorbundle.tf.source import Source, open_source

AssignmentMap = Mapping[str, Any] | Iterable[tuple[str, Any]]


def init_from_checkpoint(ckpt_dir_or_file: AnyPath, assignment_map: AssignmentMap) -> None:
    """Replaces the initializers of variables, so that they load their values from a checkpoint.

    As ``tf.compat.v1.train.init_from_checkpoint``: until the initializers run, nothing is read but
    the checkpoint's index. In eager mode the values are assigned now. ``tensorbundle.tf.options``
    says how values are read; what is in force at the call counts.

    Args:
        ckpt_dir_or_file: As for ``tensorbundle.open``. Remote paths go to TensorFlow's function.
        assignment_map: A mapping, or an iterable of pairs, from names in the checkpoint to what
            gets their values: a variable; a list or tuple of the pieces of a partitioned one; a
            ``PartitionedVariable`` or ``ShardedVariable``; the name of a variable in the current
            graph; or from one scope to another, each ending in ``/``, where ``/`` alone is the
            root. A list of pairs can give one tensor to several variables.

    Raises:
        ValueError: A tensor is not in the checkpoint; a shape differs; a scope has no variable; a
            directory has no checkpoint; or with ``mode="map"`` something cannot be mapped. No
            variable has been touched then.
        TypeError: A path or a map of another type.
        OpError: There is no such checkpoint, or its index is damaged.

    Example:
        >>> tb.init_from_checkpoint("model.ckpt-1000", {"embedding": table, "old/": "new/"})
    """
    import tensorflow as tf

    # Inside a function AutoGraph would rewrite all of this as if it were the model's code.
    call = tf.autograph.experimental.do_not_convert(_in_the_right_context)
    call(ckpt_dir_or_file, assignment_map)


def _in_the_right_context(ckpt_dir_or_file: AnyPath, assignment_map: AssignmentMap) -> None:
    """Does the work once, however many replicas ask for it."""
    if remote.is_remote(ckpt_dir_or_file):
        remote.tensorflows_own("init_from_checkpoint")(ckpt_dir_or_file, assignment_map)
        return
    replicas.once(lambda options: initialize(ckpt_dir_or_file, assignment_map, options))


def initialize(
    ckpt_dir_or_file: AnyPath,
    assignment_map: AssignmentMap,
    options: Options,
    *,
    source: Source | None = None,
) -> None:
    """The same, in the current context and with given options.

    Args:
        ckpt_dir_or_file: What messages and the log call the checkpoint.
        assignment_map: As for ``init_from_checkpoint``.
        options: How values are read.
        source: The checkpoint, if it is open already.

    Raises:
        ValueError, TypeError, OpError: As ``init_from_checkpoint``.
    """
    if source is not None:
        _initialize(source, ckpt_dir_or_file, assignment_map, options)
        return
    opened = open_source(ckpt_dir_or_file)
    try:
        _initialize(opened, ckpt_dir_or_file, assignment_map, options)
    finally:
        opened.checkpoint.close()


def _initialize(
    source: Source, label: AnyPath, assignment_map: AssignmentMap, options: Options
) -> None:
    import tensorflow as tf

    pairs = assignment_map.items() if isinstance(assignment_map, Mapping) else assignment_map
    plan = assignment.plan_assignments(
        [(tensor, facts.target_of(value)) for tensor, value in pairs],
        source.for_plans(),
        facts.VariableStore(),
        mismatch=errors.shape_mismatch,
    )
    # Whatever can go wrong is found before the first variable is touched.
    readings = [restore.plan_readings(source, planned, options) for planned in plan.assignments]
    for remark in plan.remarks:
        tf.compat.v1.logging.warning(remark)
    for planned, each in zip(plan.assignments, readings, strict=True):
        restore.assign(each)
        tf.compat.v1.logging.debug(
            "Initialize variable %s from checkpoint %s with %s",
            planned.label,
            label,
            planned.tensor,
        )
