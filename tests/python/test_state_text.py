# SPDX-License-Identifier: Apache-2.0
"""The grammar of the `checkpoint` state file: accepted texts, and positions of errors."""

from __future__ import annotations

import math
import time

import pytest

from tensorbundle.text_format import CheckpointState, ParseError, parse_checkpoint_state


def test_parses_state_file_of_tensorflow() -> None:
    assert parse_checkpoint_state(
        'model_checkpoint_path: "ckpt-4"\n'
        'all_model_checkpoint_paths: "ckpt-3"\n'
        'all_model_checkpoint_paths: "ckpt-4"\n'
        "all_model_checkpoint_timestamps: 1795195457.464784\n"
        "all_model_checkpoint_timestamps: 1795195458.5\n"
        "last_preserved_timestamp: 1795195456.4298592\n"
    ) == CheckpointState(
        "ckpt-4", ["ckpt-3", "ckpt-4"], [1795195457.464784, 1795195458.5], 1795195456.4298592
    )


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('model_checkpoint_path: "m"', "m"),
        ("model_checkpoint_path:'m'", "m"),
        ('# first\nmodel_checkpoint_path # here too: "x"\n:\n\t"m" # end', "m"),
        ('model_checkpoint_path: "a" \'b\'\n"c"', "abc"),
        ('model_checkpoint_path: "old" model_checkpoint_path: "m"', "m"),
        ('model_checkpoint_path: "old"model_checkpoint_path: "m"', "m"),
        ('\r\nmodel_checkpoint_path: "m"\r\n', "m"),
        ('model_checkpoint_path: "m";', "m"),
        ('model_checkpoint_path: "m", last_preserved_timestamp: 1', "m"),
        (r'model_checkpoint_path: "\x6d\155\u006d\U0000006d"', "mmmm"),
        (r'model_checkpoint_path: "\x6-\7"', "\x06-\x07"),
        (r'model_checkpoint_path: "\a\b\f\n\r\t\v\\\"\'"', "\a\b\f\n\r\t\v\\\"'"),
        (r'model_checkpoint_path: "\q"', r"\q"),
        ('model_checkpoint_path: "it\'s # no comment"', "it's # no comment"),
        ('model_checkpoint_path: "größe/模型"', "größe/模型"),
        (r'model_checkpoint_path: "gr\303\266\xc3\x9fe"', "größe"),
        (r'model_checkpoint_path: "\xc3" "\xa9"', "é"),
        (r'model_checkpoint_path: "\u00e9\u4e2d"', "é中"),
        ("", ""),
        ("# nothing but a comment", ""),
    ],
)
def test_accepts_strings(text: str, path: str) -> None:
    assert parse_checkpoint_state(text).model_checkpoint_path == path


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ('all_model_checkpoint_paths: ["a", "m"]', ["a", "m"]),
        ("all_model_checkpoint_paths: []", []),
        ('all_model_checkpoint_paths: ["a" "b"] all_model_checkpoint_paths: "c"', ["ab", "c"]),
    ],
)
def test_accepts_lists(text: str, paths: list[str]) -> None:
    assert parse_checkpoint_state(text).all_model_checkpoint_paths == paths


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1.0),
        ("-1.5e3", -1500.0),
        ("+2", 2.0),
        (".5", 0.5),
        ("1.5f", 1.5),
        ("2F", 2.0),
        ("0", 0.0),
        ("0.25", 0.25),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("Infinity", math.inf),
        ("inff", math.inf),
    ],
)
def test_accepts_numbers(text: str, number: float) -> None:
    assert parse_checkpoint_state(f"last_preserved_timestamp: {text}") == CheckpointState(
        last_preserved_timestamp=number
    )


@pytest.mark.parametrize("text", ["nan", "NaN", "nanf", "-nan"])
def test_accepts_nan(text: str) -> None:
    read = parse_checkpoint_state(f"all_model_checkpoint_timestamps: [{text}, 1]")
    assert math.isnan(read.all_model_checkpoint_timestamps[0])
    assert read.all_model_checkpoint_timestamps[1] == 1


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("other_field: 1", "1:1"),
        ('model_checkpoint_path: "m"\n  Model_checkpoint_path: "m"', "2:3"),
        ('model_checkpoint_path "m"', "1:23"),
        ('model_checkpoint_path: "m', "1:24"),
        ("model_checkpoint_path: \"m'", "1:24"),
        ('model_checkpoint_path: "m\nn"', "1:24"),
        ('model_checkpoint_path: "m\\"', "1:24"),
        ("model_checkpoint_path: m", "1:24"),
        ("model_checkpoint_path: 3", "1:24"),
        ("model_checkpoint_path:", "1:23"),
        ("model_checkpoint_path", "1:22"),
        ('model_checkpoint_path: ["m"]', "1:24"),
        ('model_checkpoint_path { "m" }', "1:23"),
        ('model_checkpoint_path: "m" }', "1:28"),
        ('model_checkpoint_path: "m",;', "1:28"),
        ('1: "m"', "1:1"),
        ('[x.y]: "m"', "1:1"),
        ('\ufeffmodel_checkpoint_path: "m"', "1:1"),
        ("\n\x05model", "2:1"),
        ("\0", "1:1"),
        (r'model_checkpoint_path: "\x"', "1:24"),
        (r'model_checkpoint_path: "\u12"', "1:24"),
        (r'model_checkpoint_path: "\ud800"', "1:24"),
        (r'model_checkpoint_path: "\U00110000"', "1:24"),
        (r'model_checkpoint_path: "\400"', "1:24"),
        ('all_model_checkpoint_paths: ["a",]', "1:34"),
        ('all_model_checkpoint_paths: ["a"; "b"]', "1:33"),
        ('all_model_checkpoint_paths: ["a"', "1:33"),
        ("last_preserved_timestamp: soon", "1:27"),
        ('last_preserved_timestamp: "1"', "1:27"),
        ("last_preserved_timestamp: 012", "1:27"),
        ("last_preserved_timestamp: 0x10", "1:27"),
        ("last_preserved_timestamp: - 1", "1:27"),
        ("last_preserved_timestamp: [1]", "1:27"),
        ("last_preserved_timestamp: f", "1:27"),
        ("last_preserved_timestamp:", "1:26"),
    ],
)
def test_parse_error_has_line_and_column(text: str, position: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_checkpoint_state(text)
    assert str(caught.value).startswith(f"{position} : ")


def test_string_that_is_not_utf8_raises_parse_error() -> None:
    with pytest.raises(ParseError, match="not UTF-8"):
        parse_checkpoint_state(r'model_checkpoint_path: "\xff"')


def test_parses_megabyte_in_linear_time() -> None:
    text = " \n" * 200_000 + 'model_checkpoint_path: "' + r"\x6d" * 100_000 + '"' + "#" * 200_000
    start = time.process_time()
    assert parse_checkpoint_state(text).model_checkpoint_path == "m" * 100_000
    with pytest.raises(ParseError):
        parse_checkpoint_state('model_checkpoint_path: "' + r"\x6d" * 100_000)
    assert time.process_time() - start < 10


MANY = 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        " " * MANY,
        "\u3000" * MANY,
        "#\n" * MANY,
        " #x\n" * MANY,
        '"' * MANY,
        'model_checkpoint_path: "' + "\\" * MANY,
        'model_checkpoint_path: "' + "\\" * (2 * MANY) + '"',
        "model_checkpoint_path: " + '"' * MANY,
        "model_checkpoint_path: " + '"a"' * (MANY // 3),
        "model_checkpoint_path: " + "'" * MANY + '"',
        'model_checkpoint_path: "' + "a" * MANY,
        'model_checkpoint_path: "' + "a" * MANY + '\\u12"',
        'all_model_checkpoint_paths: ["' + "a" * MANY + '"',
        "all_model_checkpoint_paths: [" + "'a'," * (MANY // 4),
        "all_model_checkpoint_paths: " + "[" * MANY,
        "last_preserved_timestamp: " + "1" * MANY,
        "last_preserved_timestamp: 1e" + "9" * MANY,
        "last_preserved_timestamp: 0x" + "9" * MANY,
        "a" * MANY,
        ":" * MANY,
    ],
    ids=lambda text: ascii(text[:40]),
)
def test_crafted_text_fails_quickly_with_short_message(text: str) -> None:
    start = time.process_time()
    try:
        parse_checkpoint_state(text)
    except ParseError as error:
        assert len(str(error)) < 300
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "escape", [r"\U99999999", r"\UFFFFFFFF", r"\U00110000", r"\ud800", r"\udfff", r"\U0000d800"]
)
def test_invalid_escape_raises_parse_error(escape: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_checkpoint_state(f'model_checkpoint_path: "a{escape}b"')
    assert f"{escape} is not a character" in str(caught.value)
    assert "codec" not in str(caught.value)
    assert caught.value.__cause__ is None
