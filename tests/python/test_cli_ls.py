# SPDX-License-Identifier: Apache-2.0
"""`tensorbundle ls`: trees, order, optimizer slots, statistics, and what terminals show."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from command_line import in_terminal, run
from craft.bundle import Bundle, shard_path
from craft.messages import TrackableObjectGraph

import tensorbundle as tb

CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"
MNIST = CHECKPOINTS / "mnist_tf1"
SLOTS = CHECKPOINTS / "optimizer_slots"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Twelve layers of different sizes, with Adam's slots for the last one."""
    bundle = Bundle()
    bundle.add("global_step", np.int64(7))
    for i in range(12):
        bundle.add(f"net/layer_{i}/kernel", np.full((4, 2 + i), i, np.float32))
    bundle.add("net/layer_11/kernel/Adam", np.zeros((4, 13), np.float32))
    bundle.add_sliced("emb", np.ones((6, 4), np.float32), [((0, 3), (0, 4)), ((3, 3), (0, 4))])
    bundle.add_strings("words", [b"a", b"b"], (2,))
    return bundle.write(tmp_path / "model")


def names(out: str) -> list[str]:
    return [line.split("\t")[0] for line in out.splitlines()]


def test_numbers_in_names_are_in_natural_order(capsys, model):
    status, out, _ = run(capsys, "ls", model)
    layers = [f"net/layer_{i}/kernel" for i in range(12)]
    expected = ["emb", "global_step", *layers, "net/layer_11/kernel/Adam", "words"]
    assert (status, names(out)) == (0, expected)
    document = json.loads(run(capsys, "ls", "--json", model)[1])
    assert [tensor["name"] for tensor in document["tensors"]] == expected


def test_natural_order_handles_huge_numbers(capsys, tmp_path):
    bundle = Bundle()
    for name in ("a" + "9" * 5000, "a" + "1" * 5000, "a2", "a02", "a10", "b"):
        bundle.add(name, np.zeros(1))
    _, out, _ = run(capsys, "ls", bundle.write(tmp_path / "m"))
    assert [name[:3] for name in names(out)] == ["a2", "a02", "a10", "a11", "a99", "b"]


def test_sort_by_size_puts_the_largest_first(capsys, model):
    rows = [line.split("\t") for line in run(capsys, "ls", model, "--sort", "size")[1].splitlines()]
    sizes = [int(row[3]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert rows[0][0] == "net/layer_11/kernel"


def test_no_slots_leaves_optimizer_slots_out(capsys, model):
    assert "net/layer_11/kernel/Adam" not in names(run(capsys, "ls", model, "--no-slots")[1])
    assert len(names(run(capsys, "ls", MNIST, "--no-slots")[1])) == 9
    left = names(run(capsys, "ls", SLOTS, "--no-slots")[1])
    assert not any("OPTIMIZER_SLOT" in name for name in left)
    assert len(left) == 7


def test_json_has_totals_and_full_names(capsys, tmp_path):
    document = json.loads(run(capsys, "ls", "--json", SLOTS)[1])
    assert document["summary"]["tensors"] == 9
    assert document["summary"]["slots"] == {"tensors": 2, "parameters": 2, "nbytes": 8}
    by_name = {tensor["name"]: tensor for tensor in document["tensors"]}
    slot = by_name["v/.OPTIMIZER_SLOT/opt/m/.ATTRIBUTES/VARIABLE_VALUE"]
    assert (slot["full_name"], slot["slot"]) == ("Adam/Variable/m", True)
    assert by_name["_CHECKPOINTABLE_OBJECT_GRAPH"]["full_name"] is None


# --- trees


def test_tree_shows_scopes_and_totals(model):
    screen = in_terminal("ls", model)
    assert screen.status == 0
    assert screen.lines[0].split() == ["name", "dtype", "shape", "parameters", "size", "slices"]
    text = "\n".join(screen.lines)
    assert "emb" in screen.lines[1]
    assert screen.lines[1].endswith("2")  # slices
    assert screen.lines[3].split() == ["net/", "412", "1.61", "KiB"]
    assert screen.lines[4].startswith("├─ layer_0/kernel")
    assert screen.lines[15].startswith("└─ layer_11/kernel")
    assert screen.lines[16].startswith("   └─ Adam")
    assert text.index("layer_2/") < text.index("layer_10/")
    assert screen.lines[-2:] == [
        "",
        "16 tensors, 437 parameters, 1.72 KiB; optimizer slots 208 B",
    ]


def test_tree_fits_narrow_terminal(tmp_path):
    bundle = Bundle()
    long = "a_scope_with_a_long_name/" * 3
    bundle.add(f"{long}x" * 2, np.zeros((2, 3), np.float32))
    bundle.add(f"{long}y" + "z" * 100, np.zeros((2, 3), np.float32))
    bundle.add(f"{long}größe/名前", np.zeros((2, 3), np.float32))
    prefix = bundle.write(tmp_path / "m")
    narrow = in_terminal("ls", prefix, columns=80)
    assert max(map(len, narrow.lines)) <= 80
    assert "".join(narrow.lines).count("z") >= 100
    wide = in_terminal("ls", prefix, columns=200)
    assert len(wide.lines) < len(narrow.lines)
    assert max(map(len, wide.lines)) <= 200


def test_flat_and_depth(model):
    flat = in_terminal("ls", model, "--flat").lines
    assert flat[4].split()[0] == "net/layer_1/kernel"
    assert len(flat) == 1 + 16 + 2
    folded = in_terminal("ls", model, "--depth", "1").lines
    assert [line.split()[0] for line in folded[1:5]] == ["emb", "global_step", "net/", "words"]
    assert "13 tensors" in folded[3]


def test_tree_sorted_by_size_sorts_scopes(model):
    lines = in_terminal("ls", model, "--sort", "size").lines
    assert [line.split()[0] for line in lines if line[:1].isalpha()][1:5] == [
        "net/",
        "emb",
        "global_step",
        "words",
    ]
    assert lines[2].startswith("├─ layer_11/kernel")


def test_deep_names_do_not_overflow_the_stack(tmp_path):
    bundle = Bundle()
    for i in range(2):
        bundle.add("/".join(f"{j}" for j in range(3000)) + f"/{i}", np.zeros(1))
    deep = "x"
    for i in range(400):
        bundle.add(deep, np.zeros(1))
        deep += f"/{i}"
    assert in_terminal("ls", bundle.write(tmp_path / "m"), columns=200).status == 0


def test_long_shows_slices_to_people(model):
    lines = in_terminal("ls", model, "emb", "--long").lines
    assert lines[0].split() == ["name", "dtype", "slice", "size", "offset"]
    assert lines[1].split()[:4] == ["emb", "float32", "[0:3,0:4]", "48"]
    assert lines[2].split()[2] == "[3:6,0:4]"
    text = "".join(lines[3:])
    assert text.startswith(f"all in {shard_path(model, 0, 1)}")


def test_long_names_data_files_by_what_differs(tmp_path):
    arrays = {f"{name}/kernel": np.zeros((512, 64), np.float32) for name in "abc"}
    tb.save(tmp_path / "m", arrays, shards=3)
    lines = in_terminal("ls", tmp_path / "m", "--long").lines
    assert lines[0].split() == ["name", "dtype", "slice", "size", "file", "offset"]
    files = [f"data-{shard:05}-of-00003" for shard in range(3)]
    assert sorted(line.split()[-2] for line in lines[1:4]) == files
    assert not any(line.startswith("all in") for line in lines)


def test_damaged_files_are_reported_to_people(model):
    shard_path(model, 0, 1).unlink()
    screen = in_terminal("ls", model, "emb", "global_step")
    assert screen.status == 0
    assert "\x1b[31m" in screen.raw
    assert screen.lines[0].split()[-1] == "error"
    assert "is missing" in screen.lines[-1]


# --- terminals


def test_colors_only_where_they_are_wanted():
    assert "\x1b[1m" in in_terminal("ls", MNIST).raw
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        screen = in_terminal("ls", MNIST, **variables)
        assert "\x1b" not in screen.raw
        assert screen.lines[3].startswith("conv2d/")


def test_dumb_and_ascii_terminals_get_ascii():
    # An empty variable counts as one that is not set.
    locales = [{"PYTHONIOENCODING": "", name: "C"} for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    others = {"LC_ALL": "", "LC_CTYPE": "", "LANG": ""}
    posix = {"PYTHONIOENCODING": "", "LC_ALL": "POSIX", "LANG": "en_US.UTF-8"}
    choices = [{"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}, posix]
    choices += [{**others, "PYTHONCOERCECLOCALE": "0", **locale} for locale in locales]
    for variables in choices:
        lines = in_terminal("ls", MNIST, **variables).lines
        assert all(map(str.isascii, lines))
        assert lines[4].startswith("|- bias")


def test_other_locales_get_lines():
    for name in ("C.UTF-8", "en_US.UTF-8"):
        lines = in_terminal("ls", MNIST, PYTHONIOENCODING="", LC_ALL=name, LANG="C").lines
        assert lines[4].startswith("├─ bias")


def test_ascii_progress_bars():
    screen = in_terminal("ls", MNIST, "--stats", PYTHONIOENCODING="", LC_ALL="C")
    assert screen.status == 0
    assert screen.raw.isascii()
    assert "read mnist_tf1" in screen.raw


def test_escapes_reach_no_terminal(tmp_path):
    bundle = Bundle()
    bundle.add("a\x1b[31mred/\nb", np.zeros(1))
    screen = in_terminal("ls", bundle.write(tmp_path / "m"), NO_COLOR="1")
    assert "\x1b" not in screen.raw
    assert r"\x1b[31mred" in screen.raw


# --- statistics


def test_stats_columns_in_a_pipe(capsys, tmp_path):
    bundle = Bundle()
    bundle.add("a", np.array([1, 2, 3, 0], np.int32))
    bundle.add("b", np.array([np.nan, np.inf, 0.5], np.float32))
    bundle.add_strings("c", [b"x"], (1,))
    status, out, _ = run(capsys, "ls", "--stats", bundle.write(tmp_path / "m"))
    rows = [line.split("\t")[6:] for line in out.splitlines()]
    assert status == 0
    assert rows[0] == ["0", "3", "1.5", str(np.std([1, 2, 3, 0])), "1", "0", "0"]
    assert rows[1] == ["0.5", "inf", "0.5", "0.0", "0", "1", "1"]
    assert rows[2] == [""] * 7


def test_stats_in_json(capsys, model):
    document = json.loads(run(capsys, "ls", "--stats", "--json", model, "net/layer_3/*")[1])
    assert document["tensors"][0]["stats"] == {
        "count": 20,
        "min": 3.0,
        "max": 3.0,
        "mean": 3.0,
        "std": 0.0,
        "zeros": 0,
        "nan": 0,
        "inf": 0,
    }


def test_stats_for_people(tmp_path):
    bundle = Bundle()
    bundle.add("a/b", np.array([0, np.nan], np.float32))
    prefix = bundle.write(tmp_path / "m")
    lines = in_terminal("ls", "--stats", prefix).lines
    header = next(i for i, line in enumerate(lines) if line.startswith("name"))
    assert lines[header].split() == [
        "name",
        "dtype",
        "shape",
        "min",
        "max",
        "mean",
        "std",
        "zeros",
        "nan",
    ]
    assert lines[header + 1].split() == ["a/b", "float32", "[2]", "0", "0", "0", "0", "1", "1"]


def test_stats_find_corrupted_values(capsys, model):
    path = shard_path(model, 0, 1)
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    status, out, _ = run(capsys, "ls", "--stats", model)
    errors = [line.split("\t")[5] for line in out.splitlines()]
    assert status == 1
    assert sum(map(bool, errors)) == 1
    assert "CRC32C" in "".join(errors)


def test_full_names_are_accepted(capsys, tmp_path):
    bundle = Bundle()
    graph = TrackableObjectGraph()
    bundle.add("a/.V", np.arange(3.0))
    graph.nodes.add().attributes.add(full_name=b"dense/kernel", checkpoint_key=b"a/.V")
    bundle.add_strings("_CHECKPOINTABLE_OBJECT_GRAPH", [graph.SerializeToString()], ())
    _, out, _ = run(capsys, "ls", bundle.write(tmp_path / "m"), "dense/*")
    assert names(out) == ["a/.V"]


def test_example_of_the_documentation_is_current():
    repository = Path(__file__).parents[2]
    page = (repository / "docs" / "command_line.md").read_text(encoding="utf-8")
    example = page.partition("```console\n$ tensorbundle ")[2].partition("```")[0].splitlines()
    words = shlex.split(example[0])
    words[1] = str(repository / words[1])
    assert in_terminal(*words).lines == example[1:]
