# SPDX-License-Identifier: Apache-2.0
"""Graphs that our functions have built load and run in processes that do not have tensorbundle."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm_starts import write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1

from tensorbundle.tf import op_library  # noqa: E402

TABLE = np.arange(64 * 16, dtype=np.float32).reshape(64, 16)
# Runs every form of a model, in a process that cannot import tensorbundle.
LOADER = """
import json, sys
sys.modules["tensorbundle"] = None
import tensorflow as tf
v1, folder = tf.compat.v1, sys.argv[1]

def signature():
    model = tf.saved_model.load(folder + "/model")
    return model.signatures["serving_default"](x=tf.ones([1, 64]))["y"]

def session():
    with tf.Graph().as_default(), v1.Session() as session:
        v1.saved_model.load(session, ["serve"], folder + "/model")
        return session.run("y:0", {"x:0": [[1.0] * 64]})

def meta_graph():
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(folder + "/saved.meta").restore(session, folder + "/saved")
        return session.run("y:0", {"x:0": [[1.0] * 64]})

def meta_graph_from_the_start():
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(folder + "/saved.meta")
        session.run(v1.global_variables_initializer())
        return session.run("y:0", {"x:0": [[1.0] * 64]})

def frozen():
    definition = v1.GraphDef.FromString(open(folder + "/frozen.pb", "rb").read())
    with tf.Graph().as_default(), v1.Session() as session:
        (y,) = tf.import_graph_def(definition, return_elements=["y:0"])
        return session.run(y, {"import/x:0": [[1.0] * 64]})

forms = [signature, session, meta_graph, meta_graph_from_the_start, frozen]
print(json.dumps({each.__name__: [float(v) for v in each()[0]] for each in forms}))
"""


def initialized(prefix: str, **options: Any) -> Any:
    table = tf1.get_variable("t", TABLE.shape, initializer=tf1.zeros_initializer())
    with tb.tf.options(**options):
        tb.init_from_checkpoint(prefix, {"t": table})
    return table


def installed(prefix: str) -> Any:
    table = tf1.get_variable("t", TABLE.shape, initializer=tf1.zeros_initializer())
    with tb.tf.installed():
        tf1.train.init_from_checkpoint(prefix, {"t": table})
    return table


def warm_started(prefix: str) -> Any:
    table = tf1.get_variable("t", TABLE.shape, initializer=tf1.zeros_initializer())
    new, old = f"{prefix}.new.txt", f"{prefix}.old.txt"
    tb.warm_start(prefix, "t", {"t": tb.VocabInfo(new, 64, 0, old)})
    return table


BUILDERS: dict[str, Callable[[str], Any]] = {
    "copy": initialized,
    "map": lambda prefix: initialized(prefix, mode="map"),
    "options": lambda prefix: initialized(prefix, verify="none", threads=1),
    "installed": installed,
    "vocabulary": warm_started,
}


def export(prefix: str, folder: Path, build: Callable[[str], Any]) -> list[float]:
    """Writes a model in every form; returns its output."""
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        table = build(prefix)
        x = tf1.placeholder(tf.float32, [None, 64], name="x")
        y = tf.matmul(x, table, name="y")
        assert not [op.type for op in graph.get_operations() if "Tensorbundle" in op.type]
        session.run(tf1.global_variables_initializer())
        tf1.saved_model.simple_save(session, str(folder / "model"), {"x": x}, {"y": y})
        tf1.train.Saver().save(session, str(folder / "saved"))
        definition = graph.as_graph_def()
        frozen = tf1.graph_util.convert_variables_to_constants(session, definition, ["y"])
        (folder / "frozen.pb").write_bytes(frozen.SerializeToString())
        return [float(value) for value in session.run(y, {x: np.ones([1, 64])})[0]]


@pytest.mark.skipif(op_library.find() is None, reason="built without the op library")
@pytest.mark.parametrize("how", BUILDERS)
def test_exported_model_runs_without_tensorbundle(
    tmp_path: Path, save: Callable[..., str], how: str
) -> None:
    prefix = save(tmp_path / "m", {"t": TABLE})
    words = [f"w{number}" for number in range(64)]
    write_vocabulary(tmp_path / "m.old.txt", words)
    write_vocabulary(tmp_path / "m.new.txt", words[::-1])
    expected = export(prefix, tmp_path, BUILDERS[how])
    assert expected == TABLE.sum(axis=0).tolist()
    run = subprocess.run(
        [sys.executable, "-c", LOADER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    outputs = json.loads(run.stdout.splitlines()[-1])
    assert len(outputs) == 5
    assert all(output == expected for output in outputs.values()), outputs


@pytest.mark.parametrize("under", ["TensorFlow", "installed"])
def test_estimator_exports_a_model_that_runs_without_tensorbundle(
    tmp_path: Path, save: Callable[..., str], under: str
) -> None:
    """The model function calls init_from_checkpoint each time it builds a graph, as BERT's does."""
    estimators = pytest.importorskip("tensorflow_estimator").estimator
    if not hasattr(tf1, "estimator"):
        pytest.skip("this TensorFlow has no Estimator")
    prefix = save(tmp_path / "m", {"scope/t": TABLE})

    def model_function(features: Any, mode: str) -> Any:
        table = tf1.get_variable("scope/t", TABLE.shape, initializer=tf1.zeros_initializer())
        tf1.train.init_from_checkpoint(prefix, {"scope/": "scope/"})
        y = tf.matmul(features["x"], table)
        if mode == "infer":
            served = estimators.export.PredictOutput({"y": y})
            outputs = {"serving_default": served}
            return estimators.EstimatorSpec(mode, predictions={"y": y}, export_outputs=outputs)
        step = tf1.train.get_global_step().assign_add(1)
        return estimators.EstimatorSpec(mode, loss=tf.reduce_sum(y), train_op=step)

    def receiver() -> Any:
        features = {"x": tf1.placeholder(tf.float32, [None, 64], name="x")}
        return estimators.export.ServingInputReceiver(features, features)

    with tb.tf.installed() if under == "installed" else contextlib.nullcontext():
        estimator = tf1.estimator.Estimator(model_function, str(tmp_path / "run"))
        estimator.train(lambda: tf.data.Dataset.from_tensors({"x": tf.ones([1, 64])}), steps=1)
        exported = estimator.export_saved_model(str(tmp_path / "export"), receiver).decode()
    program = (
        "import sys; sys.modules['tensorbundle'] = None\n"
        "import tensorflow as tf\n"
        f"model = tf.saved_model.load({exported!r})\n"
        "y = model.signatures['serving_default'](tf.ones([1, 64]))['y']\n"
        "print(y.numpy()[0].tolist())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert json.loads(run.stdout.splitlines()[-1]) == TABLE.sum(axis=0).tolist()
