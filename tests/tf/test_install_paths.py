# SPDX-License-Identifier: Apache-2.0
"""Patched functions interpret paths as TensorFlow does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.v1 import V1File

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1

VALUE = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> Path:
    """Writes checkpoints, and files that resemble one; returns the folder."""
    root = tmp_path_factory.mktemp("paths")

    def write(path: str, state: str | None = None, add: float = 0) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        save(root / path, {"s/a": VALUE + np.float32(add)})
        if state is not None:
            (root / path).with_name("checkpoint").write_text(state)

    write("alone/m")
    write("state/m", 'model_checkpoint_path: "m"\n')
    write("stale/m", 'model_checkpoint_path: "gone"\n')
    write("broken/m", "no state\n")
    write("nothing/m", "")
    write("two/m-1"), write("two/m-2", add=1)
    write("saved_model/variables/variables")
    (root / "saved_model/saved_model.pb").write_bytes(b"")
    write("both"), (root / "both").mkdir()
    write("both_state"), write("both_state/m", 'model_checkpoint_path: "m"\n', add=2)
    write("run[1]/m")
    (root / "empty").mkdir()
    (root / "text").write_text("hello")
    for name, tensor in (("v1", "s/a"), ("sh-00000-of-00002", "s/a"), ("sh-00001-of-00002", "s/b")):
        file = V1File()
        file.add(tensor, 1, VALUE)
        file.write(root / name)
    return root


PATHS: dict[str, Any] = {
    **{
        name: name
        for name in (
            "alone", "alone/", "state", "state/", "stale", "broken", "nothing", "two", "empty",
            "saved_model", "saved_model/", "saved_model/variables", "both", "both/", "both_state",
            "saved_model/variables/variables", "alone/m", "alone/m/", "./alone/m", "alone/m.index",
            "alone/m.data-00000-of-00001", "alone/m.meta", "alone/m*", "two/m-?",
            "state/checkpoint",
            "v1", "v?", "sh", "sh-*", "sh-?????-of-00002", "sh-?????-of-00003", "sh-00000-of-00002",
            "text", "gone", "gone/m", "gone.index", "", "run[1]", "run[1]/m", "x" * 5000, "a\udcff",
        )
    },
    "PathLike": Path("alone/m"),
    "PathLike directory": Path("state"),
    "PathLike SavedModel": Path("saved_model"),
    "bytes": b"alone/m",
    "bytes directory": b"state",
    "bytes elsewhere": b"gone",
    "none": None,
    "number": 3,
    "list": ["alone/m"],
}  # fmt: skip


def by_init(path: Any) -> Any:
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = tf1.get_variable("v", [4, 3])
        tf1.train.init_from_checkpoint(path, {"s/a": variable})
        session.run(variable.initializer)
        return session.run(variable).tolist()


def by_warm_start(path: Any) -> Any:
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = tf1.get_variable("s/a", [4, 3])
        tf1.train.warm_start(path)
        session.run(variable.initializer)
        return session.run(variable).tolist()


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "reader": lambda path: tf1.train.NewCheckpointReader(path).get_tensor("s/a").tolist(),
    "reader, opened": lambda path: sorted(
        tf1.train.NewCheckpointReader(path).get_variable_to_shape_map()
    ),
    "load": lambda path: tf.train.load_checkpoint(path).get_tensor("s/a").tolist(),
    "load, opened": lambda path: tf.train.load_checkpoint(path).has_tensor("s/a"),
    "list": lambda path: tf.train.list_variables(path),
    "variable": lambda path: tf.train.load_variable(path, "s/a").tolist(),
    "exists": lambda path: tf1.train.checkpoint_exists(path),
    "init": by_init,
    "warm start": by_warm_start,
}


def outcome(function: Callable[[Any], Any], path: Any) -> Any:
    try:
        return function(path)
    except Exception as error:
        return error


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_path_has_tensorflows_outcome(
    folder: Path, monkeypatch: pytest.MonkeyPatch, path: str, function: str
) -> None:
    monkeypatch.chdir(folder)
    original = outcome(FUNCTIONS[function], PATHS[path])
    with tb.tf.installed():
        patched = outcome(FUNCTIONS[function], PATHS[path])
    if not isinstance(original, Exception):
        assert not isinstance(patched, Exception), patched
        assert patched == original
    elif (
        function == "warm start" and isinstance(original, TypeError) and "got None" in str(original)
    ):
        # A directory without a checkpoint: TensorFlow passes None on.
        assert isinstance(patched, (ValueError, TypeError))
    else:
        assert isinstance(patched, type(original)), (patched, original)


def test_path_with_nul_byte_raises_value_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow truncates the path at the NUL byte and opens another checkpoint."""
    monkeypatch.chdir(folder)
    for function in ("reader", "load", "init", "warm start"):
        with tb.tf.installed():
            assert isinstance(outcome(FUNCTIONS[function], "alone/m\0x"), ValueError)


def test_own_functions_accept_more_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for path in ("saved_model", "alone", "alone/m.index", b"state", "run[1]/m"):
        for call in (
            lambda path=path: tb.load_variable(path, "s/a"),
            lambda path=path: tb.init_from_checkpoint(path, {"s/a": tf.Variable(VALUE)}),
            lambda path=path: tb.tf.plan_init(path, {"s/a": tf.Variable(VALUE)}),
        ):
            with tb.tf.installed():
                call()
            call()


def test_patched_functions_accept_our_keywords(
    folder: Path, save: Callable[..., str], tmp_path: Path
) -> None:
    prefix = save(tmp_path / "m", {"a": np.float64([1, 2]), "b": np.float32([1, 2, 3])})
    a, b, c = (tf.Variable(tf.zeros([2]), name=name) for name in "abc")
    options = {"missing": "skip", "mismatch": "skip", "cast": True}
    with tb.tf.installed():
        report = tf1.train.init_from_checkpoint(prefix, {"a": a, "b": b, "c": c}, **options)
        assert (list(report.loaded), list(report.missing)) == (["a"], ["c"])
        assert a.numpy().tolist() == [1, 2]
        a.assign([0, 0])
        report = tf1.train.warm_start(prefix, [a, b, c], **options)
        assert list(report.mismatched) == ["b"]
        assert a.numpy().tolist() == [1, 2]
        assert tb.tf.calls()["warm_start"] == 1
    with pytest.raises(TypeError):
        tf1.train.warm_start(prefix, [a], **options)


def test_keras_loads_weights_from_saved_model(tmp_path: Path) -> None:
    """Keras detects the format of a path with the reader."""
    if not hasattr(tf.keras.layers, "InputLayer") or not hasattr(
        tf.keras.Sequential([]), "_is_graph_network"
    ):
        pytest.skip("Keras 2 reads weights of a SavedModel")

    def model() -> Any:
        sequential = tf.keras.Sequential(
            [tf.keras.layers.InputLayer((4,)), tf.keras.layers.Dense(3)]
        )
        sequential.compile("adam", "mse")
        return sequential

    saved = model()
    saved.save(os.fspath(tmp_path / "saved"))
    with tb.tf.installed():
        loaded = model()
        loaded.load_weights(os.fspath(tmp_path / "saved"))
    np.testing.assert_array_equal(loaded.get_weights()[0], saved.get_weights()[0])


def test_remote_paths_are_passed_on() -> None:
    tf.io.gfile.makedirs("ram://remote_paths")
    tf.raw_ops.SaveV2(
        prefix="ram://remote_paths/m", tensor_names=["s/a"], shape_and_slices=[""], tensors=[VALUE]
    )
    with tb.tf.installed():
        before = tb.tf.calls()["NewCheckpointReader"]
        reader = tf1.train.NewCheckpointReader("ram://remote_paths/m")
        assert (reader.get_tensor("s/a") == VALUE).all()
        assert tb.tf.calls()["NewCheckpointReader"] == before
