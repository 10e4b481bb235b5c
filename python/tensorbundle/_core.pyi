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

def full_names(
    checkpoint: Checkpoint, object_graph: bytes
) -> tuple[list[tuple[str, str, bool]], bool]:
    """The names in a serialized TrackableObjectGraph.

    Returns:
        (full name, key, whether the checkpoint has that key) of each attribute that has both; and
        whether the whole graph is well-formed.
    """

def similar_names(name: bytes, candidates: list[str], *, count: int, least: float) -> list[str]:
    """The candidates most similar to `name`, best first: at most `count`, from `least` (0 to 1) on.

    Takes milliseconds for 100,000 candidates. Names are compared by their first 256 bytes.
    """

@final
class Checkpoint:
    """An open checkpoint. Tensors are named by their index in the order of names. Thread-safe."""

    @staticmethod
    def open_bundle(prefix: bytes, io: str) -> Checkpoint:
        """Opens a V2 checkpoint."""

    @staticmethod
    def open_v1(files: Sequence[bytes], io: str) -> Checkpoint:
        """Opens the table, or all the shards, of a V1 checkpoint."""

    def __len__(self) -> int: ...
    @property
    def index_checksum(self) -> int:
        """CRC32C of the index file."""

    @property
    def warnings(self) -> list[str]:
        """What is odd but harmless."""

    @property
    def big_endian(self) -> bool:
        """Whether the tensors are stored big-endian."""

    def find(self, name: bytes) -> int | None:
        """The index of a tensor."""

    def names(self) -> list[str]:
        """All names, in order."""

    def listing(self, names: list[str]) -> list[tuple[int, str, tuple[int, ...], int]]:
        """(index, name, shape, type number) of every tensor. `names` is what ``names`` returned."""

    def shape_map(self, names: list[str]) -> dict[str, list[int]]:
        """Names to shapes."""

    def type_map(
        self, names: list[str], dtypes: tuple[np.dtype[Any], ...]
    ) -> dict[str, np.dtype[Any]]:
        """Names to ``dtypes[type number]``, the last of them for numbers beyond."""

    def name(self, index: int) -> str: ...
    def shape(self, index: int) -> tuple[int, ...]: ...
    def type_number(self, index: int) -> int: ...
    def slices(self, index: int) -> list[tuple[tuple[int, ...], tuple[int, ...], str, int, int]]:
        """(starts, lengths, file, offset, nbytes) of every stored piece."""

    def problem(self, index: int) -> tuple[str, str] | None:
        """Why a tensor cannot be read, checksums aside: in two words, and in a sentence."""

    def view(self, index: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any] | str:
        """A read-only array over the mapping, or why there can be none."""

    def view_slice(
        self, index: int, slice: int, dtype: np.dtype[Any]
    ) -> np.ndarray[Any, Any] | str:
        """The same, of one stored piece."""

    def copy_on_write(self, index: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any] | str:
        """A writable array over a private mapping, or why there can be none."""

    def slices_of_box(
        self, index: int, starts: Sequence[int], lengths: Sequence[int]
    ) -> list[tuple[int, list[int], list[int], list[int], list[int]]]:
        """(piece, its starts and lengths, starts and lengths of what the box takes of it)."""

    def require_box(self, index: int, starts: Sequence[int], lengths: Sequence[int]) -> None:
        """Raises what reading the box would raise before memory is needed for it."""

    def read(
        self,
        index: int,
        starts: Sequence[int],
        lengths: Sequence[int],
        out: np.ndarray[Any, Any],
        *,
        threads: int,
        verify: bool,
    ) -> None:
        """Copies a box into `out`, which is C-contiguous and has its size."""

    def read_strings(self, index: int, slice: int, *, verify: bool) -> list[bytes]:
        """The elements of one stored piece of strings or variants."""

    def verify(
        self,
        indices: Sequence[int],
        *,
        threads: int,
        progress: Callable[[int, int], object] | None = None,
    ) -> tuple[int, list[tuple[int, str, int, int, str, str, int]]]:
        """Bytes that were read; (tensor, file, offset, nbytes, message, cause, errno) of what is
        wrong.
        """

@final
class Rows:
    """Where the rows of one tensor lie."""

    @staticmethod
    def of(checkpoint: Checkpoint, index: int) -> Rows:
        """The rows of a tensor that has some."""

    def take(
        self,
        ids: np.ndarray[Any, Any],
        out: np.ndarray[Any, Any],
        fill_kind: str,
        fill: np.ndarray[Any, Any],
        *,
        threads: int,
    ) -> None:
        """Copies rows to `out`. `fill_kind`: "none", "element", "row" or "rows"."""

    @property
    def has_faults(self) -> bool:
        """Whether some rows cannot be read."""

    def check_take(self, ids: np.ndarray[Any, Any], fill_kind: str, *, threads: int) -> None:
        """Raises what `take` would raise for the numbers."""

    def check_remap(
        self,
        rows: np.ndarray[Any, Any] | None,
        num_rows: int,
        columns: np.ndarray[Any, Any] | None,
        *,
        threads: int,
    ) -> None:
        """Raises what `remap` would raise for the numbers."""

    def remap(
        self,
        rows: np.ndarray[Any, Any] | None,
        num_rows: int,
        columns: np.ndarray[Any, Any] | None,
        fill: np.ndarray[Any, Any],
        fill_is_element: bool,
        out: np.ndarray[Any, Any],
        out_stride: int,
        *,
        threads: int,
    ) -> None:
        """Writes remapped rows to `out`, `out_stride` bytes from one to the next."""

def missing_cells(
    checkpoint: Checkpoint,
    index: int,
    rows: np.ndarray[Any, Any] | None,
    num_rows: int,
    columns: np.ndarray[Any, Any] | None,
    *,
    threads: int,
) -> int:
    """Elements that a remapped table has and its source has not."""

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

def check_rows(checkpoint: Checkpoint, index: int) -> int:
    """Bytes of a row of a tensor of fixed-size elements, all of whose pieces are there."""

def in_file_order(checkpoint: Checkpoint, tensors: Sequence[int]) -> list[int]:
    """The tensors as they lie in their files."""

@final
class Stream:
    """Arrays that are read ahead on a thread. Thread-safe; useless in a forked child."""

    @staticmethod
    def open(
        checkpoint: Checkpoint,
        tensors: Sequence[int],
        *,
        rows: int,
        max_ahead: int,
        outs: Sequence[np.ndarray[Any, Any]],
        dtypes: tuple[np.dtype[Any], ...],
        threads: int,
        verify: bool,
    ) -> Stream:
        """Arrays of `rows` rows (0: of whole tensors), or `outs` in turn."""

    def next(self) -> tuple[int, int, int, np.ndarray[Any, Any] | int | None]:
        """(tensor, first row, rows, array), or which of the outs; None: it was not read."""

    def close(self) -> None:
        """Ends the thread."""

def ranges_of_box(
    checkpoint: Checkpoint, index: int, starts: Sequence[int], lengths: Sequence[int]
) -> np.ndarray[Any, Any]:
    """(file number, offset, size) of every range that a box takes: uint64, three columns."""

def ranges_of_rows(
    checkpoint: Checkpoint, index: int, rows: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """The same of rows."""

def inspect_ranges(
    checkpoint: Checkpoint, index: int, ranges: np.ndarray[Any, Any]
) -> dict[str, int]:
    """What those ranges meet: pieces, whole, verified, bytes, touched, probed, resident, direct."""

def file_paths(checkpoint: Checkpoint) -> list[str]:
    """The data files, by number."""

def align(
    source: bytes,
    destination: bytes,
    *,
    alignment: int,
    threads: int,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[int, int, int, int]:
    """Writes a checkpoint anew: (pieces, moved, data bytes before, data bytes after)."""
