# SPDX-License-Identifier: Apache-2.0
"""Load plans: inspected first and applied later, or applied at once by the functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tensorbundle.errors import TensorNotFoundError
from tensorbundle.load_plan import Policy, Problem, Row, listed, report_of, summary, table
from tensorbundle.load_report import LoadReport, counted
from tensorbundle.tf import errors, replicas


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
        import tensorflow as tf

        for line in self.preamble:
            tf.compat.v1.logging.info("%s", line)
        blocking = self.blocking
        if blocking:
            raise as_raised(blocking[0], len(blocking) - 1)
        for warning in self.warnings:
            warn(warning)
        self.run()
        return report_of(self.rows, self.unused)


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
        return replicas.once_unconverted(lambda _: self._prepared.carry_out())

    def __repr__(self) -> str:
        return (
            f"<tensorbundle.tf.LoadPlan {self._prepared.title}: "
            f"{counted(len(self._prepared.rows), 'variable')}, "
            f"{counted(len(self.problems), 'problem')}>"
        )

    def __str__(self) -> str:
        rows = self._prepared.rows
        parts = (
            f"{self._prepared.title}: {counted(len(rows), 'variable')}",
            table(rows, self._prepared.policy),
            summary("problems", self.problems),
            summary("warnings", self.warnings),
            listed("tensors that are not used", self.unused),
            listed("variables that are not touched", self.untouched),
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
        return errors.shape_mismatch(str(error))
    if problem.kind == "dtype":
        return errors.invalid_argument(str(error))
    if type(error) is TensorNotFoundError:
        return errors.translated(error)
    return error


def warn(text: str) -> None:
    """Writes a warning to TensorFlow's log."""
    import tensorflow as tf

    tf.compat.v1.logging.warning("%s", text)


def current_home() -> Any:
    """Returns the graph that is being built; None in eager mode."""
    import tensorflow as tf

    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _add_to_message(error: Exception, text: str) -> None:
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (error.args[0].removesuffix(text) + text,)


def _others(touched: Iterable[str]) -> Iterable[str]:
    """Yields the names of the graph's variables that are not in `touched`."""
    import tensorflow as tf

    if tf.executing_eagerly():
        return
    from tensorbundle.tf import variable_metadata

    seen = set(touched)
    for variable in tf.compat.v1.global_variables():
        name = variable_metadata.whole_name(variable)
        if name not in seen:
            seen.add(name)
            yield name
