# SPDX-License-Identifier: Apache-2.0
"""The code blocks of README and docs are executed, page by page, in a temporary directory.

`document_pages` executes the Python blocks, and says which comments are checked. Lines of shell
blocks that call ``tensorbundle`` are executed by bash. ``console`` blocks have commands and what
they print on a terminal, which is compared. Pages that need TensorFlow are in `tests/tf`.
"""

from __future__ import annotations

import doctest
import inspect
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import in_terminal
from document_pages import ROOT, all_blocks, blocks, pages_with_code, run_page

import tensorbundle as tb

PAGES = [
    "README",
    *(
        f"docs/{name}"
        for name in (
            "quickstart",
            "inspect",
            "read",
            "rows",
            "writing",
            "edit",
            "average",
            "diff",
            "convert",
            "align",
            "lifetimes",
            "errors",
            "stand_in",
            "index",
            "migrating",
            "command_line",
        )
    ),
]
TESTED_ELSEWHERE = {
    # tests/tf/test_docs_tf.py
    *("docs/tensorflow", "docs/warm_start", "docs/serve_every_restore"),
    # pages about frameworks and remote files, which have tests of their own
    *("docs/pytorch", "docs/jax", "docs/keras", "docs/distributed", "docs/remote"),
}
# Drawings and byte layouts, and commands that clone TensorFlow's sources.
WITHOUT_PROGRAMS = {"docs/architecture", "docs/format", "docs/reliability", "docs/wheels"}

# Blocks with one of these need TensorFlow, or a package that the tests do not install.
_LEFT_OUT = ("import tensorflow", "from transformers")
_LEFT_OUT_LINE = ".parquet"

# Lines of shell blocks that other tests execute, or that would change the environment.
_OTHER_COMMANDS = re.compile(
    r"pip install |python examples/|pytest -n 2$|echo 'eval |tensorbundle (plugin|--completion) "
)

CHECKPOINTS = Path("tests/data/checkpoints")

# What stands for the names in capital letters.
_PLACEHOLDERS = {
    "SRC": "model.ckpt-1000",
    "DEST": "aligned/other",
}


def commands() -> list[Any]:
    """Returns the lines of shell blocks that call the program, with their pages."""
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            lines = [line for line in block.splitlines() if line.startswith("tensorbundle ")]
            found += [pytest.param(page, line, id=line.partition("  ")[0]) for line in lines]
    return [each for each in found if "--completion" not in each.values[1]]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a reader: the checkpoints that the pages name."""
    monkeypatch.chdir(tmp_path)
    for name in ("mnist_tf1", "optimizer_slots"):
        shutil.copytree(ROOT / CHECKPOINTS / name, tmp_path / CHECKPOINTS / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    kernel = np.arange(64, dtype=np.float32).reshape(16, 4)
    for step in (1000, 2000, 3000):
        tensors = {
            "global_step": np.int64(step),
            "emb": kernel + step,
            "embedding": kernel - step,
            "embedding/Adam": kernel,
            "bert/kernel": kernel / step,
        }
        tb.save(f"model.ckpt-{step}", tensors)
    tb.save("model.ckpt", tensors)
    tb.save("old", {"bert/bias": kernel})
    tb.save("new", {"encoder/bias": kernel})
    bert = {
        "bert/kernel": np.zeros((768, 3072), np.float32),
        "bert/bias": np.zeros(3072, np.float32),
    }
    tb.save("bert_model.ckpt", bert)
    Path("model.json").write_text(blocks("docs/command_line", "json")[0])
    Path("convert_bert_to_pytorch.py").write_text(
        "import sys\nimport tensorflow as tf\ntf.train.list_variables(sys.argv[2])\n"
    )
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*no other tensor matches")  # a small model, many rules
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_blocks(page: str, directory: Path) -> None:
    found = blocks(page, "python")
    if any('tb.save("model.ckpt-1000"' in block for block in found):
        for file in directory.glob("model.ckpt*"):
            file.unlink()  # the page writes them

    def prepare(block: str) -> str | None:
        if any(word in block for word in _LEFT_OUT):
            return None
        return "\n".join(line for line in block.splitlines() if _LEFT_OUT_LINE not in line)

    left_out = sum(prepare(block) is None for block in found)
    assert left_out <= 1
    assert run_page(page, {}, prepare) == len(found) - left_out


def test_every_page_with_code_is_tested() -> None:
    pages = pages_with_code()
    assert pages <= {*PAGES, *TESTED_ELSEWHERE, *WITHOUT_PROGRAMS}
    assert set(PAGES) <= pages
    for page in WITHOUT_PROGRAMS:
        assert not blocks(page, "python", "console", "text")


def test_every_block_has_a_language_that_is_executed() -> None:
    for page in PAGES:
        languages = ["", *(language for language, _ in all_blocks(page))]
        assert set(languages) <= {"", "python", "text", "sh", "console", "json", "toml"}
        for before, language in itertools.pairwise(languages):
            assert language != "text" or before == "python", page


def test_every_shell_line_is_executed() -> None:
    executed = {tuple(each.values) for each in commands()}
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                assert (page, line) in executed or _OTHER_COMMANDS.match(line), f"{page}: {line}"


@pytest.mark.parametrize(("page", "line"), commands())
def test_shell_line(page: str, line: str, directory: Path) -> None:
    program = directory / "bin" / "tensorbundle"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tensorbundle "$@"\n')
    program.chmod(0o755)
    for word, value in _PLACEHOLDERS.items():
        line = re.sub(rf"\b{word}\b", value, line)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    differs = line.startswith("tensorbundle diff")
    assert done.returncode in ((0, 1) if differs else (0,)), f"{page}: {line}\n{done.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")])
def test_console_output(page: str, directory: Path) -> None:
    for block in blocks(page, "console"):
        command, _, expected = block.partition("\n")
        screen = in_terminal(*shlex.split(command)[2:])
        assert screen.status == 0
        pattern = re.escape("\n".join(line for line in expected.splitlines() if line))
        # A terminal erases the lines of progress bars.
        lines = [line for line in screen.lines if line and "\u2501" not in line]
        printed = "\n".join(lines)
        assert re.fullmatch(pattern.replace(re.escape("..."), ".*"), printed), printed


def docstring_examples() -> list[Any]:
    """Returns the examples of the public functions and classes, but for those that need more."""
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=True)
    found = []
    for name in tb.__all__:
        thing = getattr(tb, name)
        if inspect.isroutine(thing) or inspect.isclass(thing):
            found += [each for each in finder.find(thing, name) if each.examples]
    needs_more = re.compile(r"keras\.|s3://|tb\.(init_from_checkpoint|warm_start)\(")
    return [
        pytest.param(each, id=each.name)
        for each in found
        if not any(needs_more.search(example.source) for example in each.examples)
    ]


@pytest.mark.parametrize("example", docstring_examples())
def test_docstring_example(
    example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = np.zeros((4, 2), np.float32)
    for prefix in ("model.ckpt-1000", "model.ckpt-2000", "bert_model.ckpt"):
        tb.save(prefix, {"bert/bias": np.float32(1), "dense/kernel": table})
    if example.name in ("save", "Writer"):
        for file in tmp_path.glob("model.ckpt-1000*"):
            file.unlink()
    example.globs = {"tb": tb, "np": np, "table": table}
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=failures.append)
    assert not failures, "".join(failures)
