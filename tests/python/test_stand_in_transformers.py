# SPDX-License-Identifier: Apache-2.0
"""transformers' own loader of BERT's checkpoints works with the stand-in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from craft.bundle import Bundle

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", exc_type=ImportError)
bert = pytest.importorskip("transformers.models.bert.modeling_bert", exc_type=ImportError)
if not hasattr(bert, "load_tf_weights_in_bert"):
    pytest.skip("this transformers does not load TensorFlow's checkpoints", allow_module_level=True)

CONFIG = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
}
SCRIPT = """
import sys
import torch
from transformers.models.bert.modeling_bert import load_tf_weights_in_bert
from transformers import BertConfig, BertForPreTraining

config = BertConfig(**eval(sys.argv[1]))
model = BertForPreTraining(config)
load_tf_weights_in_bert(model, config, sys.argv[2])
torch.save(model.state_dict(), sys.argv[3])
"""
RUN = """
import sys
from tensorbundle.stand_in import run_script
sys.exit(run_script(sys.argv[1], sys.argv[2:]))
"""


def original_name(name: str) -> str:
    """Returns the name in TensorFlow's checkpoints of a BERT."""
    name = name.replace("layer.", "layer_").replace("LayerNorm.weight", "LayerNorm.gamma")
    name = name.replace("LayerNorm.bias", "LayerNorm.beta")
    name = re.sub(r"_embeddings\.weight$", "_embeddings", name)
    name = re.sub(
        r"(cls\.predictions|cls\.seq_relationship)\.(bias|weight)$", r"\1.output_\2", name
    )
    name = name.replace("output_weight", "output_weights")
    return re.sub(r"weight$", "kernel", name).replace(".", "/")


def test_weights_are_loaded(tmp_path: Path) -> None:
    model = transformers.BertForPreTraining(transformers.BertConfig(**CONFIG))
    bundle = Bundle()
    for key, value in model.state_dict().items():
        name = original_name(key)
        if "decoder" not in name:  # shares its values
            array = value.numpy()
            bundle.add(name, array.T.copy() if name.endswith("kernel") else array)
            bundle.add(f"{name}/adam_m", array * 0)
    bundle.write(tmp_path / "bert_model.ckpt")
    script = tmp_path / "convert.py"
    script.write_text(SCRIPT)
    words = [str(CONFIG), tmp_path / "bert_model.ckpt", tmp_path / "bert.bin"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, script, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = torch.load(tmp_path / "bert.bin")
    expected = model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
