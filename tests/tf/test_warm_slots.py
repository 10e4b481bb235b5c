# SPDX-License-Identifier: Apache-2.0
"""Optimizer slots of a table with a changed vocabulary.

TensorFlow rejects them if the number of rows changed. If it did not, TensorFlow loads the slot rows
in the old order, so that they belong to other tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm_starts import outcome, write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1
pytestmark = pytest.mark.usefixtures("backend_name")

OLD = "abcdef"
NEW = "fxbayde"
ROWS = np.array([OLD.find(token) for token in NEW])
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adagrad": lambda: tf1.train.AdagradOptimizer(0.5, initial_accumulator_value=0.25),
    "adam": lambda: tf1.train.AdamOptimizer(0.5),
    "momentum": lambda: tf1.train.MomentumOptimizer(0.5, 0.9),
}


def table(rows: int, partitions: int, resource: bool) -> Any:
    return tf1.get_variable(
        "emb",
        (rows, 2),
        use_resource=resource,
        initializer=tf1.random_normal_initializer(seed=1),
        partitioner=tf1.fixed_size_partitioner(partitions),
    )


def training_step(optimizer: Any, variable: Any) -> Any:
    """Returns an op that changes every row by a different amount."""
    whole = tf.convert_to_tensor(variable)
    weights = tf.reshape(tf.range(1.0, 1.0 + whole.shape.num_elements()), whole.shape)
    return optimizer.minimize(tf.reduce_sum(whole * weights))


@pytest.fixture(scope="module", params=OPTIMIZERS)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str, dict[str, np.ndarray]]:
    """Saves two partitions after two steps; returns (optimizer, prefix, stored arrays)."""
    folder = tmp_path_factory.mktemp("slots")
    with tf.Graph().as_default(), tf1.Session() as session:
        step = training_step(OPTIMIZERS[request.param](), table(6, 2, True))
        session.run(tf1.global_variables_initializer())
        for _ in range(2):
            session.run(step)
        prefix = tf1.train.Saver().save(session, str(folder / "model"), write_meta_graph=False)
    write_vocabulary(folder / "old.txt", OLD)
    write_vocabulary(folder / "new.txt", NEW)
    with tb.open(prefix) as stored:
        return request.param, prefix, {name: stored[name].read() for name in stored}


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("partitions", [1, 3])
def test_slots_are_remapped_with_the_table(
    checkpoint: tuple[str, str, dict[str, np.ndarray]], partitions: int, resource: bool
) -> None:
    name, prefix, stored = checkpoint
    folder = Path(prefix).parent
    # The last row is an out-of-vocabulary bucket.
    vocabulary = tb.VocabInfo(str(folder / "new.txt"), 7, 1, str(folder / "old.txt"))
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        variable = table(8, partitions, resource)
        optimizer = OPTIMIZERS[name]()
        training_step(optimizer, variable)
        initial = {
            slot: [optimizer.get_slot(partition, slot).initial_value for partition in variable]
            for slot in optimizer.get_slot_names()
        }
        initial_values = session.run(initial)
        tb.warm_start(prefix, [".*"], {"emb": vocabulary})
        assert not graph.get_collection("none")
        session.run(tf1.global_variables_initializer())
        values = {
            slot: np.concatenate(session.run([optimizer.get_slot(p, slot) for p in variable]))
            for slot in initial
        }
        rows = session.run(tf.convert_to_tensor(variable))
    assert values
    np.testing.assert_array_equal(rows[:7][ROWS >= 0], stored["emb"][ROWS[ROWS >= 0]])
    for slot, value in values.items():
        (old,) = [array for key, array in stored.items() if _is_slot(key, slot, initial)]
        expected = np.concatenate(initial_values[slot])
        expected[:7][ROWS >= 0] = old[ROWS[ROWS >= 0]]
        np.testing.assert_array_equal(value, expected)
        assert name != "adagrad" or value[1, 0] == 0.25


def _is_slot(key: str, slot: str, slots: Any) -> bool:
    """Adam's slots are named Adam (m) and Adam_1 (v)."""
    adam = {"m": "emb/Adam", "v": "emb/Adam_1"}
    named = {"accumulator": "emb/Adagrad", "momentum": "emb/Momentum"}
    return key == {**adam, **named}[slot] and slot in slots


def test_slots_of_reordered_rows_are_remapped(
    checkpoint: tuple[str, str, dict[str, np.ndarray]],
) -> None:
    name, prefix, stored = checkpoint
    folder = Path(prefix).parent
    reversed_vocab = write_vocabulary(folder / "reversed_vocab.txt", OLD[::-1])
    vocabulary = tb.VocabInfo(reversed_vocab, 6, 0, str(folder / "old.txt"))

    def build() -> list[Any]:
        variable = table(6, 1, True)
        optimizer = OPTIMIZERS[name]()
        training_step(optimizer, variable)
        slot = optimizer.get_slot_names()[0]
        return [variable, optimizer.get_slot(next(iter(variable)), slot)]

    result = outcome(
        tb.warm_start,
        prefix,
        build,
        lambda _: {"vars_to_warm_start": [".*"], "var_name_to_vocab_info": {"emb": vocabulary}},
    )
    assert result.error is None
    key = {"adagrad": "emb/Adagrad", "adam": "emb/Adam", "momentum": "emb/Momentum"}[name]
    np.testing.assert_array_equal(result.values[0], stored["emb"][::-1])
    np.testing.assert_array_equal(result.values[1], stored[key][::-1])


def test_unselected_slots_keep_their_initial_values(
    checkpoint: tuple[str, str, dict[str, np.ndarray]],
) -> None:
    name, prefix, _ = checkpoint
    folder = Path(prefix).parent
    vocabulary = tb.VocabInfo(str(folder / "new.txt"), 7, 0, str(folder / "old.txt"))
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = table(7, 2, True)
        optimizer = OPTIMIZERS[name]()
        training_step(optimizer, variable)
        slot = optimizer.get_slot(next(iter(variable)), optimizer.get_slot_names()[0])
        before = slot.initializer
        tb.warm_start(prefix, var_name_to_vocab_info={"emb": vocabulary})
        assert slot.initializer is before
        session.run(tf1.global_variables_initializer())
        assert len(np.unique(session.run(slot))) == 1
