# SPDX-License-Identifier: Apache-2.0
"""Values for the cells of a remapped table that the checkpoint lacks.

A backup initializer is called as TensorFlow calls it: per partition, for a column of as many values
as cells are missing, then for the out-of-vocabulary block. Seeded values are then TensorFlow's. An
initializer that cannot be called so, since it has to know the real shape, is called once for the
whole partition, and each missing cell takes the value at its own place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tensorbundle.remap_pieces import PieceRemap

# What initializers raise when a shape is a tensor, or not the shape that they were made for.
_CANNOT = (TypeError, ValueError, NotImplementedError)


class Fills(NamedTuple):
    """What missing cells get.

    Attributes:
        layout: ``"zero"``: zeros, from no tensor. ``"cells"``: from a tensor with a value for each
            missing cell, in row-major order, and one that is the out-of-vocabulary block, where
            there is one. ``"full"``: from a tensor of the remap's shape, each from its own place.
        tensors: These.
    """

    layout: str
    tensors: tuple[Any, ...]


def fills(initializer: Any, piece: PieceRemap, dtype: Any, count: Callable[[], Any]) -> Fills:
    """Asks a backup initializer for a partition's missing cells.

    Args:
        initializer: None: zeros. A class is called without arguments first, as ``get_variable``
            does.
        piece: The partition.
        dtype: Its ``tf.DType``.
        count: Makes the scalar tensor that is the number of missing cells when it is evaluated.

    Raises:
        TypeError: It cannot be called, or makes values of another type.
        ValueError: It makes another shape; or what else the initializer raises.
    """
    if initializer is None:
        return Fills("zero", ())
    call = _callable(initializer)
    element = _constant_of(call)
    if element is not None:
        call = _filler(element, dtype)
    if piece.is_window:
        return in_place(_called(call, list(piece.shape), dtype), piece)
    try:
        cells = [_called(call, [count(), 1], dtype)]
        if piece.num_oov:
            cells.append(_called(call, list(piece.oov_shape), dtype))
    except _CANNOT:
        return in_place(_called(call, list(piece.shape), dtype), piece)
    return Fills("cells", tuple(cells))


def whole(initializer: Any, piece: PieceRemap, dtype: Any) -> Any:
    """All of a partition, where nothing of it comes from the table.

    Raises:
        TypeError: As for ``fills``.
    """
    import tensorflow as tf

    if initializer is None:
        return tf.zeros(piece.shape, dtype)
    return _called(_callable(initializer), list(piece.shape), dtype)


def in_place(value: Any, piece: PieceRemap) -> Fills:
    """Fills from a value for every cell of the partition.

    Raises:
        ValueError: It has another shape.
    """
    import tensorflow as tf

    if not value.shape.is_compatible_with(piece.shape):
        raise ValueError(
            f"the initial values have shape {value.shape}, the variable {list(piece.shape)}"
        )
    if piece.is_window:
        # The remap makes all columns; those that lie outside are cut off again.
        around = [
            [begin, extent - begin - size]
            for begin, extent, size in zip(piece.begin, piece.made, piece.shape, strict=True)
        ]
        value = tf.pad(value, around)
    return Fills("full", (value,))


def initial_value(variable: Any) -> Any:
    """What a variable would start from: in eager mode, what it is.

    Raises:
        ValueError: Nothing says what.
    """
    import tensorflow as tf

    if tf.executing_eagerly():
        return tf.identity(variable)
    value = getattr(variable, "_initial_value", None)
    if value is None and hasattr(variable, "values"):
        value = getattr(variable.values[0], "_initial_value", None)
    if value is None:
        raise ValueError(f"{variable.name} does not say what it starts from")
    return value


def may_be_seeded(initializer: Any) -> bool:
    """Whether a graph's values of an initializer may be random numbers from a seed."""
    import tensorflow as tf
    from tensorflow.python.ops import init_ops, init_ops_v2

    if initializer is None or tf.executing_eagerly():
        return False
    kind = initializer if inspect.isclass(initializer) else type(initializer)
    if issubclass(kind, (init_ops.Zeros, init_ops.Ones, init_ops.Constant)):
        return False
    if issubclass(kind, (init_ops_v2.Zeros, init_ops_v2.Ones, init_ops_v2.Constant)):
        return False
    seed = getattr(initializer, "seed", 0)
    return seed is not None or tf.compat.v1.get_default_graph().seed is not None


def _callable(initializer: Any) -> Any:
    if not callable(initializer):
        raise TypeError(
            f"initializer must be callable, instead of being {initializer} of type "
            f"{type(initializer)}."
        )
    return initializer() if inspect.isclass(initializer) else initializer


def _constant_of(initializer: Any) -> Any:
    """The number that a constant initializer gives every cell, or None.

    Asked for the real shape it would make a constant as large as the table, which TensorFlow then
    keeps beside it.
    """
    from tensorflow.python.ops import init_ops, init_ops_v2

    if not isinstance(initializer, (init_ops.Constant, init_ops_v2.Constant)):
        return None
    value = initializer.value
    return value if np.ndim(value) == 0 else None


def _filler(element: Any, dtype: Any) -> Callable[[Any], Any]:
    def fill(shape: Any) -> Any:
        import tensorflow as tf

        return tf.fill(shape, tf.cast(element, dtype))

    return fill


def _called(initializer: Any, shape: list[Any], dtype: Any) -> Any:
    """One call, by shape alone as TensorFlow calls it, but for dtypes that TensorFlow refuses."""
    import tensorflow as tf

    typed = dtype != tf.float32 and _takes_dtype(initializer)
    value = initializer(shape, dtype=dtype) if typed else initializer(shape)
    if not tf.is_tensor(value):
        return tf.convert_to_tensor(value, dtype=dtype)
    if value.dtype == dtype:
        return value
    if dtype != tf.float32 and value.dtype.is_floating and dtype.is_floating:
        return tf.cast(value, dtype)
    raise TypeError(
        f"the backup initializer made values of type {value.dtype.name} that does not match "
        f"expected type of {dtype.name}"
    )


def _takes_dtype(initializer: Any) -> bool:
    try:
        parameters = inspect.signature(initializer).parameters
    except (TypeError, ValueError):
        return False
    return "dtype" in parameters
