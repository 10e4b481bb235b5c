# SPDX-License-Identifier: Apache-2.0
"""``load_keras``: matches by name and by structure, problems, and that all or nothing is loaded.

Runs with the backend that KERAS_BACKEND names; ``nox -s frameworks`` tries several.
"""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from craft.messages import TrackableObjectGraph

import tensorbundle as tb
from tensorbundle.naming import OBJECT_GRAPH, VALUE_SUFFIX

# Keras calls PyTorch's `__array__` in a way that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def keras() -> Any:
    module = pytest.importorskip("keras", minversion="3")
    module.utils.clear_session()  # the default names of layers begin with the first again
    return module


def dense(keras: Any, *names: str, **options: Any) -> Any:
    """Returns a model of dense layers with 3, 4, 4, ... inputs."""
    layers = [keras.layers.Dense(4, name=name, **options) for name in names]
    return keras.Sequential([keras.Input((3,)), *layers], name="net")


def values(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    ops = __import__("keras").ops
    return {
        weight.path: np.asarray(ops.convert_to_numpy(ops.cast(weight, "float32")))
        for weight in model.weights
    }


def tensors(shape: tuple[int, ...] = (3, 4), dtype: Any = np.float32) -> dict[str, Any]:
    size = int(np.prod(shape))
    kernel = np.arange(size).reshape(shape).astype(dtype)
    return {"first/kernel": kernel, "first/bias": np.full(4, 7, dtype)}


def assert_unchanged(model: Any, before: dict[str, Any]) -> None:
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, before[name])


def save_objects(prefix: Path, objects: dict[str, tuple[str, Any]]) -> None:
    """Writes an object-based checkpoint: path in the graph to full name and value."""
    graph = TrackableObjectGraph()
    graph.nodes.add()
    numbers = {"": 0}
    saved: dict[str, Any] = {}
    for path, (full_name, value) in objects.items():
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[:count])
            if name not in numbers:
                numbers[name] = len(graph.nodes)
                parent = graph.nodes[numbers["/".join(parts[: count - 1])]]
                parent.children.add(node_id=numbers[name], local_name=parts[count - 1].encode())
                graph.nodes.add()
        graph.nodes[numbers[path]].attributes.add(
            name=b"VARIABLE_VALUE",
            full_name=full_name.encode(),
            checkpoint_key=(path + VALUE_SUFFIX).encode(),
        )
        saved[path + VALUE_SUFFIX] = value
    tb.save(str(prefix), {**saved, OBJECT_GRAPH: graph.SerializeToString()})


def text_model(keras: Any) -> Any:
    """Returns the model of tests/data/checkpoints/keras_weights, with default names."""
    layers = keras.layers
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4)(inputs)
    x = layers.LSTM(3)(x)
    x = layers.Dense(6)(x)
    x = layers.BatchNormalization()(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


@pytest.mark.parametrize("saved", ["keras_weights", "keras_saved_model"])
@pytest.mark.parametrize("earlier", [0, 1, 3])
def test_loads_checkpoint_of_tf_keras(
    keras: Any, checkpoints: Path, saved: str, earlier: int
) -> None:
    for _ in range(earlier):  # which changes the names: the checkpoint's layer is "dense_1"
        keras.layers.Dense(1)
    model = text_model(keras)
    report = tb.load_keras(model, checkpoints / saved)
    assert list(report.loaded) == [weight.path for weight in model.weights]
    assert f"dense{f'_{earlier}' * bool(earlier)}/kernel" in report.loaded
    assert not report.missing and not report.mismatched
    assert len(report.unused) > 20  # the optimizer
    for number, value in enumerate(values(model).values()):
        expected = 100 * number + np.arange(value.size).reshape(value.shape)
        np.testing.assert_array_equal(value, expected)


def test_nested_layers_are_matched_by_structure(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers

    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = keras.Sequential([layers.ReLU(), layers.Dense(4), layers.Dense(4)])
            self.blocks = [layers.Dense(4), layers.Dense(4)]
            self.heads = {"a": layers.Dense(2)}
            self.attention = layers.MultiHeadAttention(2, 3)
            self.both = layers.Bidirectional(layers.LSTM(2))

        def call(self, x: Any) -> Any:
            x = self.inner(x)
            for block in self.blocks:
                x = block(x)
            return self.heads["a"](self.both(self.attention(x, x)))

    model = Net()
    model(np.zeros((1, 5, 3), np.float32))
    places = {
        "inner/layer_with_weights-0": model.inner.layers[1],
        "inner/layer-2": model.inner.layers[2],
        "blocks/0": model.blocks[0],
        "blocks/1": model.blocks[1],
        "heads/a": model.heads["a"],
        "attention/_query_dense": model.attention._query_dense,
        "attention/_key_dense": model.attention._key_dense,
        "attention/_value_dense": model.attention._value_dense,
        "attention/_output_dense": model.attention._output_dense,
        "both/forward_layer/cell": model.both.forward_layer.cell,
        "both/backward_layer/cell": model.both.backward_layer.cell,
    }
    objects = {
        f"net/{place}/{weight.name}": ("same", np.full(weight.shape, number, np.float32))
        for number, (place, layer) in enumerate(places.items())
        for weight in layer.weights
    }
    assert len(objects) == len(model.weights)
    objects["optimizer/inner/layer-2/kernel"] = ("slot", np.zeros((4, 4), np.float32))
    save_objects(tmp_path / "ck", objects)
    report = tb.load_keras(model, tmp_path / "ck")
    assert len(report.loaded) == len(model.weights)
    assert report.unused == ("optimizer/inner/layer-2/kernel" + VALUE_SUFFIX,)
    for number, layer in enumerate(places.values()):
        for value in values(layer).values():
            assert np.all(value == number)


@pytest.mark.parametrize("prefix", ["", "net/"])
@pytest.mark.parametrize("ending", ["", VALUE_SUFFIX])
def test_names_match_with_and_without_name_of_model(
    keras: Any, tmp_path: Path, prefix: str, ending: str
) -> None:
    expected = tensors()
    tb.save(tmp_path / "ck", {f"{prefix}{name}{ending}": v for name, v in expected.items()})
    model = dense(keras, "first")
    report = tb.load_keras(model, tmp_path / "ck")
    assert report.loaded == {f"net/{name}": f"{prefix}{name}{ending}" for name in expected}
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, expected[name.removeprefix("net/")])


@pytest.mark.parametrize(
    "rename",
    [
        {"old/w": "first/kernel", "old/b": "net/first/bias"},
        [("^old", "first"), ("w$", "kernel"), ("b$", "bias")],
        lambda name: {"old/w": "first/kernel", "old/b": "first/bias"}.get(name, name),
    ],
)
def test_rename_changes_names_of_tensors(keras: Any, tmp_path: Path, rename: Any) -> None:
    kernel, bias = tensors().values()
    objects = {"old/w": ("x", kernel), "old/b": ("y", bias)}
    save_objects(tmp_path / "objects", objects)
    tb.save(tmp_path / "names", {name: value for name, (_, value) in objects.items()})
    for name in ("names", "objects"):
        model = dense(keras, "first")
        tb.load_keras(model, tmp_path / name, rename=rename)
        np.testing.assert_array_equal(values(model)["net/first/kernel"], kernel)


def test_all_problems_are_in_one_message_and_nothing_changes(keras: Any, tmp_path: Path) -> None:
    saved = {"first/kernel": np.zeros((3, 5), np.float32), "first/bias": np.zeros(4, np.int32)}
    saved |= {"second/kernel": np.ones((4, 4), np.float32), "other": np.zeros(1)}
    tb.save(tmp_path / "ck", saved)
    model = dense(keras, "first", "second")
    before = values(model)
    with pytest.raises(tb.LoadError) as caught:
        tb.load_keras(model, tmp_path / "ck", rename={"absent": "x"})
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "problems (4)" in text and str(tmp_path) in text
    for part in (
        "'net/first/kernel': it is float32 [3, 4], but tensor 'first/kernel' is float32 [3, 5]",
        "'net/first/bias': it is float32 [4], but tensor 'first/bias' is int32 [4]",
        "the checkpoint has no tensor 'second/bias'",
        "rename: no tensor has the name 'absent'",
    ):
        assert part in text
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, tb.Error)
    assert str(pickle.loads(pickle.dumps(caught.value))) == text
    assert_unchanged(model, before)

    with pytest.raises(tb.LoadError, match=r"problems \(1\)"):
        tb.load_keras(model, tmp_path / "ck", mismatch="skip")
    assert_unchanged(model, before)
    report = tb.load_keras(model, tmp_path / "ck", mismatch="skip", missing="skip")
    assert report.loaded == {"net/second/kernel": "second/kernel"}
    assert report.missing == {"net/second/bias": "net/second/bias"}
    assert set(report.mismatched) == {"net/first/kernel", "net/first/bias"}
    assert report.unused == ("first/bias", "first/kernel", "other")
    after = values(model)
    assert np.all(after.pop("net/second/kernel") == 1)
    for name, value in after.items():
        np.testing.assert_array_equal(value, before[name])


def test_corrupt_tensor_changes_nothing(keras: Any, tmp_path: Path) -> None:
    tb.save(tmp_path / "ck", tensors())
    with tb.open(tmp_path / "ck") as checkpoint:
        (part,) = checkpoint["first/bias"].slices  # of the variable that is assigned last
    content = bytearray(Path(part.file).read_bytes())
    content[part.file_offset] ^= 1
    Path(part.file).write_bytes(content)
    model = dense(keras, "first")
    before = values(model)
    with pytest.raises(tb.CorruptionError):
        tb.load_keras(model, tmp_path / "ck")
    assert_unchanged(model, before)


@pytest.mark.parametrize("stored", [np.float16, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("wanted", ["float32", "bfloat16", "float16"])
def test_cast_converts_between_float_types(
    keras: Any, tmp_path: Path, stored: Any, wanted: str
) -> None:
    expected = tensors(dtype=stored)
    tb.save(tmp_path / "ck", expected)
    model = dense(keras, "first", dtype=wanted)
    if np.dtype(stored).name != wanted:
        with pytest.raises(tb.LoadError, match="cast=True converts it"):
            tb.load_keras(model, tmp_path / "ck")
    tb.load_keras(model, tmp_path / "ck", cast=True)
    assert all(weight.dtype == wanted for weight in model.weights)
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, expected[name.removeprefix("net/")].astype(np.float32))


def test_cast_does_not_convert_integers(keras: Any, tmp_path: Path) -> None:
    tb.save(tmp_path / "ck", tensors(dtype=np.int32))
    with pytest.raises(tb.LoadError, match="is int32") as caught:
        tb.load_keras(dense(keras, "first"), tmp_path / "ck", cast=True)
    assert "cast=True" not in str(caught.value)


def test_names_and_structure_that_disagree_are_refused(keras: Any, tmp_path: Path) -> None:
    square = np.zeros((4, 4), np.float32)
    objects = {}
    for place, name in enumerate(("second", "first")):  # two layers have changed places
        objects[f"layer_with_weights-{place}/kernel"] = (f"{name}/kernel", square + place)
        objects[f"layer_with_weights-{place}/bias"] = (f"{name}/bias", square[0] + place)
    save_objects(tmp_path / "ck", objects)
    layers = [keras.layers.Dense(4, name=name) for name in ("first", "second")]
    model = keras.Sequential([keras.Input((4,)), *layers], name="net")
    before = values(model)
    with pytest.raises(tb.LoadError, match="give by='name' or by='structure'") as caught:
        tb.load_keras(model, tmp_path / "ck")
    assert len(caught.value.problems) == 4
    assert_unchanged(model, before)
    for by, first in (("name", 1), ("structure", 0)):
        tb.load_keras(model, tmp_path / "ck", by=by)
        assert np.all(values(model)["net/first/kernel"] == first)
    with pytest.raises(tb.LoadError):
        tb.load_keras(dense(keras, "first"), tmp_path / "ck", by="structure")


def test_structure_needs_an_object_graph(keras: Any, tmp_path: Path) -> None:
    tb.save(tmp_path / "ck", tensors())
    with pytest.raises(tb.LoadError, match="the object graph has no tensor at its place"):
        tb.load_keras(dense(keras, "first"), tmp_path / "ck", by="structure")


def test_shared_full_names_are_ambiguous(keras: Any, tmp_path: Path) -> None:
    kernel, bias = tensors().values()
    objects = {"a": ("first/kernel", kernel), "b": ("first/kernel", kernel)}
    save_objects(tmp_path / "ck", {**objects, "c": ("first/bias", bias)})
    with pytest.raises(tb.LoadError, match="is the full name of 2 tensors"):
        tb.load_keras(dense(keras, "first"), tmp_path / "ck")


def test_variables_with_one_path_are_refused(keras: Any, tmp_path: Path) -> None:
    class Net(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.one = self.add_weight(shape=(2,), name="w")
            self.two = self.add_weight(shape=(2,), name="w")

    layer = Net(name="net")
    layer.build(None)
    value = np.ones(2, np.float32)
    tb.save(tmp_path / "names", {"w": value})
    with pytest.raises(tb.LoadError, match="several variables of the model have the path 'net/w'"):
        tb.load_keras(layer, tmp_path / "names")
    save_objects(tmp_path / "objects", {"one": ("w", value), "two": ("w", value * 2)})
    report = tb.load_keras(layer, tmp_path / "objects")
    assert report.loaded == {"net/w": f"one{VALUE_SUFFIX}", "net/w#2": f"two{VALUE_SUFFIX}"}
    assert np.all(np.asarray(__import__("keras").ops.convert_to_numpy(layer.two)) == 2)


def test_loads_scalars_and_empty_variables(keras: Any, tmp_path: Path) -> None:
    class Net(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.scalar = self.add_weight(shape=(), name="scalar")
            self.empty = self.add_weight(shape=(0, 3), name="empty")
            self.count = self.add_weight(shape=(), name="count", dtype="int32", trainable=False)

    layer = Net(name="net")
    layer.build(None)
    saved = {"empty": np.zeros((0, 3), np.float32), "count": np.int32(7)}
    tb.save(tmp_path / "ck", {"scalar": np.float32(2.5), **saved})
    assert len(tb.load_keras(layer, tmp_path / "ck").loaded) == 3
    convert = keras.ops.convert_to_numpy
    assert [convert(layer.scalar).item(), convert(layer.count).item()] == [2.5, 7]


def test_open_checkpoint_stays_open(keras: Any, tmp_path: Path) -> None:
    tb.save(tmp_path / "ck", tensors())
    with tb.open(tmp_path / "ck") as checkpoint:
        tb.load_keras(dense(keras, "first"), checkpoint)
        assert not checkpoint.closed


def test_long_list_of_problems_is_truncated(keras: Any, tmp_path: Path) -> None:
    tb.save(tmp_path / "ck", tensors())
    with pytest.raises(tb.LoadError, match="the nearest names are 'first/kernel'"):
        tb.load_keras(dense(keras, "firsts"), tmp_path / "ck")
    model = dense(keras, *(f"layer{number}" for number in range(40)))
    with pytest.raises(tb.LoadError, match="and 30 more") as caught:
        tb.load_keras(model, tmp_path / "ck")
    assert len(caught.value.problems) == 80


def test_message_counts_all_problems() -> None:
    problems = [f"problem number {number}" for number in range(80)]
    text = str(tb.LoadError("ck", problems))
    assert text.startswith("'ck' cannot be loaded into the model; problems (80):\n")
    assert "problem number 49\n" in text and "number 50" not in text
    assert text.endswith("and 30 more")
    assert "problems (2):" in str(tb.LoadError("ck", problems[:2]))


def test_invalid_arguments(keras: Any, tmp_path: Path) -> None:
    tb.save(tmp_path / "ck", tensors())
    model = dense(keras, "first")
    path = tmp_path / "ck"
    with pytest.raises(ValueError, match="by must be"):
        tb.load_keras(model, path, by="shape")
    with pytest.raises(ValueError, match="rename needs names"):
        tb.load_keras(model, path, by="structure", rename={"a": "b"})
    with pytest.raises(ValueError, match="missing must be"):
        tb.load_keras(model, path, missing="ignore")
    with pytest.raises(TypeError, match="rename must be a mapping"):
        tb.load_keras(model, path, rename="first")
    with pytest.raises(
        TypeError, match=r"must be a layer or a model of Keras 3, not builtins\.dict"
    ):
        tb.load_keras({}, path)
    with pytest.raises(ValueError, match="has not been built"):
        tb.load_keras(keras.Sequential([keras.layers.Dense(2)]), path)
    with pytest.raises(tb.CheckpointNotFoundError):
        tb.load_keras(model, tmp_path / "absent")


def test_malformed_object_graph_leaves_names(keras: Any, tmp_path: Path) -> None:
    tb.save(tmp_path / "ck", {**tensors(), OBJECT_GRAPH: b""})
    assert len(tb.load_keras(dense(keras, "first"), tmp_path / "ck").loaded) == 2


@pytest.mark.parametrize("content", [b"\x0a\x05", b"\xff", b"\x0a\x02\x0a\x09"])
def test_malformed_object_graph_is_an_error(keras: Any, tmp_path: Path, content: bytes) -> None:
    tb.save(tmp_path / "ck", {**tensors(), OBJECT_GRAPH: content})
    with pytest.raises(tb.CorruptionError):
        tb.load_keras(dense(keras, "first"), tmp_path / "ck")


def test_error_without_keras_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match=r"pip install 'tensorbundle\[keras\]'"):
        tb.load_keras(None, "absent")


def test_keras_2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", types.SimpleNamespace(__version__="2.15.0"))
    with pytest.raises(ImportError, match=r"needs Keras 3, not 2\.15\.0"):
        tb.load_keras(None, "absent")
