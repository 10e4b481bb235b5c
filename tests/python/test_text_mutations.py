# SPDX-License-Identifier: Apache-2.0
"""Random changes of state files and rules files: they are parsed, or the documented error."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tensorbundle.rules import read_rules
from tensorbundle.text_format import ParseError, format_checkpoint_state, parse_checkpoint_state

_STATES = (
    'model_checkpoint_path: "ckpt-4"\nall_model_checkpoint_paths: ["a", \'b\' "c"]\n'
    "all_model_checkpoint_timestamps: 1795195457.46\nlast_preserved_timestamp: -1.5e3f # end\n",
    r'model_checkpoint_path: "\x6d\155\u006d\U0000006d\q\303\266";' + "\n",
)
_RULES = """# comment
[[rule]]
match = '.*/(adam_m|adam_v)|global_step'
drop = true

[[rule]]
match = 'bert/layer_(\\d+)/(.*)/kernel'
name = 'layer.\\1.\\2.weight'
transpose = [1, 0]
cast = "bfloat16"
split = 3
"""
_PARTS = (
    *"\"'\\\n:[],;#{}()=*?|+0x9\x00é-.",
    "\\u",
    "\\U0010ffff",
    "\\777",
    "inf",
    "true",
    "[[rule]]",
)


def _mutated(text: str, choice: random.Random) -> str:
    for _ in range(choice.randint(1, 4)):
        start = choice.randrange(len(text) + 1)
        end = min(len(text), start + choice.choice([0, 0, 1, 2, 10]))
        copy = choice.randrange(len(text) + 1)
        new = choice.choice([*_PARTS, text[copy : copy + choice.randrange(20)], ""])
        text = text[:start] + new + text[end:]
    return text


def test_mutated_state_files_are_parsed_or_refused() -> None:
    choice = random.Random(20)
    parsed = refused = 0
    for _ in range(20_000):
        text = _mutated(choice.choice(_STATES), choice)
        try:
            state = parse_checkpoint_state(text)
        except ParseError:
            refused += 1
            continue
        parsed += 1
        again = parse_checkpoint_state(format_checkpoint_state(state))
        assert again.model_checkpoint_path == state.model_checkpoint_path
        assert again.all_model_checkpoint_paths == state.all_model_checkpoint_paths
    assert parsed > 1000
    assert refused > 1000


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of re, about odd patterns
def test_mutated_rules_files_are_read_or_refused(tmp_path: Path) -> None:
    choice = random.Random(21)
    path = tmp_path / "rules.toml"
    read = refused = 0
    for _ in range(3_000):
        path.write_text(_mutated(_RULES, choice), encoding="utf-8")
        try:
            read_rules(path)
        except ValueError:
            refused += 1
        else:
            read += 1
    assert read > 100
    assert refused > 500
