# SPDX-License-Identifier: Apache-2.0
"""A worker that starts a partitioned table from a checkpoint, on the servers that hold it.

argv[1] is JSON: cluster, servers (process ids), prefix, rows, width, mode, remote, resource. Prints
JSON: what each server read, what crossed the loopback device, and what the table then answers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import tensorbundle.tf

v1 = tf.compat.v1


def bytes_read(process: int) -> int:
    """What a process has read by system calls; a socket's and a mapping's bytes do not count."""
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def loopback_bytes() -> int:
    """What the loopback device has received."""
    (line,) = (
        line for line in Path("/proc/net/dev").read_text().splitlines() if "lo:" in line.split()
    )
    return int(line.split(":")[1].split()[0])


def anonymous_kib(process: int) -> int:
    """Memory that is no file's."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


def measure(servers: list[int]) -> dict[str, Any]:
    """All counters now."""
    return {
        "read": [bytes_read(each) for each in servers],
        "anonymous_kib": [anonymous_kib(each) for each in servers],
        "loopback": loopback_bytes(),
    }


def difference(after: Any, before: Any) -> Any:
    """After minus before, counter by counter."""
    if isinstance(after, dict):
        return {key: difference(after[key], before[key]) for key in after}
    if isinstance(after, list):
        return [difference(*pair) for pair in zip(after, before, strict=True)]
    return after - before


def build(task: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The rows that a lookup gives, a step of training on them, and where the pieces are."""
    ids = tf.constant([0, task["rows"] - 1, task["rows"] // 2, 5])
    with v1.device(v1.train.replica_device_setter(cluster=task["cluster"])):
        table = v1.get_variable(
            "table",
            [task["rows"], task["width"]],
            partitioner=v1.fixed_size_partitioner(len(task["servers"])),
            use_resource=task["resource"],
        )
    with tensorbundle.tf.options(mode=task["mode"]):
        v1.train.init_from_checkpoint(task["prefix"], {"table": "table"})
    rows = v1.nn.embedding_lookup(table, ids, partition_strategy="div")
    step = v1.train.GradientDescentOptimizer(1.0).minimize(tf.reduce_sum(rows))
    return rows, step, [piece.device for piece in table]


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Does what the module says."""
    server = tf.distribute.Server(task["cluster"], job_name="worker", task_index=0)
    tensorbundle.tf.install(remote=task["remote"])
    with tf.Graph().as_default() as graph:
        rows, step, devices = build(task)
        types = sorted({each.type for each in graph.get_operations()})
        with v1.Session(server.target) as session:
            before = measure(task["servers"])
            try:
                session.run(v1.global_variables_initializer())
            except tf.errors.OpError as error:
                return {
                    "error": [each.__name__ for each in type(error).__mro__],
                    "message": error.message,
                    "uninitialized": len(session.run(v1.report_uninitialized_variables())),
                }
            initialized = difference(measure(task["servers"]), before)
            first = session.run(rows)
            session.run(step)
            second = session.run(rows)
            trained = difference(measure(task["servers"]), before)
    return {
        "types": types,
        "devices": devices,
        "initialized": initialized,
        "trained": trained,
        "first": first.tolist(),
        "moved": np.unique(first - second).tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
