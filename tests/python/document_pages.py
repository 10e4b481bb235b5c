# SPDX-License-Identifier: Apache-2.0
"""The code blocks of README and docs, and their execution.

The Python blocks of a page share one namespace. In a block,

- a statement whose comment begins with the name of an exception, ``# ValueError: ...``, must raise
  it;
- an expression whose comment begins with an arrow, ``# -> (3, 4)``, must have that value, by repr;
- a ``text`` block after a Python block is what that block prints; ``...`` stands for any text.

As a program, ``document_pages.py PAGE CHECKS [PRELUDE]`` executes the statements of PRELUDE, the
Python blocks of a page, and then CHECKS, in one namespace: for pages that need a process of their
own.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXPECTED = re.compile(r"#\s*(\w+Error)\b")
_VALUE = re.compile(r"#\s*->\s*(.*)$")


def all_blocks(page: str) -> list[tuple[str, str]]:
    """Returns (language, text) of the blocks of a page."""
    return _BLOCK.findall((ROOT / f"{page}.md").read_text(encoding="utf-8"))


def blocks(page: str, *languages: str) -> list[str]:
    """Returns the blocks of a page in these languages."""
    return [body for language, body in all_blocks(page) if language in languages]


def pages_with_code() -> set[str]:
    """Returns README and the pages of docs that have a block in any language."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    names = {path.relative_to(ROOT).with_suffix("").as_posix() for path in pages}
    return {name for name in names if all_blocks(name)}


def execute(block: str, page: str, namespace: dict[str, Any]) -> None:
    """Runs a block, statement by statement, and checks the comments with results.

    Such a comment is in the last line of its statement.
    """
    lines = block.splitlines()
    for statement in ast.parse(block).body:
        assert statement.end_lineno is not None
        last = lines[statement.end_lineno - 1]
        expected, value = _EXPECTED.search(last), _VALUE.search(last)
        if value is not None:
            assert isinstance(statement, ast.Expr), f"{page}: {last}"
            code = compile(ast.Expression(statement.value), page, "eval")
            assert repr(eval(code, namespace)) == value[1], f"{page}: {last}"
            continue
        code = compile(ast.Module([statement], []), page, "exec")
        if expected is None:
            exec(code, namespace)
        else:
            with pytest.raises(getattr(builtins, expected[1])):
                exec(code, namespace)


def outputs(
    page: str,
    namespace: dict[str, Any],
    prepare: Callable[[str], str | None] = str,
    shell: Callable[[str], None] | None = None,
) -> Iterator[tuple[str, str | None]]:
    """Executes the Python blocks of a page.

    Args:
        page: The page.
        namespace: The names that the blocks share.
        prepare: Returns what is executed of a block, or None if it is left out.
        shell: Called with each shell block, when it is its turn.

    Yields:
        What each block prints, and the output that the page shows, or None.
    """
    found = all_blocks(page)
    for (language, body), (following, shown) in zip(found, [*found[1:], ("", "")], strict=True):
        if language == "sh" and shell is not None:
            shell(body)
        code = prepare(body) if language == "python" else None
        if code is not None:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                execute(code, page, namespace)
            yield printed.getvalue(), shown if following == "text" else None


def run_page(
    page: str,
    namespace: dict[str, Any],
    prepare: Callable[[str], str | None] = str,
    shell: Callable[[str], None] | None = None,
) -> int:
    """Executes the Python blocks of a page and compares their outputs. Returns their number."""
    count = 0
    for printed, shown in outputs(page, namespace, prepare, shell):
        count += 1
        if shown is not None:
            pattern = re.escape(shown.rstrip()).replace(re.escape("..."), ".*")
            assert re.fullmatch(pattern, printed.rstrip(), re.DOTALL), f"{page}:\n{printed}"
    return count


def main(page: str, checks: str, prelude: str = "") -> None:
    module = types.ModuleType("page")
    sys.modules["page"] = module  # Flax looks up the module of a class
    execute(prelude, "prelude", vars(module))
    run_page(page, vars(module))
    execute(checks, "checks", vars(module))


if __name__ == "__main__":
    main(*sys.argv[1:])
