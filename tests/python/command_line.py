# SPDX-License-Identifier: Apache-2.0
"""Runs of the command-line program for tests: in this process, or in a child on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import NamedTuple

import pytest

from tensorbundle import cli


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Runs the program; returns its exit status, stdout and stderr."""
    status = cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return status, out, err


class Screen(NamedTuple):
    """What a program wrote to a terminal.

    Attributes:
        status: The exit status.
        raw: The output with escape sequences.
        lines: The lines without escape sequences and without spaces at the end.
    """

    status: int
    raw: str
    lines: list[str]


def in_terminal(*args: object, columns: int = 80, **variables: str) -> Screen:
    """Runs the program on a pseudo-terminal of that width, where it sees a person."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    unset = ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR", "COLORTERM")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **variables}
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorbundle", *map(str, args)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    chunks = []
    with contextlib.suppress(OSError):  # EIO: the program has closed the terminal
        while chunk := os.read(master, 1 << 16):
            chunks.append(chunk)
    os.close(master)
    raw = b"".join(chunks).decode("utf-8").replace("\r\n", "\n")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", raw)
    return Screen(process.wait(), raw, [line.rstrip() for line in plain.splitlines()])
