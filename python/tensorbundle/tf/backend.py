# SPDX-License-Identifier: Apache-2.0
"""Creation of the ops that read a checkpoint: one protocol for two backends, and their choice.

``stock_backend`` creates ops of TensorFlow, which our kernels serve in processes that have loaded
the op library, and TensorFlow's own kernels in others. ``native_backend`` creates our ops. With
both, corruption is detected before any value of the tensor is available.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf
from tensorflow.python.eager import context

from tensorbundle import assignment
from tensorbundle.load_plan import type_text
from tensorbundle.tf import op_library
from tensorbundle.tf.checkpoint_index import CheckpointIndex
from tensorbundle.tf.fill_values import FillValues
from tensorbundle.tf.options import Options
from tensorbundle.tf.variables import on_another_job
from tensorbundle.variables import Slice, Variable, slice_spec
from tensorbundle.warm_plan import PartitionRemap

NAME = "checkpoint_initializer"

# Whether our ops may be placed on tasks of other processes: what install() said; None without it.
_remote_ops: bool | None = None


class ReadRequest(NamedTuple):
    """What to read for one variable.

    Attributes:
        tensor: The tensor's key.
        shape: The tensor's shape.
        dtype: Its ``tf.DType``.
        variable: The TensorFlow variable.
        partition: The part of the tensor for a partition; None for the whole tensor.
        fixed: Whether the tensor must still have that shape when it is read.
        mapped: Whether the value is a mapping.
    """

    tensor: str
    shape: tuple[int, ...]
    dtype: Any
    variable: Any
    partition: Slice | None
    fixed: bool
    mapped: bool

    @property
    def extent(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.shape if self.partition is None else self.partition.shape

    @property
    def is_empty_slice(self) -> bool:
        """Whether a partition is empty. TensorFlow's slice format cannot express that."""
        return self.partition is not None and math.prod(self.extent) == 0

    @property
    def spec(self) -> str:
        """The box in TensorFlow's format. Contains the tensor's shape also for a whole tensor.

        So if the checkpoint is rewritten with another shape, the read fails instead of changing the
        shape of the variable.
        """
        if self.partition is not None:
            return self.partition.spec
        if not self.fixed or 0 in self.shape:
            return ""
        return slice_spec(self.shape, [0] * len(self.shape), self.shape)


class Table(NamedTuple):
    """A stored table and the vocabularies by which it is remapped.

    Attributes:
        tensor: Its key, as ops get it.
        dtype: Its ``tf.DType``.
        new_vocab: The new vocabulary's path.
        old_vocab: The old vocabulary's path.
        new_size: How many entries of the new vocabulary are used, from the first.
        old_size: How many entries of the old vocabulary are used; -1: all.
    """

    tensor: bytes
    dtype: Any
    new_vocab: bytes
    old_vocab: bytes
    new_size: int
    old_size: int


class Backend(Protocol):
    """Creates the ops that read one checkpoint."""

    def read(self, requests: Sequence[ReadRequest]) -> list[Any]:
        """Returns the values in the tensors' types, in order.

        With ``verify="full"`` the checksums of every stored slice that a read meets are compared
        before any value of its tensor is available.
        """

    def num_missing(self, table: Table, partition: PartitionRemap, variable: Any, /) -> Any:
        """Returns the number of missing cells of a partition, as int32 if it fits."""

    def remap(
        self, table: Table, partition: PartitionRemap, fill: FillValues, variable: Any
    ) -> Any:
        """Returns the remapped partition in the table's type; shape: `partition.remapped_shape`."""

    def verification(self, table: Table, near: Any, /) -> Any:
        """Returns a tensor whose computation fails if the table is corrupt.

        None if the remaps compare the checksums themselves, or if they are not compared.
        """


@contextlib.contextmanager
def on_cpu_of(variable: Any) -> Iterator[None]:
    """Places ops on the CPU of a variable's task."""
    # Two scopes: fields that the variable's device does not set come from the caller's scope.
    with tf.compat.v1.device(variable.device), tf.compat.v1.device("/cpu:0"):
        yield


def plan_read(
    index: CheckpointIndex,
    planned: assignment.Assignment,
    options: Options,
    variable: Variable,
    partition: Slice | None,
) -> ReadRequest:
    """Plans how a variable is read.

    Raises:
        ValueError: ``mode="map"``, and the value cannot be mapped.
    """
    tensor = planned.tensor
    extent = planned.shape if partition is None else partition.shape
    dtype = variable.handle.dtype.base_dtype
    is_cast = planned.dtype is not None and planned.dtype != dtype.as_datatype_enum
    mapped = False
    if options.mode != "copy" and not index.is_always_copied(tensor, extent):
        reason = _kernels_unusable_reason(variable.handle, options)
        if reason is None and is_cast:
            reason = f"cast=True converts it to {type_text(variable.dtype)}, into memory of its own"
        reason = reason or index.unmappable_reason(tensor, partition)
        if reason is not None and options.mode == "map":
            raise ValueError(
                f"tensor {tensor!r} cannot be mapped into variable {variable.name!r}: {reason}. "
                "mode='auto' maps what can be mapped and copies the rest"
            )
        mapped = reason is None
    static = variable.shape
    return ReadRequest(
        tensor=tensor,
        shape=planned.shape,
        dtype=tf.as_dtype(planned.dtype) if is_cast else dtype,
        variable=variable.handle,
        partition=partition,
        fixed=partition is not None or mapped or (static is not None and None not in static),
        mapped=mapped,
    )


def is_native_for_reads(variable: Any, options: Options) -> bool:
    """Whether our op reads a variable, and not TensorFlow's."""
    if options.op == "stock" or not library_is_usable():
        return False
    if options.op == "native":
        return True
    if on_another_job(variable):
        return bool(_remote_ops)
    # An eager op has no attributes for our options, and is in no graph that others might load.
    return bool(tf.executing_eagerly())


def is_native_for_remaps(variable: Any, options: Options, *, in_stock_terms: bool) -> bool:
    """Whether our op remaps a variable, and not TensorFlow's.

    Args:
        variable: The variable.
        options: The options of the call.
        in_stock_terms: Whether TensorFlow's ops can express the remap.
    """
    if in_stock_terms or options.op == "stock":
        return is_native_for_reads(variable, options)
    return may_use_ops(variable.device, options) and library_is_usable()


def may_use_ops(device: str, options: Options | None = None) -> bool:
    """Whether our ops may be placed on the device of a variable.

    Args:
        device: The variable's ``device``: ``""``, ``"/job:ps/task:1"``,
            ``"/job:localhost/replica:0/task:0/device:CPU:0"``.
        options: The options of the call.
    """
    if options is not None and options.op != "auto":
        return options.op == "native"
    return _remote_ops is not False or is_here(device)


def allow_remote_ops(allowed: bool | None) -> None:
    """Sets whether our ops may be placed on tasks of other processes; None: the default."""
    global _remote_ops
    _remote_ops = allowed


def is_here(device: str) -> bool:
    """Whether a device belongs to this process, as far as that can be determined.

    True if the device names no job, if the job is ``localhost``, and if it is the task of this
    process in an eager cluster. The task of a TF1 server in this process is not recognized.
    """
    try:
        spec = tf.DeviceSpec.from_string(device or "")
    except ValueError:
        return False  # a composite device
    if spec.job is None or spec.job == "localhost":
        return True
    server = context.get_server_def()
    if server is None or server.job_name != spec.job:
        return False
    return spec.task is None or spec.task == server.task_index


def library_is_usable() -> bool:
    """Whether the op library can be used. Warns, once, if it cannot."""
    reason = _library_missing_reason()
    if reason is not None:
        op_library.warn_once(f"tensorbundle reads checkpoints the slow way, because {reason}")
    return reason is None


def _library_missing_reason() -> str | None:
    if op_library.load() is not None:
        return None
    return f"the op library is not there: {op_library.unavailable_reason()}"


def _kernels_unusable_reason(variable: Any, options: Options) -> str | None:
    """Returns why neither our kernels nor our ops read a variable, or None if they do."""
    if options.op == "stock":
        return "op='stock' is in effect, and TensorFlow's own op does not map"
    if not may_use_ops(variable.device, options):
        return (
            f"it is on {variable.device}, whose process may not have our op: "
            "install(remote=True) says that it has"
        )
    return _library_missing_reason()
