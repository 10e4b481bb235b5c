# SPDX-License-Identifier: Apache-2.0
"""Seeded backup initializers return TensorFlow's numbers in any order of evaluation."""

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

INITIALIZERS: dict[str, Callable[[int | None], Any]] = {
    "normal": lambda seed: tf1.random_normal_initializer(seed=seed),
    "uniform": lambda seed: tf1.random_uniform_initializer(seed=seed),
    "truncated": lambda seed: tf1.truncated_normal_initializer(seed=seed),
    "of v2": lambda seed: tf.random_normal_initializer(seed=seed),
    "user function": lambda seed: lambda shape: tf.random.uniform(shape, seed=seed) * 2,
}
# b: the initial values; i: the initializers; t: both in one run; g: all initializers of the graph;
# r: the report of uninitialized variables.
ORDERS = ["i", "bi", "bbi", "ib", "ii", "bibi", "t", "tt", "rbg", "gbg"]
SEEDS = [(None, 3), (5, None), (5, 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> Path:
    root = tmp_path_factory.mktemp("seeds")
    save(root / "m", {"emb": np.arange(24, dtype=np.float32).reshape(6, 4)})
    write_vocabulary(root / "old.txt", "abcdef")
    write_vocabulary(root / "new.txt", "fxbayde")
    return root


def initialized_tables(
    function: Callable[..., Any], folder: Path, order: str, seeds: tuple[int | None, int | None],
    initializer: str, *, resource: bool = True, partitions: int = 1, oov: int = 0,
) -> list[np.ndarray]:  # fmt: skip
    """Returns the table after each run of its initializers."""
    with tf.Graph().as_default(), tf1.Session() as session:
        if seeds[0] is not None:
            tf1.set_random_seed(seeds[0])
        table = tf1.get_variable(
            "emb", [7 + oov, 4], initializer=tf1.zeros_initializer(), use_resource=resource,
            partitioner=tf1.fixed_size_partitioner(partitions),
        )  # fmt: skip
        info = tf1.train.VocabInfo(
            str(folder / "new.txt"), 7, oov, str(folder / "old.txt"),
            backup_initializer=INITIALIZERS[initializer](seeds[1]),
        )  # fmt: skip
        function(str(folder / "m"), "emb", {"emb": info})
        initial = [partition.initial_value for partition in table]
        initializers = [partition.initializer for partition in table]
        everything = tf1.global_variables_initializer()
        report = tf1.report_uninitialized_variables()
        report.mark_used()  # prevents a warning of TensorFlow in a later test
        fetches = {
            "b": initial, "i": initializers, "t": [initial, initializers], "g": everything,
            "r": report,
        }  # fmt: skip
        tables = []
        for step in order:
            session.run(fetches[step])
            if step in "itg":
                tables.append(session.run(tf.convert_to_tensor(table)))
    return tables


@pytest.mark.parametrize("initializer", INITIALIZERS)
@pytest.mark.parametrize("seeds", SEEDS, ids=["op", "graph", "both"])
def test_seeded_values_equal_tensorflow(
    folder: Path, initializer: str, seeds: Any, backend_name: str
) -> None:
    for number, order in enumerate(ORDERS if backend_name == "auto" else ORDERS[1:3]):
        options = {
            "resource": number % 2 == 0,
            "partitions": 1 + 2 * (number % 3 == 0),
            "oov": number % 3,
        }
        original = initialized_tables(
            tf1.train.warm_start, folder, order, seeds, initializer, **options
        )
        result = initialized_tables(tb.warm_start, folder, order, seeds, initializer, **options)
        for actual, expected in zip(result, original, strict=True):
            assert same_bits(actual, expected), (order, options)


@pytest.mark.parametrize("seed", [None, 3])
def test_copy_of_initial_value_has_the_same_numbers(folder: Path, seed: int | None) -> None:
    """For example, a moving average that is initialized in the same run."""
    with tf.Graph().as_default(), tf1.Session() as session:
        table = tf1.get_variable("emb", [9, 4], initializer=tf1.zeros_initializer())
        info = tb.VocabInfo(
            str(folder / "new.txt"), 7, 2, str(folder / "old.txt"),
            backup_initializer=tf1.random_normal_initializer(seed=seed),
        )  # fmt: skip
        tb.warm_start(folder / "m", "emb", {"emb": info})
        copy = tf1.get_variable("copy", initializer=table.initial_value)
        session.run(tf1.global_variables_initializer())
        assert same_bits(*session.run([table, copy]))


def test_unseeded_initializer_is_called_once(folder: Path) -> None:
    def random_ops(initializer: Any) -> int:
        with tf.Graph().as_default() as graph:
            tf1.get_variable("emb", [7, 4], initializer=tf1.zeros_initializer())
            info = tb.VocabInfo(
                str(folder / "new.txt"), 7, 0, str(folder / "old.txt"),
                backup_initializer=initializer,
            )  # fmt: skip
            tb.warm_start(folder / "m", "emb", {"emb": info})
            return sum(op.type.startswith("Random") for op in graph.get_operations())

    assert random_ops(tf1.random_normal_initializer()) == 1
    assert random_ops(tf1.random_normal_initializer(seed=1)) == 2
    assert random_ops(lambda shape: tf.random.normal(shape)) == 1


def test_eager_seeded_values_equal_tensorflow(folder: Path) -> None:
    tables = []
    for function in (tf1.train.warm_start, tb.warm_start):
        tf.random.set_seed(7)
        table = tf.Variable(tf.zeros([9, 4]), name="emb")
        info = tf1.train.VocabInfo(
            str(folder / "new.txt"), 7, 2, str(folder / "old.txt"),
            backup_initializer=tf1.random_normal_initializer(seed=3),
        )  # fmt: skip
        function(str(folder / "m"), [table], {"emb": info})
        tables.append(table.numpy())
    assert same_bits(*tables)


def _numpy_draw() -> Any:
    generator = np.random.default_rng(3)

    def draw(shape: Any) -> Any:
        values = tf.numpy_function(
            lambda size: generator.standard_normal(size).astype(np.float32), [shape], tf.float32
        )
        return tf.ensure_shape(values, [None, 1])

    return draw


# Initializers with random state that a second op would share or not have.
STATEFUL: dict[str, Callable[[], Any]] = {
    "a loop": lambda: (
        lambda shape: tf.while_loop(
            lambda i, _: i < 3,
            lambda i, x: (i + 1, x + tf.random.normal(tf.shape(x), seed=4)),
            [0, tf.zeros(shape)],
            parallel_iterations=1,  # keeps the order of the sum
        )[1]
    ),
    "a branch": lambda: (
        lambda shape: tf.cond(
            tf1.placeholder_with_default(True, []),
            lambda: tf.random.normal(shape, seed=4),
            lambda: tf.zeros(shape),
        )
    ),
    "a function": lambda: lambda shape: tf.function(lambda: tf.random.normal(shape, seed=4))(),
    "Python": _numpy_draw,
}


@pytest.mark.parametrize("control_flow", ["v1", "v2"])
@pytest.mark.parametrize("kind", STATEFUL)
def test_stateful_initializer_equals_tensorflow(folder: Path, kind: str, control_flow: str) -> None:
    tables = []
    (tf1.enable_control_flow_v2 if control_flow == "v2" else tf1.disable_control_flow_v2)()
    try:
        for function in (tf1.train.warm_start, tb.warm_start):
            for evaluate_first in (False, True):
                with tf.Graph().as_default(), tf1.Session() as session:
                    tf1.set_random_seed(11)
                    table = tf1.get_variable("emb", [7, 4], initializer=tf1.zeros_initializer())
                    info = tf1.train.VocabInfo(
                        str(folder / "new.txt"), 7, 0, str(folder / "old.txt"),
                        backup_initializer=STATEFUL[kind](),
                    )  # fmt: skip
                    function(str(folder / "m"), "emb", {"emb": info})
                    if evaluate_first:
                        session.run(table.initial_value)
                    session.run(table.initializer)
                    tables.append(session.run(tf.convert_to_tensor(table)))
    finally:
        tf1.enable_control_flow_v2()
    assert all(same_bits(tables[0], each) for each in tables)
