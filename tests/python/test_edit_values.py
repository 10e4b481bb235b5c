# SPDX-License-Identifier: Apache-2.0
"""Values that ``edit`` casts or that ``update`` passes, and options that it refuses."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tensorbundle as tb
from tensorbundle import casts
from tensorbundle.edit_plan import EditError, plan_edit
from tensorbundle.formats.tensors import ForeignFile


@pytest.mark.parametrize("target", [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_float64_is_rounded_once(target: Any) -> None:
    step = 2.0 ** -(7 if target is ml_dtypes.bfloat16 else 2)
    for number in range(4):
        for offset in (-(2.0**-40), 0.0, 2.0**-40):
            value = 1 + step * (number + 0.5) + offset
            found = Fraction(float(casts.cast(np.array([-value]), np.dtype(target))[0]))
            index = round((Fraction(value) - 1) / Fraction(step))  # ties to even
            assert -found == 1 + index * Fraction(step)


@pytest.mark.parametrize(
    ("name", "value"),
    [("step", 1.7), ("step", float("nan")), ("step", 2**63), ("step", 2.0**63), ("step", None),
     ("step", ["1", "2"]), ("step", "1"), ("step", b"1"), ("h", 1e300), ("h", 2**24 + 1),
     ("h", np.ma.masked), ("h", np.ma.array([1.0], mask=[True])), ("flag", [0.3]), ("h", 1j),
     ("flag", 2)],
)  # fmt: skip
def test_update_refuses_values_that_would_change(name: str, value: Any, tmp_path: Path) -> None:
    tb.save(tmp_path / "c", {"step": np.int64(3), "h": np.float32(2), "flag": np.array([True])})
    with pytest.raises(EditError, match=f"update\\['{name}'\\] cannot be stored"):
        tb.edit(tmp_path / "c", tmp_path / "d", update={name: value})


def test_update_takes_numbers_that_fit(tmp_path: Path) -> None:
    tb.save(tmp_path / "c", {"step": np.int64(3), "h": np.float32(2), "flag": np.array([True])})
    update = {"step": 4.0, "h": [0.1, float("inf")], "flag": [0.0, 1]}
    tb.edit(tmp_path / "c", tmp_path / "d", update=update)
    found = tb.load(tmp_path / "d")
    assert found["step"] == 4
    assert found["h"].tolist() == [np.float32(0.1), np.inf]
    assert found["flag"].tolist() == [False, True]


def test_a_source_with_links_into_the_destination_is_refused(tmp_path: Path) -> None:
    tb.save(tmp_path / "c", {"m": np.ones((2, 3), np.float32)})
    (tmp_path / "d.index").write_bytes((tmp_path / "c.index").read_bytes())
    os.symlink(tmp_path / "c.data-00000-of-00001", tmp_path / "d.data-00000-of-00001")
    with pytest.raises(ValueError, match="is the source"):
        tb.edit(tmp_path / "d", tmp_path / "c", overwrite=True, cast="bfloat16")
    assert tb.load(tmp_path / "d")["m"].sum() == 6


def test_options(tmp_path: Path) -> None:
    tb.save(tmp_path / "c", {"m": np.ones((2, 3), np.float32)})
    with pytest.raises(EditError, match="UTF-8"):
        tb.edit(tmp_path / "c", tmp_path / "d", rename={"m": "\ud800"})
    with pytest.raises(EditError) as caught:
        tb.edit(tmp_path / "c", tmp_path / "d", cast=5)
    assert len(caught.value.problems) == 1
    with pytest.raises(tb.CheckpointNotFoundError, match="nofile"):
        tb.edit(tmp_path / "c", tmp_path / "d", rules="nofile")
    tb.edit(tmp_path / "c", tmp_path / "d", transpose={"m": (np.int64(1), 0)})
    assert tb.load(tmp_path / "d")["m"].shape == (3, 2)


def test_a_foreign_tensor_with_the_name_of_the_object_graph(tmp_path: Path) -> None:
    tb.save(tmp_path / "c", {"_CHECKPOINTABLE_OBJECT_GRAPH": np.ones(2, np.float32)})
    with tb.open(tmp_path / "c") as ck:
        tensors: Any = dict(ck.items())
        source: Any = ForeignFile("c.npz", tensors)
        with pytest.raises(EditError, match="only checkpoints have"):
            plan_edit(source)


def test_integers_that_float64_does_not_have_are_refused(tmp_path: Path) -> None:
    tb.save(tmp_path / "c", {"small": np.int64(2**53), "big": np.array([3, 2**53 + 1])})
    with pytest.raises(ValueError, match=r"'big' .*float64 does not have the value 90071992547409"):
        tb.edit(tmp_path / "c", tmp_path / "d", cast={"int64": "float64"})
    tb.edit(tmp_path / "c", tmp_path / "d", cast={"small": "float64"})
    assert tb.load(tmp_path / "d")["small"] == 2.0**53
