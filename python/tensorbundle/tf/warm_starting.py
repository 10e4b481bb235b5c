# SPDX-License-Identifier: Apache-2.0
"""``warm_start``: a model starts from a checkpoint, by vocabularies that may have changed since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tensorbundle.filenames import AnyPath
from tensorbundle.load_plan import Policy
from tensorbundle.load_report import LoadReport
from tensorbundle.tf import facts, plans, remote, replicas
from tensorbundle.tf.options import Options
from tensorbundle.tf.selection import name_of, report_by_names
from tensorbundle.tf.start import Start
from tensorbundle.variables import Variable
from tensorbundle.vocab_info import INCOMPLETE, VocabInfo, check_info

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
    """Makes variables start from a checkpoint, rows and columns by their vocabularies.

    As ``tf.compat.v1.train.warm_start``, and where that fails for no reason this works: variables
    of any float type and of rank 1 and up, initializers that must know the real shape, tokens that
    are twice in the new vocabulary, partitions along any axis. Each pair of vocabularies is joined
    once per process, when the initializers run; in eager mode, now. What is odd about settings and
    vocabularies is said in TensorFlow's log: small ones are looked into at the call, large ones at
    a few places.

    Args:
        ckpt_to_initialize_from: As for ``tensorbundle.open``. Remote paths go to TensorFlow's
            function, or, with one of the keywords, to its reader and ops.
        vars_to_warm_start: A regular expression for the beginnings of trainable variables' names; a
            list of them, for all global variables; a list of variables, of Keras too; or None:
            those trainable variables that have a vocabulary.
        var_name_to_vocab_info: By full name, without ``:0`` or ``/part_<i>``: a `VocabInfo`, or
            TensorFlow's. An optimizer's slot that is selected as well (``<variable>/<Slot>``)
            follows its variable's; rows that are new keep the slot's own initial value. Variables
            of Keras go by their paths.
        var_name_to_prev_var_name: By full name: the name in the checkpoint.
        missing: ``"skip"`` leaves variables alone whose tensor the checkpoint lacks.
        mismatch: ``"skip"`` leaves variables alone that differ from their tensor in shape or type.
        cast: Whether values are converted between float types. Never between other types.

    Returns:
        What was loaded, what was left alone, and what of the checkpoint no variable got; the latter
        is not known where TensorFlow's function did it.

    Raises:
        ValueError: A setting is for a variable that was not selected; a shape does not suit its
            vocabulary; a tensor is not in the checkpoint, or has another shape or type; an old
            vocabulary has more tokens than its table has rows. No variable has been touched then.
        TypeError: A backup initializer cannot be called, or makes another type.
        OpError: The checkpoint is damaged; a tensor has another shape or type.

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


def served_warm_start(
    ckpt_to_initialize_from: AnyPath,
    vars_to_warm_start: Any = ".*",
    var_name_to_vocab_info: Mapping[str, Any] | None = None,
    var_name_to_prev_var_name: Mapping[str, str] | None = None,
    **keywords: Any,
) -> LoadReport:
    """The same behind TensorFlow's name, which accepts the paths that TensorFlow accepts."""
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

    if remote.is_remote(path) and policy.is_tensorflows:
        remote.tensorflows_own("warm_start")(path, wanted, infos, names)
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
    """What ``warm_start`` would do, without touching a variable.

    What is wrong with the settings or does not fit is among the plan's ``problems``, all of it at
    once. Vocabularies are joined, however large they are, so that the numbers are exact.

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
        ValueError: A directory has no checkpoint, or the selection is of no known kind.
        OpError: The checkpoint's index is damaged.

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
    """Makes one variable start from a checkpoint, by its vocabulary: behind TensorFlow's name.

    Args:
        var: A variable, a list of a variable's pieces, or a partitioned variable.
        current_vocab_path: The new vocabulary.
        current_vocab_size: How many of its entries count, from the first.
        prev_ckpt: The checkpoint.
        prev_vocab_path: The old vocabulary.
        previous_vocab_size: How many of its entries count; -1: all.
        current_oov_buckets: How many out-of-vocabulary buckets follow the new entries.
        prev_tensor_name: The tensor's name; by default the variable's.
        initializer: For what the checkpoint lacks; None: zeros.
        axis: The axis that the vocabulary numbers.

    Raises:
        TypeError: `var` is something else.
        ValueError: An argument is missing, or the shape does not suit the vocabulary.
    """
    if not prev_ckpt:
        raise ValueError(INCOMPLETE)
    info = VocabInfo(
        current_vocab_path,
        current_vocab_size,
        current_oov_buckets,
        prev_vocab_path,
        previous_vocab_size,
        initializer,
        axis,
    )
    check_info(info)
    pieces = _pieces_of_one(var)
    names = list(dict.fromkeys(map(name_of, pieces)))
    if len(names) > 1:
        raise TypeError(f"`var` holds several variables: {names}")
    _prepared(
        prev_ckpt,
        Policy(),
        lambda start: start.prepare_one(names[0], pieces, info, prev_tensor_name),
        plans.Prepared.carry_out,
        as_tensorflow=True,
    )


def _pieces_of_one(var: Any) -> list[Variable]:
    pieces = facts.pieces_of(var)
    if pieces is not None:
        return pieces
    if facts.is_variable(var):
        return [facts.of_variable(var)]
    if isinstance(var, list) and var and all(facts.is_variable(each) for each in var):
        return [facts.of_variable(each) for each in var]
    raise TypeError(
        "var MUST be one of the following: a Variable, list of Variable or PartitionedVariable, "
        f"but is {type(var)}"
    )


def _prepared(
    path: AnyPath,
    policy: Policy,
    prepare: Callable[[Start], plans.Prepared],
    finish: Callable[[plans.Prepared], Result],
    *,
    exact: bool = False,
    as_tensorflow: bool = False,
) -> Result:
    """Prepares a warm start, and does something with it, once for all replicas that ask for it."""

    def work(options: Options) -> Result:
        start = Start(path, options, policy, exact, as_tensorflow)
        try:
            return finish(prepare(start))
        finally:
            start.close()

    return replicas.once_unconverted(work)
