# SPDX-License-Identifier: Apache-2.0
"""A dtype mismatch raises at the call; with `cast`, floating-point types are converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.compare import same_bits
from warm_starts import write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1
pytestmark = pytest.mark.usefixtures("backend_name")

FLOATS = ["float16", "bfloat16", "float32", "float64"]
SMALL_FLOATS = ["float8_e5m2", "float8_e4m3fn"]
OTHERS = ["int32", "int64", "uint8", "bool", "complex64"]
VALUES = np.arange(24).reshape(6, 4) / 4
NEW = "fxbayde"
ROWS = np.array(["abcdef".find(token) for token in NEW])


def as_type(values: Any, name: str) -> np.ndarray:
    return np.asarray(values).astype(tf.as_dtype(name).as_numpy_dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> Path:
    """Writes a checkpoint with the same values in every dtype, and two vocabularies."""
    root = tmp_path_factory.mktemp("types")
    arrays = {name: as_type(VALUES, name) for name in (*FLOATS, *OTHERS)}
    arrays |= {name: as_type(VALUES, name) for name in SMALL_FLOATS}
    arrays |= {f"{name}/Slot": as_type(VALUES + 1, name) for name in FLOATS}
    save(root / "m", arrays)
    write_vocabulary(root / "old.txt", "abcdef")
    write_vocabulary(root / "new.txt", NEW)
    return root


@pytest.fixture(params=["ref", "resource"])
def resource(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "resource")


def check_error(error: BaseException, stored: str, requested: str, variable: str) -> None:
    """Checks the base classes and the message of an error."""
    for kind in (tb.Error, ValueError, tf.errors.InvalidArgumentError):
        assert isinstance(error, kind)
    text = str(error)
    assert stored in text and requested in text and variable in text
    assert "does not equal original dtype" in text  # as in TensorFlow
    castable = {stored, requested} <= {*FLOATS, *SMALL_FLOATS}
    assert ("cast=True" in text) == castable


@pytest.mark.parametrize("requested", ["float16", "float64", "int32", "bool"])
@pytest.mark.parametrize("stored", ["float32", "int64", "bool", "complex64"])
def test_dtype_mismatch_raises_at_the_call(
    folder: Path, resource: bool, stored: str, requested: str
) -> None:
    if stored == requested:
        return
    with tf.Graph().as_default() as graph:
        variable = tf1.get_variable("x", [6, 4], tf.as_dtype(requested), use_resource=resource)
        before = variable.initializer, len(graph.get_operations())
        for target in (variable, [variable], "x"):
            with pytest.raises(ValueError, match="dtype") as caught:
                tb.init_from_checkpoint(folder / "m", {stored: target})
            check_error(caught.value, stored, requested, "x:0")
        with pytest.raises(ValueError, match="dtype") as caught:
            tb.warm_start(folder / "m", [variable], None, {"x": stored})
        check_error(caught.value, stored, requested, "x:0")
        if stored != "float32" or requested not in FLOATS:
            # Only floating-point types are cast.
            with pytest.raises(ValueError, match="dtype"):
                tb.init_from_checkpoint(folder / "m", {stored: variable}, cast=True)
        assert (variable.initializer, len(graph.get_operations())) == before


def test_dtype_mismatch_changes_no_eager_variable(folder: Path) -> None:
    first = tf.Variable(tf.zeros([6, 4]), name="first")
    second = tf.Variable(tf.zeros([6, 4], tf.float16), name="second")
    calls: list[Callable[[], Any]] = [
        lambda: tb.init_from_checkpoint(folder / "m", [("float32", first), ("float64", second)]),
        lambda: tb.warm_start(
            folder / "m", [first, second], None, {"first": "float32", "second": "float64"}
        ),
    ]
    for call in calls:
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            call()
        check_error(caught.value, "float64", "float16", "second:0")
        assert not first.numpy().any()


@pytest.mark.parametrize("stored", FLOATS)
@pytest.mark.parametrize("requested", FLOATS)
@pytest.mark.parametrize("partitions", [1, 3])
def test_cast_converts_floats(
    folder: Path, resource: bool, stored: str, requested: str, partitions: int, backend_name: str
) -> None:
    if backend_name == "stock" and stored == "float16" and partitions > 1:
        pytest.skip("TensorFlow's op cannot slice float16")
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = tf1.get_variable(
            "x", [6, 4], tf.as_dtype(requested), use_resource=resource,
            partitioner=tf1.fixed_size_partitioner(partitions),
        )  # fmt: skip
        report = tb.init_from_checkpoint(folder / "m", {stored: "x"}, cast=True)
        assert report.loaded == {"x": stored}
        session.run(tf1.global_variables_initializer())
        value = session.run(tf.convert_to_tensor(variable))
        initial = [partition.initial_value for partition in variable]
        assert {each.dtype.name for each in initial} == {requested}
    assert same_bits(np.asarray(value), as_type(as_type(VALUES, stored), requested))


@pytest.mark.parametrize("stored", SMALL_FLOATS)
@pytest.mark.parametrize("requested", ["float16", "float32"])
def test_cast_converts_float8(folder: Path, stored: str, requested: str) -> None:
    variable = tf.Variable(tf.zeros([6, 4], requested))
    tb.init_from_checkpoint(folder / "m", {stored: variable}, cast=True)
    assert same_bits(variable.numpy(), as_type(as_type(VALUES, stored), requested))


def test_cast_converts_eager_variable(folder: Path) -> None:
    variable = tf.Variable(tf.zeros([6, 4], tf.float64), name="x")
    tb.warm_start(folder / "m", [variable], None, {"x": "bfloat16"}, cast=True)
    assert same_bits(variable.numpy(), as_type(as_type(VALUES, "bfloat16"), "float64"))


def test_corruption_is_detected_before_a_cast(folder: Path, tmp_path: Path) -> None:
    for suffix in (".index", ".data-00000-of-00001"):
        (tmp_path / f"m{suffix}").write_bytes((folder / f"m{suffix}").read_bytes())
    with tb.open(tmp_path / "m") as checkpoint:
        ((file, offset, _),) = checkpoint["float64"].byte_ranges()
    with open(file, "r+b") as data:
        data.seek(offset)
        data.write(b"\x55")
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = tf1.get_variable("x", [6, 4], partitioner=tf1.fixed_size_partitioner(2))
        tb.init_from_checkpoint(tmp_path / "m", {"float64": "x"}, cast=True)
        with pytest.raises(tf.errors.DataLossError):
            session.run([partition.initializer for partition in variable])
        assert not any(
            session.run([tf1.is_variable_initialized(partition) for partition in variable])
        )


def test_cast_prevents_mapping(folder: Path, tmp_path: Path, backend_name: str) -> None:
    if backend_name == "stock":
        pytest.skip("only our kernels map")
    tb.align(folder / "m", tmp_path / "aligned")
    variable = tf.Variable(tf.zeros([6, 4]))
    with tb.tf.options(mode="map"), pytest.raises(ValueError, match="cast=True converts it"):
        tb.init_from_checkpoint(tmp_path / "aligned", {"float64": variable}, cast=True)
    assert not variable.numpy().any()
    with tb.tf.options(mode="auto"):
        tb.init_from_checkpoint(tmp_path / "aligned", {"float64": variable}, cast=True)
    assert same_bits(variable.numpy(), VALUES.astype(np.float32))
    with tb.tf.options(mode="map"):  # a tensor of the same dtype is mapped, even with cast=True
        tb.init_from_checkpoint(tmp_path / "aligned", {"float32": variable}, cast=True)


def remapped(
    folder: Path, stored: str, requested: str, backup: Any, oov: int, axis: int = 0
) -> Any:
    """Returns the value of a table that is remapped and cast."""
    name = stored
    columns = 4 if axis == 0 else 0
    shape = (7 + oov, columns) if axis == 0 else (6, 7 + oov)
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = tf1.get_variable(
            name, shape, tf.as_dtype(requested), initializer=tf1.zeros_initializer()
        )
        new, old = folder / "new.txt", folder / "old.txt"
        info = tb.VocabInfo(str(new), 7, oov, str(old), backup_initializer=backup, axis=axis)
        tb.warm_start(folder / "m", [variable], {name: info}, cast=True)
        session.run(variable.initializer)
        return session.run(variable)


@pytest.mark.parametrize("oov", [0, 2])
@pytest.mark.parametrize("backup", ["zeros", "counting", "shaped"])
@pytest.mark.parametrize(
    ("stored", "requested"),
    [("float32", "float64"), ("float16", "float64"), ("float64", "float32"), ("float32", "float16"),
     ("bfloat16", "float64"), ("float64", "bfloat16")],
)  # fmt: skip
def test_remapped_rows_are_cast_and_new_rows_are_not(
    folder: Path, backend_name: str, stored: str, requested: str, backup: str, oov: int
) -> None:
    """1/3 is not exact in a narrower type."""
    if backend_name == "stock":
        pytest.skip("TensorFlow's op remaps only float32")
    thirds = as_type(np.arange(1, 61) / 3, requested)

    def counting(shape: Any) -> Any:
        return tf.reshape(tf.constant(thirds)[: tf.reduce_prod(shape)], shape)

    def shaped(shape: Any) -> Any:
        return tf.fill([int(size) for size in shape], tf.constant(thirds[0]))

    initializer = {"zeros": None, "counting": counting, "shaped": shaped}[backup]
    value = remapped(folder, stored, requested, initializer, oov)
    known = ROWS >= 0
    expected = as_type(as_type(VALUES, stored), requested)[ROWS[known]]
    assert same_bits(np.ascontiguousarray(value[:7][known]), expected)
    new = np.concatenate([value[:7][~known], value[7:]]).ravel()
    if backup == "zeros":
        assert not new.any()
    elif backup == "shaped":
        assert same_bits(new, np.full(new.shape, thirds[0]))
    else:
        body, rest = np.split(new, [4 * np.count_nonzero(~known)])
        assert same_bits(body, thirds[: body.size]) and same_bits(rest, thirds[: rest.size])


def test_remapped_columns_are_cast(
    folder: Path, tmp_path: Path, backend_name: str, save: Any
) -> None:
    if backend_name == "stock":
        pytest.skip("TensorFlow's op remaps only float32")
    prefix = save(tmp_path / "m", {"w": as_type(VALUES.T, "float16")})
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = tf1.get_variable("w", (4, 9), initializer=tf1.zeros_initializer())
        info = tb.VocabInfo(
            str(folder / "new.txt"), 7, 2, str(folder / "old.txt"), axis=1,
            backup_initializer=lambda shape: tf.fill(shape, 1 / 3),
        )  # fmt: skip
        tb.warm_start(prefix, [variable], {"w": info}, cast=True)
        session.run(variable.initializer)
        value = session.run(variable)
    expected = np.full((4, 9), 1 / 3, np.float32)
    expected[:, :7][:, ROWS >= 0] = VALUES.T[:, ROWS[ROWS >= 0]]
    assert same_bits(value, expected)


def test_slots_are_cast_with_the_table(folder: Path, backend_name: str) -> None:
    if backend_name == "stock":
        pytest.skip("TensorFlow's op remaps only float32")
    with tf.Graph().as_default(), tf1.Session() as session:
        table = tf1.get_variable("float16", (7, 4), initializer=tf1.zeros_initializer())
        slot = tf1.get_variable(
            "float16/Slot", (7, 4), initializer=tf1.constant_initializer(0.1), trainable=False
        )
        info = tb.VocabInfo(str(folder / "new.txt"), 7, 0, str(folder / "old.txt"))
        with pytest.raises(tf.errors.InvalidArgumentError):
            tb.warm_start(folder / "m", [table, slot], {"float16": info})
        tb.warm_start(folder / "m", [table, slot], {"float16": info}, cast=True)
        session.run(tf1.global_variables_initializer())
        value = session.run(slot)
    expected = np.full((7, 4), 0.1, np.float32)
    expected[ROWS >= 0] = (VALUES + 1)[ROWS[ROWS >= 0]]
    assert same_bits(value, expected)


def test_quantized_and_reference_dtypes_are_supported(
    tmp_path: Path, save: Callable[..., str]
) -> None:
    quantized = tf.bitcast(tf.constant([1, 2, 3], tf.int8), tf.qint8)
    prefix = save(tmp_path / "m", {"q": quantized, "i": np.int8([1, 2, 3])})
    with tf.Graph().as_default():
        variable = tf1.get_variable(
            "q", initializer=tf.bitcast(tf.zeros([3], tf.int8), tf.qint8), use_resource=True
        )
        plain = tf1.get_variable("i", [3], tf.int8, use_resource=False)
        assert plain.dtype != plain.dtype.base_dtype
        tb.init_from_checkpoint(prefix, {"q": variable, "i": plain})
        with pytest.raises(ValueError, match="qint8"):
            tb.init_from_checkpoint(prefix, {"i": variable}, cast=True)
