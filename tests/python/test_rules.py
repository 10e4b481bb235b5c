# SPDX-License-Identifier: Apache-2.0
"""Rules files and patterns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tensorbundle.rules import Glob, Patterns, Selection, read_rules

TEXT = r"""
[[rule]]
match = '.*/adam_[mv]'
drop = true

[[rule]]
match = 'layer_(\d+)/(?P<part>.*)'
name = 'layer.\1.\g<part>'
transpose = [1, 0]
cast = 'bfloat16'
split = 4
"""


def test_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(TEXT)
    first, second = read_rules(path)
    assert first.drop and first.name is None and first.match.fullmatch("a/adam_m")
    assert (second.transpose, second.cast, second.split) == ([1, 0], "bfloat16", 4)
    assert second.place == f"{path}: rule 2"
    assert read_rules(str(path)) == [first, second]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "'match' must be a regular expression"),
        ({"match": "("}, "'match' is not a regular expression"),
        ({"match": "a", "nmae": "b"}, "unknown key 'nmae'"),
        ({"match": "a", "name": r"\1"}, "the replacement '\\\\1' is invalid"),
        ({"match": "a", "name": r"\g<x>"}, "the replacement"),
        ({"match": "(?i)a|(b)", "name": r"\2"}, "the replacement"),
        ({"match": "a", "name": 1}, "'name' must be a string"),
        ({"match": "a", "cast": []}, "'cast' must be a string"),
        ({"match": "a", "drop": "yes"}, "'drop' must be true or false"),
        ({"match": "a", "transpose": "yes"}, "'transpose' must be true or a list of axes"),
        ({"match": "a", "transpose": [True]}, "'transpose' must be true or a list of axes"),
        ({"match": "a", "split": 0}, "'split' must be a positive integer"),
        ({"match": "a", "split": True}, "'split' must be a positive integer"),
        ("match", "it must be a table, not str"),
    ],
)
def test_invalid_rules_are_all_reported(rule: Any, message: str) -> None:
    with pytest.raises(ValueError, match="rules: rule 2") as caught:
        read_rules([{"match": "ok"}, rule, {"match": "["}])
    assert message in str(caught.value)
    assert "rules: rule 3: 'match' is not a regular expression" in str(caught.value)


def test_valid_replacements_are_accepted() -> None:
    rules = [{"match": "(?i)(a)|b", "name": r"x\1"}, {"match": "(?x) (a) # text", "name": r"\1"}]
    assert len(read_rules(rules)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule]", "is not a TOML file"),
        ("[rule]\nmatch = 'a'", "must consist of"),
        ("[[rules]]\nmatch = 'a'", "but it has rules"),
        ("\udc80", "is not a TOML file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(ValueError, match=message) as caught:
        read_rules(path)
    assert str(path) in str(caught.value)


def test_absent_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_rules(tmp_path / "absent.toml")


def test_globs() -> None:
    assert Glob("a/*").matches(["a/b/c"])
    assert not Glob("a/*").matches(["b/a/c", "A/b"])
    assert Glob("w[0]").matches(["w[0]"])
    assert Glob("w[0]").matches(["w0"])
    assert Glob("a.b").is_literal
    assert not Glob("a.b").matches(["aab"])


def test_exact_names_precede_patterns() -> None:
    patterns = Patterns("cast", [("*/kernel", 1), ("a/kernel", 2)])
    assert patterns.find(["a/kernel"]) == (2,)
    assert patterns.find(["b/kernel"]) == (1,)
    assert patterns.find(["b/bias"]) == ()
    assert not patterns.unused
    assert [each.text for each in Patterns("drop", [("x", 0)]).unused] == ["x"]


def test_selection() -> None:
    assert Selection("keep", "a*").selects(["key", "ab"])
    assert Selection("keep", ["b", "a*"]).selects(["b"])
    assert not Selection("keep", []).selects(["b"])
    assert Selection("keep", lambda name: name == "key").selects(["key", "ab"])
    for value in (b"a", 1, [1], {"a": 1}):
        with pytest.raises(TypeError, match="keep must be a pattern"):
            Selection("keep", value)
