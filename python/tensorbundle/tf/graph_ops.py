# SPDX-License-Identifier: Apache-2.0
"""Fast creation of graph ops, without TensorFlow's generated wrappers.

A wrapper converts every input to a tensor and looks up every attribute, which takes two thirds of
the time of creating an op. The public `Graph.create_op` inspects its own signature at each call. If
there are many ops and their inputs are tensors already, this is most of the time that building an
initializer takes. The resulting ops are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def create_op(
    kind: str,
    inputs: Sequence[Any],
    dtypes: Sequence[Any],
    name: str,
    attributes: Mapping[str, Any] | None = None,
) -> Any:
    """Creates an op on the current device, under the current control dependencies.

    Requires graph mode.

    Args:
        kind: The op's type.
        inputs: Tensors.
        dtypes: The types of the outputs.
        name: Used as is if it ends in ``/``; otherwise made unique inside the current scope.
        attributes: Those that TensorFlow cannot infer from the inputs or the op definition.

    Returns:
        The ``tf.Operation``.
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
