# SPDX-License-Identifier: Apache-2.0
"""Tensors written as a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorbundle import dtypes
from tensorbundle.formats.tensors import Advance

def unsupported_reason(name: str, dtype: np.dtype[Any]) -> str | None:
    """Returns why a checkpoint cannot store a tensor, or None."""
    return None
