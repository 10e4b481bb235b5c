# SPDX-License-Identifier: Apache-2.0
"""``convert`` agrees with TensorFlow, and with transformers' converter of BERT checkpoints."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from craft.compare import same_bits
from craft.dtypes import KINDS, sample
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle.formats import npz, safetensors

tf = pytest.importorskip("tensorflow")

# The types that TensorFlow 2.15 can make constants of.
LABELS = [
    *("float", "double", "half", "bfloat16", "bool", "complex64", "complex128"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
]
KIND_LIST = [kind for kind in KINDS.values() if kind.label in LABELS]
EXAMPLES = Path(__file__).parents[2] / "examples"


def save(prefix, arrays):
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=[tf.constant(array) for array in arrays.values()],
    )


def bert_arrays(layers=2, width=8, vocabulary=20):
    """Returns a small random BERT, by the names of google-research/bert, with optimizer slots."""
    shapes = {
        "bert/embeddings/word_embeddings": (vocabulary, width),
        "bert/embeddings/position_embeddings": (16, width),
        "bert/embeddings/token_type_embeddings": (2, width),
        "bert/pooler/dense/kernel": (width, width),
        "bert/pooler/dense/bias": (width,),
        "cls/predictions/transform/dense/kernel": (width, width),
        "cls/predictions/transform/dense/bias": (width,),
        "cls/predictions/output_bias": (vocabulary,),
        "cls/seq_relationship/output_weights": (2, width),
        "cls/seq_relationship/output_bias": (2,),
    }
    norms = ["bert/embeddings", "cls/predictions/transform"]
    for layer in range(layers):
        scope = f"bert/encoder/layer_{layer}"
        norms += [f"{scope}/attention/output", f"{scope}/output"]
        dense = {
            **dict.fromkeys(("self/query", "self/key", "self/value"), (width, width)),
            "output/dense": (width, width),
        }
        rows = {f"attention/{name}": shape for name, shape in dense.items()}
        rows |= {"intermediate/dense": (width, 4 * width), "output/dense": (4 * width, width)}
        for name, shape in rows.items():
            shapes[f"{scope}/{name}/kernel"] = shape
            shapes[f"{scope}/{name}/bias"] = shape[1:]
    for scope in norms:
        shapes |= {f"{scope}/LayerNorm/{name}": (width,) for name in ("beta", "gamma")}
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for name in list(arrays):
        arrays |= {f"{name}/{slot}": np.zeros_like(arrays[name]) for slot in ("adam_m", "adam_v")}
    arrays["global_step"] = np.array(1000, np.int64)
    return arrays


def test_bert_rules_equal_the_converter_of_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    modeling = pytest.importorskip("transformers.models.bert.modeling_bert")
    if not hasattr(modeling, "load_tf_weights_in_bert"):
        pytest.skip("transformers 5 has no converter for TensorFlow's checkpoints")
    save(tmp_path / "bert_model.ckpt", bert_arrays())
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16,
    )  # fmt: skip
    expected = transformers.BertForPreTraining(config)
    modeling.load_tf_weights_in_bert(expected, config, str(tmp_path / "bert_model.ckpt"))
    folder = tmp_path / "converted"
    report = tb.convert(
        tmp_path / "bert_model.ckpt", f"{folder}/", to="safetensors",
        rules=EXAMPLES / "bert_to_pytorch.toml", strict=True,
    )  # fmt: skip
    assert report.tensors == 5 + 2 * 16 + 9
    config.save_pretrained(folder)
    found, info = transformers.BertForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    states = found.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[1].items():
        assert torch.equal(states[0][name], tensor), name


shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
arrays_by_name = st.dictionaries(
    names,
    st.tuples(st.sampled_from(KIND_LIST), shapes, st.integers(0, 9)).map(lambda row: sample(*row)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None)
@given(arrays_by_name)
def test_tensors_of_tensorflow_reach_the_file_and_come_back(arrays):
    """TensorFlow saves; the file has the same bits; TensorFlow reads the new checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder, "m"), arrays)
        for suffix, module in (("safetensors", safetensors), ("npz", npz)):
            file = f"{folder}/x.{suffix}"
            left_out = tb.convert(f"{folder}/m", file).left_out
            assert all(arrays[name].dtype == np.complex128 for name in left_out)
            kept = {name: array for name, array in arrays.items() if name not in left_out}
            with module.read(file) as found:
                assert found.keys() == kept.keys()
                assert all(same_bits(np.asarray(found[name]), kept[name]) for name in kept)
            if kept:
                tb.convert(file, f"{folder}/back-{suffix}")
                reader = tf.train.load_checkpoint(f"{folder}/back-{suffix}")
                assert reader.get_variable_to_shape_map().keys() == kept.keys()
                for name, array in kept.items():
                    assert same_bits(np.asarray(reader.get_tensor(name), array.dtype), array)


def test_tensorflow_reads_checkpoint_from_file_of_safetensors_library(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    arrays = {
        "kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
        "half": sample(KINDS[14], (5, 2)),
        "step": np.array(7, np.int64),
    }
    library.save_file(arrays, tmp_path / "x.safetensors")
    tb.convert(tmp_path / "x.safetensors", tmp_path / "m", partition={"kernel": 2})
    for name, array in arrays.items():
        assert same_bits(np.asarray(tf.train.load_variable(str(tmp_path / "m"), name)), array)
    variable = tf.Variable(np.zeros((3, 4), np.float32))
    restored = tf.raw_ops.RestoreV2(
        prefix=str(tmp_path / "m"), tensor_names=["kernel"], shape_and_slices=[""],
        dtypes=[tf.float32],
    )  # fmt: skip
    variable.assign(restored[0])
    assert same_bits(variable.numpy(), arrays["kernel"])


def test_flat_names_of_an_object_graph(tmp_path):
    layer = tf.Variable(np.ones((2, 3), np.float32), name="dense/kernel")
    prefix = tf.train.Checkpoint(layer=layer).save(str(tmp_path / "m"))
    report = tb.convert(prefix, tmp_path / "x.npz")
    assert report.left_out == {"_CHECKPOINTABLE_OBJECT_GRAPH": "the object graph"}
    tb.convert(prefix, tmp_path / "y.npz", flatten=True, drop="save_counter*", strict=True)
    with np.load(tmp_path / "x.npz") as keys, np.load(tmp_path / "y.npz") as flat:
        assert "layer/.ATTRIBUTES/VARIABLE_VALUE" in keys
        assert list(flat) == ["dense/kernel"]


def test_layers_of_pytorch_compute_what_those_of_tensorflow_do(tmp_path):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    rng = np.random.default_rng(0)
    arrays = {
        "conv/kernel": rng.standard_normal((3, 2, 5, 4), np.float32),
        "conv/bias": rng.standard_normal(4, np.float32),
        "dense/kernel": rng.standard_normal((4, 6), np.float32),
        "dense/bias": rng.standard_normal(6, np.float32),
    }
    save(tmp_path / "m", arrays)
    subprocess.run(
        [sys.executable, str(EXAMPLES / "tf_to_pytorch.py"), tmp_path / "m", tmp_path / "x"],
        check=True, capture_output=True,
    )  # fmt: skip
    images = rng.standard_normal((2, 8, 9, 5), np.float32)
    expected = tf.nn.conv2d(images, arrays["conv/kernel"], 1, "VALID") + arrays["conv/bias"]
    expected = tf.matmul(expected, arrays["dense/kernel"]) + arrays["dense/bias"]
    model = torch.nn.ModuleDict(
        {"conv": torch.nn.Conv2d(5, 4, (3, 2)), "dense": torch.nn.Linear(4, 6)}
    )
    model.load_state_dict(library.load_file(tmp_path / "x"))
    found = model["conv"](torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    found = model["dense"](found).detach().numpy()
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
