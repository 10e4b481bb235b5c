# SPDX-License-Identifier: Apache-2.0
"""Arrays that callers give to be filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorbundle.errors import ShapeMismatchError

if TYPE_CHECKING:
    from tensorbundle.tensor import Tensor


def check_out(tensor: Tensor, out: np.ndarray[Any, Any], shape: tuple[int, ...]) -> None:
    """Makes sure that `out` can take elements of a tensor, before anything is read.

    Raises:
        ShapeMismatchError: It has another shape.
        TypeError: It is no array, or has another dtype than the tensor.
        ValueError: It is read-only.
    """
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy.ndarray, not {type(out).__name__}")
    if out.shape != shape:
        raise ShapeMismatchError(
            f"out has shape {out.shape}, but what is read of tensor {tensor.name!r} has {shape}"
        )
    if out.dtype != tensor.dtype:
        raise TypeError(f"out has dtype {out.dtype}, tensor {tensor.name!r} has {tensor.dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
