# SPDX-License-Identifier: Apache-2.0
"""Tensors for other array libraries, through DLPack."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorbundle import _core, dtypes
from tensorbundle.errors import IOFailure

if TYPE_CHECKING:
    from tensorbundle.tensor import Array, Tensor

_CPU = (1, 0)
_ALIGNMENT = 64


def export(
    tensor: Tensor,
    stream: Any,
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> Any:
    """Makes the capsule that ``Tensor.__dlpack__`` documents."""
    if stream is not None:
        raise BufferError("a tensor in main memory has no stream")
    version = None if max_version is None else _pair("max_version", max_version)
    if dl_device is not None and _pair("dl_device", dl_device) != _CPU:
        raise BufferError(f"tensor {tensor.name!r} is in main memory, not on device {dl_device}")
    kind = dtypes.dlpack_type(tensor.dtype)
    if kind is None:
        raise BufferError(f"DLPack has no type for {tensor.stored_dtype}")
    versioned = version is not None and version[0] >= 1
    view = None if copy else _aligned_view(tensor)
    if view is None or not versioned:
        if copy is False:
            why = "its stored bytes" if view is None else "a read-only array"
            raise BufferError(f"tensor {tensor.name!r} needs a copy: {why} cannot be handed over")
        array, copied = _aligned_copy(tensor), True
    else:
        array, copied = view, False
    code, bits = kind
    return _core.dlpack_capsule(array, code=code, bits=bits, versioned=versioned, copied=copied)


def _pair(name: str, value: Any) -> tuple[int, int]:
    try:
        first, second = value
        return operator.index(first), operator.index(second)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise TypeError(f"{name} must be a pair of ints, not {kind}: {value!r:.50}") from None


def _aligned_view(tensor: Tensor) -> Array | None:
    """The tensor in a private mapping of its own, read-only to those who look; None if unaligned.

    Consumers write to what they get, whatever its flag says. They reach no other view then.
    """
    view = tensor._view()
    if isinstance(view, str) or view.__array_interface__["data"][0] % _ALIGNMENT:
        return None
    try:
        own = tensor._core.copy_on_write(tensor._index, tensor.dtype)
    except IOFailure:  # the system refuses such mappings
        return view
    assert isinstance(own, np.ndarray)
    own.flags.writeable = False
    return own


def _aligned_copy(tensor: Tensor) -> Array:
    """An owned copy that starts at a multiple of 64 bytes, which NumPy's own memory need not."""
    nbytes = tensor.size * tensor.dtype.itemsize
    tensor._core.require_box(tensor._index, [0] * tensor.ndim, tensor.shape)
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % _ALIGNMENT
    array = memory[start : start + nbytes].view(tensor.dtype).reshape(tensor.shape)
    tensor.read(out=array)
    return array
