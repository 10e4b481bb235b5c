# SPDX-License-Identifier: Apache-2.0
"""The code blocks of README and docs are executed, page by page, in a temporary directory.

Python blocks of a page share one namespace, which is empty at first. A statement whose comment
begins with the name of an exception, ``# ValueError: ...``, has to raise it. Lines of shell blocks
that call ``tensorbundle`` are executed by bash. The output in ``console`` blocks is compared with
that on a terminal. Blocks that need TensorFlow or another package are left out; the pages about
other frameworks are those of `test_frameworks`.
"""

from __future__ import annotations

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
from document_pages import ROOT, blocks, execute

import tensorbundle as tb

PAGES = [
    "README",
    *(
        f"docs/{name}"
        for name in (
            "quickstart",
            "writing",
            "edit",
            "average",
            "diff",
            "convert",
            "align",
            "lifetimes",
            "stand_in",
            "index",
            "migrating",
            "command_line",
        )
    ),
]

# Blocks with one of these need TensorFlow, or a package that the tests do not install.
_LEFT_OUT = ("tb.init_from_checkpoint", "tb.warm_start", "from transformers")
_LEFT_OUT_LINE = ".parquet"

# What stands for the names in capital letters.
_PLACEHOLDERS = {
    "CHECKPOINT": "tests/data/checkpoints/mnist_tf1",
    "OTHER": "model.ckpt-1000",
    "NEW": "new/model.ckpt",
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
    for name in ("tests/data/checkpoints/mnist_tf1", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
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
@pytest.mark.parametrize("page", PAGES[:-1])
def test_python_blocks(page: str, directory: Path) -> None:
    found = blocks(page, "python")
    assert found
    if any('tb.save("model.ckpt-1000"' in block for block in found):
        for file in directory.glob("model.ckpt*"):
            file.unlink()  # the page writes them
    namespace: dict[str, Any] = {}
    for block in found:
        if not any(word in block for word in _LEFT_OUT):
            lines = [line for line in block.splitlines() if _LEFT_OUT_LINE not in line]
            execute("\n".join(lines), page, namespace)


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


def test_console_output(directory: Path) -> None:
    (block,) = blocks("docs/command_line", "console")
    command, _, expected = block.partition("\n")
    screen = in_terminal(*shlex.split(command)[2:])
    assert screen.status == 0
    assert [line for line in screen.lines if line] == [
        line for line in expected.splitlines() if line
    ]
