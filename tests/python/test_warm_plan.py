# SPDX-License-Identifier: Apache-2.0
"""Warm-start plans: selection, names, vocabularies, optimizer slots."""

import pickle

import pytest

import tensorbundle as tb
from tensorbundle.load_plan import Stored
from tensorbundle.variables import Slice, Variable
from tensorbundle.vocab import check_vocab_info
from tensorbundle.warm_plan import (
    Group,
    Load,
    Remap,
    VocabInfo,
    compare_table,
    find_keys,
    log_messages,
    plan_warm_start,
    select_variables,
)

EMB = VocabInfo("new", 5, 1, "old")


def variable(name, shape):
    return Variable(f"{name}:0", shape, None, None)


def partitions(name, shape, *rows):
    """Returns the partitions of a variable that is partitioned along axis 0."""
    partitions, first = [], 0
    for number, count in enumerate(rows):
        part_shape = (count, *shape[1:])
        info = Slice(name, shape, (first, *[0] * (len(shape) - 1)), part_shape)
        partitions.append(Variable(f"{name}/part_{number}:0", part_shape, info, None))
        first += count
    return partitions


def group(*partitions, trainable=True):
    return Group(partitions, trainable)


def plan(groups, infos=(), names=(), *, load_others=True, stored=()):
    """Returns the plan, or raises its first problem."""
    found = plan_warm_start(
        groups, dict(infos), dict(names), load_others=load_others, stored=dict(stored).get
    )
    for problem in found.problems:
        raise problem.error
    return found


def steps(*args, **kwargs):
    return list(plan(*args, **kwargs).steps)


MODEL = {"emb": group(variable("emb", (6, 2))), "bias": group(variable("bias", (3,)))}


def test_vocab_info_has_tensorflows_fields_and_defaults():
    assert VocabInfo._fields == (
        "new_vocab",
        "new_vocab_size",
        "num_oov_buckets",
        "old_vocab",
        "old_vocab_size",
        "backup_initializer",
        "axis",
    )
    assert VocabInfo("n", 1, 0, "o") == ("n", 1, 0, "o", -1, None, 0)
    assert pickle.loads(pickle.dumps(EMB)) == EMB
    assert type(EMB._replace(axis=1)) is VocabInfo


@pytest.mark.parametrize("axis", [2, -1, "0", None])
def test_vocab_info_rejects_other_axes(axis):
    with pytest.raises(ValueError, match="only supported values for the axis argument are 0 and 1"):
        VocabInfo("n", 1, 0, "o", axis=axis)


@pytest.mark.parametrize("axis", [0, 1, True, 1.0])
def test_vocab_info_accepts_values_equal_to_an_axis(axis):
    assert VocabInfo("n", 1, 0, "o", axis=axis).axis == axis


class Collections:
    """A fake of a graph's collections that records the lookups."""

    def __init__(self):
        self.lookups = []

    def __call__(self, key, scope):
        self.lookups.append((key, scope))
        return [f"{key}-{scope}"]


def is_variable(thing):
    return isinstance(thing, float)


def test_string_or_none_selects_trainable_variables():
    for wanted in (".*", "", None):
        collections = Collections()
        found, from_trainable = select_variables(wanted, collections, is_variable)
        assert collections.lookups == [("trainable_variables", wanted)]
        assert found and from_trainable


def test_string_list_selects_global_variables_per_string():
    collections = Collections()
    found, from_trainable = select_variables(["a", "a"], collections, is_variable)
    assert collections.lookups == [("variables", "a")] * 2
    assert len(found) == 2 and not from_trainable
    assert select_variables([], collections, is_variable) == ([], False)


def test_list_of_variables_selects_itself():
    assert select_variables([1.0, 2.0], Collections(), is_variable) == ([1.0, 2.0], False)


@pytest.mark.parametrize("wanted", [("a",), b"a", {"a"}, 3, ["a", 1.0], [["a"]], [None]])
def test_other_selections_raise_value_error(wanted):
    with pytest.raises(ValueError, match="vars_to_warm_start"):
        select_variables(wanted, Collections(), is_variable)


def test_groups_without_vocabulary_are_loaded_by_name():
    assert steps(MODEL, names={"bias": "b"}) == [
        Load("emb", "emb", None),
        Load("bias", "b", "b"),
    ]


def test_without_selection_only_vocabularies_are_remapped():
    found = plan(MODEL, {"emb": EMB}, {"bias": "b"}, load_others=False)
    assert [(type(step), step.group) for step in found.steps] == [(Remap, "emb")]
    assert not found.unused


def test_shared_tensor_is_assigned_repeatedly():
    groups = {name: group(variable(name, (2,))) for name in "abcd"}
    found = steps(groups, names={"a": "t", "c": "t", "d": "t"})
    assert [(step.group, step.repeats) for step in found] == [
        ("a", None),
        ("b", None),
        ("c", "a"),
        ("d", "c"),
    ]


def test_repeated_tensor_ends_the_batch_of_all_others():
    groups = {name: group(variable(name, (2,))) for name in "abcdef"}
    found = steps(groups, names={"a": "t", "b": "u", "c": "t", "d": "u", "e": "t"})
    # "c" ends the batch of "a" and "b", so that "d" repeats nothing of the next one.
    assert [step.repeats for step in found] == [None, None, "a", None, "c", None]


def test_falsy_settings_are_unused():
    found = plan(MODEL, {"emb": None, "bias": ()}, {"emb": ""})
    assert [(type(step), step.tensor) for step in found.steps] == [(Load, "emb"), (Load, "bias")]
    names, vocabularies = map(str, found.unused)
    assert "var_name_to_prev_var_name that were not used: {'emb'}" in names
    assert "var_name_to_vocab_info" in vocabularies and "'bias'" in vocabularies


def test_unused_settings_raise_value_error():
    first, second = plan(MODEL, {"emb:0": EMB}, {"bais": "b"}).unused
    with pytest.raises(ValueError, match=r"var_name_to_prev_var_name.*'bais'.*'emb', 'bias'"):
        raise first.error
    with pytest.raises(ValueError, match=r"var_name_to_vocab_info.*'emb:0'.*Remove ':0': 'emb'"):
        raise second.error
    assert not plan(MODEL).unused


def test_plan_lists_every_problem():
    infos = {
        "emb": EMB._replace(new_vocab=""),
        "bias": EMB._replace(new_vocab_size=1),
        "w": "new.txt",
    }
    groups = {**MODEL, "w": group(variable("w", (3, 3))), "v": group(variable("v", (2,)))}
    found = plan_warm_start(groups, infos, {}, load_others=True, stored={}.get)
    assert [str(problem).split()[0] for problem in found.problems] == [
        "Invalid",
        "'bias':",
        "'str'",
    ]
    assert [step.group for step in found.steps] == ["v"]


def test_two_variables_of_one_name_raise_value_error():
    twice = {"v": group(variable("v", (6, 2)), variable("v", (6, 2)))}
    with pytest.raises(ValueError, match="At least two variables have the same name: v"):
        steps(twice)
    with pytest.raises(ValueError, match="At least two variables have the same name: v"):
        steps(twice, {"v": EMB})
    mixed = {"v": group(variable("v", (6, 2)), *partitions("v", (6, 2), 6))}
    with pytest.raises(ValueError, match="Mixing slices and non-slices"):
        steps(mixed)
    halves = partitions("v", (6, 2), 3, 3)
    (step,) = steps({"v": group(*halves, *halves)}, {"v": EMB})
    assert [partition.offset for partition in step.partitions] == [0, 3, 0, 3]


@pytest.mark.parametrize(
    "change", [{"new_vocab": ""}, {"new_vocab_size": 0}, {"old_vocab": ""}, {"old_vocab": None}]
)
def test_incomplete_vocabulary_raises_value_error(change):
    with pytest.raises(ValueError, match="Invalid args: Must provide all of"):
        steps(MODEL, {"emb": EMB._replace(**change)})


def test_invalid_numbers_raise_error():
    with pytest.raises(ValueError, match="old_vocab_size"):
        check_vocab_info(EMB._replace(old_vocab_size=-2))
    with pytest.raises(TypeError):
        check_vocab_info(EMB._replace(old_vocab_size=None))
    with pytest.raises(ValueError, match="num_oov_buckets must be >= 0"):
        check_vocab_info(EMB._replace(num_oov_buckets=-1))
    with pytest.raises(ValueError, match="axis"):
        check_vocab_info(EMB._replace(axis=2))


def test_log_matches_tensorflows_log():
    first, second = steps(MODEL, {"emb": EMB._replace(old_vocab_size=4)}, {"emb": "e"})
    assert list(log_messages(first)) == [
        "Warm-starting variable: emb; current_vocab: new current_vocab_size: 5 prev_vocab: old "
        "prev_vocab_size: 4 current_oov: 1 prev_tensor: e initializer: zero-initialized"
    ]
    assert list(log_messages(second)) == ["Warm-starting variable: bias; prev_var_name: Unchanged"]


KEY = "x/.ATTRIBUTES/VARIABLE_VALUE"


def finding(**keys):
    return lambda name: Stored(keys[name], (2,)) if name in keys else None


def test_object_graph_renames_every_group_or_fails():
    assert find_keys(finding(a=KEY, b="y"), ["a"], skip=False) == ({"a": KEY}, [])
    found, (problem,) = find_keys(finding(a=KEY), ["a", "c"], skip=False)
    assert found == {"a": KEY} and problem.kind == "missing"
    with pytest.raises(ValueError, match=r"did not contain values for all variables.*\{'c'\}"):
        raise problem.error
    assert find_keys(finding(a=KEY), ["a", "c"], skip=True) == ({"a": KEY}, [])


def test_ambiguous_full_name_is_a_problem():
    def find(name):
        raise tb.TensorNotFoundError(f"{name} is several")

    found, (problem,) = find_keys(find, ["a"], skip=True)
    assert found == {} and str(problem) == "a is several"


FLOAT32, FLOAT64, INT32 = 1, 2, 3


def table(shape=(6, 2), dtype=FLOAT32, info=EMB):
    """Returns a remapping step and its variables."""
    whole = Variable("emb:0", shape, None, None, dtype)
    (step,) = steps({"emb": group(whole)}, {"emb": info})
    return step, [whole]


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        (Stored("emb", (9, 2), FLOAT32), None),
        (Stored("emb", (9, 2)), None),
        (Stored("emb", (9, 3), FLOAT32), "shape"),
        (Stored("emb", (9,), FLOAT32), "shape"),
        (Stored("emb", (9, 2), FLOAT64), "dtype"),
        (Stored("emb", (9, 2), INT32), "dtype"),
        (None, "missing"),
    ],
)
def test_compares_table_with_its_variables(stored, kind):
    problem = compare_table(*table(), stored, "model", cast=False)
    assert (problem and problem.kind) == kind
    assert not problem or "emb" in str(problem)


def test_cast_accepts_other_float_types():
    for dtype, castable in ((FLOAT64, True), (INT32, False)):
        problem = compare_table(*table(), Stored("emb", (9, 2), dtype), "model", cast=True)
        assert (problem is None) == castable


def test_column_remap_requires_all_rows():
    step, variables = table((3, 6), info=EMB._replace(axis=1))
    for shape, fits in (((3, 9), True), ((4, 9), True), ((2, 9), False), ((3,), False)):
        problem = compare_table(step, variables, Stored("emb", shape, FLOAT32), "m", cast=False)
        assert (problem is None) == fits


SLOT = {**MODEL, "emb/Adagrad": group(variable("emb/Adagrad", (6, 2)), trainable=False)}
STORED = {"emb": (9, 2), "emb/Adagrad": (9, 2)}


def test_slots_use_vocabulary_of_their_table():
    found = {step.group: step for step in steps(SLOT, {"emb": EMB}, stored=STORED)}
    assert found["emb/Adagrad"].slot_of == "emb"
    assert found["emb/Adagrad"].partitions == found["emb"].partitions
    assert found["emb/Adagrad"].info is EMB
    assert list(log_messages(found["emb/Adagrad"])) == [
        "Warm-starting variable: emb/Adagrad; prev_var_name: Unchanged"
    ]


def test_slots_of_renamed_table_are_found():
    names = {"emb": "e", "emb/Adagrad": "e/Adagrad"}
    stored = {"e": (9, 2), "e/Adagrad": (9, 2)}
    found = {step.group: step for step in steps(SLOT, {"emb": EMB}, names, stored=stored)}
    assert found["emb/Adagrad"].slot_of == "emb"
    assert found["emb/Adagrad"].tensor == "e/Adagrad"


def test_partitioned_slots_use_partitions_of_their_table():
    groups = {
        "emb": group(*partitions("emb", (6, 2), 4, 2)),
        "emb/Adagrad": group(*partitions("emb/Adagrad", (6, 2), 4, 2), trainable=False),
    }
    table, slot = steps(groups, {"emb": EMB}, stored=STORED)
    assert slot.slot_of == "emb" and slot.partitions == table.partitions


@pytest.mark.parametrize(
    ("groups", "infos", "stored"),
    [
        (SLOT, {}, STORED),
        ({**SLOT, "emb/Adagrad": group(variable("emb/Adagrad", (6, 2)))}, {"emb": EMB}, STORED),
        (
            {**SLOT, "emb/Adagrad": group(variable("s", (6,)), trainable=False)},
            {"emb": EMB},
            STORED,
        ),
        (SLOT, {"emb": EMB}, {"emb": (9, 2), "emb/Adagrad": (6, 2)}),
        (SLOT, {"emb": EMB}, {}),
    ],
    ids=["no-vocabulary", "trained", "other-shape", "stored-otherwise", "nothing-stored"],
)
def test_variable_that_is_not_a_slot_is_loaded(groups, infos, stored):
    found = {step.group: step for step in steps(groups, infos, stored=stored)}
    assert isinstance(found["emb/Adagrad"], Load)


def test_slot_with_own_vocabulary_uses_it():
    own = EMB._replace(old_vocab="other")
    found = {
        step.group: step for step in steps(SLOT, {"emb": EMB, "emb/Adagrad": own}, stored=STORED)
    }
    assert found["emb/Adagrad"].slot_of is None
    assert found["emb/Adagrad"].info is own


def test_slots_are_ignored_without_selection():
    found = steps(SLOT, {"emb": EMB}, load_others=False, stored=STORED)
    assert [step.group for step in found] == ["emb"]
