# SPDX-License-Identifier: Apache-2.0
"""`init_from_checkpoint` with a worker and two parameter servers in separate processes."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.compare import same_bits
from warm_starts import write_vocabulary

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1

from tensorbundle.tf import op_library  # noqa: E402

pytestmark = [
    pytest.mark.skipif(op_library.find() is None, reason="built without the op library"),
    pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="bytes are counted by Linux"),
]

SERVER = """
import json, sys
import tensorflow as tf
cluster, task, with_ops = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "ops"
if with_ops:
    import tensorbundle as tb
    tb.tf.load_op_library()
server = tf.distribute.Server(cluster, job_name="ps", task_index=task)
print("ready", flush=True)
sys.stdin.read()
"""
EAGER_WORKER = """
import json, sys
import tensorflow as tf
import tensorbundle as tb
from tensorbundle.tf.backend import is_here
cluster = tf.train.ClusterSpec({"worker": [sys.argv[2]]})
tf.config.experimental_connect_to_cluster(cluster, job_name="worker", task_index=0)
tb.tf.install()                          # our ops run in this process only
with tf.device("/job:worker/task:0"):
    table = tf.Variable(tf.zeros([1024, 128]))
with tb.tf.options(mode="map"):          # only our op maps
    tb.init_from_checkpoint(sys.argv[1], {"t": table})
devices = [table.device, "/job:worker/device:CPU:0", "/job:worker/task:1", "/job:ps/task:0"]
print(json.dumps([table.device, float(table[3, 4]), [is_here(each) for each in devices]]))
"""
TABLE = np.random.default_rng(5).standard_normal((1 << 15, 128)).astype(np.float32)  # 16 MiB


class Cluster:
    """Parameter servers in child processes, and a worker in this process for the sessions."""

    def __init__(self, *with_ops: bool) -> None:
        """Starts a server for each argument, which says whether it loads the op library."""
        ports = _free_ports(3)
        self.spec = {
            "ps": [f"localhost:{port}" for port in ports[:2]],
            "worker": [f"localhost:{ports[2]}"],
        }
        self.servers = [
            subprocess.Popen(
                [sys.executable, "-c", SERVER, json.dumps(self.spec), str(task),
                 "ops" if ops else "plain"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )
            for task, ops in enumerate(with_ops)
        ]  # fmt: skip
        for server in self.servers:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
        self.worker = tf.distribute.Server(self.spec, job_name="worker", task_index=0)

    def session(self) -> Any:
        return tf1.Session(self.worker.target)

    def bytes_read(self) -> list[int]:
        """Returns the bytes that each server has read from files."""
        counts = []
        for server in self.servers:
            text = Path(f"/proc/{server.pid}/io").read_text()
            counts.append(int(text.split("rchar:")[1].split()[0]))
        return counts

    def close(self) -> None:
        for server in self.servers:
            server.kill()
            server.wait()
            for pipe in (server.stdin, server.stdout):
                assert pipe is not None
                pipe.close()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    servers = Cluster(True, True)
    yield servers
    servers.close()


@pytest.fixture
def prefix(tmp_path: Path, save: Callable[..., str]) -> str:
    return save(tmp_path / "m", {"t": TABLE})


def table(resource: bool, rows: int = len(TABLE)) -> list[Any]:
    """Creates a table of two partitions, one on each server."""
    setter = tf1.train.replica_device_setter(ps_tasks=2, worker_device="/job:worker/task:0")
    with tf1.device(setter):
        split = tf1.fixed_size_partitioner(2)
        shape = (rows, TABLE.shape[1])
        return list(tf1.get_variable("t", shape, partitioner=split, use_resource=resource))


def loopback_bytes() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[0])
    raise AssertionError("no loopback")


@pytest.mark.parametrize("mode", ["copy", "map"])
@pytest.mark.parametrize("op", ["auto", "native"])
@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_each_server_reads_only_its_partition(
    cluster: Cluster, prefix: str, mode: str, op: str, resource: bool
) -> None:
    """With ``op="auto"`` each server also reads what it needs to verify the stored slice."""
    with tf.Graph().as_default(), cluster.session() as session:
        partitions = table(resource)
        assert ["ps/task:0" in partitions[0].device, "ps/task:1" in partitions[1].device] == [
            True,
            True,
        ]
        with tb.tf.options(mode=mode, op=op):
            tb.init_from_checkpoint(prefix, {"t": partitions})
        # The initializer of a ref variable is a tensor: running it fetches the value.
        initialize = tf.group(*[partition.initializer for partition in partitions])
        session.run(tf.constant(1))
        before, sent = cluster.bytes_read(), loopback_bytes()
        session.run(initialize)
        read = [b - a for a, b in zip(before, cluster.bytes_read(), strict=True)]
        sent = loopback_bytes() - sent
        part = TABLE.nbytes // (2 if op == "native" else 1) if mode == "copy" else 0
        assert all(part <= each < part + (1 << 20) for each in read), read
        assert sent < TABLE.nbytes / 8
        assert same_bits(np.concatenate(session.run([p.value() for p in partitions])), TABLE)


@pytest.mark.parametrize("half", [0, 1])
def test_corruption_leaves_both_servers_uninitialized(
    cluster: Cluster, prefix: str, half: int
) -> None:
    data = Path(f"{prefix}.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[half * TABLE.nbytes // 2 + 5] ^= 1
    data.write_bytes(content)
    with tf.Graph().as_default(), cluster.session() as session:
        with tf1.variable_scope(f"corrupt{half}"):
            partitions = table(True)
        tb.init_from_checkpoint(prefix, {"t": partitions})
        with pytest.raises(tf.errors.DataLossError):
            session.run([partition.initializer for partition in partitions])
        assert not any(session.run([tf1.is_variable_initialized(p) for p in partitions]))


def test_server_without_op_library_runs_tensorflows_ops(prefix: str) -> None:
    plain = Cluster(False, False)
    try:
        with tf.Graph().as_default(), plain.session() as session:
            partitions = table(True)
            with tb.tf.options(op="native"):
                tb.init_from_checkpoint(prefix, {"t": partitions})
            with pytest.raises(tf.errors.NotFoundError, match="TensorbundleReadV1"):
                session.run([partition.initializer for partition in partitions])
        with tf.Graph().as_default(), plain.session() as session:
            partitions = table(True)
            tb.init_from_checkpoint(prefix, {"t": partitions})
            session.run([partition.initializer for partition in partitions])
            assert same_bits(np.concatenate(session.run([p.value() for p in partitions])), TABLE)
    finally:
        plain.close()


@pytest.mark.parametrize("with_ops", [(False, False), (True, False)], ids=["none", "one of two"])
def test_servers_need_no_op_library(
    tmp_path: Path, prefix: str, with_ops: tuple[bool, bool]
) -> None:
    """Copies, mappings, options and remaps are nodes of TensorFlow's ops, which any server runs."""
    words = [f"w{row}" for row in range(len(TABLE))]
    new = write_vocabulary(tmp_path / "new.txt", words[::-1])
    old = write_vocabulary(tmp_path / "old.txt", words)
    cluster = Cluster(*with_ops)
    try:
        for options in ({}, {"mode": "map"}, {"verify": "none", "threads": 2}, None):
            with tf.Graph().as_default(), cluster.session() as session:
                partitions = table(True)
                if options is None:
                    info = tb.VocabInfo(new, len(TABLE), 0, old)
                    tb.warm_start(prefix, "t", {"t": info})
                else:
                    with tb.tf.options(**options):
                        tb.init_from_checkpoint(prefix, {"t": partitions})
                session.run([partition.initializer for partition in partitions])
                values = np.concatenate(session.run([p.value() for p in partitions]))
                assert same_bits(values, TABLE if options is not None else TABLE[::-1].copy())
    finally:
        cluster.close()


@pytest.mark.parametrize("with_ops", [(False, False), (True, False), (True, True)], ids=str)
@pytest.mark.parametrize("rows", [60, 6000])
@pytest.mark.parametrize("fill", [0.0, 3.0])
def test_new_rows_are_filled_whatever_kernels_a_server_has(
    tmp_path: Path, prefix: str, with_ops: tuple[bool, bool], rows: int, fill: float
) -> None:
    """This process has our kernels, and may compute small remappings in place of the server."""
    tb.tf.load_op_library()
    old = write_vocabulary(tmp_path / "old.txt", [f"w{row}" for row in range(len(TABLE))])
    words = [f"w{row}" if row % 3 else f"new{row}" for row in range(rows)]
    new = write_vocabulary(tmp_path / "new.txt", words)
    expected = TABLE[:rows].copy()
    expected[::3] = fill
    cluster = Cluster(*with_ops)
    try:
        with tf.Graph().as_default(), cluster.session() as session:
            partitions = table(True, rows)
            initializer = tf1.constant_initializer(fill) if fill else None
            info = tb.VocabInfo(new, rows, 0, old, backup_initializer=initializer)
            tb.warm_start(prefix, "t", {"t": info})
            session.run([partition.initializer for partition in partitions])
            values = np.concatenate(session.run([p.value() for p in partitions]))
            assert same_bits(values, expected)
    finally:
        cluster.close()


def test_task_of_an_eager_cluster_is_this_process(tmp_path: Path, save: Callable[..., str]) -> None:
    """Our ops may run on this process's own task, by its name, and on no other one."""
    aligned = tb.align(save(tmp_path / "m", {"t": TABLE[:1024]}), tmp_path / "aligned").path
    address = f"localhost:{_free_ports(1)[0]}"
    output = subprocess.check_output(
        [sys.executable, "-c", EAGER_WORKER, aligned, address],
        stderr=subprocess.DEVNULL, text=True, timeout=120,
    )  # fmt: skip
    device, value, here = json.loads(output)
    assert device == "/job:worker/replica:0/task:0/device:CPU:0"
    assert value == TABLE[3, 4]
    assert here == [True, True, False, False]
