# SPDX-License-Identifier: Apache-2.0
"""Diagnosis of vocabularies that do not match each other or their table.

If the two vocabularies have different formats, no tokens match, and every row is silently
initialized by the backup initializer. Small files are joined; of large files, samples are compared.
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

# Two files of at most this total size are always joined, which takes a few milliseconds.
MAX_JOIN_BYTES = 4 << 20

# The sample of a larger file has 1/256 of its bytes, within bounds, from eight places.
_SAMPLE_DIVISOR = 256
_MIN_SAMPLE = 32 << 10
_MAX_SAMPLE = 512 << 10
_NUM_PLACES = 8

# The numbers of tokens that are compared to find the likely cause of mismatches.
_MAX_NEW_TOKENS = 2000
_MAX_OLD_TOKENS = 20000

# Less than one match in 100 tokens causes a warning.
_MIN_MATCH_DIVISOR = 100

_BOM = b"\xef\xbb\xbf"
_QUOTES = (b'""', b"''", b"``")


class JoinResult(NamedTuple):
    """The summary of a join of two vocabularies.

    Attributes:
        new_lines: The number of lines of the new vocabulary.
        old_lines: The number of lines of the old vocabulary that are in use.
        present: The number of needed new lines that are in the old vocabulary.
        bad_line: The first needed new line whose old row is out of bounds for the table, or -1.
        bad_row: The old row of that line, or -1.
    """

    new_lines: int
    old_lines: int
    present: int
    bad_line: int
    bad_row: int


# A function of (new path, old path, old size or -1, number of needed new lines, rows of the table).
Join = Callable[[bytes, bytes, int, int, int], JoinResult]


class RemapInputs(NamedTuple):
    """A table and its vocabularies.

    Attributes:
        variable: The name of the table's variable.
        new: The path of the new vocabulary.
        old: The path of the old vocabulary.
        new_size: The number of new entries in use.
        old_size: The number of old entries in use; -1 means all.
        axis: The axis of the table that the vocabulary indexes.
        wanted: The number of new entries that fit into the variable.
        room: The number of entries and buckets that fit into the variable; None if only one of its
            partitions was selected.
        num_oov: The number of out-of-vocabulary buckets.
        table_rows: The size of the stored table along the axis; None if it is unknown.
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
        """The word for an entry of the table: ``"row"`` or ``"column"``."""
        return "row" if self.axis == 0 else "column"


class Diagnosis(NamedTuple):
    """The result of a diagnosis, in sentences.

    Attributes:
        action: A short description of the remap, with exact numbers if they are known.
        warnings: Problems that TensorFlow does not report, or only when initializers run.
        error: The error if a needed entry is out of bounds for the table.
    """

    action: str
    warnings: tuple[str, ...]
    error: str | None = None


def join_files(new: bytes, old: bytes, old_size: int, wanted: int, table_rows: int) -> JoinResult:
    """Joins two files with ``remap_vocab``, which caches the join.

    Raises:
        Error, ValueError, OSError: Raised by ``remap_vocab``, or the old file cannot be read.
    """
    ids = vocab.remap_vocab(new, old, old_size=None if old_size < 0 else old_size).ids
    status = os.stat(old)
    needed = ids[: max(0, wanted)]
    bad_lines = np.flatnonzero(needed >= table_rows)
    bad_line = int(bad_lines[0]) if bad_lines.size else -1
    return JoinResult(
        len(ids),
        old_size if old_size >= 0 else _count_lines(old, status.st_size, status.st_mtime_ns),
        int(np.count_nonzero(needed >= 0)),
        bad_line,
        int(needed[bad_line]) if bad_lines.size else -1,
    )


def diagnose(
    inputs: RemapInputs, join: Join, *, exact: bool, is_immediate: bool = False
) -> Diagnosis:
    """Diagnoses the vocabularies of a table, unless that is slow.

    Args:
        inputs: The table and its vocabularies.
        join: Joins two files.
        exact: Join files of any size.
        is_immediate: The remap happens now, not when initializers run, so errors are raised.

    Raises:
        VocabularyNotFoundError, Error, ValueError, OSError: The join failed, with `is_immediate`.
    """
    warnings = _size_warnings(inputs)
    name = repr(inputs.variable)
    sizes = []
    for path in (inputs.new, inputs.old):
        size = _size_of(path)
        if size is None:
            text = os.fsdecode(path)
            if is_immediate:
                message = f"{name}: the vocabulary file {text} does not exist"
                raise VocabularyNotFoundError(message, text)
            warnings.append(
                f"{name}: the vocabulary file {text} does not exist here; it is read when the "
                "initializers run"
            )
            return Diagnosis("remapped", tuple(warnings))
        sizes.append(size)
    warnings += [f"{name}: {text}" for text in _bom_warnings(inputs.new, inputs.old)]
    if not exact and sum(sizes) > MAX_JOIN_BYTES and not _samples_differ(inputs.new, inputs.old):
        return Diagnosis("remapped", tuple(warnings))
    rows = -1 if inputs.table_rows is None else inputs.table_rows
    try:
        joined = join(
            inputs.new,
            inputs.old,
            inputs.old_size,
            inputs.wanted,
            rows if rows >= 0 else np.iinfo(np.int64).max,
        )
    except (Error, ValueError, OSError) as error:
        if is_immediate:
            raise
        warnings.append(f"{name}: the initializers will fail: {error}")
        return Diagnosis("remapped", tuple(warnings))
    if is_immediate and inputs.wanted > joined.new_lines:
        raise ValueError(_too_few_tokens(inputs, joined))
    return _diagnose_join(inputs, joined, warnings)


def _diagnose_join(inputs: RemapInputs, joined: JoinResult, warnings: list[str]) -> Diagnosis:
    name, new, old = repr(inputs.variable), os.fsdecode(inputs.new), os.fsdecode(inputs.old)
    if inputs.wanted > joined.new_lines:
        text = _too_few_tokens(inputs, joined)
        warnings.append(f"{name}: the initializers will fail: {text}")
    wanted = min(inputs.wanted, joined.new_lines)
    if wanted and joined.present * _MIN_MATCH_DIVISOR < wanted:
        few = "none" if joined.present == 0 else f"only {joined.present}"
        cause = likely_cause(inputs.new, inputs.old)
        warnings.append(
            f"{name}: {few} of the {wanted} tokens of {new} {_is_or_are(joined.present)} among the "
            f"{joined.old_lines} of {old}, so {'all' if few == 'none' else 'nearly all'} "
            f"{inputs.entries}s are initialized by the backup initializer"
            + (f"; {cause}" if cause else "")
        )
    error = None
    if inputs.table_rows is not None and joined.old_lines > inputs.table_rows:
        text = _too_many_tokens(inputs, joined.old_lines)
        if joined.bad_line < 0:
            warnings.append(f"{name}: {text}")
        else:
            error = (
                f"{name}: {text} (line {joined.bad_line + 1} of {new} is line "
                f"{joined.bad_row + 1} of {old})"
            )
    action = f"remapped: {joined.present} of {wanted} {inputs.entries}s are in the old vocabulary"
    return Diagnosis(action, tuple(warnings), error)


def _too_few_tokens(inputs: RemapInputs, joined: JoinResult) -> str:
    new = os.fsdecode(inputs.new)
    return f"new_vocab_size is {inputs.new_size}, but {new} has {joined.new_lines} tokens"


def _is_or_are(count: int) -> str:
    return "is" if count < 2 else "are"


def _size_warnings(inputs: RemapInputs) -> list[str]:
    needed = inputs.new_size + inputs.num_oov
    if inputs.axis != 0 or inputs.room is None or needed <= inputs.room:
        return []
    return [
        f"{inputs.variable!r}: new_vocab_size ({inputs.new_size}) + num_oov_buckets "
        f"({inputs.num_oov}) = {needed}, but the variable has {inputs.room} rows: it gets the "
        f"first {inputs.room}"
    ]


def _too_many_tokens(inputs: RemapInputs, old_lines: int) -> str:
    rows = inputs.table_rows
    given = (
        f"old_vocab has {old_lines} tokens"
        if inputs.old_size < 0
        else f"old_vocab_size is {inputs.old_size}"
    )
    return f"{given}, the table has {rows} {inputs.entries}s: set old_vocab_size={rows}"


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


def _samples_differ(new: bytes, old: bytes) -> bool:
    """Returns whether samples of two files have far fewer common tokens than reordered files."""
    try:
        new_tokens, old_tokens = _sample(new), _sample(old)
        old_size = os.stat(old).st_size
    except OSError:
        return False  # the initializers raise the error
    if not new_tokens or not old_tokens:
        return False
    length = sum(map(len, old_tokens)) / len(old_tokens) + 1
    expected = len(new_tokens) * len(old_tokens) * length / old_size
    common = len(new_tokens & old_tokens)
    return common == 0 or common < expected / 20


def _sample(path: bytes) -> set[bytes]:
    """Returns whole lines from several places of a file, including the first lines."""
    lines: set[bytes] = set()
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        length = min(max(size // _SAMPLE_DIVISOR, _MIN_SAMPLE), _MAX_SAMPLE) // _NUM_PLACES
        for place in range(_NUM_PLACES):
            offset = max(0, size - length) * place // (_NUM_PLACES - 1)
            file.seek(offset)
            block = file.read(length)
            if b"\r" in block:
                block = block.replace(b"\r\n", b"\n")
            # The first and the last line of a block may be incomplete.
            lines.update(block.split(b"\n")[offset > 0 : -1])
    return lines


def _unquoted(token: bytes) -> bytes:
    if token[:2] in (b"b'", b'b"'):
        token = token[1:]
    return token[1:-1] if len(token) > 1 and token[:1] + token[-1:] in _QUOTES else token


def _first_word(token: bytes) -> bytes:
    words = token.replace(b",", b" ").split()
    return words[0] if words else token


def _normalized(token: bytes) -> bytes:
    return _unquoted(token.split(b"\t")[0].strip()).lower()


# Changes of tokens, each with the description of a file whose tokens match only after the change.
_CAUSES: tuple[tuple[Callable[[bytes], bytes], str], ...] = (
    (lambda token: token.split(b"\t")[0], "has tabs, with text after its tokens (counts?)"),
    (bytes.rstrip, "has blanks at the ends of its lines"),
    (bytes.strip, "has blanks at the beginnings of its lines"),
    (_unquoted, "has its tokens in quotes"),
    (bytes.lower, "differs in upper and lower case"),
    (_first_word, "has text after its tokens (counts?)"),
    (_normalized, "differs in blanks, tabs, quotes or case"),
)


def likely_cause(new: bytes, old: bytes) -> str:
    """Returns the likely reason why two vocabularies have no common tokens, or ``""``."""
    try:
        tokens = {new: _tokens(new, _MAX_NEW_TOKENS), old: _tokens(old, _MAX_OLD_TOKENS)}
    except OSError:
        return ""
    for path, found in tokens.items():
        if len(found) == 1 and b"\r" in found[0]:
            return f"{os.fsdecode(path)} ends its lines with only CR, so it has one line"
    best, cause = 2 * len(set(tokens[new]) & set(tokens[old])), ""
    for change, text in _CAUSES:
        changed = {path: [change(token) for token in found] for path, found in tokens.items()}
        common = len(set(changed[new]) & set(changed[old]))
        if common > best:
            path = new if changed[new] != tokens[new] else old
            best, cause = common, f"{os.fsdecode(path)} {text}"
    return cause


def _tokens(path: bytes, count: int) -> list[bytes]:
    """Returns the first tokens of a file."""
    with open(path, "rb") as file:
        lines = file.read(MAX_JOIN_BYTES).split(b"\n", count)[:count]
    tokens = [line.removesuffix(b"\r").removeprefix(_BOM) for line in lines]
    return [token for token in tokens if token]


def _bom_warnings(new: bytes, old: bytes) -> list[str]:
    """Returns a warning if one file has a byte order mark, so that its first token differs."""
    marked = []
    for path in (new, old):
        with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
            if file.read(len(_BOM)) == _BOM:
                marked.append(path)
    if len(marked) != 1:
        return []
    return [
        f"{os.fsdecode(marked[0])} begins with a byte order mark (BOM), which is part of its first "
        "token"
    ]
