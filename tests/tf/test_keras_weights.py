# SPDX-License-Identifier: Apache-2.0
"""``load_keras`` loads what TensorFlow and Keras 3 have saved, as they would restore it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras", minversion="3")
if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras has another backend", allow_module_level=True)


def functional() -> Any:
    layers = keras.layers
    inputs = keras.Input((6, 3))
    one = layers.Conv1D(4, 2)(inputs)
    two = layers.Bidirectional(layers.GRU(2))(inputs)
    one = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(one))
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(5), layers.BatchNormalization()])
    return keras.Model(inputs, layers.Dense(1)(inner(layers.concatenate([one, two]))))


def sequential() -> Any:
    layers = keras.layers
    return keras.Sequential([keras.Input((6, 3)), layers.LSTM(4), layers.Dense(4), layers.Dense(4)])


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        # Keras 3 does not save the variables of lists of layers by tf.train.Checkpoint.
        self.one, self.two = keras.layers.Dense(3), keras.layers.Dense(3)
        self.attention = keras.layers.MultiHeadAttention(2, 3)

    def call(self, x: Any) -> Any:
        x = self.two(self.one(x))
        return self.attention(x, x)


def built(create: Any) -> Any:
    model = create()
    model(np.zeros((1, 6, 3), np.float32))
    return model


@pytest.mark.parametrize("create", [functional, sequential, Subclassed])
@pytest.mark.parametrize("by", ["structure", None])
@pytest.mark.parametrize("kind", ["checkpoint", "export"])
def test_equals_saved_model(create: Any, by: str | None, kind: str, tmp_path: Path) -> None:
    keras.utils.clear_session()
    model = built(create)
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    model.fit(x, np.zeros(model(x).shape), verbose=0)
    if kind == "export":
        model.export(tmp_path / "saved", verbose=False)
    else:
        tf.train.Checkpoint(net=model, optimizer=model.optimizer).write(str(tmp_path / "saved"))
    other = built(create)  # with other default names
    assert other.weights[0].path != model.weights[0].path
    report = tb.load_keras(other, tmp_path / "saved", by=by)
    assert len(report.loaded) == len(model.weights) > 0
    for loaded, expected in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(loaded.numpy(), expected.numpy())
    np.testing.assert_array_equal(other(x), model(x))
