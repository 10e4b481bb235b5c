# SPDX-License-Identifier: Apache-2.0
"""``warm_start``: a model starts from a checkpoint, by vocabularies that may have changed since."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from tensorbundle.assignment import Variable, plan_assignments
from tensorbundle.errors import CheckpointNotFoundError
from tensorbundle.filenames import AnyPath
from tensorbundle.paths import DirectoryWithoutCheckpointError
from tensorbundle.tf import facts, initialization, remap, remote, restore
from tensorbundle.tf.errors import as_tensorflow_raises, shape_mismatch
from tensorbundle.tf.options import Options, current, in_context
from tensorbundle.tf.source import Source, open_source
from tensorbundle.warm_start import (
    Group,
    Load,
    Plan,
    Remap,
    VocabInfo,
    check_info,
    described,
    object_graph_names,
    plan_warm_start,
    renames,
    selected,
)


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
    if remote.is_remote(ckpt_to_initialize_from):
        remote.tensorflows_own("warm_start")(
            ckpt_to_initialize_from,
            vars_to_warm_start,
            var_name_to_vocab_info,
            var_name_to_prev_var_name,
        )
        return
    _across_replicas(
        ckpt_to_initialize_from,
        lambda start: start.run(
            vars_to_warm_start, var_name_to_vocab_info or {}, var_name_to_prev_var_name or {}
        ),
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
    name = _name_of(pieces[0])
    _across_replicas(prev_ckpt, lambda start: start.remap_one(name, pieces, info, prev_tensor_name))


@dataclasses.dataclass
class _Start:
    """One call, in the context in which its ops are made.

    Attributes:
        path: The checkpoint, as the caller called it.
        options: How values are read.
        source: The checkpoint. None if there is none yet: TensorFlow asks for it when it has to
            load a variable without a vocabulary, and else when the initializers run.
        prefix: What ops call it.
    """

    path: AnyPath
    options: Options

    def __post_init__(self) -> None:
        self.source: Source | None = None
        try:
            self.source = open_source(self.path)
        except CheckpointNotFoundError as error:
            if isinstance(error, DirectoryWithoutCheckpointError):
                raise
        self.prefix = os.fsencode(self.path) if self.source is None else self.source.prefix

    def run(self, wanted: Any, infos: Mapping[str, Any], names: Mapping[str, str]) -> None:
        """Does what ``warm_start`` documents."""
        log = _log()
        log.info("Warm-starting from: %s", self.path)
        variables, originals = _grouped(wanted)
        if not names and self.source is not None:
            with as_tensorflow_raises():
                names = renames(object_graph_names(self.source.checkpoint), variables)
        groups = {name: _group(pieces, wanted) for name, pieces in variables.items()}
        plan = plan_warm_start(
            groups, infos, names, load_others=bool(wanted), stored=self._shape_of
        )
        if plan.is_unused:
            for line in (line for step in plan.steps for line in described(step)):
                log.debug(line)
        else:
            self._execute(plan, variables, originals)
        log.info("Warm-started %d variables.", len(plan.steps))
        plan.raise_for_unused()

    def remap_one(
        self, name: str, pieces: list[Variable], info: VocabInfo, renamed: str | None
    ) -> None:
        """Does what ``warm_start_var_with_vocab`` documents."""
        plan = plan_warm_start(
            {name: Group(tuple(pieces))},
            {name: info},
            {name: renamed} if renamed else {},
            load_others=False,
            stored=self._shape_of,
        )
        for step in plan.steps:
            assert isinstance(step, Remap)
            self._assign(self._remapped(step, pieces))

    def _execute(
        self,
        plan: Plan,
        variables: Mapping[str, list[Variable]],
        originals: Mapping[str, list[Any]],
    ) -> None:
        log = _log()
        targets = {name: each[0] if len(each) == 1 else each for name, each in originals.items()}
        self._check_loads(plan, targets)
        ready = self._ready(plan, variables)
        pending: dict[str, Any] = {}
        for step in plan.steps:
            for line in described(step):
                log.debug(line)
            if isinstance(step, Remap):
                values = ready.get(step.group)
                self._assign(values or self._remapped(step, variables[step.group]))
                continue
            target = targets[step.group]
            if step.repeats is not None:
                log.debug(
                    "Requested prev_var_name %s initialize both %s and %s; calling "
                    "init_from_checkpoint.",
                    step.tensor,
                    pending[step.tensor],
                    target,
                )
                self._load(pending)
                pending = {}
            pending[step.tensor] = target
        if pending:
            self._load(pending)

    def _check_loads(self, plan: Plan, targets: Mapping[str, Any]) -> None:
        """Raises what loading would raise, before the first variable is touched."""
        loads = [step for step in plan.steps if isinstance(step, Load)]
        if not loads:
            return
        self.source = self.source or open_source(self.path)
        planned = plan_assignments(
            [(step.tensor, facts.target_of(targets[step.group])) for step in loads],
            self.source.for_plans(),
            {},
            mismatch=shape_mismatch,
        )
        for each in planned.assignments:
            restore.plan_readings(self.source, each, self.options)

    def _ready(
        self, plan: Plan, variables: Mapping[str, list[Variable]]
    ) -> dict[str, list[tuple[Any, Any]]]:
        """All remapped values, before the first variable is touched; none in eager mode.

        There they are arrays, and all of them together might not fit into memory.
        """
        import tensorflow as tf

        if tf.executing_eagerly():
            return {}
        return {
            step.group: self._remapped(step, variables[step.group])
            for step in plan.steps
            if isinstance(step, Remap)
        }

    def _remapped(self, step: Remap, pieces: list[Variable]) -> list[tuple[Any, Any]]:
        """(variable, value) for every piece."""
        handles = [piece.handle for piece in pieces]
        with _outside_if_left_out(handles):
            values = remap.remapped(self.prefix, step, handles, self.options)
        return list(zip(handles, values, strict=True))

    def _assign(self, values: list[tuple[Any, Any]]) -> None:
        with _outside_if_left_out([variable for variable, _ in values]):
            for variable, value in values:
                restore.set_initializer(variable, value)

    def _load(self, pending: Mapping[str, Any]) -> None:
        initialization.initialize(self.path, pending, self.options, source=self.source)

    def _shape_of(self, tensor: str) -> tuple[int, ...] | None:
        return None if self.source is None else self.source.shape_of(tensor)


def _grouped(wanted: Any) -> tuple[dict[str, list[Variable]], dict[str, list[Any]]]:
    """The selected variables by name, in the order of selection: all pieces, and as selected."""
    import tensorflow as tf

    def collection(key: str, scope: str | None) -> list[Any]:
        return list(tf.compat.v1.get_collection(key, scope=scope))

    def is_variable(thing: Any) -> bool:
        return facts.is_variable(thing) or facts.pieces_of(thing) is not None

    found, from_trainable = selected(wanted, collection, is_variable)
    if from_trainable:
        _log().info("Warm-starting variables only in TRAINABLE_VARIABLES.")
    grouped: dict[str, list[Variable]] = {}
    originals: dict[str, list[Any]] = {}
    for variable in found:
        pieces = facts.pieces_of(variable) or [facts.of_variable(variable)]
        name = _name_of(pieces[0])
        grouped.setdefault(name, []).extend(pieces)
        originals.setdefault(name, []).append(variable)
    return grouped, originals


def _group(pieces: list[Variable], wanted: Any) -> Group:
    trainable = not isinstance(wanted, list) or any(piece.handle.trainable for piece in pieces)
    return Group(tuple(pieces), trainable)


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


def _name_of(piece: Variable) -> str:
    """The name that TensorFlow's saver gives a variable: without ``:0``, and of the whole."""
    from tensorflow.python.training.saving import saveable_object_util

    if piece.slice is not None:
        return piece.slice.full_name
    names = list(saveable_object_util.op_list_to_dict([piece.handle]))
    return str(names[0])


def _across_replicas(path: AnyPath, work: Callable[[_Start], None]) -> None:
    """Does it once, however many replicas ask for it."""
    import tensorflow as tf

    given = in_context()

    def once(_strategy: Any) -> None:
        # Replicas meet in a thread that may not be the caller's.
        work(_Start(path, given or current()))

    def call() -> None:
        if tf.distribute.in_cross_replica_context():
            once(None)
        else:
            tf.distribute.get_replica_context().merge_call(once)

    # Inside a function AutoGraph would rewrite all of this as if it were the model's code.
    tf.autograph.experimental.do_not_convert(call)()


def _outside_if_left_out(variables: list[Any]) -> contextlib.AbstractContextManager[Any]:
    """Where an assignment is run: not in a graph function that keeps just what its results need."""
    import tensorflow as tf

    if all(facts.is_left_out_of_function(variable) for variable in variables):
        return tf.init_scope()  # type: ignore[no-any-return]
    return contextlib.nullcontext()


def _log() -> Any:
    import tensorflow as tf

    return tf.compat.v1.logging
