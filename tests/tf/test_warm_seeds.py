# SPDX-License-Identifier: Apache-2.0
"""Seeded backup initializers give TensorFlow's numbers, whatever was evaluated before."""

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
    "of one's own": lambda seed: lambda shape: tf.random.uniform(shape, seed=seed) * 2,
}
# b: the initial values; i: the initializers; t: both together; g: all of the graph's initializers;
# r: what is not initialized yet.
ORDERS = ["i", "bi", "bbi", "ib", "ii", "bibi", "t", "tt", "rbg", "gbg"]
SEEDS = [(None, 3), (5, None), (5, 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> Path:
    where = tmp_path_factory.mktemp("seeds")
    save(where / "m", {"emb": np.arange(24, dtype=np.float32).reshape(6, 4)})
    write_vocabulary(where / "old.txt", "abcdef")
    write_vocabulary(where / "new.txt", "fxbayde")
    return where


def drawn(
    function: Callable[..., Any], folder: Path, order: str, seeds: tuple[int | None, int | None],
    initializer: str, *, resource: bool = True, parts: int = 1, oov: int = 0,
) -> list[np.ndarray]:  # fmt: skip
    """The table after each run of its initializers."""
    with tf.Graph().as_default(), tf1.Session() as session:
        if seeds[0] is not None:
            tf1.set_random_seed(seeds[0])
        table = tf1.get_variable(
            "emb", [7 + oov, 4], initializer=tf1.zeros_initializer(), use_resource=resource,
            partitioner=tf1.fixed_size_partitioner(parts),
        )  # fmt: skip
        info = tf1.train.VocabInfo(
            str(folder / "new.txt"), 7, oov, str(folder / "old.txt"),
            backup_initializer=INITIALIZERS[initializer](seeds[1]),
        )  # fmt: skip
        function(str(folder / "m"), "emb", {"emb": info})
        initial = [partition.initial_value for partition in table]
        initializers = [partition.initializer for partition in table]
        everything = tf1.global_variables_initializer()
        lacking = tf1.report_uninitialized_variables()
        lacking.mark_used()  # or TensorFlow logs a warning in a later test
        fetches = {
            "b": initial, "i": initializers, "t": [initial, initializers], "g": everything,
            "r": lacking,
        }  # fmt: skip
        found = []
        for step in order:
            session.run(fetches[step])
            if step in "itg":
                found.append(session.run(tf.convert_to_tensor(table)))
    return found


@pytest.mark.parametrize("initializer", INITIALIZERS)
@pytest.mark.parametrize("seeds", SEEDS, ids=["op", "graph", "both"])
def test_the_same_numbers_as_tensorflow(
    folder: Path, initializer: str, seeds: Any, backend_name: str
) -> None:
    for number, order in enumerate(ORDERS if backend_name == "op" else ORDERS[1:3]):
        options = {
            "resource": number % 2 == 0,
            "parts": 1 + 2 * (number % 3 == 0),
            "oov": number % 3,
        }
        original = drawn(tf1.train.warm_start, folder, order, seeds, initializer, **options)
        ours = drawn(tb.warm_start, folder, order, seeds, initializer, **options)
        for our, their in zip(ours, original, strict=True):
            assert same_bits(our, their), (order, options)


@pytest.mark.parametrize("seed", [None, 3])
def test_what_starts_from_the_initial_value_has_the_same_numbers(
    folder: Path, seed: int | None
) -> None:
    """A moving average, for instance, in one run with its variable."""
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


def test_unseeded_initializers_get_no_second_op(folder: Path) -> None:
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


def test_an_eager_warm_start_draws_as_tensorflow_does(folder: Path) -> None:
    found = []
    for function in (tf1.train.warm_start, tb.warm_start):
        tf.random.set_seed(7)
        table = tf.Variable(tf.zeros([9, 4]), name="emb")
        info = tf1.train.VocabInfo(
            str(folder / "new.txt"), 7, 2, str(folder / "old.txt"),
            backup_initializer=tf1.random_normal_initializer(seed=3),
        )  # fmt: skip
        function(str(folder / "m"), [table], {"emb": info})
        found.append(table.numpy())
    assert same_bits(*found)


def _numpy_draw() -> Any:
    generator = np.random.default_rng(3)

    def draw(shape: Any) -> Any:
        drawn = tf.numpy_function(
            lambda size: generator.standard_normal(size).astype(np.float32), [shape], tf.float32
        )
        return tf.ensure_shape(drawn, [None, 1])

    return draw


# Initializers whose numbers come from a state that a second op would share or lack.
WITH_STATE: dict[str, Callable[[], Any]] = {
    "a loop": lambda: (
        lambda shape: tf.while_loop(
            lambda i, _: i < 3,
            lambda i, x: (i + 1, x + tf.random.normal(tf.shape(x), seed=4)),
            [0, tf.zeros(shape)],
            parallel_iterations=1,  # or the order of the sum varies
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
@pytest.mark.parametrize("kind", WITH_STATE)
def test_numbers_that_come_from_a_state(folder: Path, kind: str, control_flow: str) -> None:
    found = []
    (tf1.enable_control_flow_v2 if control_flow == "v2" else tf1.disable_control_flow_v2)()
    try:
        for function in (tf1.train.warm_start, tb.warm_start):
            for evaluate_first in (False, True):
                with tf.Graph().as_default(), tf1.Session() as session:
                    tf1.set_random_seed(11)
                    table = tf1.get_variable("emb", [7, 4], initializer=tf1.zeros_initializer())
                    info = tf1.train.VocabInfo(
                        str(folder / "new.txt"), 7, 0, str(folder / "old.txt"),
                        backup_initializer=WITH_STATE[kind](),
                    )  # fmt: skip
                    function(str(folder / "m"), "emb", {"emb": info})
                    if evaluate_first:
                        session.run(table.initial_value)
                    session.run(table.initializer)
                    found.append(session.run(tf.convert_to_tensor(table)))
    finally:
        tf1.enable_control_flow_v2()
    assert all(same_bits(found[0], each) for each in found)
