# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every test that needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """The folder of real checkpoints."""
    return Path(__file__).parents[1] / "data" / "checkpoints"
