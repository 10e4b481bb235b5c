# SPDX-License-Identifier: Apache-2.0
"""The public functions that load checkpoints into variables. They import TensorFlow when called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tensorbundle.arguments import OnProblem
from tensorbundle.assignment import AssignmentMap
from tensorbundle.filenames import AnyPath
from tensorbundle.load_plan import LoadReport

if TYPE_CHECKING:
    from tensorbundle.tf.plans import LoadPlan


def init_from_checkpoint(
    ckpt_dir_or_file: AnyPath,
    assignment_map: AssignmentMap,
    *,
    missing: OnProblem = "raise",
    mismatch: OnProblem = "raise",
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

    Examples:
        >>> tb.init_from_checkpoint("model.ckpt-1000", {"embedding": table, "old/": "new/"})
    """
    from tensorbundle.tf import init_from_checkpoint

    return init_from_checkpoint.run(
        ckpt_dir_or_file, assignment_map, missing=missing, mismatch=mismatch, cast=cast
    )


def warm_start(
    ckpt_to_initialize_from: AnyPath,
    vars_to_warm_start: Any = ".*",
    var_name_to_vocab_info: Mapping[str, Any] | None = None,
    var_name_to_prev_var_name: Mapping[str, str] | None = None,
    *,
    missing: OnProblem = "raise",
    mismatch: OnProblem = "raise",
    cast: bool = False,
) -> LoadReport:
    """Initializes variables from a checkpoint and remaps rows or columns by their vocabularies.

    As ``tf.compat.v1.train.warm_start``. In addition it supports variables of any float type and
    of rank 1 and up, initializers that need the real shape, duplicate tokens in the new vocabulary,
    and partitions along any axis. Each pair of vocabularies is joined once per process, when the
    initializers run; in eager mode, immediately. Suspicious settings and vocabularies are reported
    in TensorFlow's log: small vocabularies are checked completely at the call, large ones by
    samples.

    Args:
        ckpt_to_initialize_from: As for ``tensorbundle.open``. Remote paths are passed to
            TensorFlow's function, or, with one of the keywords, to its reader and ops.
        vars_to_warm_start: A regular expression that is matched with the beginning of trainable
            variables' names; a list of them, for all global variables; a list of variables, also of
            Keras; or None: the trainable variables that have a vocabulary.
        var_name_to_vocab_info: By full name, without ``:0`` or ``/part_<i>``: a `VocabInfo`, or
            TensorFlow's. If an optimizer's slot (``<variable>/<Slot>``) is selected, it is
            remapped like its variable, and new rows keep the slot's initial value. The name of a
            Keras variable is its path.
        var_name_to_prev_var_name: By full name: the name in the checkpoint.
        missing: ``"skip"`` skips variables whose tensor is not in the checkpoint.
        mismatch: ``"skip"`` skips variables that differ from their tensor in shape or type.
        cast: Whether values are converted between float types. Other types are never converted.

    Returns:
        The variables that were loaded, those that were skipped, and the unused tensors. The latter
        are unknown if TensorFlow's function was called.

    Raises:
        ValueError: A setting is for a variable that was not selected; a shape does not match its
            vocabulary; a tensor is not in the checkpoint, or has another shape or type; an old
            vocabulary has more tokens than its table has rows. No variable has been changed then.
        TypeError: A backup initializer is not callable, or returns another type.
        OpError: The checkpoint is corrupt; a tensor has another shape or type.

    Examples:
        >>> info = tb.VocabInfo("new.txt", 1000, 1, "old.txt")
        >>> tb.warm_start("model.ckpt-7", var_name_to_vocab_info={"embedding": info})
    """
    from tensorbundle.tf import warm_start

    return warm_start.run(
        ckpt_to_initialize_from,
        vars_to_warm_start,
        var_name_to_vocab_info,
        var_name_to_prev_var_name,
        missing=missing,
        mismatch=mismatch,
        cast=cast,
    )


def plan_init(
    ckpt_dir_or_file: AnyPath,
    assignment_map: AssignmentMap,
    *,
    missing: OnProblem = "raise",
    mismatch: OnProblem = "raise",
    cast: bool = False,
) -> LoadPlan:
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

    Examples:
        >>> print(tb.tf.plan_init("model.ckpt-1000", {"/": "/"}))
    """
    from tensorbundle.tf import init_from_checkpoint

    return init_from_checkpoint.plan(
        ckpt_dir_or_file, assignment_map, missing=missing, mismatch=mismatch, cast=cast
    )


def plan_warm_start(
    ckpt_to_initialize_from: AnyPath,
    vars_to_warm_start: Any = ".*",
    var_name_to_vocab_info: Mapping[str, Any] | None = None,
    var_name_to_prev_var_name: Mapping[str, str] | None = None,
    *,
    missing: OnProblem = "raise",
    mismatch: OnProblem = "raise",
    cast: bool = False,
) -> LoadPlan:
    """Plans a ``warm_start`` without changing any variable.

    All errors in the settings and all mismatches are in the plan's ``problems``. Vocabularies of
    any size are joined, so that the numbers are exact.

    Args:
        ckpt_to_initialize_from: As for ``warm_start``.
        vars_to_warm_start: Likewise.
        var_name_to_vocab_info: Likewise.
        var_name_to_prev_var_name: Likewise.
        missing: Likewise.
        mismatch: Likewise.
        cast: Likewise.

    Returns:
        The plan. ``print`` it, and ``apply`` it.

    Raises:
        ValueError: A directory has no checkpoint, or the selection has an invalid type.
        OpError: The checkpoint's index is corrupt.

    Examples:
        >>> print(tb.tf.plan_warm_start("model.ckpt-7"))
    """
    from tensorbundle.tf import warm_start

    return warm_start.plan(
        ckpt_to_initialize_from,
        vars_to_warm_start,
        var_name_to_vocab_info,
        var_name_to_prev_var_name,
        missing=missing,
        mismatch=mismatch,
        cast=cast,
    )
