# SPDX-License-Identifier: Apache-2.0
"""``stand_in`` and ``run_script``, in processes without TensorFlow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reading_scripts import CONTRIB, SCRIPTS, arguments, write_model

import tensorbundle as tb
from tensorbundle import errors as tb_errors
from tensorbundle.tensorflow_api import dtypes, errors, gfile, names, raised

ADVICE = "it offers only the functions that read checkpoints"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("stand_in") / "model")


def python(code: str, *args: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs code in a new process."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def check(code: str, *args: object) -> None:
    """Runs code in a new process, which must succeed silently."""
    done = python(f"import sys\nimport tensorbundle as tb\n{code}", *args)
    assert (done.returncode, done.stderr) == (0, "")


RUN = """
import sys
from tensorbundle.stand_in import run_script
status = run_script(sys.argv[1], sys.argv[2:])
assert "tensorflow" not in sys.modules
sys.exit(status)
"""


def run(script: Path, *args: object, **options: object) -> subprocess.CompletedProcess[str]:
    return python(RUN, script, *args, **options)


def write(path: Path, source: str) -> Path:
    path.write_text(source)
    return path


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "errors"])
def test_script_runs_without_tensorflow(name: str, model: Path, tmp_path: Path) -> None:
    if name == "flags":
        pytest.importorskip("absl")
    script = write(tmp_path / "script.py", SCRIPTS[name][0])
    done = run(script, *arguments(name, model, tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_values_are_those_of_the_checkpoint(model: Path, tmp_path: Path) -> None:
    source = """
import sys
import numpy as np
import tensorflow as tf
reader = tf.train.load_checkpoint(sys.argv[1])
dtypes = reader.get_variable_to_dtype_map()
floats = [name for name, _ in tf.train.list_variables(sys.argv[1]) if dtypes[name] == tf.float32]
np.savez(sys.argv[2], **{name: tf.train.load_variable(sys.argv[1], name) for name in floats})
"""
    done = run(write(tmp_path / "s.py", source), model / "model.ckpt-7", tmp_path / "v.npz")
    assert done.returncode == 0, done.stderr
    import numpy as np

    with np.load(tmp_path / "v.npz") as values, tb.open(model) as checkpoint:
        expected = [name for name in checkpoint if checkpoint[name].dtype == np.float32]
        assert sorted(values) == sorted(expected)
        assert all(np.array_equal(values[name], checkpoint[name]) for name in expected)


def test_names_of_tensorflow_1(model: Path, tmp_path: Path) -> None:
    done = run(write(tmp_path / "s.py", CONTRIB), model)
    assert (done.returncode, done.stdout) == (0, "21 True True True\n"), done.stderr


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("tf.Session", "tf.Session"),
        ("tf.keras.layers", "tf.keras"),
        ("tf.train.Saver()", "tf.train.Saver"),
        ("tf.compat.v1.global_variables()", "tf.compat.v1.global_variables"),
        ("tf.io.read_file('x')", "tf.io.read_file"),
        ("tf.contrib.layers", "tf.contrib.layers"),
    ],
)
def test_missing_attribute_is_named_when_used(statement: str, name: str, tmp_path: Path) -> None:
    script = write(tmp_path / "s.py", f"import tensorflow as tf\nprint('began')\n{statement}\n")
    done = run(script)
    assert (done.returncode, done.stdout) == (1, "began\n")
    message = f"AttributeError: tensorbundle's stand-in for TensorFlow has no {name}: {ADVICE}"
    assert message in done.stderr


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("import tensorflow.keras", "tf.keras"),
        ("from tensorflow import keras", "tf.keras"),
        ("from tensorflow.keras.layers import Dense", "tf.keras"),
        ("from tensorflow.python.ops import variables", "tf.python.ops"),
        ("from tensorflow.train import Saver", "tf.train.Saver"),
        ("import tensorflow.float32", "tf.float32 as a module"),
    ],
)
def test_missing_module_is_named_at_import(statement: str, name: str, tmp_path: Path) -> None:
    done = run(write(tmp_path / "s.py", statement))
    assert done.returncode == 1
    message = f"ModuleNotFoundError: tensorbundle's stand-in for TensorFlow has no {name}: {ADVICE}"
    assert message in done.stderr


def test_imports_find_the_same_modules() -> None:
    check("""
import importlib.util
with tb.stand_in() as root:
    import tensorflow as tf
    import tensorflow.compat.v1 as tf1
    import tensorflow.compat.v2 as tf2
    from tensorflow.python.training import checkpoint_utils, py_checkpoint_reader
    from tensorflow.python.checkpoint import checkpoint_management
    from tensorflow.python.framework import errors_impl
    from tensorflow.python import pywrap_tensorflow
    from tensorflow.python.platform import gfile
    from tensorflow.python.lib.io import file_io
    from tensorflow.io.gfile import GFile
    import tensorflow.train
    assert root is tf is sys.modules["tensorflow"]
    assert tf1.train.load_variable is tf.train.load_variable is checkpoint_utils.load_variable
    assert tf2.io.gfile.GFile is GFile is gfile.GFile is file_io.FileIO
    assert errors_impl.NotFoundError is tf1.errors.NotFoundError is tf.errors.NotFoundError
    assert tf.python.pywrap_tensorflow is pywrap_tensorflow
    assert tensorflow.train is tf.train and tf.compat.v1 is tf1 and tf1.compat.as_str
    assert importlib.util.find_spec("tensorflow").name == "tensorflow"
    assert hasattr(tf, "train") and not hasattr(tf, "Session")
    assert getattr(tf, "keras", None) is None and not hasattr(tf, "__file__")
    assert not isinstance(1, (tf.Tensor, tf.Variable)) and not tf.is_tensor(1)
    assert set(dir(tf)) > {"train", "io", "float32", "compat"} and "_lazy" not in dir(tf)
    for name in dir(tf):
        getattr(tf, name)
    try:
        tf.Variable(1)
    except tb.UnsupportedError as error:
        assert "cannot create a tf.Variable" in str(error)
    tf.disable_v2_behavior(); tf1.enable_eager_execution(); tf.config.set_visible_devices([], "GPU")
    assert tf.config.list_physical_devices("GPU") == []
""")


def test_modules_are_removed_and_found_again() -> None:
    check("""
import importlib.util
paths = list(sys.meta_path)
with tb.stand_in():
    import tensorflow.compat.v1 as first
assert sys.meta_path == paths
assert {name for name in sys.modules if name.startswith("tensorflow")} == set()
assert first.train.load_checkpoint and first.io.gfile.exists("/")
spec = importlib.util.find_spec("tensorflow")
assert spec is None or spec.origin  # TensorFlow may be installed
with tb.stand_in():
    import tensorflow.compat.v1 as second
assert first is second
sys.modules["tensorflow"] = None
with tb.stand_in():
    import tensorflow as tf
    assert tf.float32
assert sys.modules.pop("tensorflow") is None
""")


def test_nested_use_and_exceptions() -> None:
    check("""
with tb.stand_in() as tf:
    with tb.stand_in() as inner:
        assert inner is tf
    import tensorflow
    assert tensorflow is tf
try:
    with tb.stand_in():
        raise KeyError(1)
except KeyError:
    pass
assert "tensorflow" not in sys.modules

@tb.stand_in()
def decorated():
    import tensorflow as tf
    return tf.float32
assert decorated() == decorated() == "float32" and "tensorflow" not in sys.modules
""")


def test_threads_share_the_stand_in() -> None:
    check("""
import threading
failures = []
def work():
    for _ in range(200):
        with tb.stand_in() as root:
            import tensorflow as tf
            from tensorflow.python.training import checkpoint_utils
            if tf is not root or not checkpoint_utils.load_variable:
                failures.append(tf)
threads = [threading.Thread(target=work) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
assert not failures and "tensorflow" not in sys.modules
assert not any("Finder" in type(each).__name__ and "tensorbundle" in type(each).__module__
               for each in sys.meta_path)
""")


def test_imported_tensorflow_is_refused() -> None:
    check("""
import types
other = sys.modules["tensorflow"] = types.ModuleType("tensorflow")
other.__version__ = "2.0.1"
try:
    with tb.stand_in():
        raise AssertionError
except RuntimeError as error:
    assert "TensorFlow 2.0.1 is already imported" in str(error)
assert sys.modules["tensorflow"] is other
del sys.modules["tensorflow"]
sys.modules["tensorflow.part"] = other
with tb.stand_in():
    assert "tensorflow.part" not in sys.modules
assert sys.modules["tensorflow.part"] is other
""")


def test_functions_for_tensorflow_are_refused_inside() -> None:
    check("""
with tb.stand_in():
    try:
        tb.init_from_checkpoint("x", {})
    except ImportError as error:
        assert "needs TensorFlow itself" in str(error)
    else:
        raise AssertionError
assert not [name for name in sys.modules if name.startswith("tensorbundle.tf.")]
""")


def test_star_import_and_module_do_not_hide_the_function() -> None:
    check("""
import tensorbundle.stand_in
from tensorbundle.stand_in import run_script
from tensorbundle import *
assert callable(stand_in) and stand_in is tb.stand_in and callable(run_script)
assert not [name for name in sys.modules if name.startswith("tensorbundle.tensorflow_api")]
""")


def test_missing_absl_is_named() -> None:
    check("""
sys.modules["absl"] = None
with tb.stand_in() as tf:
    try:
        tf.app.run()
    except AttributeError as error:
        assert "has tf.app only if absl-py is installed: pip install absl-py" in str(error)
    assert not hasattr(tf.compat.v1, "flags") and "app" not in dir(tf)
""")


def test_log_messages_are_printed_as_tensorflow_does(tmp_path: Path) -> None:
    script = write(
        tmp_path / "s.py",
        """
import logging
import tensorflow as tf
tf.logging.info("no")
tf.logging.warning("w %d", 1)
tf.get_logger().setLevel("INFO")
tf.compat.v1.logging.info("yes")
for i in range(4):
    tf.logging.log_first_n(tf.logging.ERROR, "first %d", 2, i)
    tf.logging.log_every_n(tf.logging.ERROR, "every %d", 3, i)
tf.logging.set_verbosity(tf.logging.FATAL)
tf.logging.error("no")
assert tf.logging.get_verbosity() == tf.logging.FATAL
tf.train.latest_checkpoint(".")
""",
    )
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "gone"')
    done = run(script, cwd=tmp_path)
    assert done.returncode == 0
    lines = ["WARNING:tensorflow:w 1", "INFO:tensorflow:yes", "ERROR:tensorflow:first 0"]
    lines += ["ERROR:tensorflow:every 0", "ERROR:tensorflow:first 1", "ERROR:tensorflow:every 3"]
    lines += ["ERROR:tensorbundle:Couldn't match files for checkpoint ./gone"]
    assert done.stderr.splitlines() == lines


def test_logger_is_left_as_it_was() -> None:
    check("""
import logging
with tb.stand_in() as tf:
    tf.logging.set_verbosity(tf.logging.DEBUG)
    tf.get_logger().propagate = False
logger = logging.getLogger("tensorflow")
assert not logger.handlers and logger.level == logging.NOTSET and logger.propagate
""")


def test_script_is_the_main_module(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("value = 5")
    script = write(
        tmp_path / "s.py",
        """
import os, pickle, sys
import neighbour
class Local: pass
assert pickle.loads(pickle.dumps(Local())).__class__ is Local
assert sys.modules["__main__"].Local is Local and __name__ == "__main__" and __spec__ is None
assert sys.path[0] == os.path.dirname(os.path.realpath(__file__)) and os.path.isabs(__file__)
print(sys.argv, neighbour.value)
""",
    )
    code = """
import sys, os
from tensorbundle.stand_in import run_script
before = sys.argv, sys.path[:], sys.modules["__main__"]
os.chdir(sys.argv[1])
status = run_script("s.py", ["-x", "two words"])
assert (sys.argv, sys.path, sys.modules["__main__"]) == before
sys.exit(status)
"""
    done = python(code, tmp_path)
    assert (done.returncode, done.stdout) == (0, "['s.py', '-x', 'two words'] 5\n"), done.stderr
    link = tmp_path / "links" / "link.py"
    link.parent.mkdir()
    link.symlink_to(script)
    assert run(link).returncode == 0


@pytest.mark.parametrize(
    ("statement", "status", "error"),
    [
        ("pass", 0, ""),
        ("raise SystemExit", 0, ""),
        ("import sys; sys.exit(5)", 5, ""),
        ("import sys; sys.exit(True)", 1, ""),
        ("import sys; sys.exit('words')", 1, "words\n"),
        ("raise KeyboardInterrupt", 130, None),
        ("1 / 0", 1, None),
    ],
)
def test_exit_status_is_that_of_the_script(
    statement: str, status: int, error: str | None, tmp_path: Path
) -> None:
    done = run(write(tmp_path / "s.py", statement))
    assert done.returncode == status
    assert error is None or done.stderr == error


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    raise ValueError('words')\nf()\n",
        "import json\njson.loads('{')\n",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('x') from error\n",
        "if True\n    pass\n",
        "x = '\\N{nothing}'\n",
    ],
)
def test_traceback_is_that_of_python(source: str, tmp_path: Path) -> None:
    script = write(tmp_path / "s.py", source)
    plain = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    done = run(script)
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)


def test_encoding_of_the_script_counts(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_bytes("# coding: latin-1\nprint(ascii('é'))\n".encode("latin-1"))
    assert run(script).stdout == "'\\xe9'\n"


def test_absent_script_is_an_error_of_the_caller(tmp_path: Path) -> None:
    from tensorbundle.stand_in import run_script

    with pytest.raises(FileNotFoundError, match=r"none\.py"):
        run_script(str(tmp_path / "none.py"))
    with pytest.raises(IsADirectoryError):
        run_script(str(tmp_path))


THREADS = """
import concurrent.futures, threading, time
def work():
    time.sleep(0.3)
    import tensorflow as tf
    print(tf.float32.name)
threading.Thread(target=work).start()
"""
POOL = """
executor = concurrent.futures.ThreadPoolExecutor()
executor.submit(int)  # the idle worker ends when the interpreter does
"""


@pytest.mark.parametrize("source", [THREADS, THREADS + POOL])
def test_threads_of_the_script_keep_the_stand_in(source: str, tmp_path: Path) -> None:
    script = write(tmp_path / "s.py", source)
    code = "import sys; from tensorbundle.stand_in import run_script; run_script(sys.argv[1])"
    done = python(code, script, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "float32\n", "")


def test_stand_in_ends_after_the_threads(tmp_path: Path) -> None:
    write(tmp_path / "s.py", THREADS)
    check(
        """
import threading
from tensorbundle.stand_in import run_script
assert run_script(sys.argv[1] + "/s.py") == 0
assert sys.meta_path[0].__class__.__module__ == "tensorbundle.stand_in"
for each in threading.enumerate():
    if each is not threading.main_thread():
        each.join()
assert "tensorflow" not in sys.modules
assert sys.meta_path[0].__class__.__module__ != "tensorbundle.stand_in"
""",
        tmp_path,
    )


def test_interrupt_ends_the_script(tmp_path: Path) -> None:
    script = write(tmp_path / "s.py", "import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen(
        [sys.executable, "-c", RUN, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"KeyboardInterrupt" in error


def test_exceptions_are_ours_and_tensorflows(model: Path, tmp_path: Path) -> None:
    import pickle

    train = names.root().train
    (tmp_path / "bad").write_bytes(b"x" * 4096)
    reader = train.load_checkpoint(str(model))
    cases = [
        (lambda: reader.get_tensor("x"), tb.TensorNotFoundError, errors.NotFoundError),
        (lambda: train.load_checkpoint("x"), tb.CheckpointNotFoundError, errors.NotFoundError),
        (lambda: train.load_checkpoint(tmp_path / "bad"), tb.CorruptionError, errors.DataLossError),
        (lambda: train.load_checkpoint("gs://a/b"), tb.UnsupportedError, errors.UnimplementedError),
        (lambda: train.NewCheckpointReader(model), tb.CorruptionError, errors.DataLossError),
        (lambda: gfile.stat("none"), FileNotFoundError, errors.NotFoundError),
        (lambda: gfile.stat("none"), tb.NotFoundError, errors.NotFoundError),
        (lambda: gfile.remove(tmp_path), tb.IOFailure, errors.FailedPreconditionError),
        (lambda: gfile.exists("gs://a/b"), tb.UnsupportedError, errors.UnimplementedError),
        (lambda: gfile.exists("a\0b"), errors.OpError, errors.InvalidArgumentError),
    ]
    for call, own, theirs in cases:
        with pytest.raises(own) as caught:
            call()
        for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
            assert isinstance(error, own) and isinstance(error, theirs)
            assert error.error_code == theirs(None, None, "").error_code
            assert error.message == str(error) == str(caught.value)
    with pytest.raises(ValueError, match="Couldn't find 'checkpoint' file"):
        train.load_checkpoint(tmp_path)


def test_errors_of_files_have_the_number_and_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(errors.ResourceExhaustedError) as caught:
        gfile.mkdir(str(tmp_path / "x"))
    assert (caught.value.errno, caught.value.filename) == (28, str(tmp_path / "x"))
    assert isinstance(caught.value, tb_errors.IOFailure)
    assert type(raised.file_error(18, "x")) is raised.UnimplementedError
    assert type(raised.file_error(5, "x")) is raised.UnknownError


def test_dtypes_are_equal_to_what_they_stand_for() -> None:
    import numpy as np

    float32 = dtypes.as_dtype("float32")
    assert float32 == np.float32 == float32.as_numpy_dtype
    assert float32 == "float32" and float32 != "float64" and float32 != None  # noqa: E711
    assert {float32: 1}[dtypes.as_dtype(np.dtype(np.float32))] == 1
    assert np.zeros(2, float32.as_numpy_dtype).dtype == np.float32
    assert (repr(float32), str(float32), int(float32)) == ("tf.float32", "<dtype: 'float32'>", 1)
    with pytest.raises(TypeError, match="Cannot convert"):
        dtypes.as_dtype("nothing")
    with pytest.raises(TypeError, match="99"):
        dtypes.DType(99)


def test_narrow_types_do_not_replace_wider_ones() -> None:
    """ml_dtypes may lack int2, for example; its arrays are then int8."""
    for name in ("int8", "uint8", "uint16"):
        assert dtypes.as_dtype(dtypes.as_dtype(name).as_numpy_dtype).name == name


def test_files_are_closed_without_a_warning(tmp_path: Path) -> None:
    script = write(
        tmp_path / "s.py",
        f"""
import tensorflow as tf
file = tf.io.gfile.GFile({str(tmp_path / "x")!r}, "w")
file.write("a")
del file
print(tf.io.gfile.GFile({str(tmp_path / "x")!r}).read())
""",
    )
    done = run(script, env={**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"})
    assert (done.stdout, done.stderr) == ("a\n", "")
