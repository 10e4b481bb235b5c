# SPDX-License-Identifier: Apache-2.0
"""One call of ``warm_start``: plans all loads and remaps, then replaces the initializers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tensorbundle import vocab_diagnosis
from tensorbundle.arguments import format_value
from tensorbundle.errors import CheckpointNotFoundError, Error, VocabularyNotFoundError
from tensorbundle.filenames import AnyPath
from tensorbundle.load_plan import Policy, Problem, Row, Stored, type_text
from tensorbundle.tf import fill_values, op_library, plans
from tensorbundle.tf.backend import library_is_usable
from tensorbundle.tf.checkpoint_index import CheckpointIndex, is_remote, open_index
from tensorbundle.tf.errors import InvalidArgumentError, translated
from tensorbundle.tf.options import Options
from tensorbundle.tf.remapped_values import path_in_ops, remap_variable
from tensorbundle.tf.variables import (
    as_given,
    check_initializer_is_kept,
    group_of,
    grouped,
    nothing_selected,
    on_another_job,
    outside_if_pruned,
    set_initializer,
    target,
)
from tensorbundle.variables import Variable
from tensorbundle.vocab import INCOMPLETE_MESSAGE, VocabInfo
from tensorbundle.vocab_diagnosis import Diagnosis, RemapInputs
from tensorbundle.warm_plan import (
    Group,
    Load,
    Plan,
    Remap,
    compare_table,
    find_keys,
    log_messages,
    plan_warm_start,
)


class WarmStart:
    """One call, in the context in which its ops are created.

    Attributes:
        path: The caller's path of the checkpoint.
        options: The options of reading.
        policy: What is skipped, and whether values are converted.
        exact: Whether vocabularies of any size are joined for the diagnosis.
        index: The checkpoint, or None if it does not exist yet. As in TensorFlow, it must exist at
            the call only to load a variable without a vocabulary, else when the initializers run.
        prefix: The prefix that ops get.
    """

    def __init__(
        self,
        path: AnyPath,
        options: Options,
        policy: Policy,
        exact: bool = False,
        as_tensorflow: bool = False,
    ) -> None:
        """Opens the checkpoint if it exists.

        Raises:
            ValueError, TypeError, OpError: As ``open_index``.
        """
        self.path = path
        self.options = options
        self.policy = policy
        self.exact = exact
        self.index: CheckpointIndex | None = None
        self._absent: Exception | None = None
        try:
            self.index = open_index(path, as_tensorflow=as_tensorflow)
        except CheckpointNotFoundError as error:
            if isinstance(error, ValueError):  # the path can never become a checkpoint's
                raise
            self._absent = error
        self.prefix = os.fsencode(self.path) if self.index is None else self.index.prefix
        self._rows: list[Row] = []
        self._problems: list[Problem] = []
        self._warnings: list[str] = []
        self._remaps: list[_VariableRemap] = []
        self._preamble: list[str] = []
        self._steps: list[Callable[[Values], None]] = []

    def close(self) -> None:
        """Lets go of the checkpoint."""
        if self.index is not None:
            self.index.close()

    def prepare(
        self,
        wanted: Any,
        infos: Mapping[str, Any],
        names: Mapping[str, str],
        *,
        announce: bool = False,
    ) -> plans.Prepared:
        """Plans a ``warm_start`` without changing anything.

        Args:
            wanted: The selection of variables.
            infos: Their vocabularies.
            names: Their names in the checkpoint.
            announce: Whether to log the checkpoint's path first.

        Raises:
            ValueError: The selection has an invalid type; or the object graph is corrupt.
        """
        if announce:
            self._preamble.append(f"Warm-starting from: {self.path!s}")
        variables, originals, from_trainable = grouped(wanted)
        if from_trainable:
            self._preamble.append("Warm-starting variables only in TRAINABLE_VARIABLES.")
        if not names and self.index is not None and self.index.is_object_based():
            names, problems = find_keys(
                self.index.find, variables, skip=self.policy.missing == "skip"
            )
            self._problems += problems
        groups = {name: group_of(partitions, wanted) for name, partitions in variables.items()}
        plan = plan_warm_start(
            groups, infos, names, load_others=bool(wanted), stored=self._shape_of
        )
        self._problems += plan.problems
        self._add_all(plan, variables, originals)
        count = sum(row.is_loaded for row in self._rows)
        self._log("info", "Warm-started %d variables.", count)
        self._problems += plan.unused
        if not plan.groups:
            self._warnings.append(nothing_selected(wanted))
        return self._prepared("warm_start")

    def prepare_one(
        self, name: str, partitions: list[Variable], info: VocabInfo, renamed: str | None
    ) -> plans.Prepared:
        """Plans a ``warm_start_var_with_vocab`` without changing anything."""
        plan = plan_warm_start(
            {name: Group(tuple(partitions))},
            {name: info},
            {name: renamed} if renamed else {},
            load_others=False,
            stored=self._shape_of,
        )
        self._problems += plan.problems
        for step in plan.steps:
            assert isinstance(step, Remap)
            self._add_remap(step, partitions)
        return self._prepared("warm_start of one variable")

    def _prepared(self, function: str) -> plans.Prepared:
        used = [row.stored.key for row in self._rows if row.stored and row.is_loaded]
        return plans.Prepared(
            f"{function} from {str(self.path)!r}",
            tuple(self._rows),
            tuple(self._problems),
            tuple(self._warnings),
            self.policy,
            () if self.index is None else self.index.unused(used),
            self._run,
            tuple(self._preamble),
        )

    def _run(self) -> None:
        """Runs all steps. In a graph all remapped values are built before any variable changes.

        In eager mode they are arrays, which might not all fit into memory together.
        """
        ready: Values = {}
        if not tf.executing_eagerly():
            ready = {each.group: each.values() for each in self._remaps}
        for step in self._steps:
            step(ready)

    def _add_all(
        self,
        plan: Plan,
        variables: Mapping[str, list[Variable]],
        originals: Mapping[str, list[Any]],
    ) -> None:
        """Adds the steps in TensorFlow's order.

        Tensors without a vocabulary are loaded in one batch at the end. If two variables take the
        same tensor, the batch so far is loaded first.
        """
        batches: list[list[Load]] = [[]]
        for step in plan.steps:
            if isinstance(step, Load):
                if step.repeats is not None:
                    batches.append([])
                batches[-1].append(step)
        prepared = [self._prepare_loads(batch, variables, originals) for batch in batches]
        rows = {
            (number, row.tensor): row for number, each in enumerate(prepared) for row in each.rows
        }
        number = 0
        for step in plan.steps:
            if isinstance(step, Remap):
                self._add_remap(step, variables[step.group])
                continue
            row = rows.get((number + (step.repeats is not None), step.tensor))
            if row is not None:
                self._rows.append(row)
            if row is None or row.problem is None:
                self._describe(step)
            if step.repeats is not None:
                self._log(
                    "debug",
                    "Requested prev_var_name %s initialize both %s and %s; calling "
                    "init_from_checkpoint.",
                    step.tensor,
                    as_given(originals[step.repeats]),
                    as_given(originals[step.group]),
                )
                self._load(prepared[number])
                number += 1
        self._load(prepared[number])

    def _prepare_loads(
        self,
        batch: list[Load],
        variables: Mapping[str, list[Variable]],
        originals: Mapping[str, list[Any]],
    ) -> plans.Loads:
        if not batch:
            return plans.Loads(self.path, None, (), (), (), [], self.options)
        if self.index is None:
            assert self._absent is not None
            problems = (plans.raised(self._absent),)
            return plans.Loads(self.path, None, (), problems, (), [], self.options)
        pairs = [
            (step.tensor, target(variables[step.group], originals[step.group])) for step in batch
        ]
        return plans.prepare(self.index, self.path, pairs, {}, self.options, self.policy)

    def _load(self, prepared: plans.Loads) -> None:
        self._problems += prepared.problems
        self._warnings += prepared.warnings
        self._steps.append(lambda _: prepared.run())

    def _add_remap(self, step: Remap, partitions: list[Variable]) -> None:
        """Adds the remap of one table."""
        stored, problem = self._find_table(step, partitions)
        answer = Diagnosis("remapped", ())
        if problem is None:
            answer, problem = self._ask(step, partitions, stored)
        if problem is not None:
            self._problems.append(problem)
        first = partitions[0]
        cast = stored is not None and stored.dtype != first.dtype
        action = f"{answer.action}, cast to {type_text(first.dtype)}" if cast else answer.action
        self._rows.append(
            Row(
                step.group,
                step.tensor,
                stored,
                first.full_shape,
                first.dtype,
                action,
                problem,
                handle=first.handle,
            )
        )
        if problem is not None:
            return
        self._describe(step)
        handles = [partition.handle for partition in partitions]
        each = _VariableRemap(self.prefix, step, stored, handles, self.options)
        self._remaps.append(each)
        self._steps.append(each.assign)

    def _ask(
        self, step: Remap, partitions: list[Variable], stored: Stored | None
    ) -> tuple[Diagnosis, Problem | None]:
        """Diagnoses a table's vocabularies."""
        try:
            answer = _diagnose(step, partitions, stored, self.options, exact=self.exact)
        except (Error, TypeError, ValueError) as error:
            return Diagnosis("remapped", ()), plans.raised(error)
        if step.slot_of is None:
            self._warnings += answer.warnings
        if answer.error is None:
            return answer, None
        return answer, plans.raised(InvalidArgumentError(answer.error))

    def _find_table(
        self, step: Remap, partitions: list[Variable]
    ) -> tuple[Stored | None, Problem | None]:
        """Returns the stored table, and the problem with it or its variables, if any."""
        try:
            for partition in partitions:
                check_initializer_is_kept(partition.handle)
            if self.index is None:
                return None, None if self.path else plans.raised(ValueError(INCOMPLETE_MESSAGE))
            stored = self.index.find(step.tensor)
        except (Error, ValueError) as error:
            return None, plans.raised(error)
        return stored, compare_table(step, partitions, stored, self.index.label, self.policy.cast)

    def _describe(self, step: Remap | Load) -> None:
        for line in log_messages(step):
            self._log("debug", "%s", line)

    def _log(self, level: str, text: str, *args: Any) -> None:
        """Adds a step that writes a line to the log."""
        self._steps.append(lambda _: getattr(tf.compat.v1.logging, level)(text, *args))

    def _shape_of(self, tensor: str) -> tuple[int, ...] | None:
        return None if self.index is None else self.index.shape_of(tensor)


# Remapped values by group, for every partition.
Values = dict[str, list[tuple[Any, Any, Any]]]


class _VariableRemap(NamedTuple):
    """The remap of one table's variables.

    Attributes:
        prefix: The checkpoint.
        step: The plan for the table.
        stored: The table; None if it is not known yet.
        variables: Its partitions.
        options: The options of reading.
    """

    prefix: bytes
    step: Remap
    stored: Stored | None
    variables: list[Any]
    options: Options

    @property
    def group(self) -> str:
        """The table's name."""
        return self.step.group

    def values(self) -> list[tuple[Any, Any, Any]]:
        """Returns (variable, value, value of ``initial_value``) for every partition.

        The last is None if ``initial_value`` must stay as it is, as TensorFlow leaves it.
        """
        with outside_if_pruned(self.variables):
            since = fill_values.version()
            remapped = remap_variable(
                self.prefix, self.step, self.stored, self.variables, self.options
            )
            initial = remapped
            if self.step.slot_of is None and fill_values.may_be_seeded(
                self.step.info.backup_initializer
            ):
                initial = [fill_values.independent(value, since) for value in remapped]
        return list(zip(self.variables, remapped, initial, strict=True))

    def assign(self, ready: Values) -> None:
        """Replaces the initializers of the variables by their values."""
        values = ready.get(self.group) or self.values()
        with outside_if_pruned(self.variables):
            for variable, value, initial in values:
                set_initializer(variable, value, initial)


def _diagnose(
    step: Remap,
    partitions: Sequence[Variable],
    stored: Stored | None,
    options: Options,
    *,
    exact: bool,
) -> Diagnosis:
    """Diagnoses the vocabularies of a table.

    Args:
        step: The plan for the table.
        partitions: Its variables.
        stored: The stored table, if known.
        options: The options of reading.
        exact: Whether to join vocabularies of any size.

    Raises:
        tf.errors.NotFoundError, InvalidArgumentError: In eager mode, in which the vocabularies are
            joined now.
        TypeError, ValueError: The backup initializer cannot be called, or a size is out of range.
    """
    info = step.info
    if info.backup_initializer is not None:
        fill_values.check_callable(info.backup_initializer)
    if not -(1 << 63) <= info.old_vocab_size < 1 << 63:
        raise ValueError(f"old_vocab_size {format_value(info.old_vocab_size)} is no 64-bit integer")
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
    with_library = options.op != "stock" and library_is_usable()
    join = op_library.join if with_library else vocab_diagnosis.join_files
    now = tf.executing_eagerly()
    try:
        answer = vocab_diagnosis.diagnose(question, join, exact=exact or now, is_immediate=now)
    except VocabularyNotFoundError as error:
        raise translated(error) from error
    except (Error, ValueError) as error:
        raise InvalidArgumentError(f"{step.group!r}: {error}") from error
    if answer.error is None or not any(
        on_another_job(partition.handle) for partition in partitions
    ):
        return answer
    # The other machine may have other files.
    return answer._replace(warnings=(*answer.warnings, answer.error), error=None)
