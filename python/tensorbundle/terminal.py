# SPDX-License-Identifier: Apache-2.0
"""Output of the command-line program: tables, tab-separated lines, JSON and progress bars.

A person at a terminal sees aligned columns, colours and human sizes. A pipe gets plain lines, whose
columns are separated by tabs, without a header. Tables are formatted here, not by rich, which takes
0.2 ms per row; rich finds out what the terminal can do, and draws the progress bars.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import click

from tensorbundle.tables import escape_text, size_text

# The space between two columns, and the least width of a column that is folded.
_GAP = "  "
_MIN_FOLDED = 16

# Below this width of a terminal, a progress bar is short, and so is its title.
_NARROW = 100
_MAX_TITLE = 30

_ASCII_GUIDES = str.maketrans({"│": "|", "├": "|", "└": "`", "─": "-"})


@dataclass(frozen=True)
class Look:
    """What standard output can show.

    Attributes:
        width: The number of columns.
        colors: Whether styles may be used.
        unicode: Whether the encoding has lines and blocks.
    """

    width: int
    colors: bool
    unicode: bool


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: The header.
        right: Whether cells are aligned to the right, as numbers are.
        fold: Whether long cells continue on the next line if the terminal is narrow.
    """

    title: str
    right: bool = False
    fold: bool = False


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: The text, which is escaped.
        style: A key of ``_STYLES``.
        guide: Text before the first line: the lines of a tree.
        next_guide: Text before further lines.
    """

    text: str
    style: str = ""
    guide: str = ""
    next_guide: str = ""


_STYLES: dict[str, dict[str, Any]] = {
    "": {},
    "header": {"bold": True, "underline": True},
    "scope": {"bold": True},
    "dim": {"dim": True},
    "good": {"fg": "green"},
    "warning": {"fg": "yellow"},
    "bad": {"fg": "red"},
}


def is_terminal(stream: IO[str] | None) -> bool:
    """Returns whether a stream is a terminal; False for a closed or missing stream."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


def is_ascii_locale() -> bool:
    """Returns whether the user chose the locale "C" or "POSIX", which has ASCII only.

    Python writes UTF-8 in these locales, which is right for files and pipes.
    """
    chosen = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_CTYPE", "LANG"))), None)
    return chosen in ("C", "POSIX")


def for_people() -> bool:
    """Returns whether a person reads the output: whether it goes to a terminal."""
    return is_terminal(sys.stdout)


def look() -> Look:
    """Returns what standard output can show."""
    from rich.console import Console

    console = Console()
    colors = console.color_system is not None and not console.no_color
    try:
        "├─└│█▏".encode(console.encoding)
    except (UnicodeError, LookupError):
        has_unicode = False
    else:
        has_unicode = not console.is_dumb_terminal
    return Look(max(console.width, 40), colors and not console.is_dumb_terminal, has_unicode)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]]) -> None:
    """Prints an aligned table with a header, for people."""
    shown = look()
    cells = [[_as_cell(cell, shown) for cell in row] for row in rows]
    widths = [_length(column.title) for column in columns]
    for row in cells:
        for i, cell in enumerate(row):
            widths[i] = max(widths[i], _length(cell.guide) + _length(cell.text))
    _fit(widths, columns, shown.width)
    header = [Cell(column.title) for column in columns]
    lines = [styled(line, "scope", shown) for line in _lines(header, columns, widths, None)]
    for row in cells:
        lines += _lines(row, columns, widths, shown)
    click.echo("\n".join(lines), color=True)


def styled(text: str, style: str, shown: Look | None = None) -> str:
    """Returns a text with the terminal's codes for a style, if it shows styles."""
    options = _STYLES[style]
    shown = shown or look()
    return click.style(text, **options) if options and text and shown.colors else text


def print_text(text: str = "", style: str = "") -> None:
    """Prints a line of text for people."""
    escaped = escape_text(text)
    click.echo(styled(escaped, style) if style else escaped, color=True)


def print_labelled(rows: Sequence[tuple[str, str, str]]) -> None:
    """Prints a line for each (label, text, style), with the texts aligned, for people."""
    shown = look()
    width = max(len(label) for label, _, _ in rows)
    for label, text, style in rows:
        title = styled(label.ljust(width), "dim", shown)
        click.echo(f"{title}{_GAP}{styled(escape_text(text), style, shown)}", color=True)


def _as_cell(cell: Cell | str, shown: Look) -> Cell:
    if isinstance(cell, str):
        return Cell(escape_text(cell))
    text, style, guide, next_guide = cell
    if not shown.unicode:
        guide = guide.translate(_ASCII_GUIDES)
        next_guide = next_guide.translate(_ASCII_GUIDES)
    return Cell(escape_text(text), style, guide, next_guide)


def _fit(widths: list[int], columns: Sequence[Column], width: int) -> None:
    """Narrows the columns that may be folded until the table fits into the terminal."""
    for i, column in enumerate(columns):
        excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
        if column.fold and excess > 0:
            widths[i] = max(widths[i] - excess, min(widths[i], _MIN_FOLDED))


def _lines(
    row: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int], shown: Look | None
) -> Iterator[str]:
    """Yields the lines of one row: one, or more if a cell is folded."""
    folded = [
        _fold(cell, width) if column.fold else [(cell.guide, cell.text)]
        for cell, column, width in zip(row, columns, widths, strict=True)
    ]
    for i in range(max(map(len, folded))):
        parts = []
        for cell, column, width, pieces in zip(row, columns, widths, folded, strict=True):
            guide, text = pieces[i] if i < len(pieces) else ("", "")
            padding = " " * (width - _length(guide) - _length(text))
            if shown is not None:
                guide = styled(guide, "dim", shown)
                text = styled(text, cell.style, shown)
            parts.append(padding + text if column.right else guide + text + padding)
        yield _GAP.join(parts).rstrip()


def _fold(cell: Cell, width: int) -> list[tuple[str, str]]:
    """Cuts a cell into (guide, text) of at most a width, after a slash or a space if possible."""
    guide, text = cell.guide, cell.text
    result = []
    while _length(guide) + _length(text) > width:
        room = max(width - _length(guide), _MIN_FOLDED // 2)
        end = _prefix(text, room)
        cut = max(text.rfind("/", 1, end), text.rfind(" ", 1, end)) + 1
        end = cut if cut > room // 2 else end
        if end >= len(text):
            break
        result.append((guide, text[:end]))
        guide, text = cell.next_guide, text[end:]
    return [*result, (guide, text)]


def _length(text: str) -> int:
    """Returns the number of columns of a text."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _prefix(text: str, width: int) -> int:
    """Returns the number of characters that fit into a width, at least one."""
    end = min(len(text), width)
    while end > 1 and _length(text[:end]) > width:
        end -= 1
    return max(end, 1)


def print_line(*cells: object) -> None:
    """Prints a tab-separated line."""
    click.echo("\t".join(escape_text(str(cell)) for cell in cells))


def print_error(message: str) -> None:
    """Prints an error on stderr: on a terminal in its lines, else as one line.

    In one line, the lines of the message are joined by semicolons.
    """
    if sys.stderr is None:
        return
    lines = [" ".join(line.split()) for line in message.splitlines() if line.strip()]
    if is_terminal(sys.stderr):
        text = "\n  ".join(map(escape_text, lines))
    else:
        text = ""
        for line in lines:
            text += f"{'' if not text else ' ' if text.endswith(':') else '; '}{line}"
        text = escape_text(text)
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed
        click.echo(f"tensorbundle: {text}", err=True)


def print_json(document: dict[str, Any]) -> None:
    """Prints a JSON document. NaN and infinities, which JSON lacks, become strings."""
    try:
        text = json.dumps(document, indent=2, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(document), indent=2)
    click.echo(text)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def rate_text(done: str, nbytes: int, seconds: float) -> str:
    """Returns ``"1.22 GiB checked in 0.5 s (2.44 GiB/s)"``; `done` is the participle."""
    text = f"{size_text(nbytes)} {done} in {seconds:.1f} s"
    return f"{text} ({size_text(round(nbytes / seconds))}/s)" if seconds >= 0.05 else text


def adder(
    report_progress: Callable[[int, int], object] | None, total: int
) -> Callable[[int], None] | None:
    """Returns a function that adds a number of bytes to those that are done, for a callback."""
    if report_progress is None:
        return None
    done = 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        report_progress(done, total)

    return advance


@contextlib.contextmanager
def progress(title: str, task: str) -> Iterator[Callable[[int, int], None] | None]:
    """Shows a progress bar on stderr, and yields its callback; None where it cannot be shown.

    Args:
        title: The path of the file that is worked on.
        task: What is done with it: ``"verify"``.
    """
    if not is_terminal(sys.stderr) or os.environ.get("TERM") in ("dumb", "unknown"):
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Figures(ProgressColumn):
        """``1.22 of 4.00 GiB, 2.44 GiB/s, 1 s left``, in the units of all other output."""

        def render(self, task: Task) -> Text:
            if task.total is None:
                return Text("")
            parts = [f"{size_text(int(task.completed))} of {size_text(int(task.total))}"]
            if task.speed:
                parts.append(f"{size_text(int(task.speed))}/s")
                left = (task.total - task.completed) / task.speed
                parts.append(f"{left:.0f} s left")
            return Text(", ".join(parts))

    name = escape_text(os.path.basename(os.path.normpath(title)))
    console = Console(stderr=True)
    room = _MAX_TITLE if console.width >= _NARROW else _MAX_TITLE // 2
    name = name if len(name) <= room else f"{name[: room - 3]}..."
    columns = (
        TextColumn(f"{task} {escape(name)}"),
        BarColumn(bar_width=None if console.width >= _NARROW else 15),
        Figures(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        number = bar.add_task(task, total=None)
        yield lambda done, total: bar.update(number, completed=done, total=total)
