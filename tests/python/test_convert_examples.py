# SPDX-License-Identifier: Apache-2.0
"""The examples that convert between TensorFlow and PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.compare import same_bits

import tensorbundle as tb
from tensorbundle.formats import safetensors

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, *arguments):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_tf_to_pytorch_transposes_and_renames(tmp_path):
    rng = np.random.default_rng(0)
    bundle = Bundle()
    shapes = {
        "dense/kernel": (3, 4),
        "dense/kernel/Adam": (3, 4),
        "dense/bias": (4,),
        "conv/kernel": (5, 6, 3, 2),
        "norm/gamma": (2,),
        "norm/moving_variance": (2,),
        "words/embeddings": (10, 3),
    }
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for name, array in arrays.items():
        bundle.add(name, array)
    bundle.add("global_step", np.array(7, np.int64))
    prefix = bundle.write(tmp_path / "m")
    done = run("tf_to_pytorch.py", prefix, tmp_path / "x.safetensors")
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 tensors" in done.stdout
    expected = {
        "dense.weight": arrays["dense/kernel"].T,
        "dense.bias": arrays["dense/bias"],
        "conv.weight": arrays["conv/kernel"].transpose(3, 2, 0, 1),
        "norm.weight": arrays["norm/gamma"],
        "norm.running_var": arrays["norm/moving_variance"],
        "words.weight": arrays["words/embeddings"],
    }
    with safetensors.read(str(tmp_path / "x.safetensors")) as found:
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert same_bits(np.asarray(found[name]), np.ascontiguousarray(array))


def test_tf_to_pytorch_reports_what_it_cannot_convert(tmp_path):
    bundle = Bundle()
    bundle.add("a", np.ones(2))
    bundle.add_strings("words", [b"a"], (1,))
    prefix = bundle.write(tmp_path / "m")
    done = run("tf_to_pytorch.py", prefix, tmp_path / "x.safetensors")
    assert done.returncode == 1 and "'words': strings" in done.stderr
    done = run("tf_to_pytorch.py", tmp_path / "absent", tmp_path / "x.safetensors")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert not (tmp_path / "x.safetensors").exists()


def test_pytorch_to_tf_and_back(tmp_path):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    model = torch.nn.ModuleDict(
        {
            "words": torch.nn.Embedding(10, 3),
            "conv": torch.nn.Conv2d(3, 2, (5, 6)),
            "line": torch.nn.Conv1d(3, 2, 4),
            "norm": torch.nn.BatchNorm2d(2),
            "head": torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)),
        }
    )
    state = model.state_dict()
    source = tmp_path / "model.safetensors"
    library.save_file(state, source)
    done = run("pytorch_to_tf.py", source, tmp_path / "m", "--embedding", "wor*")
    assert (done.returncode, done.stderr) == (0, "")
    with tb.open(tmp_path / "m") as checkpoint:
        shapes = {name: tensor.shape for name, tensor in checkpoint.items()}
    assert shapes == {
        "words/embeddings": (10, 3),
        "conv/kernel": (5, 6, 3, 2),
        "conv/bias": (2,),
        "line/kernel": (4, 3, 2),
        "line/bias": (2,),
        "norm/gamma": (2,),
        "norm/beta": (2,),
        "norm/moving_mean": (2,),
        "norm/moving_variance": (2,),
        "head/0/kernel": (3, 4),
        "head/0/bias": (4,),
        "head/1/gamma": (4,),
        "head/1/beta": (4,),
    }
    done = run("tf_to_pytorch.py", tmp_path / "m", tmp_path / "back.safetensors")
    assert (done.returncode, done.stderr) == (0, "")
    found = library.load_file(tmp_path / "back.safetensors")
    del state["norm.num_batches_tracked"]
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
