# SPDX-License-Identifier: Apache-2.0
"""Patched functions in a worker with two parameter servers, each in its own process.

``test_init_servers`` tests the reads of the servers.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tensorbundle.tf import op_library  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(op_library.load() is None, reason="the op library cannot be loaded"),
]

SERVER = Path(__file__).parent / "cluster" / "parameter_server.py"
WORKER = SERVER.with_name("worker.py")
ROWS, WIDTH = 131_072, 64  # 32 MiB
IDS = [0, ROWS - 1, ROWS // 2, 5, 6, 7, 8]
TABLE_BYTES = ROWS * WIDTH * 4
# The index, Python's own small files, and the graph: much less than a table.
SMALL = 2 << 20


def table() -> np.ndarray:
    return np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Writes the table as one stored slice; returns the prefix."""
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
    """Returns the environment for a child process that imports the same package."""
    path = os.pathsep.join(sys.path)
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"}


@contextlib.contextmanager
def servers(cluster: dict[str, Any], kind: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Runs the parameter servers until the end of the with statement."""
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
    """Runs a worker that initializes the table on two servers; returns its report."""
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
            "ids": IDS,
            "remote": True,
            "verify": "full",
            "vocabularies": None,
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


def check(report: dict[str, Any], rows: np.ndarray) -> None:
    np.testing.assert_array_equal(np.array(report["rows"], np.float32), rows)
    tasks = [tf.DeviceSpec.from_string(each) for each in report["devices"]]
    assert [(each.job, each.task) for each in tasks] == [("ps", 0), ("ps", 1)]


def test_patched_function_initializes_on_servers(prefix: str) -> None:
    report = work(prefix)
    check(report, table()[IDS])
    assert "TensorbundleReadV1" in report["types"]
    assert "RestoreV2" not in report["types"]
    for read in report["spent"]["read"]:
        assert TABLE_BYTES // 2 <= read < TABLE_BYTES // 2 + SMALL
    assert report["spent"]["loopback"] < SMALL


def test_servers_without_op_library_get_stock_ops(prefix: str) -> None:
    report = work(prefix, kind="plain", remote=False)
    check(report, table()[IDS])
    assert "RestoreV2" in report["types"]
    assert not [each for each in report["types"] if each.startswith("Tensorbundle")]


@pytest.mark.parametrize("verify", ["none", "full"])
def test_servers_remap_changed_vocabulary(prefix: str, tmp_path: Path, verify: str) -> None:
    """Each server joins the vocabularies and reads the rows that it needs."""
    old = [f"word-{number}" for number in range(ROWS)]
    new = old[::-1]
    new[::4] = [f"new-{number}" for number in range(len(new[::4]))]
    for name, words in (("old.txt", old), ("new.txt", new)):
        (tmp_path / name).write_text("\n".join(words) + "\n")
    vocabularies = [str(tmp_path / "new.txt"), str(tmp_path / "old.txt")]
    report = work(prefix, vocabularies=vocabularies, verify=verify)
    expected = table()[::-1].copy()
    expected[::4] = 0
    check(report, expected[IDS])
    assert "TensorbundleRemapV1" in report["types"]
    joined = sum((tmp_path / name).stat().st_size for name in ("old.txt", "new.txt"))
    # Three quarters of each half, and both vocabularies. The task that verifies the checksum
    # reads the table once more.
    rows = TABLE_BYTES // 2 * 3 // 4
    extra = TABLE_BYTES if verify == "full" else 0
    assert sum(report["spent"]["read"]) < 2 * (rows + joined + SMALL) + extra
    assert min(report["spent"]["read"]) < rows + joined + SMALL
    assert report["spent"]["loopback"] < SMALL
