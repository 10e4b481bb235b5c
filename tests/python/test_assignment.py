# SPDX-License-Identifier: Apache-2.0
"""Assignment maps: names, scopes, partitions and their errors, against a store of variables."""

import pytest

import tensorbundle as tb
from tensorbundle.assignment import NotInCheckpointError, plan_assignments
from tensorbundle.load_plan import Stored
from tensorbundle.load_source import LoadSource
from tensorbundle.variables import Slice, TypeMismatchError, Variable, slice_spec

STORED = {"a/v": (6,), "a/b/v": (2, 3), "a/b/w": (2, 3), "table": (10, 4), "scalar": ()}


FLOAT32, FLOAT64, INT32, BOOL, FLOAT16 = 1, 2, 3, 10, 19


class Source(LoadSource):
    """A checkpoint of functions."""

    def __init__(self, label, find, names):
        super().__init__(label, b"")
        self.find = find
        self.names = names


def source(stored=STORED, dtypes=()):
    dtypes = dict(dtypes)

    def find(name):
        return Stored(name, stored[name], dtypes.get(name)) if name in stored else None

    return Source("model.ckpt", find, lambda: sorted(stored))


def variable(name, shape):
    return Variable(f"{name}:0", shape, None, object())


def partitions(name, full_shape, rows):
    found, start = {}, 0
    for i, count in enumerate(rows):
        shape = (count, *full_shape[1:])
        partition = Slice(name, full_shape, (start, *[0] * (len(full_shape) - 1)), shape)
        found[f"{name}/part_{i}"] = Variable(f"{name}/part_{i}:0", shape, partition, object())
        start += count
    return found


@pytest.fixture
def store():
    return {
        "new/v": variable("new/v", (6,)),
        "new/b/v": variable("new/b/v", (2, 3)),
        "new/b/w": variable("new/b/w", (2, 3)),
        "new2/v": variable("new2/v", (6,)),
        **partitions("t", (10, 4), [4, 3, 3]),
    }


def plan(pairs, store, stored=STORED):
    """Returns the plan, or raises its first problem."""
    found = plan_assignments(list(pairs), source(stored), store)
    for problem in found.problems:
        raise problem.error
    return found


def result(pairs, store, stored=STORED):
    """Returns (tensor, names of the assigned variables) in order."""
    return [
        (each.tensor, tuple(v.name for v, _ in each.partitions))
        for each in plan(pairs, store, stored).assignments
    ]


def test_accepts_variable_by_name_or_object(store):
    assert result([("a/v", "new/v")], store) == [("a/v", ("new/v:0",))]
    assert result([("a/v", store["new2/v"])], store) == [("a/v", ("new2/v:0",))]


def test_accepts_partitions_by_name_or_list(store):
    names = tuple(f"t/part_{i}:0" for i in range(3))
    assert result([("table", "t")], store) == [("table", names)]
    listed = [store[f"t/part_{i}"] for i in (2, 0)]
    found = plan([("table", listed)], store).assignments[0]
    assert [partition.offset for _, partition in found.partitions] == [(7, 0), (0, 0)]
    assert found.label == "t/part_2:0,t/part_0:0"


def test_partitions_by_name_end_at_first_gap(store):
    del store["t/part_1"]
    assert result([("table", "t")], store) == [("table", ("t/part_0:0",))]


def test_slice_spec_has_format_of_restore_op(store):
    assert store["t/part_1"].slice.spec == "10 4 4,3:0,4"
    assert slice_spec((), (), ()) == ""


def test_assignments_are_sorted_by_tensor(store):
    pairs = [("table", "t"), ("a/v", "new2/v"), ("a/v", "new/v")]
    assert [names for _, names in result(pairs, store)] == [
        ("new2/v:0",),
        ("new/v:0",),
        tuple(f"t/part_{i}:0" for i in range(3)),
    ]


def test_later_of_overlapping_entries_comes_last(store):
    stored = {**STORED, "v": (6,)}
    assert result([("a/b/v", "new/b/v"), ("a/", "new/")], store, stored)[-1][0] == "a/b/v"
    found = result([("v", "new/v"), ("a/", "new/")], store, stored)
    assert found[-1] == ("v", ("new/v:0",))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("a/", "new/", ["a/b/v", "a/b/w", "a/v"]),
        ("a/b/", "new/b/", ["a/b/v", "a/b/w"]),
        ("a/", "new2/", ["a/v"]),
    ],
)
def test_maps_scope_to_scope(store, key, value, expected):
    assert [tensor for tensor, _ in result([(key, value)], store)] == expected


def test_accepts_root_scope_on_either_side(store):
    assert result([("/", "new2/")], store, {"v": (6,)}) == [("v", ("new2/v:0",))]
    only = {"v": variable("v", (6,))}
    assert result([("a/", "/")], only) == [("a/v", ("v:0",))]
    named = {"a/v": variable("a/v", (6,))}
    assert result([("/", "/")], named) == [("a/v", ("a/v:0",))]


def test_scope_excludes_scopes_with_longer_names():
    store = {"a/v": variable("a/v", (6,)), "a_1/v": variable("a_1/v", (6,))}
    assert result([("a/", "a/")], store) == [("a/v", ("a/v:0",))]


def test_partitioned_variable_in_scope_is_one_assignment():
    store = partitions("s/table", (10, 4), [5, 5])
    found = plan([("/", "s/")], store).assignments
    assert [(each.tensor, each.label, len(each.partitions)) for each in found] == [
        ("table", "s/table", 2)
    ]


def test_name_resembling_a_partition_is_a_variable():
    store = {"q/part_x/w": variable("q/part_x/w", (6,)), "a/part_0": variable("a/part_0", (6,))}
    stored = {"q/part_x/w": (6,), "a/part_0": (6,)}
    assert {t for t, _ in result([("/", "/")], store, stored)} == set(stored)
    assert result([("a/part_0", "a")], store, stored) == [("a/part_0", ("a/part_0:0",))]


def test_scope_without_final_slash_uses_parent_and_warns(store):
    found = plan([("a/", "new/zzz")], store)
    assert [each.tensor for each in found.assignments] == ["a/b/v", "a/b/w", "a/v"]
    assert "'new/zzz'" in found.warnings[0]
    assert not plan([("a/", "new/")], store).warnings


@pytest.mark.parametrize(
    ("key", "value", "fragment"),
    [
        ("a", "new/", "Assignment map with scope only name new should map to scope only a"),
        ("a/b/v", "new/b", "Should be 'scope/': 'other_scope/'."),
        ("a/v", "new/w", "the nearest in the graph are 'new/"),
        ("a/", "new", r"Tensor a/ew/b/v \(ew/b/v in a/\) is not found in model.ckpt checkpoint"),
        ("a/", "", "is not found in model.ckpt checkpoint"),
        ("/", "", "is not found in model.ckpt checkpoint"),
        ("a//", "new/", "Tensor a//b/v"),
        ("/", "/", "is not found"),
        ("a/", "nwe/", "does not match a variable.*the nearest in the graph are 'new/'"),
        ("a/", "new//", "does not match a variable"),
        ("a/", "/new/", "does not match a variable"),
    ],
)
def test_invalid_map_raises_value_error(store, key, value, fragment):
    with pytest.raises(ValueError, match=fragment):
        plan([(key, value)], store)


def test_empty_graph_raises_value_error():
    with pytest.raises(ValueError, match="get_variable has not created one in this graph"):
        plan([("/", "/")], {})


def test_missing_tensor_error_suggests_nearest_name(store):
    with pytest.raises(NotInCheckpointError, match="'table'") as caught:
        plan([("tabel", "t")], store)
    assert isinstance(caught.value, (ValueError, tb.TensorNotFoundError))
    assert str(caught.value).startswith("Tensor tabel is not found in model.ckpt checkpoint")
    with pytest.raises(NotInCheckpointError):
        plan([("table/part_0", [])], store)


def test_names_are_matched_exactly(store):
    for key in ("a/v:0", "table/part_0"):
        with pytest.raises(NotInCheckpointError):
            plan([(key, "new/v")], store)
    with pytest.raises(ValueError, match="scope only"):
        plan([("a/v", "new/v:0")], store)


def test_empty_list_assigns_nothing_and_warns(store):
    found = plan([("table", [])], store)
    assert [each.partitions for each in found.assignments] == [()]
    assert "'table' is empty" in found.warnings[0]


@pytest.mark.parametrize("shape", [None, (None,), (6,)])
def test_partially_known_shape_matches(shape):
    assert result([("a/v", variable("x", shape))], {})


@pytest.mark.parametrize(
    ("tensor", "shape"),
    [("a/v", (7,)), ("a/v", (None, None)), ("a/v", ()), ("scalar", (1,)), ("a/b/v", (3, None))],
)
def test_other_shapes_raise_shape_mismatch_error(tensor, shape):
    with pytest.raises(tb.ShapeMismatchError, match="doesn't match with shape of tensor"):
        plan([(tensor, variable("x", shape))], {})


def test_compares_shapes_in_scopes_and_of_partitions(store):
    wrong = {"new/v": variable("new/v", (1, 6))}
    with pytest.raises(tb.ShapeMismatchError, match=r"new/v:0 \(\[1, 6\]\).*a/v \(\[6\]\)"):
        plan([("a/", "new/")], wrong)
    with pytest.raises(tb.ShapeMismatchError, match="a slice of t"):
        plan([("table", "t")], store, {"table": (11, 4)})


def test_single_partition_error_asks_for_list(store):
    with pytest.raises(tb.ShapeMismatchError, match="give the list of its partitions"):
        plan([("table", store["t/part_1"])], store)
    assert result([("table", [store["t/part_1"]])], store) == [("table", ("t/part_1:0",))]


def test_partitions_of_two_variables_raise_value_error(store):
    other = partitions("u", (10, 4), [5, 5])
    mixed = [store["t/part_0"], other["u/part_1"]]
    with pytest.raises(ValueError, match="Slices must all be from the same tensor: t != u"):
        plan([("table", mixed)], store)


def test_list_of_one_whole_variable_is_that_variable():
    whole = variable("x", (10, 4))
    assert plan([("table", [whole])], {}).assignments[0].partitions == ((whole, None),)
    with pytest.raises(ValueError, match="not a partition of a partitioned variable"):
        plan([("table", [whole, whole])], {})


def test_keys_of_mixed_types_raise_type_error(store):
    with pytest.raises(TypeError, match="not supported between"):
        plan([("a/v", "new/v"), (b"a/v", "new/v")], store)


def test_plan_looks_up_only_needed_names():
    looked_up = []
    stored = {f"s/v{i}": (2,) for i in range(40_000)}

    def find(name):
        looked_up.append(name)
        return Stored(name, stored[name])

    def names():
        raise AssertionError("a valid plan needs no list of names")

    store = {f"t/v{i}": variable(f"t/v{i}", (2,)) for i in range(2000)}
    found = plan_assignments([("s/", "t/")], Source("c", find, names), store)
    assert len(found.assignments) == len(looked_up) == 2000


def of_type(name, dtype, shape=(6,)):
    return Variable(f"{name}:0", shape, None, object(), dtype)


def test_plan_lists_every_problem(store):
    pairs = [("a/v", "new/v"), ("a/x", "new2/v"), ("a/b/v", "t"), ("q/", "new/"), ("scalar", "no")]
    found = plan_assignments(pairs, source(), store)
    assert [each.tensor for each in found.assignments] == ["a/v"]
    assert [problem.kind for problem in found.problems] == [
        "shape", "missing", "missing", "missing", "missing", "setting",
    ]  # fmt: skip
    for problem in found.problems:
        assert isinstance(problem.error, ValueError)
        assert str(problem) == str(problem.error)
    kinds = {row.variable: row.problem and row.problem.kind for row in found.rows}
    assert kinds["t"] == "shape" and kinds["new2/v"] == "missing"


def test_problem_messages_are_built_lazily(store):
    def names():
        raise AssertionError("the message was built early")

    found = plan_assignments([("a/x", "new/v")], Source("c", lambda _: None, names), store)
    with pytest.raises(AssertionError, match="built early"):
        str(found.problems[0])


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize(
    ("stored", "wanted", "castable"),
    [
        (FLOAT32, FLOAT16, True),
        (FLOAT16, FLOAT64, True),
        (14, FLOAT32, True),  # bfloat16
        (24, 25, True),  # float8_e5m2 and float8_e4m3fn
        (INT32, FLOAT32, False),
        (FLOAT32, INT32, False),
        (INT32, 9, False),
        (BOOL, FLOAT32, False),
        (7, FLOAT32, False),  # string
        (8, 18, False),  # complex64 and complex128
        (11, 6, False),  # qint8 and int8
    ],
)
def test_compares_dtypes(stored, wanted, castable, cast):
    found = plan_assignments(
        [("a/v", of_type("x", wanted))], source(dtypes={"a/v": stored}), {}, cast=cast
    )
    if castable and cast:
        assert not found.problems
        assert found.assignments[0].dtype == stored
        assert "cast to" in found.rows[0].action
        return
    (problem,) = found.problems
    assert problem.kind == "dtype" and isinstance(problem.error, TypeMismatchError)
    assert ("cast=True" in str(problem)) == castable
    assert "expected dtype" in str(problem) and "x:0" in str(problem) and "a/v" in str(problem)


def test_same_dtype_is_not_a_cast():
    found = plan_assignments(
        [("a/v", of_type("x", INT32))], source(dtypes={"a/v": INT32}), {}, cast=True
    )
    assert found.rows[0].action == "loaded"


def test_compares_partitioned_variable_as_a_whole(store):
    found = plan_assignments([("table", "t")], source({"table": (10, 5)}), store)
    assert not found.assignments and len(found.problems) == 1
    assert found.rows[0].shape == (10, 4)


def test_full_name_resolves_to_its_key(store):
    def find(name):
        return Stored("x/.ATTRIBUTES/VARIABLE_VALUE", (6,)) if name == "enc/v" else None

    found = plan_assignments([("enc/", "new2/")], Source("c", find, list), store)
    (assigned,) = found.assignments
    assert (assigned.tensor, assigned.name) == ("x/.ATTRIBUTES/VARIABLE_VALUE", "enc/v")


def test_ambiguous_name_is_a_problem(store):
    def find(name):
        raise tb.TensorNotFoundError(f"{name} is several")

    found = plan_assignments([("enc/v", "new2/v")], Source("c", find, list), store)
    assert str(found.problems[0]) == "enc/v is several"
    assert found.problems[0].kind == "setting"


HINTS = [
    ([("a/v", "new/v:0")], "remove ':0': 'new/v' exists"),
    ([("a/v:0", "new/v")], "remove ':0': 'a/v' exists"),
    ([("table", "t:0")], "remove ':0': 't' exists"),
    ([("new/v", "a/v")], r"reversed.*\{checkpoint: graph\}: give \{'a/v': 'new/v'\}"),
    ([("new/", "a/")], "reversed"),
    ([("t", "table")], "reversed"),
    ([("a/", "new")], "'new' does not end in a slash.*give 'new/'"),
    ([("a", "new/")], "'a' is a scope of the checkpoint: give 'a/'"),
    ([("a/", "nothing")], "without a slash it means the whole graph"),
    ([(1, "new/v")], "Tensor 1 is not found in model.ckpt.*a str, not int"),
    ([(1, "nowhere")], "a str, not int"),
    ([(b"a/v", "new/v")], "a str, not bytes"),
]


@pytest.mark.parametrize(("pairs", "hint"), HINTS)
def test_error_suggests_likely_fix(store, pairs, hint):
    with pytest.raises(ValueError, match=hint):
        plan(pairs, store)


def test_name_lookup_without_names_reports_given_reason():
    found = plan_assignments([("a/v", "new/v")], source(), {}, unnamed_reason="Give the variable.")
    assert str(found.problems[0]).endswith("Give the variable.")
    assert isinstance(found.problems[0].error, ValueError)
