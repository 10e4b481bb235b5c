# SPDX-License-Identifier: Apache-2.0
"""Nodes of the graph that is being built, without the detour over TensorFlow's wrappers.

A wrapper turns anything into tensors and looks every attribute up, which takes two thirds of the
time that a node costs; `Graph.create_op`, which is public, reads its own signature each time. Where
many nodes are made, and their inputs are tensors already, that is most of what building an
initializer costs. The nodes are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def make(
    kind: str,
    inputs: Sequence[Any],
    dtypes: Sequence[Any],
    name: str,
    attributes: Mapping[str, Any] | None = None,
) -> Any:
    """Makes a node on the current device, under the current control dependencies.

    Not in eager mode.

    Args:
        kind: The op's type.
        inputs: Tensors.
        dtypes: Of the outputs.
        name: As it is where it ends in ``/``; otherwise inside the current scope, and made unique.
        attributes: Those that neither the inputs tell nor the op's definition.

    Returns:
        The node, a ``tf.Operation``.
    """
    import tensorflow as tf

    graph = tf.compat.v1.get_default_graph()
    encoded = {key: _encoded(value) for key, value in (attributes or {}).items()}
    return graph._create_op_internal(kind, inputs, dtypes, name=name, attrs=encoded)


def _encoded(value: Any) -> Any:
    import tensorflow as tf

    encoded = tf.compat.v1.AttrValue()
    if isinstance(value, tf.DType):
        encoded.type = value.as_datatype_enum
    elif isinstance(value, list):
        encoded.list.s.extend(value)
    elif isinstance(value, int):
        encoded.i = value
    else:
        encoded.s = value if isinstance(value, bytes) else value.encode()
    return encoded
