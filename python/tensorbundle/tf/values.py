# SPDX-License-Identifier: Apache-2.0
"""The values of one tensor's variables, as tensors that read the checkpoint.

Four ways lead to a value, and each variable takes the first that is open to it: our op; without the
op library, our reader behind a NumPy function, in this process only; the same at once, in eager
mode; and TensorFlow's own op. Whichever it is, damage is noticed before any of the values exists.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tensorbundle import assignment
from tensorbundle.load_plan import type_text
from tensorbundle.tf import backend, numpy_reads, op_reads
from tensorbundle.tf.options import Options
from tensorbundle.tf.source import AnySource, key_of
from tensorbundle.variables import Slice, Variable

_NAME = "checkpoint_initializer"


@contextlib.contextmanager
def on_cpu_of(variable: Any) -> Iterator[None]:
    """The CPU of the task that a variable lives in, whatever device the variable is on."""
    import tensorflow as tf

    # Two, so that what the variable's device says nothing about comes from the caller's scope.
    with tf.compat.v1.device(variable.device), tf.compat.v1.device("/cpu:0"):
        yield


class Reading(NamedTuple):
    """One variable's share of a tensor, and how it is to be read.

    Attributes:
        source: The checkpoint.
        tensor: The tensor's name in it.
        shape: The tensor's shape.
        dtype: Its ``tf.DType``.
        variable: TensorFlow's.
        part: What the variable gets; None for everything.
        fixed: Whether the variable's shape is known.
        way: ``"op"``, ``"numpy"`` or ``"stock"``.
        mapped: Whether the variable gets a mapping.
        verify: ``"full"``, ``"lazy"`` or ``"none"``.
        threads: For one read.
    """

    source: AnySource
    tensor: str
    shape: tuple[int, ...]
    dtype: Any
    variable: Any
    part: Slice | None
    fixed: bool
    way: str
    mapped: bool
    verify: str
    threads: int | None

    @property
    def extent(self) -> tuple[int, ...]:
        """The shape of what is read."""
        return self.shape if self.part is None else self.part.extent

    @property
    def is_empty_slice(self) -> bool:
        """Whether there is nothing to read, which TensorFlow's notation cannot say."""
        return self.part is not None and math.prod(self.extent) == 0


def plan_reading(
    source: AnySource,
    planned: assignment.Assignment,
    variable: Variable,
    part: Slice | None,
    options: Options,
) -> Reading:
    """Decides how a variable's share is read.

    Raises:
        ValueError: ``mode="map"``, and it cannot be mapped.
    """
    import tensorflow as tf

    tensor = planned.tensor
    extent = planned.shape if part is None else part.extent
    dtype = variable.handle.dtype.base_dtype
    is_cast = planned.dtype is not None and planned.dtype != dtype.as_datatype_enum
    mapped = False
    if options.mode != "copy" and not source.is_always_copied(tensor, extent):
        why = backend.why_not_op(variable.handle, options)
        if why is None and is_cast:
            why = f"cast=True converts it to {type_text(variable.dtype)}, into memory of its own"
        why = why or source.why_not_mapped(tensor, part)
        if why is not None and options.mode == "map":
            raise ValueError(
                f"tensor {tensor!r} cannot be mapped into variable {variable.name!r}: {why}. "
                "mode='auto' maps what can be mapped and copies the rest"
            )
        mapped = why is None
    static = variable.shape
    return Reading(
        source=source,
        tensor=tensor,
        shape=planned.shape,
        dtype=tf.as_dtype(planned.dtype) if is_cast else dtype,
        variable=variable.handle,
        part=part,
        fixed=part is not None or mapped or (static is not None and None not in static),
        way="stock" if source.is_remote else backend.way_for(variable.handle, options),
        mapped=mapped,
        verify=options.verification(mapped=mapped),
        threads=options.threads,
    )


def values(readings: Sequence[Reading]) -> list[Any]:
    """Makes the tensors that read one tensor's shares, in their order, and in the variables' types.

    Checksums that are to be compared in full are compared before any of the values exists: those of
    every stored piece that one of the shares touches.
    """
    return [_cast(reading, value) for reading, value in zip(readings, _read(readings), strict=True)]


def _cast(reading: Reading, value: Any) -> Any:
    """The value in its variable's type."""
    import tensorflow as tf

    wanted = reading.variable.dtype.base_dtype
    if reading.dtype == wanted:
        return value
    with on_cpu_of(reading.variable):
        return tf.cast(value, wanted, name=f"{_NAME}_cast")


def _read(readings: Sequence[Reading]) -> list[Any]:
    """The values in the tensor's type."""
    ways = {reading.way for reading in readings}
    if ways == {"numpy"}:
        return _by_numpy(readings)
    alike = len({(reading.mapped, reading.verify) for reading in readings}) == 1
    if ways == {"op"} and alike and readings[0].mapped:
        return _by_mapping(readings)
    if ways == {"op"} and alike and len(readings) > 1 and _are_distinct(readings):
        return _by_ops_together(readings)
    return [_alone(reading) for reading in readings]


def verified(source: AnySource, tensor: str, dtype: Any, parts: Sequence[Any], near: Any) -> Any:
    """A scalar that is computed only if a tensor's checksums are right; for control dependencies.

    Args:
        source: The checkpoint.
        tensor: The tensor's name in it.
        dtype: Its ``tf.DType``.
        parts: What reads of it by our op found; what they leave out is read by this op.
        near: The variable on whose CPU this is computed.
    """
    with on_cpu_of(near):
        return op_reads.verified(library_in_use(), source.prefix, tensor, dtype, parts)


def library_in_use() -> Any:
    """The op library, where ``backend`` has said that it can be used."""
    from tensorbundle.tf import library

    return library.load()


def _alone(reading: Reading) -> Any:
    """A value that verifies itself."""
    import tensorflow as tf

    if reading.mapped:
        return _by_mapping([reading])[0]
    with on_cpu_of(reading.variable):
        if reading.is_empty_slice:
            return tf.zeros(reading.extent, reading.dtype, name=_NAME)
        if reading.way == "stock":
            return _by_stock_op(reading)
        if reading.way == "numpy":
            return _by_numpy([reading])[0]
        with tf.name_scope(_NAME) as scope:
            value, _ = _by_op(reading, reading.verify, scope)
            return value


def _by_op(reading: Reading, verify: str, name: str) -> tuple[Any, Any]:
    """The value, and the checksums of its parts, on the current device."""
    read = _op_read(reading, verify)
    return op_reads.value_and_parts(library_in_use(), read, reading.dtype, name)


def _by_stock_op(reading: Reading) -> Any:
    import tensorflow as tf

    return tf.raw_ops.RestoreV2(
        prefix=reading.source.prefix,
        tensor_names=[key_of(reading.tensor)],
        shape_and_slices=["" if reading.part is None else reading.part.spec],
        dtypes=[reading.dtype],
        name=_NAME,
    )[0]


def _by_mapping(readings: Sequence[Reading]) -> list[Any]:
    """Mappings, all of one task from one op; none exists unless all of them are undamaged."""
    import tensorflow as tf

    scopes = []
    for _ in readings:
        with tf.name_scope(_NAME) as scope:
            scopes.append(scope)
    tasks: dict[Any, list[int]] = {}
    for i, reading in enumerate(readings):
        tasks.setdefault((reading.variable.device, reading.dtype), []).append(i)
    first = readings[0]
    # One op compares all of its pieces before it gives any away; several need one that is asked
    # before each. Nothing is read that could be compared in passing.
    full = first.verify == "full"
    apart = full and len(tasks) > 1
    verify = "full" if full and not apart else "none"
    names = [f"{scope}piece/" for scope in scopes] if apart else scopes
    found: list[Any] = [None] * len(readings)
    for indices in tasks.values():
        reads = [_op_read(readings[i], verify) for i in indices]
        near = readings[indices[0]]
        with on_cpu_of(near.variable):
            made = op_reads.mapped(library_in_use(), reads, near.dtype, [names[i] for i in indices])
        for i, value in zip(indices, made, strict=True):
            found[i] = value
    if not apart:
        return found
    ok = verified(first.source, first.tensor, first.dtype, [], first.variable)
    return _after(ok, readings, found, scopes)


def _by_ops_together(readings: Sequence[Reading]) -> list[Any]:
    """Copies of which none exists unless everything that they touch is undamaged."""
    import tensorflow as tf

    first = readings[0]
    if first.verify != "full":
        return [_alone(reading) for reading in readings]
    pieces: list[Any] = []
    parts: list[Any] = []
    scopes: list[str | None] = []
    for reading in readings:
        if reading.is_empty_slice:
            pieces.append(_alone(reading))
            scopes.append(None)
            continue
        with on_cpu_of(reading.variable), tf.name_scope(_NAME) as scope:
            piece, part = _by_op(reading, "parts", "piece")
        pieces.append(piece)
        scopes.append(scope)
        parts.append(part)
    ok = verified(first.source, first.tensor, first.dtype, parts, first.variable)
    return _after(ok, readings, pieces, scopes)


def _after(
    ok: Any, readings: Sequence[Reading], pieces: Sequence[Any], scopes: Sequence[str | None]
) -> list[Any]:
    """Values that nobody gets before their tensor was found undamaged; in eager mode it was."""
    import tensorflow as tf

    if tf.executing_eagerly():
        return list(pieces)
    gated = []
    for reading, piece, scope in zip(readings, pieces, scopes, strict=True):
        with on_cpu_of(reading.variable), tf.control_dependencies([ok]):
            gated.append(tf.identity(piece, name=scope or _NAME))
    return gated


def _by_numpy(readings: Sequence[Reading]) -> list[Any]:
    """Values by our reader; a tensor that is read in parts is verified as a whole before."""
    import tensorflow as tf

    eager = tf.executing_eagerly()
    requests = [_request(reading) for reading in readings]
    first = readings[0]
    checks = []
    if first.verify == "full" and any(reading.part is not None for reading in readings):
        if eager:
            requests[0].verify_whole()
        else:
            with on_cpu_of(first.variable):
                checks.append(numpy_reads.verified_in_graph(requests[0]))
    found = []
    for reading, request in zip(readings, requests, strict=True):
        with on_cpu_of(reading.variable), tf.control_dependencies(checks):
            if eager:
                found.append(numpy_reads.as_eager_tensor(request, reading.dtype))
                continue
            with tf.name_scope(_NAME) as scope:
                found.append(numpy_reads.as_graph_tensor(request, reading.dtype, scope))
    return found


def _are_distinct(readings: Sequence[Reading]) -> bool:
    """Whether no two of the shares are the same."""
    boxes = {(reading.part.offset, reading.part.extent) for reading in readings if reading.part}
    return len(boxes) == len(readings)


def _op_read(reading: Reading, verify: str) -> op_reads.OpRead:
    return op_reads.OpRead(
        prefix=reading.source.prefix,
        tensor=reading.tensor,
        shape=reading.shape,
        part=reading.part,
        fixed=reading.fixed,
        verify=verify,
        threads=reading.threads,
    )


def _request(reading: Reading) -> numpy_reads.Request:
    return numpy_reads.Request(
        prefix=reading.source.prefix,
        tensor=reading.tensor,
        shape=reading.shape,
        part=reading.part,
        dtype=reading.dtype.name,
        verify=reading.verify,
        threads=reading.threads,
    )
