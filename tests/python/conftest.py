# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """The directory of checkpoints written by TensorFlow."""
    return Path(__file__).parents[1] / "data" / "checkpoints"
