# SPDX-License-Identifier: Apache-2.0
"""Reads through our own reader, where the op library cannot be loaded.

Whatever TensorFlow takes over from NumPy it would copy once more at the first update. One row too
many, sliced off again, spares that: TensorFlow owns a slice, and does not own the array.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tensorbundle.checkpoint import Checkpoint
from tensorbundle.tf.errors import as_tensorflow_raises, invalid_argument, shape_mismatch
from tensorbundle.tf.source import ALIGNMENT
from tensorbundle.variables import Slice


class Request(NamedTuple):
    """A tensor, or a part of one, that is read when it is needed.

    Attributes:
        prefix: The checkpoint.
        tensor: The tensor's name.
        shape: The whole tensor's, when the graph was built.
        part: What is wanted of it; None for everything.
        dtype: TensorFlow's name of the type that is wanted.
        verify: ``"full"``, ``"lazy"`` or ``"none"``.
        threads: For the read.
    """

    prefix: bytes
    tensor: str
    shape: tuple[int, ...]
    part: Slice | None
    dtype: str
    verify: str
    threads: int | None

    @property
    def extent(self) -> tuple[int, ...]:
        """The shape of what is read."""
        return self.shape if self.part is None else self.part.extent

    @property
    def is_padded(self) -> bool:
        """Whether the array has one row too many."""
        return bool(self.extent) and self.dtype != "string"

    def read(self) -> np.ndarray[Any, Any]:
        """Reads it into a new array, with a row too many where it is padded.

        Raises:
            Error: As TensorFlow raises it; also where the tensor is not what was asked for.
        """
        verify = "none" if self.verify == "none" else "lazy"
        with (
            as_tensorflow_raises(),
            Checkpoint(self.prefix, verify=verify, io="pread", threads=self.threads) as checkpoint,
        ):
            handle = checkpoint[self.tensor]
            if handle.shape != self.shape:
                raise shape_mismatch(
                    f"tensor_name = {self.tensor}; shape in shape_and_slice spec {self.shape} does "
                    f"not match the shape stored in checkpoint: {handle.shape}"
                )
            if handle.stored_dtype != self.dtype:
                raise invalid_argument(
                    f"tensor_name = {self.tensor}; expected dtype {self.dtype} does not equal "
                    f"original dtype {handle.stored_dtype}"
                )
            box = self._box()
            if not self.is_padded:
                return np.asarray(handle.read(box))
            out = _aligned((self.extent[0] + 1, *self.extent[1:]), handle.dtype)
            handle.read(box, out=out[:-1])
            return out

    def verify_whole(self) -> bool:
        """Compares the checksums of the whole tensor.

        Raises:
            DataLossError: One of them is wrong.
        """
        with (
            as_tensorflow_raises(),
            Checkpoint(self.prefix, io="pread", threads=self.threads) as checkpoint,
        ):
            checkpoint.verify([self.tensor]).raise_for_damage()
        return True

    def _box(self) -> Any:
        if self.part is None:
            return ...
        return tuple(
            slice(a, a + n) for a, n in zip(self.part.offset, self.part.extent, strict=True)
        )


def as_graph_tensor(request: Request, dtype: Any, scope: str) -> Any:
    """A tensor that is read in this process whenever the graph computes it."""
    import tensorflow as tf

    value = tf.numpy_function(request.read, [], dtype, name="read")
    return _without_pad(value, request, scope)


def as_eager_tensor(request: Request, dtype: Any) -> Any:
    """A tensor that is read now, copied once from the file and never again."""
    import tensorflow as tf

    array = request.read()
    if dtype.is_quantized:
        plain = tf.as_dtype(array.dtype)
        value = tf.bitcast(tf.constant(array, plain), dtype)
    elif array.dtype.isbuiltin == 1 and array.dtype.kind in "iufc" and request.is_padded:
        value = tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    else:
        value = tf.constant(array, dtype)
    return _without_pad(value, request, None)


def verified_in_graph(request: Request) -> Any:
    """A tensor whose computation compares the whole tensor's checksums."""
    import tensorflow as tf

    return tf.numpy_function(
        request.verify_whole, [], tf.bool, name="checkpoint_initializer_verify"
    )


def _without_pad(value: Any, request: Request, scope: str | None) -> Any:
    import tensorflow as tf

    if not request.is_padded:
        value = tf.identity(value, name=scope)
        value.set_shape(request.extent)
        return value
    return tf.slice(value, [0] * len(request.extent), list(request.extent), name=scope)


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An uninitialised array whose bytes begin where TensorFlow wants them."""
    nbytes = math.prod(shape) * dtype.itemsize
    buffer = np.empty(nbytes + ALIGNMENT, np.uint8)
    skip = -buffer.ctypes.data % ALIGNMENT
    return buffer[skip : skip + nbytes].view(dtype).reshape(shape)
