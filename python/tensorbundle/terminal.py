# SPDX-License-Identifier: Apache-2.0
"""What the command line shows: tables and bars to a person, lines and JSON to programs."""

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
    """A table at a terminal, tab-separated lines without a header elsewhere."""
    if not _is_terminal(sys.stdout):
        for row in rows:
            print_line(*row)
        return
    from rich.console import Console

    Console().print(_table(header, rows))


def _is_terminal(stream: IO[str] | None) -> bool:
    """Whether someone looks at a stream; a stream that is closed or missing has no audience."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


def _table(header: list[str], rows: list[list[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    # The column of errors appears only where there is one.
    columns = [i for i, title in enumerate(header) if title != "error" or any(r[i] for r in rows)]
    table = Table(box=None, pad_edge=False)
    for i in columns:
        number = header[i] in ("bytes", "slices", "offset")
        style = "red" if header[i] == "error" else None
        table.add_column(
            header[i], justify="right" if number else "left", style=style, overflow="fold"
        )
    for row in rows:
        # Text, not str: a bracket in a name is no markup.
        table.add_row(*(Text(shown(row[i])) for i in columns))
    return table


def print_line(*cells: object) -> None:
    """A tab-separated line."""
    click.echo("\t".join(shown(str(cell)) for cell in cells))


def shown(text: str) -> str:
    """The text with whatever would break a line, a column or a terminal written as an escape.

    Names are bytes; those that are not UTF-8 come as lone surrogates, and are shown as the bytes
    they were.
    """
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if readable.isprintable():
        return readable
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in readable)


def print_json(document: dict[str, Any]) -> None:
    """One document on stdout."""
    click.echo(json.dumps(document, indent=2))


@contextlib.contextmanager
def progress(title: str, task: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on stderr, where someone looks at it."""
    if not _is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn(escape(shown(os.path.basename(title)))),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task(task, total=None)
        yield lambda done, total: bar.update(number, completed=done, total=total)
