# SPDX-License-Identifier: Apache-2.0
"""One warm start: settings and a graph's variables, made into initializers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from tensorbundle.assignment import Variable, plan_assignments
from tensorbundle.errors import CheckpointNotFoundError
from tensorbundle.filenames import AnyPath
from tensorbundle.paths import DirectoryWithoutCheckpointError
from tensorbundle.tf import facts, initialization, remap, restore
from tensorbundle.tf.errors import as_tensorflow_raises, shape_mismatch
from tensorbundle.tf.options import Options
from tensorbundle.tf.source import Source, open_source
from tensorbundle.warm_plan import (
    Group,
    Load,
    Plan,
    Remap,
    VocabInfo,
    described,
    object_graph_names,
    plan_warm_start,
    renames,
    selected,
)


@dataclasses.dataclass
class Start:
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

    def close(self) -> None:
        """Lets go of the checkpoint."""
        if self.source is not None:
            self.source.checkpoint.close()

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


def name_of(piece: Variable) -> str:
    """The name that TensorFlow's saver gives a variable: without ``:0``, and of the whole."""
    from tensorflow.python.training.saving import saveable_object_util

    if piece.slice is not None:
        return piece.slice.full_name
    names = list(saveable_object_util.op_list_to_dict([piece.handle]))
    return str(names[0])


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
        name = name_of(pieces[0])
        grouped.setdefault(name, []).extend(pieces)
        originals.setdefault(name, []).append(variable)
    return grouped, originals


def _group(pieces: list[Variable], wanted: Any) -> Group:
    trainable = not isinstance(wanted, list) or any(piece.handle.trainable for piece in pieces)
    return Group(tuple(pieces), trainable)


def _outside_if_left_out(variables: list[Any]) -> contextlib.AbstractContextManager[Any]:
    """Where an assignment is run: not in a graph function that keeps just what its results need."""
    import tensorflow as tf

    if all(facts.is_left_out_of_function(variable) for variable in variables):
        return tf.init_scope()  # type: ignore[no-any-return]
    return contextlib.nullcontext()


def _log() -> Any:
    import tensorflow as tf

    return tf.compat.v1.logging
