# SPDX-License-Identifier: Apache-2.0
"""One call of ``init_from_checkpoint``: plans all loads, then replaces the initializers.

``warm_start`` plans and executes its loads of whole tensors by the same functions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tensorbundle import assignment
from tensorbundle.assignment import Assignment, AssignmentMap, Target
from tensorbundle.filenames import AnyPath
from tensorbundle.load_plan import LoadReport, Policy, Problem, Row
from tensorbundle.load_source import LoadSource
from tensorbundle.tf import variables
from tensorbundle.tf.backend import (
    NAME,
    Backend,
    ReadRequest,
    StockBackend,
    is_native_for_reads,
    on_cpu_of,
    plan_read,
    read_in_groups,
)
from tensorbundle.tf.native_backend import NativeBackend
from tensorbundle.tf.options import Options
from tensorbundle.tf.plans import LoadPlan, with_plan
from tensorbundle.variables import Variable

_NAMELESS = (
    "In eager mode variables cannot be looked up by name, as names are those of get_variable: pass "
    "the variable itself"
)


def run(
    ckpt_dir_or_file: AnyPath,
    assignment_map: AssignmentMap,
    *,
    as_tensorflow: bool = False,
    **policy: Any,
) -> LoadReport:
    """Plans and carries out ``tensorbundle.init_from_checkpoint``.

    Args:
        ckpt_dir_or_file: The checkpoint.
        assignment_map: From names in the checkpoint to variables.
        as_tensorflow: Accept only the paths that TensorFlow's function accepts.
        policy: Keywords of ``Policy``.
    """
    make = functools.partial(_make_plan, assignment_map, Policy(**policy))
    return with_plan(LoadPlan.carry_out, ckpt_dir_or_file, make, as_tensorflow=as_tensorflow)


def plan(path: AnyPath, assignment_map: AssignmentMap, **policy: Any) -> LoadPlan:
    """Plans ``tensorbundle.init_from_checkpoint``. Args: as for ``run``."""
    make = functools.partial(_make_plan, assignment_map, Policy(**policy))
    return with_plan(LoadPlan.complete, path, make)


def _make_plan(
    assignment_map: AssignmentMap, policy: Policy, index: LoadSource, options: Options
) -> LoadPlan:
    targets, problems = _targets(assignment_map)
    loads = plan_loads(index, targets, options, policy, variables.VariableStore())
    warnings = loads.warnings
    if not targets and not problems:
        warnings = ("The assignment map is empty: no variable is initialized",)
    problems += loads.problems
    return LoadPlan(
        "init_from_checkpoint", index, policy, loads.rows, problems, warnings, loads.run
    )


def _targets(assignment_map: AssignmentMap) -> tuple[list[tuple[str, Target]], list[Problem]]:
    """Resolves the values of the map. Returns the targets and the problems."""
    pairs = assignment_map.items() if isinstance(assignment_map, Mapping) else assignment_map
    targets: list[tuple[str, Target]] = []
    problems: list[Problem] = []
    for tensor, value in pairs:
        try:
            targets.append((tensor, variables.target_of(value)))
        except (TypeError, ValueError, RuntimeError) as error:
            problems.append(Problem.from_error(error))
    return targets, problems


# None for empty slices, which are not read.
_BackendType = Callable[[bytes, Options], Backend] | None


class Loads(NamedTuple):
    """The planned loads of an assignment map.

    Attributes:
        checkpoint: The checkpoint.
        options: How values are read.
        rows: One row per variable.
        problems: The errors in the map and in its tensors and variables.
        warnings: Messages for the log.
        requests: For each assignment the reads of its variables.
    """

    checkpoint: LoadSource
    options: Options
    rows: Sequence[Row]
    problems: Sequence[Problem]
    warnings: tuple[str, ...]
    requests: Sequence[tuple[Assignment, list[ReadRequest]]]

    def run(self) -> None:
        """Initializes the variables from the checkpoint, in TensorFlow's order.

        In a graph all values are built before any variable changes. In eager mode they are arrays,
        which might not all fit into memory together: there each assignment is read by itself, and
        if its tensor is corrupt, none of its variables changes.

        Raises:
            OpError: In eager mode, a read failed.
        """
        ready: dict[int, Any] = {}
        if not tf.executing_eagerly():
            ready = self._read(
                request
                for _, requests in self.requests
                if not variables.are_pruned([request.variable for request in requests])
                for request in requests
            )
        for planned, requests in self.requests:
            with variables.outside_if_pruned([request.variable for request in requests]):
                self._assign(requests, ready)
            tf.compat.v1.logging.debug(
                "Initialize variable %s from checkpoint %s with %s",
                planned.label,
                self.checkpoint.label,
                planned.name,
            )

    def _assign(self, requests: Sequence[ReadRequest], ready: Mapping[int, Any]) -> None:
        values = self._read(request for request in requests if id(request) not in ready) or ready
        for request in requests:
            value = values[id(request)]
            variables.set_initializer(request.variable, value, value)

    def _read(self, requests: Iterable[ReadRequest]) -> dict[int, Any]:
        """Returns the values in the variables' types, by the id of the request."""
        requests = list(requests)
        values = read_in_groups(requests, self._backend_of, self._read_with)
        return dict(zip(map(id, requests), map(_cast, requests, values), strict=True))

    def _backend_of(self, request: ReadRequest) -> _BackendType:
        if request.is_empty_slice:
            return None
        native = is_native_for_reads(request.variable, self.options)
        return NativeBackend if native and not self.checkpoint.is_remote else StockBackend

    def _read_with(self, backend: _BackendType, requests: Sequence[ReadRequest]) -> list[Any]:
        if backend is None:
            return [_zeros(request) for request in requests]
        return backend(self.checkpoint.prefix, self.options).read(requests)


def _zeros(request: ReadRequest) -> Any:
    with on_cpu_of(request.variable):
        return tf.zeros(request.extent, request.dtype, name=NAME)


def _cast(request: ReadRequest, value: Any) -> Any:
    """Converts a value to its variable's type."""
    wanted = request.variable.dtype.base_dtype
    if request.dtype == wanted:
        return value
    with on_cpu_of(request.variable):
        return tf.cast(value, wanted, name=f"{NAME}_cast")


def plan_loads(
    index: LoadSource,
    pairs: Iterable[tuple[str, Target]],
    options: Options,
    policy: Policy,
    store: Mapping[str, Variable],
) -> Loads:
    """Plans the loads of an assignment map without changing anything.

    Args:
        index: The checkpoint.
        pairs: (name in the checkpoint, target).
        options: How values are read.
        policy: Whether values are converted.
        store: The graph's variables by full name.
    """
    unnamed_reason = _NAMELESS if not store and tf.executing_eagerly() else ""
    plan = assignment.plan_assignments(
        pairs, index, store, cast=policy.cast, unnamed_reason=unnamed_reason
    )
    rows: list[Row] = []
    problems = list(plan.problems)
    requests: list[tuple[Assignment, list[ReadRequest]]] = []
    for row in plan.rows:
        if row.load is not None:
            try:
                for variable, _ in row.load.partitions:
                    variables.check_initializer_is_kept(variable.handle)
                reads = [plan_read(index, row.load, options, *each) for each in row.load.partitions]
                requests.append((row.load, reads))
            except ValueError as error:
                problems.append(Problem.from_error(error))
                row = row._replace(problem=problems[-1], load=None)
        rows.append(row)
    return Loads(index, options, rows, problems, plan.warnings, requests)
