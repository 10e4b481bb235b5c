# SPDX-License-Identifier: Apache-2.0
"""What worker processes of the tests run.

A process that is spawned imports a function by its module's name. It finds this module through
``tests/python``, which pytest adds to the path; a test's own module it finds only if the folder of
the tree is on the path too, as it is under ``python -m pytest`` but not under ``pytest``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorbundle as tb

# A checkpoint that workers inherit from a parent that forks.
inherited: Any = None


def use_inherited(row: int) -> tuple[float, bytes]:
    return float(inherited["table"][row, 1]), inherited["words"].read()[row]


def use_sent(tensor: Any) -> float:
    return float(np.asarray(tensor)[5, 5] + tensor.take([7])[0, 0])


def open_and_read(path: str) -> int:
    with tb.open(path) as ck:
        return sum(len(chunk) for _, chunk in ck["sliced"].chunks(9000))
