# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests without TensorFlow."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A job in the background ignores Ctrl-C, and so do the processes that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """The directory of checkpoints written by TensorFlow."""
    return Path(__file__).parents[1] / "data" / "checkpoints"
