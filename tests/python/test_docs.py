# SPDX-License-Identifier: Apache-2.0
"""The code blocks of README and docs are executed, page by page, in order, in an empty directory.

The directory has the files that earlier blocks of the page have written, the examples and test data
of the repository, and files that only others can give (`OTHERS`).

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
from tensorbundle.tensorflow_api import names

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


def commands(block: str) -> list[str]:
    """Returns the lines of a shell block that call the program."""
    lines = [line for line in block.splitlines() if line.startswith("tensorbundle ")]
    return [line for line in lines if not _OTHER_COMMANDS.match(line)]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a reader, with the program and files of the repository."""
    monkeypatch.chdir(tmp_path)
    for name in ("mnist_tf1", "optimizer_slots"):
        shutil.copytree(ROOT / CHECKPOINTS / name, tmp_path / CHECKPOINTS / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    program = tmp_path / "bin" / "tensorbundle"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tensorbundle "$@"\n')
    program.chmod(0o755)
    return tmp_path


def bert_model() -> None:
    bert = {
        "bert/kernel": np.zeros((768, 3072), np.float32),
        "bert/bias": np.zeros(3072, np.float32),
    }
    tb.save("bert_model.ckpt", bert)


def script() -> None:
    text = "import sys\nimport tensorflow as tf\ntf.train.list_variables(sys.argv[2])\n"
    Path("convert_bert_to_pytorch.py").write_text(text)
    bert_model()


# By page: what makes the files of others that it names.
OTHERS = {"docs/convert": bert_model, "docs/stand_in": script}


def run_shell_line(page: str, line: str, directory: Path) -> None:
    paths = f"{directory / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env={**os.environ, "PATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    differs = line.startswith("tensorbundle diff")
    assert done.returncode in ((0, 1) if differs else (0,)), f"{page}: {line}\n{done.stderr}"


@pytest.mark.filterwarnings("ignore:.*no other tensor matches")  # a small model, many rules
@pytest.mark.parametrize("page", PAGES)
def test_blocks_in_an_empty_directory(page: str, directory: Path) -> None:
    OTHERS.get(page, lambda: None)()

    def prepare(block: str) -> str | None:
        if any(word in block for word in _LEFT_OUT):
            return None
        return "\n".join(line for line in block.splitlines() if _LEFT_OUT_LINE not in line)

    def shell(block: str) -> None:
        for line in commands(block):
            run_shell_line(page, line, directory)

    found = blocks(page, "python")
    left_out = sum(prepare(block) is None for block in found)
    assert left_out <= 1
    assert run_page(page, {}, prepare, shell) == len(found) - left_out


def test_every_page_with_code_is_tested() -> None:
    pages = pages_with_code()
    assert pages <= {*PAGES, *TESTED_ELSEWHERE, *WITHOUT_PROGRAMS}
    assert set(PAGES) <= pages
    for page in WITHOUT_PROGRAMS:
        assert not blocks(page, "python", "console", "text")


@pytest.mark.parametrize("page", sorted(pages_with_code()))
def test_blocks_are_python(page: str) -> None:
    """Also those of pages that are executed only where a framework is installed."""
    for block in blocks(page, "python"):
        compile(block, page, "exec")


def test_every_block_has_a_language_that_is_executed() -> None:
    for page in PAGES:
        languages = ["", *(language for language, _ in all_blocks(page))]
        assert set(languages) <= {"", "python", "text", "sh", "console", "json", "toml"}
        for before, language in itertools.pairwise(languages):
            assert language != "text" or before == "python", page


def test_every_shell_line_is_executed() -> None:
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                assert line in commands(block) or _OTHER_COMMANDS.match(line), f"{page}: {line}"


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


def test_message_of_the_stand_in() -> None:
    (shown,) = blocks("docs/stand_in", "")
    assert f"AttributeError: {names.missing('tensorflow.Session')}" == " ".join(shown.split())
