# SPDX-License-Identifier: Apache-2.0
"""Scripts of the kinds that people publish to convert checkpoints, and a checkpoint for them.

Each takes the folder of the checkpoint, and a folder for its output. With TensorFlow and with its
stand-in a script prints the same and writes the same files.
"""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from craft.bundle import Bundle

PREFIX = "model.ckpt-7"

# Every variable in a loop, renamed and transposed: BERT, ALBERT and their relatives.
TRANSPOSE = """
import re
import sys
import numpy as np
import tensorflow as tf

path, out = sys.argv[1] + "/model.ckpt-7", sys.argv[2]
state = {}
for name, shape in tf.train.list_variables(path):
    print(f"loading {name} with shape {shape}")
    array = tf.train.load_variable(path, name)
    parts = name.split("/")
    if any(part in ("adam_m", "adam_v", "global_step") for part in parts):
        print("skipped", "/".join(parts))
        continue
    key = ".".join(re.sub(r"layer_(\\d+)", r"layer.\\1", part) for part in parts)
    for old, new in (("kernel", "weight"), ("gamma", "weight"), ("beta", "bias")):
        key = re.sub(f"{old}$", new, key)
    state[key] = array.T if parts[-1] == "kernel" else array
np.savez(out + "/state.npz", **{k: v for k, v in state.items() if v.dtype.kind == "f"})
print(sorted(state), sum(value.size for value in state.values()))
"""

# A nested dict of squeezed arrays, with settings and tokens from files: GPT-2.
NESTED = """
import json
import os
import sys
import numpy as np
import tensorflow as tf

folder, out = sys.argv[1:]
with tf.io.gfile.GFile(os.path.join(folder, "config.json")) as file:
    settings = json.load(file)
with tf.io.gfile.GFile(os.path.join(folder, "vocab.txt"), "r") as file:
    tokens = [line.rstrip("\\n") for line in file]
params = {"blocks": [{} for _ in range(settings["layers"])]}
latest = tf.train.latest_checkpoint(folder)
for name, _ in tf.train.list_variables(latest):
    if "layer_" in name:
        parts = name.split("/")[2:]
        block = params["blocks"][int(parts[0].split("_")[1])]
        block["/".join(parts[1:])] = np.squeeze(tf.train.load_variable(latest, name))
if not tf.io.gfile.exists(os.path.join(out, "deep/er")):
    tf.io.gfile.makedirs(os.path.join(out, "deep/er"))
with tf.io.gfile.GFile(os.path.join(out, "deep/er/shapes.json"), "w") as file:
    file.write(json.dumps([{k: v.shape for k, v in block.items()} for block in params["blocks"]]))
print(os.path.basename(latest), tokens, sorted(tf.io.gfile.listdir(out)))
"""

# A reader, its maps and NumPy's statistics.
READER = """
import sys
import numpy as np
from tensorflow.python.training import py_checkpoint_reader

reader = py_checkpoint_reader.NewCheckpointReader(sys.argv[1] + "/model.ckpt-7")
shapes = reader.get_variable_to_shape_map()
dtypes = reader.get_variable_to_dtype_map()
for key in sorted(shapes):
    value = reader.get_tensor(key)
    print(key, shapes[key], dtypes[key].name, dtypes[key], repr(dtypes[key]), type(value).__name__)
    print(dtypes[key].size, dtypes[key].is_floating, dtypes[key].as_numpy_dtype)
    print(value if np.ndim(value) == 0 else (value.dtype, value.shape, value.ravel()[:3].tolist()))
print(reader.has_tensor("bert/pooler/kernel"), reader.has_tensor("nothing"))
print("\\n".join(sorted(reader.debug_string().decode().splitlines())))
"""

# TensorFlow's own tool.
INSPECT = """
import sys
from tensorflow.python.tools.inspect_checkpoint import print_tensors_in_checkpoint_file

path = sys.argv[1] + "/model.ckpt-7"
print_tensors_in_checkpoint_file(path, tensor_name="", all_tensors=True, all_tensor_names=True)
print_tensors_in_checkpoint_file(path, None, False, True, count_exclude_pattern="adam|step")
print_tensors_in_checkpoint_file(path, tensor_name="bert/pooler/kernel", all_tensors=False)
print_tensors_in_checkpoint_file(path, "nothing", False)
"""

# A script for TensorFlow 1: flags, logging, gfile.
FLAGS = """
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()
flags = tf.flags
FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "The checkpoint.")
flags.DEFINE_string(name="output", default=None, help="The output.")
flags.DEFINE_integer("repeat", 2, "Times.")
tf.app.flags.DEFINE_bool("quiet", False, "Print nothing.")


def main(_):
    tf.logging.set_verbosity(tf.logging.INFO)
    if not tf.gfile.Exists(FLAGS.output + "/tf1"):
        tf.gfile.MakeDirs(FLAGS.output + "/tf1")
    ckpt = tf.train.get_checkpoint_state(FLAGS.checkpoint)
    reader = tf.train.NewCheckpointReader(ckpt.model_checkpoint_path)
    with tf.gfile.Open(FLAGS.output + "/tf1/names.txt", "w") as file:
        for name in sorted(reader.get_variable_to_shape_map()):
            file.write(name + "\\n")
    with tf.gfile.GFile(FLAGS.output + "/tf1/names.txt", "rb") as file:
        print(len(file.readlines()), tf.gfile.Stat(FLAGS.output + "/tf1/names.txt").length)
    print(tf.gfile.Glob(FLAGS.output + "/tf1/*")[0][-9:], FLAGS.repeat, FLAGS.quiet)
    tf.logging.info("finished")


if __name__ == "__main__":
    flags.mark_flag_as_required("checkpoint")
    tf.app.run()
"""

# The mean of a directory's checkpoints, with dtypes of the reader.
AVERAGE = """
import sys
import numpy as np
import tensorflow as tf

folder, out = sys.argv[1:]
state = tf.train.get_checkpoint_state(folder)
values, dtypes = {}, {}
exists = tf.compat.v1.train.checkpoint_exists
paths = [path for path in state.all_model_checkpoint_paths if exists(path)]
for name, shape in tf.train.list_variables(paths[0]):
    if not name.startswith("global_step"):
        values[name] = np.zeros(shape)
for path in paths:
    reader = tf.train.load_checkpoint(path)
    for name in list(values):
        tensor = reader.get_tensor(name)
        dtypes[name] = tensor.dtype
        if tf.as_dtype(dtypes[name]) in (tf.float32, tf.float64):
            values[name] = values[name] + tensor
        else:
            del values[name]
for name in sorted(values):
    print(name, dtypes[name], float((values[name] / len(paths)).sum()))
"""

# What fails, and is caught by TensorFlow's exceptions.
ERRORS = """
import sys
import tensorflow as tf

folder, out = sys.argv[1:]
prefix = folder + "/model.ckpt-7"


def attempt(label, function, *args):
    try:
        function(*args)
    except tf.errors.NotFoundError as error:
        print(label, "not found", error.error_code == tf.errors.NOT_FOUND, type(error.message))
    except tf.errors.DataLossError as error:
        print(label, "data loss", error.error_code)
    except tf.errors.OpError as error:
        print(label, "other", error.error_code)
    except ValueError:
        print(label, "bad value")
    except TypeError:
        print(label, "bad type")


with tf.io.gfile.GFile(out + "/garbage", "w") as file:
    file.write("not a checkpoint" * 100)
attempt("tensor", tf.train.load_variable, prefix, "nothing")
attempt("tensor", tf.train.load_checkpoint(prefix).get_tensor, "nothing")
attempt("prefix", tf.train.load_checkpoint, prefix + "0")
attempt("garbage", tf.train.load_checkpoint, out + "/garbage")
attempt("directory", tf.train.load_checkpoint, out)
attempt("directory", tf.compat.v1.train.NewCheckpointReader, out)
attempt("file", tf.io.gfile.GFile(out + "/missing").read)
attempt("list", tf.io.gfile.listdir, out + "/missing")
attempt("mode", tf.io.gfile.GFile, out + "/missing", "x")
attempt("exists", tf.io.gfile.rename, out + "/garbage", out + "/garbage")
attempt("number", tf.io.gfile.exists, 5)
print(tf.train.latest_checkpoint(out), tf.train.get_checkpoint_state(out))
print(tf.compat.as_str(b"a"), tf.compat.as_bytes("b"), tf.compat.as_str_any(4))
sys.exit(3)
"""

# TensorFlow 1 alone has these names.
CONTRIB = """
import sys
import tensorflow as tf
from tensorflow.contrib.framework.python.framework import checkpoint_utils
from tensorflow.python import pywrap_tensorflow
from tensorflow import gfile

path = sys.argv[1] + "/model.ckpt-7"
names = [name for name, _ in tf.contrib.framework.list_variables(path)]
step = tf.contrib.framework.load_variable(path, tf.GraphKeys.GLOBAL_STEP)
reader = tf.python.pywrap_tensorflow.NewCheckpointReader(path)
assert reader.get_tensor("global_step") == step == 7
assert checkpoint_utils.load_variable(path, "global_step:0") == step
assert pywrap_tensorflow.NewCheckpointReader(path).has_tensor(names[0])
print(len(names), gfile.Exists(sys.argv[1]), tf.executing_eagerly(), tf.__version__ > "2")
"""

# Each with its arguments: {folder} is that of the checkpoint, {out} that of the output.
PLACES = ["{folder}", "{out}"]
SCRIPTS = {
    "transpose": (TRANSPOSE, PLACES),
    "nested": (NESTED, PLACES),
    "reader": (READER, PLACES),
    "inspect": (INSPECT, PLACES),
    "flags": (FLAGS, ["--checkpoint={folder}", "--output", "{out}", "--noquiet", "--unknown=1"]),
    "average": (AVERAGE, PLACES),
    "errors": (ERRORS, PLACES),
}


def arguments(name: str, folder: Path, out: Path) -> list[str]:
    """Returns the arguments of a script."""
    return [each.format(folder=folder, out=out) for each in SCRIPTS[name][1]]


def write_model(folder: Path) -> Path:
    """Writes a checkpoint with the names of a BERT, its state file, settings and vocabulary."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    bundle = Bundle(2)
    names = ["bert/embeddings/word_embeddings", "bert/pooler/kernel", "bert/pooler/bias"]
    for layer in range(2):
        scope = f"bert/encoder/layer_{layer}/attention"
        names += [f"{scope}/self/query/kernel", f"{scope}/self/query/bias"]
        names += [f"{scope}/output/LayerNorm/gamma", f"{scope}/output/LayerNorm/beta"]
    names += [f"{name}/{slot}" for name in names[:3] for slot in ("adam_m", "adam_v")]
    for index, name in enumerate(names):
        is_matrix = "kernel" in name or "word" in name
        value = random.normal(size=(4, 6) if is_matrix else (6,)).astype(np.float32)
        bundle.add(name, value, shard=index % 2)
    bundle.add("global_step", np.array(7, np.int64))
    bundle.add("half", np.array([1.5, -2], ml_dtypes.bfloat16))
    bundle.add("flag", np.array(True))
    bundle.add_strings("tokens", [b"a", b"\xff"], (2,))
    bundle.write(folder / PREFIX)
    (folder / "checkpoint").write_text(
        f'model_checkpoint_path: "{PREFIX}"\nall_model_checkpoint_paths: "gone-1"\n'
        f'all_model_checkpoint_paths: "{PREFIX}"\n'
    )
    (folder / "config.json").write_text(json.dumps({"layers": 2}))
    (folder / "vocab.txt").write_bytes("[PAD]\nthé\r\nend".encode())
    return folder
