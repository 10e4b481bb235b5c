# SPDX-License-Identifier: Apache-2.0
"""A warm start selects and renames variables as TensorFlow does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm_starts import outcome, require_same, require_same_error, write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1
pytestmark = pytest.mark.usefixtures("backend_name")

ARRAYS = {
    "v1": np.arange(3, dtype=np.float32),
    "v1_extra": np.arange(3, 6, dtype=np.float32),
    "v2": np.arange(6, 12, dtype=np.float32).reshape(3, 2),
    "table": np.arange(20, dtype=np.float32).reshape(10, 2),
    "step": np.int64(77),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> Path:
    root = tmp_path_factory.mktemp("selection")
    save(root / "model-0", ARRAYS)
    (root / "checkpoint").write_text('model_checkpoint_path: "model-0"\n')
    (root / "empty").mkdir()
    write_vocabulary(root / "old.txt", "abcdefghij")
    write_vocabulary(root / "new.txt", "jkab")
    return root


@pytest.fixture(params=["ref", "resource"])
def build(request: pytest.FixtureRequest) -> Callable[[], list[Any]]:
    """Returns a function that creates v1, v1_extra, v2, a partitioned table and a step."""

    def create() -> list[Any]:
        with tf1.variable_scope(
            "", use_resource=request.param == "resource", initializer=tf1.ones_initializer()
        ):
            return [
                tf1.get_variable("v1", [3]),
                tf1.get_variable("v1_extra", [3]),
                tf1.get_variable("v2", [3, 2]),
                tf1.get_variable("table", [10, 2], partitioner=tf1.fixed_size_partitioner(3)),
                tf1.get_variable("step", [], tf.int64, trainable=False),
            ]

    return create


SAME: dict[str, Callable[[Any], dict[str, Any]]] = {
    "all trainable variables": lambda vs: {},
    "start of a name": lambda vs: {"vars_to_warm_start": "v1"},
    "matches the output number": lambda vs: {"vars_to_warm_start": "v2[^/]"},
    "end before the output number": lambda vs: {"vars_to_warm_start": "v1$"},
    "not in the middle": lambda vs: {"vars_to_warm_start": "1"},
    "alternatives": lambda vs: {"vars_to_warm_start": "(v2|table)"},
    "None": lambda vs: {"vars_to_warm_start": None},
    "the empty string": lambda vs: {"vars_to_warm_start": ""},
    "list of names": lambda vs: {"vars_to_warm_start": ["v2", "step"]},
    "list of all": lambda vs: {"vars_to_warm_start": [".*"]},
    "empty list": lambda vs: {"vars_to_warm_start": []},
    "list of variables": lambda vs: {"vars_to_warm_start": [vs[4], vs[0]]},
    "list of partitions": lambda vs: {"vars_to_warm_start": list(vs[3])},
    "some partitions": lambda vs: {"vars_to_warm_start": list(vs[3])[1:]},
    "partitions by names": lambda vs: {"vars_to_warm_start": ["table/part_[12]"]},
    "a table selected twice": lambda vs: {"vars_to_warm_start": ["table", "table/part_0"]},
    "previous name": lambda vs: {
        "vars_to_warm_start": ["v1:"],
        "var_name_to_prev_var_name": {"v1": "v1_extra"},
    },
    "previous name of a table": lambda vs: {"var_name_to_prev_var_name": {"table": "table"}},
    "two variables from one tensor": lambda vs: {
        "vars_to_warm_start": "v1",
        "var_name_to_prev_var_name": {"v1_extra": "v1"},
    },
    "previous name of an unselected variable": lambda vs: {
        "vars_to_warm_start": None,
        "var_name_to_prev_var_name": {"v1": "elsewhere"},
    },
    "no settings": lambda vs: {"var_name_to_vocab_info": {}, "var_name_to_prev_var_name": {}},
}


@pytest.mark.parametrize("name", SAME)
def test_selection_equals_tensorflow(
    folder: Path, build: Callable[[], list[Any]], name: str
) -> None:
    require_same(folder, build, SAME[name])


def test_selected_variables_get_stored_values(folder: Path, build: Callable[[], list[Any]]) -> None:
    values = require_same(folder / "model-0", build, lambda vs: {"vars_to_warm_start": [".*"]})
    for value, expected in zip(values, ARRAYS.values(), strict=True):
        np.testing.assert_array_equal(value, expected)


ERRORS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "tuple": lambda vs: {"vars_to_warm_start": ("v1",)},
    "bytes": lambda vs: {"vars_to_warm_start": b"v1"},
    "mixed list": lambda vs: {"vars_to_warm_start": ["v1", vs[0]]},
    "nested list": lambda vs: {"vars_to_warm_start": [[vs[0]]]},
    "bad expression": lambda vs: {"vars_to_warm_start": "("},
    "variable twice": lambda vs: {"vars_to_warm_start": [vs[0], vs[0]]},
    "overlapping expressions": lambda vs: {"vars_to_warm_start": ["v1:", "v1"]},
    "one partition alone": lambda vs: {"vars_to_warm_start": [list(vs[3])[1]]},
    "not in the checkpoint": lambda vs: {"var_name_to_prev_var_name": {"v1": "nowhere"}},
    "another shape": lambda vs: {"var_name_to_prev_var_name": {"v1": "v2"}},
    "unused previous name": lambda vs: {"var_name_to_prev_var_name": {"v3": "v1"}},
    "previous name with :0": lambda vs: {"var_name_to_prev_var_name": {"v1:0": "v1_extra"}},
    "empty previous name": lambda vs: {"var_name_to_prev_var_name": {"v1": ""}},
    "unused vocabulary": lambda vs: {"var_name_to_vocab_info": {"v3": tb.VocabInfo("", 1, 0, "")}},
    "vocabulary of a partition": lambda vs: {
        "var_name_to_vocab_info": {"table/part_0": tb.VocabInfo("n", 1, 0, "o")}
    },
}


@pytest.mark.parametrize("name", ERRORS)
def test_invalid_selection_raises_tensorflows_error(
    folder: Path, build: Callable[[], list[Any]], name: str
) -> None:
    require_same_error(folder, build, ERRORS[name])


def test_unused_setting_changes_no_variable(folder: Path, build: Callable[[], list[Any]]) -> None:
    with tf.Graph().as_default():
        variables = build()
        before = [v.initializer for v in variables[:3]]
        with pytest.raises(ValueError, match="were not used"):
            tb.warm_start(folder, var_name_to_prev_var_name={"v3": "v1"})
        assert all(v.initializer is op for v, op in zip(variables, before, strict=False))


def test_partitioned_variable_can_be_selected(folder: Path, build: Callable[[], list[Any]]) -> None:
    result = outcome(tb.warm_start, folder, build, lambda vs: {"vars_to_warm_start": [vs[3]]})
    assert result.error is None
    np.testing.assert_array_equal(result.values[3], ARRAYS["table"])


@pytest.mark.parametrize("path", ["nowhere", "empty"])
def test_path_without_checkpoint_raises(
    folder: Path, build: Callable[[], list[Any]], path: str
) -> None:
    result = outcome(tb.warm_start, folder / path, build, lambda vs: {})
    assert result.stage == "call"
    assert isinstance(result.error, tb.NotFoundError)
    if path == "nowhere":
        require_same_error(folder / path, build, lambda vs: {})


def test_empty_selection_needs_no_checkpoint(folder: Path, build: Callable[[], list[Any]]) -> None:
    require_same(folder / "nowhere", build, lambda vs: {"vars_to_warm_start": []})


@pytest.fixture(scope="module", params=["graph", "eager"])
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Writes an object-based checkpoint with v1 and a table."""
    prefix = str(tmp_path_factory.mktemp("objects") / "model")
    values = {"v1": ARRAYS["v1"], "table": ARRAYS["table"]}
    if request.param == "eager":
        variables = {name: tf.Variable(value, name=name) for name, value in values.items()}
        return str(tf.train.Checkpoint(**variables).save(prefix))
    with tf.Graph().as_default(), tf1.Session() as session:
        variables = {
            name: tf1.get_variable(name, initializer=value) for name, value in values.items()
        }
        session.run(tf1.global_variables_initializer())
        return str(tf.train.Checkpoint(**variables).save(prefix))


def object_model() -> list[Any]:
    ones = tf1.ones_initializer()
    return [
        tf1.get_variable("v1", [3], initializer=ones),
        tf1.get_variable(
            "table", [10, 2], initializer=ones, partitioner=tf1.fixed_size_partitioner(2)
        ),
    ]


def test_object_based_checkpoint_is_read_by_full_names(objects: str, folder: Path) -> None:
    require_same(objects, object_model, lambda vs: {})
    info = tb.VocabInfo(str(folder / "new.txt"), 4, 6, str(folder / "old.txt"))
    require_same(objects, object_model, lambda vs: {"var_name_to_vocab_info": {"table": info}})


def test_object_based_checkpoint_without_variable_raises(objects: str) -> None:
    def model() -> list[Any]:
        return [*object_model(), tf1.get_variable("v3", [2])]

    error = require_same_error(objects, model, lambda vs: {})
    assert "'v3'" in str(error)
    require_same_error(objects, model, lambda vs: {"vars_to_warm_start": None})
    require_same_error(objects, model, lambda vs: {"var_name_to_prev_var_name": {"v1": "v1"}})


def test_eager_variables_are_assigned_immediately(folder: Path) -> None:
    assert tf.executing_eagerly()
    tf.compat.v1.reset_default_graph()  # other tests add to its collections, which are used too
    v1, v2 = tf.Variable(tf.ones([3]), name="v1"), tf.Variable(tf.ones([3, 2]), name="v2")
    tb.warm_start(folder)
    np.testing.assert_array_equal(v1, np.ones(3))
    tb.warm_start(folder, [v1, v2])
    np.testing.assert_array_equal(v1, ARRAYS["v1"])
    np.testing.assert_array_equal(v2, ARRAYS["v2"])
