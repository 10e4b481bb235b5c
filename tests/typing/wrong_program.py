# SPDX-License-Identifier: Apache-2.0
"""Mistakes that type checkers find: each line with an error ends with a comment."""

import numpy as np

import tensorbundle as tb

tb.open("model.ckpt", verify="some")  # error
tb.open("model.ckpt", io="mapped")  # error
tb.load("model.ckpt", verify="never")  # error
tb.tf.options(mode="move")  # error
tb.tf.options(op="mine")  # error
tb.tf.options(verify="partly")  # error
tb.init_from_checkpoint("model.ckpt", {"/": "/"}, missing="ignore")  # error
tb.warm_start("model.ckpt", mismatch="ignore")  # error
tb.tf.plan_init("model.ckpt", {"/": "/"}, missing="ignore")  # error
tb.convert("model.ckpt", "model", to="zarr")  # error
tb.edit("model.ckpt", "new", rename="^bert/")  # error
tb.edit("model.ckpt", "new", cast=16)  # error
tb.open("model.ckpt")["table"].read(out=[0.0])  # error
print(tb.open("model.ckpt").get("table").shape)  # error
tb.open("model.ckpt", threads="two")  # error
tb.save("model.ckpt", {"table": np.zeros(3)}, shards=1)
