# SPDX-License-Identifier: Apache-2.0
"""`tensorbundle show`: values, indices, stored slices, statistics and histograms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import in_terminal, run
from craft.bundle import Bundle, shard_path

from tensorbundle import cli_show

SLOTS = Path(__file__).parents[1] / "data" / "checkpoints" / "optimizer_slots"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    bundle = Bundle()
    bundle.add("step", np.int64(7))
    bundle.add("table", np.arange(12000, dtype=np.float32).reshape(3000, 4))
    bundle.add_sliced("parts", np.ones((6, 2), np.float32), [((0, 3), (0, 2)), ((3, 3), (0, 2))])
    bundle.add("odd", np.array([np.nan, np.inf, -np.inf, 0.5], np.float32))
    bundle.add("complex", np.array([1 + 2j], np.complex64))
    bundle.add_strings("words", [b"a\tb", b"\xff"], (2,))
    bundle.add_strings("word", [b"x" * 200], ())
    return bundle.write(tmp_path / "model")


def rows(out: str, kind: str) -> list[list[str]]:
    lines = [line.split("\t") for line in out.splitlines()]
    return [line[1:] for line in lines if line[0] == kind]


def test_lines_in_a_pipe(capsys, model):
    status, out, err = run(capsys, "show", model, "step")
    assert (status, err) == (0, "")
    assert out.splitlines()[:4] == ["name\tstep", "dtype\tint64", "shape\t[]", "bytes\t8"]
    ((bounds, file, offset, nbytes, checksum),) = rows(out, "slice")
    assert (bounds, nbytes) == ("[]", "8")
    assert file.endswith("model.data-00000-of-00001")
    assert offset.isdigit()
    assert len(checksum) == 10
    assert rows(out, "value") == [["[]", "7"]]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ("0", [0, 1, 2, 3]),
        ("-1,0", [11996]),
        ("1:3,1", [5, 9]),
        ("[1:3, 1]", [5, 9]),
        ("...,-1:", list(range(3, 12000, 4))),
        ("2998:,::2", [11992, 11994, 11996, 11998]),
        ("1::-1,0", [4, 0]),
    ],
)
def test_index_selects_values_as_in_numpy(capsys, model, index, expected):
    status, out, _ = run(capsys, "show", model, "table", index)
    assert status == 0
    assert [float(value) for _, value in rows(out, "value")] == expected
    assert not rows(out, "omitted")


def test_large_tensors_are_shown_in_part(capsys, model):
    _, out, _ = run(capsys, "show", model, "table")
    assert [float(value) for _, value in rows(out, "value")] == list(range(1000))
    assert rows(out, "omitted") == [["11000"]]
    _, out, _ = run(capsys, "show", model, "table", "--full")
    assert len(rows(out, "value")) == 12000


def test_strings_are_escaped(capsys, model):
    _, out, _ = run(capsys, "show", model, "words")
    assert [value for _, value in rows(out, "value")] == [r"a\tb", r"\xff"]


def test_partitioned_tensor_lists_its_slices(capsys, model):
    _, out, _ = run(capsys, "show", model, "parts")
    assert [row[0] for row in rows(out, "slice")] == ["[0:3,0:2]", "[3:6,0:2]"]


def test_json(capsys, model):
    document = json.loads(run(capsys, "show", model, "odd", "--json", "--stats")[1])
    assert document["values"] == ["NaN", "Infinity", "-Infinity", 0.5]
    assert (document["stats"]["min"], document["stats"]["nan"]) == ("-Infinity", 1)
    assert sum(document["histogram"]["counts"]) == 1
    assert document["shape"] == [4]
    document = json.loads(run(capsys, "show", model, "table", "1", "--json")[1])
    assert (document["index"], document["values"]) == ("1", [4, 5, 6, 7])
    assert json.loads(run(capsys, "show", model, "table", "--json")[1])["values"] is None
    assert json.loads(run(capsys, "show", model, "complex", "--json")[1])["values"] == [[1, 2]]
    assert json.loads(run(capsys, "show", model, "words", "--json")[1])["values"][0] == "a\tb"


def test_full_name_is_shown(capsys):
    _, out, _ = run(capsys, "show", SLOTS, "Adam/Variable/m")
    assert rows(out, "name") == [["v/.OPTIMIZER_SLOT/opt/m/.ATTRIBUTES/VARIABLE_VALUE"]]
    assert rows(out, "full_name") == [["Adam/Variable/m"]]


def test_strings_have_no_statistics(capsys, model):
    status, _, err = run(capsys, "show", model, "words", "--stats")
    assert (status, err.count("\n")) == (2, 1)
    assert "no statistics" in err


@pytest.mark.parametrize("words", [[], ["0"], ["--stats"], ["--json", "3,1"], ["--full"]])
def test_corrupted_values_are_not_shown(capsys, model, words):
    path = shard_path(model, 0, 1)
    content = bytearray(path.read_bytes())
    place = bytes(content).index(np.arange(12000, dtype=np.float32).tobytes()[:40])
    content[place + 20000] ^= 1
    path.write_bytes(content)
    status, out, err = run(capsys, "show", model, "table", *words)
    if words:
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "'table'" in err


def test_tensor_of_missing_file_shows_its_metadata(capsys, model):
    shard_path(model, 0, 1).unlink()
    status, out, err = run(capsys, "show", model, "step")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "is missing" in err


# --- people


def test_people_see_values_and_slices(model):
    screen = in_terminal("show", model, "table")
    text = "\n".join(screen.lines)
    assert screen.status == 0
    assert screen.lines[:4] == [
        "name      table",
        "dtype     float32",
        "shape     [3000,4]",
        "elements  12,000",
    ]
    assert "crc32c" in text
    assert "..." in text
    assert "1.1999e+04" in text
    assert len(in_terminal("show", model, "table", "--full").lines) > 3000


def test_histogram_for_people(model):
    screen = in_terminal("show", model, "table", "--stats")
    bars = [line for line in screen.lines if "█" in line]
    assert len(bars) == 16
    assert len({line.count("█") for line in bars}) == 1
    assert all(len(line) <= 80 for line in screen.lines)
    assert any(line.startswith("mean") and "5999.5" not in line for line in screen.lines)
    dumb = in_terminal("show", model, "table", "--stats", TERM="dumb")
    assert sum("####" in line for line in dumb.lines) == 16


def test_odd_values_for_people(model):
    lines = in_terminal("show", model, "odd", "--stats").lines
    assert "nan    1 (25.0%)" in lines
    assert "inf    2 (50.0%)" in lines
    long = in_terminal("show", model, "word").lines
    assert long[-1].endswith("... (200 bytes)")


@pytest.mark.parametrize("text", ["", "  ", "[]"])
def test_empty_index_means_everything(text):
    assert cli_show.parse_index(text) is None
