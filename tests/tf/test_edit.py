# SPDX-License-Identifier: Apache-2.0
"""TensorFlow reads and restores checkpoints written by ``edit``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.compare import same_bits, stored_tensors
from craft.dtypes import KINDS, sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle.edit_plan import SLICEABLE

tf = pytest.importorskip("tensorflow")

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
GOLDEN = sorted(DATA.glob("*/*.index"))
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
OPTIMIZERS = ["SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Nadam", "Ftrl"]
DTYPES = ["float32", "float64", "bfloat16", "float16", "int32", "int64", "uint8", "int8", "uint16",
          "int16", "bool", "complex64", "complex128", "qint8", "qint32", "string"]  # fmt: skip


def read_all(prefix: Any) -> dict[str, Any]:
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.parametrize("index", GOLDEN, ids=lambda path: path.parent.name)
def test_unchanged_golden_checkpoint_reads_the_same(
    index: Path, tmp_path: Path, compare: Callable[..., None]
) -> None:
    tb.edit(index, tmp_path / "c")
    compare(tmp_path / "c")
    before, after = read_all(index.with_suffix("")), read_all(tmp_path / "c")
    assert before.keys() == after.keys()
    assert all(same_bits(after[name], value) for name, value in before.items())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_random_checkpoints(
    tmp_path_factory: Any, save: Callable[..., str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("edit")
    tensors: dict[str, Any] = {}
    for number in range(data.draw(st.integers(1, 4))):
        dtype = tf.as_dtype(data.draw(st.sampled_from(DTYPES)))
        shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
        if dtype == tf.string:
            count = int(np.prod(shape))
            values = [b"\0" * (i % 4) + b"x" * i for i in range(count)]
            tensors[f"t{number}"] = tf.constant(values, tf.string, shape)
        elif dtype.is_quantized:
            tensors[f"t{number}"] = tf.bitcast(
                tf.cast(tf.random.uniform(shape, 0, 100, tf.int32), dtype.name[1:]), dtype
            )
        else:
            tensors[f"t{number}"] = tf.cast(tf.random.uniform(shape, 0, 100, tf.int32), dtype)
    prefix = save(folder / "c", tensors)
    tb.edit(prefix, folder / "same", alignment=data.draw(st.sampled_from([1, 64, 4096])))
    assert stored_tensors(folder / "same") == stored_tensors(prefix)
    values = read_all(prefix)
    with tb.open(prefix) as ck:
        axes = {
            name: tuple(data.draw(st.permutations(range(tensor.ndim))))
            for name, tensor in ck.items()
        }
        counts = {
            name: data.draw(st.integers(1, 3))
            for name, tensor in ck.items()
            if tensor.ndim and tensor.stored_dtype in SLICEABLE
        }
    tb.edit(prefix, folder / "d", transpose=axes, partition=counts, rename=[("^t", "u/")])
    for name, value in read_all(folder / "d").items():
        expected = values["t" + name[2:]]
        if axes["t" + name[2:]]:
            expected = np.transpose(expected, axes["t" + name[2:]])
        assert same_bits(value, np.ascontiguousarray(expected) if np.ndim(expected) else expected)


@pytest.mark.parametrize("source", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("target", ["float32", "float64", "bfloat16", "float16"])
def test_casts_equal_those_of_tensorflow(
    source: str, target: str, tmp_path: Path, save: Callable[..., str]
) -> None:
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 1 << 32, 400_000, np.uint32).view(np.float32)
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 65504, 65520, 3.4e38], np.float32)
    with np.errstate(all="ignore"):
        values = tf.cast(tf.constant(np.concatenate([special, bits])), source)
    prefix = save(tmp_path / "c", {"t": values})
    tb.edit(prefix, tmp_path / "d", cast={source: target}) if source != target else tb.edit(
        prefix, tmp_path / "d"
    )
    actual = read_all(tmp_path / "d")["t"]
    expected = tf.cast(values, target).numpy()
    with np.errstate(all="ignore"):
        magnitudes = np.abs(expected.astype(np.float64))
        is_nan = np.isnan(magnitudes)
        assert np.array_equal(np.isnan(actual.astype(np.float64)), is_nan)
    # TensorFlow's threads flush subnormal numbers to zero, and the payload of a NaN may differ.
    is_compared = (magnitudes >= 1e-37) if {source, target} - {"float16"} else ~is_nan
    is_compared |= (magnitudes == 0) & (actual == 0)
    assert is_compared.sum() > 300_000
    assert same_bits(actual[is_compared], expected[is_compared])


RESTORE = """
import json, sys
import tensorflow as tf
results = {}
for number, prefix in json.loads(sys.argv[1]).items():
    options = {"prefix": prefix, "tensor_names": ["t"], "shape_and_slices": [""]}
    try:
        tf.raw_ops.RestoreV2(dtypes=[tf.as_dtype(int(number))], **options)
        results[tf.as_dtype(int(number)).name] = True
    except tf.errors.OpError:
        results[tf.as_dtype(int(number)).name] = False
print(json.dumps(results))
"""


def test_slices_are_written_if_tensorflow_reads_them(tmp_path: Path) -> None:
    """In another process: if a test has loaded our kernel, it serves RestoreV2, for all types."""
    prefixes = {}
    for kind in KINDS.values():
        try:
            tf.as_dtype(kind.number)
        except TypeError:
            continue
        if tf.__version__.startswith("2.15.") and kind.number > 30:
            continue  # TensorFlow 2.15 aborts
        bundle = Bundle()
        boxes = [((0, 2), (0, 2)), ((2, 2), (0, 2))]
        bundle.add_sliced("t", sample(kind, (4, 2)), boxes, number=kind.number)
        prefixes[kind.number] = str(bundle.write(tmp_path / f"c{kind.number}"))
    done = subprocess.run(
        [sys.executable, "-c", RESTORE, json.dumps(prefixes)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    is_read = json.loads(done.stdout.splitlines()[-1])
    assert len(is_read) > 20
    assert {name: name in SLICEABLE for name in is_read} == is_read


def build_model() -> Any:
    model = tf.keras.Sequential(
        [tf.keras.layers.Dense(4, name="first"), tf.keras.layers.Dense(1, name="second")]
    )
    model.build((None, 3))
    return model


def trained(optimizer_name: str, module: Any = None) -> tuple[Any, Any]:
    tf.keras.backend.clear_session()
    model = build_model()
    optimizer = getattr(module or tf.keras.optimizers, optimizer_name)()
    model.compile(optimizer, "mse")
    model.fit(np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32), verbose=0)
    return model, optimizer


def restore_weights(prefix: Any) -> list[Any]:
    """Restores the model alone, and requires that every object of it gets a value."""
    model = build_model()
    status = tf.train.Checkpoint(model=model).restore(str(prefix))
    status.assert_existing_objects_matched()
    status.expect_partial()
    return [np.array(value) for value in model.get_weights()]


def modules() -> list[Any]:
    legacy = getattr(tf.keras.optimizers, "legacy", None)
    try:
        assert legacy is not None and legacy.Adam()
    except (AssertionError, ImportError):
        return [tf.keras.optimizers]
    return [tf.keras.optimizers, legacy]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slots_of_keras_optimizers_are_dropped(name: str, tmp_path: Path) -> None:
    for number, module in enumerate(modules()):
        if not hasattr(module, name):
            continue
        model, optimizer = trained(name, module)
        variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
        count = sum(variable.shape.rank > 0 or name == "Nadam" for variable in variables)
        prefix = tf.train.Checkpoint(model=model, optimizer=optimizer).save(
            str(tmp_path / f"c{number}")
        )
        dst = tmp_path / f"d{number}"
        report = tb.edit(prefix, dst, slots=False)
        left = tb.load(dst).keys() - {GRAPH}
        with tb.open(prefix) as ck:
            full = ck.full_names
            sizes = {key: ck[key].size for key in report.dropped}
        assert len(sizes) >= min(count, 1)
        stems = [full[key] for key in left]
        for variable in ("first/kernel", "first/bias", "second/kernel", "second/bias"):
            assert sum(stem.endswith(variable) for stem in stems) == 1, stems
        scalars = [key for key in left if tb.open(dst)[key].size == 1 and "bias" not in full[key]]
        assert len(left) - len(scalars) <= 4
        for actual, expected in zip(restore_weights(dst), model.get_weights(), strict=True):
            assert same_bits(actual, np.array(expected))


def test_whole_object_is_restored_from_what_is_left(tmp_path: Path) -> None:
    model, optimizer = trained("Adam")
    step = tf.Variable(5)
    prefix = tf.train.Checkpoint(model=model, optimizer=optimizer, step=step).save(
        str(tmp_path / "c")
    )
    tb.edit(prefix, tmp_path / "d", slots=False)
    restored, fresh = build_model(), tf.Variable(0)
    checkpoint = tf.train.Checkpoint(
        model=restored, optimizer=tf.keras.optimizers.Adam(), step=fresh
    )
    checkpoint.restore(str(tmp_path / "d")).expect_partial()
    assert fresh.numpy() == 5
    for actual, expected in zip(restored.get_weights(), model.get_weights(), strict=True):
        assert same_bits(np.array(actual), np.array(expected))
    # With nothing dropped, everything is matched and used.
    tb.edit(prefix, tmp_path / "e")
    status = tf.train.Checkpoint(model=model, optimizer=optimizer, step=fresh).restore(
        str(tmp_path / "e")
    )
    status.assert_consumed()


class Block(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.ones((6, 2)), name="kernel")
        self.parts = [tf.Variable(float(i), name=f"part{i}") for i in range(3)]
        self.table = {"a": tf.Variable(1.0), "b": tf.Variable(2.0)}


def test_renamed_object_graph_is_restored(tmp_path: Path) -> None:
    source = Block()
    source.kernel.assign(tf.random.normal((6, 2)))
    prefix = tf.train.Checkpoint(block=source).save(str(tmp_path / "c"))
    tb.edit(
        prefix,
        tmp_path / "d",
        rename=[("^block/", "renamed/"), ("^kernel", "weight")],
        partition={"kernel": 4},
        alignment=4096,
    )
    names = set(tb.load(tmp_path / "d"))
    assert f"renamed/kernel{VALUE}" in names and not any(name.startswith("block") for name in names)
    assert tb.open(tmp_path / "d")["weight"].name == f"renamed/kernel{VALUE}"
    target = Block()
    status = tf.train.Checkpoint(block=target).restore(str(tmp_path / "d"))
    status.assert_existing_objects_matched()
    status.expect_partial()  # the number of saves
    assert same_bits(target.kernel.numpy(), source.kernel.numpy())
    assert [v.numpy() for v in target.parts] == [0.0, 1.0, 2.0]


def test_dropped_variable_counts_as_not_saved(tmp_path: Path) -> None:
    prefix = tf.train.Checkpoint(block=Block()).save(str(tmp_path / "c"))
    tb.edit(prefix, tmp_path / "d", drop=["block/parts/1", "block/table/b"])
    target = Block()
    target.parts[1].assign(7.0)
    target.parts[2].assign(7.0)
    status = tf.train.Checkpoint(block=target).restore(str(tmp_path / "d"))
    with pytest.raises(AssertionError):
        status.assert_existing_objects_matched()
    status.expect_partial()
    assert [v.numpy() for v in target.parts] == [0.0, 7.0, 2.0]


def test_cast_and_updated_object_graph_is_restored(tmp_path: Path) -> None:
    prefix = tf.train.Checkpoint(block=Block()).save(str(tmp_path / "c"))
    update = {"block/parts/0": np.float64(3), "block/kernel": np.full((9, 2), 4.0)}
    with pytest.warns(UserWarning, match="float64 by float32"):
        tb.edit(prefix, tmp_path / "d", cast={"block/*": "float64"}, update={
            **update, "block/parts/1": np.float32(1)})  # fmt: skip
    values = tf.train.load_checkpoint(str(tmp_path / "d"))
    assert values.get_tensor(f"block/kernel{VALUE}").shape == (9, 2)
    assert values.get_tensor(f"block/parts/2{VALUE}").dtype == np.float64


def test_flattened_checkpoint_is_restored_by_name(tmp_path: Path) -> None:
    source = Block()
    source.kernel.assign(tf.random.normal((6, 2)))
    prefix = tf.train.Checkpoint(block=source).save(str(tmp_path / "c"))
    tb.edit(prefix, tmp_path / "d", flatten=True, drop=["block/table/*"])
    value = source.kernel.numpy()
    assert set(read_all(tmp_path / "d")) == {"kernel", "part0", "part1", "part2", "save_counter"}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        kernel = tf.compat.v1.get_variable("kernel", (6, 2))
        tf.compat.v1.train.Saver([kernel]).restore(session, str(tmp_path / "d"))
        assert same_bits(session.run(kernel), value)


@pytest.mark.parametrize("rows", [1, 5, 8, 11])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_partitions_are_those_of_tensorflow(rows: int, count: int, tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        table = v1.get_variable(
            "emb", (rows, 3), partitioner=v1.fixed_size_partitioner(count), dtype=tf.float32
        )
        saver = v1.train.Saver()
        session.run(v1.global_variables_initializer())
        prefix = saver.save(session, str(tmp_path / "c"), write_meta_graph=False)
        value = session.run(v1.convert_to_tensor(table))
        tb.edit(prefix, tmp_path / "merged", merge=True)
        assert len(tb.open(tmp_path / "merged")["emb"].slices) == 1
        tb.edit(tmp_path / "merged", tmp_path / "d", partition={"emb": count})
        assert stored_tensors(tmp_path / "d") == stored_tensors(prefix)
        session.run(v1.global_variables_initializer())
        saver.restore(session, str(tmp_path / "d"))
        assert same_bits(session.run(v1.convert_to_tensor(table)), value)


def test_slots_of_tf1_optimizers_are_dropped(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    for name in ("Adam", "Adagrad", "Adadelta", "Ftrl", "RMSProp", "Momentum", "ProximalAdagrad"):
        options = {"Momentum": {"momentum": 0.9}, "RMSProp": {"centered": True}}.get(name, {})
        with tf.Graph().as_default(), v1.Session() as session:
            partitioner = v1.fixed_size_partitioner(2)
            table = v1.get_variable("emb", (4, 3), partitioner=partitioner)
            with v1.variable_scope("train"):
                step = v1.train.get_or_create_global_step()
                optimizer = getattr(v1.train, f"{name}Optimizer")(learning_rate=0.1, **options)
                optimizer.minimize(tf.reduce_sum(v1.convert_to_tensor(table) ** 2), step)
            session.run(v1.global_variables_initializer())
            prefix = v1.train.Saver().save(session, str(tmp_path / name), write_meta_graph=False)
        with tb.open(prefix) as ck:
            assert len(ck) > 2
        report = tb.edit(prefix, tmp_path / f"{name}-d", slots=False)
        assert set(report.kept) == {"emb", "train/global_step"}, name
