# SPDX-License-Identifier: Apache-2.0
"""A worker that initializes a partitioned table on parameter servers from a checkpoint.

argv[1] is JSON: cluster, servers (process ids), prefix, rows, width, ids, remote, verify, and
vocabularies (new, old; or null). Prints JSON: the bytes that each server read, the bytes received
by the loopback device, and the rows of a lookup. All functions are called by TensorFlow's names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

import tensorbundle.tf

v1 = tf.compat.v1


def bytes_read(process: int) -> int:
    """Returns the bytes that a process has read by system calls, without sockets and mappings."""
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def loopback_bytes() -> int:
    """Returns the bytes that the loopback device has received."""
    (line,) = (
        line for line in Path("/proc/net/dev").read_text().splitlines() if "lo:" in line.split()
    )
    return int(line.split(":")[1].split()[0])


def measure(servers: list[int]) -> dict[str, Any]:
    """Returns the current value of every counter."""
    return {
        "read": [bytes_read(each) for each in servers],
        "loopback": loopback_bytes(),
    }


def difference(after: Any, before: Any) -> Any:
    """Returns after minus before for every counter."""
    if isinstance(after, dict):
        return {key: difference(after[key], before[key]) for key in after}
    if isinstance(after, list):
        return [difference(*pair) for pair in zip(after, before, strict=True)]
    return after - before


def build(task: dict[str, Any]) -> tuple[Any, list[str]]:
    """Builds the graph; returns the rows of a lookup and the devices of the table's partitions."""
    with v1.device(v1.train.replica_device_setter(cluster=task["cluster"])):
        table = v1.get_variable(
            "table",
            [task["rows"], task["width"]],
            partitioner=v1.fixed_size_partitioner(len(task["servers"])),
        )
    with tensorbundle.tf.options(verify=task["verify"]):
        if task["vocabularies"]:
            new, old = task["vocabularies"]
            info = v1.train.VocabInfo(new, task["rows"], 0, old)
            v1.train.warm_start(task["prefix"], var_name_to_vocab_info={"table": info})
        else:
            v1.train.init_from_checkpoint(task["prefix"], {"table": "table"})
    rows = v1.nn.embedding_lookup(table, task["ids"], partition_strategy="div")
    return rows, [partition.device for partition in table]


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Initializes the table and returns the report."""
    server = tf.distribute.Server(task["cluster"], job_name="worker", task_index=0)
    tensorbundle.tf.install(remote=task["remote"])
    with tf.Graph().as_default() as graph:
        rows, devices = build(task)
        initialize = v1.global_variables_initializer()
        types = sorted({each.type for each in graph.get_operations()})
        with v1.Session(server.target) as session:
            session.run(tf.constant(0))  # connects
            before = measure(task["servers"])
            session.run(initialize)
            spent = difference(measure(task["servers"]), before)
            values = session.run(rows).tolist()
    return {"types": types, "devices": devices, "spent": spent, "rows": values}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
