# SPDX-License-Identifier: Apache-2.0
"""Two parameter servers and a worker, as processes: each server reads its own half, and no more."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tensorbundle.tf import library  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(library.load() is None, reason="the op library cannot be loaded"),
]

SERVER = Path(__file__).parent / "cluster" / "parameter_server.py"
WORKER = SERVER.with_name("worker.py")
ROWS, WIDTH = 131_072, 64  # 32 MiB
TABLE_BYTES = ROWS * WIDTH * 4
SHARD = ".data-00000-of-00001"
# The index, Python's own small files, and the graph: far from a table, far from nothing.
SMALL = 2 << 20


def table() -> np.ndarray:
    return np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table, stored whole, at an offset that can be mapped: it is the only tensor."""
    path = tmp_path_factory.mktemp("table") / "model.ckpt"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        value = tf.compat.v1.placeholder(tf.float32, [ROWS, WIDTH])
        write = tf.raw_ops.SaveV2(
            prefix=str(path), tensor_names=["table"], shape_and_slices=[""], tensors=[value]
        )
        session.run(write, {value: table()})
    return str(path)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def environment() -> dict[str, str]:
    package = str(Path(__file__).parents[2] / "python")
    path = os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"}


@contextlib.contextmanager
def servers(cluster: dict[str, Any], kind: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Parameter servers that have joined, until the end of the statement."""
    with contextlib.ExitStack() as stack:
        started = []
        for task in range(len(cluster["ps"])):
            process = subprocess.Popen(
                [sys.executable, str(SERVER), json.dumps(cluster), str(task), kind],
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)  # closes the pipes and waits
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield started


def work(prefix: str, *, kind: str = "ops", **task: Any) -> dict[str, Any]:
    """What a worker reports that starts the table on two servers."""
    ports = free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    cluster = {"ps": addresses[:2], "worker": addresses[2:]}
    with servers(cluster, kind) as running:
        full = {
            "cluster": cluster,
            "servers": [each.pid for each in running],
            "prefix": prefix,
            "rows": ROWS,
            "width": WIDTH,
            "mode": "copy",
            "remote": True,
            "resource": True,
            **task,
        }
        done = subprocess.run(
            [sys.executable, str(WORKER), json.dumps(full)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def check_values(report: dict[str, Any]) -> None:
    wanted = table()[[0, ROWS - 1, ROWS // 2, 5]]
    np.testing.assert_array_equal(np.array(report["first"], np.float32), wanted)
    # A rate of 1 and a gradient of 1; near 2**23 a float32 has no finer steps than 0.5.
    assert report["moved"] == [1.0]
    tasks = [tf.DeviceSpec.from_string(each) for each in report["devices"]]
    assert [(each.job, each.task) for each in tasks] == [("ps", 0), ("ps", 1)]


@pytest.mark.parametrize("resource", [True, False], ids=["resource", "ref"])
def test_each_server_reads_its_half_and_no_more(prefix: str, resource: bool) -> None:
    report = work(prefix, resource=resource)
    check_values(report)
    assert "TensorbundleReadV1" in report["types"]
    assert "RestoreV2" not in report["types"]
    for read in report["initialized"]["read"]:
        assert TABLE_BYTES // 2 <= read < TABLE_BYTES // 2 + SMALL
    # No other program should be busy on this device meanwhile; a quarter of the table is ours.
    assert report["initialized"]["loopback"] < SMALL


@pytest.mark.parametrize("resource", [True, False], ids=["resource", "ref"])
def test_a_mapped_table_is_neither_read_nor_sent(prefix: str, resource: bool) -> None:
    report = work(prefix, mode="map", resource=resource)
    check_values(report)
    for read in report["trained"]["read"]:
        assert read < SMALL
    for kib in report["trained"]["anonymous_kib"]:
        assert kib << 10 < TABLE_BYTES // 4
    assert report["trained"]["loopback"] < SMALL


def test_damage_is_the_worker_s_exception(prefix: str, tmp_path: Path) -> None:
    """The servers' checksums are combined, so that damage in one half stops both."""
    copy = str(tmp_path / "damaged")
    for suffix in (".index", SHARD):
        shutil.copy(prefix + suffix, copy + suffix)
    with open(copy + SHARD, "r+b") as file:
        file.seek(TABLE_BYTES - 1000)
        file.write(b"damaged")
    report = work(copy)
    assert "DataLossError" in report["error"]
    assert "table" in report["message"]
    assert report["uninitialized"] == 2


def test_servers_without_our_ops_are_spared_them(prefix: str) -> None:
    report = work(prefix, kind="plain", remote=False)
    check_values(report)
    assert "RestoreV2" in report["types"]
    assert not [each for each in report["types"] if each.startswith("Tensorbundle")]


def test_servers_without_our_ops_say_so(prefix: str) -> None:
    report = work(prefix, kind="plain", remote=True)
    assert "NotFoundError" in report["error"]
    assert "TensorbundleReadV1" in report["message"]
