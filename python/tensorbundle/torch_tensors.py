# SPDX-License-Identifier: Apache-2.0
"""PyTorch's tensors: ``Tensor.torch`` and ``Checkpoint.state_dict``.

The only module that imports torch, and only in calls.

PyTorch uses every tensor as writable memory, and requires elements at multiples of their size: its
kernels are compiled for that, although ``torch.from_numpy`` does not check it. So the memory of a
tensor is, in this order,

========  ==========================================================================================
mapping   a private mapping of its own, if the stored bytes are the elements and are so aligned
copy      an owned array, read and compared with its checksum; also if the elements are converted to
          another type or copied to another device, because then all of them are read
========  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, cast

import numpy as np

from tensorbundle import _core
from tensorbundle.errors import IOFailure
from tensorbundle.renaming import Names, Rename, Renaming

if TYPE_CHECKING:
    import torch

    TorchDevice: TypeAlias = torch.device | str | int
    TorchDtype: TypeAlias = torch.dtype
    TorchTensor: TypeAlias = torch.Tensor

Array = np.ndarray[Any, Any]

# The types of PyTorch by TensorFlow's names, which are PyTorch's names too, and the type as which
# NumPy passes the elements, where it is another one.
_NUMPY_TYPES = (
    *("bool", "complex64", "complex128", "float16", "float32", "float64"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
_TYPES: dict[str, type[np.generic] | None] = {
    **dict.fromkeys(_NUMPY_TYPES),
    "bfloat16": np.int16,
    "float8_e4m3fn": np.uint8,
    "float8_e4m3fnuz": np.uint8,
    "float8_e5m2": np.uint8,
    "float8_e5m2fnuz": np.uint8,
}
# Types for the elements of a type that PyTorch, or an old version of it, does not have. All but
# int64 for uint64, which keeps the bits, have all values; the others are floating-point types.
_WIDER = {
    "int2": "int8",
    "int4": "int8",
    "uint2": "uint8",
    "uint4": "uint8",
    "uint16": "int32",
    "uint32": "int64",
    "uint64": "int64",
}
# Devices on which a mapping of a file can be used.
_ON_HOST = ("cpu", "meta")
# Linux allows a process 65,530 mappings by default, some of which are those of new memory.
_MAX_MAPPINGS = 16_384


class _Handle(Protocol):
    """The parts of a ``Tensor`` that this module uses."""

    name: str
    dtype: np.dtype[Any]

    @property
    def stored_dtype(self) -> str: ...
    def read(self, index: Any = ..., /) -> Any: ...
    def _map_privately(self, index: Any) -> Array | None: ...


class _Owner(Protocol):
    """The parts of a ``Checkpoint`` that this module uses."""

    @property
    def full_names(self) -> Mapping[str, str]: ...
    def __iter__(self) -> Iterator[str]: ...
    def _require(self, name: str, /) -> object: ...
    def _read_all(self, tensors: list[_core.Tensor], /) -> list[Any]: ...


def to_torch(tensor: _Handle, index: Any, dtype: Any, device: Any) -> TorchTensor:
    """Implements ``Tensor.torch``."""
    torch = _import_torch("Tensor.torch")
    stored = _Type.of(tensor, torch)
    wanted = stored.torch if dtype is None else _check_dtype(dtype, torch)
    place = torch.device("cpu" if device is None else device)
    array = None
    if wanted == stored.torch and place.type in _ON_HOST:
        array = _map(tensor, index)
    if array is None:
        array = np.asarray(tensor.read(index))
    result = stored.over(array, torch)
    if dtype is not None or device is not None:
        result = result.to(device=place, dtype=wanted)
    return cast("TorchTensor", result)


class _Wanted(NamedTuple):
    """A tensor of a state dict."""

    name: str
    tensor: Any
    type: _Type


def state_dict(
    checkpoint: _Owner,
    tensors: Sequence[tuple[str, _Handle]],
    rename: Rename | None,
    dtype: Any,
) -> dict[str, TorchTensor]:
    """Implements ``Checkpoint.state_dict`` for tensors with the names that they have so far."""
    torch = _import_torch("Checkpoint.state_dict")
    if dtype is not None and not _check_dtype(dtype, torch).is_floating_point:
        raise TypeError(
            f"dtype must be a floating-point type, not {dtype}: other tensors are not converted"
        )
    names = [name for name, _ in tensors]
    if rename is not None:
        names = _new_names(checkpoint, tensors, Renaming(rename))
    result: dict[str, Any] = dict.fromkeys(names)
    as_stored: list[_Wanted] = []
    converted: list[_Wanted] = []
    for name, (_, tensor) in zip(names, tensors, strict=True):
        kind = _Type.of(tensor, torch)
        is_converted = dtype not in (None, kind.torch) and kind.torch.is_floating_point
        (converted if is_converted else as_stored).append(_Wanted(name, tensor, kind))
    as_stored.sort(key=lambda each: each.tensor.nbytes, reverse=True)
    to_read = as_stored[_MAX_MAPPINGS:]
    for each in as_stored[:_MAX_MAPPINGS]:
        array = _map(each.tensor, ...)
        if array is None:
            to_read.append(each)
        else:
            result[each.name] = each.type.over(array, torch)
    values = checkpoint._read_all([each.tensor._core for each in to_read])
    for each, value in zip(to_read, values, strict=True):
        result[each.name] = each.type.over(np.asarray(value), torch)
    for each in converted:  # one by one, so that not all are in memory twice
        copy = each.type.over(np.asarray(each.tensor.read()), torch)
        result[each.name] = copy.to(dtype=dtype)
    return result


def _new_names(
    checkpoint: _Owner, tensors: Sequence[tuple[str, _Handle]], renaming: Renaming
) -> list[str]:
    """Returns the new names of tensors.

    Raises:
        TensorNotFoundError: The mapping has a name that no tensor of the checkpoint has.
        ValueError: Two tensors would have the same name.
    """
    full_names = checkpoint.full_names
    old_names: dict[str, str] = {}
    for old, tensor in tensors:
        new = renaming.new_name(Names.of(tensor.name, full_names.get(tensor.name)), old)
        if new in old_names:
            raise ValueError(f"two tensors would be named {new!r}: {old_names[new]!r} and {old!r}")
        old_names[new] = old
    if renaming.absent:
        known = {name for key in checkpoint for name in Names.of(key, full_names.get(key)).all}
        for name in renaming.absent:
            if name not in known:
                checkpoint._require(name)
    return list(old_names)


class _Type(NamedTuple):
    """A type of both libraries.

    Attributes:
        torch: PyTorch's type.
        carrier: The type as which NumPy passes the elements; None: their own.
    """

    torch: Any
    carrier: type[np.generic] | None

    @classmethod
    def of(cls, tensor: _Handle, torch: Any) -> _Type:
        """Returns the type of a tensor.

        Raises:
            TypeError: PyTorch has no such type.
        """
        stored = tensor.stored_dtype
        if tensor.dtype == object:
            cure = ": read it with t.read()" if stored in ("string", "variant") else ""
            raise TypeError(
                f"PyTorch has no tensors of the type {stored}, which tensor {tensor.name!r} has"
                + cure
            )
        # Quantized types are plain integers, as TensorFlow's own reader returns them.
        name = stored.removeprefix("q") if stored.startswith(("qint", "quint")) else stored
        found = getattr(torch, name, None) if name in _TYPES else None
        if found is None:
            wider = _WIDER.get(name, "float32")
            raise TypeError(
                f"PyTorch {torch.__version__} has no type {stored}, which tensor {tensor.name!r} "
                f"has: convert it with NumPy, as torch.as_tensor(t.read().astype({wider!r}))"
            )
        return cls(found, _TYPES[name])

    def over(self, array: Array, torch: Any) -> Any:
        """Returns a tensor over a writable array, which it keeps."""
        if self.carrier is None:
            return torch.from_numpy(array)
        return torch.from_numpy(array.view(self.carrier)).view(self.torch)


def _map(tensor: _Handle, index: Any) -> Array | None:
    """Returns elements in a private mapping; None if PyTorch cannot use them, or it fails."""
    try:
        array = tensor._map_privately(index)
    except IOFailure:  # the system refuses such mappings; if the file is the cause, a read raises
        return None
    if array is None or _core.address_of(array) % array.itemsize:
        return None
    return None if min(array.strides, default=0) < 0 else array


def _check_dtype(dtype: Any, torch: Any) -> Any:
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a torch.dtype, not {type(dtype).__name__}: {dtype!r:.50}")
    return dtype


def _import_torch(caller: str) -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":  # a package that PyTorch needs
            raise
        raise ImportError(
            f"{caller} needs torch (PyTorch): pip install 'tensorbundle[torch]'", name="torch"
        ) from None
    return torch
