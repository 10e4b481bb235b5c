# SPDX-License-Identifier: Apache-2.0
"""`tensorbundle verify`, `diff` and `plan`: output for people and pipes, and exit status."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import in_terminal, run
from craft.bundle import Bundle, shard_path

MNIST = Path(__file__).parents[1] / "data" / "checkpoints" / "mnist_tf1"


def write(path: Path, **arrays: np.ndarray) -> Path:
    bundle = Bundle()
    for name, array in arrays.items():
        bundle.add(name.replace("__", "/"), array)
    return bundle.write(path)


# --- verify


def test_verify_for_people(tmp_path):
    screen = in_terminal("verify", MNIST)
    assert screen.status == 0
    assert screen.lines[-1].startswith("ok: 27 tensors, 671 KiB checked in ")
    bundle = Bundle(num_shards=2)
    for i in range(20):
        bundle.add(f"t{i}", np.zeros(3, np.float32), shard=i % 2)
    prefix = bundle.write(tmp_path / "c")
    shard_path(prefix, 1, 2).write_bytes(b"<html>404</html>")
    screen = in_terminal("verify", prefix)
    text = "\n".join(screen.lines)
    assert screen.status == 1
    summary = next(line for line in screen.lines if "20 tensors" in line)
    assert "10 of 20 tensors damaged; 120 B checked" in summary
    assert text.index(summary) < text.index("HTML page") < text.index("t19")
    assert text.count("HTML page") == 1


# --- diff


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    ones = np.ones((2, 3), np.float32)
    first = write(tmp_path / "a", same=ones, changed=ones, old=np.arange(5.0), gone=np.zeros(2))
    second = write(tmp_path / "b", same=ones, changed=ones + 0.5, new=np.arange(5.0))
    return first, second


def test_diff_of_equal_checkpoints(capsys):
    assert run(capsys, "diff", MNIST, MNIST) == (0, "same: 27 tensors\n", "")
    screen = in_terminal("diff", MNIST, MNIST)
    assert (screen.status, screen.lines[-1]) == (0, "same: 27 tensors")


def test_diff_prints_the_summary_first(capsys, pair):
    status, out, err = run(capsys, "diff", *pair)
    lines = out.splitlines()
    assert (status, err) == (1, "")
    assert lines[0] == "different: 1 changed, 1 only in a, 1 renamed, 1 unchanged"
    assert sorted(line.split("\t")[0] for line in lines[1:]) == ["changed", "only in a", "renamed"]
    assert {len(line.split("\t")) for line in lines[1:]} == {8}


def test_diff_values_and_tolerance(capsys, pair):
    _, out, _ = run(capsys, "diff", *pair, "--values")
    (row,) = (line.split("\t") for line in out.splitlines() if line.startswith("changed"))
    assert row[4:7] == ["6 of 6", "0.5", "0.333"]
    _, out, _ = run(capsys, "diff", *pair, "--atol", "0.6", "--rename", "^old$=new")
    assert out.startswith("different: 1 only in a, 3 unchanged (1 within the tolerance)\n")


def test_diff_json(capsys, pair):
    status, out, _ = run(capsys, "diff", *pair, "--json")
    document = json.loads(out)
    assert (status, document["same"]) == (1, False)
    assert [item["name"] for item in document["changed"]] == ["changed"]
    assert document["renamed"] == [["old", "new"]]


def test_diff_for_people(pair):
    screen = in_terminal("diff", *pair, "--values")
    text = "\n".join(screen.lines)
    assert screen.status == 1
    assert "different: 1 changed, 1 only in a, 1 renamed, 1 unchanged" in screen.lines
    assert "old -> new" in text
    assert "max abs" in text
    assert max(map(len, screen.lines[-6:])) <= 80


# --- plan


def variables(folder: Path, content: object) -> Path:
    path = folder / "variables.json"
    path.write_text(json.dumps(content))
    return path


def test_plan_loads_variables_of_the_same_names(capsys, tmp_path):
    prefix = write(tmp_path / "m", a__w=np.zeros((2, 3), np.float32), b=np.zeros(4))
    file = variables(tmp_path, {"a/w": [2, 3], "b": {"shape": [None], "dtype": "float64"}})
    status, out, err = run(capsys, "plan", prefix, "--variables", file)
    assert (status, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0] == ["ok: 2 variables can be loaded"]
    assert [line[:4] for line in lines[1:]] == [
        ["loaded", "a/w", "a/w", "[2, 3]"],
        ["loaded", "b", "b", "[4] -> [?]"],
    ]


def test_plan_lists_all_problems(capsys, tmp_path):
    prefix = write(tmp_path / "m", a__w=np.zeros((2, 3), np.float32), spare=np.zeros(4))
    file = variables(
        tmp_path,
        {"x/w": [2, 4], "x/v": [1], "y": {"shape": [4], "dtype": "float32"}, "z": None},
    )
    words = ["--map", "a/=x/", "--map", "spare=y", "--map", "spare=z"]
    status, out, _ = run(capsys, "plan", prefix, "--variables", file, *words)
    assert status == 1
    assert out.splitlines()[0] == "3 problems: 1 variable can be loaded, 3 cannot"
    kinds = [line.split("\t")[0] for line in out.splitlines()[1:]]
    assert kinds.count("error") == 3
    assert kinds.count("problem") == 3
    assert kinds.count("untouched") == 3
    document = json.loads(run(capsys, "plan", prefix, "--variables", file, *words, "--json")[1])
    assert document["ok"] is False
    assert len(document["problems"]) == 3
    assert document["untouched"] == ["x/w", "x/v", "y"]
    assert document["unused"] == ["a/w"]


def test_plan_cast(capsys, tmp_path):
    prefix = write(tmp_path / "m", b=np.zeros(4))
    file = variables(tmp_path, {"b": {"shape": [4], "dtype": "bfloat16"}})
    assert run(capsys, "plan", prefix, "--variables", file)[0] == 1
    assert run(capsys, "plan", prefix, "--variables", file, "--cast")[0] == 0


def test_plan_for_people(tmp_path):
    prefix = write(tmp_path / "m", w=np.zeros((2, 3), np.float32), spare=np.zeros(4))
    file = variables(tmp_path, {"w": [3, 3], "v": [1]})
    screen = in_terminal("plan", prefix, "--variables", file)
    text = "\n".join(screen.lines)
    assert screen.status == 1
    assert screen.lines[0] == "2 problems: 0 variables can be loaded, 2 cannot"
    assert "problems (2):" in text
    assert "tensors that are not used (2): 'spare', 'w'" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1], "must be an object"),
        ({"a": "x"}, "must be a list of integers"),
        ({"a": [True]}, "must be a list of integers"),
        ({"a": [-1]}, "must be a list of integers"),
        ({"a": {"dtype": "float32"}}, "must have a shape"),
        ({"a": {"shape": [1], "size": 3}}, "must have a shape"),
        ({"a": {"shape": [1], "dtype": "float33"}}, "unknown dtype"),
    ],
)
def test_invalid_variables_print_one_line(capsys, tmp_path, content, expected):
    file = variables(tmp_path, content)
    status, out, err = run(capsys, "plan", MNIST, "--variables", file)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert expected in err
