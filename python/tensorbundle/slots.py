# SPDX-License-Identifier: Apache-2.0
"""Recognition of optimizer slots by their names.

A slot is a variable that an optimizer keeps for a variable of the model: a momentum, an
accumulator. Checkpoints name them in five ways, here for a variable ``dense/kernel``:

=================================  ================================================================
TF1 optimizers                     ``dense/kernel/Adam_1``, also in the scope of the training op:
                                   ``train/dense/kernel/Momentum``; BERT's ``dense/kernel/adam_m``
Powers of TF1's Adam               ``beta1_power``, ``train/beta2_power_1``
tf.train.Checkpoint, Keras <= 2.10 ``model/dense/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTR...``
Keras optimizers since 2.11        ``optimizer/_variables/7/.ATTRIBUTES/VARIABLE_VALUE``, beside
                                   ``optimizer/_iterations/...``
Full names of Keras optimizers     ``Adam/dense/kernel/m``, ``Adam/m/dense/kernel``,
                                   ``adam/dense_kernel_momentum``
=================================  ================================================================

The number of steps and the learning rate are not slots, and neither are moving averages of weights
(``ExponentialMovingAverage``). A name alone does not suffice: ``dense/kernel/Adam`` is a slot only
if the checkpoint has ``dense/kernel``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable

from tensorbundle.naming import VALUE_SUFFIX

# The slots of one variable, as the last component of a name. TensorFlow numbers the second and
# later slots of an optimizer. The names are those of tf.compat.v1.train, tf.contrib.opt, BERT,
# LAMB, and Mesh TensorFlow.
_LAST_COMPONENT = re.compile(
    r"(?:(?:Adadelta|Adagrad|AdagradDA|Adam|AdaMax|AdamAsync|AdamW|AdamWeightDecay\w*|Adafactor|"
    r"AddSign|AMSGrad|Ftrl|GGT|LARS\w*|LAMB\w*|LazyAdam\w*|Momentum|MomentumW|NadamW?|Nadam|"
    r"PowerSign|ProximalAdagrad|RMSProp|RMSprop|ShampooW?|Shampoo|Yogi)(?:_\d+)?"
    r"|(?:adam|lamb)_[mv](?:_\d+)?)"
)
# Mesh TensorFlow joins the name of the slot with an underscore.
_LAST_SUFFIX = re.compile(r"_slot_(?:m|v|vc|vr)\Z")
_POWER = re.compile(r"(?:.*/)?beta[12]_power(?:_\d+)?")
# The slots of Keras' optimizers, as a component of a full name.
_KERAS_SLOTS = frozenset(
    {
        "m",
        "v",
        "vhat",
        "momentum",
        "velocity",
        "velocity_hat",
        "accumulator",
        "accumulators",
        "rms",
        "mg",
        "accum_grad",
        "accum_var",
        "accumulated_grad",
        "accumulated_delta_var",
        "accumulated_delta",
        "linear",
        "average_gradient",
        "velocity_sqr",
        "u",
        "norm",
        "exp_avg",
        "exp_avg_sq",
    }
)
_LIST_ELEMENT = re.compile(r"(?:(.*)/)?_(\w+)/\d+" + re.escape(VALUE_SUFFIX))
_LISTS_OF_THE_MODEL = ("trainable_variables", "non_trainable_variables")
_KERAS_SCALARS = ("_iterations", "_learning_rate")


def is_slot(name: str, names: Collection[str]) -> bool:
    """Returns whether a tensor is the slot of an optimizer.

    Args:
        name: The key, or a full name.
        names: All keys, or all full names, of the checkpoint. A set makes the call fast.
    """
    return _Names(names).has_slot(name)


def find_slots(names: Iterable[str]) -> set[str]:
    """Returns the names that are slots, from all keys or all full names of a checkpoint."""
    known = _Names(frozenset(names))
    return {name for name in known.names if known.has_slot(name)}


class _Names:
    """The names of one checkpoint."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = names

    @functools.cached_property
    def _joined(self) -> set[str]:
        """The names as Keras 3 writes them in the name of a slot."""
        return {name.replace("/", "_") for name in self.names}

    def has_slot(self, name: str) -> bool:
        """Returns whether a name is that of a slot."""
        if name.endswith(VALUE_SUFFIX):
            return "/.OPTIMIZER_SLOT/" in name or self._is_list_element(name)
        if _POWER.fullmatch(name):
            return True
        scope, _, last = name.rpartition("/")
        if scope and _LAST_COMPONENT.fullmatch(last):
            return self._has_variable(scope) or self._is_below_variable(scope)
        stem = _LAST_SUFFIX.sub("", name)
        if stem != name:
            return self._has_variable(stem)
        return self._is_keras_full_name(name.split("/"))

    def _is_list_element(self, key: str) -> bool:
        """Returns whether a key is an element of a list of an object that counts iterations.

        Keras 3 also stores the model's variables there, as ``optimizer/_trainable_variables/0``.
        """
        found = _LIST_ELEMENT.fullmatch(key)
        if found is None or found[2] in _LISTS_OF_THE_MODEL:
            return False
        owner = f"{found[1]}/" if found[1] else ""
        return any(f"{owner}{scalar}{VALUE_SUFFIX}" in self.names for scalar in _KERAS_SCALARS)

    def _has_variable(self, name: str) -> bool:
        """Returns whether the variable of a slot exists, perhaps without the first scopes.

        A slot of ``dense/kernel`` that was created in a scope is ``train/dense/kernel/Adam``.
        """
        while name not in self.names:
            _, found, name = name.partition("/")
            if not found:
                return False
        return True

    def _is_below_variable(self, scope: str) -> bool:
        """Returns whether the name of a variable is the beginning of a scope.

        TensorFlow cuts the names of a partitioned variable's slots at the wrong place if they were
        created in a scope: those of ``emb`` are ``emb/art_0/Adam`` and the like.
        """
        while scope:
            scope = scope.rpartition("/")[0]
            if scope in self.names:
                return True
        return False

    def _is_keras_full_name(self, parts: list[str]) -> bool:
        if len(parts) < 2:
            return False
        if len(parts) > 2 and parts[-1] in _KERAS_SLOTS:
            return self._has_variable("/".join(parts[1:-1]))
        for position, part in enumerate(parts[1:-1], 1):
            if part in _KERAS_SLOTS and "/".join(parts[position + 1 :]) in self.names:
                return True
        return any(
            parts[-1].endswith(f"_{slot}") and parts[-1][: -len(slot) - 1] in self._joined
            for slot in _KERAS_SLOTS
        )
