# SPDX-License-Identifier: Apache-2.0
"""A parameter server: joins the cluster of argv[1] as task argv[2] until its input ends.

argv[3] is "ops" (loads our op library) or "plain" (does not).
"""

from __future__ import annotations

import json
import sys

import tensorflow as tf

if sys.argv[3] == "ops":
    from tensorbundle.tf import op_library

    op_library.load_op_library()
server = tf.distribute.Server(json.loads(sys.argv[1]), job_name="ps", task_index=int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.read()
