# SPDX-License-Identifier: Apache-2.0
"""A warm start reads no values while the graph is built, and each vocabulary once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm_starts import write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1

ROWS = 1000
PARTITIONS = 8


@pytest.fixture
def folder(tmp_path: Path, save: Callable[..., str]) -> Path:
    table = np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 4)
    save(tmp_path / "model", {"emb": table, "other": -table})
    write_vocabulary(tmp_path / "old.txt", range(ROWS))
    write_vocabulary(tmp_path / "new.txt", range(1, ROWS + 1))
    return tmp_path


def model(name: str = "emb", partitions: int = PARTITIONS) -> Any:
    partitioner = tf1.fixed_size_partitioner(partitions)
    return tf1.get_variable(name, (ROWS, 4), use_resource=True, partitioner=partitioner)


def info(folder: Path, **more: Any) -> tb.VocabInfo:
    return tb.VocabInfo(str(folder / "new.txt"), ROWS, 0, str(folder / "old.txt"), **more)


BACKUPS: dict[str, Callable[[], Any]] = {
    "zeros": lambda: None,
    "normal": lambda: tf1.random_normal_initializer(seed=1),
    "constant": lambda: tf1.constant_initializer(2.0),
}


@pytest.mark.usefixtures("backend_name")
@pytest.mark.parametrize("backup", BACKUPS)
def test_graph_builds_while_files_are_missing(folder: Path, backup: str) -> None:
    """The files are created before the initializers run."""
    hidden = {name: (folder / name).read_bytes() for name in ("old.txt", "new.txt")}
    data = "model.data-00000-of-00001"
    hidden[data] = (folder / data).read_bytes()
    for name in hidden:
        (folder / name).unlink()
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        table = model()
        vocabulary = info(folder, backup_initializer=BACKUPS[backup]())
        tb.warm_start(str(folder / "model"), None, {"emb": vocabulary})
        assert len(str(graph.as_graph_def())) < 200_000
        for name, content in hidden.items():
            (folder / name).write_bytes(content)
        session.run(tf1.global_variables_initializer())
        value = session.run(tf.convert_to_tensor(table))
    np.testing.assert_array_equal(value[:-1, 0], np.arange(4, ROWS * 4, 4))


@pytest.mark.usefixtures("backend_name")
def test_graph_construction_reads_only_the_index(folder: Path) -> None:
    for _ in range(2):  # The first run imports modules.
        with tf.Graph().as_default():
            model()
            before = _bytes_read()
            tb.warm_start(str(folder / "model"), None, {"emb": info(folder)})
            read = _bytes_read() - before
    assert read < (folder / "old.txt").stat().st_size + (folder / "model.index").stat().st_size


def _bytes_read() -> int:
    """Returns the bytes that this process has read by system calls."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        pytest.skip("this system does not count reads")
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def test_tensorflows_kernel_joins_once_per_table(folder: Path, backend_name: str) -> None:
    """Our kernel takes each partition's ids from one join, and needs no op that splits them."""
    with tf.Graph().as_default() as graph:
        model()
        with tb.tf.options(op="stock"):
            tb.warm_start(str(folder / "model"), None, {"emb": info(folder)})
        types = [op.type for op in graph.get_operations()]
    joins = 1 if backend_name == "stock" else PARTITIONS
    assert types.count("GenerateVocabRemapping") == joins
    assert types.count("LoadAndRemapMatrix") == PARTITIONS


def test_stock_graph_contains_no_tensorbundle_op(folder: Path) -> None:
    with tf.Graph().as_default() as graph:
        model()
        with tb.tf.options(op="stock"):
            tb.warm_start(str(folder / "model"), ".*", {"emb": info(folder)})
        our_ops = [op.type for op in graph.get_operations() if "Tensorbundle" in op.type]
        functions = [op.type for op in graph.get_operations() if op.type.endswith("PyFunc")]
    assert not our_ops and not functions


def test_graph_construction_is_fast_for_large_tables(folder: Path, backend_name: str) -> None:
    """TensorFlow's join of a small vocabulary takes half a second per partition."""
    size = 2_000_000
    path = (
        write_vocabulary(folder / "large.txt", range(size))
        if backend_name != "stock"
        else "no such file"
    )
    vocabulary = tb.VocabInfo(path, size, 0, path)
    seconds = []
    for _ in range(3):
        with tf.Graph().as_default():
            tf1.get_variable("emb", (size, 4), partitioner=tf1.fixed_size_partitioner(PARTITIONS))
            start = time.perf_counter()
            tb.warm_start(str(folder / "model"), None, {"emb": vocabulary})
            seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5, seconds


@pytest.mark.parametrize("verify", ["full", "lazy", "none"])
def test_corruption_is_detected_before_assignment(
    folder: Path, backend_name: str, verify: str
) -> None:
    data = folder / "model.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    # Byte 1 is in old row 0, which no new row uses: only full verification detects it.
    content[1] ^= 255
    data.write_bytes(content)
    with (
        tf.Graph().as_default(),
        tf1.Session() as session,
        tb.tf.options(verify=verify),
    ):
        table = model()
        tb.warm_start(str(folder / "model"), None, {"emb": info(folder)})
        initializers = [partition.initializer for partition in table]
        if verify == "full" or backend_name == "stock":
            with pytest.raises(tf.errors.DataLossError, match=r"CRC32C|hecksum"):
                session.run(initializers)
            assert not any(session.run([tf1.is_variable_initialized(p) for p in table]))
        else:
            session.run(initializers)


def test_ops_run_on_the_task_of_the_variable(folder: Path, backend_name: str) -> None:
    """TensorFlow's ops run where TensorFlow would place them."""
    tasks = [f"/job:ps/task:{number}" for number in range(2)]
    backup = tf1.random_normal_initializer(seed=1)
    with tf.Graph().as_default() as graph:
        with tf1.device(tf1.train.replica_device_setter(ps_device="/job:ps", ps_tasks=2)):
            model(partitions=2)
        before = set(graph.get_operations())
        vocabulary = info(folder, backup_initializer=backup)
        tb.warm_start(str(folder / "model"), None, {"emb": vocabulary})
        created = [op for op in graph.get_operations() if op not in before]
    places = {
        kind: [op.device for op in created if op.type == kind]
        for kind in ("TensorbundleRemapV1", "TensorbundleMissingV1", "RandomStandardNormal")
    }
    if backend_name == "native":
        # The initial value has another random op.
        places = {kind: sorted(set(found)) for kind, found in places.items()}
        assert set(map(tuple, places.values())) == {tuple(f"{t}/device:CPU:0" for t in tasks)}
        assert all(op.device for op in created if op.type != "NoOp")
    else:
        assert places == {
            "TensorbundleRemapV1": [],
            "TensorbundleMissingV1": [],
            "RandomStandardNormal": [""] * 4,
        }
