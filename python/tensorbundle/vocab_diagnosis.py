# SPDX-License-Identifier: Apache-2.0
"""Whether two vocabularies fit each other and their table, and what is probably wrong if not.

A vocabulary in another format matches nothing, and every row starts from the backup initializer
without a word. Small files are joined, large ones are looked into at a few places.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tensorbundle import vocab
from tensorbundle.errors import Error, VocabularyNotFoundError

# Two files that are smaller together are joined at once; it takes some milliseconds.
JOINED_BYTES = 4 << 20

# Of larger ones a part is looked at, in so many places: one byte in so many, within bounds.
_SAMPLED = 256
_LEAST_SAMPLE = 32 << 10
_MOST_SAMPLE = 512 << 10
_PLACES = 8

# So many tokens are compared to guess why they do not match.
_NEW_COMPARED = 2000
_OLD_COMPARED = 20000

# "Hardly any": less than one in so many.
_HARDLY = 100


class Joined(NamedTuple):
    """What joining two vocabularies comes to.

    Attributes:
        new_lines: Lines of the new one.
        old_lines: Lines of the old one that count.
        present: Of the new lines that are wanted, how many the old one has.
        beyond: The first of them whose old row the table does not have; -1 where there is none.
        row: That old row.
    """

    new_lines: int
    old_lines: int
    present: int
    beyond: int
    row: int


# From (new, old, old size or -1, new lines wanted, rows of the table).
Join = Callable[[bytes, bytes, int, int, int], Joined]


class Question(NamedTuple):
    """One table and its vocabularies.

    Attributes:
        variable: The table's variable.
        new: The new vocabulary's path.
        old: The old one's.
        new_size: How many of the new entries count.
        old_size: How many of the old ones; -1: all.
        axis: The axis of the table that they number.
        wanted: How many of the new entries the variable has room for.
        room: How many entries and buckets the variable has room for; None if only one of its
            partitions was selected.
        num_oov: How many buckets there are to be.
        table_rows: How long the stored table is along the axis; None where it is not known.
    """

    variable: str
    new: bytes
    old: bytes
    new_size: int
    old_size: int
    axis: int
    wanted: int
    room: int | None
    num_oov: int
    table_rows: int | None

    @property
    def entries(self) -> str:
        """What an entry is in the table."""
        return "row" if self.axis == 0 else "column"


class Answer(NamedTuple):
    """What there is to say, in sentences.

    Attributes:
        action: What becomes of the table, in few words, with exact numbers if they are known.
        warnings: What is odd, and TensorFlow says nothing about or not yet.
        error: What cannot be: an entry that the table does not have is wanted of it.
    """

    action: str
    warnings: tuple[str, ...]
    error: str | None = None


def by_reader(new: bytes, old: bytes, old_size: int, wanted: int, table_rows: int) -> Joined:
    """The join by ``remap_vocab``, which remembers it.

    Raises:
        Error, ValueError, OSError: As ``remap_vocab``.
    """
    ids = vocab.remap_vocab(new, old, old_size=None if old_size < 0 else old_size).ids
    status = os.stat(old)
    part = ids[: max(0, wanted)]
    outside = np.flatnonzero(part >= table_rows)
    beyond = int(outside[0]) if outside.size else -1
    return Joined(
        len(ids),
        old_size if old_size >= 0 else _count_lines(old, status.st_size, status.st_mtime_ns),
        int(np.count_nonzero(part >= 0)),
        beyond,
        int(part[beyond]) if outside.size else -1,
    )


def answer(question: Question, join: Join, *, exact: bool, now: bool = False) -> Answer:
    """Looks into the vocabularies, as far as that is quick.

    Args:
        question: What to look at.
        join: Joins two files.
        exact: Join them however large they are.
        now: They are joined now, and not when initializers run: what fails is raised.

    Raises:
        VocabularyNotFoundError, Error, ValueError, OSError: With `now`, what the join raises.
    """
    warnings = _about_room(question)
    name = repr(question.variable)
    sizes = []
    for path in (question.new, question.old):
        size = _size_of(path)
        if size is None:
            text = os.fsdecode(path)
            if now:
                message = f"{name}: the vocabulary file {text} does not exist"
                raise VocabularyNotFoundError(message, text)
            warnings.append(
                f"{name}: the vocabulary file {text} does not exist here; it is read when the "
                "initializers run"
            )
            return Answer("remapped", tuple(warnings))
        sizes.append(size)
    warnings += [f"{name}: {text}" for text in _marks(question.new, question.old)]
    if not exact and sum(sizes) > JOINED_BYTES and not _seem_foreign(question.new, question.old):
        return Answer("remapped", tuple(warnings))
    rows = -1 if question.table_rows is None else question.table_rows
    try:
        joined = join(
            question.new,
            question.old,
            question.old_size,
            question.wanted,
            rows if rows >= 0 else np.iinfo(np.int64).max,
        )
    except (Error, ValueError, OSError) as error:
        if now:
            raise
        warnings.append(f"{name}: the initializers are going to fail: {error}")
        return Answer("remapped", tuple(warnings))
    if now and question.wanted > joined.new_lines:
        raise ValueError(_too_few(question, joined))
    return _judged(question, joined, warnings)


def _judged(question: Question, joined: Joined, warnings: list[str]) -> Answer:
    name, new, old = repr(question.variable), os.fsdecode(question.new), os.fsdecode(question.old)
    if question.wanted > joined.new_lines:
        text = _too_few(question, joined)
        warnings.append(f"{name}: the initializers are going to fail: {text}")
    wanted = min(question.wanted, joined.new_lines)
    if wanted and joined.present * _HARDLY < wanted:
        few = "none" if joined.present == 0 else f"only {joined.present}"
        cause = likely_cause(question.new, question.old)
        warnings.append(
            f"{name}: {few} of the {wanted} tokens of {new} {_is(joined.present)} among the "
            f"{joined.old_lines} of {old}, so {'all' if few == 'none' else 'nearly all'} "
            f"{question.entries}s start from the backup initializer"
            + (f"; {cause}" if cause else "")
        )
    error = None
    if question.table_rows is not None and joined.old_lines > question.table_rows:
        text = _too_long(question, joined.old_lines)
        if joined.beyond < 0:
            warnings.append(f"{name}: {text}")
        else:
            error = (
                f"{name}: {text} (line {joined.beyond + 1} of {new} is line {joined.row + 1} of "
                f"{old})"
            )
    action = f"remapped: {joined.present} of {wanted} {question.entries}s are in the old vocabulary"
    return Answer(action, tuple(warnings), error)


def _too_few(question: Question, joined: Joined) -> str:
    new = os.fsdecode(question.new)
    return f"new_vocab_size is {question.new_size}, but {new} has {joined.new_lines} tokens"


def _is(count: int) -> str:
    return "is" if count < 2 else "are"


def _about_room(question: Question) -> list[str]:
    needed = question.new_size + question.num_oov
    if question.axis != 0 or question.room is None or needed <= question.room:
        return []
    return [
        f"{question.variable!r}: new_vocab_size ({question.new_size}) + num_oov_buckets "
        f"({question.num_oov}) = {needed}, but the variable has {question.room} rows: it gets the "
        f"first {question.room}"
    ]


def _too_long(question: Question, old_lines: int) -> str:
    rows = question.table_rows
    given = (
        f"old_vocab has {old_lines} tokens"
        if question.old_size < 0
        else f"old_vocab_size is {question.old_size}"
    )
    return f"{given}, the table has {rows} {question.entries}s: set old_vocab_size={rows}"


def _size_of(path: bytes) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=64)
def _count_lines(path: bytes, _size: int, _changed: int) -> int:
    count, last = 0, b"\n"
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")


def _seem_foreign(new: bytes, old: bytes) -> bool:
    """Whether samples of two large files have less in common than files in any order would."""
    try:
        new_tokens, old_tokens = _sample(new), _sample(old)
        old_size = os.stat(old).st_size
    except OSError:
        return False  # Whoever reads all of them is going to say so.
    if not new_tokens or not old_tokens:
        return False
    length = sum(map(len, old_tokens)) / len(old_tokens) + 1
    expected = len(new_tokens) * len(old_tokens) * length / old_size
    common = len(new_tokens & old_tokens)
    return common == 0 or common < expected / 20


def _sample(path: bytes) -> set[bytes]:
    """Whole lines from several places, the first lines among them."""
    found: set[bytes] = set()
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        length = min(max(size // _SAMPLED, _LEAST_SAMPLE), _MOST_SAMPLE) // _PLACES
        for place in range(_PLACES):
            offset = max(0, size - length) * place // (_PLACES - 1)
            file.seek(offset)
            part = file.read(length)
            if b"\r" in part:
                part = part.replace(b"\r\n", b"\n")
            # The first and the last may be parts of lines.
            found.update(part.split(b"\n")[offset > 0 : -1])
    return found


_BOM = b"\xef\xbb\xbf"
_QUOTES = (b'""', b"''", b"``")


def _unquoted(token: bytes) -> bytes:
    if token[:2] in (b"b'", b'b"'):
        token = token[1:]
    return token[1:-1] if len(token) > 1 and token[:1] + token[-1:] in _QUOTES else token


def _first_word(token: bytes) -> bytes:
    words = token.replace(b",", b" ").split()
    return words[0] if words else token


def _plain(token: bytes) -> bytes:
    return _unquoted(token.split(b"\t")[0].strip()).lower()


# What is done to tokens, and what to say of the file that it changes if that makes them match.
_CAUSES: tuple[tuple[Callable[[bytes], bytes], str], ...] = (
    (lambda token: token.split(b"\t")[0], "has tabs, with something behind its tokens (counts?)"),
    (bytes.rstrip, "has blanks at the ends of its lines"),
    (bytes.strip, "has blanks at the beginnings of its lines"),
    (_unquoted, "has its tokens in quotes"),
    (bytes.lower, "differs in upper and lower case"),
    (_first_word, "has something behind its tokens (counts?)"),
    (_plain, "differs in blanks, tabs, quotes or case"),
)


def likely_cause(new: bytes, old: bytes) -> str:
    """Why two vocabularies have no common tokens, by a look at some of them; empty if unknown."""
    try:
        tokens = {new: _tokens(new, _NEW_COMPARED), old: _tokens(old, _OLD_COMPARED)}
    except OSError:
        return ""
    for path, found in tokens.items():
        if len(found) == 1 and b"\r" in found[0]:
            return f"{os.fsdecode(path)} ends its lines with CR alone, so it has one line"
    best, cause = 2 * len(set(tokens[new]) & set(tokens[old])), ""
    for change, text in _CAUSES:
        changed = {path: [change(token) for token in found] for path, found in tokens.items()}
        common = len(set(changed[new]) & set(changed[old]))
        if common > best:
            path = new if changed[new] != tokens[new] else old
            best, cause = common, f"{os.fsdecode(path)} {text}"
    return cause


def _tokens(path: bytes, count: int) -> list[bytes]:
    """The first tokens of a file."""
    with open(path, "rb") as file:
        lines = file.read(JOINED_BYTES).split(b"\n", count)[:count]
    tokens = [line.removesuffix(b"\r").removeprefix(_BOM) for line in lines]
    return [token for token in tokens if token]


def _marks(new: bytes, old: bytes) -> list[str]:
    """A byte order mark in one of the files hides its first token from the other."""
    begins = []
    for path in (new, old):
        with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
            if file.read(len(_BOM)) == _BOM:
                begins.append(path)
    if len(begins) != 1:
        return []
    return [
        f"{os.fsdecode(begins[0])} begins with a byte order mark (BOM), which is part of its first "
        "token"
    ]
