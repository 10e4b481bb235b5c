# SPDX-License-Identifier: Apache-2.0
"""``warm_start``: a model starts from a checkpoint, by vocabularies that may have changed since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tensorbundle.assignment import Variable
from tensorbundle.filenames import AnyPath
from tensorbundle.tf import facts, remote, replicas
from tensorbundle.tf.options import Options
from tensorbundle.tf.start import Start, name_of
from tensorbundle.vocab_info import VocabInfo, check_info


def warm_start(
    ckpt_to_initialize_from: AnyPath,
    vars_to_warm_start: Any = ".*",
    var_name_to_vocab_info: Mapping[str, Any] | None = None,
    var_name_to_prev_var_name: Mapping[str, str] | None = None,
) -> None:
    """Makes variables start from a checkpoint, rows and columns by their vocabularies.

    As ``tf.compat.v1.train.warm_start``, and where that fails for no reason this works: variables
    of any float type and of rank 1 and up, initializers that must know the real shape, tokens that
    are twice in the new vocabulary, partitions along any axis. Each pair of vocabularies is joined
    once per process, when the initializers run; in eager mode, now.

    Args:
        ckpt_to_initialize_from: As for ``tensorbundle.open``. Remote paths go to TensorFlow's
            function.
        vars_to_warm_start: A regular expression for the beginnings of trainable variables' names; a
            list of them, for all global variables; a list of variables; or None: those trainable
            variables that have a vocabulary.
        var_name_to_vocab_info: By full name, without ``:0`` or ``/part_<i>``: a `VocabInfo`, or
            TensorFlow's. An optimizer's slot that is selected as well (``<variable>/<Slot>``)
            follows its variable's; rows that are new keep the slot's own initial value.
        var_name_to_prev_var_name: By full name: the name in the checkpoint.

    Raises:
        ValueError: A setting is for a variable that was not selected; a shape does not suit its
            vocabulary; a tensor is not in the checkpoint. No variable has been touched then.
        TypeError: A backup initializer cannot be called, or makes another type.
        OpError: The checkpoint is damaged.

    Example:
        >>> info = tb.VocabInfo("new.txt", 1000, 1, "old.txt")
        >>> tb.warm_start("model.ckpt-7", var_name_to_vocab_info={"embedding": info})
    """
    import tensorflow as tf

    # Inside a function AutoGraph would rewrite all of this as if it were the model's code.
    tf.autograph.experimental.do_not_convert(_warm_start)(
        ckpt_to_initialize_from,
        vars_to_warm_start,
        var_name_to_vocab_info,
        var_name_to_prev_var_name,
    )


def _warm_start(
    path: AnyPath, wanted: Any, infos: Mapping[str, Any] | None, names: Mapping[str, str] | None
) -> None:
    if remote.is_remote(path):
        remote.tensorflows_own("warm_start")(path, wanted, infos, names)
    else:
        _across_replicas(path, lambda start: start.run(wanted, infos or {}, names or {}))


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
    """Makes one variable start from a checkpoint, by its vocabulary.

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
        raise ValueError(
            "Invalid args: Must provide all of [current_vocab_path, current_vocab_size, prev_ckpt, "
            "prev_vocab_path}."
        )
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
    _across_replicas(
        prev_ckpt, lambda start: start.remap_one(names[0], pieces, info, prev_tensor_name)
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


def _across_replicas(path: AnyPath, work: Callable[[Start], None]) -> None:
    """Does it once, however many replicas ask for it."""

    def run(options: Options) -> None:
        start = Start(path, options)
        try:
            work(start)
        finally:
            start.close()

    replicas.once(run)
