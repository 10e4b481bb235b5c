# SPDX-License-Identifier: Apache-2.0
"""The ops are loaded once, from one file. Each case runs in a separate process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tensorbundle
from tensorbundle import plugin

pytest.importorskip("tensorflow")
LIBRARY = plugin.find_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the op library is not built")


def run(script: str, *args: object, path: Path | None = None) -> str:
    """Runs a script, which must succeed; returns its output."""
    folders = [str(Path(tensorbundle.__file__).parents[1]), *([str(path)] if path else [])]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(folders), "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


READ_BIAS = """
value, _ = ops.tensorbundle_read_v1(prefix=sys.argv[1], tensor="conv2d/bias", dtype=tf.float32)
print(value.shape)
"""
MNIST = Path(__file__).parents[1] / "data" / "checkpoints" / "mnist_tf1" / "model.ckpt-46900"


def test_import_does_not_load_tensorflow() -> None:
    out = run(
        "import sys, tensorbundle.tf, tensorbundle.tf.op_library as op_library\n"
        "print(op_library.find(), op_library.state(), 'tensorflow' in sys.modules)"
    )
    assert out == f"{LIBRARY} not loaded False\n"


def test_second_load_returns_same_library() -> None:
    out = run(
        "import sys, tensorflow as tf, tensorbundle.tf\n"
        "from tensorbundle.tf import op_library\n"
        "ops = tensorbundle.tf.load_op_library()\n"
        "assert tensorbundle.tf.load_op_library() is ops and op_library.load() is ops\n"
        "assert op_library.unavailable_reason() is None and op_library.state() == 'loaded'\n"
        + READ_BIAS,
        MNIST,
    )
    assert out == "(32,)\n"


def test_library_loaded_by_other_path_is_accepted(tmp_path: Path) -> None:
    """TensorFlow loads it by the link in its plugin folder."""
    link = tmp_path / "tensorflow-plugins" / plugin.LIBRARY
    link.parent.mkdir()
    link.symlink_to(str(LIBRARY))
    out = run(
        "import sys, tensorflow as tf\n"
        "tf.load_library(sys.argv[2])\n"
        "from tensorbundle.tf import op_library\n"
        "ops = op_library.load_op_library()\n" + READ_BIAS,
        MNIST, link,
    )  # fmt: skip
    assert out == "(32,)\n"


def test_second_copy_is_rejected(tmp_path: Path) -> None:
    copy = tmp_path / plugin.LIBRARY
    shutil.copy(str(LIBRARY), copy)
    out = run(
        "import sys, tensorflow as tf\n"
        "ops = tf.load_op_library(sys.argv[2])\n"
        "from tensorbundle.tf import op_library\n"
        "assert op_library.load() is None\n"
        "print(op_library.unavailable_reason())\n"
        "try:\n"
        "    op_library.load_op_library()\n"
        "except RuntimeError as error:\n"
        "    print(error)\n" + READ_BIAS,
        MNIST, copy,
    )  # fmt: skip
    reason, raised, shape = out.splitlines()
    assert f"another copy of it is loaded already, {copy}" in reason
    assert raised.endswith(reason)
    assert shape == "(32,)"  # the first copy still works


def test_loading_a_copy_later_keeps_the_first(tmp_path: Path) -> None:
    """The copy reports the conflict and leaves the first library usable."""
    copy = tmp_path / plugin.LIBRARY
    shutil.copy(str(LIBRARY), copy)
    out = run(
        "import sys, tensorflow as tf, tensorbundle.tf\n"
        "ops = tensorbundle.tf.load_op_library()\n"
        "tf.load_library(sys.argv[2])\n" + READ_BIAS,
        MNIST, copy,
    )  # fmt: skip
    assert out == "(32,)\n"


def test_broken_tensorflow_is_reported(tmp_path: Path) -> None:
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('broken')\n")
    out = run(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tensorbundle.tf import op_library\n"
        "print(op_library.unavailable_reason())",
        tmp_path,
    )
    assert out == "TensorFlow cannot be imported: broken\n"


def test_import_of_tensorflow_loads_enabled_plugin() -> None:
    """Needs a writable TensorFlow installation without the link."""
    before = plugin.status()
    if before.state != "disabled" or not os.access(Path(str(before.link)).parents[1], os.W_OK):
        pytest.skip(f"the plugin is {before.state} here, or its folder is read-only")
    plugin.enable()
    try:
        out = run(
            "import tensorflow as tf\n"
            "from tensorflow.python.framework import op_def_registry\n"
            "print(op_def_registry.get('TensorbundleReadV1') is not None)\n"
            "from tensorbundle.tf import op_library\n"
            "print(op_library.load_op_library().tensorbundle_read_v1.__name__)"
        )
    finally:
        plugin.disable()
    assert out == "True\ntensorbundle_read_v1\n"
