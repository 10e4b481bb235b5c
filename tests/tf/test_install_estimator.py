# SPDX-License-Identifier: Apache-2.0
"""Estimators call our warm_start while it is installed, and get the same values."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_estimator", reason="no Estimator in this TensorFlow")

from tensorbundle.tf import installation  # noqa: E402

# Estimator warns that it is deprecated, and does not close its event files.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

v1 = tf.compat.v1
OLD = ["apple", "pear", "plum", "fig"]
NEW = ["fig", "apple", "quince", "plum", "medlar"]


def write(path: Path, words: list[str]) -> str:
    path.write_text("\n".join(words) + "\n")
    return str(path)


def examples(words: list[str]) -> Callable[[], Any]:
    def input_function() -> Any:
        labels = [[number % 2] for number in range(len(words))]
        return tf.data.Dataset.from_tensors(({"fruit": [[word] for word in words]}, labels))

    return input_function


def classifier(kind: str, vocabulary: str, folder: Path, **more: Any) -> Any:
    """Creates an Estimator of the v1 API (``dnn``, ``linear``) or of the v2 API (``..._v2``)."""
    name = "DNNClassifier" if kind.startswith("dnn") else "LinearClassifier"
    second = kind.endswith("v2")
    module = tf.estimator if second else v1.estimator
    column = tf.feature_column.categorical_column_with_vocabulary_file("fruit", vocabulary)
    config = tf.estimator.RunConfig(tf_random_seed=7, save_summary_steps=None)
    common: dict[str, Any] = {"model_dir": str(folder), "config": config, **more}
    if name == "LinearClassifier":
        return module.LinearClassifier(feature_columns=[column], optimizer=sgd(second), **common)
    embedded = tf.feature_column.embedding_column(column, 3)
    return module.DNNClassifier(
        hidden_units=[4], feature_columns=[embedded], optimizer=sgd(second), **common
    )


def sgd(second: bool) -> Any:
    # A learning rate of zero: training does not change the values of the warm start.
    if second:
        return lambda: tf.keras.optimizers.legacy.SGD(0.0)  # one for each graph
    return v1.train.GradientDescentOptimizer(0.0)


def values(estimator: Any) -> dict[str, Any]:
    return {name: estimator.get_variable_value(name) for name in estimator.get_variable_names()}


KINDS = ["dnn", "dnn_v2", "linear", "linear_v2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trains one model per kind; returns their folders, and the folder of the vocabularies."""
    folder = tmp_path_factory.mktemp("trained")
    old = write(folder / "old.txt", OLD)
    write(folder / "new.txt", NEW)
    for kind in KINDS:
        classifier(kind, old, folder / kind).train(examples(OLD), steps=1)
    return {"folder": folder, **{kind: folder / kind for kind in KINDS}}


def table_name(kind: str, folder: Path) -> str:
    (name,) = (
        name
        for name, shape in tf.train.list_variables(str(folder))
        if shape[:1] == [len(OLD)] and "fruit" in name
    )
    return str(name)


def settings(kind: str, trained: dict[str, Path], with_vocabulary: bool) -> Any:
    if not with_vocabulary:
        return str(trained[kind])
    info = tf.estimator.VocabInfo(
        new_vocab=str(trained["folder"] / "new.txt"),
        new_vocab_size=len(NEW),
        num_oov_buckets=0,
        old_vocab=str(trained["folder"] / "old.txt"),
        backup_initializer=v1.ones_initializer(),
    )
    return tf.estimator.WarmStartSettings(
        str(trained[kind]), var_name_to_vocab_info={table_name(kind, trained[kind]): info}
    )


@pytest.mark.parametrize("with_vocabulary", [False, True], ids=["same words", "new words"])
@pytest.mark.parametrize("kind", KINDS)
def test_classifier_gets_tensorflows_values(
    trained: dict[str, Path], tmp_path: Path, kind: str, with_vocabulary: bool
) -> None:
    words = NEW if with_vocabulary else OLD
    vocabulary = str(trained["folder"] / ("new.txt" if with_vocabulary else "old.txt"))
    start = settings(kind, trained, with_vocabulary)

    def train(folder: Path) -> dict[str, Any]:
        estimator = classifier(kind, vocabulary, folder, warm_start_from=start)
        estimator.train(examples(words), steps=1)
        estimator.train(examples(words), steps=1)  # from its own checkpoint: no warm start
        return values(estimator)

    original = train(tmp_path / "original")
    with installation.installed():
        patched = train(tmp_path / "patched")
        assert installation.calls()["warm_start"] == 1
        assert installation.calls()["load_variable"] == len(patched)
    assert patched.keys() == original.keys()
    for name, value in original.items():
        np.testing.assert_array_equal(patched[name], value, err_msg=name)
        stored = tf.train.load_variable(str(trained[kind]), name)
        if value.shape == stored.shape != ():  # not a count of steps, not a remapped table
            np.testing.assert_array_equal(value, stored, err_msg=name)
    if with_vocabulary:
        name = table_name(kind, trained[kind])
        old = tf.train.load_variable(str(trained[kind]), name)
        rows = [old[OLD.index(word)] if word in OLD else np.ones_like(old[0]) for word in NEW]
        np.testing.assert_array_equal(patched[name], rows)


def test_predict_and_evaluate_warm_start(trained: dict[str, Path], tmp_path: Path) -> None:
    """An Estimator without a checkpoint predicts with its initial values."""
    vocabulary = str(trained["folder"] / "old.txt")

    def predict(folder: Path) -> list[Any]:
        estimator = classifier("dnn", vocabulary, folder, warm_start_from=str(trained["dnn"]))
        estimator.evaluate(examples(OLD), steps=1)
        return [each["logits"] for each in estimator.predict(examples(OLD))]

    original = predict(tmp_path / "original")
    with installation.installed():
        patched = predict(tmp_path / "patched")
        assert installation.calls()["warm_start"] == 2
    np.testing.assert_array_equal(patched, original)


def test_model_function_can_call_init_from_checkpoint(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    name = table_name("dnn", trained["dnn"])

    def model(features: Any, labels: Any, mode: Any) -> Any:
        with v1.variable_scope("scope", partitioner=v1.fixed_size_partitioner(2)):
            table = v1.get_variable("table", [len(OLD), 3])
        v1.train.init_from_checkpoint(str(trained["dnn"]), {name: "scope/table"})
        step = v1.train.get_or_create_global_step()
        loss = tf.reduce_sum(table.as_tensor()) * 0.0
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=v1.assign_add(step, 1))

    with installation.installed():
        estimator = tf.estimator.Estimator(model, str(tmp_path / "model"))
        estimator.train(examples(OLD), steps=1)
        assert installation.calls()["init_from_checkpoint"] == 1
        np.testing.assert_array_equal(
            estimator.get_variable_value("scope/table"),
            tf.train.load_variable(str(trained["dnn"]), name),
        )


def test_estimator_example_runs(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(root / "examples" / "estimator.py"), "2000"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # the package tested
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "equal, bit for bit" in done.stdout
    assert not list(tmp_path.iterdir())
