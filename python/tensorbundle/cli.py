# SPDX-License-Identifier: Apache-2.0
"""The command line: `tensorbundle ls` and `tensorbundle verify`.

Tables and progress bars are for a person at a terminal; into a pipe go tab-separated lines, and
with `--json` one JSON document. Exit status: 0, all is well; 1, damage was found; 2, bad usage or
unreadable input, with one line on stderr that says what.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

import tensorbundle

if TYPE_CHECKING:
    from rich.table import Table

    from tensorbundle import Checkpoint, Tensor

OK = 0
DAMAGED = 1
UNREADABLE = 2
# What a shell reports of a program that an interrupt or a closed pipe ended.
INTERRUPTED = 130
PIPE_CLOSED = 141


def main(args: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        args: The words after the program's name; those of the process by default.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A tensor's name may hold what the terminal's encoding cannot show.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(sys.argv[1:] if args is None else args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on; the interpreter must not try to flush to them at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        return _complain(error.format_message())
    except (tensorbundle.Error, OSError) as error:
        return _complain(str(error))
    return status


def _run(args: Sequence[str]) -> int:
    # Not by click's own main: that turns a closed pipe into status 1, which here means damage.
    try:
        with program.make_context("tensorbundle", list(args)) as context:
            status: int = program.invoke(context)
    except click.exceptions.Exit as end:  # --help, --version
        return end.exit_code
    return status


@click.group(no_args_is_help=False)
@click.version_option(tensorbundle.__version__, prog_name="tensorbundle")
def program() -> None:
    """Reads TensorFlow checkpoints, without TensorFlow."""


@program.command("ls")
@click.argument("path")
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@click.option("--long", is_flag=True, help="One line per stored piece: its slice, file and offset.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def list_tensors(path: str, patterns: tuple[str, ...], long: bool, as_json: bool) -> int:
    """Lists the tensors of a checkpoint.

    PATH is a prefix, a directory, or one of the checkpoint's files. PATTERN selects names, with
    *, ? and [].
    """
    with tensorbundle.open(path, verify="none") as checkpoint:
        tensors = [checkpoint[name] for name in _select(checkpoint, patterns)]
        if as_json:
            _print_json({"path": path, "tensors": [_describe(tensor) for tensor in tensors]})
        else:
            header, rows = _pieces(tensors) if long else _summaries(tensors)
            _print_rows(header, rows)
    return OK


@program.command()
@click.argument("path")
@click.option("--names", "patterns", multiple=True, metavar="PATTERN", help="Only these tensors.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def verify(path: str, patterns: tuple[str, ...], as_json: bool) -> int:
    """Compares every byte of a checkpoint with its checksums.

    PATH is a prefix, a directory, or one of the checkpoint's files. --names may be given several
    times.
    """
    with tensorbundle.open(path, verify="none") as checkpoint:
        names = _select(checkpoint, patterns) if patterns else None
        with _progress(path) as progress:
            report = checkpoint.verify(names, progress=progress)
    if as_json:
        _print_json(
            {
                "path": path,
                "ok": report.ok,
                "checked_bytes": report.checked_bytes,
                "damaged": [
                    {
                        "tensor": piece.tensor,
                        "file": piece.file,
                        "offset": piece.offset,
                        "nbytes": piece.nbytes,
                        "message": piece.message,
                    }
                    for piece in report.damaged
                ],
                "notes": list(report.notes),
            }
        )
    else:
        for piece in report.damaged:
            place = (piece.tensor, piece.file, piece.offset, piece.nbytes, piece.message)
            _print_line("damaged", *place)
        for note in report.notes:
            _print_line("note", note)
        verdict = "ok" if report.ok else f"{len(report.damaged)} damaged"
        click.echo(f"{verdict}: {report.checked_bytes} bytes checked")
    return OK if report.ok else DAMAGED


def _select(checkpoint: Checkpoint, patterns: Iterable[str]) -> list[str]:
    """The names that match any of the patterns, or all; a pattern that matches none is an error."""
    chosen: set[str] = set()
    for pattern in patterns:
        # An exact name first: names may hold brackets of their own.
        found = [pattern] if pattern in checkpoint else fnmatch.filter(checkpoint, pattern)
        if not found:
            raise click.UsageError(f"no tensor is named like {pattern!r}")
        chosen.update(checkpoint[name].name for name in found)
    return [name for name in checkpoint if name in chosen] if patterns else list(checkpoint)


def _describe(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": _dtype(tensor),
        "shape": list(tensor.shape),
        "nbytes": tensor.nbytes,
        "partitions": [
            {"slice": [list(axis) for axis in extents], "file": file, "offset": offset, "nbytes": n}
            for extents, file, offset, n in tensor.partitions
        ],
        "problem": tensor.problem,
    }


def _dtype(tensor: Tensor) -> str:
    return str(tensor.stored_dtype or tensor.dtype)


def _summaries(tensors: Iterable[Tensor]) -> tuple[list[str], list[list[str]]]:
    """One row per tensor."""
    rows = [
        [
            tensor.name,
            _dtype(tensor),
            _shape(tensor),
            str(tensor.nbytes),
            str(len(tensor.partitions)),
            tensor.problem or "",
        ]
        for tensor in tensors
    ]
    return ["name", "dtype", "shape", "bytes", "pieces", "problem"], rows


def _pieces(tensors: Iterable[Tensor]) -> tuple[list[str], list[list[str]]]:
    """One row per stored piece of a tensor, in the words of a slice: start, and how far."""
    rows = []
    for tensor in tensors:
        for extents, file, offset, nbytes in tensor.partitions:
            part = ",".join(f"{start}:{start + extent}" for start, extent in extents)
            row = [tensor.name, _dtype(tensor), _shape(tensor), f"[{part}]"]
            rows.append([*row, str(nbytes), file, str(offset), tensor.problem or ""])
    return ["name", "dtype", "shape", "slice", "bytes", "file", "offset", "problem"], rows


def _shape(tensor: Tensor) -> str:
    return f"[{','.join(map(str, tensor.shape))}]"


def _print_rows(header: list[str], rows: list[list[str]]) -> None:
    """A table at a terminal, tab-separated lines without a header elsewhere."""
    if not sys.stdout.isatty():
        for row in rows:
            _print_line(*row)
        return
    from rich.console import Console

    Console().print(_table(header, rows))


def _table(header: list[str], rows: list[list[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    # The column of problems appears only where there is one.
    columns = [i for i, title in enumerate(header) if title != "problem" or any(r[i] for r in rows)]
    table = Table(box=None, pad_edge=False)
    for i in columns:
        number = header[i] in ("bytes", "pieces", "offset")
        style = "red" if header[i] == "problem" else None
        table.add_column(
            header[i], justify="right" if number else "left", style=style, overflow="fold"
        )
    for row in rows:
        # Text, not str: a bracket in a name is no markup.
        table.add_row(*(Text(_shown(row[i])) for i in columns))
    return table


def _print_line(*cells: object) -> None:
    click.echo("\t".join(_shown(str(cell)) for cell in cells))


def _shown(text: str) -> str:
    """The text with whatever would break a line, a column or a terminal written as an escape.

    Names are bytes; those that are not UTF-8 come as lone surrogates, and are shown as the bytes
    they were.
    """
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if readable.isprintable():
        return readable
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in readable)


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2))


def _complain(message: str) -> int:
    """Says what went wrong, in one line."""
    click.echo(f"tensorbundle: {_shown(' '.join(message.split()))}", err=True)
    return UNREADABLE


@contextlib.contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on stderr, where someone looks at it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn(escape(_shown(os.path.basename(title)))),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verify", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
