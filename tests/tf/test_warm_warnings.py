# SPDX-License-Identifier: Apache-2.0
"""The call warns about settings and vocabularies that TensorFlow accepts without a warning."""

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

TABLE = np.arange(1, 25, dtype=np.float32).reshape(8, 3)
TOKENS = [f"tok{i}" for i in range(8)]


@pytest.fixture
def folder(tmp_path: Path, save: Callable[..., str]) -> Path:
    save(tmp_path / "m", {"emb": TABLE, "classes": TABLE.T.copy(), "emb/Slot": -TABLE})
    write_vocabulary(tmp_path / "old.txt", TOKENS)
    write_vocabulary(tmp_path / "new.txt", [TOKENS[3], "x", TOKENS[0]])
    return tmp_path


def warm(
    folder: Path, rows: int = 3, eager: bool = False, *, name: str = "emb", run: bool = True,
    new: str = "new.txt", old: str = "old.txt", **settings: Any,
) -> list[str]:  # fmt: skip
    """Warm-starts a table; returns the warnings."""
    vocabulary = tb.VocabInfo(
        str(folder / new), settings.pop("size", 3), settings.pop("oov", 0), str(folder / old),
        **settings,
    )  # fmt: skip
    shape = (rows, 3) if name == "emb" else (3, rows)
    if eager:
        with logged() as lines:
            variable = tf.Variable(tf.zeros(shape), name=name)
            tb.warm_start(folder / "m", [variable], {name: vocabulary})
    else:
        with tf.Graph().as_default(), tf1.Session() as session, logged() as lines:
            variable = tf1.get_variable(name, shape, initializer=tf1.zeros_initializer())
            tb.warm_start(folder / "m", None, {name: vocabulary})
            if run:
                session.run(variable.initializer)
    return [line.removeprefix("WARNING ") for line in lines if line.startswith("WARNING")]


@pytest.mark.parametrize("eager", [False, True])
def test_matching_vocabularies_cause_no_warning(folder: Path, eager: bool) -> None:
    assert not warm(folder, eager=eager)
    assert not warm(folder, 5, eager, oov=2)
    assert not warm(folder, eager=eager, name="classes", axis=1)
    assert not warm(folder, eager=eager, old_vocab_size=4)


@pytest.mark.parametrize("eager", [False, True])
def test_vocabularies_without_common_token_warn(folder: Path, eager: bool) -> None:
    write_vocabulary(folder / "counts.txt", [f"{token}\t7" for token in TOKENS[:3]])
    (line,) = warm(folder, eager=eager, new="counts.txt")
    assert "'emb': none of the 3 tokens of" in line and "among the 8 of" in line
    assert "counts.txt has tabs" in line


def test_inconsistent_sizes_warn(folder: Path) -> None:
    (line,) = warm(folder, oov=2)
    assert "new_vocab_size (3) + num_oov_buckets (2) = 5, but the variable has 3 rows" in line
    write_vocabulary(folder / "longer.txt", [*TOKENS, "tok8"])
    (line,) = warm(folder, old="longer.txt")
    assert "old_vocab has 9 tokens, the table has 8 rows: set old_vocab_size=8" in line
    assert not warm(folder, old="longer.txt", old_vocab_size=8)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize(("name", "entries"), [("emb", "rows"), ("classes", "columns")])
def test_old_token_beyond_the_table_raises_at_the_call(
    folder: Path, eager: bool, name: str, entries: str
) -> None:
    """TensorFlow rejects a row when the initializers run; for a column it reads out of bounds."""
    write_vocabulary(folder / "longer.txt", [*TOKENS, "tok8"])
    write_vocabulary(folder / "new.txt", [TOKENS[3], "tok8", TOKENS[0]])
    axis = int(name == "classes")
    for old in ({"old": "longer.txt"}, {"old": "longer.txt", "old_vocab_size": 9}):
        with pytest.raises(
            ValueError, match=f"the table has 8 {entries}: set old_vocab_size=8"
        ) as c:
            warm(folder, eager=eager, name=name, axis=axis, **old)
        assert isinstance(c.value, (tf.errors.InvalidArgumentError))
        assert isinstance(c.value, tb.Error)
    plan_problems = problems(folder, name, axis)
    assert len(plan_problems) == 1 and "set old_vocab_size=8" in plan_problems[0]
    assert not warm(folder, eager=eager, name=name, axis=axis, old="longer.txt", old_vocab_size=8)


def problems(folder: Path, name: str, axis: int) -> tuple[str, ...]:
    with tf.Graph().as_default():
        tf1.get_variable(name, (3, 3))
        new, old = str(folder / "new.txt"), str(folder / "longer.txt")
        infos = {name: tb.VocabInfo(new, 3, 0, old, axis=axis)}
        return tb.tf.plan_warm_start(folder / "m", None, infos).problems


def test_old_token_beyond_remote_table_warns(folder: Path, backend_name: str) -> None:
    write_vocabulary(folder / "longer.txt", [*TOKENS, "tok8"])
    write_vocabulary(folder / "new.txt", [TOKENS[3], "tok8", TOKENS[0]])
    with tf.Graph().as_default(), tf1.device("/job:ps/task:0"), logged() as lines:
        tf1.get_variable("emb", (3, 3))
        new, old = str(folder / "new.txt"), str(folder / "longer.txt")
        tb.warm_start(folder / "m", None, {"emb": tb.VocabInfo(new, 3, 0, old)})
    assert any("set old_vocab_size=8" in line for line in lines if line.startswith("WARNING"))


@pytest.mark.parametrize("which", ["new", "old"])
def test_missing_vocabulary_warns_and_raises_when_read(
    folder: Path, backend_name: str, which: str
) -> None:
    path = folder / f"{which}.txt"
    content = path.read_bytes()
    path.unlink()
    (line,) = warm(folder, run=False)
    assert f"the vocabulary file {path} does not exist here" in line
    with pytest.raises(tf.errors.OpError) as caught:
        warm(folder)
    if backend_name != "stock":
        assert isinstance(caught.value, tf.errors.NotFoundError)
        message = str(caught.value).replace("'", "")
        assert f"{path} does not exist" in message and "vocabulary" in message
    path.write_bytes(content)
    assert not warm(folder)


INITIALIZER_ERRORS = {
    "size": ({"size": 4, "rows": 4}, "new_vocab_size is 4, but"),
    "old size": ({"old_vocab_size": 9}, "old_size is 9|8"),
    "empty line": ({"old": "gap.txt"}, "is empty"),
    "twice": ({"old": "twice.txt"}, "repeats"),
}


@pytest.mark.parametrize("case", INITIALIZER_ERRORS)
def test_errors_of_initializers_warn_at_the_call(folder: Path, case: str) -> None:
    write_vocabulary(folder / "gap.txt", ["a", "", "b"])
    write_vocabulary(folder / "twice.txt", ["a", "b", "a"])
    settings, text = INITIALIZER_ERRORS[case]
    lines = warm(folder, run=False, **settings)
    assert any("will fail" in line and text.partition("|")[0] in line for line in lines)
    with pytest.raises(tf.errors.OpError):
        warm(folder, **settings)


def test_path_with_nul_byte_raises(folder: Path) -> None:
    with tf.Graph().as_default():
        tf1.get_variable("emb", (3, 3))
        path = str(folder / "new.txt") + "\0x"
        with pytest.raises(ValueError, match="NUL"):
            tb.warm_start(folder / "m", None, {"emb": tb.VocabInfo(path, 3, 0, path)})


def test_empty_path_raises_at_the_call(folder: Path) -> None:
    for function in (tb.warm_start, tf1.train.warm_start):
        with tf.Graph().as_default():
            tf1.get_variable("emb", (3, 3))
            new, old = str(folder / "new.txt"), str(folder / "old.txt")
            with pytest.raises(ValueError, match="Must provide all of"):
                function("", None, {"emb": tb.VocabInfo(new, 3, 0, old)})


@pytest.mark.parametrize("selection", [".*", "embeding", None, ["nothing"], []])
@pytest.mark.parametrize("eager", [False, True])
def test_selection_of_no_variable_warns(folder: Path, selection: Any, eager: bool) -> None:
    if eager:
        tf1.reset_default_graph()
        with logged() as lines:
            report = tb.warm_start(folder / "m", selection)
    else:
        with tf.Graph().as_default(), logged() as lines:
            if selection == ".*" or selection is None:
                tf1.get_variable("emb", (3, 3), trainable=False)
            else:
                tf1.get_variable("emb", (3, 3))
            report = tb.warm_start(folder / "m", selection)
    (line,) = [line for line in lines if line.startswith("WARNING")]
    assert "selects no variable" in line and repr(selection) in line
    assert ("eager mode" in line) == (eager and selection != [])
    assert report.loaded == {}


def test_empty_map_warns(folder: Path) -> None:
    with tf.Graph().as_default(), logged() as lines:
        tf1.get_variable("emb", (3, 3))
        assert tb.init_from_checkpoint(folder / "m", {}).loaded == {}
        plan = tb.tf.plan_init(folder / "m", {})
    (line,) = [line for line in lines if line.startswith("WARNING")]
    assert "assignment map is empty" in line and plan.warnings and not plan.problems


def test_plan_lists_warnings_and_apply_logs_them(folder: Path) -> None:
    write_vocabulary(folder / "other.txt", ["a", "b", "c"])
    with tf.Graph().as_default(), logged() as lines:
        tf1.get_variable("emb", (3, 3))
        new, old = str(folder / "other.txt"), str(folder / "old.txt")
        plan = tb.tf.plan_warm_start(folder / "m", None, {"emb": tb.VocabInfo(new, 3, 0, old)})
        assert not lines and not plan.problems
        (warning,) = plan.warnings
        assert "none of the 3 tokens" in warning and warning in str(plan)
        plan.apply()
        assert f"WARNING {warning}" in lines


def test_slot_causes_no_second_warning(folder: Path) -> None:
    with tf.Graph().as_default(), logged() as lines:
        tf1.get_variable("emb", (3, 3))
        tf1.get_variable("emb/Slot", (3, 3), trainable=False)
        new, old = str(folder / "new.txt"), str(folder / "old.txt")
        tb.warm_start(folder / "m", [".*"], {"emb": tb.VocabInfo(new, 3, 2, old)})
    assert sum("num_oov_buckets" in line for line in lines) == 1


def test_large_vocabularies_are_sampled(folder: Path, save: Callable[..., str]) -> None:
    """The call reads a sample of matching vocabularies; a plan reads all lines."""
    size = 400_000
    prefix = save(folder / "large", {"emb": np.zeros((size, 1), np.float32)})
    write_vocabulary(folder / "old.txt", (f"token{i}" for i in range(size)))
    order = np.random.default_rng(0).permutation(size)
    write_vocabulary(folder / "new.txt", (f"token{i}" for i in order))
    write_vocabulary(folder / "foreign.txt", (f"TOKEN{i}" for i in order))

    def start(function: Callable[..., Any], new: str) -> tuple[Any, list[str]]:
        with tf.Graph().as_default(), logged() as lines:
            tf1.get_variable("emb", (size, 1))
            info = tb.VocabInfo(str(folder / new), size, 0, str(folder / "old.txt"))
            result = function(prefix, None, {"emb": info})
        return result, [line for line in lines if line.startswith("WARNING")]

    before = _bytes_read()
    assert not start(tb.warm_start, "new.txt")[1]
    assert _bytes_read() - before < 1 << 20
    _, (line,) = start(tb.warm_start, "foreign.txt")
    assert f"none of the {size} tokens" in line and "upper and lower case" in line
    plan, _ = start(tb.tf.plan_warm_start, "new.txt")
    assert f"{size} of {size} rows" in str(plan)


def _bytes_read() -> int:
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        pytest.skip("this system does not count reads")
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))
