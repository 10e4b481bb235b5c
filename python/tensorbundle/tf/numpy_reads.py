# SPDX-License-Identifier: Apache-2.0
"""Reads by our reader in this process, if the op library cannot be loaded.

TensorFlow would copy an array of NumPy at the first update, because it does not own it. So arrays
have one extra row, which is sliced off: TensorFlow owns a slice.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tensorbundle.checkpoint import Checkpoint
from tensorbundle.tf.checkpoint_index import ALIGNMENT
from tensorbundle.tf.errors import as_tensorflow_raises, invalid_argument, shape_mismatch
from tensorbundle.variables import Slice


class NumpyReadRequest(NamedTuple):
    """A box of a tensor, to be read when the graph runs, or now in eager mode.

    Attributes:
        prefix: The checkpoint.
        tensor: The tensor's name.
        shape: The whole tensor's shape when the graph was built.
        partition: The part to read; None for the whole tensor.
        dtype: TensorFlow's name of the expected type.
        verify: ``"full"``, ``"lazy"`` or ``"none"``.
        threads: The number of threads.
    """

    prefix: bytes
    tensor: str
    shape: tuple[int, ...]
    partition: Slice | None
    dtype: str
    verify: str
    threads: int | None

    @property
    def extent(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.shape if self.partition is None else self.partition.shape

    @property
    def is_padded(self) -> bool:
        """Whether the array has an extra row."""
        return bool(self.extent) and self.dtype != "string"

    def read(self) -> np.ndarray[Any, Any]:
        """Reads the box into a new array, with an extra row if ``is_padded``.

        Raises:
            Error: As TensorFlow raises it; also if the tensor has another shape or type.
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
            DataLossError: A checksum differs.
        """
        with (
            as_tensorflow_raises(),
            Checkpoint(self.prefix, io="pread", threads=self.threads) as checkpoint,
        ):
            checkpoint.verify([self.tensor]).raise_for_damage()
        return True

    def _box(self) -> Any:
        if self.partition is None:
            return ...
        return tuple(
            slice(a, a + n)
            for a, n in zip(self.partition.offset, self.partition.shape, strict=True)
        )


def as_graph_tensor(request: NumpyReadRequest, dtype: Any, scope: str) -> Any:
    """Returns a tensor that is read in this process each time the graph computes it."""
    import tensorflow as tf

    value = tf.numpy_function(request.read, [], dtype, name="read")
    return _without_pad(value, request, scope)


def as_eager_tensor(request: NumpyReadRequest, dtype: Any) -> Any:
    """Returns a tensor that is read now, with a single copy from the file."""
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


def verified_in_graph(request: NumpyReadRequest) -> Any:
    """Returns a scalar whose computation compares the whole tensor's checksums."""
    import tensorflow as tf

    return tf.numpy_function(
        request.verify_whole, [], tf.bool, name="checkpoint_initializer_verify"
    )


def _without_pad(value: Any, request: NumpyReadRequest, scope: str | None) -> Any:
    import tensorflow as tf

    if not request.is_padded:
        value = tf.identity(value, name=scope)
        value.set_shape(request.extent)
        return value
    return tf.slice(value, [0] * len(request.extent), list(request.extent), name=scope)


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Returns an uninitialized array with the alignment that TensorFlow requires."""
    nbytes = math.prod(shape) * dtype.itemsize
    buffer = np.empty(nbytes + ALIGNMENT, np.uint8)
    skip = -buffer.ctypes.data % ALIGNMENT
    return buffer[skip : skip + nbytes].view(dtype).reshape(shape)
