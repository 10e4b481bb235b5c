# SPDX-License-Identifier: Apache-2.0
"""``warm_start``: initializes a model from a checkpoint, also if its vocabularies changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tensorbundle.filenames import AnyPath
from tensorbundle.load_plan import LoadReport, Policy
from tensorbundle.tf import checkpoint_index, plans
from tensorbundle.tf.options import Options
from tensorbundle.tf.variables import (
    is_variable,
    name_of,
    of_variable,
    partitions_of,
    report_by_names,
)
from tensorbundle.tf.warm_start_call import WarmStart
from tensorbundle.variables import Variable
from tensorbundle.vocab import INCOMPLETE_MESSAGE, VocabInfo, check_vocab_info

Result = TypeVar("Result")


def warm_start(
    ckpt_to_initialize_from: AnyPath,
    vars_to_warm_start: Any = ".*",
    var_name_to_vocab_info: Mapping[str, Any] | None = None,
    var_name_to_prev_var_name: Mapping[str, str] | None = None,
    *,
    missing: str = "raise",
    mismatch: str = "raise",
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

    Example:
        >>> info = tb.VocabInfo("new.txt", 1000, 1, "old.txt")
        >>> tb.warm_start("model.ckpt-7", var_name_to_vocab_info={"embedding": info})
    """
    return _warm_start(
        ckpt_to_initialize_from,
        vars_to_warm_start,
        var_name_to_vocab_info,
        var_name_to_prev_var_name,
        Policy(missing, mismatch, cast),
    )


def patched_warm_start(
    ckpt_to_initialize_from: AnyPath,
    vars_to_warm_start: Any = ".*",
    var_name_to_vocab_info: Mapping[str, Any] | None = None,
    var_name_to_prev_var_name: Mapping[str, str] | None = None,
    **keywords: Any,
) -> LoadReport:
    """Replaces TensorFlow's function. Accepts the paths that TensorFlow accepts."""
    return _warm_start(
        ckpt_to_initialize_from,
        vars_to_warm_start,
        var_name_to_vocab_info,
        var_name_to_prev_var_name,
        Policy(**keywords),
        as_tensorflow=True,
    )


def _warm_start(
    path: AnyPath,
    wanted: Any,
    infos: Mapping[str, Any] | None,
    names: Mapping[str, str] | None,
    policy: Policy,
    *,
    as_tensorflow: bool = False,
) -> LoadReport:
    import tensorflow as tf

    if checkpoint_index.is_remote(path) and policy.is_default:
        checkpoint_index.original_function("warm_start")(path, wanted, infos, names)
        return report_by_names(wanted, infos or {}, names or {})
    tf.compat.v1.logging.info("Warm-starting from: %s", path)
    return _prepared(
        path,
        policy,
        lambda start: start.prepare(wanted, infos or {}, names or {}),
        plans.Prepared.carry_out,
        as_tensorflow=as_tensorflow,
    )


def plan_warm_start(
    ckpt_to_initialize_from: AnyPath,
    vars_to_warm_start: Any = ".*",
    var_name_to_vocab_info: Mapping[str, Any] | None = None,
    var_name_to_prev_var_name: Mapping[str, str] | None = None,
    *,
    missing: str = "raise",
    mismatch: str = "raise",
    cast: bool = False,
) -> plans.LoadPlan:
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

    Example:
        >>> print(tb.tf.plan_warm_start("model.ckpt-7"))
    """
    settings = (vars_to_warm_start, var_name_to_vocab_info or {}, var_name_to_prev_var_name or {})
    return _prepared(
        ckpt_to_initialize_from,
        Policy(missing, mismatch, cast),
        lambda start: start.prepare(*settings, announce=True),
        plans.planned,
        exact=True,
    )


def warm_start_var_with_vocab(
    var: Any,
    current_vocab_path: Any,
    current_vocab_size: int,
    prev_ckpt: AnyPath,
    prev_vocab_path: Any,
    previous_vocab_size: int = -1,
    current_oov_buckets: int = 0,
    prev_tensor_name: str | None = None,
    initializer: Any = None,
    axis: int = 0,
) -> None:
    """Initializes one variable from a checkpoint by its vocabulary. Replaces TensorFlow's function.

    Args:
        var: A variable, a list of a variable's partitions, or a partitioned variable.
        current_vocab_path: The new vocabulary.
        current_vocab_size: How many of its entries are used, from the first.
        prev_ckpt: The checkpoint.
        prev_vocab_path: The old vocabulary.
        previous_vocab_size: How many of its entries are used; -1: all.
        current_oov_buckets: The number of out-of-vocabulary buckets after the new entries.
        prev_tensor_name: The tensor's name; by default the variable's.
        initializer: For cells that are not in the checkpoint; None: zeros.
        axis: The axis that the vocabulary indexes.

    Raises:
        TypeError: `var` has another type.
        ValueError: An argument is missing, or the shape does not match the vocabulary.
    """
    if not prev_ckpt:
        raise ValueError(INCOMPLETE_MESSAGE)
    info = VocabInfo(
        current_vocab_path,
        current_vocab_size,
        current_oov_buckets,
        prev_vocab_path,
        previous_vocab_size,
        initializer,
        axis,
    )
    check_vocab_info(info)
    partitions = _partitions_of_one(var)
    names = list(dict.fromkeys(map(name_of, partitions)))
    if len(names) > 1:
        raise TypeError(f"`var` holds several variables: {names}")
    _prepared(
        prev_ckpt,
        Policy(),
        lambda start: start.prepare_one(names[0], partitions, info, prev_tensor_name),
        plans.Prepared.carry_out,
        as_tensorflow=True,
    )


def _partitions_of_one(var: Any) -> list[Variable]:
    partitions = partitions_of(var)
    if partitions is not None:
        return partitions
    if is_variable(var):
        return [of_variable(var)]
    if isinstance(var, list) and var and all(is_variable(each) for each in var):
        return [of_variable(each) for each in var]
    raise TypeError(
        "var MUST be one of the following: a Variable, list of Variable or PartitionedVariable, "
        f"but is {type(var)}"
    )


def _prepared(
    path: AnyPath,
    policy: Policy,
    prepare: Callable[[WarmStart], plans.Prepared],
    finish: Callable[[plans.Prepared], Result],
    *,
    exact: bool = False,
    as_tensorflow: bool = False,
) -> Result:
    """Prepares a warm start and passes the result to `finish`, once for all replicas."""

    def work(options: Options) -> Result:
        start = WarmStart(path, options, policy, exact, as_tensorflow)
        try:
            return finish(prepare(start))
        finally:
            start.close()

    return plans.once_unconverted(work)
