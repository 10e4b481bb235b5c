# SPDX-License-Identifier: Apache-2.0
"""Tensors that read the values of one tensor's variables from the checkpoint.

Each variable uses the first backend that is available for it: our op; without the op library, our
reader in a NumPy function (graph) or directly (eager), in this process only; or TensorFlow's own
op. With every backend, corruption is detected before any of the values is available.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tensorbundle import assignment
from tensorbundle.load_plan import type_text
from tensorbundle.tf import backend, numpy_reads, op_reads
from tensorbundle.tf.checkpoint_index import AnySource, key_of
from tensorbundle.tf.options import Options
from tensorbundle.variables import Slice, Variable

_NAME = "checkpoint_initializer"


@contextlib.contextmanager
def on_cpu_of(variable: Any) -> Iterator[None]:
    """Places ops on the CPU of a variable's task."""
    import tensorflow as tf

    # Two scopes: fields that the variable's device does not set come from the caller's scope.
    with tf.compat.v1.device(variable.device), tf.compat.v1.device("/cpu:0"):
        yield


class ReadRequest(NamedTuple):
    """What to read for one variable, and how.

    Attributes:
        source: The checkpoint.
        tensor: The tensor's name in it.
        shape: The tensor's shape.
        dtype: Its ``tf.DType``.
        variable: The TensorFlow variable.
        partition: The part of the tensor for a partition; None for the whole tensor.
        fixed: Whether the variable's shape is known.
        backend: ``"op"``, ``"numpy"`` or ``"stock"``.
        mapped: Whether the value is a mapping.
        verify: ``"full"``, ``"lazy"`` or ``"none"``.
        threads: The number of threads per read.
    """

    source: AnySource
    tensor: str
    shape: tuple[int, ...]
    dtype: Any
    variable: Any
    partition: Slice | None
    fixed: bool
    backend: str
    mapped: bool
    verify: str
    threads: int | None

    @property
    def extent(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.shape if self.partition is None else self.partition.shape

    @property
    def is_empty_slice(self) -> bool:
        """Whether a partition is empty. TensorFlow's slice format cannot express that."""
        return self.partition is not None and math.prod(self.extent) == 0


def plan_read(
    source: AnySource,
    planned: assignment.Assignment,
    variable: Variable,
    partition: Slice | None,
    options: Options,
) -> ReadRequest:
    """Plans how a variable is read.

    Raises:
        ValueError: ``mode="map"``, and the value cannot be mapped.
    """
    import tensorflow as tf

    tensor = planned.tensor
    extent = planned.shape if partition is None else partition.shape
    dtype = variable.handle.dtype.base_dtype
    is_cast = planned.dtype is not None and planned.dtype != dtype.as_datatype_enum
    mapped = False
    if options.mode != "copy" and not source.is_always_copied(tensor, extent):
        reason = backend.op_unsupported_reason(variable.handle, options)
        if reason is None and is_cast:
            reason = f"cast=True converts it to {type_text(variable.dtype)}, into memory of its own"
        reason = reason or source.unmappable_reason(tensor, partition)
        if reason is not None and options.mode == "map":
            raise ValueError(
                f"tensor {tensor!r} cannot be mapped into variable {variable.name!r}: {reason}. "
                "mode='auto' maps what can be mapped and copies the rest"
            )
        mapped = reason is None
    static = variable.shape
    return ReadRequest(
        source=source,
        tensor=tensor,
        shape=planned.shape,
        dtype=tf.as_dtype(planned.dtype) if is_cast else dtype,
        variable=variable.handle,
        partition=partition,
        fixed=partition is not None or mapped or (static is not None and None not in static),
        backend="stock" if source.is_remote else backend.backend_for(variable.handle, options),
        mapped=mapped,
        verify=options.verification(mapped=mapped),
        threads=options.threads,
    )


def build_read_ops(requests: Sequence[ReadRequest]) -> list[Any]:
    """Returns the tensors for the reads of one tensor, in order, in the variables' types.

    With ``verify="full"`` the checksums of every stored slice that one of the reads meets are
    compared before any of the values is available.
    """
    return [_cast(request, value) for request, value in zip(requests, _read(requests), strict=True)]


def _cast(request: ReadRequest, value: Any) -> Any:
    """Converts a value to its variable's type."""
    import tensorflow as tf

    wanted = request.variable.dtype.base_dtype
    if request.dtype == wanted:
        return value
    with on_cpu_of(request.variable):
        return tf.cast(value, wanted, name=f"{_NAME}_cast")


def _read(requests: Sequence[ReadRequest]) -> list[Any]:
    """Returns the values in the tensor's type."""
    backends = {request.backend for request in requests}
    if backends == {"numpy"}:
        return _by_numpy(requests)
    alike = len({(request.mapped, request.verify) for request in requests}) == 1
    if backends == {"op"} and alike and requests[0].mapped:
        return _map(requests)
    if backends == {"op"} and alike and len(requests) > 1 and _are_distinct(requests):
        return _read_together(requests)
    return [_read_one(request) for request in requests]


def verified(source: AnySource, tensor: str, dtype: Any, parts: Sequence[Any], near: Any) -> Any:
    """Returns a scalar for control dependencies, which fails if a checksum of the tensor differs.

    Args:
        source: The checkpoint.
        tensor: The tensor's name in it.
        dtype: Its ``tf.DType``.
        parts: The partial checksums from reads by our op. This op reads the bytes that they do not
            cover.
        near: The variable on whose CPU the op runs.
    """
    with on_cpu_of(near):
        return op_reads.verified(library_in_use(), source.prefix, tensor, dtype, parts)


def library_in_use() -> Any:
    """Returns the op library. Requires that ``backend`` selected the op."""
    from tensorbundle.tf import op_library

    return op_library.load()


def _read_one(request: ReadRequest) -> Any:
    """Returns one value, whose op compares the checksums."""
    import tensorflow as tf

    if request.mapped:
        return _map([request])[0]
    with on_cpu_of(request.variable):
        if request.is_empty_slice:
            return tf.zeros(request.extent, request.dtype, name=_NAME)
        if request.backend == "stock":
            return _by_stock_op(request)
        if request.backend == "numpy":
            return _by_numpy([request])[0]
        with tf.name_scope(_NAME) as scope:
            value, _ = _by_op(request, request.verify, scope)
            return value


def _by_op(request: ReadRequest, verify: str, name: str) -> tuple[Any, Any]:
    """Returns a value and its partial checksums, on the current device."""
    read = _op_read(request, verify)
    return op_reads.value_and_parts(library_in_use(), read, request.dtype, name)


def _by_stock_op(request: ReadRequest) -> Any:
    import tensorflow as tf

    return tf.raw_ops.RestoreV2(
        prefix=request.source.prefix,
        tensor_names=[key_of(request.tensor)],
        shape_and_slices=["" if request.partition is None else request.partition.spec],
        dtypes=[request.dtype],
        name=_NAME,
    )[0]


def _map(requests: Sequence[ReadRequest]) -> list[Any]:
    """Returns mappings, from one op per task. If a slice is corrupt, none of them is available."""
    import tensorflow as tf

    scopes = []
    for _ in requests:
        with tf.name_scope(_NAME) as scope:
            scopes.append(scope)
    tasks: dict[Any, list[int]] = {}
    for i, request in enumerate(requests):
        tasks.setdefault((request.variable.device, request.dtype), []).append(i)
    first = requests[0]
    # A single op compares all slices before it outputs a value. Several ops need a verification op
    # that runs before all of them. Mapping reads nothing, so there are no partial checksums.
    full = first.verify == "full"
    apart = full and len(tasks) > 1
    verify = "full" if full and not apart else "none"
    names = [f"{scope}piece/" for scope in scopes] if apart else scopes
    found: list[Any] = [None] * len(requests)
    for indices in tasks.values():
        reads = [_op_read(requests[i], verify) for i in indices]
        near = requests[indices[0]]
        with on_cpu_of(near.variable):
            mapped = op_reads.mapped(
                library_in_use(), reads, near.dtype, [names[i] for i in indices]
            )
        for i, value in zip(indices, mapped, strict=True):
            found[i] = value
    if not apart:
        return found
    ok = verified(first.source, first.tensor, first.dtype, [], first.variable)
    return _after(ok, requests, found, scopes)


def _read_together(requests: Sequence[ReadRequest]) -> list[Any]:
    """Returns copies. If a slice is corrupt, none of them is available."""
    import tensorflow as tf

    first = requests[0]
    if first.verify != "full":
        return [_read_one(request) for request in requests]
    values: list[Any] = []
    parts: list[Any] = []
    scopes: list[str | None] = []
    for request in requests:
        if request.is_empty_slice:
            values.append(_read_one(request))
            scopes.append(None)
            continue
        with on_cpu_of(request.variable), tf.name_scope(_NAME) as scope:
            value, part = _by_op(request, "parts", "piece")
        values.append(value)
        scopes.append(scope)
        parts.append(part)
    ok = verified(first.source, first.tensor, first.dtype, parts, first.variable)
    return _after(ok, requests, values, scopes)


def _after(
    ok: Any, requests: Sequence[ReadRequest], values: Sequence[Any], scopes: Sequence[str | None]
) -> list[Any]:
    """Returns values that depend on the verification `ok`; in eager mode it has run already."""
    import tensorflow as tf

    if tf.executing_eagerly():
        return list(values)
    gated = []
    for request, value, scope in zip(requests, values, scopes, strict=True):
        with on_cpu_of(request.variable), tf.control_dependencies([ok]):
            gated.append(tf.identity(value, name=scope or _NAME))
    return gated


def _by_numpy(requests: Sequence[ReadRequest]) -> list[Any]:
    """Returns values by our reader. Verifies the whole tensor first if it is read in boxes."""
    import tensorflow as tf

    eager = tf.executing_eagerly()
    numpy_requests = [_numpy_request(request) for request in requests]
    first = requests[0]
    checks = []
    if first.verify == "full" and any(request.partition is not None for request in requests):
        if eager:
            numpy_requests[0].verify_whole()
        else:
            with on_cpu_of(first.variable):
                checks.append(numpy_reads.verified_in_graph(numpy_requests[0]))
    found = []
    for request, numpy_request in zip(requests, numpy_requests, strict=True):
        with on_cpu_of(request.variable), tf.control_dependencies(checks):
            if eager:
                found.append(numpy_reads.as_eager_tensor(numpy_request, request.dtype))
                continue
            with tf.name_scope(_NAME) as scope:
                found.append(numpy_reads.as_graph_tensor(numpy_request, request.dtype, scope))
    return found


def _are_distinct(requests: Sequence[ReadRequest]) -> bool:
    """Whether the boxes of the reads are distinct."""
    boxes = {
        (request.partition.offset, request.partition.shape)
        for request in requests
        if request.partition
    }
    return len(boxes) == len(requests)


def _op_read(request: ReadRequest, verify: str) -> op_reads.OpReadRequest:
    return op_reads.OpReadRequest(
        prefix=request.source.prefix,
        tensor=request.tensor,
        shape=request.shape,
        partition=request.partition,
        fixed=request.fixed,
        verify=verify,
        threads=request.threads,
    )


def _numpy_request(request: ReadRequest) -> numpy_reads.NumpyReadRequest:
    return numpy_reads.NumpyReadRequest(
        prefix=request.source.prefix,
        tensor=request.tensor,
        shape=request.shape,
        partition=request.partition,
        dtype=request.dtype.name,
        verify=request.verify,
        threads=request.threads,
    )
