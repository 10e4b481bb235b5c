# SPDX-License-Identifier: Apache-2.0
"""``convert`` agrees with TensorFlow, and with transformers' converter of BERT checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")

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
