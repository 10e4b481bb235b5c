# SPDX-License-Identifier: Apache-2.0
"""A plan that can be looked at before it is carried out: what the functions make and do at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tensorbundle.errors import TensorNotFoundError
from tensorbundle.load_plan import Policy, Problem, Row, listed, report_of, summary, table
from tensorbundle.load_report import LoadReport, counted
from tensorbundle.tf import errors, replicas


class Prepared(NamedTuple):
    """All that was decided about one call, with nothing done yet.

    Attributes:
        title: The function and the checkpoint.
        rows: A row for each variable.
        problems: What is wrong, in TensorFlow's order, what is skipped included.
        warnings: What is odd.
        policy: What is skipped.
        unused: Tensors that no variable gets.
        run: Does it. Assumes that nothing is in the way.
        begin: What the log says before it is known whether something is in the way.
    """

    title: str
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    policy: Policy
    unused: tuple[str, ...]
    run: Callable[[], None]
    begin: tuple[str, ...] = ()

    @property
    def standing(self) -> list[Problem]:
        """The problems that are not skipped."""
        return [problem for problem in self.problems if not self.policy.skips(problem)]

    def carry_out(self) -> LoadReport:
        """Does it.

        Raises:
            Exception: Of the first problem that is not skipped, before anything was done.
        """
        import tensorflow as tf

        for line in self.begin:
            tf.compat.v1.logging.info("%s", line)
        standing = self.standing
        if standing:
            raise as_raised(standing[0], len(standing) - 1)
        for warning in self.warnings:
            warn(warning)
        self.run()
        return report_of(self.rows, self.unused)


class LoadPlan:
    """What ``init_from_checkpoint`` or ``warm_start`` would do. No variable has been touched.

    ``str(plan)`` is a table for people. Made by ``plan_init`` and ``plan_warm_start``.

    Attributes:
        problems: What is in the way, all of it, in sentences. Empty where ``apply`` would raise
            nothing.
        warnings: What is odd though it has a meaning, in sentences.
        unused: The names of the checkpoint's tensors that no variable gets.
        untouched: The names of the graph's variables that get nothing, skipped ones among them.
            Empty in eager mode, where nobody knows all variables.
    """

    def __init__(self, prepared: Prepared, untouched: Sequence[str], home: Any) -> None:
        """Keeps what was decided.

        Args:
            prepared: That.
            untouched: As the attribute.
            home: The graph that it was decided for; None in eager mode.
        """
        self.problems = tuple(map(str, prepared.standing))
        self.warnings = prepared.warnings
        self.unused = prepared.unused
        self.untouched = tuple(untouched)
        self._prepared = prepared
        self._home = home

    def apply(self) -> LoadReport:
        """Does what the plan says, as the function would have done it.

        Raises:
            ValueError: It was planned for another graph; or what the function raises, if there are
                ``problems``: no variable has been touched then.
            OpError: In eager mode, whatever goes wrong while reading.
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
    """The plan that people look at."""
    touched = {row.variable for row in prepared.rows if row.is_loaded}
    return LoadPlan(prepared, list(_others(touched)), current_home())


def raised(error: Exception) -> Problem:
    """The problem that an exception tells of."""
    return Problem("setting", lambda: error)


def as_raised(problem: Problem, more: int) -> Exception:
    """The exception that a function of ours raises for a problem.

    Args:
        problem: What is wrong.
        more: How many other problems there are.
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
    """Says something to TensorFlow's log."""
    import tensorflow as tf

    tf.compat.v1.logging.warning("%s", text)


def current_home() -> Any:
    """The graph that is being built; None in eager mode."""
    import tensorflow as tf

    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _add_to_message(error: Exception, text: str) -> None:
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (error.args[0].removesuffix(text) + text,)


def _others(touched: Iterable[str]) -> Iterable[str]:
    """Names of the graph's variables that are not among some."""
    import tensorflow as tf

    if tf.executing_eagerly():
        return
    from tensorbundle.tf import facts

    seen = set(touched)
    for variable in tf.compat.v1.global_variables():
        name = facts.whole_name(variable)
        if name not in seen:
            seen.add(name)
            yield name
