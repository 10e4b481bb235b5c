# SPDX-License-Identifier: Apache-2.0
"""`tensorbundle edit`, `convert` and `average`: options, reports, dry runs and exit status."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from command_line import in_terminal, run
from craft.bundle import Bundle, shard_path

import tensorbundle as tb
from tensorbundle import cli_write

SLOTS = Path(__file__).parents[1] / "data" / "checkpoints" / "optimizer_slots"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    bundle = Bundle()
    bundle.add("dense/kernel", np.arange(6, dtype=np.float32).reshape(2, 3))
    bundle.add("dense/kernel/Adam", np.zeros((2, 3), np.float32))
    bundle.add("emb", np.arange(20, dtype=np.float32).reshape(10, 2))
    bundle.add("step", np.int64(7))
    return bundle.write(tmp_path / "source")


def damage(prefix: Path) -> None:
    path = shard_path(prefix, 0, 1)
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path) as file:
            return dict(file)
    return tb.load(path)


# Each option with the names that it leaves, on `edit` and `convert` alike.
OPTIONS = [
    ([], {"dense/kernel", "dense/kernel/Adam", "emb", "step"}),
    (["--no-slots"], {"dense/kernel", "emb", "step"}),
    (["--keep", "dense/*", "--keep", "step"], {"dense/kernel", "dense/kernel/Adam", "step"}),
    (["--drop", "dense/*"], {"emb", "step"}),
    (["--rename", "^dense/=fc/", "--rename", "kernel=w", "--no-slots"], {"fc/w", "emb", "step"}),
    (["--rename", "(?=emb)=x", "--keep", "emb"], {"xemb"}),
    (["--rename", "^dense/=", "--no-slots"], {"kernel", "emb", "step"}),
]


@pytest.mark.parametrize("command", ["edit", "convert"])
@pytest.mark.parametrize(("options", "names"), OPTIONS)
def test_names(capsys, source, tmp_path, command, options, names):
    destination = tmp_path / ("new" if command == "edit" else "new.npz")
    status, out, err = run(capsys, command, source, destination, *options)
    assert (status, err) == (0, "")
    assert out.startswith(f"{destination}: ")
    assert out.count("\n") == 1
    assert set(read(destination)) == names


@pytest.mark.parametrize("command", ["edit", "convert"])
def test_values(capsys, source, tmp_path, command):
    destination = tmp_path / ("new" if command == "edit" else "new.npz")
    options = ["--transpose", "dense/kernel", "--cast", "float32=float16", "--cast", "emb=float64"]
    assert run(capsys, command, source, destination, *options)[0] == 0
    found = read(destination)
    assert found["dense/kernel"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["dense/kernel"].dtype == np.float16
    assert found["emb"].dtype == np.float64
    assert found["step"] == 7
    options = ["--transpose", "dense/kernel=1,0", "--cast", "float16", "--overwrite"]
    assert run(capsys, command, source, destination, *options)[0] == 0
    found = read(destination)
    assert found["dense/kernel"].shape == (3, 2)
    assert found["emb"].dtype == np.float16


@pytest.mark.parametrize("command", ["edit", "convert"])
def test_rules_file(capsys, source, tmp_path, command):
    rules = tmp_path / "rules.toml"
    rules.write_text(
        "[[rule]]\nmatch = '(.*)/kernel'\nname = '\\1.weight'\ntranspose = true\n"
        "[[rule]]\nmatch = '.*/Adam'\ndrop = true\n"
    )
    destination = tmp_path / ("new" if command == "edit" else "new.npz")
    assert run(capsys, command, source, destination, "--rules", rules)[0] == 0
    assert set(read(destination)) == {"dense.weight", "emb", "step"}
    rules.write_text("[[rule]]\nmatch = '('\n")
    status, out, err = run(capsys, command, source, destination, "--rules", rules, "--overwrite")
    assert (status, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("command", ["edit", "convert"])
def test_dry_run_writes_nothing(capsys, source, tmp_path, command):
    destination = tmp_path / "out" / "new.npz"
    options = ["--dry-run", "--no-slots", "--rename", "emb=table", "--cast", "emb=float16"]
    status, out, err = run(capsys, command, source, destination, *options)
    rows = [line.split("\t") for line in out.splitlines()[1:]]
    assert (status, err) == (0, "")
    assert rows == [
        ["dropped", "dense/kernel/Adam", ""],
        ["renamed", "emb", "table"],
        ["cast", "table", "float32 -> float16"],
    ]
    assert not destination.parent.exists()
    document = json.loads(run(capsys, command, source, destination, *options, "--json")[1])
    assert document["dry_run"] is True
    assert document["renamed"] == {"emb": "table"}
    screen = in_terminal(command, source, destination, *options)
    assert screen.status == 0
    assert screen.lines[-1] == "dry run: nothing was written"
    assert not destination.parent.exists()


@pytest.mark.parametrize("command", ["edit", "convert"])
def test_options_without_effect_warn_and_fail_if_strict(capsys, source, tmp_path, command):
    destination = tmp_path / "new.npz"
    options = ["--drop", "densse/*"]
    status, out, err = run(capsys, command, source, destination, *options, "--strict")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "'densse/*'" in err
    assert not list(tmp_path.glob("new*"))
    status, _, err = run(capsys, command, source, destination, *options)
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith("tensorbundle: warning: ")
    options = ["--drop", "densse/*", "--drop", "emmb*", "--overwrite"]
    lines = run(capsys, command, source, destination, *options)[2].splitlines()
    assert (lines[0], len(lines)) == ("tensorbundle: 2 warnings:", 3)
    assert run(capsys, command, source, destination, "--overwrite", "--strict")[0] == 0


@pytest.mark.parametrize("command", ["edit", "convert"])
def test_existing_destination(capsys, source, tmp_path, command):
    destination = tmp_path / "new.npz"
    assert run(capsys, command, source, destination)[0] == 0
    status, out, err = run(capsys, command, source, destination)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "new.npz" in err
    assert run(capsys, command, source, destination, "--overwrite")[0] == 0
    assert run(capsys, command, source, source, "--overwrite")[0] == 2


@pytest.mark.parametrize("command", ["edit", "convert"])
def test_damaged_source(capsys, source, tmp_path, command):
    damage(source)
    status, out, err = run(capsys, command, source, tmp_path / "new.npz")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "'dense/kernel'" in err
    assert not list(tmp_path.glob("new*"))


@pytest.mark.parametrize("command", ["edit", "convert"])
def test_progress_and_summary_for_people(source, tmp_path, command):
    screen = in_terminal(command, source, tmp_path / "new.npz")
    assert screen.status == 0
    assert any(line.startswith(f"{command} source") for line in screen.lines)
    assert any(line.startswith(str(tmp_path / "new.npz")[:40]) for line in screen.lines)


# --- edit


def test_edit_partitions_and_merges(capsys, source, tmp_path):
    words = ["--partition", "emb=4", "--shards", "2", "--json"]
    status, out, _ = run(capsys, "edit", source, tmp_path / "parts", *words)
    document = json.loads(out)
    assert status == 0
    assert document["dry_run"] is False
    assert set(document["kept"]) == {"dense/kernel", "dense/kernel/Adam", "emb", "step"}
    with tb.open(tmp_path / "parts") as checkpoint:
        assert len(checkpoint["emb"].slices) == 4
    assert len(list(tmp_path.glob("parts.data-*"))) == 2
    assert run(capsys, "edit", tmp_path / "parts", tmp_path / "whole", "--merge")[0] == 0
    with tb.open(tmp_path / "whole") as checkpoint:
        assert len(checkpoint["emb"].slices) == 1


def test_edit_flattens_an_object_graph(capsys, tmp_path):
    assert run(capsys, "edit", SLOTS, tmp_path / "flat", "--flatten", "--no-slots")[0] == 0
    found = tb.load(tmp_path / "flat")
    assert "Variable" in found
    assert "_CHECKPOINTABLE_OBJECT_GRAPH" not in found


def test_edit_lists_all_problems_in_one_line(capsys, source, tmp_path):
    words = ["--rename", "^.*$=x", "--cast", "emb=string"]
    status, out, err = run(capsys, "edit", source, tmp_path / "new", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "(2 problems): " in err
    assert "string cannot be cast; 4 tensors would be named 'x'" in err


# --- convert


def test_convert_lists_what_is_left_out(capsys, tmp_path):
    destination = tmp_path / "new.npz"
    status, out, _ = run(capsys, "convert", SLOTS, destination)
    assert status == 0
    assert out.splitlines()[1:] == ["left out\t_CHECKPOINTABLE_OBJECT_GRAPH\tthe object graph"]
    status, out, err = run(capsys, "convert", SLOTS, destination, "--strict", "--overwrite")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "object graph" in err
    document = json.loads(run(capsys, "convert", SLOTS, destination, "--json", "--overwrite")[1])
    assert document["left_out"] == {"_CHECKPOINTABLE_OBJECT_GRAPH": "the object graph"}


def test_convert_splits_safetensors(capsys, source, tmp_path):
    destination = tmp_path / "new.safetensors"
    status, out, _ = run(capsys, "convert", source, destination, "--max-bytes", "80", "--json")
    assert status == 0
    assert len(json.loads(out)["files"]) > 2
    back = tmp_path / "back"
    assert run(capsys, "convert", f"{destination}.index.json", back, "--to", "checkpoint")[0] == 0
    assert tb.load(back)["emb"].tolist() == tb.load(source)["emb"].tolist()


def test_convert_to_parquet(capsys, source, tmp_path):
    pytest.importorskip("pyarrow")
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("".join(f"word{i}\n" for i in range(10)))
    words = ["--name", "emb", "--vocab", vocab]
    assert run(capsys, "convert", source, tmp_path / "emb.parquet", *words)[0] == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100", 100),
        ("5GB", 5 * 10**9),
        ("5 gb", 5 * 10**9),
        ("4GiB", 4 << 30),
        ("1.5k", 1500),
        ("2MiB", 2 << 20),
    ],
)
def test_sizes(text, expected):
    assert cli_write.parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "5XB", "five", "-1", "1e400", "nan"])
def test_invalid_sizes(text):
    with pytest.raises(click.UsageError, match="is not a size"):
        cli_write.parse_size(text)


# --- average


def test_average(capsys, source, tmp_path):
    bundle = Bundle()
    for name, array in tb.load(source).items():
        bundle.add(name, np.asarray(array) + 2)
    other = bundle.write(tmp_path / "other")
    status, out, err = run(capsys, "average", tmp_path / "mean", source, other)
    assert (status, err) == (0, "")
    assert out.startswith(f"{tmp_path}/mean: 3 tensors averaged from 2 checkpoints")
    found = tb.load(tmp_path / "mean")
    assert found["emb"].tolist() == (tb.load(source)["emb"] + 1).tolist()
    assert found["step"] == 9
    words = ["--weights", "1,3", "--overwrite", "--json"]
    document = json.loads(run(capsys, "average", tmp_path / "mean", source, other, *words)[1])
    assert document["weights"] == [0.25, 0.75]
    assert tb.load(tmp_path / "mean")["emb"][0, 0] == 1.5


def test_average_of_different_or_damaged_checkpoints(capsys, source, tmp_path):
    bundle = Bundle()
    bundle.add("emb", np.zeros(3, np.float32))
    other = bundle.write(tmp_path / "other")
    for words in ([source, other], [source, source, "--weights", "1"]):
        status, out, err = run(capsys, "average", tmp_path / "mean", *words)
        assert (status, out, err.count("\n")) == (2, "", 1)
    damage(source)
    status, out, err = run(capsys, "average", tmp_path / "mean", source, source)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert not list(tmp_path.glob("mean*"))


def test_differences_are_listed_in_lines_on_a_terminal(source, tmp_path):
    bundle = Bundle()
    bundle.add("emb", np.zeros(3, np.float32))
    other = bundle.write(tmp_path / "other")
    screen = in_terminal("average", tmp_path / "mean", source, other, columns=400)
    assert screen.status == 2
    start = screen.lines.index("tensorbundle: the checkpoints differ:")
    assert len(screen.lines) == start + 5
    assert all(line.startswith("  '") for line in screen.lines[start + 1 :])


def test_average_without_destination_names_the_order(capsys, source):
    for words in ([source, source], [source, source, "--json"]):
        status, out, err = run(capsys, "average", *words)
        assert (status, out) == (2, "")
        assert "is a checkpoint: give DST, the new one, first" in err


def test_existing_destination_names_the_option_that_replaces_it(capsys, source, tmp_path):
    for command, name in (("edit", "new"), ("convert", "new.npz"), ("align", "aligned")):
        assert run(capsys, command, source, tmp_path / name)[0] == 0
        status, out, err = run(capsys, command, source, tmp_path / name)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert ("--overwrite" in err) == (command != "align")


def test_pattern_is_not_a_name(capsys, source):
    status, out, err = run(capsys, "show", source, "dense/*")
    assert (status, out) == (2, "")
    assert "`tensorbundle ls CKPT 'dense/*'`" in err
