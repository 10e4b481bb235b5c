# SPDX-License-Identifier: Apache-2.0
"""The C++ core. Private: its interface may change. No function takes keywords: see pybind.h."""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from typing_extensions import Buffer

version: str

def crc32c(data: Buffer, value: int = 0, /) -> int:
    """Returns the CRC-32C of `data`, or of bytes with the CRC-32C `value` followed by `data`."""

def crc32c_combine(first: int, second: int, second_size: int, /) -> int:
    """Returns the CRC-32C of two concatenated byte strings from the CRC-32C of each."""

def crc32c_implementation() -> str:
    """Returns the name of the CRC-32C implementation for this processor."""

def available_processors() -> int:
    """Returns the number of processors in the process's affinity and its cgroup's quota."""

def compare_elements(
    a: np.ndarray[Any, Any],
    b: np.ndarray[Any, Any],
    skips_same_bits: bool,
    is_exact: bool,
    rtol: float,
    atol: float,
    /,
) -> tuple[int, int, int | float | None, float | None]:
    """Compares two C-contiguous arrays of one dtype and size, as ``value_diff`` describes.

    Args:
        a: float32, float64, complex128, int64 or uint64.
        b: The same.
        skips_same_bits: Whether elements with the same bits are the same, and have no distance.
        is_exact: Whether all others differ; otherwise those that are not within the tolerance.
        rtol: Of the tolerance, relative to b.
        atol: Of the tolerance, absolute.

    Returns:
        The numbers of different elements, and of those that are NaN or infinite on either side; the
        largest ``abs(a - b)``, and the largest ``abs(a - b) / abs(b)`` where b is not 0, of finite
        elements that are not skipped; None without such elements.
    """

def dlpack_capsule(
    array: np.ndarray[Any, Any], code: int, bits: int, versioned: bool, copied: bool, /
) -> object:
    """Returns a DLPack capsule that views `array` and keeps it alive."""

def similar_names(name: bytes, candidates: list[str], count: int, least: float, /) -> list[str]:
    """Returns up to `count` candidates with a similarity (0 to 1) of at least `least`, best first.

    Takes milliseconds for 100,000 candidates. Only the first 256 bytes of names are compared.
    """

def edit_object_graph(
    graph: bytes,
    dropped_keys: Sequence[bytes],
    renamed_keys: dict[bytes, bytes],
    renamed_full_names: dict[bytes, bytes],
    /,
) -> bytes:
    """Returns a serialized TrackableObjectGraph without some keys, and with new names.

    Raises:
        CorruptionError: The message is malformed.
    """

def address_of(array: np.ndarray[Any, Any], /) -> int:
    """Returns the address of an array's first element."""

def set_dtypes(dtypes: tuple[np.dtype[Any], ...], converted: Sequence[int], /) -> None:
    """Sets the dtype of every type number; the last dtype is that of all larger numbers.

    `converted` are the type numbers whose stored bytes differ from the elements in memory.
    """

def set_default_threads(threads: int, /) -> None:
    """Sets the threads of calls on checkpoints without their own number; 0 is all processors."""

def default_threads() -> int:
    """Returns the number that `set_default_threads` set."""

@final
class Names:
    """The names of a checkpoint. Keeps no file open."""

    def __call__(self) -> list[str]:
        """Returns all names, in order."""

@final
class Checkpoint:
    """An open checkpoint. Thread-safe. After `close`, everything but `closed` raises ValueError."""

    @staticmethod
    def open_bundle(prefix: bytes, io: str, name: str, verify: bool, threads: int, /) -> Checkpoint:
        """Opens a V2 checkpoint. `name` is for messages; `threads` is 0 for the default."""

    @staticmethod
    def open_v1(
        files: Sequence[bytes], io: str, name: str, verify: bool, threads: int, /
    ) -> Checkpoint:
        """Opens the table, or all shards, of a V1 checkpoint."""

    @staticmethod
    def open_remote(
        format: int,
        files: Sequence[bytes],
        open: Callable[[str], tuple[int, Callable[[int, memoryview], None]]],
        name: str,
        verify: bool,
        threads: int,
        /,
    ) -> Checkpoint:
        """Opens the prefix of a V2 checkpoint, or the files of a V1 checkpoint, in another store.

        `open` returns the size of a file, and a function that fills a buffer with the bytes at an
        offset. Any thread calls them, several at a time.
        """

    def close(self) -> None:
        """Releases the files."""

    @property
    def closed(self) -> bool: ...
    @property
    def threads(self) -> int:
        """The number of threads of a call."""

    def rewritten_file(self) -> str | None:
        """Returns a data file that was rewritten in place since it was opened, or None."""

    def __len__(self) -> int: ...
    @property
    def index_checksum(self) -> int:
        """The CRC-32C of the index file."""

    @property
    def big_endian(self) -> bool:
        """Whether the tensors are stored big-endian."""

    @property
    def warnings(self) -> list[str]:
        """Descriptions of unusual properties that are not errors."""

    def has(self, name: str | bytes, /) -> bool:
        """Returns whether the checkpoint has a tensor with this key."""

    def find(self, name: str | bytes, /) -> Tensor | None:
        """Returns the tensor with this key, or None."""

    def find_handle(
        self, name: str | bytes, /
    ) -> tuple[str, tuple[int, ...], np.dtype[Any], Tensor, int, int] | None:
        """Returns (name, shape, dtype, tensor, index, type number) of the tensor with this key."""

    def bind_tensor(
        self, index: int, type_number: int, name: str, shape: tuple[int, ...], /
    ) -> Tensor:
        """Returns the tensor of a row of `handles`, also after `close`."""

    def get_tensor(self, name: str | bytes, /) -> Any:
        """Returns `Tensor.read_whole` of the tensor with this key; None if it does not exist."""

    def load(self, tensors: list[Tensor], threads: int, /) -> list[Any]:
        """Returns `Tensor.read_whole` of each tensor, but None for strings and variants.

        `threads` is 0 for the default.
        """

    def full_names(self, object_graph: bytes, /) -> tuple[list[tuple[str, str, bool]], bool]:
        """Reads the names in a serialized TrackableObjectGraph.

        Returns:
            (full name, key, whether the checkpoint has that key) of each attribute with a name and
            a key; and whether the whole graph is well-formed.
        """

    def names(self) -> list[str]:
        """Returns all names, in order."""

    def detached_names(self) -> Names:
        """Returns the names in an object that may outlive the checkpoint."""

    def tensors(self) -> list[Tensor]:
        """Returns all tensors, in the order of their names."""

    def handles(
        self, names: list[str], /
    ) -> list[tuple[str, tuple[int, ...], np.dtype[Any], None, int, int]]:
        """Returns (name, shape, dtype, None, index, type number) of every tensor."""

    def shape_map(self, names: list[str], /) -> dict[str, list[int]]:
        """Returns a dict from names to shapes."""

    def type_map(self, names: list[str], /) -> dict[str, np.dtype[Any]]:
        """Returns a dict from names to dtypes."""

    def debug_string(self) -> bytes:
        """Returns one line per tensor: its name, its type in TensorFlow's enum, its shape."""

    def verify(
        self, tensors: Sequence[Tensor] | None, progress: Callable[[int, int], object] | None, /
    ) -> tuple[int, list[tuple[str, str, int, int, str, str, int]]]:
        """Compares the checksums of tensors, or of all tensors if None.

        Returns:
            The number of bytes read; (name, file, offset, nbytes, message, cause, errno) of every
            error.
        """

@final
class Tensor:
    """A tensor of an open checkpoint. Thread-safe.

    When the checkpoint is closed, the attributes up to ``index`` stay valid, and everything else
    raises ValueError. Boxes are specified by offset and shape, one number per axis.
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def type_number(self) -> int:
        """The number in TensorFlow's DataType enum."""

    @property
    def index(self) -> int:
        """The tensor's position in the order of names."""

    @property
    def checkpoint_id(self) -> int:
        """A number that identifies the open checkpoint as long as a tensor of it exists."""

    @property
    def verify(self) -> bool:
        """Whether reads compare checksums."""

    @property
    def threads(self) -> int:
        """The number of threads of a call."""

    @property
    def io(self) -> str:
        """``"auto"``, ``"mmap"``, ``"pread"`` or ``"direct"``."""

    @property
    def nbytes(self) -> int:
        """The number of bytes of the stored slices."""

    @property
    def is_decoded(self) -> bool:
        """Whether V1 slices must be decoded to elements of fixed size."""

    def file_paths(self) -> list[str]:
        """Returns the data files of the checkpoint, by number."""

    def slices(
        self,
    ) -> list[tuple[tuple[int, ...], tuple[int, ...], str, int, int, int | None]]:
        """Returns (offset, shape, file, file offset, nbytes, CRC-32C) of every stored slice."""

    def error(self) -> tuple[str, str] | None:
        """Returns (kind, message) if the tensor cannot be read; does not compare checksums."""

    def view(self) -> np.ndarray[Any, Any] | None:
        """Returns a read-only array over the mapping; None if that is impossible."""

    def view_row(self, index: object, /) -> Any:
        """Returns a read-only array over a row, or a NumPy scalar for rank 1.

        Returns None unless `index` is an integer of axis 0 and the tensor can be viewed.
        """

    def view_obstacle(self) -> str | None:
        """Returns the reason why `view` returns None."""

    def view_box(
        self, offset: Sequence[int], shape: Sequence[int], /
    ) -> np.ndarray[Any, Any] | None:
        """Returns a read-only array over a box in one stored slice; None if that is impossible."""

    def locate_box(self, offset: Sequence[int], shape: Sequence[int], /) -> tuple[str, int, str]:
        """Returns (file, file offset, "") of a box in one range of a file; else ("", 0, reason).

        Does not access the file.
        """

    def copy_on_write(self) -> np.ndarray[Any, Any] | None:
        """Returns a writable array over a private mapping; None if the tensor cannot be viewed."""

    def copy_on_write_box(
        self, offset: Sequence[int], shape: Sequence[int], /
    ) -> np.ndarray[Any, Any] | None:
        """Returns the same over a box in one stored slice; None if that is impossible."""

    def check_box(self, offset: Sequence[int], shape: Sequence[int], /) -> None:
        """Raises the errors of reading a box that can be found before memory is allocated."""

    def read(
        self, offset: Sequence[int], shape: Sequence[int], out: np.ndarray[Any, Any], /
    ) -> None:
        """Copies a box to `out`, which must be C-contiguous and have the size of the box."""

    def read_whole(self) -> Any:
        """Returns all elements as a new array, or as a NumPy scalar or ``bytes`` for rank 0.

        Returns None for elements that Python must convert: unknown and sign-extended types.
        """

    def read_row(self, index: object, /) -> Any:
        """Returns a copy of a row, or a NumPy scalar for rank 1.

        Returns None unless `index` is an integer of axis 0, and as `read_whole` does.
        """

    def read_string_slice(self, number: int, /) -> np.ndarray[Any, Any]:
        """Returns one stored slice of strings or variants as an array of bytes objects."""

    def read_string_box(
        self, offset: Sequence[int], shape: Sequence[int], /
    ) -> np.ndarray[Any, Any]:
        """Returns the strings of a box."""

    def read_string_rows(self, rows: np.ndarray[Any, Any], /) -> np.ndarray[Any, Any]:
        """Returns the strings of rows: ascending int64 numbers without duplicates."""

    @property
    def has_row_errors(self) -> bool:
        """Whether some rows cannot be read."""

    def take(
        self,
        ids: np.ndarray[Any, Any],
        out: np.ndarray[Any, Any] | None,
        fill_kind: str,
        fill_values: np.ndarray[Any, Any],
        /,
    ) -> np.ndarray[Any, Any]:
        """Copies rows to `out` or a new array. `fill_kind`: "none", "element", "row" or "rows"."""

    def check_remap(
        self,
        rows: np.ndarray[Any, Any] | None,
        num_rows: int,
        columns: np.ndarray[Any, Any] | None,
        /,
    ) -> None:
        """Raises the errors of `remap` for these rows and columns."""

    def missing_cells(
        self,
        rows: np.ndarray[Any, Any] | None,
        num_rows: int,
        columns: np.ndarray[Any, Any] | None,
        /,
    ) -> int:
        """Returns the number of elements of the remapped table that are not in this tensor."""

    def remap(
        self,
        rows: np.ndarray[Any, Any] | None,
        num_rows: int,
        columns: np.ndarray[Any, Any] | None,
        fill_values: np.ndarray[Any, Any],
        fill_is_element: bool,
        out: np.ndarray[Any, Any],
        out_stride: int,
        /,
    ) -> None:
        """Writes remapped rows to `out`, with a stride of `out_stride` bytes between rows."""

    def row_size(self) -> int:
        """Returns the bytes of a row. Raises the errors of streaming that precede any read."""

    def ranges_of_box(self, offset: Sequence[int], shape: Sequence[int], /) -> np.ndarray[Any, Any]:
        """Returns (file number, offset, size) of each range of a box: uint64, three columns."""

    def ranges_of_rows(self, rows: np.ndarray[Any, Any], /) -> np.ndarray[Any, Any]:
        """Returns (file number, offset, size) of each range of rows: uint64, three columns."""

    def inspect_ranges(self, ranges: np.ndarray[Any, Any], /) -> dict[str, int]:
        """Returns slices, whole, verified, bytes, touched, probed, resident, direct of ranges."""

@final
class Stream:
    """A stream of arrays with read-ahead on a thread. Thread-safe, but not usable after a fork."""

    @staticmethod
    def of_tensors(checkpoint: Checkpoint, tensors: Sequence[Tensor], max_ahead: int, /) -> Stream:
        """Streams whole tensors, in the order of their files."""

    @staticmethod
    def of_rows(
        tensor: Tensor, rows: int, max_ahead: int, outs: Sequence[np.ndarray[Any, Any]], /
    ) -> Stream:
        """Streams chunks of `rows` rows, in new arrays or in `outs` in turn."""

    def next(self) -> tuple[int, int, int, np.ndarray[Any, Any] | int | None]:
        """Returns (index of the tensor, first row, number of rows, array).

        The last item is the index into `outs` if they are used, and None for strings.
        """

    def close(self) -> None:
        """Stops the thread."""

@final
class Vocabulary:
    """A vocabulary: one token per row."""

    @staticmethod
    def of_file(path: bytes, /) -> Vocabulary:
        """Opens a file of lines, which is read by `join`."""

    @staticmethod
    def of_tokens(name: str, text: bytes, offsets: np.ndarray[Any, Any], /) -> Vocabulary:
        """Copies contiguous tokens, delimited by `offsets`."""

def join(
    new_vocabulary: Vocabulary, old_vocabulary: Vocabulary, old_size: int, threads: int, /
) -> tuple[np.ndarray[Any, Any], int]:
    """Returns the old row of every new row, or -1; and the number of rows that are not -1."""

def align(
    source: bytes,
    destination: bytes,
    alignment: int,
    threads: int,
    progress: Callable[[int, int], object] | None,
    /,
) -> tuple[int, int, int, int]:
    """Rewrites a checkpoint. Returns (slices, moved, data bytes before, data bytes after)."""

def can_copy_rows(tensor: Tensor, /) -> bool:
    """Returns whether `copy_rows` can copy a tensor: it is stored in dense ranges of rows."""

def copy_rows(
    path: bytes,
    descriptor: int,
    tensors: list[tuple[Tensor, int]],
    threads: int,
    progress: Callable[[int, int], object] | None,
    /,
) -> None:
    """Writes the elements of tensors, in row-major order, to a file at offsets.

    All bytes are compared with their checksums. `path` is for messages.
    """

@final
class SliceWriter:
    """A dense stored slice that arrives in parts, in order."""

    @property
    def left(self) -> int:
        """The number of bytes that are missing."""

    def append(self, array: np.ndarray[Any, Any], /) -> None:
        """Writes the next bytes, from a C-contiguous array. ValueError if they are too many."""

    def finish(self) -> None:
        """Adds the slice to the index. ValueError if bytes are missing."""

@final
class Writer:
    """A checkpoint that is being written.

    `offset` and `slice_shape` are the box of a stored slice; both are None for a whole tensor.
    """

    @staticmethod
    def create(
        prefix: bytes, shards: int, alignment: int, overwrite: bool, threads: int, /
    ) -> Writer:
        """Creates the temporary files."""

    @property
    def closed(self) -> bool: ...
    def add(
        self,
        name: bytes,
        type_number: int,
        shape: Sequence[int],
        offset: Sequence[int] | None,
        slice_shape: Sequence[int] | None,
        array: np.ndarray[Any, Any],
        /,
    ) -> None:
        """Writes a slice from a C-contiguous array."""

    def add_strings(
        self,
        name: bytes,
        shape: Sequence[int],
        offset: Sequence[int] | None,
        slice_shape: Sequence[int] | None,
        strings: list[bytes | str],
        /,
    ) -> None:
        """Writes a slice of strings; a str is written as UTF-8."""

    def begin(
        self,
        name: bytes,
        type_number: int,
        shape: Sequence[int],
        offset: Sequence[int] | None,
        slice_shape: Sequence[int] | None,
        item_size: int,
        /,
    ) -> SliceWriter:
        """Begins a slice whose bytes arrive in parts."""

    def copy(
        self,
        tensors: list[tuple[Tensor, bytes]],
        progress: Callable[[int, int], object] | None,
        done: int,
        total: int,
        /,
    ) -> None:
        """Copies tensors with their slices and checksums, under new names."""

    @staticmethod
    def can_copy(tensor: Tensor, /) -> bool:
        """Returns whether `copy` can copy a tensor; if not, it must be converted."""

    def publish(self) -> None:
        """Gives all files their names."""

    def close(self) -> None:
        """Removes all files that were not published. Later calls raise ValueError."""
