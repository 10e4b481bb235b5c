# SPDX-License-Identifier: Apache-2.0
"""Warm starts of random tables, vocabularies and partitions equal a cell-by-cell oracle."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warm_starts import write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1

TOKENS = [f"w{number}" for number in range(14)]


def oracle(case: dict[str, Any], fill: np.ndarray) -> np.ndarray:
    """Returns the expected table; a cell that is not loaded gets the fill value at its position."""
    result = fill.copy()
    known = case["old"] if case["old_size"] < 0 else case["old"][: case["old_size"]]
    for cell in np.ndindex(*result.shape):
        entry = cell[case["axis"]]
        if entry < case["new_size"] and case["new"][entry] in known:
            source = list(cell)
            source[case["axis"]] = known.index(case["new"][entry])
            result[cell] = case["table"][tuple(source)]
    return result


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    old = draw(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=9, unique=True))
    new = draw(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=12))
    axis = draw(st.sampled_from([0, 1]))
    rank = draw(st.integers(axis + 1, 3))
    others = draw(st.lists(st.integers(1, 4), min_size=rank - 1, max_size=rank - 1))
    stored = [*others[:axis], len(old), *others[axis:]]
    new_size = draw(st.integers(1, len(new)))
    oov = draw(st.integers(0, 5))
    shape = [*others[:axis], new_size + oov, *others[axis:]]
    cut = draw(st.integers(0, rank - 1))
    return {
        "old": old,
        "new": new,
        "axis": axis,
        "new_size": new_size,
        "old_size": draw(st.sampled_from([-1, len(old), max(1, len(old) // 2)])),
        "oov": oov,
        "shape": shape,
        "table": np.arange(np.prod(stored), dtype=np.float32).reshape(stored) + 1,
        "cut": cut,
        "partitions": draw(st.integers(1, shape[cut])),
        "stored_slices": draw(st.integers(1, stored[0])),
        "backup": draw(st.sampled_from(["none", "constant", "slot"])),
        "resource": draw(st.booleans()),
    }


def save(prefix: str, case: dict[str, Any]) -> None:
    """Saves the table and its slot in slices along the first axis."""
    table = case["table"]
    with tf.Graph().as_default(), tf1.Session() as session:
        for name, value in (("emb", table), ("emb/Slot", -table)):
            tf1.get_variable(
                name,
                table.shape,
                partitioner=tf1.fixed_size_partitioner(case["stored_slices"]),
                initializer=_partition_initializer(value),
            )
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(session, prefix, write_meta_graph=False, write_state=False)


def _partition_initializer(value: np.ndarray) -> Any:
    """Returns an initializer that returns the partition's box of a value."""

    def initializer(shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        offset = partition_info.var_offset if partition_info else [0] * len(shape)
        box = tuple(slice(a, a + n) for a, n in zip(offset, shape, strict=True))
        return tf.constant(value[box], dtype)

    return initializer


# The backend is the same for all examples.
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=cases())
def test_random_table_equals_the_oracle(backend_name: str, case: dict[str, Any]) -> None:
    fill = np.full(case["shape"], 0 if case["backup"] == "none" else 0.5, np.float32)
    slot_fill = 0.25 + np.arange(fill.size, dtype=np.float32).reshape(fill.shape)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        save(str(root / "model"), case)
        vocabulary = tb.VocabInfo(
            write_vocabulary(root / "new.txt", case["new"]),
            case["new_size"],
            case["oov"],
            write_vocabulary(root / "old.txt", case["old"]),
            case["old_size"],
            None if case["backup"] == "none" else tf1.constant_initializer(0.5),
            case["axis"],
        )
        with tf.Graph().as_default(), tf1.Session() as session:
            partitioner = tf1.fixed_size_partitioner(case["partitions"], case["cut"])
            variables = {
                name: tf1.get_variable(
                    name,
                    case["shape"],
                    use_resource=case["resource"],
                    partitioner=partitioner,
                    trainable=name == "emb",
                    initializer=_partition_initializer(initial),
                )
                for name, initial in (("emb", fill), ("emb/Slot", slot_fill))
            }
            selected = [".*"] if case["backup"] == "slot" else None
            tb.warm_start(str(root / "model"), selected, {"emb": vocabulary})
            session.run(tf1.global_variables_initializer())
            values = session.run({name: tf.convert_to_tensor(v) for name, v in variables.items()})
    np.testing.assert_array_equal(values["emb"], oracle(case, fill))
    if selected:
        case = {**case, "table": -case["table"]}
        np.testing.assert_array_equal(values["emb/Slot"], oracle(case, slot_fill))
    else:
        np.testing.assert_array_equal(values["emb/Slot"], slot_fill)
