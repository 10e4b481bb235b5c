# SPDX-License-Identifier: Apache-2.0
"""Vocabularies: remapped ids, errors, and caching."""

from __future__ import annotations

import os
import pathlib
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorbundle as tb

TOKENS = st.lists(st.binary(min_size=1, max_size=4).filter(lambda t: b"\n" not in t), max_size=40)


def expected(new: list[bytes], old: list[bytes]) -> list[int]:
    rows = {token: row for row, token in enumerate(old)}
    return [rows.get(token, -1) for token in new]


def lines(path: Path, tokens: list[bytes]) -> Path:
    path.write_bytes(b"".join(token + b"\n" for token in tokens))
    return path


@given(new=TOKENS, old=st.lists(st.binary(max_size=4), unique=True, max_size=40))
def test_remaps_sequences(new: list[bytes], old: list[bytes]) -> None:
    remap = tb.remap_vocab(new, old)
    assert remap.ids.tolist() == expected(new, old)
    assert remap.ids.dtype == np.int64
    assert not remap.ids.flags.writeable
    assert remap.num_present == sum(row >= 0 for row in remap.ids)
    assert len(remap) == len(new)


@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path])
def test_remaps_files(tmp_path: Path, kind: type) -> None:
    new = lines(tmp_path / "new", [b"c", b"x", b"a", b"a"])
    old = tmp_path / "old"
    old.write_bytes(b"a\r\nb\nc")
    remap = tb.remap_vocab(kind(str(new)), kind(str(old)))
    assert remap.ids.tolist() == [2, -1, 0, 0]
    assert tb.remap_vocab(new, ["a", "c"]).ids.tolist() == [1, -1, 0, 0]
    window = tb.remap_vocab(new, old, new_offset=1, new_size=2, old_size=2)
    assert window.ids.tolist() == [-1, 0]
    assert window.num_present == 1


def test_invalid_vocabularies_and_options_raise_errors(tmp_path: Path) -> None:
    good = lines(tmp_path / "good", [b"a", b"b"])
    for name, text in (("empty", b""), ("gap", b"a\n\nb\n"), ("twice", b"a\nb\na\n")):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(tb.CorruptionError, match=name):
            tb.remap_vocab(good, tmp_path / name)
    for name in ("empty", "gap"):
        with pytest.raises(tb.CorruptionError, match=name):
            tb.remap_vocab(tmp_path / name, good)
    assert tb.remap_vocab(tmp_path / "twice", good).ids.tolist() == [0, 1, 0]
    assert tb.remap_vocab(good, tmp_path / "twice", old_size=2).ids.tolist() == [0, 1]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tb.remap_vocab(good, tmp_path / "nowhere")
    for options in (
        {"new_size": 3},
        {"new_offset": 3},
        {"new_offset": 1, "new_size": 2},
        {"old_size": 3},
        {"new_size": -1},
        {"old_size": -2},
        {"old_size": 0},
    ):
        with pytest.raises(ValueError, match=r"\d"):
            tb.remap_vocab(good, good, **options)
    with pytest.raises(TypeError, match="int"):
        tb.remap_vocab([1], good)
    with pytest.raises(tb.UnsupportedError, match="local"):
        tb.remap_vocab("gs://bucket/vocab", good)


def test_joins_two_files_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorbundle import _core, vocab

    calls = []
    join = _core.join

    def counted(*arguments, **options):
        calls.append(arguments)
        return join(*arguments, **options)

    monkeypatch.setattr(vocab._core, "join", counted)
    tb.clear_caches()
    new = lines(tmp_path / "new", [b"%d" % i for i in range(1000)])
    old = lines(tmp_path / "old", [b"%d" % i for i in range(0, 1000, 2)])
    workers = [
        threading.Thread(target=lambda k=k: tb.remap_vocab(new, old, new_offset=k, new_size=100))
        for k in range(0, 1000, 100)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(calls) == 1
    tb.remap_vocab(new, old, old_size=10)
    assert len(calls) == 2
    lines(tmp_path / "other", [b"x"]).replace(old)
    assert tb.remap_vocab(new, old).num_present == 0
    assert len(calls) == 3
    tb.clear_caches()
    tb.remap_vocab(new, old)
    assert len(calls) == 4


def test_file_of_same_size_that_was_rewritten_in_place_is_joined_again(tmp_path: Path) -> None:
    new = lines(tmp_path / "new", [b"a", b"b"])
    old = lines(tmp_path / "old", [b"a", b"x"])
    assert tb.remap_vocab(new, old).ids.tolist() == [0, -1]
    before = old.stat()
    time.sleep(0.03)  # longer than a tick of the clock of file systems
    lines(old, [b"b", b"a"])
    after = old.stat()
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)
    assert tb.remap_vocab(new, old).ids.tolist() == [1, 0]
    time.sleep(0.03)
    lines(old, [b"x", b"b"])
    os.utime(old, ns=(after.st_atime_ns, after.st_mtime_ns))  # as some copying programs do
    assert tb.remap_vocab(new, old).ids.tolist() == [-1, 1]


def test_cache_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorbundle import vocab

    tb.clear_caches()
    monkeypatch.setattr(vocab, "_MAX_CACHED_BYTES", 3 * 8 * 100)
    new = lines(tmp_path / "new", [b"%d" % i for i in range(100)])
    for size in range(1, 11):
        tb.remap_vocab(new, new, old_size=size)
    assert len(vocab._cache._ids) == 3


@pytest.mark.parametrize("which", ["new", "old"])
def test_missing_vocabulary_raises_not_found_error(tmp_path: Path, which: str) -> None:
    good = lines(tmp_path / "good", [b"a"])
    missing = tmp_path / "missing.txt"
    pair = (missing, good) if which == "new" else (good, missing)
    with pytest.raises(
        FileNotFoundError, match=f"the {which} vocabulary .* does not exist"
    ) as caught:
        tb.remap_vocab(*pair)
    assert isinstance(caught.value, tb.NotFoundError)
    assert caught.value.filename == str(missing)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((["a"], None), TypeError, "the old vocabulary must be a path or a sequence"),
        ((["a", 3], ["a"]), TypeError, "token 1 of the new vocabulary"),
        ((["a", "\ud800"], ["a"]), ValueError, "token 1 of the new vocabulary cannot be encoded"),
        (("\ud800", ["a"]), ValueError, "cannot have the character"),
        (("a\0b", ["a"]), ValueError, "NUL"),
        ((pathlib.Path("gs:/bucket/vocab"), ["a"]), FileNotFoundError, "does not exist"),
        (("gs://bucket/vocab", ["a"]), tb.UnsupportedError, "remote file system"),
    ],
)
def test_invalid_vocabulary_raises_error(
    arguments: tuple, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tb.remap_vocab(*arguments)


def test_accepts_tokens_that_are_not_utf8() -> None:
    assert tb.remap_vocab(["\udcff", b"\xfe"], [b"\xff", "\udcfe"]).ids.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["new_size", "old_size", "new_offset"])
@pytest.mark.parametrize(
    "value", [True, 1.5, float("nan"), "1", [], -1, 2**63, 2**200, np.float32(1), np.bool_(True)]
)
def test_invalid_size_raises_error(name: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        tb.remap_vocab(["a", "b"], ["b"], **{name: value})


def test_accepts_numpy_integers_as_sizes() -> None:
    sizes = {"new_size": np.int8(1), "old_size": np.uint64(1), "new_offset": np.int64(1)}
    assert tb.remap_vocab(["a", "b"], ["b"], **sizes).ids.tolist() == [0]
