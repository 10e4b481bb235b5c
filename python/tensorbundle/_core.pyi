# SPDX-License-Identifier: Apache-2.0
"""The C++ core. Private: what it offers changes with its callers."""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from typing_extensions import Buffer

version: str

def crc32c(data: Buffer, value: int = 0) -> int:
    """The CRC32C of `data`, or of what had the checksum `value` followed by `data`."""

def crc32c_combine(first: int, second: int, second_size: int) -> int:
    """The CRC32C of two byte strings joined, from theirs and the size of the second."""

def crc32c_implementation() -> str:
    """The name of the CRC32C that this processor runs."""

def available_processors() -> int:
    """Processors that the process may use, by its affinity and its cgroup's quota."""

def dlpack_capsule(
    array: np.ndarray[Any, Any], *, code: int, bits: int, versioned: bool, copied: bool
) -> object:
    """A DLPack capsule that shows `array` and keeps it alive."""

def similar_names(name: bytes, candidates: list[str], *, count: int, least: float) -> list[str]:
    """The candidates most similar to `name`, best first: at most `count`, from `least` (0 to 1) on.

    Takes milliseconds for 100,000 candidates. Names are compared by their first 256 bytes.
    """

def set_dtypes(dtypes: tuple[np.dtype[Any], ...], converted: Sequence[int]) -> None:
    """Sets the dtype of every type number, the last one for numbers beyond.

    `converted` are the numbers whose stored bytes are not the elements that are handed out.
    """

def set_default_threads(threads: int) -> None:
    """Sets the threads of calls on checkpoints without their own number; 0: all processors."""

def default_threads() -> int:
    """What `set_default_threads` set."""

@final
class Names:
    """The names of a checkpoint, without its files."""

    def __call__(self) -> list[str]:
        """All names, in order."""

@final
class Checkpoint:
    """An open checkpoint. Thread-safe. After `close`, all but `closed` raises ValueError."""

    @staticmethod
    def open_bundle(prefix: bytes, *, io: str, name: str, verify: bool, threads: int) -> Checkpoint:
        """Opens a V2 checkpoint. `name` is for messages; `threads` is 0 for the default."""

    @staticmethod
    def open_v1(
        files: Sequence[bytes], *, io: str, name: str, verify: bool, threads: int
    ) -> Checkpoint:
        """Opens the table, or all the shards, of a V1 checkpoint."""

    def close(self) -> None:
        """Releases the files."""

    @property
    def closed(self) -> bool: ...
    @property
    def threads(self) -> int:
        """Threads of a call."""

    def __len__(self) -> int: ...
    @property
    def index_checksum(self) -> int:
        """CRC-32C of the index file."""

    @property
    def big_endian(self) -> bool:
        """Whether the tensors are stored big-endian."""

    @property
    def warnings(self) -> list[str]:
        """What is unusual but not an error."""

    def has(self, name: str | bytes) -> bool:
        """Whether there is a tensor of that key."""

    def find(self, name: str | bytes) -> Tensor | None:
        """The tensor of that key."""

    def find_handle(
        self, name: str | bytes
    ) -> tuple[str, tuple[int, ...], np.dtype[Any], Tensor, int, int] | None:
        """(name, shape, dtype, tensor, index, type number) of the tensor of that key."""

    def bind_tensor(
        self, index: int, type_number: int, name: str, shape: tuple[int, ...]
    ) -> Tensor:
        """The tensor of a row of `handles`. Also after `close`."""

    def get_tensor(self, name: str | bytes) -> Any:
        """`Tensor.read_whole` of the tensor of that key; None if there is no such tensor."""

    def full_names(self, object_graph: bytes) -> tuple[list[tuple[str, str, bool]], bool]:
        """The names in a serialized TrackableObjectGraph.

        Returns:
            (full name, key, whether the checkpoint has that key) of each attribute that has both;
            and whether the whole graph is well-formed.
        """

    def names(self) -> list[str]:
        """All names, in order."""

    def detached_names(self) -> Names:
        """The names, for users that outlive the checkpoint."""

    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of their names."""

    def listing(self, names: list[str]) -> list[tuple[str, tuple[int, ...], int]]:
        """(name, shape, type number) of every tensor. `names` is what ``names`` returned."""

    def handles(
        self, names: list[str]
    ) -> list[tuple[str, tuple[int, ...], np.dtype[Any], None, int, int]]:
        """(name, shape, dtype, None, index, type number) of every tensor, for `bind_tensor`."""

    def shape_map(self, names: list[str]) -> dict[str, list[int]]:
        """Names to shapes."""

    def type_map(self, names: list[str]) -> dict[str, np.dtype[Any]]:
        """Names to dtypes."""

    def verify(
        self,
        tensors: Sequence[Tensor] | None,
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> tuple[int, list[tuple[str, str, int, int, str, str, int]]]:
        """Compares the checksums of tensors, or of all if None.

        Returns:
            The bytes that were read; (name, file, offset, nbytes, message, cause, errno) of every
            error.
        """

@final
class Tensor:
    """A tensor of an open checkpoint. Thread-safe.

    The attributes up to ``index`` stay valid when the checkpoint is closed; everything else raises
    ValueError then. Boxes are given by their offset and shape, one number per axis.
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
        """The position in the order of names."""

    @property
    def checkpoint_id(self) -> int:
        """A number that identifies the open checkpoint while a tensor of it exists."""

    @property
    def verify(self) -> bool:
        """Whether reads compare checksums."""

    @property
    def threads(self) -> int:
        """Threads of a call."""

    @property
    def io(self) -> str:
        """``"auto"``, ``"mmap"``, ``"pread"`` or ``"direct"``."""

    @property
    def nbytes(self) -> int:
        """Bytes of the stored slices."""

    @property
    def is_decoded(self) -> bool:
        """Whether V1 slices must be decoded before their bytes are elements of fixed size."""

    def file_paths(self) -> list[str]:
        """The data files of the checkpoint, by number."""

    def slices(
        self,
    ) -> list[tuple[tuple[int, ...], tuple[int, ...], str, int, int, int | None]]:
        """(offset, shape, file, offset in the file, nbytes, CRC-32C) of every stored slice."""

    def error(self) -> tuple[str, str] | None:
        """Why a tensor cannot be read, checksums aside: in two words, and in a sentence."""

    def view(self) -> np.ndarray[Any, Any] | None:
        """A read-only array over the mapping; None if there can be none: see `view_obstacle`."""

    def view_obstacle(self) -> str | None:
        """Why there can be no view."""

    def view_box(self, offset: Sequence[int], shape: Sequence[int]) -> np.ndarray[Any, Any] | None:
        """A read-only array over a box inside one stored slice; None if there can be none."""

    def locate_box(self, offset: Sequence[int], shape: Sequence[int]) -> tuple[str, int, str]:
        """(file, offset in the file, "") of a box in one range of a file; else ("", 0, reason).

        Checks no file.
        """

    def copy_on_write(self) -> np.ndarray[Any, Any] | None:
        """A writable array over a private mapping; None if there can be no view."""

    def check_box(self, offset: Sequence[int], shape: Sequence[int]) -> None:
        """Raises what reading the box would raise before memory is needed for it."""

    def read(self, offset: Sequence[int], shape: Sequence[int], out: np.ndarray[Any, Any]) -> None:
        """Copies a box into `out`, which is C-contiguous and has its size."""

    def read_whole(self) -> Any:
        """All elements: a new array, or a NumPy scalar for rank 0.

        None for elements that Python must convert: strings, unknown and sign-extended types.
        """

    def read_string_slice(self, number: int) -> np.ndarray[Any, Any]:
        """The elements of one stored slice of strings or variants: an array of bytes objects."""

    def read_string_box(self, offset: Sequence[int], shape: Sequence[int]) -> np.ndarray[Any, Any]:
        """The strings of a box."""

    def read_string_rows(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The strings of rows: ascending numbers, int64, without repetition."""

    @property
    def has_row_errors(self) -> bool:
        """Whether some rows cannot be read."""

    def take(
        self,
        ids: np.ndarray[Any, Any],
        out: np.ndarray[Any, Any] | None,
        fill_kind: str,
        fill_values: np.ndarray[Any, Any],
    ) -> np.ndarray[Any, Any]:
        """Copies rows to `out`, or a new array. `fill_kind`: "none", "element", "row", "rows"."""

    def check_remap(
        self,
        rows: np.ndarray[Any, Any] | None,
        num_rows: int,
        columns: np.ndarray[Any, Any] | None,
    ) -> None:
        """Raises what `remap` would raise for the numbers."""

    def missing_cells(
        self,
        rows: np.ndarray[Any, Any] | None,
        num_rows: int,
        columns: np.ndarray[Any, Any] | None,
    ) -> int:
        """The number of elements that the remapped table has and this tensor does not."""

    def remap(
        self,
        rows: np.ndarray[Any, Any] | None,
        num_rows: int,
        columns: np.ndarray[Any, Any] | None,
        fill_values: np.ndarray[Any, Any],
        fill_is_element: bool,
        out: np.ndarray[Any, Any],
        out_stride: int,
    ) -> None:
        """Writes remapped rows to `out`, `out_stride` bytes from one to the next."""

    def row_size(self) -> int:
        """Bytes of a row. Raises what streaming would raise before it reads."""

    def ranges_of_box(self, offset: Sequence[int], shape: Sequence[int]) -> np.ndarray[Any, Any]:
        """(file number, offset, size) of every range that a box takes: uint64, three columns."""

    def ranges_of_rows(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The same of rows."""

    def inspect_ranges(self, ranges: np.ndarray[Any, Any]) -> dict[str, int]:
        """Counts for ranges: slices, whole, verified, bytes, touched, probed, resident, direct."""

@final
class Stream:
    """Arrays that are read ahead on a thread. Thread-safe; a forked child cannot use it."""

    @staticmethod
    def of_tensors(checkpoint: Checkpoint, tensors: Sequence[Tensor], *, max_ahead: int) -> Stream:
        """Whole tensors, in the order of their files."""

    @staticmethod
    def of_rows(
        tensor: Tensor, *, rows: int, max_ahead: int, outs: Sequence[np.ndarray[Any, Any]]
    ) -> Stream:
        """`rows` rows at a time, in new arrays or in `outs` in turn."""

    def next(self) -> tuple[int, int, int, np.ndarray[Any, Any] | int | None]:
        """(index of the tensor, first row, rows, array).

        In place of the array: the number of the one of `outs`, or None for strings.
        """

    def close(self) -> None:
        """Ends the thread."""

@final
class Vocabulary:
    """Tokens in rows."""

    @staticmethod
    def of_file(path: bytes) -> Vocabulary:
        """Opens a file of lines. It is read when it is joined."""

    @staticmethod
    def of_tokens(name: str, text: bytes, offsets: np.ndarray[Any, Any]) -> Vocabulary:
        """Copies tokens that lie one behind the other."""

def join(
    new_vocabulary: Vocabulary, old_vocabulary: Vocabulary, *, old_size: int, threads: int
) -> tuple[np.ndarray[Any, Any], int]:
    """The old row of every new one, or -1; and how many are present."""

def align(
    source: bytes,
    destination: bytes,
    *,
    alignment: int,
    threads: int,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[int, int, int, int]:
    """Rewrites a checkpoint: (slices, moved, data bytes before, data bytes after)."""
