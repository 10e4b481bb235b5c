# SPDX-License-Identifier: Apache-2.0
"""Parser of ``checkpoint`` state files: a message of four fields in protobuf's text format.

The parser accepts the part of the text format that a message without submessages can use: comments,
quoted strings with escapes, numbers, ``[a, b]`` for repeated fields, ``,`` or ``;`` after a field.
Like TensorFlow, it rejects everything else, including unknown fields.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from typing import ClassVar

from tensorbundle.errors import CorruptionError

_MAX_TOKEN_CHARS = 60  # the number of characters of a token in a message

_INFINITY = re.compile(r"[+-]?inf", re.IGNORECASE)
_OCTAL = re.compile(r"-?0[0-9]")
_ESCAPE = re.compile(
    r"\\(?:x(?P<hex>[0-9a-fA-F]{1,2})"
    r"|(?P<octal>[0-7]{1,3})"
    r"|(?P<code>u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"
    r"|(?P<other>.))",
    re.DOTALL,
)
_SIMPLE_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
}


@dataclasses.dataclass(frozen=True)
class CheckpointState:
    """The content of a directory's ``checkpoint`` file, with the field names of TensorFlow.

    Attributes:
        model_checkpoint_path: The latest checkpoint.
        all_model_checkpoint_paths: All checkpoints that the writer keeps, oldest first.
        all_model_checkpoint_timestamps: The times when they were written, in seconds since 1970.
        last_preserved_timestamp: The time when the last permanently kept checkpoint was written.
    """

    model_checkpoint_path: str = ""
    all_model_checkpoint_paths: list[str] = dataclasses.field(default_factory=list)
    all_model_checkpoint_timestamps: list[float] = dataclasses.field(default_factory=list)
    last_preserved_timestamp: float = 0.0


_FIELD_NAMES = frozenset(field.name for field in dataclasses.fields(CheckpointState))


class ParseError(CorruptionError):
    """The text is not a state file; the message begins with line and column, counted from 1."""


_QUOTED = {ord(c): f"\\{e}" for c, e in zip("\n\r\t\"'\\", "nrt\"'\\", strict=True)}
_QUOTED |= {byte: f"\\{byte:03o}" for byte in (*range(32), 127) if byte not in _QUOTED}
# Bytes that are not UTF-8.
_QUOTED |= {0xDC00 + byte: f"\\{byte:03o}" for byte in range(128, 256)}


def parse_checkpoint_state(text: str) -> CheckpointState:
    """Parse the text of a state file. The last occurrence of a singular field wins.

    Raises:
        ParseError: The text is not that of a state file.
    """
    tokens = _Tokens(text)
    state = CheckpointState()
    while tokens.current:
        state = _read_field(tokens, state)
        if not tokens.take(","):
            tokens.take(";")
    return state


def format_checkpoint_state(state: CheckpointState) -> str:
    """Return the text that TensorFlow writes for a state."""
    lines = [f"model_checkpoint_path: {_quote(state.model_checkpoint_path)}"]
    paths = state.all_model_checkpoint_paths
    lines += [f"all_model_checkpoint_paths: {_quote(path)}" for path in paths]
    return "\n".join([*lines, ""])


def _quote(text: str) -> str:
    """Return the string literal of a path, as the newest protobuf writes it."""
    return f'"{text.translate(_QUOTED)}"'


def _read_field(tokens: _Tokens, state: CheckpointState) -> CheckpointState:
    name = tokens.current
    if name not in _FIELD_NAMES:
        raise tokens.error(f"a state file has no field {tokens.describe()}")
    tokens.advance()
    tokens.expect(":")
    if name == "model_checkpoint_path":
        return dataclasses.replace(state, model_checkpoint_path=_read_string(tokens))
    if name == "last_preserved_timestamp":
        return dataclasses.replace(state, last_preserved_timestamp=_read_number(tokens))
    if name == "all_model_checkpoint_paths":
        for _ in _items(tokens):
            state.all_model_checkpoint_paths.append(_read_string(tokens))
    else:
        for _ in _items(tokens):
            state.all_model_checkpoint_timestamps.append(_read_number(tokens))
    return state


def _items(tokens: _Tokens) -> Iterator[None]:
    """Yield before each value of a repeated field, bare or in ``[a, b]``; the caller reads it."""
    if not tokens.take("["):
        yield
        return
    if tokens.take("]"):
        return
    while True:
        yield
        if tokens.take("]"):
            return
        tokens.expect(",")


def _read_string(tokens: _Tokens) -> str:
    """Read a string. Adjacent literals are joined, even in the middle of a UTF-8 character."""
    if not tokens.is_string():
        raise tokens.error(f"expected a string, found {tokens.describe()}")
    parts = []
    while tokens.is_string():
        try:
            if len(tokens.current) > len("''"):
                parts.append(_unescape(tokens.current[1:-1]))
        except ValueError as error:
            raise tokens.error(f"bad escape in {tokens.describe()}: {error}") from None
        tokens.advance()
    try:
        return b"".join(parts).decode("utf-8")
    except UnicodeDecodeError as error:
        raise tokens.error(f"a string that is not UTF-8: {error.reason}") from None


def _unescape(literal: str) -> bytes:
    """Replace the escapes of a string literal. Hexadecimal and octal escapes are bytes."""
    value = bytearray()
    end = 0
    for match in _ESCAPE.finditer(literal):
        value += literal[end : match.start()].encode("utf-8")
        value += _escaped(match)
        end = match.end()
    return bytes(value + literal[end:].encode("utf-8"))


def _escaped(match: re.Match[str]) -> bytes:
    if match["hex"]:
        return bytes([int(match["hex"], 16)])
    if match["octal"]:
        return bytes([int(match["octal"], 8)])
    if match["code"]:
        number = int(match["code"][1:], 16)
        if number > sys.maxunicode or 0xD800 <= number <= 0xDFFF:
            raise ValueError(f"{match[0]} is not a character")
        return chr(number).encode("utf-8")
    if match["other"] in "xuUN":
        raise ValueError(f"\\{match['other']} must be followed by digits")
    # TensorFlow keeps the backslash of an unknown escape.
    return _SIMPLE_ESCAPES.get(match["other"], match[0]).encode("utf-8")


def _read_number(tokens: _Tokens) -> float:
    """Read a number in the syntax of C++ or Python. Accepts ``1.5f``, rejects octal ``012``."""
    token = tokens.current
    has_suffix = token[-1:] in ("f", "F") and not _INFINITY.fullmatch(token)
    try:
        if _OCTAL.match(token):
            raise ValueError(token)
        value = float(token[:-1] if has_suffix else token)
    except ValueError:
        raise tokens.error(f"expected a number, found {tokens.describe()}") from None
    tokens.advance()
    return value


class _Tokens:
    """A tokenizer; ``current`` is empty at the end of the text.

    A token is a name, a number, a whole string literal, or any other single character, for example
    a quote that is not closed on its line.
    """

    # The regex engine allocates memory for every repetition of a group, so bound the number of
    # repetitions per match.
    _SKIP = re.compile(r"\s*(?:#[^\n]*\s*){0,1000}")
    _INSIDE: ClassVar = {
        '"': re.compile(r'[^"\\\n]*(?:\\[^\n][^"\\\n]*){0,1000}'),
        "'": re.compile(r"[^'\\\n]*(?:\\[^\n][^'\\\n]*){0,1000}"),
    }
    _TOKEN = re.compile(
        r"[A-Za-z_][0-9A-Za-z_+-]*|(?:[0-9+-]|\.[0-9])[0-9A-Za-z_.+-]*|.", re.DOTALL
    )

    def __init__(self, text: str) -> None:
        self._text = text
        self._start = 0
        self.current = ""
        self.advance()

    def advance(self) -> None:
        """Go to the next token."""
        self._start = self._end_of_matches(self._SKIP, self._start + len(self.current))
        token = self._TOKEN.match(self._text, self._start)
        self.current = token[0] if token else ""
        if self.current in self._INSIDE:
            quote = self.current
            end = self._end_of_matches(self._INSIDE[quote], self._start + 1)
            if self._text[end : end + 1] == quote:
                self.current = self._text[self._start : end + 1]

    def _end_of_matches(self, pattern: re.Pattern[str], start: int) -> int:
        """Return the end of the longest sequence of adjacent matches of a pattern."""
        while True:
            match = pattern.match(self._text, start)
            if match is None or match.end() == start:
                return start
            start = match.end()

    def take(self, symbol: str) -> bool:
        """Skip the current token if it is `symbol`, and return whether it was."""
        if self.current != symbol:
            return False
        self.advance()
        return True

    def expect(self, symbol: str) -> None:
        """Skip the current token, which must be `symbol`."""
        if not self.take(symbol):
            raise self.error(f"expected {symbol!r}, found {self.describe()}")

    def is_string(self) -> bool:
        """Return whether the current token is a whole string literal."""
        return len(self.current) > 1 and self.current[0] in "\"'"

    def describe(self) -> str:
        """Return the current token for an error message."""
        if self.current in ('"', "'"):
            return "a string without its closing quote"
        if len(self.current) > _MAX_TOKEN_CHARS:
            return f"{self.current[:_MAX_TOKEN_CHARS]!r}..."
        return repr(self.current) if self.current else "the end of the file"

    def error(self, message: str) -> ParseError:
        """Return (do not raise) an error with the position of the current token."""
        line = self._text.count("\n", 0, self._start) + 1
        column = self._start - self._text.rfind("\n", 0, self._start)
        return ParseError(f"{line}:{column} : {message}")
