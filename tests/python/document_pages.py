# SPDX-License-Identifier: Apache-2.0
"""The code blocks of README and docs, and their execution.

As a program, ``document_pages.py PAGE CHECKS`` executes the Python blocks of a page in one
namespace, and then the statements of CHECKS: for pages that need a process of their own.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXPECTED = re.compile(r"#\s*(\w+Error)\b")


def blocks(page: str, *languages: str) -> list[str]:
    """Returns the blocks of a page in these languages."""
    text = (ROOT / f"{page}.md").read_text(encoding="utf-8")
    return [body for language, body in _BLOCK.findall(text) if language in languages]


def execute(block: str, page: str, namespace: dict[str, Any]) -> None:
    """Runs a block, statement by statement; those with the comment ``# SomeError: ...`` must raise.

    The comment is in the last line of the statement.
    """
    lines = block.splitlines()
    for statement in ast.parse(block).body:
        code = compile(ast.Module([statement], []), page, "exec")
        assert statement.end_lineno is not None
        expected = _EXPECTED.search(lines[statement.end_lineno - 1])
        if expected is None:
            exec(code, namespace)
        else:
            with pytest.raises(getattr(builtins, expected[1])):
                exec(code, namespace)


def main(page: str, checks: str) -> None:
    module = types.ModuleType("page")
    sys.modules["page"] = module  # Flax looks up the module of a class
    for block in blocks(page, "python"):
        execute(block, page, vars(module))
    execute(checks, "checks", vars(module))


if __name__ == "__main__":
    main(*sys.argv[1:])
