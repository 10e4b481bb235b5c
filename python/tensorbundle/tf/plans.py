# SPDX-License-Identifier: Apache-2.0
"""The plan of one call: made from the checkpoint's index, inspected, executed for all replicas."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tensorflow as tf

from tensorbundle import load_plan
from tensorbundle.errors import TensorNotFoundError
from tensorbundle.filenames import AnyPath
from tensorbundle.load_plan import LoadReport, Policy, Problem, Row
from tensorbundle.load_source import LoadSource
from tensorbundle.tf import errors
from tensorbundle.tf.checkpoint_index import open_index
from tensorbundle.tf.options import Options, current, in_context
from tensorbundle.tf.variables import whole_name

Result = TypeVar("Result")


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

    def __init__(
        self,
        function: str,
        index: LoadSource,
        policy: Policy,
        rows: Sequence[Row],
        problems: Sequence[Problem],
        warnings: Sequence[str],
        run: Callable[[], None],
        preamble: Sequence[str] = (),
    ) -> None:
        """Stores the plan of a call.

        Args:
            function: The function's name.
            index: The checkpoint.
            policy: Which problems are skipped.
            rows: One row per variable.
            problems: The errors in TensorFlow's order, including those that are skipped.
            warnings: Messages for the log.
            run: Executes the plan. Requires that all problems are skipped.
            preamble: Lines for the log that precede the check for problems.
        """
        self.problems: tuple[str, ...] = ()
        self.warnings = tuple(warnings)
        self.untouched: tuple[str, ...] = ()
        self.unused = index.unused(row.stored.key for row in rows if row.stored and row.is_loaded)
        count = load_plan.format_count(len(rows), "variable")
        self._title = f"{function} from {index.label!r}: {count}"
        self._policy = policy
        self._rows = rows
        self._blocking = [problem for problem in problems if not policy.skips(problem)]
        self._run = run
        self._preamble = preamble
        self._graph = _current_graph()

    def complete(self) -> LoadPlan:
        """Sets what only a plan for inspection needs. Requires the open checkpoint."""
        self.problems = tuple(map(str, self._blocking))
        if self._graph is not None:
            touched = {row.variable for row in self._rows if row.is_loaded}
            names = dict.fromkeys(map(whole_name, tf.compat.v1.global_variables()))
            self.untouched = tuple(name for name in names if name not in touched)
        return self

    def apply(self) -> LoadReport:
        """Executes the plan, as the function would have done.

        Raises:
            ValueError: The plan was made for another graph; or the function's exception if there
                are ``problems``. No variable has been changed then.
            OpError: In eager mode, a read failed.
        """
        if _current_graph() is not self._graph:
            raise ValueError(
                "the plan was made for another graph, or for eager mode: apply it where it was made"
            )
        return _once(lambda _: self.carry_out())

    def carry_out(self) -> LoadReport:
        """Executes the plan in the current context.

        Raises:
            Exception: The first problem that is not skipped, before anything is changed.
        """
        for line in self._preamble:
            tf.compat.v1.logging.info("%s", line)
        if self._blocking:
            raise _as_raised(self._blocking[0], len(self._blocking) - 1)
        for warning in self.warnings:
            tf.compat.v1.logging.warning("%s", warning)
        self._run()
        return load_plan.build_report(self._rows, self.unused)

    def __repr__(self) -> str:
        problems = load_plan.format_count(len(self.problems), "problem")
        return f"<tensorbundle.tf.LoadPlan {self._title}, {problems}>"

    def __str__(self) -> str:
        parts = (
            self._title,
            load_plan.format_table(self._rows, self._policy),
            load_plan.format_list("problems", self.problems),
            load_plan.format_list("warnings", self.warnings),
            load_plan.format_names("tensors that are not used", self.unused),
            load_plan.format_names("variables that are not touched", self.untouched),
        )
        return "\n".join(part for part in parts if part)


def with_plan(
    finish: Callable[[LoadPlan], Result],
    path: AnyPath,
    make: Callable[[LoadSource, Options], LoadPlan],
    **opening: bool,
) -> Result:
    """Makes the plan of a call, and executes or completes it, once for all replicas.

    Args:
        finish: ``LoadPlan.carry_out`` or ``LoadPlan.complete``.
        path: The checkpoint.
        make: Makes the plan, with the options that are in effect at the call.
        opening: Keywords of ``open_index``.
    """

    def work(options: Options) -> Result:
        with contextlib.closing(open_index(path, **opening)) as index:
            return finish(make(index, options))

    return _once(work)


def _once(work: Callable[[Options], Result]) -> Result:
    """Runs `work` with the current options, once, in cross-replica context, without AutoGraph."""
    # Not as a nested function, which AutoGraph would convert.
    result: Result = tf.autograph.experimental.do_not_convert(_in_cross_replica_context)(work)
    return result


def _in_cross_replica_context(work: Callable[[Options], Result]) -> Result:
    given = in_context()

    def run(_strategy: Any = None) -> Result:
        # merge_call may run this in another thread.
        return work(given or current())

    if tf.distribute.in_cross_replica_context():
        return run()
    result: Result = tf.distribute.get_replica_context().merge_call(run)
    return result


def _current_graph() -> Any:
    """Returns the graph that is being built; None in eager mode."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _as_raised(problem: Problem, more: int) -> Exception:
    """Returns the exception that our functions raise for a problem, if there are `more` others."""
    error = problem.error
    lists_all = "a plan, of tb.tf.plan_init or tb.tf.plan_warm_start, lists all"
    suffix = f" (and {more} more; {lists_all})" if more else ""
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (error.args[0].removesuffix(suffix) + suffix,)
    if problem.kind == "shape":
        return errors.ShapeMismatchError(str(error))
    if problem.kind == "dtype":
        return errors.InvalidArgumentError(str(error))
    if type(error) is TensorNotFoundError:
        return errors.translated(error)
    return error
