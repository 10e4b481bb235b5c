# SPDX-License-Identifier: Apache-2.0
"""Every form of the assignment map and of the path has the same result as in TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from side_by_side import both, logged, require_same

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1
pytestmark = pytest.mark.usefixtures("backend_name")

ARRAYS = {
    "a/v": np.arange(6, dtype=np.float32),
    "a/b/v": np.arange(6, 12, dtype=np.float32).reshape(2, 3),
    "a/b/w": np.arange(12, 18, dtype=np.int64).reshape(2, 3),
    "table": np.arange(40, dtype=np.float32).reshape(10, 4),
    "scalar": np.float32(0.5),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> Path:
    root = tmp_path_factory.mktemp("maps")
    save(root / "model-0", ARRAYS)
    (root / "checkpoint").write_text('model_checkpoint_path: "model-0"\n')
    return root


@pytest.fixture(params=["ref", "resource"])
def build(request: pytest.FixtureRequest) -> Callable[[], list[Any]]:
    """Returns a function that creates new/v, new/b/v, new/b/w, new2/v and a partitioned table."""

    def create() -> list[Any]:
        with tf1.variable_scope("", use_resource=request.param == "resource"):
            with tf1.variable_scope("new"):
                variables = [tf1.get_variable("v", [6])]
                with tf1.variable_scope("b"):
                    variables.append(tf1.get_variable("v", [2, 3]))
                    variables.append(tf1.get_variable("w", [2, 3], tf.int64))
            with tf1.variable_scope("new2"):
                variables.append(tf1.get_variable("v", [6]))
            split = tf1.fixed_size_partitioner(3)
            table = tf1.get_variable("table", [10, 4], partitioner=split)
        seeds = [tf.zeros(v.shape, v.dtype.base_dtype) for v in variables]
        for variable, zeros in zip(variables, seeds, strict=True):
            variable._initializer_op = tf1.assign(variable, zeros).op
        for partition in table:
            partition._initializer_op = tf1.assign(partition, tf.zeros(partition.shape)).op
        return [*variables, list(table)]

    return create


SAME = {
    "name": lambda vs: {"a/v": "new/v"},
    "object": lambda vs: {"a/v": vs[0]},
    "several": lambda vs: {"a/v": "new2/v", "a/b/w": vs[2], "table": "table"},
    "scope": lambda vs: {"a/": "new/"},
    "inner scope": lambda vs: {"a/b/": "new/b/"},
    "inner slash": lambda vs: {"a/": "new/b"},
    "unknown inner name": lambda vs: {"a/": "new/zzz"},
    "list of pairs": lambda vs: [("a/v", "new/v"), ("a/v", "new2/v")],
    "generator": lambda vs: ((k, v) for k, v in [("a/v", vs[3]), ("a/b/v", "new/b/v")]),
    "partitions by list": lambda vs: {"table": vs[4]},
    "some partitions": lambda vs: {"table": vs[4][1:]},
    "one partition": lambda vs: {"table": vs[4][2:]},
    "empty list": lambda vs: {"table": []},
    "empty map": lambda vs: {},
    "overlap": lambda vs: {"a/": "new/", "a/b/v": "new/b/v"},
    "twice": lambda vs: [("a/v", "new/v"), ("a/v", vs[0])],
    "scope without slash": lambda vs: {"a/": "new"},
    "key without slash": lambda vs: {"a": "new/"},
    "to a variable's scope": lambda vs: {"a/b/v": "new/b"},
    "root to root": lambda vs: {"/": "/"},
    "to empty name": lambda vs: {"a/": ""},
    "root to empty name": lambda vs: {"/": ""},
    "double slash": lambda vs: {"a//": "new/"},
    "missing": lambda vs: {"a/x": "new/v"},
    "missing in list": lambda vs: {"a/x": []},
    "missing in scope": lambda vs: {"a/b/": "new/"},
    "unknown variable": lambda vs: {"a/v": "new/w"},
    "with :0": lambda vs: {"a/v:0": "new/v"},
    "value with :0": lambda vs: {"a/v": "new/v:0"},
    "bytes key": lambda vs: {b"a/v": vs[0]},
    "mixed keys": lambda vs: {b"a/v": vs[0], "a/v": vs[1]},
    "partition name as key": lambda vs: {"table/part_0": vs[4]},
    "one partition, not in a list": lambda vs: {"table": vs[4][0]},
    "one partition by name": lambda vs: {"table": "table/part_1"},
    "none": lambda vs: {"a/v": None},
    "tensor": lambda vs: {"a/v": tf.zeros([6])},
}


@pytest.mark.parametrize("name", SAME)
def test_map_has_tensorflows_result(
    name: str, folder: Path, build: Callable[[], list[Any]]
) -> None:
    result, original = both(str(folder / "model-0"), build, SAME[name])
    require_same(result, original)


@pytest.mark.parametrize(
    "mapping", [{"a/": "nwe/"}, {"a/": "new//"}, {"a/": "/new/"}], ids=lambda m: str(m["a/"])
)
def test_scope_without_variables_raises(
    mapping: dict[str, str], folder: Path, build: Callable[[], list[Any]]
) -> None:
    result, original = both(str(folder / "model-0"), build, lambda vs: mapping)
    assert original.error is None
    assert result.stage == "call"
    assert isinstance(result.error, ValueError)


def test_unknown_inner_name_is_a_warning(folder: Path, build: Callable[[], list[Any]]) -> None:
    with tf.Graph().as_default(), logged() as lines:
        build()
        tb.init_from_checkpoint(folder, {"a/": "new/zzz"})
    assert any(line.startswith("WARNING") and "'new/zzz'" in line for line in lines)


EXTENSIONS = {
    "partitioned variable": lambda vs: {"table": tf1.get_variable_scope() and _partitioned(vs[4])},
    "tuple": lambda vs: {"table": tuple(vs[4])},
    "list of one variable": lambda vs: {"a/v": [vs[0]]},
}


def _partitioned(partitions: list[Any]) -> Any:
    from tensorflow.python.ops import variables

    return variables.PartitionedVariable(
        "table", [10, 4], tf.float32, partitions, partitions=[3, 1]
    )


@pytest.mark.parametrize("name", EXTENSIONS)
def test_map_rejected_by_tensorflow_is_accepted(
    name: str, folder: Path, build: Callable[[], list[Any]]
) -> None:
    result, original = both(str(folder / "model-0"), build, EXTENSIONS[name])
    assert original.error is not None
    assert result.error is None
    if name == "list of one variable":
        assert np.array_equal(result.values[0], ARRAYS["a/v"])
    else:
        assert np.array_equal(np.concatenate(result.values[4:]), ARRAYS["table"])


PATHS: dict[str, Callable[[Path], Any]] = {
    "directory": str,
    "directory with slash": lambda folder: f"{folder}/",
    "prefix": lambda folder: f"{folder}/model-0",
    "bytes": lambda folder: os.fsencode(folder / "model-0"),
    "pathlib directory": lambda folder: folder,
    "pathlib prefix": lambda folder: folder / "model-0",
    "data file": lambda folder: f"{folder}/model-0.data-00000-of-00001",
    "state file": lambda folder: f"{folder}/checkpoint",
    "empty directory": lambda folder: f"{folder}/empty",
    "missing": lambda folder: f"{folder}/model-1",
    "missing parent": lambda folder: f"{folder}/no/model-1",
    "empty": lambda folder: "",
    "none": lambda folder: None,
    "number": lambda folder: 3,
}


@pytest.mark.parametrize("name", PATHS)
def test_path_has_tensorflows_result(
    name: str, folder: Path, build: Callable[[], list[Any]]
) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    result, original = both(PATHS[name](folder), build, lambda vs: {"a/v": vs[0]})
    if name == "data file":
        # tensorbundle accepts the name of a data file.
        assert isinstance(original.error, tf.errors.DataLossError)
        assert np.array_equal(result.values[0], ARRAYS["a/v"])
    else:
        require_same(result, original)
        assert result.error is None or isinstance(result.error, (tb.Error, TypeError))


def test_relative_path_has_tensorflows_result(
    folder: Path, build: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for path in (".", "model-0", "./model-0"):
        require_same(*both(path, build, lambda vs: {"a/": "new/"}))


def test_directory_with_pattern_characters_is_read(
    tmp_path: Path, save: Callable[..., str], build: Callable[[], list[Any]], backend_name: str
) -> None:
    if backend_name == "stock":
        pytest.skip("TensorFlow's op treats the path as a pattern")
    folder = tmp_path / "run[1]"
    folder.mkdir()
    result, original = both(save(folder / "m", ARRAYS), build, lambda vs: {"a/v": vs[0]})
    assert original.error is not None
    assert np.array_equal(result.values[0], ARRAYS["a/v"])


def test_names_in_reentered_scope_are_resolved(folder: Path) -> None:
    def build() -> list[Any]:
        with tf1.variable_scope("new"):
            first = tf1.get_variable("v", [6])
        with tf1.variable_scope("new"):
            second = tf1.get_variable("scalar", [])
        with tf1.variable_scope(None, default_name="new"):
            third = tf1.get_variable("v", [6])
        return [first, second, third]

    mapping = {"a/v": "new/v", "scalar": "new/scalar"}
    require_same(*both(folder, build, lambda vs: [*mapping.items(), ("a/v", "new_1/v")]))


def test_initial_value_is_read_from_the_checkpoint(folder: Path) -> None:
    for function in (tb.init_from_checkpoint, tf1.train.init_from_checkpoint):
        with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
            variable = tf1.get_variable("v", [6], use_resource=False)
            function(folder, {"a/v": variable})
            slot = tf1.get_variable("slot", initializer=variable.initial_value * 2)
            session.run(slot.initializer)
            assert np.array_equal(session.run(slot), ARRAYS["a/v"] * 2)
            assert variable.initial_value.op.name == "checkpoint_initializer"
            assert variable.initial_value.shape == [6]


def test_each_backend_uses_its_own_ops(
    folder: Path, backend_name: str, build: Callable[[], list[Any]]
) -> None:
    op = "TensorbundleReadV1" if backend_name == "native" else "RestoreV2"
    with tf.Graph().as_default() as graph:
        tb.init_from_checkpoint(folder, {"a/v": build()[0]})
        types = {node.type for node in graph.get_operations()}
    assert types & {"TensorbundleReadV1", "PyFunc", "RestoreV2"} == {op}


def test_one_op_reads_all_that_a_task_needs(folder: Path, backend_name: str) -> None:
    if backend_name == "native":
        pytest.skip("our ops read one tensor each")
    with tf.Graph().as_default() as graph:
        variables = {}
        for task in range(2):
            with tf1.device(f"/job:ps/task:{task}"), tf1.variable_scope(f"task{task}"):
                variables |= {f"a/v{task}": tf1.get_variable("v", [6])}
                variables |= {f"scalar{task}": tf1.get_variable("scalar", [])}
        pairs = [(name[:-1], variable) for name, variable in variables.items()]
        tb.init_from_checkpoint(folder, pairs)
        reads = [node for node in graph.get_operations() if node.type == "RestoreV2"]
    assert [len(node.outputs) for node in reads] == [2, 2]
    assert [tf.DeviceSpec.from_string(node.device).task for node in reads] == [0, 1]
