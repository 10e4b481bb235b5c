# SPDX-License-Identifier: Apache-2.0
"""Random maps and graphs lead to TensorFlow's assignments and order, or to its error."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorbundle import assignment

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1

from tensorbundle.tf.checkpoint_index import open_index  # noqa: E402
from tensorbundle.tf.variables import VariableStore, target_of  # noqa: E402

Pairs = list[tuple[str, Any]]
Assigned = list[tuple[str, tuple[str, ...]]]


def random_name(rng: random.Random) -> str:
    return "/".join(rng.choices("abv", k=rng.randint(1, 3)))


def random_key(rng: random.Random, names: list[str]) -> str:
    name = rng.choice(names) if rng.random() < 0.6 else random_name(rng)
    parts = name.split("/")
    scope = "/".join(parts[: rng.randint(0, len(parts))]) + "/"
    return rng.choice([name, scope, scope, "/", f"{scope}/", parts[0]])


def random_graph(rng: random.Random) -> list[str]:
    """Creates variables, a quarter of them partitioned; returns their names."""
    names = sorted({random_name(rng) for _ in range(rng.randint(1, 8))})
    for name in names:
        split = tf1.fixed_size_partitioner(2) if rng.random() < 0.25 else None
        tf1.get_variable(name, [2], partitioner=split, use_resource=rng.random() < 0.5)
    return names


def random_map(rng: random.Random, variables: list[str], tensors: list[str]) -> Pairs:
    pairs: Pairs = []
    for _ in range(rng.randint(1, 3)):
        value: Any = random_key(rng, variables)
        if rng.random() < 0.2:
            value = rng.choice(tf1.global_variables())
            if value._save_slice_info is not None:
                value = [value]
        pairs.append((random_key(rng, tensors), value))
    return pairs


def assigned_by_tensorflow(prefix: str, pairs: Pairs, patch: pytest.MonkeyPatch) -> Assigned | str:
    from tensorflow.python.training import checkpoint_utils

    assigned: Assigned = []

    def record(variables: Any, file: str, tensor: str) -> None:
        each = variables if isinstance(variables, list) else [variables]
        assigned.append((tensor, tuple(v.name for v in each)))

    patch.setattr(checkpoint_utils, "_set_variable_or_list_initializer", record)
    try:
        checkpoint_utils.init_from_checkpoint(prefix, pairs)
    except ValueError as error:
        return str(error).split(" checkpoint")[0]
    return assigned


def assigned_by_plan(prefix: str, pairs: Pairs) -> Assigned | str:
    plan = assignment.plan_assignments(
        [(tensor, target_of(value)) for tensor, value in pairs],
        open_index(prefix),
        VariableStore(),
    )
    if plan.problems:
        return str(plan.problems[0]).split(" checkpoint")[0]
    return [(each.tensor, tuple(v.name for v, _ in each.partitions)) for each in plan.assignments]


@pytest.mark.parametrize("seed", range(8))
def test_random_map_is_planned_as_tensorflow_does(
    tmp_path: Path, save: Callable[..., str], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    counts = {"same": 0, "error": 0, "no effect": 0}
    for _ in range(12):
        tensors = sorted({random_name(rng) for _ in range(rng.randint(4, 39))})
        prefix = save(tmp_path / "m", {name: np.zeros(2, np.float32) for name in tensors})
        with tf.Graph().as_default():
            variables = random_graph(rng)
            for _ in range(40):
                pairs = random_map(rng, variables, tensors)
                original = assigned_by_tensorflow(prefix, pairs, monkeypatch)
                plan = assigned_by_plan(prefix, pairs)
                if isinstance(plan, str) and "does not match a variable" in plan:
                    counts["no effect"] += 1  # TensorFlow raises no error
                elif isinstance(original, str):
                    assert isinstance(plan, str), (pairs, original, plan)
                    assert plan.startswith(original[:40]), (pairs, original, plan)
                    counts["error"] += 1
                else:
                    assert plan == original, pairs
                    counts["same"] += 1
    assert all(count > 10 for count in counts.values()), counts
