# SPDX-License-Identifier: Apache-2.0
"""Plans, reports, and the options that skip missing and mismatched variables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from side_by_side import logged
from warm_starts import write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1
pytestmark = pytest.mark.usefixtures("backend_name")

ARRAYS = {
    "body": np.arange(3, dtype=np.float32),
    "head": np.arange(5, dtype=np.float32),
    "half": np.arange(3, dtype=np.float16),
    "count": np.arange(3, dtype=np.int64),
    "s/table": np.arange(24, dtype=np.float32).reshape(6, 4),
    "s/wide": np.zeros((6, 5), np.float32),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> Path:
    root = tmp_path_factory.mktemp("plans")
    save(root / "m", ARRAYS)
    write_vocabulary(root / "old.txt", "abcdef")
    write_vocabulary(root / "new.txt", "fxbayde")
    return root


@pytest.fixture(params=["ref", "resource"])
def build(request: pytest.FixtureRequest) -> Callable[[], dict[str, Any]]:
    """Returns a function that creates variables of ones; some match the checkpoint."""

    def create() -> dict[str, Any]:
        split = tf1.fixed_size_partitioner(2)
        with tf1.variable_scope("", use_resource=request.param == "resource"):
            tf1.get_variable_scope().set_initializer(tf1.ones_initializer())
            variables = {
                "body": tf1.get_variable("body", [3]),
                "head": tf1.get_variable("head", [7]),
                "half": tf1.get_variable("half", [3]),
                "new": tf1.get_variable("new", [2]),
            }
            with tf1.variable_scope("s"):
                variables["s/table"] = tf1.get_variable("table", [6, 4], partitioner=split)
                variables["s/wide"] = tf1.get_variable("wide", [6, 4], partitioner=split)
                variables["s/gone"] = tf1.get_variable("gone", [4, 4], partitioner=split)
        return variables

    return create


def values(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    with tf1.Session() as session:
        session.run(tf1.global_variables_initializer())
        return {
            name: np.asarray(session.run(tf.convert_to_tensor(variable)))
            for name, variable in variables.items()
        }


def initializers() -> list[Any]:
    return [variable.initializer for variable in tf1.global_variables()]


CALLS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "init": (
        lambda path, **kw: tb.init_from_checkpoint(path, {"/": "/"}, **kw),
        lambda path, **kw: tb.tf.plan_init(path, {"/": "/"}, **kw),
    ),
    "warm": (tb.warm_start, lambda path, **kw: tb.tf.plan_warm_start(path, **kw)),
}
SKIP = {"missing": "skip", "mismatch": "skip"}


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return CALLS[request.param]


def test_skip_option_keeps_initial_values(
    folder: Path, build: Callable[[], dict[str, Any]], call: Any
) -> None:
    with tf.Graph().as_default():
        variables = build()
        report = call[0](folder / "m", **SKIP)
        result = values(variables)
    assert report.loaded == {"body": "body", "s/table": "s/table"}
    assert report.missing == {"new": "new", "s/gone": "s/gone"}
    assert set(report.mismatched) == {"head", "half", "s/wide"}
    assert report.mismatched["head"] == ("head", (5,), "float32", (7,), "float32")
    assert report.mismatched["half"].stored_dtype == "float16"
    assert report.mismatched["s/wide"].stored_shape == (6, 5)
    assert report.unused == ("count", "half", "head", "s/wide")
    for name, value in result.items():
        if name in report.loaded:
            np.testing.assert_array_equal(value, ARRAYS[name])
        else:
            assert (value == 1).all(), name  # all partitions
    assert isinstance(report, tb.tf.LoadReport)


def test_cast_loads_other_dtype(
    folder: Path, build: Callable[[], dict[str, Any]], call: Any
) -> None:
    with tf.Graph().as_default():
        variables = build()
        report = call[0](folder / "m", cast=True, **SKIP)
        result = values(variables)
    assert report.loaded["half"] == "half" and "half" not in report.mismatched
    np.testing.assert_array_equal(result["half"], ARRAYS["half"])


@pytest.mark.parametrize("skip", [{}, {"missing": "skip"}, {"mismatch": "skip"}])
def test_problems_raise_before_any_change(
    folder: Path, build: Callable[[], dict[str, Any]], call: Any, skip: dict[str, str]
) -> None:
    with tf.Graph().as_default() as graph:
        build()
        before, count = initializers(), len(graph.get_operations())
        with pytest.raises(ValueError) as caught:
            call[0](folder / "m", **skip)
        assert initializers() == before and len(graph.get_operations()) == count
        assert "more" in str(caught.value)
        plan = call[1](folder / "m", **skip)
        with pytest.raises(type(caught.value)) as raised:
            plan.apply()
        assert str(raised.value) == str(caught.value)
        assert initializers() == before and len(graph.get_operations()) == count
    expected = 5 - 2 * ("missing" in skip) - 3 * ("mismatch" in skip)
    assert len(plan.problems) == expected
    assert str(caught.value).startswith(plan.problems[0].partition(" (and ")[0])


@pytest.mark.parametrize("word", ["ignore", None, True])
def test_invalid_keyword_is_rejected(folder: Path, call: Any, word: Any) -> None:
    for keyword in ("missing", "mismatch"):
        for function in call:
            with pytest.raises(ValueError, match=f"{keyword} must be 'raise' or 'skip'"):
                function(folder / "m", **{keyword: word})
    with pytest.raises(TypeError, match="cast must be True or False"):
        call[0](folder / "m", cast="float32")


def test_plan_changes_nothing_and_lists_all_problems(
    folder: Path, build: Callable[[], dict[str, Any]], call: Any
) -> None:
    with tf.Graph().as_default() as graph, logged() as lines:
        build()
        tf1.get_variable("other/v", [2], tf.string, trainable=False)
        before, count = initializers(), len(graph.get_operations())
        plan = call[1](folder / "m")
        text = str(plan)
        assert initializers() == before and len(graph.get_operations()) == count
    assert not lines
    assert len(plan.problems) in (5, 6)  # warm_start does not select the string variable
    assert all(isinstance(problem, str) and "\n" not in problem for problem in plan.problems)
    rows = text.splitlines()
    for name in ("body", "head", "half", "new", "s/table", "s/wide", "s/gone"):
        (row,) = [each for each in rows if name in each.split()[:2] and "[" in each]
        assert ("loaded" in row) == (name in ("body", "s/table"))
    assert "[5] -> [7]" in text and "float16 -> float32" in text and "not in the checkpoint" in text
    for problem in plan.problems:
        assert problem in text
    assert plan.unused == ("count", "half", "head", "s/wide")
    assert set(plan.untouched) == {"head", "half", "new", "s/wide", "s/gone", "other/v"}
    assert "problems" in repr(plan)


def test_applied_plan_equals_the_call(
    folder: Path, build: Callable[[], dict[str, Any]], call: Any
) -> None:
    with tf.Graph().as_default():
        by_call = build()
        report = call[0](folder / "m", **SKIP)
        expected = values(by_call)
    with tf.Graph().as_default():
        by_plan = build()
        plan = call[1](folder / "m", **SKIP)
        assert not plan.problems and "skipped" in str(plan)
        assert plan.apply() == report
        result = values(by_plan)
    for name, value in expected.items():
        np.testing.assert_array_equal(result[name], value)


def test_plan_logs_the_same_as_the_call(
    folder: Path, build: Callable[[], dict[str, Any]], call: Any
) -> None:
    logs = []
    for function in (call[0], lambda path, **kw: call[1](path, **kw).apply()):
        with tf.Graph().as_default(), logged() as lines:
            build()
            function(folder / "m", **SKIP)
        logs.append(lines)
    assert logs[0] == logs[1] and len(logs[0]) > 1


def test_plan_cannot_be_applied_in_other_graph(folder: Path, call: Any) -> None:
    with tf.Graph().as_default():
        tf1.get_variable("body", [3])
        plan = call[1](folder / "m")
    with tf.Graph().as_default(), pytest.raises(ValueError, match="another graph"):
        plan.apply()
    with pytest.raises(ValueError, match="eager mode"):
        plan.apply()


def test_plan_keeps_the_options_of_its_creation(folder: Path, backend_name: str) -> None:
    if backend_name == "stock":
        pytest.skip("there is only one kind of op without the library")
    with tf.Graph().as_default() as graph:
        tf1.get_variable("body", [3])
        with tb.tf.options(op="native"):
            plan = tb.tf.plan_init(folder / "m", {"body": "body"})
        with tb.tf.options(op="stock"):
            plan.apply()
        assert "TensorbundleReadV1" in {op.type for op in graph.get_operations()}


def test_plan_of_eager_variables_is_applied(folder: Path) -> None:
    body, head = tf.Variable(tf.ones([3]), name="body"), tf.Variable(tf.ones([7]), name="head")
    plan = tb.tf.plan_init(folder / "m", {"body": body, "head": head, "gone": head})
    assert len(plan.problems) == 2 and plan.untouched == ()
    with pytest.raises(tb.TensorNotFoundError, match="gone"):
        plan.apply()
    assert body.numpy().tolist() == [1, 1, 1]
    plan = tb.tf.plan_warm_start(folder / "m", [body, head], mismatch="skip")
    report = plan.apply()
    assert (report.loaded, list(report.mismatched)) == ({"body": "body"}, ["head"])
    np.testing.assert_array_equal(body, ARRAYS["body"])
    assert head.numpy().tolist() == [1] * 7


INVALID_MAPS: dict[str, Any] = {
    "not a variable": {"body": 3},
    "None": {"body": None},
    "key is not a name": {1: "body"},
    "mixed keys": {1: "body", "body": "body"},
    "mixed list": {"body": ["body", 3]},
    "swapped names": {"body": "nowhere"},
    "empty tuple": {"body": ()},
    "unknown scope": {"x/": "y/"},
    "bytes": {b"body": "body"},
}


@pytest.mark.parametrize("name", INVALID_MAPS)
def test_error_in_map_is_a_problem_of_the_plan(folder: Path, name: str) -> None:
    with tf.Graph().as_default():
        tf1.get_variable("body", [3])
        plan = tb.tf.plan_init(folder / "m", INVALID_MAPS[name])
        assert plan.problems
        with pytest.raises((ValueError, TypeError)):
            plan.apply()
        with pytest.raises((ValueError, TypeError)):
            tb.init_from_checkpoint(folder / "m", INVALID_MAPS[name])


def test_unreadable_checkpoint_raises(folder: Path, call: Any) -> None:
    with tf.Graph().as_default():
        tf1.get_variable("body", [3])
        if call is CALLS["init"]:
            with pytest.raises(tf.errors.NotFoundError):
                call[1](folder / "nowhere")
        else:
            assert "nowhere" in call[1](folder / "nowhere").problems[0]
        (folder / "junk").write_text("hello")
        with pytest.raises(tf.errors.DataLossError):
            call[1](folder / "junk")


# -- Warm starts by vocabularies


def info(folder: Path, **more: Any) -> tb.VocabInfo:
    return tb.VocabInfo(str(folder / "new.txt"), 7, 0, str(folder / "old.txt"), **more)


def test_vocabulary_plan_counts_remapped_rows(folder: Path) -> None:
    with tf.Graph().as_default():
        with tf1.variable_scope("s"):
            tf1.get_variable("table", [7, 4], partitioner=tf1.fixed_size_partitioner(3))
        plan = tb.tf.plan_warm_start(folder / "m", None, {"s/table": info(folder)})
        assert not plan.problems
        assert "remapped: 5 of 7 rows are in the old vocabulary" in str(plan)
        assert plan.apply().loaded == {"s/table": "s/table"}


def test_skip_option_applies_to_vocabulary_tables(folder: Path, backend_name: str) -> None:
    with tf.Graph().as_default(), tf1.Session() as session:
        with tf1.variable_scope("s", initializer=tf1.ones_initializer()):
            split = tf1.fixed_size_partitioner(3)
            tables = [
                tf1.get_variable(name, [7, 4], partitioner=split)
                for name in ("table", "wide", "gone")
            ]
        infos = {f"s/{name}": info(folder) for name in ("table", "wide", "gone")}
        plan = tb.tf.plan_warm_start(folder / "m", None, infos)
        assert len(plan.problems) == 2
        report = tb.warm_start(folder / "m", None, infos, **SKIP)
        session.run(tf1.global_variables_initializer())
        table, wide, gone = session.run([tf.convert_to_tensor(each) for each in tables])
    assert list(report.loaded) == ["s/table"]
    assert list(report.missing) == ["s/gone"] and list(report.mismatched) == ["s/wide"]
    np.testing.assert_array_equal(table[0], ARRAYS["s/table"][5])
    assert (wide == 1).all() and (gone == 1).all()


def test_plan_lists_all_invalid_settings(folder: Path) -> None:
    with tf.Graph().as_default():
        tf1.get_variable("body", [3])
        tf1.get_variable("head", [7])
        with tf1.variable_scope("s"):
            tf1.get_variable("table", [8, 4])
        plan = tb.tf.plan_warm_start(
            folder / "m",
            ".*",
            {
                "s/table": info(folder),
                "nowhere": info(folder),
                "body": info(folder)._replace(axis=5),
            },
            {"head": "absent", "unknown": "x"},
        )
        problems = "\n".join(plan.problems)
        for text in ("additional rows", "axis", "'absent'", "'unknown'", "'nowhere'"):
            assert text in problems.replace("Tensor absent", "'absent'"), text


def test_full_names_of_object_graph_are_accepted(tmp_path: Path) -> None:
    checkpoint = tf.train.Checkpoint(
        a=tf.Variable([1.0], name="enc/kernel"), b=tf.Variable([2.0], name="twice"),
        c=tf.Variable([3.0], name="twice"),
    )  # fmt: skip
    prefix = checkpoint.write(str(tmp_path / "ck"))
    key = "a/.ATTRIBUTES/VARIABLE_VALUE"
    with tf.Graph().as_default(), tf1.Session() as session:
        with tf1.variable_scope("enc"):
            kernel = tf1.get_variable("kernel", [1])
        twice = tf1.get_variable("twice", [1])
        for pairs in ({"enc/kernel": kernel}, {"enc/": "enc/"}, {key: kernel}):
            report = tb.init_from_checkpoint(prefix, pairs)
            assert report.loaded == {"enc/kernel": key}
            assert key not in report.unused and "_CHECKPOINTABLE_OBJECT_GRAPH" not in report.unused
        session.run(kernel.initializer)
        assert session.run(kernel).tolist() == [1]
        for call in (
            lambda: tb.init_from_checkpoint(prefix, {"twice": twice}),
            lambda: tb.warm_start(prefix, [twice]),
            lambda: tb.warm_start(prefix, [twice], None, {"twice": "twice"}),
        ):
            with pytest.raises(ValueError, match=r"b/\.ATTR.*c/\.ATTR") as caught:
                call()
            assert isinstance(caught.value, tb.TensorNotFoundError)
        tb.warm_start(prefix, [twice], None, {"twice": "c/.ATTRIBUTES/VARIABLE_VALUE"})
        session.run(twice.initializer)
        assert session.run(twice).tolist() == [3]
        report = tb.warm_start(prefix, [kernel, tf1.get_variable("absent", [1])], missing="skip")
        assert report.loaded == {"enc/kernel": key} and report.missing == {"absent": "absent"}


def test_remote_checkpoint_is_planned(save: Callable[..., str], backend_name: str) -> None:
    folder = f"ram://plans-{backend_name}"
    save(f"{folder}/m", ARRAYS)
    with tf.io.gfile.GFile(f"{folder}/checkpoint", "w") as state:
        state.write('model_checkpoint_path: "m"')
    with tf.Graph().as_default(), tf1.Session() as session:
        body, head = tf1.get_variable("body", [3]), tf1.get_variable("head", [7])
        half = tf1.get_variable("half", [3])
        report = tb.init_from_checkpoint(folder, {"/": "/"}, cast=True, **SKIP)
        assert report.loaded == {"body": "body", "half": "half"}
        assert list(report.mismatched) == ["head"] and "count" in report.unused
        session.run([body.initializer, half.initializer])
        np.testing.assert_array_equal(session.run(half), ARRAYS["half"])
        plan = tb.tf.plan_warm_start(folder, [body, head])
        assert len(plan.problems) == 1
        assert tb.warm_start(folder, [body]).loaded == {"body": "body"}
        if backend_name == "stock":
            return  # the stock op never maps
        with tb.tf.options(mode="map"), pytest.raises(ValueError, match="cannot be mapped"):
            tb.init_from_checkpoint(folder, {"body": body})


def test_every_replica_gets_a_report(folder: Path) -> None:
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    with strategy.scope():
        variable = tf.Variable(tf.zeros([3]), name="body")
    reports: list[Any] = []
    strategy.run(lambda: reports.append(tb.init_from_checkpoint(folder / "m", {"body": variable})))
    assert [report.loaded for report in reports] == [{"body": "body"}] * 2
    np.testing.assert_array_equal(strategy.experimental_local_results(variable)[1], ARRAYS["body"])


def test_eager_variables_of_same_name_are_numbered(
    tmp_path: Path, save: Callable[..., str]
) -> None:
    prefix = save(tmp_path / "m", {"a": np.ones(3, np.float32), "b": np.ones(4, np.float32)})
    first, second = tf.Variable(tf.zeros(3)), tf.Variable(tf.zeros(4))
    report = tb.init_from_checkpoint(prefix, [("a", first), ("b", second)])
    assert report.loaded == {"Variable": "a", "Variable#2": "b"}
    report = tb.init_from_checkpoint(prefix, [("a", first), ("c", second)], missing="skip")
    assert (report.loaded, report.missing) == ({"Variable": "a"}, {"Variable#2": "c"})
    both = tb.init_from_checkpoint(prefix, [("a", first), ("a", first)])
    assert both.loaded == {"Variable": "a"}
