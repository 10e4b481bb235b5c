# SPDX-License-Identifier: Apache-2.0
"""Load plans: inspected first and applied later, or applied at once by the functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import tensorflow as tf

from tensorbundle import assignment
from tensorbundle.assignment import Assignment, Target
from tensorbundle.errors import TensorNotFoundError
from tensorbundle.load_plan import (
    LoadReport,
    Policy,
    Problem,
    Row,
    build_report,
    format_count,
    format_list,
    format_names,
    format_table,
)
from tensorbundle.tf import errors
from tensorbundle.tf.backend import NAME, ReadRequest, is_native_for_reads, on_cpu_of, plan_read
from tensorbundle.tf.checkpoint_index import CheckpointIndex
from tensorbundle.tf.native_backend import NativeBackend
from tensorbundle.tf.options import Options, current, in_context
from tensorbundle.tf.stock_backend import StockBackend
from tensorbundle.tf.variables import (
    are_pruned,
    check_initializer_is_kept,
    outside_if_pruned,
    set_initializer,
    whole_name,
)
from tensorbundle.variables import Variable

Result = TypeVar("Result")


def once(work: Callable[[Options], Result]) -> Result:
    """Runs `work` once, in cross-replica context. AutoGraph does not convert it.

    Args:
        work: Called with the options that are in effect at the call.

    Returns:
        The result of `work`, in every replica.
    """
    result: Result = tf.autograph.experimental.do_not_convert(_once)(work)
    return result


def _once(work: Callable[[Options], Result]) -> Result:
    given = in_context()

    def run(_strategy: Any) -> Result:
        # merge_call may run this in another thread.
        return work(given or current())

    if tf.distribute.in_cross_replica_context():
        return run(None)
    result: Result = tf.distribute.get_replica_context().merge_call(run)
    return result


class Prepared(NamedTuple):
    """The plan of one call, before anything is changed.

    Attributes:
        title: The function and the checkpoint.
        rows: One row per variable.
        problems: The errors in TensorFlow's order, including those that are skipped.
        warnings: Messages for the log.
        policy: Which problems are skipped.
        unused: Tensors that are not loaded into any variable.
        run: Executes the plan. Requires that no problem is blocking.
        preamble: Lines for the log that precede the check for problems.
    """

    title: str
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    policy: Policy
    unused: tuple[str, ...]
    run: Callable[[], None]
    preamble: tuple[str, ...] = ()

    @property
    def blocking(self) -> list[Problem]:
        """The problems that are not skipped."""
        return [problem for problem in self.problems if not self.policy.skips(problem)]

    def carry_out(self) -> LoadReport:
        """Executes the plan.

        Raises:
            Exception: The first problem that is not skipped, before anything is changed.
        """
        for line in self.preamble:
            tf.compat.v1.logging.info("%s", line)
        blocking = self.blocking
        if blocking:
            raise as_raised(blocking[0], len(blocking) - 1)
        for warning in self.warnings:
            warn(warning)
        self.run()
        return build_report(self.rows, self.unused)


class LoadPlan:
    """The plan of an ``init_from_checkpoint`` or ``warm_start``. No variable has been changed.

    ``str(plan)`` is a table. Created by ``plan_init`` and ``plan_warm_start``.

    Attributes:
        problems: All errors, as messages. Empty if ``apply`` would not raise.
        warnings: Unusual but valid settings, as messages.
        unused: The names of the checkpoint's tensors that are not loaded into any variable.
        untouched: The names of the graph's variables that are not initialized, including skipped
            ones. Empty in eager mode, where the set of variables is unknown.
    """

    def __init__(self, prepared: Prepared, untouched: Sequence[str], home: Any) -> None:
        """Wraps the plan of a call.

        Args:
            prepared: The plan.
            untouched: See the attribute.
            home: The graph that it was made for; None in eager mode.
        """
        self.problems = tuple(map(str, prepared.blocking))
        self.warnings = prepared.warnings
        self.unused = prepared.unused
        self.untouched = tuple(untouched)
        self._prepared = prepared
        self._home = home

    def apply(self) -> LoadReport:
        """Executes the plan, as the function would have done.

        Raises:
            ValueError: The plan was made for another graph; or the function's exception if there
                are ``problems``. No variable has been changed then.
            OpError: In eager mode, a read failed.
        """
        if current_home() is not self._home:
            raise ValueError(
                "the plan was made for another graph, or for eager mode: apply it where it was made"
            )
        return once(lambda _: self._prepared.carry_out())

    def __repr__(self) -> str:
        return (
            f"<tensorbundle.tf.LoadPlan {self._prepared.title}: "
            f"{format_count(len(self._prepared.rows), 'variable')}, "
            f"{format_count(len(self.problems), 'problem')}>"
        )

    def __str__(self) -> str:
        rows = self._prepared.rows
        parts = (
            f"{self._prepared.title}: {format_count(len(rows), 'variable')}",
            format_table(rows, self._prepared.policy),
            format_list("problems", self.problems),
            format_list("warnings", self.warnings),
            format_names("tensors that are not used", self.unused),
            format_names("variables that are not touched", self.untouched),
        )
        return "\n".join(part for part in parts if part)


def planned(prepared: Prepared) -> LoadPlan:
    """Returns the public plan of a call."""
    touched = {row.variable for row in prepared.rows if row.is_loaded}
    return LoadPlan(prepared, list(_others(touched)), current_home())


def raised(error: Exception) -> Problem:
    """Converts an exception to a problem."""
    return Problem("setting", lambda: error)


def as_raised(problem: Problem, more: int) -> Exception:
    """Returns the exception that our functions raise for a problem.

    Args:
        problem: The problem.
        more: The number of other problems.
    """
    error = problem.error
    if more:
        _add_to_message(error, f" (and {more} more; a plan, of tb.tf.plan_init or "
                        "tb.tf.plan_warm_start, lists all)")  # fmt: skip
    if problem.kind == "shape":
        return errors.ShapeMismatchError(str(error))
    if problem.kind == "dtype":
        return errors.InvalidArgumentError(str(error))
    if type(error) is TensorNotFoundError:
        return errors.translated(error)
    return error


def warn(text: str) -> None:
    """Writes a warning to TensorFlow's log."""
    tf.compat.v1.logging.warning("%s", text)


def current_home() -> Any:
    """Returns the graph that is being built; None in eager mode."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _add_to_message(error: Exception, text: str) -> None:
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (error.args[0].removesuffix(text) + text,)


def _others(touched: Iterable[str]) -> Iterable[str]:
    """Yields the names of the graph's variables that are not in `touched`."""
    if tf.executing_eagerly():
        return

    seen = set(touched)
    for variable in tf.compat.v1.global_variables():
        name = whole_name(variable)
        if name not in seen:
            seen.add(name)
            yield name


class Loads(NamedTuple):
    """The planned loads of an assignment map.

    Attributes:
        label: The checkpoint's name in the log.
        checkpoint: The checkpoint; None if there is nothing to read.
        rows: One row per variable.
        problems: The errors in the map and in its tensors and variables.
        warnings: Messages for the log.
        requests: For each assignment the reads of its variables.
        options: How values are read.
    """

    label: Any
    checkpoint: CheckpointIndex | None
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    requests: Sequence[tuple[Assignment, list[ReadRequest]]]
    options: Options

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
            together = [
                request
                for _, requests in self.requests
                if not are_pruned([request.variable for request in requests])
                for request in requests
            ]
            ready = dict(zip(map(id, together), self._values(together), strict=True))
        for planned, requests in self.requests:
            with outside_if_pruned([request.variable for request in requests]):
                self._assign(requests, ready)
            tf.compat.v1.logging.debug(
                "Initialize variable %s from checkpoint %s with %s",
                planned.label,
                self.label,
                planned.name,
            )

    def _assign(self, requests: Sequence[ReadRequest], ready: Mapping[int, Any]) -> None:
        values = [ready[id(request)] for request in requests if id(request) in ready]
        for request, value in zip(requests, values or self._values(requests), strict=True):
            set_initializer(request.variable, value, value)

    def _values(self, requests: Sequence[ReadRequest]) -> list[Any]:
        """Returns the values in the variables' types."""
        if not requests:
            return []
        assert self.checkpoint is not None
        by_ours: list[ReadRequest] = []
        by_stock: list[ReadRequest] = []
        for request in requests:
            native = not self.checkpoint.is_remote and is_native_for_reads(
                request.variable, self.options
            )
            (by_ours if native else by_stock).append(request)
        values: dict[int, Any] = {}
        for kind, some in ((StockBackend, by_stock), (NativeBackend, by_ours)):
            if some:
                found = kind(self.checkpoint.prefix, self.options).read(some)
                values.update(zip(map(id, some), found, strict=True))
        return [_cast(request, values[id(request)]) for request in requests]


def _cast(request: ReadRequest, value: Any) -> Any:
    """Converts a value to its variable's type."""
    wanted = request.variable.dtype.base_dtype
    if request.dtype == wanted:
        return value
    with on_cpu_of(request.variable):
        return tf.cast(value, wanted, name=f"{NAME}_cast")


def prepare(
    index: CheckpointIndex,
    label: Any,
    pairs: Iterable[tuple[str, Target]],
    store: Mapping[str, Variable],
    options: Options,
    policy: Policy,
    *,
    unnamed_reason: str = "",
) -> Loads:
    """Plans the loads of an assignment map without changing anything.

    Args:
        index: The checkpoint.
        label: Its name in the log.
        pairs: (name in the checkpoint, target).
        store: The graph's variables by full name.
        options: How values are read.
        policy: Whether values are converted.
        unnamed_reason: Why variables cannot be looked up by name, or ``""`` if they can.
    """
    plan = assignment.plan_assignments(
        pairs, index.for_plans(), store, cast=policy.cast, unnamed_reason=unnamed_reason
    )
    rows: list[Row] = []
    problems = list(plan.problems)
    requests: list[tuple[Assignment, list[ReadRequest]]] = []
    for row in plan.rows:
        if row.load is not None:
            try:
                for variable, _ in row.load.partitions:
                    check_initializer_is_kept(variable.handle)
                reads = [plan_read(index, row.load, options, *each) for each in row.load.partitions]
                requests.append((row.load, reads))
            except ValueError as error:
                problem = raised(error)
                problems.append(problem)
                row = row._replace(problem=problem, load=None)
        rows.append(row)
    return Loads(label, index, tuple(rows), tuple(problems), plan.warnings, requests, options)
