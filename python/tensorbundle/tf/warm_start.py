# SPDX-License-Identifier: Apache-2.0
"""The ways to start a ``warm_start``: ours, TensorFlow's, and a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import tensorflow as tf

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


def run(
    path: AnyPath,
    wanted: Any,
    infos: Mapping[str, Any] | None,
    names: Mapping[str, str] | None,
    policy: Policy,
    *,
    as_tensorflow: bool = False,
) -> LoadReport:
    """Plans and carries out ``tensorbundle.warm_start``.

    Args:
        path: The checkpoint.
        wanted: ``vars_to_warm_start``.
        infos: ``var_name_to_vocab_info``.
        names: ``var_name_to_prev_var_name``.
        policy: What is skipped, and whether values are converted.
        as_tensorflow: Accept only the paths that TensorFlow's function accepts.
    """
    if checkpoint_index.is_remote(path) and policy.is_default:
        tf.compat.v1.train.warm_start(path, wanted, infos, names)
        return report_by_names(wanted, infos or {}, names or {})
    tf.compat.v1.logging.info("Warm-starting from: %s", path)
    return _prepared(
        path,
        policy,
        lambda start: start.prepare(wanted, infos or {}, names or {}),
        plans.Prepared.carry_out,
        as_tensorflow=as_tensorflow,
    )


def plan(
    path: AnyPath,
    wanted: Any,
    infos: Mapping[str, Any] | None,
    names: Mapping[str, str] | None,
    policy: Policy,
) -> plans.LoadPlan:
    """Plans ``tensorbundle.warm_start``. Args: as for ``run``."""
    return _prepared(
        path,
        policy,
        lambda start: start.prepare(wanted, infos or {}, names or {}, announce=True),
        plans.planned,
        exact=True,
    )


def patched_warm_start(
    ckpt_to_initialize_from: AnyPath,
    vars_to_warm_start: Any = ".*",
    var_name_to_vocab_info: Mapping[str, Any] | None = None,
    var_name_to_prev_var_name: Mapping[str, str] | None = None,
    **keywords: Any,
) -> LoadReport:
    """Replaces TensorFlow's function. Accepts the paths that TensorFlow accepts."""
    return run(
        ckpt_to_initialize_from,
        vars_to_warm_start,
        var_name_to_vocab_info,
        var_name_to_prev_var_name,
        Policy(**keywords),
        as_tensorflow=True,
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

    return plans.once(work)
