# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the parts of PyTorch that `torch_tensors` uses, for tests without PyTorch.

It is strict: elements must be aligned and writable, which PyTorch requires but does not check.
"""

from __future__ import annotations

import types
from typing import Any

import ml_dtypes
import numpy as np

NAMES = (
    *("bool", "complex64", "complex128", "float16", "float32", "float64", "bfloat16"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    *("int2", "int4"),  # PyTorch has types of these names, which are not TensorFlow's
)


class Dtype:
    """A ``torch.dtype``."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def is_floating_point(self) -> bool:
        return "float" in self.name

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(getattr(ml_dtypes, self.name, None) or self.name)

    def __repr__(self) -> str:
        return f"torch.{self.name}"


class Device:
    """A ``torch.device``."""

    def __init__(self, name: Any) -> None:
        self.type = name.type if isinstance(name, Device) else str(name).partition(":")[0]


class Tensor:
    """A ``torch.Tensor`` over an array."""

    def __init__(self, array: np.ndarray, dtype: Dtype, device: Device) -> None:
        self._array, self.dtype, self.device = array, dtype, device

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    def data_ptr(self) -> int:
        return self._array.ctypes.data

    def numpy(self) -> np.ndarray:
        return self._array

    def view(self, dtype: Dtype) -> Tensor:
        return Tensor(self._array.view(dtype.numpy), dtype, self.device)

    def to(self, *, device: Device | None = None, dtype: Dtype | None = None) -> Tensor:
        device, dtype = device or self.device, dtype or self.dtype
        array = self._array
        if dtype is not self.dtype or device.type != self.device.type:
            array = array.astype(dtype.numpy)
        return Tensor(array, dtype, device)


def create(*absent: str) -> types.ModuleType:
    """Returns the module, without the types of some names."""
    module: Any = types.ModuleType("torch")
    module.__version__ = "0.0"
    module.dtype, module.device, module.Tensor = Dtype, Device, Tensor
    by_name = {name: Dtype(name) for name in NAMES if name not in absent}
    vars(module).update(by_name)

    def from_numpy(array: np.ndarray) -> Tensor:
        assert isinstance(array, np.ndarray)
        assert array.flags.writeable
        assert array.ctypes.data % array.itemsize == 0
        if any(stride < 0 for stride in array.strides):
            raise ValueError("a stride is negative")
        return Tensor(array, by_name[array.dtype.name], Device("cpu"))

    module.from_numpy = from_numpy
    return module
