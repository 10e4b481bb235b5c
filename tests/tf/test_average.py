# SPDX-License-Identifier: Apache-2.0
"""TensorFlow reads what ``average`` writes, and ``diff`` compares what TensorFlow writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.compare import same_bits

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")

TYPES = [tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.complex64, tf.complex128]


def values(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    tensors: dict[str, Any] = {
        dtype.name: tf.cast(rng.normal(size=(5, 3)) * 100, dtype) for dtype in TYPES
    }
    tensors["scalar"] = tf.constant(float(seed))
    tensors["global_step"] = tf.constant(seed, tf.int64)
    tensors["words"] = tf.constant([[b"a", b"\xff\x00" * seed]])
    tensors["flag"] = tf.constant([seed % 2 == 0])
    tensors["large"] = tf.constant(rng.normal(size=(300, 1000)), tf.float32)
    return tensors


def mean(arrays: list[Any], weights: list[float]) -> np.ndarray:
    """Returns the mean of TensorFlow's arrays, in their dtype."""
    dtype = np.asarray(arrays[0]).dtype
    wide = np.complex128 if dtype.kind == "c" else np.float64
    weighted = [
        np.asarray(array).astype(wide) * w for array, w in zip(arrays, weights, strict=True)
    ]
    return np.asarray(sum(weighted) / sum(weights)).astype(dtype)


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [1.0, 2.0, 5.0]])
def test_tensorflow_reads_the_mean(
    tmp_path: Path, save: Callable[..., str], compare: Callable[..., None], weights: list[float]
) -> None:
    sources = [values(seed) for seed in range(3)]
    prefixes = [save(tmp_path / f"s{i}", tensors) for i, tensors in enumerate(sources)]
    report = tb.average(prefixes, tmp_path / "mean", weights=weights)
    compare(report.path)
    reader = tf.train.load_checkpoint(report.path)
    for name in (*(dtype.name for dtype in TYPES), "scalar", "large"):
        arrays = [tensors[name].numpy() for tensors in sources]
        expected = mean(arrays, weights)
        found = np.asarray(reader.get_tensor(name))
        assert found.dtype == expected.dtype
        assert np.allclose(found.astype(np.complex128), expected.astype(np.complex128), rtol=1e-6)
    for name in ("global_step", "words", "flag"):
        assert same_bits(reader.get_tensor(name), sources[-1][name].numpy())


def test_partitions_are_those_of_the_last(
    tmp_path: Path, save: Callable[..., str], compare: Callable[..., None]
) -> None:
    first = np.arange(24, dtype=np.float32).reshape(8, 3)
    second = first * 3
    whole = save(tmp_path / "whole", {"t": first})
    specs = ["8 3 0,3:0,3", "8 3 3,5:0,3"]
    split = save(tmp_path / "split", [("t", second[:3]), ("t", second[3:])], specs)
    report = tb.average([whole, split], tmp_path / "mean")
    compare(report.path)
    assert same_bits(tf.train.load_checkpoint(report.path).get_tensor("t"), first * 2)
    with tb.open(report.path) as ck:
        assert [(part.offset, part.shape) for part in ck["t"].slices] == [
            ((0, 0), (3, 3)),
            ((3, 0), (5, 3)),
        ]
    assert tb.diff(whole, split, values=True).changed[0].values is not None
    save(tmp_path / "same", {"t": second})
    assert tb.diff(split, tmp_path / "same").same


def test_object_graph_of_a_mean_is_restored(tmp_path: Path) -> None:
    class Model(tf.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.kernel = tf.Variable([[value, value]], name="kernel")
            self.step = tf.Variable(int(value), dtype=tf.int64)

    prefixes = [
        tf.train.Checkpoint(model=Model(v)).write(str(tmp_path / f"{v}")) for v in (1.0, 4.0)
    ]
    report = tb.average(prefixes, tmp_path / "mean")
    model = Model(0.0)
    tf.train.Checkpoint(model=model).read(report.path).assert_consumed()
    assert model.kernel.numpy().tolist() == [[2.5, 2.5]]
    assert model.step.numpy() == 4
