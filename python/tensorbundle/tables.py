# SPDX-License-Identifier: Apache-2.0
"""Tables of reports, as text and as HTML for notebooks; numbers in units for people.

Names come from files, so every cell is escaped: control characters would break a terminal, and
``<`` a notebook.
"""

from __future__ import annotations

from collections.abc import Sequence

# Rows of an HTML table. A notebook with a table of every tensor of a large model is slow.
MAX_HTML_ROWS = 200

# Titles of columns with numbers, which are aligned to the right.
NUMBERS = frozenset(
    {"tensors", "parameters", "bytes", "elements", "different", "max abs", "max rel", "offset"}
)

# Notebooks align cells to the right.
_TABLE_STYLE = "font-family: monospace; white-space: pre-wrap"


def escape_text(text: str) -> str:
    """Escapes the characters that would break a line, a column or a terminal.

    Lone surrogates, which stand for bytes that are not UTF-8, become escapes of these bytes.
    """
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if readable.isprintable():
        return readable
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in readable)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats rows in columns of equal width, indented by two spaces. Empty columns are omitted."""
    cells = [[escape_text(cell) for cell in row] for row in rows]
    columns = [i for i in range(len(header)) if any(row[i] for row in cells)]
    widths = {i: max(len(header[i]), *(len(row[i]) for row in cells)) for i in columns}
    lines = []
    for row in [list(header), *cells]:
        aligned = (
            row[i].rjust(widths[i]) if header[i] in NUMBERS else row[i].ljust(widths[i])
            for i in columns
        )
        lines.append("  " + "  ".join(aligned).rstrip())
    return "\n".join(lines)


def html_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, more: int = 0
) -> str:
    """Formats a title and rows as HTML, as ``_repr_html_`` returns it. Empty columns are omitted.

    Args:
        title: A line above the table.
        header: The titles of the columns.
        rows: The cells. Rows beyond ``MAX_HTML_ROWS`` are only counted.
        more: The number of further rows.
    """
    shown = rows[:MAX_HTML_ROWS]
    more += len(rows) - len(shown)
    columns = [i for i in range(len(header)) if any(row[i] for row in shown)]

    def line(tag: str, row: Sequence[str]) -> str:
        cells = "".join(
            f'<{tag} style="text-align: {"right" if header[i] in NUMBERS else "left"}">'
            f"{escape_html(row[i])}</{tag}>"
            for i in columns
        )
        return f"<tr>{cells}</tr>"

    text = f"<div><p>{escape_html(title)}</p>"
    if shown:
        body = "".join(line("td", row) for row in shown)
        head = line("th", header)
        text += f'<table style="{_TABLE_STYLE}"><thead>{head}</thead><tbody>{body}</tbody></table>'
    if more:
        text += f"<p>and {more:,} more</p>"
    return text + "</div>"


def escape_html(text: str) -> str:
    """Escapes text for HTML, and characters that cannot be printed as ``escape_text`` does."""
    import html  # it costs milliseconds, and only notebooks need it

    return html.escape(escape_text(text))


def plural(count: int, noun: str) -> str:
    """Returns ``"1 tensor"`` or ``"1,200 tensors"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size_text(nbytes: int) -> str:
    """Returns a number of bytes in binary units, with three digits: ``"1.22 GiB"``."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if nbytes >= 0.9995 * 2**power:
            return f"{_three_digits(nbytes / 2**power)} {unit}"
    return f"{nbytes} B"


def count_text(count: int) -> str:
    """Returns a number with a decimal prefix: ``"328.5 M"``; below 10,000 the number itself."""
    for unit, power in (("G", 9), ("M", 6), ("k", 3)):
        if count >= 10_000 and count >= 0.99995 * 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count:,}"


def shape_text(shape: Sequence[int]) -> str:
    """Returns a shape as ``"[2,3]"``."""
    return f"[{','.join(map(str, shape))}]"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
