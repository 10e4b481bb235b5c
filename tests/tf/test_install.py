# SPDX-License-Identifier: Apache-2.0
"""`install` patches TensorFlow's functions and `uninstall` restores them."""

from __future__ import annotations

import importlib
import inspect
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tensorflow.python.training import (  # noqa: E402
    checkpoint_utils,
    py_checkpoint_reader,
    training,
    warm_starting_util,
)

from tensorbundle import plugin  # noqa: E402
from tensorbundle.tf import backend, installation, op_library  # noqa: E402

needs_op = pytest.mark.skipif(op_library.find() is None, reason="built without the op library")
V1 = tf.compat.v1.train
PATCHED_NAMES = [
    *((checkpoint_utils, name) for name in ("load_checkpoint", "list_variables", "load_variable")),
    (checkpoint_utils, "init_from_checkpoint"),
    (py_checkpoint_reader, "NewCheckpointReader"),
    (warm_starting_util, "warm_start"),
    (warm_starting_util, "_warm_start_var_with_vocab"),
    *(
        (module, name)
        for module in (training, V1)
        for name in (
            "load_checkpoint",
            "list_variables",
            "load_variable",
            "init_from_checkpoint",
            "NewCheckpointReader",
            "warm_start",
        )
    ),
    *(
        (module, name)
        for module in (tf.train, tf.compat.v2.train)
        for name in ("load_checkpoint", "list_variables", "load_variable")
    ),
]
ORIGINAL = [getattr(module, name) for module, name in PATCHED_NAMES]
IDS = [f"{module.__name__}.{name}" for module, name in PATCHED_NAMES]


@pytest.fixture(autouse=True)
def originals_restored() -> Iterator[None]:
    yield
    installation.uninstall()
    assert [getattr(module, name) for module, name in PATCHED_NAMES] == ORIGINAL


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Writes a checkpoint and its state file; returns the prefix."""
    folder = tmp_path_factory.mktemp("model")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("w", initializer=tf.reshape(tf.range(6.0), [2, 3]))
        tf.compat.v1.get_variable("step", initializer=tf.constant(7, tf.int64))
        tf.compat.v1.get_variable("words", initializer=tf.constant(["a", "bc"]))
        tf.compat.v1.get_variable("half", initializer=tf.ones([4], tf.bfloat16))
        session.run(tf.compat.v1.global_variables_initializer())
        saved: str = tf.compat.v1.train.Saver().save(session, str(folder / "model.ckpt"))
    return saved


def function_calls() -> dict[str, int]:
    """Returns the counts of functions: those of ops depend on the tests that ran before."""
    return {
        name: count for name, count in installation.calls().items() if name not in plugin.SERVED_OPS
    }


def tensorflow_attributes() -> dict[tuple[str, str], Any]:
    """Returns every attribute of every loaded module of TensorFlow."""
    return {
        (name, attribute): value
        for name, module in list(sys.modules.items())
        if name.partition(".")[0].startswith("tensorflow")
        for attribute, value in list(getattr(module, "__dict__", {}).items())
    }


@pytest.mark.parametrize(
    ("location", "original"), [*zip(PATCHED_NAMES, ORIGINAL, strict=True)], ids=IDS
)
def test_name_is_patched_and_restored(location: tuple[Any, str], original: Any) -> None:
    module, name = location
    installation.install()
    patched = getattr(module, name)
    assert patched is not original
    assert patched.__wrapped__ is original
    assert (patched.__name__, patched.__doc__) == (original.__name__, original.__doc__)
    installation.uninstall()
    assert getattr(module, name) is original


def test_install_changes_no_other_attribute() -> None:
    installation.install()  # imports the modules first
    installation.uninstall()
    before = tensorflow_attributes()
    installation.install()
    during = tensorflow_attributes()
    installation.uninstall()
    after = tensorflow_attributes()
    assert before.keys() == during.keys() == after.keys()
    changed = {key for key in before if before[key] is not during[key]}
    assert changed == {key for key in before if key[1] in installation._PATCHES and key in changed}
    assert len(changed) >= len(PATCHED_NAMES)
    assert not [key for key in before if before[key] is not after[key]]


def test_one_uninstall_undoes_two_installs() -> None:
    installation.install()
    patched = tf.train.load_checkpoint
    installation.install()
    assert tf.train.load_checkpoint is patched
    installation.uninstall()
    assert tf.train.load_checkpoint is checkpoint_utils.load_checkpoint
    assert not hasattr(tf.train.load_checkpoint, "__wrapped__")


def test_uninstall_without_install_has_no_effect() -> None:
    names = ("load_checkpoint", "list_variables", "load_variable", "NewCheckpointReader")
    before = [getattr(tf.compat.v1.train, name) for name in names]
    installation.uninstall()
    installation.uninstall()
    assert [getattr(tf.compat.v1.train, name) for name in names] == before
    assert all(function.__module__.startswith("tensorflow.") for function in before)


def test_with_statements_nest(prefix: str) -> None:
    with installation.installed():
        with installation.installed():
            tf.train.load_checkpoint(prefix)
        tf.train.load_checkpoint(prefix)
        assert function_calls() == {"load_checkpoint": 2}
    assert not hasattr(tf.train.load_checkpoint, "__wrapped__")


def test_with_statement_keeps_earlier_install() -> None:
    installation.install()
    with installation.installed():
        pass
    assert hasattr(tf.train.load_checkpoint, "__wrapped__")


def test_uninstall_inside_with_statement_restores_originals() -> None:
    with installation.installed():
        installation.uninstall()
        assert not hasattr(tf.train.load_checkpoint, "__wrapped__")
    assert not hasattr(tf.train.load_checkpoint, "__wrapped__")


def test_exception_in_with_statement_uninstalls() -> None:
    with pytest.raises(RuntimeError, match="raised inside"), installation.installed():
        raise RuntimeError("raised inside")
    assert not hasattr(tf.train.load_checkpoint, "__wrapped__")


def test_last_install_sets_remote() -> None:
    remote_device = "/job:ps/task:0"
    assert backend.may_use_ops(remote_device)
    with installation.installed():
        assert not backend.may_use_ops(remote_device)
        with installation.installed(remote=True):
            assert backend.may_use_ops(remote_device)
        assert not backend.may_use_ops(remote_device)
        installation.install(remote=True)
        assert backend.may_use_ops(remote_device)
    assert backend.may_use_ops(remote_device)
    installation.install()
    assert not backend.may_use_ops(remote_device)
    installation.uninstall()
    assert backend.may_use_ops(remote_device)


@pytest.mark.parametrize(
    ("device", "is_local"),
    [
        ("", True),
        ("/cpu:0", True),
        ("/device:GPU:1", True),
        ("/job:localhost/replica:0/task:0/device:CPU:0", True),
        ("/job:ps", False),
        ("/job:ps/task:1", False),
        ("/job:worker/replica:0/task:0/device:CPU:0", False),
        ("COMPOSITE:anything", False),
    ],
)
def test_is_here_selects_devices_of_this_process(device: str, is_local: bool) -> None:
    assert backend.is_here(device) is is_local


def test_other_threads_do_not_end_with_statement(prefix: str) -> None:
    patched: list[bool] = []
    start = threading.Barrier(4)

    def install_repeatedly() -> None:
        start.wait()
        for _ in range(20):
            with installation.installed():
                patched.append(hasattr(tf.train.load_checkpoint(prefix), "_checkpoint"))

    threads = [threading.Thread(target=install_repeatedly) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert patched == [True] * 80
    assert not hasattr(tf.train.load_checkpoint, "__wrapped__")


def test_calls_counts_by_name(prefix: str) -> None:
    installation.install()
    assert function_calls() == {}
    assert installation.calls()["warm_start"] == 0
    tf.train.list_variables(prefix)
    tf.train.load_variable(prefix, "w")
    tf.compat.v1.train.load_variable(prefix, "w")
    V1.NewCheckpointReader(prefix)
    counted = {"list_variables": 1, "load_variable": 2, "NewCheckpointReader": 1}
    assert function_calls() == counted
    installation.calls()["w"] = 3  # a copy
    with pytest.raises(tf.errors.NotFoundError):
        tf.train.load_variable(prefix, "nowhere")
    installation.uninstall()
    tf.train.list_variables(prefix)
    assert function_calls() == {**counted, "load_variable": 3}
    installation.install()
    assert function_calls() == {}


@needs_op
def test_kernels_serve_after_uninstall_too(prefix: str) -> None:
    def restore(name: str) -> Any:
        return tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=[name], shape_and_slices=[""], dtypes=[tf.float32]
        )[0]

    installation.install()
    counted = installation.calls()["RestoreV2"]
    expected = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(restore("w"), expected)
    assert installation.calls()["RestoreV2"] == counted + 1
    installation.uninstall()
    np.testing.assert_array_equal(restore("w"), expected)
    with pytest.raises(tf.errors.NotFoundError, match="Key nowhere not found in checkpoint"):
        restore("nowhere")
    assert installation.calls()["RestoreV2"] == counted + 3


def test_missing_library_is_one_warning(prefix: str) -> None:
    run(
        """
        import sys, warnings
        import tensorbundle as tb
        from tensorbundle import plugin

        plugin.find_library = lambda: None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                tb.tf.install()
            with tb.tf.installed():
                pass
        (warning,) = (each for each in caught if "tensorbundle" in str(each.message))
        assert warning.category is RuntimeWarning
        assert "was built without it" in str(warning.message)
        assert warning.filename == "<string>"  # the line that calls install()
        import tensorflow as tf

        tf.train.load_checkpoint(sys.argv[1])
        assert tb.tf.calls() == {"load_checkpoint": 1}
        """,
        prefix,
    )


def test_kept_reference_calls_tensorflow_after_uninstall(prefix: str) -> None:
    installation.install()
    kept = tf.train.load_checkpoint
    assert hasattr(kept(prefix), "_checkpoint")
    installation.uninstall()
    assert not hasattr(kept(prefix), "_checkpoint")
    installation.install()
    assert tf.train.load_checkpoint is kept
    assert hasattr(kept(prefix), "_checkpoint")


def test_uninstall_keeps_patches_of_others(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """The other patches are made before and after `install`."""

    def stand_in(*args: Any) -> str:
        return "other patch"

    monkeypatch.setattr(tf.train, "load_variable", stand_in)
    installation.install()
    with monkeypatch.context() as patch:
        patch.setattr(tf.train, "list_variables", stand_in)
        installation.uninstall()
        assert tf.train.load_variable is stand_in
        assert tf.train.list_variables is stand_in
    # monkeypatch restored our wrapper, which calls TensorFlow's function.
    assert dict(tf.train.list_variables(prefix))["w"] == [2, 3]
    installation.install()
    installation.uninstall()
    assert not hasattr(tf.train.list_variables, "__wrapped__")


def test_module_imported_while_installed_is_restored(prefix: str) -> None:
    """It imports the patched functions from the modules that define them."""
    name = "tensorflow.python.training.training"
    installation.install()
    displaced = sys.modules.pop(name)
    try:
        fresh = importlib.import_module(name)
        assert fresh is not displaced
        assert fresh.load_checkpoint is checkpoint_utils.load_checkpoint
        assert hasattr(fresh.load_checkpoint(prefix), "_checkpoint")
        installation.uninstall()
        assert not hasattr(fresh.load_checkpoint, "__wrapped__")
    finally:
        sys.modules[name] = displaced
        sys.modules[name.rpartition(".")[0]].training = displaced
        installation.install()  # the module was not in sys.modules during uninstall
        installation.uninstall()
    assert displaced.load_checkpoint is checkpoint_utils.load_checkpoint


def run(script: str, *arguments: str) -> None:
    """Runs a script in a new process; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("when", ["before", "after"])
def test_both_copies_of_module_are_patched(when: str, prefix: str) -> None:
    """``import tensorflow.compat.v1.train`` creates a second module."""
    run(
        """
        import sys
        import tensorflow as tf
        from tensorbundle.tf import installation

        when, prefix = sys.argv[1:]
        first = tf.compat.v1.train
        if when == "after":
            installation.install()
        import tensorflow.compat.v1.train as second

        assert second is not first
        if when == "before":
            installation.install()
        for module in (first, second, tf.compat.v1.train):
            assert module.warm_start.__wrapped__
            module.load_variable(prefix, "w")
        assert installation.calls() == {"load_variable": 3}
        installation.uninstall()
        for module in (first, second):
            assert not hasattr(module.warm_start, "__wrapped__")
            assert not hasattr(module.load_variable, "__wrapped__")
        """,
        when,
        prefix,
    )


def test_failed_import_of_tensorflow_leaves_no_state(prefix: str) -> None:
    run(
        """
        import sys
        import tensorbundle as tb

        sys.modules["tensorflow"] = None  # importing it raises ImportError
        try:
            tb.tf.install()
        except ImportError:
            pass
        else:
            raise AssertionError
        del sys.modules["tensorflow"]
        import tensorflow as tf

        tb.tf.uninstall()
        assert not hasattr(tf.train.load_checkpoint, "__wrapped__")
        with tb.tf.installed():
            tf.train.load_checkpoint(sys.argv[1])
            assert tb.tf.calls() == {"load_checkpoint": 1}
        """,
        prefix,
    )


def test_patched_function_pickles_by_name(prefix: str) -> None:
    with installation.installed():
        again = pickle.loads(pickle.dumps(tf.train.load_checkpoint))
        assert again is tf.train.load_checkpoint
        assert list(inspect.signature(again).parameters) == ["ckpt_dir_or_file"]


def test_remote_paths_are_passed_to_tensorflow() -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("w", initializer=tf.range(4.0))
        session.run(tf.compat.v1.global_variables_initializer())
        prefix = tf.compat.v1.train.Saver().save(session, "ram://there/model")
    installation.install()
    # The directory: in RAM TensorFlow treats every prefix as a directory.
    assert not hasattr(tf.train.load_checkpoint("ram://there"), "_checkpoint")
    assert tf.train.list_variables("ram://there") == [("w", [4])]
    np.testing.assert_array_equal(tf.train.load_variable("ram://there", "w"), np.arange(4.0))
    for load in (
        lambda: V1.init_from_checkpoint("ram://there", {"w": "new"}),
        lambda: V1.warm_start("ram://there", "new", None, {"new": "w"}),
    ):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            new = tf.compat.v1.get_variable("new", [4])
            load()
            session.run(tf.compat.v1.global_variables_initializer())
            np.testing.assert_array_equal(session.run(new), np.arange(4.0))
    assert not hasattr(V1.NewCheckpointReader(prefix), "_checkpoint")
    with pytest.raises(tf.errors.NotFoundError):
        V1.NewCheckpointReader(filepattern=b"ram://nowhere/model")
    assert function_calls() == {}
