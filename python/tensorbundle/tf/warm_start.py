# SPDX-License-Identifier: Apache-2.0
"""One call of ``warm_start``: plans all loads and remaps, then replaces the initializers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tensorbundle import vocab_diagnosis, warm_plan
from tensorbundle.arguments import format_value
from tensorbundle.errors import Error, VocabularyNotFoundError
from tensorbundle.filenames import AnyPath, is_remote
from tensorbundle.load_plan import LoadReport, Policy, Problem, Row, Stored, type_text
from tensorbundle.load_source import LoadSource
from tensorbundle.tf import fill_values, op_library, variables
from tensorbundle.tf.backend import is_here, library_is_usable
from tensorbundle.tf.errors import InvalidArgumentError, as_tensorflow_raises, translated
from tensorbundle.tf.init_from_checkpoint import Loads, plan_loads
from tensorbundle.tf.options import Options
from tensorbundle.tf.plans import LoadPlan, with_plan
from tensorbundle.tf.remapped_values import TableRemap, path_in_ops
from tensorbundle.variables import Variable
from tensorbundle.vocab import INCOMPLETE_MESSAGE, VocabInfo, check_vocab_info
from tensorbundle.vocab_diagnosis import Diagnosis, RemapInputs
from tensorbundle.warm_plan import Group, Load, Remap


def run(
    ckpt_to_initialize_from: AnyPath,
    vars_to_warm_start: Any = ".*",
    var_name_to_vocab_info: Mapping[str, Any] | None = None,
    var_name_to_prev_var_name: Mapping[str, str] | None = None,
    *,
    as_tensorflow: bool = False,
    **keywords: Any,
) -> LoadReport:
    """Plans and carries out ``tensorbundle.warm_start``.

    Args:
        ckpt_to_initialize_from: The checkpoint.
        vars_to_warm_start: The selection of variables.
        var_name_to_vocab_info: Their vocabularies.
        var_name_to_prev_var_name: Their names in the checkpoint.
        as_tensorflow: Accept only the paths that TensorFlow's function accepts.
        keywords: Those of ``Policy``.
    """
    path, wanted, policy = ckpt_to_initialize_from, vars_to_warm_start, Policy(**keywords)
    infos, names = var_name_to_vocab_info or {}, var_name_to_prev_var_name or {}
    if is_remote(path) and policy.is_default:
        tf.compat.v1.train.warm_start(
            path, wanted, var_name_to_vocab_info, var_name_to_prev_var_name
        )
        groups = [name for name in variables.grouped(wanted)[0] if wanted or infos.get(name)]
        return LoadReport({name: names.get(name) or name for name in groups}, {}, (), {})
    tf.compat.v1.logging.info("Warm-starting from: %s", path)
    return with_plan(
        LoadPlan.carry_out,
        path,
        lambda index, options: WarmStart(index, options, policy).plan(wanted, infos, names),
        must_exist=False,
        as_tensorflow=as_tensorflow,
    )


def plan(
    path: AnyPath,
    wanted: Any,
    infos: Mapping[str, Any] | None,
    names: Mapping[str, str] | None,
    **keywords: Any,
) -> LoadPlan:
    """Plans ``tensorbundle.warm_start``. Args: as for ``run``."""
    policy = Policy(**keywords)

    def make(index: LoadSource, options: Options) -> LoadPlan:
        call = WarmStart(index, options, policy, is_inspected=True)
        return call.plan(wanted, infos or {}, names or {})

    return with_plan(LoadPlan.complete, path, make, must_exist=False)


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
    partitions = variables.partitions_of(var)
    if partitions is None:
        each = [var] if variables.is_variable(var) else var
        if not (isinstance(each, list) and each and all(map(variables.is_variable, each))):
            raise TypeError(
                "var MUST be one of the following: a Variable, list of Variable or "
                f"PartitionedVariable, but is {type(var)}"
            )
        partitions = [variables.of_variable(variable) for variable in each]
    names = list(dict.fromkeys(map(variables.name_of, partitions)))
    if len(names) > 1:
        raise TypeError(f"`var` holds several variables: {names}")
    group, renamed = Group(tuple(partitions)), prev_tensor_name

    def make(index: LoadSource, options: Options) -> LoadPlan:
        call = WarmStart(index, options, Policy())
        call.add_steps({names[0]: group}, {names[0]: info}, {names[0]: renamed} if renamed else {})
        return call.planned("warm_start of one variable", call.run)

    with_plan(LoadPlan.carry_out, prev_ckpt, make, must_exist=False, as_tensorflow=True)


class WarmStart:
    """One call, in the context in which its ops are created.

    As in TensorFlow, the checkpoint must exist at the call only to load a variable without a
    vocabulary, else when the initializers run.
    """

    def __init__(
        self, index: LoadSource, options: Options, policy: Policy, is_inspected: bool = False
    ) -> None:
        """Starts with an empty plan.

        Args:
            index: The checkpoint.
            options: The options of reading.
            policy: What is skipped, and whether values are converted.
            is_inspected: The plan is returned. So vocabularies of any size are joined for the
                diagnosis, and the checkpoint's path is logged when the plan is executed.
        """
        self.index = index
        self.options = options
        self.policy = policy
        self.is_inspected = is_inspected
        self._groups: Mapping[str, Group] = {}
        self._steps: tuple[Remap | Load, ...] = ()
        self._rows: dict[str, Row] = {}  # this and the next by group
        self._remaps: dict[str, TableRemap] = {}
        self._loads: list[Loads] = []
        self._problems: list[Problem] = []
        self._warnings: list[str] = []

    def plan(self, wanted: Any, infos: Mapping[str, Any], names: Mapping[str, str]) -> LoadPlan:
        """Plans a ``warm_start`` without changing anything.

        Args:
            wanted: The selection of variables.
            infos: Their vocabularies.
            names: Their names in the checkpoint.

        Raises:
            ValueError: The selection has an invalid type; or the object graph is corrupt.
        """
        preamble = [f"Warm-starting from: {self.index.label}"] if self.is_inspected else []
        groups, from_trainable = variables.grouped(wanted)
        if from_trainable:
            preamble.append("Warm-starting variables only in TRAINABLE_VARIABLES.")
        with as_tensorflow_raises():
            has_full_names = not names and self.index.is_object_based()
        if has_full_names:
            names, problems = warm_plan.find_keys(
                self.index.find, groups, skip=self.policy.missing == "skip"
            )
            self._problems += problems
        self.add_steps(groups, infos, names, load_others=bool(wanted))
        if not groups:
            self._warnings.append(variables.nothing_selected(wanted))

        def run() -> None:
            self.run()
            count = sum(row.is_loaded for row in self._rows.values())
            tf.compat.v1.logging.info("Warm-started %d variables.", count)

        return self.planned("warm_start", run, preamble)

    def planned(
        self, function: str, run: Callable[[], None], preamble: Sequence[str] = ()
    ) -> LoadPlan:
        """Returns the plan of all steps."""
        rows = [self._rows[step.group] for step in self._steps if step.group in self._rows]
        problems, warnings = self._problems, self._warnings
        return LoadPlan(function, self.index, self.policy, rows, problems, warnings, run, preamble)

    def add_steps(
        self,
        groups: Mapping[str, Group],
        infos: Mapping[str, Any],
        names: Mapping[str, str],
        *,
        load_others: bool = False,
    ) -> None:
        """Plans all steps, in TensorFlow's order.

        Tensors without a vocabulary are loaded in one batch at the end. If two variables take the
        same tensor, the batch so far is loaded first.

        Args:
            groups: The variables by name.
            infos: Their vocabularies.
            names: Their names in the checkpoint.
            load_others: Whether variables without a vocabulary are loaded as well.
        """
        plan = warm_plan.plan_warm_start(
            groups, infos, names, load_others=load_others, stored=self.index.shape_of
        )
        self._groups = groups
        self._steps = plan.steps
        self._problems += plan.problems
        batch: list[Load] = []
        for step in plan.steps:
            if isinstance(step, Remap):
                self._add_remap(step)
                continue
            if step.repeats is not None:
                self._add_loads(batch)
                batch = []
            batch.append(step)
        self._add_loads(batch)
        self._problems += plan.unused

    def _add_loads(self, batch: Sequence[Load]) -> None:
        if batch and self.index.absent is not None:
            self._problems.append(Problem.from_error(self.index.absent))
            batch = ()
        pairs = [(step.tensor, variables.target(self._groups[step.group])) for step in batch]
        loads = plan_loads(self.index, pairs, self.options, self.policy, {})
        by_tensor = {row.tensor: row for row in loads.rows}
        self._rows.update(
            {step.group: by_tensor[step.tensor] for step in batch if step.tensor in by_tensor}
        )
        self._loads.append(loads)
        self._problems += loads.problems
        self._warnings += loads.warnings

    def _add_remap(self, step: Remap) -> None:
        """Adds the remap of one table."""
        partitions = self._groups[step.group].partitions
        first = partitions[0]
        stored, problem, action = None, None, "remapped"
        try:
            for partition in partitions:
                variables.check_initializer_is_kept(partition.handle)
            if self.index.absent is None:
                stored = self.index.find(step.tensor)
                label, cast = self.index.label, self.policy.cast
                problem = warm_plan.compare_table(step, partitions, stored, label, cast)
            elif not self.index.prefix:
                raise ValueError(INCOMPLETE_MESSAGE)
            if problem is None:
                diagnosis = self._diagnose(step, partitions, stored)
                action = diagnosis.action
                if step.slot_of is None:
                    self._warnings += diagnosis.warnings
                if diagnosis.error is not None:
                    raise InvalidArgumentError(diagnosis.error)
        except (Error, TypeError, ValueError) as error:
            problem = Problem.from_error(error)
        if stored is not None and stored.dtype != first.dtype:
            action = f"{action}, cast to {type_text(first.dtype)}"
        self._rows[step.group] = Row(
            step.group,
            step.tensor,
            stored,
            first.full_shape,
            first.dtype,
            action,
            problem,
            handle=first.handle,
        )
        if problem is not None:
            self._problems.append(problem)
            return
        handles = [partition.handle for partition in partitions]
        remap = TableRemap(self.index.prefix, step, stored, handles, self.options)
        self._remaps[step.group] = remap

    def _diagnose(
        self, step: Remap, partitions: Sequence[Variable], stored: Stored | None
    ) -> Diagnosis:
        """Diagnoses the vocabularies of a table.

        Raises:
            tf.errors.NotFoundError, InvalidArgumentError: In eager mode, in which the vocabularies
                are joined now.
            TypeError, ValueError: The backup initializer cannot be called, or a size is out of
                range.
        """
        info = step.info
        if info.backup_initializer is not None:
            fill_values.check_callable(info.backup_initializer)
        if not -(1 << 63) <= info.old_vocab_size < 1 << 63:
            size = format_value(info.old_vocab_size)
            raise ValueError(f"old_vocab_size {size} is no 64-bit integer")
        new, old = path_in_ops(info.new_vocab), path_in_ops(info.old_vocab)
        if is_remote(new) or is_remote(old):
            return Diagnosis("remapped", ())
        shape = partitions[0].full_shape
        axis = int(info.axis)
        question = RemapInputs(
            variable=step.group,
            new=new,
            old=old,
            new_size=info.new_vocab_size,
            old_size=info.old_vocab_size,
            axis=axis,
            wanted=step.wanted,
            room=None if shape is None else shape[axis],
            num_oov=info.num_oov_buckets,
            table_rows=None if stored is None else stored.shape[axis],
        )
        # The join of our ops in this process is cached for them.
        with_library = self.options.op != "stock" and library_is_usable()
        join = op_library.join if with_library else vocab_diagnosis.join_files
        now = tf.executing_eagerly()
        try:
            answer = vocab_diagnosis.diagnose(
                question, join, exact=self.is_inspected or now, is_immediate=now
            )
        except VocabularyNotFoundError as error:
            raise translated(error) from error
        except (Error, ValueError) as error:
            raise InvalidArgumentError(f"{step.group!r}: {error}") from error
        if answer.error is None or all(is_here(each.handle.device) for each in partitions):
            return answer
        # The other machine may have other files.
        return answer._replace(warnings=(*answer.warnings, answer.error), error=None)

    def run(self) -> None:
        """Runs all steps. In a graph all remapped values are built before any variable changes.

        In eager mode they are arrays, which might not all fit into memory together.
        """
        ready: dict[str, list[Any]] = {}
        if not tf.executing_eagerly():
            ready = {group: remap.values() for group, remap in self._remaps.items()}
        debug = tf.compat.v1.logging.debug
        loads = iter(self._loads)
        for step in self._steps:
            if self._rows[step.group].is_loaded:
                for line in warm_plan.log_messages(step):
                    debug("%s", line)
            if step.group in self._remaps:
                self._remaps[step.group].assign(ready.get(step.group))
            if isinstance(step, Load) and step.repeats is not None:
                debug(
                    "Requested prev_var_name %s initialize both %s and %s; calling "
                    "init_from_checkpoint.",
                    step.tensor,
                    *(
                        variables.as_given(self._groups[name])
                        for name in (step.repeats, step.group)
                    ),
                )
                next(loads).run()
        next(loads).run()
