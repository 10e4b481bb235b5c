# SPDX-License-Identifier: Apache-2.0
"""Output of the command-line program: tables, tab-separated lines, JSON and progress bars."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table


def print_rows(header: list[str], rows: list[list[str]]) -> None:
    """Prints a table on a terminal, tab-separated lines without a header elsewhere."""
    if not _is_terminal(sys.stdout):
        for row in rows:
            print_line(*row)
        return
    from rich.console import Console

    Console().print(_table(header, rows))


def _is_terminal(stream: IO[str] | None) -> bool:
    """Returns whether a stream is a terminal; False for a closed or missing stream."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


def _table(header: list[str], rows: list[list[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    # Omit the column of errors if it is empty.
    columns = [i for i, title in enumerate(header) if title != "error" or any(r[i] for r in rows)]
    table = Table(box=None, pad_edge=False)
    for i in columns:
        number = header[i] in ("bytes", "slices", "offset")
        style = "red" if header[i] == "error" else None
        table.add_column(
            header[i], justify="right" if number else "left", style=style, overflow="fold"
        )
    for row in rows:
        # Text, not str, because rich would parse brackets in a name as markup.
        table.add_row(*(Text(escape_text(row[i])) for i in columns))
    return table


def print_line(*cells: object) -> None:
    """Prints a tab-separated line."""
    click.echo("\t".join(escape_text(str(cell)) for cell in cells))


def escape_text(text: str) -> str:
    """Escapes the characters that would break a line, a column or a terminal.

    Lone surrogates, which stand for bytes that are not UTF-8, become escapes of these bytes.
    """
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if readable.isprintable():
        return readable
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in readable)


def print_json(document: dict[str, Any]) -> None:
    """Prints a JSON document."""
    click.echo(json.dumps(document, indent=2))


@contextlib.contextmanager
def progress(title: str, task: str) -> Iterator[Callable[[int, int], None] | None]:
    """Shows a progress bar on stderr, and yields its callback; None if stderr is not a terminal."""
    if not _is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn(escape(escape_text(os.path.basename(title)))),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task(task, total=None)
        yield lambda done, total: bar.update(number, completed=done, total=total)
