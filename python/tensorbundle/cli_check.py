# SPDX-License-Identifier: Apache-2.0
"""The commands ``verify``, ``diff`` and ``plan``, which compare and write nothing."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

import click

import tensorbundle
from tensorbundle import assignment, diff_report, dtypes, load_plan, terminal
from tensorbundle.cli_options import (
    DIFFERENT,
    OK,
    UNREADABLE,
    CheckpointPath,
    FilePath,
    Pair,
    TensorName,
    checkpoint_argument,
    examples,
    json_option,
    rename_option,
    select,
)
from tensorbundle.diff_report import DiffReport
from tensorbundle.load_plan import Policy, Row
from tensorbundle.load_source import LocalSource
from tensorbundle.tables import NUMBERS, plural, size_text
from tensorbundle.terminal import Cell, Column
from tensorbundle.variables import Variable
from tensorbundle.verification import Damage, VerifyReport, group_by_cause, summarize

# The number of each type.
_NUMBERS = {dtypes.stored_name(number): number for number in range(len(dtypes.BY_NUMBER))}


@click.command(
    "verify",
    short_help="Compare every byte with its checksum.",
    epilog=examples(
        "tensorbundle verify model.ckpt-1000",
        "tensorbundle verify model.ckpt-1000 --names 'embedding*'",
    ),
)
@checkpoint_argument
@click.option(
    "--names",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    type=TensorName(),
    help="Verify only these tensors. Can be repeated.",
)
@json_option
def verify(checkpoint: str, patterns: tuple[str, ...], as_json: bool) -> int:
    """Compares every byte of a checkpoint with its checksums.

    CKPT is a prefix, a directory, or one of the checkpoint's files. PATTERN, of --names, selects
    tensors by name, with *, ? and [].

    Exit status: 1 if bytes are damaged or missing, 2 if the system cannot read them.
    """
    start = time.monotonic()
    with tensorbundle.open(checkpoint, verify="none") as opened:
        names = select(opened, patterns) if patterns else None
        count = len(opened) if names is None else len(names)
        with terminal.progress(checkpoint, "verify") as report_progress:
            report = opened.verify(names, progress=report_progress)
    if as_json:
        terminal.print_json(
            {
                "path": checkpoint,
                "ok": report.ok,
                "checked_bytes": report.checked_bytes,
                "damaged": [dataclasses.asdict(item) for item in report.damaged],
                "unreadable": [dataclasses.asdict(item) for item in report.unreadable],
                "warnings": list(report.warnings),
            }
        )
    elif terminal.for_people():
        _print_report(report, count, time.monotonic() - start)
    else:
        _print_report_lines(report)
    if report.damaged or report.ok:
        return DIFFERENT if report.damaged else OK
    terminal.print_error("; ".join(summarize(report.unreadable)))
    return UNREADABLE


def _findings(report: VerifyReport) -> list[tuple[str, tuple[Damage, ...]]]:
    return [("damaged", report.damaged), ("unreadable", report.unreadable)]


def _print_report_lines(report: VerifyReport) -> None:
    """Prints a summary, and a tab-separated line per finding."""
    counts = [f"{len(found)} {kind}" for kind, found in _findings(report) if found]
    click.echo(f"{', '.join(counts) or 'ok'}: {report.checked_bytes} bytes checked")
    for kind, findings in _findings(report):
        for text, group in group_by_cause(findings).items():
            # The cause of several findings is printed once, before them.
            shared = len(group) > 1
            if shared:
                terminal.print_line("cause", group[0].file, text)
            for item in group:
                message = "same cause as above" if shared else item.message
                terminal.print_line(kind, item.tensor, item.file, item.offset, item.nbytes, message)
    for warning in report.warnings:
        terminal.print_line("warning", warning)


def _print_report(report: VerifyReport, count: int, seconds: float) -> None:
    """Prints a summary, and the findings by cause, for people."""
    checked = terminal.rate_text("checked", report.checked_bytes, seconds)
    if report.ok:
        terminal.print_text(f"ok: {plural(count, 'tensor')}, {checked}", "good")
    else:
        parts = [
            f"{len({item.tensor for item in found}):,} of {plural(count, 'tensor')} {kind}"
            for kind, found in _findings(report)
            if found
        ]
        terminal.print_text(f"{', '.join(parts)}; {checked}", "bad")
    for _, findings in _findings(report):
        for text, group in group_by_cause(findings).items():
            terminal.print_text()
            terminal.print_text(text)
            if len(group) > 1:
                rows = [[item.tensor, f"{item.offset:,}", size_text(item.nbytes)] for item in group]
                columns = [
                    Column("tensor", fold=True),
                    Column("offset", right=True),
                    Column("size", right=True),
                ]
                terminal.print_table(columns, rows)
    for warning in report.warnings:
        terminal.print_text(f"warning: {warning}", "warning")


@click.command(
    "diff",
    short_help="Compare two checkpoints.",
    epilog=examples(
        "tensorbundle diff model.ckpt-1000 model.ckpt-2000 --values",
        "tensorbundle diff old new --rename '^bert/=encoder/' --rtol 1e-5",
    ),
)
@click.argument("first", metavar="A", type=CheckpointPath())
@click.argument("second", metavar="B", type=CheckpointPath())
@rename_option("Replace every match of a regular expression in the names of A. Can be repeated.")
@click.option("--rtol", type=float, default=0.0, metavar="X", help="The relative tolerance.")
@click.option("--atol", type=float, default=0.0, metavar="X", help="The absolute tolerance.")
@click.option(
    "--values", is_flag=True, help="Read what differs, and show how many values and how much."
)
@json_option
def diff(
    first: str,
    second: str,
    renames: tuple[tuple[str, str], ...],
    rtol: float,
    atol: float,
    values: bool,
    as_json: bool,
) -> int:
    """Compares two checkpoints.

    The checksums in the indexes decide, so that equal checkpoints are compared in milliseconds.
    Values are read with --values or a tolerance, and only where the checksums differ.

    Exit status: 0 if both have the same tensors, 1 if they differ.
    """
    with terminal.progress(second, "diff") as report_progress:
        report = tensorbundle.diff(
            first,
            second,
            rename=list(renames) or None,
            rtol=rtol,
            atol=atol,
            values=values,
            progress=report_progress,
        )
    if as_json:
        terminal.print_json({"same": report.same, **dataclasses.asdict(report)})
    elif terminal.for_people():
        terminal.print_text(report.summary, "good" if report.same else "bad")
        _print_differences(report)
    else:
        terminal.print_line(report.summary)
        for row in report._rows():
            terminal.print_line(*row)
    return OK if report.same else DIFFERENT


def _print_differences(report: DiffReport) -> None:
    """Prints the differences for people, without empty columns."""
    rows = list(report._rows())
    shown = [i for i in range(len(diff_report._HEADER)) if any(row[i] for row in rows)]
    columns = [
        Column(
            diff_report._HEADER[i],
            right=diff_report._HEADER[i] in NUMBERS,
            fold=diff_report._HEADER[i] in ("tensor", "note"),
        )
        for i in shown
    ]
    if rows:
        terminal.print_text()
        terminal.print_table(columns, [[row[i] for i in shown] for row in rows])


@click.command(
    "plan",
    short_help="Show what init_from_checkpoint would load.",
    epilog=examples(
        "tensorbundle plan model.ckpt-1000 --variables model.json",
        "tensorbundle plan bert_model.ckpt --variables model.json --map bert/=encoder/",
    ),
)
@checkpoint_argument
@click.option(
    "--variables",
    type=FilePath(),
    required=True,
    metavar="FILE.json",
    help='The variables of the model: {"name": [shape]}, or {"name": {"shape": [...], "dtype": '
    '"float32"}}; null for an unknown dimension.',
)
@click.option(
    "--map",
    "pairs",
    multiple=True,
    type=Pair("FROM=TO", "bert/=model/bert/"),
    metavar="FROM=TO",
    help="Load a tensor, or a scope that ends in a slash, into a variable or a scope. Can be "
    "repeated. Default: /=/, every variable from the tensor of its name.",
)
@click.option("--cast", is_flag=True, help="Convert values between float types.")
@json_option
def plan(
    checkpoint: str, variables: str, pairs: tuple[tuple[str, str], ...], cast: bool, as_json: bool
) -> int:
    """Shows what init_from_checkpoint would load, without TensorFlow.

    The variables of the model come from a JSON file. The map is that of TensorFlow's
    init_from_checkpoint: from names in the checkpoint to names in the model.

    Exit status: 1 if a variable cannot be loaded, or a part of the map does not apply.
    """
    store = _read_variables(variables)
    with tensorbundle.open(checkpoint, verify="none") as opened:
        source = LocalSource(checkpoint, opened)
        planned = assignment.plan_assignments(pairs or [("/", "/")], source, store, cast=cast)
        used = {row.stored.key for row in planned.rows if row.is_loaded and row.stored}
        unused = [name for name in opened if name not in used]
        problems = [str(problem) for problem in planned.problems]
    touched = {row.variable for row in planned.rows if row.is_loaded}
    untouched = [name for name in store if name not in touched]
    if as_json:
        terminal.print_json(
            {
                "path": checkpoint,
                "ok": not problems,
                "rows": [_described(row) for row in planned.rows],
                "problems": problems,
                "warnings": list(planned.warnings),
                "unused": unused,
                "untouched": untouched,
            }
        )
    elif terminal.for_people():
        _print_plan(planned.rows, problems, planned.warnings, unused, untouched)
    else:
        _print_plan_lines(planned.rows, problems, planned.warnings, unused, untouched)
    return DIFFERENT if problems else OK


def _read_variables(path: str) -> dict[str, Variable]:
    """Reads the variables of a model.

    Raises:
        ValueError: The file is not JSON of the expected form.
        OSError: It cannot be read.
    """
    with open(path, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not a JSON document: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f'{path}: must be an object {{"name": [shape]}}, not {_kind(content)}')
    return {name: _variable(path, name, value) for name, value in content.items()}


def _variable(path: str, name: str, value: Any) -> Variable:
    shape, dtype = value, None
    if isinstance(value, dict):
        unknown = sorted(set(value) - {"shape", "dtype"})
        if unknown or "shape" not in value:
            raise ValueError(f"{path}: {name!r} must have a shape and perhaps a dtype")
        shape, dtype = value["shape"], value.get("dtype")
    if shape is not None and not (
        isinstance(shape, list) and all(size is None or _is_size(size) for size in shape)
    ):
        raise ValueError(f"{path}: the shape of {name!r} must be a list of integers")
    number = None
    if dtype is not None:
        number = _NUMBERS.get(dtype) if isinstance(dtype, str) else None
        if number is None:
            raise ValueError(f"{path}: {name!r} has the unknown dtype {dtype!r:.50}")
    return Variable(f"{name}:0", None if shape is None else tuple(shape), None, name, number)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _kind(value: object) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number")


def _described(row: Row) -> dict[str, Any]:
    stored = row.stored
    return {
        "tensor": row.tensor,
        "key": None if stored is None else stored.key,
        "variable": row.variable,
        "stored_shape": None if stored is None else list(stored.shape),
        "stored_dtype": None if stored is None else load_plan.type_text(stored.dtype),
        "shape": None if row.shape is None else list(row.shape),
        "dtype": None if row.dtype is None else load_plan.type_text(row.dtype),
        "loaded": row.is_loaded,
        "problem": None if row.problem is None else str(row.problem),
    }


def _summary(rows: Sequence[Row], problems: Sequence[str], untouched: Sequence[str]) -> str:
    loaded = sum(row.is_loaded for row in rows)
    return (
        f"{plural(len(problems), 'problem')}: {plural(loaded, 'variable')} can be loaded, "
        f"{len(untouched):,} cannot"
        if problems
        else f"ok: {plural(loaded, 'variable')} can be loaded"
    )


def _print_plan_lines(
    rows: Sequence[Row],
    problems: Sequence[str],
    warnings: Sequence[str],
    unused: Sequence[str],
    untouched: Sequence[str],
) -> None:
    """Prints tab-separated lines, whose first column says what they are."""
    terminal.print_line(_summary(rows, problems, untouched))
    for row in rows:
        cells = load_plan.table_cells(row, Policy())
        terminal.print_line("loaded" if row.is_loaded else "problem", *cells)
    for kind, texts in (
        ("error", problems),
        ("warning", warnings),
        ("unused", unused),
        ("untouched", untouched),
    ):
        for text in texts:
            terminal.print_line(kind, text)


def _print_plan(
    rows: Sequence[Row],
    problems: Sequence[str],
    warnings: Sequence[str],
    unused: Sequence[str],
    untouched: Sequence[str],
) -> None:
    terminal.print_text(_summary(rows, problems, untouched), "bad" if problems else "good")
    columns = [
        Column("tensor", fold=True),
        Column("variable", fold=True),
        Column("shape"),
        Column("dtype"),
        Column("action"),
    ]
    cells: list[list[Cell]] = []
    for row in rows:
        style = "" if row.is_loaded else "bad"
        cells.append([Cell(text, style) for text in load_plan.table_cells(row, Policy())])
    if cells:
        terminal.print_text()
        terminal.print_table(columns, cells)
    for title, texts, style in (
        ("problems", problems, "bad"),
        ("warnings", warnings, "warning"),
    ):
        if texts:
            terminal.print_text()
            terminal.print_text(f"{title} ({len(texts)}):", style)
            for text in texts:
                terminal.print_text(f"- {text}")
    for title, names in (
        ("tensors that are not used", unused),
        ("variables that are not loaded", untouched),
    ):
        if names:
            terminal.print_text()
            terminal.print_text(load_plan.format_names(title, names))
