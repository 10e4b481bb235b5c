# SPDX-License-Identifier: Apache-2.0
"""Optimizer slots are recognized by the names that real checkpoints have."""

from __future__ import annotations

from pathlib import Path

import pytest

import tensorbundle as tb
from tensorbundle.slots import find_slots, is_slot

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
MODEL = {"dense/kernel", "emb", "global_step"}

TF1 = [
    "Adadelta", "Adadelta_1", "Adagrad", "AdagradDA", "AdagradDA_1", "Adam", "Adam_1", "AdamW",
    "AdaMax", "AdaMax_1", "Adafactor", "AMSGrad", "Ftrl", "Ftrl_1", "LARSOptimizer", "LazyAdam",
    "Momentum", "ProximalAdagrad", "RMSProp", "RMSProp_1", "RMSProp_2", "Yogi", "adam_m",
    "adam_v", "lamb_m",
]  # fmt: skip


@pytest.mark.parametrize("slot", TF1)
def test_slots_of_tf1_optimizers(slot: str) -> None:
    names = {*MODEL, f"dense/kernel/{slot}", f"train/emb/{slot}", f"emb/art_0/{slot}"}
    assert find_slots(names) == names - MODEL


@pytest.mark.parametrize("suffix", ["_slot_m", "_slot_v", "_slot_vc", "_slot_vr"])
def test_slots_of_mesh_tensorflow(suffix: str) -> None:
    assert find_slots({*MODEL, f"emb{suffix}"}) == {f"emb{suffix}"}


@pytest.mark.parametrize("name", ["beta1_power", "beta2_power_1", "train/beta1_power"])
def test_powers_of_adam(name: str) -> None:
    assert is_slot(name, {name})


@pytest.mark.parametrize(
    "name",
    ["dense/Adam/kernel", "other/Adam", "Adam", "dense/kernel/ExponentialMovingAverage",
     "global_step", "adam_m", "dense/kernel/m", "beta1", "encoder/m", "head/v/w", "kernel_slot_m"],
)  # fmt: skip
def test_other_names_are_not_slots(name: str) -> None:
    assert not is_slot(name, {*MODEL, name, "encoder", "head/w"})


@pytest.mark.parametrize(
    ("variables", "slots", "others"),
    [
        (  # Keras 2 until TensorFlow 2.10, and tf.train.Checkpoint
            ["model/w"],
            ["model/w/.OPTIMIZER_SLOT/optimizer/m", "model/w/.OPTIMIZER_SLOT/optimizer/v"],
            ["optimizer/iter", "optimizer/beta_1", "optimizer/decay", "save_counter"],
        ),
        (  # Keras 2 since TensorFlow 2.11
            ["model/layer_with_weights-0/kernel"],
            ["optimizer/_variables/1", "optimizer/_variables/12", "_variables/3"],
            ["optimizer/_iterations", "optimizer/_learning_rate", "_iterations"],
        ),
        (  # Keras 3, which stores the model's variables with the optimizer
            ["optimizer/_trainable_variables/0", "model/_variables/0", "_trainable_variables/1"],
            ["optimizer/_variables/2", "optimizer/_momentums/2", "opt/inner/_variables/3"],
            ["optimizer/_iterations", "opt/inner/_learning_rate"],
        ),
    ],
)
def test_slots_in_object_graphs(variables: list[str], slots: list[str], others: list[str]) -> None:
    names = [name + VALUE for name in [*variables, *slots, *others]]
    names += ["_CHECKPOINTABLE_OBJECT_GRAPH", "table/.ATTRIBUTES/table-keys"]
    assert find_slots(names) == {name + VALUE for name in slots}


@pytest.mark.parametrize(
    "slots",
    [
        ["Adam/dense/kernel/m", "Adam/dense/kernel/vhat"],
        ["training/Adam/emb/m"],
        ["Adam/m/dense/kernel", "SGD/momentum/emb", "RMSprop/average_gradient/emb"],
        ["adam/dense_kernel_momentum", "adam/emb_velocity_hat", "ftrl/dense_kernel_linear"],
    ],
)
def test_full_names_of_keras_slots(slots: list[str]) -> None:
    others = {*MODEL, "Adam/iter", "adam/learning_rate", "adam/iteration", "dense/momentum"}
    assert find_slots({*others, *slots}) == set(slots)


@pytest.mark.parametrize(
    ("folder", "count"),
    [("mnist_tf1", 18), ("optimizer_slots", 2), ("embedding_feature_column", 0)],
)
def test_real_checkpoints(checkpoints: Path, folder: str, count: int) -> None:
    (index,) = (checkpoints / folder).glob("*.index")
    with tb.open(index) as ck:
        assert len(find_slots(ck)) == count
