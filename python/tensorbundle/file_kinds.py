# SPDX-License-Identifier: Apache-2.0
"""What a file is that is not a checkpoint's, told from its first and last bytes.

A description is a predicate that fits behind the file's name, with what to do: ``is a Git-LFS
pointer, not the file itself: run 'git lfs pull' in its repository``.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tensorbundle import _core

# The last eight bytes of every table file, V1's and V2's index alike.
TABLE_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")

_END_BYTES = 4096  # as many of each end of a file as are looked at
_RECORD_BYTES = 16  # enough for the beginning of a table's first record
_SHORT_TEXT = 200  # bytes of a text that a message can quote


@dataclass(frozen=True)
class Ends:
    """The first and the last bytes of a file.

    Attributes:
        head: The first bytes.
        tail: The last bytes.
        size: Of the file.
    """

    head: bytes
    tail: bytes
    size: int

    @property
    def is_table(self) -> bool:
        """Whether the file ends as V1 files and the indexes of V2 do."""
        return self.tail.endswith(TABLE_MAGIC)


def ends_of(path: str, count: int = _END_BYTES) -> Ends | None:
    """Return both ends of a regular file; None for anything else, and what cannot be read.

    Never waits: not for the writer of a pipe either.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        # Another file may have taken the name by now.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None  # whoever opens it next says why, with the system's own reason
    try:
        size = os.fstat(descriptor).st_size
        head = os.pread(descriptor, count, 0)
        tail = os.pread(descriptor, count, max(0, size - count))
        return Ends(head, tail, size)
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):  # it was only read; the descriptor is gone all the same
            os.close(descriptor)


def is_v1_file(path: str) -> bool:
    """Whether a file is a V1 checkpoint, or a shard of one, by its first and last bytes."""
    ends = ends_of(path, _RECORD_BYTES)
    return ends is not None and ends.is_table and not is_renamed_index(ends.head)


def is_foreign_index(path: str) -> bool:
    """Whether a file that is called as an index is one of another program.

    It neither begins nor ends as an index does, and is not what becomes of one in a download or a
    repository. A file that cannot be read may be an index.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return True
    except (OSError, ValueError):
        return False
    ends = ends_of(path)
    if ends is None or ends.is_table or is_renamed_index(ends.head):
        return False
    return not any(pattern.match(ends.head) for pattern, _ in _TEXTS)


def kind_of_file(path: str) -> str | None:
    """Describe a file by its ends; None if it may be a checkpoint's, or is not known."""
    ends = ends_of(path)
    return None if ends is None or ends.is_table else kind_of(ends.head, ends.tail, ends.size)


def is_renamed_index(head: bytes) -> bool:
    """Whether a table that begins so is the index of a V2 checkpoint, and not a V1 file.

    The first record of both has the empty key. Its value begins with the first field of its
    message: a number of shards in V2, a message in V1.
    """
    # Shared bytes of the key, other bytes of the key, and the value's size, a varint.
    match = re.match(rb"\0\0[\x80-\xff]{0,4}[\0-\x7f]([\x08\x0a])", head)
    return match is not None and match[1] == b"\x08"


def kind_of(head: bytes, tail: bytes = b"", size: int | None = None) -> str | None:
    """Describe a file that is not a table.

    Args:
        head: Its first bytes, or all of them.
        tail: Its last bytes.
        size: Its size; that of `head` if None.
    """
    size = len(head) if size is None else size
    if size == 0:
        return "is empty (0 bytes): the copy or the download did not finish"
    for pattern, description in _TEXTS:
        if pattern.match(head):
            return description
    if _XML.match(head):
        return _describe_xml(head)
    for signature, description in _SIGNATURES:
        if head.startswith(signature):
            return description
    if head.startswith(_ZIP):
        return _describe_zip(head, tail)
    if any(head.startswith(_HDF5, at) for at in (0, 512, 1024, 2048)):
        return "is an HDF5 file (Keras weights), not a checkpoint: h5py reads it"
    if head.startswith(b"ustar", 257):
        return "is a tar archive: unpack it first"
    if _UTF16.match(head):
        return "is UTF-16 text, as a redirect of PowerShell writes it: convert it to UTF-8"
    if _PICKLE.match(head):
        return _describe_pickle(head)
    if _is_safetensors(head, size):
        return (
            "is a safetensors file, not a TensorFlow checkpoint: the safetensors package reads it"
        )
    if _is_records(head):
        return "is a TFRecord file (training data or summaries), not a checkpoint"
    if _MSGPACK.match(head):
        return "is a msgpack file, as Flax and T5X write checkpoints: flax or t5x reads it"
    if _JSON.match(head):
        return "is JSON text, not a checkpoint"
    if not head.strip(b"\0") and not tail.strip(b"\0"):
        return "begins and ends with zero bytes only: the copy or the download did not finish"
    return None


_TEXTS = (
    (
        re.compile(rb"version https://git-lfs"),
        "is a Git-LFS pointer, not the file itself: run 'git lfs pull' in its repository",
    ),
    (
        re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+)?html", re.IGNORECASE),
        "is an HTML page, not a checkpoint: the download went wrong",
    ),
)
_SIGNATURES = (
    (b"\x93NUMPY", "is a NumPy array (.npy), not a checkpoint: numpy.load reads it"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it first, with gunzip or tar"),
    (b"BZh", "is compressed with bzip2: unpack it first, with bunzip2 or tar"),
    (b"\xfd7zXZ\0", "is compressed with xz: unpack it first, with unxz or tar"),
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard: unpack it first, with unzstd or tar"),
    (b"\x04\x22\x4d\x18", "is compressed with LZ4: unpack it first, with unlz4"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it first"),
    (b"Rar!\x1a\x07", "is a RAR archive: unpack it first"),
    (b"GGUF", "is a GGUF file (llama.cpp), not a TensorFlow checkpoint"),
    (b"PAR1", "is a Parquet file, not a checkpoint"),
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_UTF16 = re.compile(rb"(?:\xff\xfe)?(?:[\t\n\r -~]\0){4}|(?:\xfe\xff)?(?:\0[\t\n\r -~]){4}")
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml\b|Error\b)")
# Protocols 2 to 5 with the opcodes that a pickle begins with; and what begins protocol 0.
_PICKLE = re.compile(
    rb"\x80[\x02-\x05][}\](c\x8aXUVKMJGN)\x85-\x87\x88\x89\x8c\x8e\x8f\x95]"
    rb"|\(dp\d|\(lp\d|ccollections\n|ccopy_reg\n|cnumpy[.\w]*\n",
    re.DOTALL,
)
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# A map of a few items, the first key of which is a short string.
_MSGPACK = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa1-\xbf]|\xd9.)[\w./-]", re.DOTALL)
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*[\"}]|\[\s*[\[{\"\d-])")


def _describe_xml(head: bytes) -> str:
    if re.search(rb"<html\b", head[:1024], re.IGNORECASE):
        return "is an HTML page, not a checkpoint: the download went wrong"
    code = re.search(rb"<Code>([\w.-]{1,60})</Code>", head)
    if code is None:
        return "is an XML document, not a checkpoint: the download went wrong"
    answer = code[1].decode("ascii", "replace")
    return f"is an error message of the server that it was loaded from ({answer}), not a checkpoint"


def _describe_zip(head: bytes, tail: bytes) -> str:
    names = list(_names_in_zip(head, tail))
    if any(name.endswith("data.pkl") for name in names):
        return "is a PyTorch file (zip), not a TensorFlow checkpoint: torch.load reads it"
    if {"config.json", "metadata.json", "model.weights.h5"} & set(names):
        return "is a Keras 3 model (.keras), not a checkpoint: keras.saving.load_model reads it"
    if any(name.endswith(".npy") for name in names):
        return "is a NumPy archive (.npz), not a checkpoint: numpy.load reads it"
    return "is a zip archive: unpack it first"


def _names_in_zip(head: bytes, tail: bytes) -> Iterator[str]:
    """The first file's name, and those of the central directory's end."""
    if head.startswith(b"PK\x03\x04") and len(head) >= 30:
        yield _zip_name(head, 30, 26)
    at = tail.find(b"PK\x01\x02")
    while at >= 0 and at + 46 <= len(tail):
        yield _zip_name(tail, at + 46, at + 28)
        at = tail.find(b"PK\x01\x02", at + 4)


def _zip_name(data: bytes, begin: int, size_at: int) -> str:
    (size,) = struct.unpack_from("<H", data, size_at)
    return data[begin : begin + size].decode("utf-8", "replace")


def _describe_pickle(head: bytes) -> str:
    if _TORCH_MAGIC in head[:32]:
        return "is a PyTorch file, not a TensorFlow checkpoint: torch.load reads it"
    return (
        "is a Python pickle, as PyTorch and others write it, not a TensorFlow checkpoint: "
        "torch.load(..., weights_only=True) reads PyTorch's"
    )


def _is_safetensors(head: bytes, size: int) -> bool:
    """A size, and a JSON object of that size."""
    if len(head) < 10 or head[8:9] != b"{":
        return False
    header = int.from_bytes(head[:8], "little")
    return 2 <= header <= size - 8 and head[9:].lstrip()[:1] in (b'"', b"}")


def _is_records(head: bytes) -> bool:
    """A size, and its masked checksum."""
    if len(head) < 12:
        return False
    checksum = _core.crc32c(head[:8])
    masked = (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    return masked == int.from_bytes(head[8:12], "little")


def quoted_text(head: bytes, size: int) -> str | None:
    """Describe a short file of text, such as ``404: Not Found``, by the text; else None."""
    if size > _SHORT_TEXT:
        return None
    try:
        text = head.decode("ascii").strip()
    except UnicodeDecodeError:
        return None
    words = " ".join(text.split())
    return f"has nothing but the text {words!r}" if words.isprintable() and words else None
