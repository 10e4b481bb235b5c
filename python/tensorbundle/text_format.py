# SPDX-License-Identifier: Apache-2.0
"""The text of a ``checkpoint`` state file: four fields in protobuf's text format.

Only what a message without sub-messages can use of the text format is read here: comments, quoted
strings with escapes, numbers, ``[a, b]`` for repeated fields, ``,`` or ``;`` behind a field.
Everything else, unknown fields included, is refused, as TensorFlow refuses it.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from typing import ClassVar

from tensorbundle.errors import CorruptionError


@dataclasses.dataclass(frozen=True)
class CheckpointState:
    """What a directory's ``checkpoint`` file says, by the field names of TensorFlow's message.

    Attributes:
        model_checkpoint_path: The latest checkpoint.
        all_model_checkpoint_paths: Every checkpoint that the writer still keeps, oldest first.
        all_model_checkpoint_timestamps: When each of them was written, in seconds since 1970.
        last_preserved_timestamp: When the last checkpoint was written that is kept for good.
    """

    model_checkpoint_path: str = ""
    all_model_checkpoint_paths: list[str] = dataclasses.field(default_factory=list)
    all_model_checkpoint_timestamps: list[float] = dataclasses.field(default_factory=list)
    last_preserved_timestamp: float = 0.0


class ParseError(CorruptionError):
    """The text is no state file; the message begins with line and column, counted from 1."""


def parse_checkpoint_state(text: str) -> CheckpointState:
    """Read the text of a state file. Of a singular field that occurs twice, the last one counts.

    Raises:
        ParseError: The text is not one of a state file.
    """
    tokens = _Tokens(text)
    state = CheckpointState()
    while tokens.current:
        state = _read_field(tokens, state)
        if not tokens.take(","):
            tokens.take(";")
    return state


def _read_field(tokens: _Tokens, state: CheckpointState) -> CheckpointState:
    name = tokens.current
    if name not in _FIELD_NAMES:
        raise tokens.error(f"a state file has no field {tokens.shown()}")
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


_FIELD_NAMES = frozenset(field.name for field in dataclasses.fields(CheckpointState))


def _items(tokens: _Tokens) -> Iterator[None]:
    """Stop before each value of a repeated field, bare or in ``[a, b]``; the caller reads it."""
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
    """Read one string; adjacent literals are one, even if a character is split over two."""
    if not tokens.is_string():
        raise tokens.error(f"expected a string, found {tokens.shown()}")
    parts = []
    while tokens.is_string():
        try:
            if len(tokens.current) > len("''"):
                parts.append(_unescape(tokens.current[1:-1]))
        except ValueError as error:
            raise tokens.error(f"bad escape in {tokens.shown()}: {error}") from None
        tokens.advance()
    try:
        return b"".join(parts).decode("utf-8")
    except UnicodeDecodeError as error:
        raise tokens.error(f"a string that is not UTF-8: {error.reason}") from None


def _unescape(literal: str) -> bytes:
    """Replace the escapes of a string literal: hexadecimal and octal ones stand for bytes."""
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
            raise ValueError(f"{match[0]} does not stand for a character")
        return chr(number).encode("utf-8")
    if match["other"] in "xuUN":
        raise ValueError(f"\\{match['other']} needs its digits")
    # TensorFlow keeps the backslash of an escape that means nothing.
    return _SIMPLE_ESCAPES.get(match["other"], match[0]).encode("utf-8")


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


def _read_number(tokens: _Tokens) -> float:
    """Read a number as C++ and Python write it; ``1.5f`` is one, ``012`` (octal) is none."""
    token = tokens.current
    has_suffix = token[-1:] in ("f", "F") and not _INFINITY.fullmatch(token)
    try:
        if _OCTAL.match(token):
            raise ValueError(token)
        value = float(token[:-1] if has_suffix else token)
    except ValueError:
        raise tokens.error(f"expected a number, found {tokens.shown()}") from None
    tokens.advance()
    return value


_SHOWN = 60  # as many characters of a token as a message shows
_INFINITY = re.compile(r"[+-]?inf", re.IGNORECASE)
_OCTAL = re.compile(r"-?0[0-9]")


class _Tokens:
    """Walks over a text token by token; ``current`` is empty at the end.

    A token is a name, a number, a whole string literal, or any other single character: a quote
    without its partner on the same line, for example.
    """

    # The engine needs memory for every repetition of a group: so many at a time.
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
        self._start = self._end_of_all(self._SKIP, self._start + len(self.current))
        token = self._TOKEN.match(self._text, self._start)
        self.current = token[0] if token else ""
        if self.current in self._INSIDE:
            quote = self.current
            end = self._end_of_all(self._INSIDE[quote], self._start + 1)
            if self._text[end : end + 1] == quote:
                self.current = self._text[self._start : end + 1]

    def _end_of_all(self, pattern: re.Pattern[str], begin: int) -> int:
        """Where the longest run of matches of a pattern ends."""
        while True:
            match = pattern.match(self._text, begin)
            if match is None or match.end() == begin:
                return begin
            begin = match.end()

    def take(self, symbol: str) -> bool:
        """Step over the current token if it is this one."""
        if self.current != symbol:
            return False
        self.advance()
        return True

    def expect(self, symbol: str) -> None:
        """Step over the current token, which must be this one."""
        if not self.take(symbol):
            raise self.error(f"expected {symbol!r}, found {self.shown()}")

    def is_string(self) -> bool:
        """Whether the current token is a whole string literal."""
        return len(self.current) > 1 and self.current[0] in "\"'"

    def shown(self) -> str:
        """The current token for an error message."""
        if self.current in ('"', "'"):
            return "a string without its closing quote"
        if len(self.current) > _SHOWN:
            return f"{self.current[:_SHOWN]!r}..."
        return repr(self.current) if self.current else "the end of the file"

    def error(self, message: str) -> ParseError:
        """Return (not raise) an error that points at the current token."""
        line = self._text.count("\n", 0, self._start) + 1
        column = self._start - self._text.rfind("\n", 0, self._start)
        return ParseError(f"{line}:{column} : {message}")
