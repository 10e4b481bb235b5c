# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's own functions, unchanged, with and without our kernels for its ops."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb
from bench import data, test_init, test_join, test_warm
from bench.case import COMPETITOR, OURS, VERIFIED, Case, Contender, Phases, Run, tensorflow
from bench.data import DIM, MIB, Table
from bench.test_init import NAME, PARTITIONS, Variable

BYTES = {"smoke": 2 * MIB, "variables": 1024 * MIB}
"""The bytes of the table."""
TOKENS = {"smoke": 1_000, "variables": 1_000_000}
"""The number of tokens of the old vocabulary."""
REMOTE = {"smoke": 2 * MIB, "variables": 128 * MIB}
"""The bytes of the table on a file system that is not local."""
SMALL = 200
"""The number of small tensors, and of the variables of a model."""
SMALL_BYTES = 16 << 10
MODEL_BYTES = 100 * MIB
"""The size of the model: about that of ResNet-50."""

# Builds what is restored, and returns a function that restores it, in timed phases.
Restore = Callable[[Phases], Any]


def test_restore(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    if size not in BYTES:
        return []
    split = Variable(BYTES[size] // (4 * DIM), PARTITIONS)
    whole = Variable(split.rows)
    text = f"{split.rows:,} x {DIM} float32 ({data.binary(split.nbytes)}), stored whole"
    into = f"into {PARTITIONS} partitions"
    label = data.binary(split.nbytes)  # a key is unique among all sizes
    old, smaller = TOKENS[size], size == "smoke"
    found = [
        _case(
            f"warm_start, {old} tokens",
            f"warm_start of {old:,} to {old * 6 // 5:,} tokens x {DIM}, {into}",
            lambda: _warm_start(old),
        ),
        _case(f"init, {label}", f"init_from_checkpoint: {text}, {into}", lambda: _init(split)),
        _case(
            f"Saver, partitions, {label}",
            f"Saver.restore: {text}, {into}",
            lambda: _saver(split),
        ),
        _case(
            f"shards, {label}",
            f"Checkpoint.restore: {text}, into a ShardedVariable of {PARTITIONS}",
            lambda: _shards(split),
        ),
    ]
    for again, memory in ((False, "new"), (True, "recycled")):
        for name, restore in (
            ("Saver", _saver), ("Checkpoint", _checkpoint), ("saved_model", _saved_model)
        ):  # fmt: skip
            title = f"{name}: one variable, {text}; {memory} memory"
            found.append(
                _case(
                    f"{name}, {label}, {memory} memory", title, _bound(restore, whole), again=again
                )
            )
    count, each = (10 if smaller else SMALL), SMALL_BYTES
    found.append(
        _case(
            f"small, {label}",
            f"RestoreV2 of {count} tensors of {each >> 10} KiB",
            lambda: _small(count),
        )
    )
    nbytes = (MIB if smaller else MODEL_BYTES) // count
    title = f"Checkpoint.restore of a model: {count} variables, {nbytes * count:,} bytes"
    found.append(_case(f"model, {label}", title, lambda: _model(count, nbytes)))
    remote = Variable(REMOTE[size] // (4 * DIM), PARTITIONS)
    for slices in (False, True):
        what = f"{PARTITIONS} slices" if slices else "whole"
        title = f"RestoreV2 of {data.binary(remote.nbytes)} from ram://, {what}"
        found.append(_case(f"ram, {what}, {label}", title, _bound(_remote, remote, slices)))
    return found


def _bound(restore: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: restore(*arguments)


def _case(
    key: str, title: str, start: Callable[[], contextlib.AbstractContextManager[Restore]],
    *, again: bool = False,
) -> Case:  # fmt: skip
    """Returns a case. With `again`, the second restore of the process is timed."""
    return Case(
        key=f"restore/{key}",
        title=title,
        contenders=[_contender(start, ours, again) for ours in (True, False)],
        check=_check,
        memory=True,
        fresh_process=True,
        gc_enabled=True,
    )


def _check(phases: Phases) -> None:
    assert phases.result is None, phases.result


def _contender(
    start: Callable[[], contextlib.AbstractContextManager[Restore]], ours: bool, again: bool
) -> Contender:
    @contextmanager
    def started() -> Iterator[Run]:
        test_init._warm_up(tensorflow())
        if ours:
            tb.tf.load_op_library()
        with start() as restore:

            def run() -> Phases:
                if again:
                    restore(Phases())
                phases = Phases()
                restore(phases)
                return phases

            yield run

    name = "TensorFlow, kernels of tensorbundle" if ours else "TensorFlow"
    return Contender(name, started, OURS if ours else COMPETITOR, VERIFIED, ("tensorflow",))


def _require(values: Any, first: int = 0) -> None:
    """Compares the first and the last rows of an array with the rows of a table from `first` on."""
    array = np.asarray(values)
    ids = np.array([0, 1, len(array) // 2, len(array) - 1])
    assert np.array_equal(array[ids], data.rows(ids + first)), "wrong rows"


@contextmanager
def _warm_start(old: int) -> Iterator[Restore]:
    variable = Variable(old * 6 // 5, PARTITIONS)
    prefix, (new_file, old_file) = test_warm._warmed(old, variable.rows)
    train = tensorflow().compat.v1.train
    initialise = test_warm.initialiser(train, prefix, new_file, old_file, variable)
    with test_init.model(variable, initialise) as run:

        def restore(phases: Phases) -> None:
            done = run()
            phases.times.update(done.times)
            lines = test_join.lines(old, variable.rows, test_warm.MISSING)
            test_init.require(done, variable, lambda ids: data.rows(lines[ids]))

        yield restore


@contextmanager
def _init(variable: Variable) -> Iterator[Restore]:
    path = Table(variable.rows).warmed()

    def initialise(built: Any) -> None:
        target = list(built)
        tensorflow().compat.v1.train.init_from_checkpoint(str(path), {NAME: target})

    with test_init.model(variable, initialise) as run:

        def restore(phases: Phases) -> None:
            done = run()
            phases.times.update(done.times)
            test_init.require(done, variable, data.rows)

        yield restore


@contextmanager
def _saver(variable: Variable) -> Iterator[Restore]:
    path, tf = Table(variable.rows).warmed(), tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        split = v1.fixed_size_partitioner(variable.partitions)
        built = v1.get_variable(
            NAME, [variable.rows, DIM], use_resource=True,
            partitioner=split if variable.partitions > 1 else None,
        )  # fmt: skip
        saver = v1.train.Saver({NAME: built})
        ends = tf.gather(list(built)[-1] if variable.partitions > 1 else built, [0, 1])

        def restore(phases: Phases) -> None:
            with phases.phase("restoring"):
                saver.restore(session, str(path))
            rows = session.run(ends)
            ids = np.array([0, 1]) + (variable.starts[-1] if variable.partitions > 1 else 0)
            assert np.array_equal(rows, data.rows(ids)), "wrong rows"

        yield restore


@data.stored
def _object_checkpoint(folder: Path, rows: int) -> None:
    """Writes a table as ``tf.train.Checkpoint`` and ``saved_model.save`` do, as the object `t`."""
    tf = tensorflow()
    holder = tf.train.Checkpoint(t=tf.Variable(data.rows(np.arange(rows))))
    holder.write(str(folder / "ckpt"))
    module = tf.Module()
    module.t = holder.t
    tf.saved_model.save(module, str(folder / "model"))


def _object_files(rows: int) -> Path:
    folder = _object_checkpoint(rows)
    data.warm(path for path in folder.rglob("*") if path.is_file())
    return folder


@contextmanager
def _checkpoint(variable: Variable) -> Iterator[Restore]:
    path, tf = _object_files(variable.rows) / "ckpt", tensorflow()
    target = tf.train.Checkpoint(t=tf.Variable(tf.zeros([variable.rows, DIM])))

    def restore(phases: Phases) -> None:
        with phases.phase("restoring"):
            target.read(str(path)).assert_consumed()
        _require(target.t)

    yield restore


@contextmanager
def _saved_model(variable: Variable) -> Iterator[Restore]:
    path, tf = _object_files(variable.rows) / "model", tensorflow()

    def restore(phases: Phases) -> None:
        with phases.phase("loading"):
            loaded = tf.saved_model.load(str(path))
        _require(loaded.t)

    yield restore


@contextmanager
def _shards(variable: Variable) -> Iterator[Restore]:
    path, tf = _object_files(variable.rows) / "ckpt", tensorflow()
    ends = [*variable.starts[1:], variable.rows]
    shards = [
        tf.Variable(tf.zeros([end - start, DIM]))
        for start, end in zip(variable.starts, ends, strict=True)
    ]
    target = tf.train.Checkpoint(t=tf.__internal__.distribute.ShardedVariable(shards))

    def restore(phases: Phases) -> None:
        with phases.phase("restoring"):
            target.read(str(path))
        for start, shard in zip(variable.starts, shards, strict=True):
            _require(shard, start)

    yield restore


@data.stored
def _named_tensors(folder: Path, count: int, nbytes: int) -> None:
    tf, rows = tensorflow(), nbytes // (4 * DIM)
    variables = {
        f"v{i:03}": tf.Variable(data.rows(np.arange(rows) + i * rows)) for i in range(count)
    }
    tf.train.Checkpoint(**variables).write(str(folder / "ckpt"))


@contextmanager
def _small(count: int) -> Iterator[Restore]:
    folder, tf = _named_tensors(count, SMALL_BYTES), tensorflow()
    data.warm(folder.iterdir())
    names = [f"v{i:03}/.ATTRIBUTES/VARIABLE_VALUE" for i in range(count)]
    arguments = (str(folder / "ckpt"), names, [""] * count, [tf.float32] * count)

    def restore(phases: Phases) -> None:
        with phases.phase("restoring"):
            values = tf.raw_ops.RestoreV2(
                prefix=arguments[0], tensor_names=names, shape_and_slices=arguments[2],
                dtypes=arguments[3],
            )  # fmt: skip
        _require(values[-1], (count - 1) * (SMALL_BYTES // (4 * DIM)))

    yield restore


@contextmanager
def _model(count: int, nbytes: int) -> Iterator[Restore]:
    folder, tf = _named_tensors(count, nbytes), tensorflow()
    data.warm(folder.iterdir())
    rows = nbytes // (4 * DIM)
    variables = {f"v{i:03}": tf.Variable(tf.zeros([rows, DIM])) for i in range(count)}
    target = tf.train.Checkpoint(**variables)

    def restore(phases: Phases) -> None:
        with phases.phase("restoring"):
            target.read(str(folder / "ckpt")).assert_consumed()
        _require(variables[f"v{count - 1:03}"], (count - 1) * rows)

    yield restore


@contextmanager
def _remote(variable: Variable, slices: bool) -> Iterator[Restore]:
    tf, prefix = tensorflow(), "ram://bench/ckpt"
    table = data.rows(np.arange(variable.rows))
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=["t"], shape_and_slices=[""], tensors=[table])
    size = variable.rows // variable.partitions
    specs = [f"{variable.rows} {DIM} {start},{size}:-" for start in range(0, variable.rows, size)]
    specs = specs if slices else [""]

    def restore(phases: Phases) -> None:
        with phases.phase("restoring"):
            values = tf.raw_ops.RestoreV2(
                prefix=prefix, tensor_names=["t"] * len(specs), shape_and_slices=specs,
                dtypes=[tf.float32] * len(specs),
            )  # fmt: skip
        for i, value in enumerate(values):
            _require(value, i * size)

    yield restore
