# SPDX-License-Identifier: Apache-2.0
"""``tf.logging`` and ``tf.get_logger`` of the stand-in.

As in TensorFlow, messages go to the logger ``tensorflow``, which prints ``LEVEL:tensorflow:text``
to stderr unless the program configured logging itself. Inside the stand-in the messages of
tensorbundle about state files are printed likewise.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from logging import DEBUG, ERROR, FATAL, INFO, WARN
from typing import Any

__all__ = ["DEBUG", "ERROR", "FATAL", "INFO", "WARN"]

_NAMES = ("tensorflow", "tensorbundle")
_seen: Counter[tuple[str, int]] = Counter()


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]  # since Python 3.11
    """Writes to the stream that is ``sys.stderr`` at the time."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter(logging.BASIC_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


@contextlib.contextmanager
def configured() -> Iterator[None]:
    """Adds the handler, unless the root logger has one; restores both loggers at the end."""
    handler = None if logging.getLogger().handlers else _StderrHandler()
    loggers = [logging.getLogger(name) for name in _NAMES]
    before = [(logger, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        if handler is not None:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level, propagate in before:
            if handler is not None:
                logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


def get_logger() -> logging.Logger:
    """Returns the logger ``tensorflow``."""
    return logging.getLogger("tensorflow")


def log(level: int, msg: Any, *args: Any, **kwargs: Any) -> None:
    """Logs a message at a level."""
    get_logger().log(level, msg, *args, stacklevel=2, **kwargs)


vlog = log


def debug(msg: Any, *args: Any, **kwargs: Any) -> None:
    """Logs a message at the level DEBUG."""
    get_logger().debug(msg, *args, stacklevel=2, **kwargs)


def info(msg: Any, *args: Any, **kwargs: Any) -> None:
    """Logs a message at the level INFO."""
    get_logger().info(msg, *args, stacklevel=2, **kwargs)


def warning(msg: Any, *args: Any, **kwargs: Any) -> None:
    """Logs a message at the level WARN."""
    get_logger().warning(msg, *args, stacklevel=2, **kwargs)


warn = warning


def error(msg: Any, *args: Any, **kwargs: Any) -> None:
    """Logs a message at the level ERROR."""
    get_logger().error(msg, *args, stacklevel=2, **kwargs)


TaskLevelStatusMessage = error


def fatal(msg: Any, *args: Any, **kwargs: Any) -> None:
    """Logs a message at the level FATAL, and returns."""
    get_logger().fatal(msg, *args, stacklevel=2, **kwargs)


def log_if(level: int, msg: Any, condition: Any, *args: Any) -> None:
    """Logs a message if a condition is true."""
    if condition:
        get_logger().log(level, msg, *args, stacklevel=2)


def log_first_n(level: int, msg: Any, n: int, *args: Any) -> None:
    """Logs the first ``n`` messages of the calling line."""
    if _calls_before() < n:
        get_logger().log(level, msg, *args, stacklevel=2)


def log_every_n(level: int, msg: Any, n: int, *args: Any) -> None:
    """Logs every ``n``-th message of the calling line, beginning with the first."""
    if _calls_before() % n == 0:
        get_logger().log(level, msg, *args, stacklevel=2)


def _calls_before() -> int:
    """Returns how often the line that called the calling function has called it before."""
    frame = sys._getframe(2)
    line = (frame.f_code.co_filename, frame.f_lineno)
    _seen[line] += 1
    return _seen[line] - 1


def get_verbosity() -> int:
    """Returns the level from which messages are printed."""
    return get_logger().getEffectiveLevel()


def set_verbosity(v: int | str) -> None:
    """Sets the level from which messages are printed."""
    get_logger().setLevel(v)
