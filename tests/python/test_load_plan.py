# SPDX-License-Identifier: Apache-2.0
"""Rows of a load plan: the printed table and the report."""

import pickle

import pytest

from tensorbundle.load_plan import (
    LoadReport,
    Mismatch,
    Policy,
    Problem,
    Row,
    Stored,
    build_report,
    format_list,
    format_names,
    format_table,
)

FLOAT32, FLOAT16 = 1, 19


def problem(kind):
    return Problem(kind, lambda: ValueError(f"{kind} is wrong"))


ROWS = [
    Row("v", "a", Stored("a", (3,), FLOAT32), (3,), FLOAT32, "loaded"),
    Row("full", "x", Stored("x/.KEY", (2, 2), FLOAT16), (None, 2), FLOAT32, "loaded, cast"),
    Row("new", "gone", None, (4,), FLOAT32, "loaded", problem("missing")),
    Row("head", "head", Stored("head", (5,), FLOAT32), (7,), FLOAT32, "", problem("shape")),
    Row("half", "half", Stored("half", (5,), FLOAT16), (5,), FLOAT32, "", problem("dtype")),
    Row("", "nothing", Stored("nothing", (5,), FLOAT16), None, None, "nothing"),
]


@pytest.mark.parametrize("missing", ["raise", "skip"])
@pytest.mark.parametrize("mismatch", ["raise", "skip"])
def test_policy_selects_skipped_problems(missing, mismatch):
    policy = Policy(missing, mismatch)
    skipped = {kind for kind in ("missing", "shape", "dtype", "setting") if
               policy.skips(problem(kind))}  # fmt: skip
    expected = set()
    if missing == "skip":
        expected.add("missing")
    if mismatch == "skip":
        expected |= {"shape", "dtype"}
    assert skipped == expected


@pytest.mark.parametrize("wrong", [("keep",), ("raise", None), ("raise", "raise", "float32")])
def test_invalid_policy_raises_error(wrong):
    with pytest.raises((ValueError, TypeError), match="must be"):
        Policy(*wrong)


def test_report_lists_loaded_and_skipped_variables():
    report = build_report(ROWS, ("unused",))
    loaded, missing, unused, mismatched = report
    assert loaded == report.loaded == {"v": "a", "full": "x/.KEY"}
    assert missing == report.missing == {"new": "gone"}
    assert unused == report.unused == ("unused",)
    assert (
        mismatched
        == report.mismatched
        == {
            "head": Mismatch("head", (5,), "float32", (7,), "float32"),
            "half": Mismatch("half", (5,), "float16", (5,), "float32"),
        }
    )
    assert "float32 [5]" in str(mismatched["head"]) and "float32 [7]" in str(mismatched["head"])
    assert pickle.loads(pickle.dumps(report)) == report
    text = str(report)
    assert "2 variables loaded" in text and "'new'" in text and "'head'" in text
    assert isinstance(report, LoadReport)


def test_table_has_one_line_per_variable():
    lines = format_table(ROWS, Policy(mismatch="skip")).splitlines()
    assert len(lines) == 1 + len(ROWS)
    assert lines[0].split() == ["tensor", "variable", "shape", "dtype", "action"]
    column = lines[0].index("action")
    assert [line[column:] for line in lines[1:]] == [
        "loaded",
        "loaded, cast",
        "problem: not in the checkpoint",
        "skipped: another shape",
        "skipped: another type",
        "nothing",
    ]
    assert "[5] -> [7]" in lines[4] and "float16 -> float32" in lines[5] and "[?, 2]" in lines[2]
    assert format_table([], Policy()) == ""


def test_long_lists_are_truncated_with_count():
    assert format_names("unused", []) == format_list("problems", []) == ""
    assert format_names("unused", ["a", "b"]) == "unused (2): 'a', 'b'"
    assert format_names("unused", [str(i) for i in range(25)]).endswith("'9', and 15 more")
    assert format_list("problems", ["one.", "two."]) == "problems (2):\n  - one.\n  - two."


def test_escapes_names_of_any_bytes():
    odd = "a\n\udcff\x1b[1m"
    row = Row(odd, odd, Stored("k", (1,), 1), (1,), 1, "loaded")
    text = "\n".join([
        format_table([row], Policy()),
        format_list("problems", [f"{odd} is odd"]),
        format_names("unused", [odd]),
        str(LoadReport({odd: odd}, {odd: odd}, (odd,), {odd: Mismatch(odd, (), "f", (), "g")})),
    ])  # fmt: skip
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.encode("utf-8").count(b"a\\n\\udcff\\x1b[1m") >= 5
