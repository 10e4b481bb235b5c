# SPDX-License-Identifier: Apache-2.0
"""Export of tensors to other array libraries through DLPack."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorbundle import _core, dtypes
from tensorbundle.errors import IOFailure

Array = np.ndarray[Any, Any]

_CPU = (1, 0)
_ALIGNMENT = 64


def export(
    tensor: _core.Tensor,
    read: Callable[..., Any],
    stream: Any,
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> Any:
    """Implements ``Tensor.__dlpack__``. `read` is the ``Tensor.read`` of the same tensor."""
    if stream is not None:
        raise BufferError("a tensor in main memory has no stream")
    version = None if max_version is None else _check_pair("max_version", max_version)
    if dl_device is not None and _check_pair("dl_device", dl_device) != _CPU:
        raise BufferError(f"tensor {tensor.name!r} is in main memory, not on device {dl_device}")
    kind = dtypes.dlpack_type(tensor.dtype)
    if kind is None:
        raise BufferError(f"DLPack has no type for {dtypes.stored_name(tensor.type_number)}")
    versioned = version is not None and version[0] >= 1
    view = None if copy else _aligned_view(tensor)
    if view is None or not versioned:
        if copy is False:
            reason = (
                f"its stored bytes cannot be viewed at {_ALIGNMENT}-byte alignment"
                if view is None
                else "the consumer does not support read-only arrays"
            )
            raise BufferError(f"tensor {tensor.name!r} cannot be exported without a copy: {reason}")
        array, copied = _aligned_copy(tensor, read), True
    else:
        array, copied = view, False
    code, bits = kind
    return _core.dlpack_capsule(array, code, bits, versioned, copied)


def _check_pair(name: str, value: Any) -> tuple[int, int]:
    try:
        first, second = value
        return operator.index(first), operator.index(second)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise TypeError(f"{name} must be a pair of ints, not {kind}: {value!r:.50}") from None


def _aligned_view(tensor: _core.Tensor) -> Array | None:
    """Returns a read-only view with its own private mapping; None if it is not aligned.

    A consumer may ignore the read-only flag and write. Its writes do not reach other views.
    """
    view = tensor.view()
    if view is None or _core.address_of(view) % _ALIGNMENT:
        return None
    try:
        private = tensor.copy_on_write()
    except IOFailure:  # the system refuses such mappings
        return view
    assert private is not None
    private.flags.writeable = False
    return private


def _aligned_copy(tensor: _core.Tensor, read: Callable[..., Any]) -> Array:
    """Returns an owned copy that starts at a multiple of 64 bytes, which `np.empty` may not."""
    size = math.prod(tensor.shape)
    nbytes = size * tensor.dtype.itemsize
    tensor.check_box([0] * len(tensor.shape), tensor.shape)
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -_core.address_of(memory) % _ALIGNMENT
    array = memory[start : start + nbytes].view(tensor.dtype).reshape(tensor.shape)
    read(out=array)
    return array
