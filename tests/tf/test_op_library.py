# SPDX-License-Identifier: Apache-2.0
"""The first copy of the op library serves a process; later ones change nothing.

Each case runs in a separate process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tensorbundle
from tensorbundle import plugin

tf = pytest.importorskip("tensorflow")
LIBRARY = plugin.find_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the op library is not built")


def run(script: str, *args: object, path: Path | None = None) -> str:
    """Runs a script, which must succeed; returns its output. `path` replaces Python's path."""
    folder = path or Path(tensorbundle.__file__).parents[1]
    environment = {
        **os.environ, "PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


MNIST = Path(__file__).parents[1] / "data" / "checkpoints" / "mnist_tf1" / "model.ckpt-46900"
HELPERS = f"""
import ctypes, sys, threading, warnings
ANOTHER = "another copy of tensorbundle's op library was loaded first"
PREFIX = {str(MNIST)!r}
"""
# Functions of the scripts. `served` reads by TensorFlow's op and by ours, and checks that there is
# one kernel of ours for each.
HELPERS += """
import tensorflow as tf
from tensorflow.python.framework import kernels

LOADERS = {
    "ctypes": ctypes.CDLL,
    "load_library": tf.load_library,
    "load_op_library": tf.load_op_library,
}


def restore():
    return tf.raw_ops.RestoreV2(
        prefix=PREFIX, tensor_names=["conv2d/bias"], shape_and_slices=[""], dtypes=[tf.float32]
    )[0]


EXPECTED = tf.train.load_checkpoint(PREFIX).get_tensor("conv2d/bias").tolist()


def num_kernels(op, priority):
    found = kernels.get_registered_kernels_for_op(op).kernel
    return len([each for each in found if each.priority == priority])


def calls(path):
    library = ctypes.CDLL(str(path))
    library.tensorbundle_tf_op_calls.restype = ctypes.c_int64
    return library.tensorbundle_tf_op_calls(b"RestoreV2")


def error_of(path):
    library = ctypes.CDLL(str(path))
    library.tensorbundle_tf_error.restype = ctypes.c_char_p
    return library.tensorbundle_tf_error().decode()


def check_served(path):
    before = calls(path)
    assert restore().numpy().tolist() == EXPECTED
    assert calls(path) == before + 1, (before, calls(path), error_of(path))
    assert num_kernels("RestoreV2", 1) == num_kernels("TensorbundleReadV1", 0) == 1
"""
READ = """
value, _ = ops.tensorbundle_read_v1(prefix=PREFIX, tensor="conv2d/bias", dtype=tf.float32)
assert value.numpy().tolist() == EXPECTED
"""


def copy_library(path: Path, replaced: dict[bytes, bytes] | None = None) -> Path:
    """Copies the library as another build: its content differs, with replaced names."""
    content = Path(str(LIBRARY)).read_bytes() + b"another build"
    for old, new in (replaced or {}).items():
        assert len(old) == len(new) and old in content
        content = content.replace(old, new)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def copies(tmp_path: Path) -> list[Path]:
    """A link, a copy of the same name, and a renamed copy."""
    link = tmp_path / "link" / plugin.LIBRARY
    link.parent.mkdir()
    link.symlink_to(str(LIBRARY))
    return [
        link,
        copy_library(tmp_path / "copy" / plugin.LIBRARY),
        copy_library(tmp_path / "renamed.so"),
    ]


def test_import_does_not_load_tensorflow() -> None:
    out = run(
        "import sys, tensorbundle.tf\n"
        "assert tensorbundle.tf.options and 'install' in dir(tensorbundle.tf)\n"
        "tensorbundle.show_versions()\n"
        "assert 'tensorflow' not in sys.modules"
    )
    assert f"not loaded; {LIBRARY}; plugin " in out


def test_second_load_returns_same_module() -> None:
    run(
        HELPERS
        + """
import tensorbundle.tf
from tensorbundle.tf import op_library

assert tensorbundle.tf.calls() == {}
assert op_library.state() == "not loaded"
ops = tensorbundle.tf.load_op_library()
tf.load_op_library = None  # TensorFlow's function returns the same module each time
assert tensorbundle.tf.load_op_library() is ops and op_library.load() is ops
assert op_library.unavailable_reason() is None
assert op_library.state() == "loaded, serves RestoreV2, GenerateVocabRemapping, LoadAndRemapMatrix"
assert {name for name in op_library.OPS if num_kernels(name, 0) == 1} == set(op_library.OPS)
assert tensorbundle.tf.calls() == {}
check_served(op_library.find())
assert tensorbundle.tf.calls() == {"RestoreV2": 1}
"""
        + READ
    )


@pytest.mark.parametrize("loader", ["ctypes", "load_library", "load_op_library"])
@pytest.mark.parametrize("first", [0, 1, 2], ids=["link", "copy", "renamed"])
def test_package_uses_copy_that_was_loaded_first(
    copies: list[Path], first: int, loader: str
) -> None:
    run(
        HELPERS
        + """
loader, first, *others = sys.argv[1:]
assert restore().numpy().tolist() == EXPECTED
LOADERS[loader](first)
from tensorbundle.tf import op_library

ops = op_library.load_op_library()
check_served(first)
assert op_library.kernels_unavailable_reason() is None
assert op_library.kernel_calls() == {"RestoreV2": 1}
for other in others:
    for load in LOADERS.values():
        load(other)
        check_served(first)
assert op_library.kernel_calls() == {"RestoreV2": calls(first)}
"""
        + READ,
        loader, copies[first], *copies,
    )  # fmt: skip


def test_later_copies_change_nothing(copies: list[Path]) -> None:
    run(
        HELPERS
        + """
from tensorbundle.tf import op_library

link, *others = sys.argv[1:]
ops = op_library.load_op_library()
for load in LOADERS.values():
    load(link)
    check_served(op_library.find())
    for other in others:
        load(other)
        assert error_of(other) == f"{ANOTHER}, {op_library.find()}"
        assert calls(other) == calls(op_library.find())
        check_served(op_library.find())
"""
        + READ,
        *copies,
    )


def test_copies_loaded_in_threads_register_once(tmp_path: Path) -> None:
    run(
        HELPERS
        + """
from tensorbundle.tf import op_library

ready = threading.Barrier(len(sys.argv))
def load(number, path):
    ready.wait()
    list(LOADERS.values())[number % 3](path)
def load_package():
    ready.wait()
    op_library.load_op_library()
threads = [threading.Thread(target=load, args=each) for each in enumerate(sys.argv[1:])]
threads.append(threading.Thread(target=load_package))
for each in threads: each.start()
for each in threads: each.join()
ops = op_library.load_op_library()
paths = [*sys.argv[1:], op_library.find()]
(first,) = [path for path in paths if not error_of(path)]
for path in paths:
    check_served(path)
assert op_library.kernel_calls() == {"RestoreV2": len(paths)}
"""
        + READ,
        *(copy_library(tmp_path / f"copy{number}.so") for number in range(8)),
    )


def test_package_works_with_newer_version_that_was_loaded_first(tmp_path: Path) -> None:
    """A version that has none of our op names; or any library with a kernel for RestoreV2."""
    newer = copy_library(tmp_path / plugin.LIBRARY, {b"V1\0": b"V9\0"})
    run(
        HELPERS
        + """
LOADERS["load_library"](sys.argv[1])
import tensorbundle as tb
from tensorbundle.tf import op_library

ops = op_library.load_op_library()
check_served(sys.argv[1])
assert num_kernels("TensorbundleReadV9", 0) == 1
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    tb.tf.install()
    tb.tf.install()
(warning,) = [str(each.message) for each in caught if "restore ops" in str(each.message)]
assert "another library has registered its kernels first, so other kernels run RestoreV2" in warning
assert hasattr(tf.train.load_checkpoint, "__wrapped__")
assert tb.tf.calls() == {}
"""
        + READ,
        newer,
    )


@pytest.mark.parametrize("order", ["older first", "older second"])
def test_version_with_fewer_ops(tmp_path: Path, order: str) -> None:
    older = copy_library(
        tmp_path / plugin.LIBRARY, {b"TensorbundleRemapV1\0": b"TensorbundleRemapV0\0"}
    )
    if order == "older second":
        run(
            HELPERS
            + """
from tensorbundle.tf import op_library
ops = op_library.load_op_library()
for load in LOADERS.values():
    load(sys.argv[1])
check_served(op_library.find())
assert num_kernels("TensorbundleRemapV0", 0) == 0
"""
            + READ,
            older,
        )
        return
    run(
        HELPERS
        + """
ops = LOADERS["load_op_library"](sys.argv[1])
import tensorbundle as tb
from tensorbundle.tf import op_library

with warnings.catch_warnings():
    warnings.filterwarnings("error", category=RuntimeWarning)
    tb.tf.install()
reason = op_library.unavailable_reason()
assert f"{ANOTHER}, {sys.argv[1]}" in reason, reason
assert "the process has no TensorbundleRemapV1. `tensorbundle plugin status`" in reason, reason
assert op_library.state() == f"cannot be loaded: {reason}"
check_served(sys.argv[1])
assert tb.tf.calls() == {"RestoreV2": 1}
"""
        + READ,
        older,
    )


def test_library_loaded_before_tensorflow_registers_nothing() -> None:
    run(
        f"""
import ctypes, sys
ctypes.CDLL({str(LIBRARY)!r})
"""
        + HELPERS
        + """
from tensorbundle.tf import op_library

assert "is not loaded: import tensorflow first" in op_library.unavailable_reason()
assert restore().numpy().tolist() == EXPECTED
assert num_kernels("RestoreV2", 1) == num_kernels("TensorbundleReadV1", 0) == 0
"""
    )


def test_library_loaded_late_serves_what_ran_before() -> None:
    """All but the ops that a session has run before."""
    run(
        HELPERS
        + """
from tensorbundle.tf import op_library

function = tf.function(restore)
nested = tf.function(lambda: function() + 0)
EAGER = [restore, function, nested]
for each in EAGER:
    assert each().numpy().tolist() == EXPECTED
with tf.Graph().as_default() as graph:
    old = restore()
    session = tf.compat.v1.Session()
    assert session.run(old).tolist() == EXPECTED
op_library.load_op_library()
expected_calls = 0
for each in EAGER:
    assert each().numpy().tolist() == EXPECTED
    expected_calls += 1
    assert op_library.kernel_calls()["RestoreV2"] == expected_calls
with graph.as_default():
    new = restore()
for each, fetch, is_ours in [
    (session, old, False), (session, new, True), (tf.compat.v1.Session(graph=graph), old, True),
]:
    assert each.run(fetch).tolist() == EXPECTED
    expected_calls += is_ours
    assert op_library.kernel_calls()["RestoreV2"] == expected_calls
"""
    )


def test_broken_tensorflow_is_an_import_error(tmp_path: Path) -> None:
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('broken')\n")
    out = run(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import tensorbundle.tf\n"
        "try: tensorbundle.tf.load_op_library()\n"
        "except ImportError as error: print(error)",
        tmp_path,
    )
    assert out == "broken\n"


def test_plugin_serves_unchanged_script(tmp_path: Path) -> None:
    """The script imports no tensorbundle. TensorFlow finds the plugin next to its package."""
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "tensorflow").symlink_to(Path(str(tf.__file__)).parent)
    # Alone in its folder: the folder that it is installed in may hold a TensorFlow too, whose
    # plugin would then serve all that runs in this environment.
    package = tmp_path / "package"
    package.mkdir()
    (package / "tensorbundle").symlink_to(Path(tensorbundle.__file__).parent)
    out = run(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tensorbundle import plugin\n"
        "print(plugin.enable().link)",
        package, path=site,
    )  # fmt: skip
    link = site / plugin.FOLDER / plugin.LIBRARY
    assert out == f"{link}\n"
    script = """
import sys
import tensorflow as tf
variable = tf.Variable([1.0, 2.0])
path = tf.train.Checkpoint(variable=variable).save(sys.argv[1])
variable.assign([0, 0])
tf.train.Checkpoint(variable=variable).restore(path).assert_consumed()
assert variable.numpy().tolist() == [1, 2]
assert not [name for name in sys.modules if "tensorbundle" in name]
"""
    count = """
import ctypes
library = ctypes.CDLL(sys.argv[2])
library.tensorbundle_tf_op_calls.restype = ctypes.c_int64
count = library.tensorbundle_tf_op_calls(b"RestoreV2")
assert count > 0
sys.path.insert(0, sys.argv[3])
import tensorbundle as tb
assert tb.tf.calls() == {"RestoreV2": count}
print(tb.tf.load_op_library().tensorbundle_read_v1.__name__)
tb.show_versions()
"""
    out = run(script + count, tmp_path / "m", link, package, path=site)
    function, *versions = out.splitlines()
    assert function == "tensorbundle_read_v1"
    assert "loaded, serves RestoreV2" in versions[-1]
    assert versions[-1].endswith("plugin enabled: it serves all scripts")
