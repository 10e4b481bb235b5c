# SPDX-License-Identifier: Apache-2.0
"""Creation of the ops that read a checkpoint: requests, a protocol, and the choice of the ops.

`StockBackend` creates ops of TensorFlow, in graphs that any process can load. Our kernels serve
them in processes that have loaded the op library, and TensorFlow's own kernels in others.
`NativeBackend` (``native_backend``) creates our ops. With both, corruption is detected before any
value of the tensor is available.

One ``RestoreV2`` per task reads all that the task needs. Options travel as attributes of the nodes
whose names begin with an underscore: our kernels read them, TensorFlow's ignore them.
``LoadAndRemapMatrix`` takes out-of-vocabulary entries as missing ones.

A mapping has one extra row, which is sliced off: TensorFlow owns a slice, but would copy a tensor
that it does not own at the first update. TensorFlow's kernel returns no extra row, and the slice is
the whole value. The size of the slice is not a constant, because Grappler would then remove the
slice: it takes the shape of the value from the slice specification.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework.ops import get_default_graph

from tensorbundle import assignment, naming
from tensorbundle.errors import UnsupportedError
from tensorbundle.load_plan import type_text
from tensorbundle.load_source import LoadSource
from tensorbundle.tf import op_library
from tensorbundle.tf.fill_values import FillValues
from tensorbundle.tf.op_library import create_constant, create_op
from tensorbundle.tf.options import Options
from tensorbundle.variables import Slice, Variable, slice_spec
from tensorbundle.warm_plan import PartitionRemap

NAME = "checkpoint_initializer"
_PREFIX = "_tensorbundle_"  # of the attributes that our kernels read

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


class RemapRequest(NamedTuple):
    """What to remap for one variable.

    Attributes:
        table: The stored table.
        partition: The part of the remapped table.
        variable: The TensorFlow variable.
    """

    table: Table
    partition: PartitionRemap
    variable: Any


class Backend(Protocol):
    """Creates the ops that read one checkpoint."""

    def read(self, requests: Sequence[ReadRequest]) -> list[Any]:
        """Returns the values in the tensors' types, in order.

        With ``verify="full"`` the checksums of every stored slice that a read meets are compared
        before any value of its tensor is available.
        """

    def num_missing(self, request: RemapRequest) -> Any:
        """Returns the number of missing cells of a partition, as int32 if it fits."""

    def remap(self, request: RemapRequest, fill: FillValues) -> Any:
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


def after(check: Any, value: Any, variable: Any) -> Any:
    """Returns a variable's value, which is available after `check`. In eager mode that has run."""
    if check is None or tf.executing_eagerly():
        return value
    with on_cpu_of(variable), tf.control_dependencies([check]):
        return tf.identity(value, name=NAME)


def read_in_groups(
    requests: Sequence[ReadRequest],
    key: Callable[[ReadRequest], Any],
    read: Callable[[Any, list[ReadRequest]], Sequence[Any]],
) -> list[Any]:
    """Returns a value per request. `read` returns those of all requests with the same key."""
    groups: dict[Any, list[ReadRequest]] = {}
    for request in requests:
        groups.setdefault(key(request), []).append(request)
    values: dict[int, Any] = {}
    for each, some in groups.items():
        values.update(zip(map(id, some), read(each, some), strict=True))
    return [values[id(request)] for request in requests]


def without_extra_row(request: ReadRequest, value: Any, begin: Any, size: Any, name: str) -> Any:
    """Returns a mapping without the extra row that our kernels add."""
    if tf.executing_eagerly():
        return tf.slice(value, begin, size)
    (value,) = create_op("Slice", [value, begin, size], [request.dtype], name).outputs
    value.set_shape(request.extent)
    return value


def plan_read(
    index: LoadSource,
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
    if not is_here(variable.device):
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
    reason = op_library.unavailable_reason()
    return reason and f"the op library is not there: {reason}"


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


def can_remap(dtype: Any, partition: PartitionRemap) -> bool:
    """Whether TensorFlow's ops can express a remap."""
    return bool(dtype == tf.float32) and len(partition.remapped_shape) == 2


class StockBackend:
    """A `Backend`. Reads run on the CPU of each variable's task.

    Remaps run on the caller's device, as in TensorFlow, and values are sent to other tasks.
    """

    def __init__(self, prefix: bytes, options: Options) -> None:
        """Stores the checkpoint and the options."""
        self._prefix = prefix
        self._options = options
        # The ops of all partitions share the results.
        self._constant = functools.cache(tf.constant)
        self._path = functools.cache(_path)
        self._join = functools.cache(self._join_vocabularies)

    def read(self, requests: Sequence[ReadRequest]) -> list[Any]:
        """Implements `Backend`."""
        return read_in_groups(
            requests, lambda each: (each.variable.device, each.mapped), self._restore
        )

    def num_missing(self, request: RemapRequest) -> Any:
        """Implements `Backend`."""
        return self._num_missing(request.table, request.partition)

    def _num_missing(self, table: Table, partition: PartitionRemap, *, zero: bool = False) -> Any:
        # Overflows at 2**31 like TensorFlow's count: its op does not support more cells.
        _, present = self._old_ids(table, partition, zero=zero)
        return (partition.num_entries - present) * partition.cells_per_entry

    def remap(self, request: RemapRequest, fill: FillValues) -> Any:
        """Implements `Backend`.

        Raises:
            UnsupportedError: TensorFlow's op does not support the table.
        """
        table, partition, variable = request
        if not can_remap(table.dtype, partition):
            raise UnsupportedError(
                f"{variable.name}: TensorFlow's own op remaps float32 matrices, not "
                f"{table.dtype.name} of rank {len(partition.remapped_shape)}; ours, which is used "
                "with op='auto' where it can be loaded, does"
            )
        zero = fill.layout == "zero"
        ids, _ = self._old_ids(table, partition, zero=zero)
        if partition.num_oov:
            ids = tf.pad(ids, [[0, partition.num_oov]], constant_values=-1)
        rows, columns = ids, self._constant((), tf.int64)
        if partition.axis == 1:
            first = partition.offset
            rows = tf.range(first, first + partition.num_rows, dtype=tf.int64)
            columns = ids
        num_rows, num_columns = partition.remapped_shape
        value = tf.raw_ops.LoadAndRemapMatrix(
            ckpt_path=self._constant(self._prefix),
            old_tensor_name=self._constant(table.tensor),
            row_remapping=rows,
            col_remapping=columns,
            initializing_values=self._missing_cells(table, partition, fill, ids),
            num_rows=num_rows,
            num_cols=num_columns,
            name=NAME,
        )
        _set_attributes(value, self._attributes(fill="zero" if zero else None))
        return value

    def verification(self, *_: Any) -> None:
        """Implements `Backend`: the op compares the checksums itself."""

    def _restore(self, _task: Any, requests: Sequence[ReadRequest]) -> list[Any]:
        """Returns values of one task, from one op."""
        # An eager op has no attributes for our options.
        mapped = requests[0].mapped and not tf.executing_eagerly()
        with on_cpu_of(requests[0].variable):
            values = _restore_op(
                self._prefix,
                [naming.as_bytes(request.tensor) for request in requests],
                [request.spec.encode() for request in requests],
                [request.dtype for request in requests],
                f"{NAME}_map" if mapped else NAME,
                self._attributes(mode="map" if mapped else None),
            )
            if mapped:
                values = _without_extra_rows(values, requests)
            elif not tf.executing_eagerly():
                # TensorFlow's function creates an op per value: names of later ops stay the same.
                for _ in requests[1:]:
                    get_default_graph().unique_name(NAME)
        for request, value in zip(requests, values, strict=True):
            if request.fixed:
                value.set_shape(request.extent)
        return values

    def _attributes(self, *, mode: str | None = None, fill: str | None = None) -> dict[str, Any]:
        """Returns the attributes of an op that our kernels read."""
        verify = self._options.verification(mapped=mode is not None)
        options = {
            "fill": fill,
            "mode": mode,
            "verify": None if verify == "full" else verify,
            "threads": self._options.threads,
        }
        return {f"{_PREFIX}{name}": value for name, value in options.items() if value is not None}

    def _old_ids(
        self, table: Table, partition: PartitionRemap, *, zero: bool = False
    ) -> tuple[Any, Any]:
        """Returns the old rows, or columns, of a partition's entries, and how many are not -1.

        Our kernel takes them from the join that the process shares. TensorFlow's reads both
        vocabularies each time: where it runs, one op serves all partitions.

        Args:
            table: The table.
            partition: The partition.
            zero: The number is only used to build zeros, which our kernels do not need: it is that
                of all entries then.
        """
        first, count = partition.first_entry, partition.num_entries
        if library_is_usable():
            return self._join(table, first, count, zero=zero)
        ids = tf.slice(self._join(table, 0, table.new_size)[0], [first], [count])
        return ids, tf.reduce_sum(tf.cast(ids >= 0, tf.int32))

    def _join_vocabularies(
        self, table: Table, first: int, count: int, *, zero: bool = False
    ) -> tuple[Any, Any]:
        """Returns the outputs of one op."""
        ids, present = tf.raw_ops.GenerateVocabRemapping(
            new_vocab_file=self._path(table.new_vocab),
            old_vocab_file=self._path(table.old_vocab),
            new_vocab_offset=first,
            num_new_vocab=count,
            old_vocab_size=table.old_size,
        )
        _set_attributes(ids, {f"{_PREFIX}fill": "zero"} if zero else {})
        return ids, present

    def _missing_cells(
        self, table: Table, partition: PartitionRemap, fill: FillValues, ids: Any
    ) -> Any:
        """Returns the values of all missing cells, in row-major order."""
        if fill.layout == "full":
            return tf.reshape(tf.boolean_mask(fill.tensors[0], ids < 0, axis=partition.axis), [-1])
        if fill.layout == "zero":
            # With our kernels none are missing: they fill with zeros without reading zeros.
            count = self._num_missing(table, partition, zero=True)
            return tf.zeros([count + partition.num_oov * partition.cells_per_entry])
        if len(fill.tensors) == 1:
            return tf.reshape(fill.tensors[0], [-1])
        parts = list(fill.tensors)
        if partition.axis == 1:
            parts = [tf.reshape(part, [partition.num_rows, -1]) for part in parts]
            return tf.reshape(tf.concat(parts, 1), [-1])
        return tf.concat([tf.reshape(part, [-1]) for part in parts], 0)


def _path(path: bytes) -> Any:
    """Returns a path that TensorFlow takes for no constant: a stateful op prints nothing.

    TensorFlow would evaluate a function of constants, and so read the vocabularies, while the graph
    is built and again when a session optimizes it.
    """
    return tf.raw_ops.Print(input=path, data=[], first_n=0)


def _restore_op(
    prefix: bytes,
    names: list[bytes],
    specs: list[bytes],
    dtypes: list[Any],
    name: str,
    attributes: Mapping[str, Any],
) -> list[Any]:
    """Returns the outputs of a ``RestoreV2``. Its inputs have the names that TensorFlow gives.

    An eager op has no attributes. In a graph it gets them when it is created: to set one later
    takes longer than to create an op.
    """
    if tf.executing_eagerly():
        eager: list[Any] = tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=names, shape_and_slices=specs, dtypes=dtypes, name=name
        )
        return eager
    scope = get_default_graph().unique_name(name)
    inputs = [
        create_constant([prefix], [], f"{scope}/prefix/"),
        create_constant(names, [len(names)], f"{scope}/tensor_names/"),
        create_constant(specs, [len(specs)], f"{scope}/shape_and_slices/"),
    ]
    attributes = {"dtypes": dtypes, **attributes}
    return list(create_op("RestoreV2", inputs, dtypes, f"{scope}/", attributes).outputs)


def _set_attributes(value: Any, attributes: Mapping[str, Any]) -> None:
    """Sets attributes of a tensor's op. An eager op has none."""
    if not tf.executing_eagerly():
        for name, attribute in attributes.items():
            value.op._set_attr(name, op_library.encoded(attribute))


def _without_extra_rows(values: Sequence[Any], requests: Sequence[ReadRequest]) -> list[Any]:
    @functools.cache
    def begin(rank: int) -> Any:
        return create_constant([0] * rank, [rank], f"{NAME}_begin")

    @functools.cache
    def size(extent: tuple[int, ...]) -> Any:
        return _not_constant(create_constant(extent, [len(extent)], f"{NAME}_size"))

    return [
        without_extra_row(each, value, begin(len(each.extent)), size(each.extent), NAME)
        for value, each in zip(values, requests, strict=True)
    ]


def _not_constant(constant: Any) -> Any:
    """Returns a tensor that TensorFlow does not fold as a constant."""
    shape = tf.compat.v1.AttrValue(shape=constant.shape.as_proto())
    op = create_op(
        "PlaceholderWithDefault", [constant], [constant.dtype], f"{constant.op.name}_default",
        {"dtype": constant.dtype, "shape": shape},
    )  # fmt: skip
    return op.outputs[0]
