# SPDX-License-Identifier: Apache-2.0
"""What is said about two vocabularies and their table."""

import os

import numpy as np
import pytest

from tensorbundle import vocab_diagnosis
from tensorbundle.vocab_diagnosis import RemapInputs, diagnose, join_files, likely_cause

TOKENS = [b"tok%d" % i for i in range(300)]


def write(path, tokens, end=b"\n"):
    path.write_bytes(b"".join(token + end for token in tokens))
    return os.fsencode(path)


@pytest.fixture
def ask(tmp_path):
    """Asks about a new and an old vocabulary, with other settings than that all of them count."""

    def run(new, old=TOKENS, *, exact=False, **settings):
        question = RemapInputs(
            variable="emb",
            new=write(tmp_path / "new.txt", new) if isinstance(new, list) else new,
            old=write(tmp_path / "old.txt", old) if isinstance(old, list) else old,
            new_size=len(new),
            old_size=-1,
            axis=0,
            wanted=len(new),
            room=len(new),
            num_oov=0,
            table_rows=len(old),
        )
        return diagnose(question._replace(**settings), join_files, exact=exact)

    return run


def test_vocabularies_that_fit_need_no_words(ask):
    found = ask([*TOKENS[5:200], b"new"])
    assert found.warnings == () and found.error is None
    assert found.action == "remapped: 195 of 196 rows are in the old vocabulary"


SPOILT = {
    "a tab and a count": (lambda t: t + b"\t17", "tabs"),
    "a blank and a count": (lambda t: t + b" 17", "after its tokens"),
    "a comma and a count": (lambda t: t + b",17", "after its tokens"),
    "a blank at the end": (lambda t: t + b" ", "blanks at the ends"),
    "a blank at the beginning": (lambda t: b"  " + t, "blanks at the beginnings"),
    "capitals": (bytes.upper, "upper and lower case"),
    "quotes": (lambda t: b'"' + t + b'"', "quotes"),
    "single quotes": (lambda t: b"'" + t + b"'", "quotes"),
    "Python's bytes": (lambda t: b"b'" + t + b"'", "quotes"),
    "several of these": (lambda t: b'"' + t.upper() + b'" ', "blanks, tabs, quotes or case"),
    "other words": (lambda t: b"x" + t, None),
}


@pytest.mark.parametrize("spoilt", SPOILT)
@pytest.mark.parametrize("which", ["new", "old"])
def test_tokens_that_nobody_finds(ask, spoilt, which):
    change, cause = SPOILT[spoilt]
    new, old = TOKENS[:50], TOKENS
    if which == "new":
        new = [change(token) for token in new]
    else:
        old = [change(token) for token in old]
    (warning,) = ask(new, old).warnings
    assert "none of the 50 tokens of" in warning and "among the 300 of" in warning
    assert "'emb'" in warning and "all rows" in warning
    tail = warning.partition("; ")[2]
    if cause is None:
        assert not tail
    else:
        assert cause in tail and f"{which}.txt" in tail


def test_hardly_any_token_is_said_with_its_number(ask):
    few = [*TOKENS[:2], *[b"new%d" % i for i in range(298)]]
    (warning,) = ask(few).warnings
    assert "only 2 of the 300 tokens" in warning and "nearly all rows" in warning
    assert not ask([*TOKENS[:4], *[b"new%d" % i for i in range(296)]]).warnings


def test_a_byte_order_mark_hides_one_token(ask):
    marked = [b"\xef\xbb\xbf" + TOKENS[0], *TOKENS[1:]]
    assert "new.txt begins with a byte order mark" in ask(marked).warnings[0]
    assert "old.txt begins with a byte order mark" in ask(TOKENS, marked).warnings[0]
    assert not ask(marked, marked).warnings


def test_lines_that_end_with_a_carriage_return_alone(ask, tmp_path):
    path = write(tmp_path / "mac.txt", TOKENS, b"\r")
    found = ask(path, new_size=300, wanted=300, room=300)
    assert any("new_vocab_size is 300, but" in each for each in found.warnings)
    assert any("mac.txt ends its lines with only CR" in each for each in found.warnings)
    assert not ask(write(tmp_path / "dos.txt", TOKENS, b"\r\n"), new_size=300, wanted=300,
                   room=300).warnings  # fmt: skip


def test_an_old_vocabulary_that_is_longer_than_its_table(ask):
    found = ask(TOKENS[:10], table_rows=200)
    assert found.error is None
    assert found.warnings[0] == (
        "'emb': old_vocab has 300 tokens, the table has 200 rows: set old_vocab_size=200"
    )
    found = ask([TOKENS[3], TOKENS[250]], table_rows=200)
    assert found.error is not None
    assert "old_vocab has 300 tokens, the table has 200 rows: set old_vocab_size=200" in found.error
    assert "line 2 of" in found.error and "line 251 of" in found.error
    found = ask([TOKENS[3], TOKENS[250]], table_rows=200, axis=1)
    assert found.error is not None and "the table has 200 columns" in found.error
    # What the settings cut off is never wanted.
    assert not ask([TOKENS[3], TOKENS[250]], table_rows=200, old_size=200).warnings
    found = ask([TOKENS[250]], table_rows=200, old_size=260)
    assert found.error is not None and "old_vocab_size is 260, the table has 200" in found.error


def test_only_wanted_entries_count(ask):
    assert ask([TOKENS[3], TOKENS[250]], table_rows=200, wanted=1).error is None


def test_a_variable_that_is_too_small_for_its_vocabulary(ask):
    found = ask(TOKENS[:10], room=6, wanted=6, num_oov=2)
    assert found.warnings == (
        "'emb': new_vocab_size (10) + num_oov_buckets (2) = 12, but the variable has 6 rows: it "
        "gets the first 6",
    )


def test_files_that_are_not_there_are_nobodys_fault_yet(ask, tmp_path):
    gone = os.fsencode(tmp_path / "gone.txt")
    for new, old in ((gone, TOKENS), (TOKENS, gone)):
        (warning,) = ask(new, old).warnings
        assert "the vocabulary file" in warning and "gone.txt does not exist here" in warning


@pytest.mark.parametrize(
    ("new", "old", "settings", "words"),
    [
        ([b"a", b"", b"b"], TOKENS, {}, "is empty"),
        ([], TOKENS, {}, "no line"),
        (TOKENS, [b"a", b"a"], {}, "repeats"),
        (TOKENS, TOKENS, {"old_size": 301}, "old_size is 301"),
        (TOKENS, TOKENS, {"wanted": 301, "new_size": 301}, "new_vocab_size is 301"),
    ],
)
def test_what_fails_when_it_is_read_is_said_before(ask, new, old, settings, words):
    found = ask(new, old, **settings)
    assert found.error is None
    assert any("will fail" in each and words in each for each in found.warnings)


@pytest.fixture
def small(monkeypatch):
    """Makes files of a few kilobytes large ones."""
    monkeypatch.setattr(vocab_diagnosis, "MAX_JOIN_BYTES", 1 << 10)
    monkeypatch.setattr(vocab_diagnosis, "_MIN_SAMPLE", 4 << 10)


@pytest.fixture
def joins(monkeypatch):
    """The joins that were asked for."""
    made = []
    real = vocab_diagnosis.vocab.remap_vocab

    def join(*args, **kwargs):
        made.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(vocab_diagnosis.vocab, "remap_vocab", join)
    return made


LARGE = [b"w%d" % i for i in range(20_000)]


@pytest.mark.parametrize("order", ["same", "shuffled", "reversed", "every second"])
def test_large_files_that_fit_are_not_joined(ask, small, joins, order):
    rng = np.random.default_rng(1)
    new = {
        "same": LARGE,
        "shuffled": [LARGE[i] for i in rng.permutation(len(LARGE))],
        "reversed": LARGE[::-1],
        "every second": LARGE[::2],
    }[order]
    assert ask(new, LARGE).warnings == ()
    assert not joins
    assert "remapped: " in ask(new, LARGE, exact=True).action
    assert len(joins) == 1


def test_large_files_that_do_not_fit_are_joined_and_said(ask, small, joins):
    (warning,) = ask([token + b"\t1" for token in LARGE], LARGE).warnings
    assert "none of the 20000 tokens" in warning and "tabs" in warning
    assert len(joins) == 1


def test_reading_fails_quietly(tmp_path):
    assert likely_cause(os.fsencode(tmp_path / "a"), os.fsencode(tmp_path / "b")) == ""
