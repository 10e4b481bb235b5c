# SPDX-License-Identifier: Apache-2.0
"""Plans of edits: what each option selects, and what is reported before anything is written."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from craft.bundle import Bundle
from craft.messages import TrackableObjectGraph

import tensorbundle as tb
from tensorbundle.edit_plan import EditError, EditPlan, EditWarning, plan_edit

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
KERNEL = np.arange(12, dtype=np.float32).reshape(4, 3)
BIAS = np.arange(3, dtype=np.float32)


@pytest.fixture
def dense(tmp_path: Path) -> Iterator[tb.Checkpoint]:
    bundle = Bundle()
    bundle.add("dense/kernel", KERNEL)
    bundle.add("dense/bias", BIAS)
    bundle.add("dense/kernel/Adam", KERNEL * 2)
    bundle.add("beta1_power", np.float32(0.9))
    bundle.add("global_step", np.int64(1000))
    bundle.add_strings("names", [b"a", b"b"], [2])
    bundle.add("quantized", np.arange(4, dtype=np.int8), number=11)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        yield ck


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[tb.Checkpoint]:
    """A checkpoint with an object graph: a model, and an optimizer with a slot."""
    message = TrackableObjectGraph()
    root, model, kernel, optimizer, slot = (message.nodes.add() for _ in range(5))
    root.children.add(node_id=1, local_name=b"model")
    root.children.add(node_id=3, local_name=b"optimizer")
    model.children.add(node_id=2, local_name=b"kernel")
    slot_key = f"model/kernel/.OPTIMIZER_SLOT/optimizer/m{VALUE}"
    kernel.attributes.add(full_name=b"dense/kernel", checkpoint_key=f"model/kernel{VALUE}".encode())
    slot.attributes.add(full_name=b"Adam/dense/kernel/m", checkpoint_key=slot_key.encode())
    optimizer.slot_variables.add(
        original_variable_node_id=2, slot_name=b"m", slot_variable_node_id=4
    )
    bundle = Bundle()
    bundle.add(f"model/kernel{VALUE}", KERNEL)
    bundle.add(slot_key, KERNEL)
    bundle.add_strings("_CHECKPOINTABLE_OBJECT_GRAPH", [message.SerializeToString()], [])
    with tb.open(bundle.write(tmp_path / "g")) as ck:
        yield ck


def plan(checkpoint: tb.Checkpoint, **options: Any) -> EditPlan:
    """Plans without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", EditWarning)
        return plan_edit(checkpoint, **options)


def names(checkpoint: tb.Checkpoint, **options: Any) -> list[str]:
    return [tensor.name for tensor in plan(checkpoint, **options).tensors]


def problems(checkpoint: tb.Checkpoint, **options: Any) -> tuple[str, ...]:
    with pytest.raises(EditError) as caught:
        plan_edit(checkpoint, **options)
    assert isinstance(caught.value, ValueError)
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def test_nothing_to_do_keeps_everything_in_file_order(dense: tb.Checkpoint) -> None:
    result = plan(dense)
    assert [t.name for t in result.tensors] == [
        "dense/kernel", "dense/bias", "dense/kernel/Adam", "beta1_power", "global_step", "names",
        "quantized",
    ]  # fmt: skip
    assert all(tensor.is_unchanged for tensor in result.tensors)
    assert not (result.dropped or result.renamed or result.cast or result.warnings)


def test_selection(dense: tb.Checkpoint) -> None:
    assert names(dense, keep="dense/*") == ["dense/kernel", "dense/bias", "dense/kernel/Adam"]
    assert names(dense, keep=["dense/*", "names"], drop="*/Adam") == [
        "dense/kernel", "dense/bias", "names"
    ]  # fmt: skip
    assert names(dense, drop=lambda name: name != "names") == ["names"]
    assert plan(dense, slots=False).dropped == ("beta1_power", "dense/kernel/Adam")


def test_renaming(dense: tb.Checkpoint) -> None:
    assert plan(dense, rename={"names": "labels"}).renamed == {"names": "labels"}
    renamed = plan(dense, rename=[("^dense/", "fc/"), (r"kernel\b", "weight")]).renamed
    assert renamed == {
        "dense/kernel": "fc/weight",
        "dense/bias": "fc/bias",
        "dense/kernel/Adam": "fc/weight/Adam",
    }
    assert plan(dense, rename=str.upper).renamed["names"] == "NAMES"
    swapped = {"dense/kernel": "dense/bias", "dense/bias": "dense/kernel"}
    assert plan(dense, rename=swapped).renamed == swapped


def test_casts_by_type_and_by_name(dense: tb.Checkpoint) -> None:
    result = plan(dense, cast={"float32": "bfloat16", "dense/bias": np.float64})
    assert result.cast == {
        "dense/kernel": ("float32", "bfloat16"),
        "dense/bias": ("float32", "float64"),
        "dense/kernel/Adam": ("float32", "bfloat16"),
        "beta1_power": ("float32", "bfloat16"),
    }
    assert set(plan(dense, cast=ml_dtypes.bfloat16).cast) == set(result.cast)
    assert plan(dense, cast={np.float32: "float32", "global_step": "int16"}).cast == {
        "global_step": ("int64", "int16")
    }


def test_transpositions(dense: tb.Checkpoint) -> None:
    (kernel,) = plan(dense, keep=["dense/kernel"], transpose="*/kernel").tensors
    assert (kernel.shape, kernel.permutation, kernel.is_unchanged) == ((3, 4), (1, 0), False)
    (array,) = kernel.blocks()
    assert np.array_equal(array, KERNEL.T)
    assert array.flags.c_contiguous
    for same in ({"dense/kernel": (0, 1)}, {"dense/kernel": False}, {"dense/bias": True}):
        assert all(tensor.is_unchanged for tensor in plan(dense, transpose=same).tensors)


@pytest.mark.parametrize(
    ("count", "rows"), [(1, [4]), (2, [2, 2]), (3, [2, 1, 1]), (4, [1] * 4), (9, [1] * 4)]
)
def test_partitions_are_cut_as_tensorflow_cuts(
    dense: tb.Checkpoint, count: int, rows: list[int]
) -> None:
    (kernel,) = plan(dense, keep=["dense/kernel"], partition={"dense/kernel": count}).tensors
    assert [shape for _, shape in kernel.slices] == [(n, 3) for n in rows]
    assert [offset for offset, _ in kernel.slices] == [(sum(rows[:i]), 0) for i in range(len(rows))]
    assert kernel.is_unchanged == (count == 1)


def test_types_without_slices_are_stored_whole(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add_sliced("w", KERNEL, [((0, 2), (0, 3)), ((2, 2), (0, 3))])
    bundle.add_sliced("h", KERNEL.astype("e"), [((0, 2), (0, 3)), ((2, 2), (0, 3))])
    bundle.add_strings("s", [b"a", b"b"], [2])
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        tensors = {tensor.name: tensor for tensor in plan(ck, cast={"w": "float16"}).tensors}
        assert len(tensors["w"].slices) == 1
        assert tensors["h"].is_unchanged
        assert len(plan(ck, keep="w", cast={"w": "bfloat16"}).tensors[0].slices) == 2
        assert problems(ck, cast={"w": "float16"}, partition={"w": 2, "s": 2}) == (
            "'w' cannot be partitioned: TensorFlow reads no slices of type float16",
            "'s' cannot be partitioned: TensorFlow reads no slices of type string",
        )
        assert plan(ck, partition={"s": 1}).tensors


def test_rules_precede_arguments(dense: tb.Checkpoint) -> None:
    rules = [
        {"match": "dense/(bias)", "name": r"\1", "cast": "float16"},
        {"match": "dense/.*", "name": "w", "transpose": True, "split": 3, "drop": False},
        {"match": ".*", "drop": True},
    ]
    result = plan(
        dense, rules=rules, drop="*/Adam", cast={"float32": "bfloat16"}, rename=lambda name: "x"
    )
    kernel, bias = result.tensors
    assert (kernel.name, kernel.shape, len(kernel.slices)) == ("w", (3, 4), 3)
    assert (kernel.stored_dtype, bias.stored_dtype) == ("bfloat16", "float16")
    assert bias.name == "bias"


def test_updates_replace_and_add(dense: tb.Checkpoint) -> None:
    result = plan(
        dense,
        rename={"names": "labels"},
        update={
            "labels": ["x", b"y\0"],
            "global_step": 7,
            "dense/kernel": np.ones((9, 3), np.float32),
            "new": np.zeros(2, ml_dtypes.bfloat16),
            "text": "ü",
            "other": dense["dense/bias"],
            "quantized": [1, 2],
        },
    )
    by_name = {tensor.name: tensor for tensor in result.tensors}
    assert [tensor.name for tensor in result.tensors][-3:] == ["new", "text", "other"]
    assert by_name["global_step"].stored_dtype == "int64"
    assert next(by_name["global_step"].blocks()) == 7
    assert next(by_name["labels"].blocks()).tolist() == [b"x", b"y\0"]
    assert next(by_name["text"].blocks())[()] == "ü".encode()
    assert by_name["dense/kernel"].shape == (9, 3)
    assert by_name["new"].stored_dtype == "bfloat16"
    assert by_name["other"].is_unchanged
    assert by_name["quantized"].stored_dtype == "qint8"


def test_update_of_another_type_is_a_warning(dense: tb.Checkpoint) -> None:
    with pytest.warns(EditWarning, match="of type float32 by float64"):
        plan_edit(dense, update={"dense/bias": np.zeros(3)})


def test_all_problems_are_reported_at_once(dense: tb.Checkpoint) -> None:
    found = problems(
        dense,
        drop=["nmaes"],
        rename={"dense/bias": "dense/kernel", "globalstep": "step"},
        cast={"dense/bias": "string", "float32": "float33", "quantized": "int8"}
        | {"flaot32": "float16"},
        transpose={"dense/kernel": (0, 2), "*bias": [1, 0]},
        partition={"global_step": 2},
        update={"dense/kernel": object(), "": 1},
    )
    expected = [
        "cast to 'float33': TensorFlow has no such type",
        "cast: there is no type and no tensor 'flaot32'",
        "'dense/kernel' of shape (4, 3) cannot be transposed by (0, 2)",
        "'dense/bias' cannot be cast from float32 to string",
        "'dense/bias' of shape (3,) cannot be transposed by (1, 0)",
        "'global_step' is a scalar and cannot be partitioned",
        "'quantized' cannot be cast from qint8 to int8",
        "update['dense/kernel'] cannot be stored",
        "2 tensors would be named 'dense/kernel': 'dense/kernel', 'dense/bias'",
        "would get an empty name",
        "drop: there is no tensor 'nmaes'; the nearest names are 'names'",
        "rename: there is no tensor 'globalstep'; the nearest names are 'global_step'",
    ]
    for text in expected:
        assert any(text in problem for problem in found), text
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("target", "is_possible"),
    [("int32", True), ("int16", True), ("int8", False), ("uint64", True), ("float64", True),
     ("float32", False), ("bool", False), ("complex64", False), ("string", False)],
)  # fmt: skip
def test_casts_of_integers_keep_their_values(
    dense: tb.Checkpoint, target: str, is_possible: bool
) -> None:
    if is_possible:
        assert plan(dense, cast={"global_step": target}).cast
    else:
        (problem,) = problems(dense, cast={"global_step": target})
        assert f"'global_step' cannot be cast from int64 to {target}: " in problem


def test_value_that_does_not_fit_is_named(dense: tb.Checkpoint) -> None:
    (problem,) = problems(dense, cast={"int64": "uint8"})
    assert problem.endswith("the value 1000 is not in [0, 255]")


def test_patterns_without_effect_are_warnings(dense: tb.Checkpoint) -> None:
    with pytest.warns(EditWarning) as caught:
        result = plan_edit(
            dense,
            drop=["dens/kernal*"],
            slots=False,
            rename=[("^xyz", "")],
            cast={"float64": "float32", "*/Adam": "float16"},
            rules=[{"match": "namez"}],
        )
    expected = [
        "drop: no tensor matches 'dens/kernal*'; the nearest names are 'dense/kernel'",
        "cast: '*/Adam' matches only tensors that are dropped",
        "rename: no name matches '^xyz'",
        "cast: no tensor has the type float64",
        "rules: rule 1: no other tensor matches 'namez'; the nearest names are 'names'",
    ]
    assert len(result.warnings) == len(expected)
    for text, warning, record in zip(expected, result.warnings, caught, strict=True):
        assert text in warning
        assert str(record.message) == warning
        assert record.category is EditWarning


@pytest.mark.parametrize(
    "options",
    [
        {"keep": 1}, {"drop": b"a"}, {"slots": None}, {"rename": "a"}, {"rename": {"a": 1}},
        {"rename": [("a", 1)]}, {"rename": 5}, {"cast": {1: "float32"}},
        {"transpose": {"a": "yes"}}, {"transpose": 1},
        {"partition": ["a"]}, {"partition": {"a": 1.5}}, {"partition": {1: 1}},
        {"merge": "yes"}, {"update": ["a"]}, {"update": {1: 1}}, {"flatten": 1},
    ],
)  # fmt: skip
def test_wrong_types_raise(dense: tb.Checkpoint, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        plan_edit(dense, **options)


@pytest.mark.parametrize(
    "options",
    [{"rename": [("(", "")]}, {"rename": [("a", r"\1")]}, {"partition": {"names": 0}},
     {"rename": lambda name: None}, {"drop": "*"}, {"rename": lambda name: "x"},
     {"rename": {"names": "_CHECKPOINTABLE_OBJECT_GRAPH"}}, {"cast": "unknown"}],
)  # fmt: skip
def test_invalid_values_raise(dense: tb.Checkpoint, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        plan_edit(dense, **options)


def test_errors_can_be_pickled(dense: tb.Checkpoint) -> None:
    with pytest.raises(EditError) as caught:
        plan_edit(dense, drop="absent")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.problems == caught.value.problems


def test_names_of_object_graphs(graph: tb.Checkpoint) -> None:
    key = f"model/kernel{VALUE}"
    for name in (key, "model/kernel", "dense/kernel", "dense*"):
        assert names(graph, keep=[name]) == [key]
    assert plan(graph, slots=False).dropped == (f"model/kernel/.OPTIMIZER_SLOT/optimizer/m{VALUE}",)


def edited_graph(checkpoint: tb.Checkpoint, **options: Any) -> Any:
    content = plan(checkpoint, **options).edited_graph()
    assert content is not None
    return TrackableObjectGraph.FromString(content)


def test_graph_follows_the_names(graph: tb.Checkpoint) -> None:
    for rename in (
        [("^model/", "net/"), ("dense", "fc")],
        {"model/kernel": "net/kernel", "dense/kernel": "fc/kernel"},
        lambda name: name.replace("model", "net").replace("dense", "fc"),
    ):
        kernel = edited_graph(graph, rename=rename, slots=False).nodes[2].attributes[0]
        assert kernel.checkpoint_key == f"net/kernel{VALUE}".encode()
        assert kernel.full_name == b"fc/kernel"
    rules = [{"match": "dense/(.*)", "name": r"fc/\1"}]
    kernel = edited_graph(graph, rules=rules).nodes[2].attributes[0]
    assert kernel.checkpoint_key == f"model/kernel{VALUE}".encode()
    assert kernel.full_name == b"fc/kernel"


def test_graph_loses_dropped_slots(graph: tb.Checkpoint) -> None:
    nodes = edited_graph(graph, slots=False).nodes
    assert not nodes[3].slot_variables
    assert not nodes[4].attributes
    assert len(nodes) == 5
    nodes = edited_graph(graph, keep="*/m").nodes
    assert not nodes[1].children


def test_graph_is_unchanged_without_changes(graph: tb.Checkpoint) -> None:
    result = plan(graph, cast={"float32": "float16"})
    assert result.edited_graph() == result.graph == graph["_CHECKPOINTABLE_OBJECT_GRAPH"].read()
    assert plan(graph, drop="_CHECKPOINTABLE_OBJECT_GRAPH").graph is None


def test_flattened_names(graph: tb.Checkpoint) -> None:
    result = plan(graph, flatten=True)
    assert [tensor.name for tensor in result.tensors] == ["dense/kernel", "Adam/dense/kernel/m"]
    assert result.graph is None and result.edited_graph() is None
    for rename in ({"model/kernel": "w"}, {"dense/kernel": "w"}, [("^dense/kernel$", "w")]):
        assert names(graph, flatten=True, slots=False, rename=rename) == ["w"]
    rules = [{"match": "model/(.*)/.ATTRIBUTES.*", "name": r"\1"}]
    assert names(graph, flatten=True, slots=False, rules=rules) == ["kernel"]


def test_malformed_graph_is_a_problem_unless_it_is_left_out(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("w", KERNEL)
    bundle.add_strings("_CHECKPOINTABLE_OBJECT_GRAPH", [b"\x0a\xff"], [])
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        (problem,) = problems(ck)
        assert "parts of the object graph are malformed" in problem
        assert names(ck, flatten=True) == ["w"]
        assert names(ck, drop="_CHECKPOINTABLE_OBJECT_GRAPH") == ["w"]


def test_incomplete_tensors_can_only_be_copied(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add_sliced("w", KERNEL, [((0, 2), (0, 3))])
    bundle.add_variants("v", [b"x", b"y"], [2, 1])
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert all(tensor.is_unchanged for tensor in plan(ck, rename=[("$", "2")]).tensors)
        second, first = sorted(problems(ck, cast="float16", transpose="v", merge=True))
        assert "'w' cannot be read, only copied unchanged" in first
        assert second == "'v' is a variant, which can only be copied unchanged"


def test_changed_plan_does_not_read_values(dense: tb.Checkpoint) -> None:
    Path(dense["dense/kernel"].slices[0].file).unlink()
    with tb.open(dense.path) as ck, pytest.raises(tb.CheckpointNotFoundError):
        tensors = plan(ck, keep=["dense/kernel"], rename={"dense/kernel": "w"}).tensors
        list(tensors[0].blocks())
