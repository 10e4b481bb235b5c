# SPDX-License-Identifier: Apache-2.0
"""Warnings and errors about two vocabularies and their table."""

import os

import numpy as np
import pytest

from tensorbundle import vocab_diagnosis
from tensorbundle.vocab_diagnosis import RemapInputs, join_files, likely_cause

TOKENS = [b"tok%d" % i for i in range(300)]


def write(path, tokens, end=b"\n"):
    path.write_bytes(b"".join(token + end for token in tokens))
    return os.fsencode(path)


@pytest.fixture
def diagnose(tmp_path):
    """Diagnoses a new and an old vocabulary; `settings` override the defaults (all entries)."""

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
        return vocab_diagnosis.diagnose(question._replace(**settings), join_files, exact=exact)

    return run


def test_matching_vocabularies_give_no_warning(diagnose):
    found = diagnose([*TOKENS[5:200], b"new"])
    assert found.warnings == () and found.error is None
    assert found.action == "remapped: 195 of 196 rows are in the old vocabulary"


CHANGES = {
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


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("which", ["new", "old"])
def test_warns_if_no_token_matches(diagnose, change, which):
    function, cause = CHANGES[change]
    new, old = TOKENS[:50], TOKENS
    if which == "new":
        new = [function(token) for token in new]
    else:
        old = [function(token) for token in old]
    (warning,) = diagnose(new, old).warnings
    assert "none of the 50 tokens of" in warning and "among the 300 of" in warning
    assert "'emb'" in warning and "all rows" in warning
    tail = warning.partition("; ")[2]
    if cause is None:
        assert not tail
    else:
        assert cause in tail and f"{which}.txt" in tail


def test_warns_if_few_tokens_match(diagnose):
    few = [*TOKENS[:2], *[b"new%d" % i for i in range(298)]]
    (warning,) = diagnose(few).warnings
    assert "only 2 of the 300 tokens" in warning and "nearly all rows" in warning
    assert not diagnose([*TOKENS[:4], *[b"new%d" % i for i in range(296)]]).warnings


def test_warns_about_byte_order_mark(diagnose):
    marked = [b"\xef\xbb\xbf" + TOKENS[0], *TOKENS[1:]]
    assert "new.txt begins with a byte order mark" in diagnose(marked).warnings[0]
    assert "old.txt begins with a byte order mark" in diagnose(TOKENS, marked).warnings[0]
    assert not diagnose(marked, marked).warnings


def test_warns_about_carriage_return_line_ends(diagnose, tmp_path):
    path = write(tmp_path / "mac.txt", TOKENS, b"\r")
    found = diagnose(path, new_size=300, wanted=300, room=300)
    assert any("new_vocab_size is 300, but" in each for each in found.warnings)
    assert any("mac.txt ends its lines with only CR" in each for each in found.warnings)
    assert not diagnose(write(tmp_path / "dos.txt", TOKENS, b"\r\n"), new_size=300, wanted=300,
                   room=300).warnings  # fmt: skip


def test_reports_old_vocabulary_longer_than_table(diagnose):
    found = diagnose(TOKENS[:10], table_rows=200)
    assert found.error is None
    assert found.warnings[0] == (
        "'emb': old_vocab has 300 tokens, the table has 200 rows: set old_vocab_size=200"
    )
    assert not diagnose(TOKENS[:10], table_rows=300).warnings
    assert "has 300 tokens, the table has 299" in diagnose(TOKENS[:10], table_rows=299).warnings[0]
    found = diagnose([TOKENS[3], TOKENS[250]], table_rows=200)
    assert found.error is not None
    assert "old_vocab has 300 tokens, the table has 200 rows: set old_vocab_size=200" in found.error
    assert "line 2 of" in found.error and "line 251 of" in found.error
    found = diagnose([TOKENS[3], TOKENS[250]], table_rows=200, axis=1)
    assert found.error is not None and "the table has 200 columns" in found.error
    # Entries beyond old_size are never looked up.
    assert not diagnose([TOKENS[3], TOKENS[250]], table_rows=200, old_size=200).warnings
    found = diagnose([TOKENS[250]], table_rows=200, old_size=260)
    assert found.error is not None and "old_vocab_size is 260, the table has 200" in found.error


def test_ignores_entries_that_are_not_wanted(diagnose):
    assert diagnose([TOKENS[3], TOKENS[250]], table_rows=200, wanted=1).error is None


def test_warns_if_variable_is_smaller_than_vocabulary(diagnose):
    found = diagnose(TOKENS[:10], room=6, wanted=6, num_oov=2)
    assert found.warnings == (
        "'emb': new_vocab_size (10) + num_oov_buckets (2) = 12, but the variable has 6 rows: it "
        "gets the first 6",
    )


def test_missing_files_are_warnings(diagnose, tmp_path):
    gone = os.fsencode(tmp_path / "gone.txt")
    for new, old in ((gone, TOKENS), (TOKENS, gone)):
        (warning,) = diagnose(new, old).warnings
        assert "the vocabulary file" in warning and "gone.txt does not exist here" in warning


@pytest.mark.parametrize(
    ("new", "old", "settings", "message"),
    [
        ([b"a", b"", b"b"], TOKENS, {}, "is empty"),
        ([], TOKENS, {}, "no line"),
        (TOKENS, [b"a", b"a"], {}, "repeats"),
        (TOKENS, TOKENS, {"old_size": 301}, "old_size is 301"),
        (TOKENS, TOKENS, {"wanted": 301, "new_size": 301}, "new_vocab_size is 301"),
    ],
)
def test_warns_about_later_read_failure(diagnose, new, old, settings, message):
    found = diagnose(new, old, **settings)
    assert found.error is None
    assert any("will fail" in each and message in each for each in found.warnings)


@pytest.fixture
def small(monkeypatch):
    """Lowers the limits so that files of a few kilobytes count as large."""
    monkeypatch.setattr(vocab_diagnosis, "MAX_JOIN_BYTES", 1 << 10)
    monkeypatch.setattr(vocab_diagnosis, "_MIN_SAMPLE", 4 << 10)


@pytest.fixture
def joins(monkeypatch):
    """Records the calls of remap_vocab."""
    calls = []
    original = vocab_diagnosis.vocab.remap_vocab

    def join(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(vocab_diagnosis.vocab, "remap_vocab", join)
    return calls


LARGE = [b"w%d" % i for i in range(20_000)]


@pytest.mark.parametrize("order", ["same", "shuffled", "reversed", "every second"])
def test_large_matching_files_are_not_joined(diagnose, small, joins, order):
    rng = np.random.default_rng(1)
    new = {
        "same": LARGE,
        "shuffled": [LARGE[i] for i in rng.permutation(len(LARGE))],
        "reversed": LARGE[::-1],
        "every second": LARGE[::2],
    }[order]
    assert diagnose(new, LARGE).warnings == ()
    assert not joins
    assert "remapped: " in diagnose(new, LARGE, exact=True).action
    assert len(joins) == 1


def test_large_mismatching_files_are_joined(diagnose, small, joins):
    (warning,) = diagnose([token + b"\t1" for token in LARGE], LARGE).warnings
    assert "none of the 20000 tokens" in warning and "tabs" in warning
    assert len(joins) == 1


def test_likely_cause_ignores_missing_files(tmp_path):
    assert likely_cause(os.fsencode(tmp_path / "a"), os.fsencode(tmp_path / "b")) == ""
