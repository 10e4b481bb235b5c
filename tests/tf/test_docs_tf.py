# SPDX-License-Identifier: Apache-2.0
"""The code blocks of the pages that need TensorFlow, each page in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from document_pages import ROOT, blocks, pages_with_code

pytest.importorskip("tensorflow")

# By page: statements that are executed after its blocks.
CHECKS = {
    "docs/tensorflow": """
assert table.numpy().tolist() == np.ones((1000, 8)).tolist()
assert kernel.numpy().tolist() == np.ones((64, 8)).tolist()
assert tb.tf.calls()["RestoreV2"] > 0
""",
    "docs/serve_every_restore": "tb.tf.uninstall()",
    "docs/warm_start": "",
}


def program(page: str) -> str:
    """Returns what a process executes: the page without blocks that this TensorFlow cannot run."""
    return f"""
import sys
import tensorflow as tf
import document_pages
has_estimator = tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16)
def prepare(block):
    return None if "tf.estimator" in block and not has_estimator else block
namespace = {{}}
assert document_pages.run_page({page!r}, namespace, prepare) > 0
document_pages.execute({CHECKS[page]!r}, "checks", namespace)
"""


@pytest.mark.slow
@pytest.mark.parametrize("page", CHECKS)
def test_python_blocks(page: str, tmp_path: Path) -> None:
    assert page in pages_with_code()
    helpers = str(ROOT / "tests" / "python")
    paths = os.pathsep.join(filter(None, [helpers, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", program(page)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{page}\n{done.stdout}\n{done.stderr[-4000:]}"


@pytest.mark.slow
def test_readme_switch(tmp_path: Path) -> None:
    (switch,) = [block for block in blocks("README", "python") if "tb.tf.install()" in block]
    code = f"{switch}\nassert tf.train.load_variable('m', 'x') == 7; assert tb.tf.calls()"
    save = "import tensorbundle; tensorbundle.save('m', {'x': 7})\n"
    command = [sys.executable, "-c", save + code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
