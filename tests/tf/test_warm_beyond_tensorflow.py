# SPDX-License-Identifier: Apache-2.0
"""Warm starts that TensorFlow does not support, or performs incorrectly without an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm_starts import Outcome, outcome, write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1

OLD = ["a", "b", "c", "d"]
NEW = ["d", "x", "a", "y", "b"]
# The old row of each new row, or -1.
ROWS = np.array([3, -1, 0, -1, 1])
CLASSES = np.arange(12, dtype=np.float32).reshape(3, 4) + 1

CUBE = np.arange(4 * 3 * 2, dtype=np.float32).reshape(4, 3, 2) + 1
WIDE = np.arange(16, dtype=np.float32).reshape(4, 4) + 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> Path:
    root = tmp_path_factory.mktemp("beyond")
    arrays: dict[str, Any] = {"classes": CLASSES, "bias": CLASSES[0], "cube": CUBE, "wide": WIDE}
    for name in ("float16", "bfloat16", "float64", "int64", "complex64"):
        arrays[name] = np.arange(8).reshape(4, 2).astype(tf.as_dtype(name).as_numpy_dtype)
    save(root / "model", arrays)
    write_vocabulary(root / "old.txt", OLD)
    write_vocabulary(root / "new.txt", NEW)
    return root


def info(folder: Path, oov: int = 0, **more: Any) -> tb.VocabInfo:
    # TensorFlow does not accept Path objects.
    return tb.VocabInfo(folder / "new.txt", len(NEW), oov, folder / "old.txt", **more)


def warm_started_value(
    folder: Path,
    name: str,
    shape: tuple[int, ...],
    vocabulary: tb.VocabInfo,
    dtype: Any = tf.float32,
    partitioner: Any = None,
    **settings: Any,
) -> np.ndarray:
    """Returns the value of a variable after its warm start; its initializer returns ones."""

    def build() -> Any:
        ones = tf1.ones_initializer()
        return tf1.get_variable(name, shape, dtype, initializer=ones, partitioner=partitioner)

    result = outcome(
        tb.warm_start,
        folder / "model",
        build,
        lambda _: {"var_name_to_vocab_info": {name: vocabulary}, **settings},
    )
    if result.error is not None:
        raise result.error
    return result.values[0]


@pytest.fixture
def own_backend(backend_name: str) -> str:
    """Selects each backend except TensorFlow's op, which supports only float32 matrices."""
    if backend_name == "stock":
        pytest.skip("not supported by TensorFlow's op")
    return backend_name


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64", "int64", "complex64"])
@pytest.mark.parametrize("backup", ["zeros", "ones", "constant", "callable"])
def test_every_dtype_is_remapped(folder: Path, own_backend: str, name: str, backup: str) -> None:
    dtype = tf.as_dtype(name)
    initializer = {
        "zeros": None,
        "ones": tf1.ones_initializer(),
        "constant": tf1.constant_initializer(1),
        "callable": lambda shape: tf.ones(shape, dtype),
    }[backup]
    vocabulary = info(folder, 1, backup_initializer=initializer)
    value = warm_started_value(folder, name, (6, 2), vocabulary, dtype)
    stored = np.arange(8).reshape(4, 2)
    expected = np.full((6, 2), 0 if backup == "zeros" else 1)
    expected[[0, 2, 4]] = stored[ROWS[ROWS >= 0]]
    assert value.dtype == dtype.as_numpy_dtype
    np.testing.assert_array_equal(value, expected.astype(dtype.as_numpy_dtype))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_random_values_have_the_dtype_of_the_variable(
    folder: Path, own_backend: str, name: str
) -> None:
    dtype = tf.as_dtype(name)
    for initializer in (
        tf1.random_normal_initializer(seed=1),
        lambda shape: tf.random.stateless_normal(shape, [1, 2]),
    ):
        vocabulary = info(folder, backup_initializer=initializer)
        value = warm_started_value(folder, name, (5, 2), vocabulary, dtype)
        new = np.asarray(value[ROWS < 0], np.float64)
        assert len(np.unique(new)) == new.size and np.all(np.abs(new) < 6)


@pytest.mark.parametrize("partitions", [1, 2])
def test_vector_is_remapped(folder: Path, own_backend: str, partitions: int) -> None:
    partitioner = tf1.fixed_size_partitioner(partitions)
    vocabulary = info(folder, 2, backup_initializer=tf1.constant_initializer(-7.0))
    value = warm_started_value(folder, "bias", (7,), vocabulary, partitioner=partitioner)
    np.testing.assert_array_equal(value, [4, -7, 1, -7, 2, -7, -7])


@pytest.mark.parametrize("partitions", [1, 2])
def test_rank_3_rows_are_remapped(folder: Path, own_backend: str, partitions: int) -> None:
    partitioner = tf1.fixed_size_partitioner(partitions)
    value = warm_started_value(folder, "cube", (5, 3, 2), info(folder), partitioner=partitioner)
    expected = np.where(ROWS[:, None, None] < 0, 0, CUBE[ROWS])
    np.testing.assert_array_equal(value, expected)


def test_rank_3_columns_are_remapped(folder: Path, tmp_path: Path, own_backend: str) -> None:
    old = write_vocabulary(tmp_path / "old.txt", "abc")
    new = write_vocabulary(tmp_path / "new.txt", "cxab")
    vocabulary = tb.VocabInfo(new, 4, 1, old, backup_initializer=tf1.ones_initializer(), axis=1)
    value = warm_started_value(folder, "cube", (4, 5, 2), vocabulary)
    expected = np.ones((4, 5, 2), np.float32)
    expected[:, [0, 2, 3]] = CUBE[:, [2, 0, 1]]
    np.testing.assert_array_equal(value, expected)


INITIALIZERS_OF_SHAPE: dict[str, Callable[[], Any]] = {
    "constant": lambda: tf1.constant_initializer(0.25),
    "constant of v2": lambda: tf.constant_initializer(0.25),
    "glorot": lambda: tf1.glorot_uniform_initializer(seed=3),
    "glorot of v2": lambda: tf.initializers.GlorotUniform(seed=3),
    "variance scaling": lambda: tf1.variance_scaling_initializer(seed=3),
    "orthogonal": lambda: tf1.orthogonal_initializer(seed=3),
    "unit scaling": lambda: tf1.uniform_unit_scaling_initializer(seed=3),
    "a class": lambda: tf1.glorot_normal_initializer,
}


@pytest.mark.usefixtures("backend_name")
@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("name", INITIALIZERS_OF_SHAPE)
def test_initializer_is_called_once_per_partition(folder: Path, name: str, partitions: int) -> None:
    """Each cell that is not loaded gets the value at its position."""
    calls: list[Any] = []
    initializer = INITIALIZERS_OF_SHAPE[name]()
    instance = initializer() if isinstance(initializer, type) else initializer

    def recorded(shape: Any) -> Any:
        calls.append(instance(shape))
        return calls[-1]

    def build() -> list[Any]:
        table = tf1.get_variable(
            "emb",
            (7, 4),
            initializer=tf1.zeros_initializer(),
            partitioner=tf1.fixed_size_partitioner(partitions),
        )
        return [table]

    with tf.Graph().as_default(), tf1.Session() as session:
        (table,) = build()
        names = {"emb": "wide"}
        vocabulary = info(folder, 2, backup_initializer=recorded)
        tb.warm_start(folder / "model", None, {"emb": vocabulary}, names)
        assert [value.shape.as_list() for value in calls] == [
            partition.shape.as_list() for partition in table
        ]
        random = session.run([tf1.global_variables_initializer(), *calls])[1:]
        value = session.run(tf.convert_to_tensor(table))
    if "constant" in name:
        np.testing.assert_array_equal(np.concatenate(random), np.full((7, 4), 0.25))
        np.testing.assert_array_equal(value[ROWS.tolist().index(-1)], np.full(4, 0.25))
    np.testing.assert_array_equal(value[:5][ROWS >= 0], WIDE[ROWS[ROWS >= 0]])
    new_rows = np.concatenate([value[:5][ROWS < 0], value[5:]])
    assert np.all(np.abs(new_rows) < 10) and not np.all(new_rows == 0)


@pytest.mark.usefixtures("backend_name")
@pytest.mark.parametrize("constant", [tf1.constant_initializer, tf.constant_initializer])
def test_constant_initializer_creates_no_large_constant(folder: Path, constant: Any) -> None:
    with tf.Graph().as_default() as graph:
        table = tf1.get_variable("wide", (5, 4), initializer=tf1.zeros_initializer())
        before = set(graph.get_operations())
        vocabulary = _plain(folder)._replace(backup_initializer=constant(0.25))
        tb.warm_start(folder / "model", None, {"wide": vocabulary})
        created = [op for op in graph.get_operations() if op not in before]
        constants = [op.outputs[0].shape.num_elements() for op in created if op.type == "Const"]
        assert max(constants) < 5
        with tf1.Session() as session:
            session.run(table.initializer)
            np.testing.assert_array_equal(session.run(table)[ROWS < 0], np.full((2, 4), 0.25))


@pytest.mark.parametrize("partitions", [1, 2])
def test_repeated_new_token_gets_the_row_twice(
    folder: Path, tmp_path: Path, own_backend: str, partitions: int
) -> None:
    new = write_vocabulary(tmp_path / "new.txt", "bbxab")
    vocabulary = tb.VocabInfo(new, 5, 0, folder / "old.txt")
    partitioner = tf1.fixed_size_partitioner(partitions)
    value = warm_started_value(folder, "float64", (5, 2), vocabulary, tf.float64, partitioner)
    np.testing.assert_array_equal(value, [[2, 3], [2, 3], [0, 0], [0, 1], [2, 3]])


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_fill_values_keep_the_precision_of_the_variable(
    folder: Path, own_backend: str, name: str
) -> None:
    """The stored type does not have 0.1 to as many digits."""
    vocabulary = info(folder, backup_initializer=lambda shape, **_: tf.fill(shape, 0.1))
    value = warm_started_value(folder, name, (5, 2), vocabulary, tf.float32, cast=True)
    assert (value[ROWS < 0] == np.float32(0.1)).all() and (ROWS < 0).any()


def test_old_vocab_size_limits_old_columns(folder: Path, own_backend: str) -> None:
    vocabulary = info(folder, axis=1, old_vocab_size=2)
    value = warm_started_value(folder, "classes", (3, 5), vocabulary)
    expected = np.where(np.isin(ROWS, [0, 1]), CLASSES[:, ROWS], 0)
    np.testing.assert_array_equal(value, expected)


def test_more_old_tokens_than_columns_raises(
    folder: Path, tmp_path: Path, own_backend: str
) -> None:
    """TensorFlow leaves the cells uninitialized."""
    old = write_vocabulary(tmp_path / "old.txt", "abcdefgh")
    new = write_vocabulary(tmp_path / "new.txt", "hgfa")
    vocabulary = tb.VocabInfo(new, 4, 0, old, axis=1)
    with pytest.raises(tf.errors.OpError, match="classes"):
        warm_started_value(folder, "classes", (3, 4), vocabulary)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("backup", [None, "constant"])
def test_partitions_by_column_are_remapped(
    folder: Path, own_backend: str, axis: int, backup: str | None
) -> None:
    initializer = None if backup is None else tf1.constant_initializer(9.0)
    vocabulary = info(folder, 1, axis=axis, backup_initializer=initializer)
    shape = (6, 4) if axis == 0 else (3, 6)
    name = "classes" if axis == 1 else "wide"

    def build() -> Any:
        return tf1.get_variable(name, shape, partitioner=tf1.fixed_size_partitioner(3, 1))

    result = outcome(
        tb.warm_start,
        folder / "model",
        build,
        lambda _: {"var_name_to_vocab_info": {name: vocabulary}},
    )
    assert result.error is None
    fill = 0 if backup is None else 9
    ids = np.append(ROWS, -1)
    if axis == 0:
        expected = np.where(ids[:, None] < 0, fill, WIDE[ids])
    else:
        expected = np.where(ids < 0, fill, CLASSES[:, ids])
    np.testing.assert_array_equal(result.values[0], expected)


@pytest.mark.usefixtures("backend_name")
def test_initial_value_is_the_remapped_table(folder: Path) -> None:
    """TensorFlow keeps the old initial value, from which moving averages start."""

    def build() -> Any:
        return tf1.get_variable("wide", (5, 4), initializer=tf1.ones_initializer())

    def settings(table: Any) -> dict[str, Any]:
        return {"var_name_to_vocab_info": {"wide": _plain(folder)}}

    with tf.Graph().as_default(), tf1.Session() as session:
        table = build()
        tb.warm_start(folder / "model", **settings(table))
        copy = tf1.get_variable("copy", initializer=table.initial_value)
        session.run(tf1.global_variables_initializer())
        first, second = session.run([table, copy])
    np.testing.assert_array_equal(first, second)
    assert first[0, 0] == 62


def _plain(folder: Path) -> tb.VocabInfo:
    return tb.VocabInfo(str(folder / "new.txt"), 5, 0, str(folder / "old.txt"))


@pytest.mark.usefixtures("backend_name")
def test_eager_variable_is_remapped(folder: Path) -> None:
    table = tf.Variable(tf.ones([6, 4]), name="wide")
    initializer = tf1.random_normal_initializer(seed=5)
    vocabulary = tb.VocabInfo(
        str(folder / "new.txt"), 5, 1, str(folder / "old.txt"), backup_initializer=initializer
    )
    tb.warm_start(folder / "model", [table], {"wide": vocabulary})
    np.testing.assert_array_equal(table.numpy()[[0, 2, 4]], WIDE[[3, 0, 1]])
    new_rows = table.numpy()[[1, 3, 5]]
    assert np.all(np.abs(new_rows) < 10) and len(np.unique(new_rows)) > 4


@pytest.mark.usefixtures("backend_name")
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("context", ["scope", "replica"])
def test_mirrored_variable_is_remapped(folder: Path, devices: int, context: str) -> None:
    names = [f"/cpu:{number}" for number in range(devices)]
    config = tf1.ConfigProto(device_count={"CPU": devices})
    strategy = tf.distribute.MirroredStrategy(names)

    def start() -> None:
        tb.warm_start(folder / "model", None, {"wide": _plain(folder)})

    with tf.Graph().as_default(), strategy.scope(), tf1.Session(config=config) as session:
        table = tf1.get_variable("wide", (5, 4), initializer=tf1.ones_initializer())
        if context == "scope":
            start()
        else:
            strategy.run(start)
        session.run(tf1.global_variables_initializer())
        values = session.run(list(strategy.experimental_local_results(table)))
    assert len(values) == devices
    for value in values:
        np.testing.assert_array_equal(value[:, 0], [62, 0, 50, 0, 54])


def test_unknown_shape_is_rejected(folder: Path) -> None:
    def build() -> Any:
        return tf1.get_variable(
            "wide", initializer=tf1.placeholder_with_default(tf.ones([5, 4]), None),
            validate_shape=False,
        )  # fmt: skip

    result: Outcome = outcome(
        tb.warm_start,
        folder / "model",
        build,
        lambda _: {"var_name_to_vocab_info": {"wide": _plain(folder)}},
    )
    assert result.stage == "call"
    assert isinstance(result.error, tb.ShapeMismatchError)
