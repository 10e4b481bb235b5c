# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's reader functions behave the same with and without tensorbundle installed."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.compare import same_bits

import tensorbundle as tb
from tensorbundle import naming
from tensorbundle.errors import AmbiguousNameError

tf = pytest.importorskip("tensorflow")

from tensorflow.python.eager import context  # noqa: E402

from tensorbundle.tf import installation  # noqa: E402

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
GOLDEN = sorted(path.with_suffix("") for path in DATA.glob("*/*.index"))
V1 = tf.compat.v1.train
SHARD = ".data-00000-of-00001"
TYPES = [tf.float32, tf.float16, tf.bfloat16, tf.int64, tf.uint8, tf.bool, tf.complex64, tf.string]


# The types that TensorFlow reads from V1 files.
V1_TYPES = [tf.float32, tf.int64, tf.int32, tf.uint8]


def save(prefix: Path, *, version: int = 2) -> str:
    """Writes a checkpoint with a matrix, a scalar and a vector of every kind of type."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for dtype in TYPES if version == 2 else V1_TYPES:
            values = tf.constant([0, 1, 1, 0, 1])
            values = tf.strings.as_string(values) if dtype == tf.string else tf.cast(values, dtype)
            tf.compat.v1.get_variable(f"{dtype.name}/vector", initializer=values)
            tf.compat.v1.get_variable(f"{dtype.name}/scalar", initializer=values[1])
        tf.compat.v1.get_variable("matrix", initializer=tf.reshape(tf.range(600.0), [20, 30]))
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(write_version=version)
        return str(saver.save(session, str(prefix)))


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model") / "model.ckpt")


@pytest.fixture(scope="module")
def prefix_v1(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("old") / "old.ckpt", version=1)


def with_and_without_install(call: Callable[[], Any]) -> tuple[Any, Any]:
    """Returns the results with and without tensorbundle installed."""
    original = call()
    with installation.installed():
        patched = call()
        assert sum(installation.calls().values()) > 0
    return patched, original


def assert_equal_readers(patched: Any, original: Any) -> None:
    assert isinstance(patched, tb.CheckpointReader)
    assert not isinstance(original, tb.CheckpointReader)
    assert patched.get_variable_to_shape_map() == original.get_variable_to_shape_map()
    dtypes = original.get_variable_to_dtype_map()
    assert patched.get_variable_to_dtype_map() == dtypes
    assert all(type(d) is tf.DType for d in patched.get_variable_to_dtype_map().values())
    for name in [*dtypes, "", b"", "nowhere", b"nowhere"]:
        assert patched.has_tensor(name) is original.has_tensor(name), name
    assert type(patched.debug_string()) is type(original.debug_string()) is bytes
    assert set(patched.debug_string().splitlines()) == set(original.debug_string().splitlines())
    for name in dtypes:
        value, expected = patched.get_tensor(name.encode()), original.get_tensor(name)
        assert type(value) is type(expected), name
        if isinstance(expected, bytes):
            assert value == expected
            continue
        assert same_bits(value, expected), name
        assert getattr(value, "flags", expected.flags).writeable is expected.flags.writeable


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}")
def test_golden_file_reads_the_same(path: Path) -> None:
    assert_equal_readers(*with_and_without_install(lambda: tf.train.load_checkpoint(str(path))))
    patched, original = with_and_without_install(lambda: tf.train.list_variables(str(path)))
    assert patched == original


def test_every_type_reads_the_same(prefix: str, prefix_v1: str) -> None:
    assert_equal_readers(*with_and_without_install(lambda: tf.train.load_checkpoint(prefix)))
    assert_equal_readers(*with_and_without_install(lambda: V1.NewCheckpointReader(prefix)))
    assert_equal_readers(*with_and_without_install(lambda: V1.NewCheckpointReader(prefix_v1)))


def test_load_variable_returns_the_same(prefix: str) -> None:
    for name in ("matrix", "matrix:0", "float32/scalar", "string/scalar:0"):
        patched, original = with_and_without_install(
            lambda name=name: tf.train.load_variable(prefix, name)
        )
        assert type(patched) is type(original)
        assert patched == original if isinstance(original, bytes) else same_bits(patched, original)


@pytest.mark.parametrize("kind", [str, Path, lambda path: Path(path).parent, os.path.dirname])
def test_every_path_type_is_accepted(prefix: str, kind: Callable[[str], Any]) -> None:
    patched, original = with_and_without_install(lambda: V1.list_variables(kind(prefix)))
    assert patched == original


# Each changes a copy of a checkpoint: (prefix of the copy) -> (path to open, name to read).
def truncated_data(copy: str) -> tuple[Any, Any]:
    os.truncate(copy + SHARD, 500)
    return copy, "matrix"


def missing_data(copy: str) -> tuple[Any, Any]:
    os.remove(copy + SHARD)
    return copy, "matrix"


def corrupt_data(copy: str) -> tuple[Any, Any]:
    data = bytearray(Path(copy + SHARD).read_bytes())
    Path(copy + SHARD).write_bytes(bytes(byte ^ 0x55 for byte in data))
    return copy, "matrix"


def corrupt_string(copy: str) -> tuple[Any, Any]:
    return corrupt_data(copy)[0], "string/vector"


def truncated_index(copy: str) -> tuple[Any, Any]:
    os.truncate(copy + ".index", 100)
    return copy, "matrix"


def empty_index(copy: str) -> tuple[Any, Any]:
    os.truncate(copy + ".index", 0)
    return copy, "matrix"


def corrupt_index(copy: str) -> tuple[Any, Any]:
    with open(copy + ".index", "r+b") as file:
        file.seek(10)
        file.write(b"xxxx")
    return copy, "matrix"


def text_file(copy: str) -> tuple[Any, Any]:
    Path(copy + ".txt").write_text("not a checkpoint\n" * 9)
    return copy + ".txt", "matrix"


def hdf5_file(copy: str) -> tuple[Any, Any]:
    Path(copy + ".h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    return copy + ".h5", "matrix"


CHANGES = [
    truncated_data,
    missing_data,
    corrupt_data,
    corrupt_string,
    truncated_index,
    empty_index,
    corrupt_index,
    text_file,
    hdf5_file,
    lambda copy: (copy + "-nowhere", "matrix"),
    lambda copy: (copy + "/no/where", "matrix"),
    lambda copy: ("", "matrix"),
    lambda copy: (None, "matrix"),
    lambda copy: (3, "matrix"),
    lambda copy: (os.path.dirname(copy), "matrix"),
    lambda copy: (copy, "nowhere"),
    lambda copy: (copy, b"nowhere"),
    lambda copy: (copy, "matrix:0"),
    lambda copy: (copy, ""),
    lambda copy: (copy, 3),
]


@pytest.mark.parametrize("opener", ["load_checkpoint", "NewCheckpointReader"])
@pytest.mark.parametrize("change", CHANGES)
def test_error_has_tensorflows_class(prefix: str, tmp_path: Path, change: Any, opener: str) -> None:
    """Handlers of TensorFlow's exceptions also catch our exceptions."""
    copy = str(tmp_path / "copy")
    for suffix in (".index", SHARD):
        shutil.copy(prefix + suffix, copy + suffix)
    path, name = change(copy)
    with pytest.raises(Exception) as original:
        getattr(V1, opener)(path).get_tensor(name)
    with installation.installed(), pytest.raises(Exception) as patched:
        getattr(V1, opener)(path).get_tensor(name)
    assert isinstance(patched.value, original.type)
    if isinstance(original.value, tf.errors.NotFoundError):
        assert original.value.message in patched.value.message
    if isinstance(patched.value, tf.errors.OpError):
        assert isinstance(patched.value, tb.Error)
        assert patched.value.message == str(patched.value)
        assert str(pickle.loads(pickle.dumps(patched.value))) == str(patched.value)


def test_missing_name_in_v1_file_has_same_message(prefix_v1: str) -> None:
    with pytest.raises(tf.errors.NotFoundError) as original:
        V1.load_checkpoint(prefix_v1).get_tensor("x")
    with installation.installed(), pytest.raises(tb.TensorNotFoundError) as patched:
        V1.load_checkpoint(prefix_v1).get_tensor("x")
    assert original.value.message in patched.value.message


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Writes an object-based checkpoint in which two variables have the same full name."""
    prefix = str(tmp_path_factory.mktemp("objects") / "ck")
    with context.eager_mode():
        named = tf.Variable([1.0], name="enc/kernel")
        tf.train.Checkpoint(a=named, b=tf.Variable(2.0), c=tf.Variable(3.0)).write(prefix)
    return prefix


def test_full_names_are_readable_but_not_keys(objects: str) -> None:
    """``has_tensor`` and the maps equal TensorFlow's, which cannot read full names."""
    assert_equal_readers(*with_and_without_install(lambda: tf.train.load_checkpoint(objects)))
    original = tf.train.load_checkpoint(objects)
    with installation.installed():
        patched = tf.train.load_checkpoint(objects)
        for name in ("enc/kernel", b"enc/kernel", "Variable", "a/.ATTRIBUTES/VARIABLE_VALUE"):
            assert patched.has_tensor(name) is original.has_tensor(name)
        assert same_bits(patched.get_tensor("enc/kernel"), np.array([1.0], np.float32))
        loaded = tf.train.load_variable(objects, "enc/kernel:0")
        assert same_bits(loaded, np.array([1.0], np.float32))


def test_shared_full_name_raises_ambiguous_name_error(objects: str) -> None:
    with installation.installed(), pytest.raises(tf.errors.NotFoundError) as caught:
        tf.train.load_variable(objects, "Variable")
    assert isinstance(caught.value, AmbiguousNameError)
    assert "Key Variable not found in checkpoint" in caught.value.message
    assert "'b/.ATTRIBUTES/VARIABLE_VALUE', 'c/.ATTRIBUTES/VARIABLE_VALUE'" in str(caught.value)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), AmbiguousNameError)


@pytest.mark.parametrize("name", ["nowhere", "\ud800", b"\xff", "enc/kernl"])
def test_similar_names_are_searched_only_for_the_message(
    objects: str, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    searches: list[str] = []
    original = naming.nearest

    def nearest(name: str, *arguments: Any) -> list[str]:
        searches.append(name)
        return original(name, *arguments)

    monkeypatch.setattr(naming, "nearest", nearest)
    with installation.installed():
        reader = tf.train.load_checkpoint(objects)
        with pytest.raises(tf.errors.NotFoundError) as caught:
            reader.get_tensor(name)
    assert not searches
    message = caught.value.message
    assert len(searches) == 1
    assert message == str(caught.value) == caught.value.args[0]
    assert message.encode("utf-8")  # printable
    assert str(pickle.loads(pickle.dumps(caught.value))) == message
    assert len(searches) == 1


def test_object_based_checkpoint_restores(tmp_path: Path) -> None:
    """``tf.train.Checkpoint`` reads its object graph through a patched function."""
    with context.eager_mode(), installation.installed():
        first = tf.train.Checkpoint(v=tf.Variable([1.0, 2.0]), step=tf.Variable(5, dtype=tf.int64))
        saved = first.save(str(tmp_path / "objects"))
        second = tf.train.Checkpoint(v=tf.Variable([0.0, 0.0]))
        second.restore(saved).assert_existing_objects_matched()
        assert installation.calls()["NewCheckpointReader"] > 0
        np.testing.assert_array_equal(second.v.numpy(), [1.0, 2.0])
        third = tf.train.Checkpoint(v=tf.Variable([0.0, 0.0]), step=tf.Variable(0, dtype=tf.int64))
        third.read(saved).expect_partial()
        assert int(third.step.numpy()) == 5
        with pytest.raises(tf.errors.NotFoundError):
            second.restore(str(tmp_path / "nowhere-1"))


def test_saved_model_loads(tmp_path: Path) -> None:
    with context.eager_mode(), installation.installed():
        module = tf.Module()
        module.v = tf.Variable([1.0, 2.0])
        tf.saved_model.save(module, str(tmp_path / "saved"))
        loaded = tf.saved_model.load(str(tmp_path / "saved"))
        assert installation.calls()["NewCheckpointReader"] > 0
        np.testing.assert_array_equal(loaded.v.numpy(), [1.0, 2.0])


def test_keras_detects_bundle_and_hdf5_weights(tmp_path: Path) -> None:
    """Keras 2 opens the file with a patched function, and treats an error as another format."""
    if not importlib.metadata.version("keras").startswith("2."):
        pytest.skip("Keras 3 has its own formats")
    model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])
    weights = [array + 1 for array in model.get_weights()]
    model.set_weights(weights)
    with installation.installed():
        for path, form in [(tmp_path / "bundle", "tf"), (tmp_path / "hdf5", "h5")]:
            model.save_weights(str(path), save_format=form)
            other = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])
            other.load_weights(str(path))
            for patched, original in zip(other.get_weights(), weights, strict=True):
                np.testing.assert_array_equal(patched, original)
        assert installation.calls()["NewCheckpointReader"] > 1
