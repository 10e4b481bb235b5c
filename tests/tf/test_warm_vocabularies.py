# SPDX-License-Identifier: Apache-2.0
"""Remapped tables equal TensorFlow's bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm_starts import both, require_same, require_same_error, write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1
pytestmark = pytest.mark.usefixtures("backend_name")

OLD = [f"t{number}" for number in range(8)]
# Shuffled: four new tokens, and one old token (t5) removed.
NEW = ["t6", "new0", "t0", "t3", "new1", "t7", "t1", "t2", "new2", "t4", "new3"]
TABLE = np.arange(24, dtype=np.float32).reshape(8, 3) + 1
CLASSES = TABLE.T.copy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save: Callable[..., str]) -> Path:
    root = tmp_path_factory.mktemp("vocabularies")
    arrays = {"emb": TABLE, "renamed": -TABLE, "classes": CLASSES}
    save(root / "model-0", arrays)
    (root / "checkpoint").write_text('model_checkpoint_path: "model-0"\n')
    write_vocabulary(root / "old.txt", OLD)
    write_vocabulary(root / "new.txt", NEW)
    slices = [TABLE[:3], TABLE[3:]]
    save(root / "sliced", [("emb", values) for values in slices], ["8 3 0,3:-", "8 3 3,5:-"])
    return root


@pytest.fixture(params=["ref", "resource"])
def resource(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "resource")


def model(
    shape: tuple[int, ...], resource: bool, partitions: int = 1, axis: int = 0, name: str = "emb"
) -> Callable[[], Any]:
    def create() -> Any:
        partitioner = tf1.fixed_size_partitioner(partitions, axis) if partitions > 1 else None
        return tf1.get_variable(
            name,
            shape,
            partitioner=partitioner,
            use_resource=resource,
            initializer=tf1.ones_initializer(),
        )

    return create


def info(folder: Path, new_size: int = len(NEW), oov: int = 0, **more: Any) -> tb.VocabInfo:
    return tb.VocabInfo(
        str(folder / "new.txt"), new_size, oov, more.pop("old", str(folder / "old.txt")), **more
    )


def settings(vocabulary: tb.VocabInfo, **more: Any) -> Callable[[Any], dict[str, Any]]:
    name = more.pop("name", "emb")
    return lambda _: {"var_name_to_vocab_info": {name: vocabulary}, **more}


def test_rows_are_remapped(folder: Path, resource: bool) -> None:
    (value,) = require_same(folder, model((11, 3), resource), settings(info(folder)))
    expected = [TABLE[OLD.index(t)] if t in OLD else np.zeros(3) for t in NEW]
    np.testing.assert_array_equal(value, expected)


INITIALIZERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "zeros": tf1.zeros_initializer,
    "zeros of v2": tf.zeros_initializer,
    "ones": tf1.ones_initializer,
    "normal": lambda: tf1.random_normal_initializer(stddev=0.5, seed=7),
    "truncated": lambda: tf1.truncated_normal_initializer(seed=8),
    "uniform": lambda: tf1.random_uniform_initializer(-2, 2, seed=9),
    "normal of v2": lambda: tf.random_normal_initializer(seed=3),
    "counting": lambda: _counting,
}


def _counting(shape: Any) -> Any:
    return 100 + tf.reshape(tf.range(tf.cast(tf.reduce_prod(shape), tf.float32)), shape)


@pytest.mark.parametrize("initializer", INITIALIZERS)
@pytest.mark.parametrize(("partitions", "oov"), [(1, 3), (5, 6)])
def test_new_rows_and_buckets_are_initialized(
    folder: Path, resource: bool, partitions: int, oov: int, initializer: str
) -> None:
    backup = INITIALIZERS[initializer]()
    shape = (len(NEW) + oov, 3)
    vocabulary = info(folder, oov=oov, backup_initializer=backup)
    (value,) = require_same(folder, model(shape, resource, partitions), settings(vocabulary))
    assert value.shape == shape
    if initializer != "ones":
        assert not (value == 1).any() or value[2, 0] == 1


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("oov", [0, 2])
@pytest.mark.parametrize("initializer", ["none", "counting"])
def test_columns_are_remapped(
    folder: Path, resource: bool, partitions: int, oov: int, initializer: str
) -> None:
    vocabulary = info(folder, oov=oov, backup_initializer=INITIALIZERS[initializer](), axis=1)
    build = model((3, len(NEW) + oov), resource, partitions, name="classes")
    (value,) = require_same(folder, build, settings(vocabulary, name="classes"))
    for column, token in enumerate(NEW):
        if token in OLD:
            np.testing.assert_array_equal(value[:, column], CLASSES[:, OLD.index(token)])


CASES: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "fewer new entries than lines": ((5, 3), {"new_size": 5}),
    "fewer, then buckets": ((7, 3), {"new_size": 5, "oov": 2}),
    "a variable smaller than its vocabulary": ((4, 3), {}),
    "fewer rows than entries and buckets": ((12, 3), {"oov": 5}),
    "fewer old entries": ((11, 3), {"old_vocab_size": 4}),
    "exactly the old entries": ((11, 3), {"old_vocab_size": 8}),
    "one row": ((1, 3), {"new_size": 1}),
    "more entries than lines, with fewer rows": ((5, 3), {"new_size": 90}),
}


@pytest.mark.parametrize("case", CASES)
def test_vocabulary_sizes_limit_the_remap(folder: Path, resource: bool, case: str) -> None:
    shape, sizes = CASES[case]
    vocabulary = info(folder, backup_initializer=tf1.random_normal_initializer(seed=1), **sizes)
    require_same(folder, model(shape, resource), settings(vocabulary))


@pytest.mark.parametrize("oov", [1, 4, 11])
@pytest.mark.parametrize("partitions", [2, 5, 11])
def test_partitions_of_buckets_are_initialized(folder: Path, oov: int, partitions: int) -> None:
    vocabulary = info(folder, oov=oov, backup_initializer=_counting)
    require_same(folder, model((11 + oov, 3), True, partitions), settings(vocabulary))


def test_renamed_and_selected_variables_are_loaded(folder: Path, resource: bool) -> None:
    def build() -> list[Any]:
        return [
            model((11, 3), resource, 2)(),
            model((8, 3), resource, name="renamed")(),
            model((3, 8), resource, name="classes")(),
        ]

    names = {"emb": "renamed", "renamed": "emb"}
    for selected in (".*", None, ["emb", "renamed"]):
        more = {"vars_to_warm_start": selected, "var_name_to_prev_var_name": names}
        table, renamed, classes = require_same(folder, build, settings(info(folder), **more))
        np.testing.assert_array_equal(table[0], -TABLE[6])
        assert (renamed[0, 0] == 1) == (selected is None) or renamed[0, 0] == TABLE[0, 0]
        assert (classes[2, 2] == CLASSES[2, 2]) == (selected == ".*")


def test_table_stored_in_slices_is_remapped(folder: Path, resource: bool) -> None:
    build = model((11, 3), resource, 3)
    (value,) = require_same(folder / "sliced", build, settings(info(folder)))
    np.testing.assert_array_equal(value[0], TABLE[6])


def test_tensorflows_vocab_info_is_accepted(folder: Path) -> None:
    original = tf1.train.VocabInfo(*info(folder))
    require_same(folder, model((11, 3), True), settings(original))
    assert tuple(original) == tuple(info(folder))


def test_subset_of_partitions_is_remapped(folder: Path, resource: bool) -> None:
    build = model((11, 3), resource, 3)
    some = settings(info(folder), vars_to_warm_start=["emb/part_[02]"])
    (value,) = require_same(folder, build, some)
    np.testing.assert_array_equal(value[4:8], np.ones((4, 3)))


CALL_ERRORS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "no new vocabulary": ((11, 3), {"new_vocab": ""}),
    "no size": ((11, 3), {"new_vocab_size": 0}),
    "no old vocabulary": ((11, 3), {"old_vocab": ""}),
    "old size is None": ((11, 3), {"old_vocab_size": None}),
    "old size is too small": ((11, 3), {"old_vocab_size": -2}),
    "more rows than entries": ((12, 3), {}),
    "no initializer": ((11, 3), {"backup_initializer": 0.5}),
    "an initializer that fails": ((11, 3), {"backup_initializer": lambda shape: 1 / 0}),
    "an initializer of another type": (
        (11, 3),
        {"backup_initializer": lambda shape: tf.zeros(shape, tf.float64)},
    ),
    "columns that do not add up": ((3, 12), {"axis": 1}),
}


@pytest.mark.parametrize("case", CALL_ERRORS)
def test_invalid_setting_raises_tensorflows_error(folder: Path, case: str) -> None:
    shape, change = CALL_ERRORS[case]
    require_same_error(folder, model(shape, True), settings(info(folder)._replace(**change)))


RUN_ERRORS = [
    "missing", "empty", "empty line", "old twice", "short", "old short", "directory", "old zero",
]  # fmt: skip


@pytest.mark.parametrize("case", RUN_ERRORS)
def test_invalid_vocabulary_raises_when_it_is_read(folder: Path, tmp_path: Path, case: str) -> None:
    vocabulary = info(folder)
    if case in ("missing", "empty", "empty line", "old twice"):
        old = tmp_path / "old.txt"
        lines = {"empty": [], "empty line": ["a", "", "b"], "old twice": ["t1", "b", "t1"]}
        if case != "missing":
            write_vocabulary(old, lines[case])
        vocabulary = vocabulary._replace(old_vocab=str(old))
    elif case == "short":
        new = write_vocabulary(tmp_path / "new.txt", NEW[:9])
        vocabulary = vocabulary._replace(new_vocab=new)
    elif case == "directory":
        vocabulary = vocabulary._replace(new_vocab=str(tmp_path))
    else:
        vocabulary = vocabulary._replace(old_vocab_size=9 if case == "old short" else 0)
    result, original = both(folder, model((11, 3), True), settings(vocabulary))
    assert result.stage == original.stage == "run"
    assert isinstance(original.error, tf.errors.OpError)
    assert isinstance(result.error, type(original.error)), (result.error, original.error)


def test_mismatched_checkpoint_raises_at_the_call(
    folder: Path, save: Callable[..., str], tmp_path: Path
) -> None:
    arrays = {
        "wide": np.zeros((8, 4), np.float32),
        "flat": np.zeros(8, np.float32),
        "double": np.zeros((8, 3), np.float64),
        "few": np.zeros((5, 3), np.float32),
    }
    prefix = save(tmp_path / "model", arrays)
    for tensor in (*arrays, "absent"):
        names = {"emb": tensor}
        renamed = settings(info(folder), var_name_to_prev_var_name=names)
        result, original = both(prefix, model((11, 3), True), renamed)
        assert (result.stage, original.stage) == ("call", "run"), tensor
        # A row outside the table is INTERNAL in TensorFlow.
        kind = tf.errors.InvalidArgumentError if tensor == "few" else type(original.error)
        assert isinstance(result.error, kind), (tensor, result.error, original.error)
        assert isinstance(result.error, tb.Error)


def test_line_ends_and_unusual_bytes_are_kept(folder: Path, tmp_path: Path) -> None:
    tokens = [
        b"a\r",
        b"\xff\x00b",
        b"  c ",
        "\N{SNOWMAN}".encode(),
        b"d",
        b"\xef\xbb\xbfe",
        b"f\tg",
    ]
    (tmp_path / "old.txt").write_bytes(b"\r\n".join([*tokens, b"last"]))
    (tmp_path / "new.txt").write_bytes(b"\n".join([*reversed(tokens), b"new", b"last\r", b"x\r"]))
    vocabulary = tb.VocabInfo(str(tmp_path / "new.txt"), 10, 0, str(tmp_path / "old.txt"))
    (value,) = require_same(folder, model((10, 3), True), settings(vocabulary))
    # Not the first token: its carriage return is part of the line end in one file only.
    assert (value[:, 0] > 0).sum() == 7


def test_private_function_sets_the_same_values(folder: Path, resource: bool) -> None:
    from tensorflow.python.training import warm_starting_util

    from tensorbundle.tf.warm_start import warm_start_var_with_vocab

    results = []
    for function in (warm_starting_util._warm_start_var_with_vocab, warm_start_var_with_vocab):
        with tf.Graph().as_default(), tf1.Session() as session:
            variable = model((14, 3), resource, 3)()
            paths = str(folder / "new.txt"), 11, str(folder), str(folder / "old.txt")
            function(
                variable,
                *paths,
                current_oov_buckets=3,
                prev_tensor_name="renamed",
                initializer=_counting,
            )
            session.run(tf1.global_variables_initializer())
            results.append(session.run(tf.convert_to_tensor(variable)))
            for invalid in ([variable], "emb", ()):
                with pytest.raises(TypeError, match="var MUST be one of"):
                    function(invalid, *paths)
            with pytest.raises(ValueError, match="Must provide all of"):
                function(variable, paths[0], 11, "", paths[3])
    np.testing.assert_array_equal(*results)


def test_eager_plan_lists_vocabulary_errors(folder: Path, tmp_path: Path) -> None:
    """The call raises before any variable changes. A graph reads its vocabularies later."""
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "twice.txt").write_bytes(b"a\nb\na\n")
    (tmp_path / "gap.txt").write_bytes(b"a\n\nb\n")
    cases: dict[str, tuple[tb.VocabInfo, type[Exception], str]] = {
        "missing": (
            info(folder)._replace(new_vocab=str(tmp_path / "gone")),
            FileNotFoundError,
            "vocabulary",
        ),
        "empty": (
            info(folder)._replace(new_vocab=str(tmp_path / "empty.txt")),
            ValueError,
            "no line",
        ),
        "twice": (
            info(folder)._replace(old_vocab=str(tmp_path / "twice.txt")),
            ValueError,
            "repeats",
        ),
        "gap": (info(folder)._replace(new_vocab=str(tmp_path / "gap.txt")), ValueError, "is empty"),
        "old size": (info(folder)._replace(old_vocab_size=99), ValueError, "old_size is 99"),
        "huge": (info(folder)._replace(old_vocab_size=2**64 + 3), ValueError, "64-bit"),
        "initializer": (
            info(folder)._replace(backup_initializer="x"),
            TypeError,
            "must be callable",
        ),
        "surrogate": (
            info(folder)._replace(new_vocab="\ud800"),
            ValueError,
            "cannot have the character",
        ),
    }
    for name, (vocabulary, kind, text) in cases.items():
        table = tf.Variable(tf.zeros([len(NEW), TABLE.shape[1]]), name="emb")
        plan = tb.tf.plan_warm_start(str(folder), [table], {"emb": vocabulary})
        assert any(text in str(problem) for problem in plan.problems), (name, plan.problems)
        with pytest.raises(kind, match=text) as raised:
            tb.warm_start(str(folder), [table], {"emb": vocabulary})
        assert not isinstance(raised.value, UnicodeError)
        assert not table.numpy().any()
