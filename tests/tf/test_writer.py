# SPDX-License-Identifier: Apache-2.0
"""TensorFlow reads what ``save`` writes; with ``alignment=1`` the files are those of SaveV2."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")

# TensorFlow 2.15 has no int2, and its NumPy types of the narrow integers have other bytes.
DTYPES = [
    tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.int8, tf.int16, tf.int32, tf.int64,
    tf.uint8, tf.uint16, tf.uint32, tf.uint64, tf.bool, tf.complex64, tf.complex128, tf.string,
]  # fmt: skip


def files_of(prefix: Path) -> dict[str, bytes]:
    return {
        path.name.removeprefix(prefix.name): path.read_bytes()
        for path in sorted(prefix.parent.glob(f"{prefix.name}.*"))
    }


def save_v2(prefix: Path, values: dict[str, Any], slices: list[str] | None = None) -> None:
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=slices or [""] * len(values),
        tensors=list(values.values()),
    )


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    size = int(np.prod(shape))
    if dtype == tf.string:
        texts = draw(st.lists(st.binary(max_size=200), min_size=size, max_size=size))
        return tf.constant(texts, tf.string, shape)
    numbers = draw(st.lists(st.integers(0, 100), min_size=size, max_size=size))
    return tf.cast(tf.constant(numbers, tf.int32, shape), dtype)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(min_size=1, max_size=9), tensors(), min_size=1, max_size=8))
def test_files_equal_those_of_save_v2(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("w")
    save_v2(folder / "theirs", values)
    tb.save(folder / "ours", {name: value.numpy() for name, value in values.items()}, alignment=1)
    assert files_of(folder / "ours") == files_of(folder / "theirs")


def test_many_tensors_fill_several_blocks_of_the_index(tmp_path: Path) -> None:
    values = {
        f"scope_{i % 7}/a_longer_scope_than_most/tensor_{i}": tf.constant(float(i))
        for i in range(20_000)
    }
    save_v2(tmp_path / "theirs", values)
    tb.save(tmp_path / "ours", {name: v.numpy() for name, v in values.items()}, alignment=1)
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "theirs")
    assert len(files_of(tmp_path / "ours")[".index"]) > 262_144


def test_slices_equal_those_of_save_v2(tmp_path: Path) -> None:
    table = np.arange(24, dtype=np.float32).reshape(4, 6)
    boxes = [((0, 0), (1, 6)), ((1, 0), (3, 2)), ((1, 2), (3, 4))]
    parts = [
        (offset, table[offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]])
        for offset, size in boxes
    ]
    specs = [f"4 6 {o[0]},{n[0]}:{o[1]},{n[1]}" for o, n in boxes]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "theirs"), tensor_names=["w"] * 3, shape_and_slices=specs,
        tensors=[part for _, part in parts],
    )  # fmt: skip
    with tb.Writer(tmp_path / "ours", alignment=1) as writer:
        writer.add_slices("w", (4, 6), parts)
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "theirs")


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_tensorflow_reads_what_was_written(
    shards: int, alignment: int, tmp_path: Path, compare: Callable[..., None]
) -> None:
    rng = np.random.default_rng(0)
    values = {
        "large": rng.normal(size=(500, 700)).astype(np.float32),
        "scalar": np.int64(7),
        "strings": np.array([[b"a", b""], [b"\xff\x00", b"x" * 100_000]], object),
        "empty": np.zeros((0, 3), np.uint16),
        "flags": np.array([True, False]),
        "half": np.arange(5).astype(tf.bfloat16.as_numpy_dtype),
    }
    table = np.arange(40, dtype=np.float64).reshape(10, 4)
    with tb.Writer(tmp_path / "m", shards=shards, alignment=alignment) as writer:
        for name, value in values.items():
            writer.add(name, value)
        writer.add_slices("sliced", (10, 4), [((0, 0), table[:3]), ((3, 0), table[3:])])
    values["sliced"] = table
    compare(tmp_path / "m", saved=values)


def test_variables_are_restored(tmp_path: Path) -> None:
    """Object-based checkpoints are copied with their graph."""
    source = tf.train.Checkpoint(step=tf.Variable(3), table=tf.Variable(tf.ones((4, 2))))
    path = source.save(str(tmp_path / "a" / "m"))
    with tb.open(path) as ck:
        tb.save(tmp_path / "b" / "m-1", ck, shards=2)
    tb.update_checkpoint_state(tmp_path / "b", tmp_path / "b" / "m-1")
    target = tf.train.Checkpoint(step=tf.Variable(0), table=tf.Variable(tf.zeros((4, 2))))
    latest = tf.train.latest_checkpoint(str(tmp_path / "b"))
    target.restore(latest).assert_consumed()
    assert target.step.numpy() == 3
    assert target.table.numpy().tolist() == [[1, 1]] * 4


@pytest.mark.parametrize("case", ["relative", "absolute", "outside", "history", "bytes"])
def test_state_file_equals_that_of_tensorflow(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()

    def arguments(directory: str) -> tuple[Any, ...]:
        return {
            "relative": (directory, f"{directory}/m-1"),
            "absolute": (str(tmp_path / directory), str(tmp_path / directory / 'm "2"\n\t\'\x01')),
            "outside": (str(tmp_path / directory), str(tmp_path / "elsewhere" / "m-3")),
            "history": (directory, f"{directory}/m-3", [f"{directory}/m-1", f"{directory}/m-2"]),
            "bytes": (directory, f"{directory}/m-1", [f"{directory}/m-1"]),
        }[case]

    tf.compat.v1.train.update_checkpoint_state(*arguments("theirs"))
    ours = arguments("ours")
    tb.update_checkpoint_state(
        Path(ours[0]), os.fsencode(ours[1]) if case == "bytes" else ours[1], *ours[2:]
    )
    texts = [(tmp_path / name / "checkpoint").read_text() for name in ("ours", "theirs")]
    assert texts[0].replace("ours", "theirs") == texts[1]
    assert tb.latest_checkpoint(tmp_path / "theirs") is None


def test_tensorflow_reads_state_files_with_any_characters(tmp_path: Path) -> None:
    prefix = tmp_path / "m \u20ac\x7f"
    tb.save(prefix, {"x": 1})
    tb.update_checkpoint_state(tmp_path, prefix)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(prefix)
    assert tb.latest_checkpoint(tmp_path) == str(prefix)
