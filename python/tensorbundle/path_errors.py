# SPDX-License-Identifier: Apache-2.0
"""Messages for paths that are not checkpoints, and recognition of files of other programs.

The first and last bytes of a file identify its kind. A message describes the path and the path to
pass instead.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorbundle import _core, naming
from tensorbundle.filenames import (
    INDEX_SUFFIX,
    data_file_prefix,
    listing_error,
    names_in,
    printable,
    url_without_slash,
    v1_pattern,
    v1_shard_parts,
)

# The last eight bytes of every table file: V1 checkpoints and V2 indexes.
TABLE_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")

_END_BYTES = 4096  # the number of bytes read at each end of a file
_RECORD_BYTES = 16  # enough for the start of a table's first record
_MAX_QUOTED_BYTES = 200  # the longest text file that a message quotes

# Patterns and signatures of file kinds, with the predicates that describe them.
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
# Protocols 2 to 5 with their possible first opcodes, and the possible first bytes of protocol 0.
_PICKLE = re.compile(
    rb"\x80[\x02-\x05][}\](c\x8aXUVKMJGN)\x85-\x87\x88\x89\x8c\x8e\x8f\x95]"
    rb"|\(dp\d|\(lp\d|ccollections\n|ccopy_reg\n|cnumpy[.\w]*\n",
    re.DOTALL,
)
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# A map of a few items whose first key is a short string.
_MSGPACK = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa1-\xbf]|\xd9.)[\w./-]", re.DOTALL)
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*[\"}]|\[\s*[\[{\"\d-])")


@dataclass(frozen=True)
class Ends:
    """The first and the last bytes of a file.

    Attributes:
        head: The first bytes.
        tail: The last bytes.
        size: The size of the file.
    """

    head: bytes
    tail: bytes
    size: int

    @property
    def is_table(self) -> bool:
        """Whether the file ends with the magic number of V1 files and V2 indexes."""
        return self.tail.endswith(TABLE_MAGIC)


def read_ends(path: str, count: int = _END_BYTES) -> Ends | None:
    """Return both ends of a regular file; None for other files and unreadable ones.

    Does not block, not even for a pipe.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        # O_NONBLOCK, because the file may have been replaced by a pipe since stat().
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None  # the reader that opens the file later reports the system's error
    try:
        size = os.fstat(descriptor).st_size
        head = os.pread(descriptor, count, 0)
        tail = os.pread(descriptor, count, max(0, size - count))
        return Ends(head, tail, size)
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):  # close() frees the descriptor even if it fails
            os.close(descriptor)


def is_v1_file(path: str) -> bool:
    """Return whether the first and last bytes are those of a V1 checkpoint or a shard of one."""
    ends = read_ends(path, _RECORD_BYTES)
    return ends is not None and ends.is_table and not is_renamed_index(ends.head)


def is_foreign_index(path: str) -> bool:
    """Return whether a file with the name of an index belongs to another program.

    Such a file neither begins nor ends like an index, and is not the result of a failed download or
    checkout. An unreadable file is assumed to be an index.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return True
    except (OSError, ValueError):
        return False
    ends = read_ends(path)
    if ends is None or ends.is_table or is_renamed_index(ends.head):
        return False
    return not any(pattern.match(ends.head) for pattern, _ in _TEXTS)


def describe_file(path: str) -> str | None:
    """Describe a file by its ends; None if it may belong to a checkpoint, or is of unknown kind."""
    ends = read_ends(path)
    if ends is None or ends.is_table:
        return None
    return describe_content(ends.head, ends.tail, ends.size)


def is_renamed_index(head: bytes) -> bool:
    """Return whether the head of a table is that of a V2 index, not of a V1 file.

    The first record of both has the empty key. Its value begins with the first field of a message:
    the number of shards in V2, a submessage in V1.
    """
    # The record: shared and unshared sizes of the key, the value's size (a varint), and the tag.
    match = re.match(rb"\0\0[\x80-\xff]{0,4}[\0-\x7f]([\x08\x0a])", head)
    return match is not None and match[1] == b"\x08"


def describe_content(head: bytes, tail: bytes = b"", size: int | None = None) -> str | None:
    """Describe the content of a file that is not a table; None if its kind is unknown.

    Args:
        head: The first bytes, or all bytes.
        tail: The last bytes.
        size: The size of the file; that of `head` if None.
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
    if any(head.startswith(_HDF5, offset) for offset in (0, 512, 1024, 2048)):
        return "is an HDF5 file (Keras weights), not a checkpoint: h5py reads it"
    if head.startswith(b"ustar", 257):
        return "is a tar archive: unpack it first"
    if _UTF16.match(head):
        return "is UTF-16 text, probably redirected by PowerShell: convert it to UTF-8"
    if _PICKLE.match(head):
        return _describe_pickle(head)
    if _is_safetensors(head, size):
        return (
            "is a safetensors file, not a TensorFlow checkpoint: the safetensors package reads it"
        )
    if _is_tfrecord(head):
        return "is a TFRecord file (training data or summaries), not a checkpoint"
    if _MSGPACK.match(head):
        return "is a msgpack file, as Flax and T5X write checkpoints: flax or t5x reads it"
    if _JSON.match(head):
        return "is JSON text, not a checkpoint"
    if not head.strip(b"\0") and not tail.strip(b"\0"):
        return "begins and ends with zero bytes only: the copy or the download did not finish"
    return None


def _describe_xml(head: bytes) -> str:
    if re.search(rb"<html\b", head[:1024], re.IGNORECASE):
        return "is an HTML page, not a checkpoint: the download went wrong"
    code = re.search(rb"<Code>([\w.-]{1,60})</Code>", head)
    if code is None:
        return "is an XML document, not a checkpoint: the download went wrong"
    error_code = code[1].decode("ascii", "replace")
    return f"is an error message of the server it was loaded from ({error_code}), not a checkpoint"


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
    """Yield the name of the first file, and the names at the end of the central directory."""
    if head.startswith(b"PK\x03\x04") and len(head) >= 30:
        yield _zip_name(head, 30, 26)
    offset = tail.find(b"PK\x01\x02")
    while offset >= 0 and offset + 46 <= len(tail):
        yield _zip_name(tail, offset + 46, offset + 28)
        offset = tail.find(b"PK\x01\x02", offset + 4)


def _zip_name(data: bytes, start: int, size_offset: int) -> str:
    (size,) = struct.unpack_from("<H", data, size_offset)
    return data[start : start + size].decode("utf-8", "replace")


def _describe_pickle(head: bytes) -> str:
    if _TORCH_MAGIC in head[:32]:
        return "is a PyTorch file, not a TensorFlow checkpoint: torch.load reads it"
    return (
        "is a Python pickle, such as PyTorch writes, not a TensorFlow checkpoint: "
        "torch.load(..., weights_only=True) reads PyTorch's"
    )


def _is_safetensors(head: bytes, size: int) -> bool:
    """Return whether a file begins with a size and a JSON object that may have that size."""
    if len(head) < 10 or head[8:9] != b"{":
        return False
    header = int.from_bytes(head[:8], "little")
    return 2 <= header <= size - 8 and head[9:].lstrip()[:1] in (b'"', b"}")


def _is_tfrecord(head: bytes) -> bool:
    """Return whether a file begins with a size and the masked checksum of the size."""
    if len(head) < 12:
        return False
    checksum = _core.crc32c(head[:8])
    masked = (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    return masked == int.from_bytes(head[8:12], "little")


def describe_short_text(head: bytes, size: int) -> str | None:
    """Quote a short text file, such as ``404: Not Found``; None for other files."""
    if size > _MAX_QUOTED_BYTES:
        return None
    try:
        text = head.decode("ascii").strip()
    except UnicodeDecodeError:
        return None
    words = " ".join(text.split())
    return f"has nothing but the text {words!r}" if words.isprintable() and words else None


_MAX_NAMES = 5  # names listed in a message
# Limits that bound the time for a message about a huge directory: files opened to find V1
# checkpoints, indexes opened to find those of other programs, files opened to find other programs'
# files, and subdirectories listed.
_MAX_FILES_OPENED = 500
_MAX_INDEXES_OPENED = 100
_MAX_FOREIGN_OPENED = 50
_MAX_SUBDIRECTORIES = 50

_STATE_FILE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:model_checkpoint_path|all_model_checkpoint_\w+)\s*:"
)
_DATA_FILE = re.compile(r"(?P<prefix>.+)\.data-\d{5,}-of-\d{5,}")
# Suffixes of incomplete downloads.
_UNFINISHED = (".crdownload", ".part", ".partial", ".download", ".opdownload", ".aria2", ".tmp")
# The starts of descriptions that do not identify the program that wrote a directory.
_ANY_FILE = ("is JSON", "is empty", "begins and ends")
_FOREIGN_DIRECTORIES = (
    ({"_CHECKPOINT_METADATA"}, "an Orbax checkpoint (JAX): orbax.checkpoint reads it"),
    ({"manifest.ocdbt"}, "an Orbax checkpoint (JAX): orbax.checkpoint reads it"),
    ({".metadata", "__0_0.distcp"}, "a distributed PyTorch checkpoint: torch reads it"),
)


def prefixes_in(directory: str, names: Sequence[str], limit: int | None = None) -> list[str]:
    """Return the sorted prefixes of the checkpoints in a directory.

    A V2 prefix has an index. If there are several indexes, they are opened to exclude those of
    other programs. V1 files are recognized by their ends, and sharded V1 checkpoints are listed by
    their pattern.

    Args:
        directory: The directory.
        names: The names in it.
        limit: The largest number of files to open in search of V1 files; None for all.
    """
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if 1 < len(indexes) <= _MAX_INDEXES_OPENED:
        # An index of another program must not make the only checkpoint ambiguous.
        real = [name for name in indexes if not is_foreign_index(os.path.join(directory, name))]
        indexes = real or indexes
    found = {name.removesuffix(INDEX_SUFFIX) for name in indexes}
    num_opened = 0
    for name in names:
        parts = v1_shard_parts(name)
        prefix = v1_pattern(parts[0], parts[2]) if parts else name
        if prefix in found or _is_not_v1(name):
            continue
        if limit is not None and num_opened >= limit:
            break
        num_opened += 1
        if is_v1_file(os.path.join(directory, name)):
            found.add(prefix)
    return sorted(found)


def _is_not_v1(name: str) -> bool:
    """Return whether a file cannot be a V1 checkpoint because of its name."""
    return (
        name.endswith((INDEX_SUFFIX, ".meta", ".ldb", ".sst"))  # the last two are LevelDB's
        or ".tempstate" in name
        or data_file_prefix(name) is not None
    )


def no_checkpoint_in(directory: str, problem: str | None = None) -> str:
    """Compose the message for a directory that does not determine a checkpoint.

    Args:
        directory: The directory.
        problem: The error of its state file; None if there is no such file.
    """
    # TensorFlow's sentence comes first, because people search for it.
    sentence = "Couldn't find 'checkpoint' file or checkpoints in given directory"
    text = f"{sentence} {printable(directory)}"
    if problem is not None:
        text += f": {problem}"
    names = names_in(directory)
    prefixes = prefixes_in(directory, names, _MAX_FILES_OPENED)
    if len(prefixes) > 1 and problem is None:
        text += f". It has {len(prefixes)} prefixes and no state file that selects one"
    if prefixes:
        return f"{text}. {list_prefixes(directory, prefixes)}"
    return ". ".join([text, *_hints_for_directory(directory, names)])


def list_prefixes(directory: str, prefixes: Sequence[str]) -> str:
    """Return the sentence that lists the prefixes in a directory."""
    joined = [os.path.join(directory, prefix) for prefix in prefixes]
    return f"Give one of its prefixes: {format_names(joined)}"


def _hints_for_directory(directory: str, names: list[str]) -> list[str]:
    """Return hints about the content of a directory without prefixes."""
    hints = _foreign_hints(directory, names)
    stems = {data_file_prefix(name) or _stem_of_index(name) for name in names} - {None}
    for stem in sorted(filter(None, stems))[:_MAX_NAMES]:
        hints += _partial_hints(directory, stem, names)
    below = _prefixes_below(directory, names)
    if below:
        hints.append(f"Give one of the prefixes in its subdirectories: {below}")
    return hints or [f"It has no file whose name ends in '{INDEX_SUFFIX}' and no V1 checkpoint"]


def _prefixes_below(directory: str, names: list[str]) -> str:
    found = []
    num_listed = 0
    for name in sorted(names, key=lambda name: name != "checkpoint"):
        path = os.path.join(directory, name)
        if num_listed == _MAX_SUBDIRECTORIES:
            break
        if os.path.isdir(path):
            num_listed += 1
            found += [
                os.path.join(path, file.removesuffix(INDEX_SUFFIX))
                for file in names_in(path)
                if file.endswith(INDEX_SUFFIX)
            ]
    return format_names(found) if found else ""


def _foreign_hints(directory: str, names: list[str]) -> list[str]:
    """Return hints about files of other programs in a directory."""
    for marks, description in _FOREIGN_DIRECTORIES:
        if marks <= set(names):
            return [f"It is {description}"]
    hints = []
    for name in names[:_MAX_FOREIGN_OPENED]:
        kind = describe_file(os.path.join(directory, name))
        if kind is not None and not kind.startswith(_ANY_FILE):
            hints.append(f"{name!r} in it {kind}")
    return hints[:2]


def not_found(text: str, also: str | None = None) -> str:
    """Compose the message for a path without a checkpoint, with hints.

    Args:
        text: The path.
        also: Another path that was tried.
    """
    # A path with a trailing slash means a directory, which does not exist.
    prefix = (text.rstrip("/") or text).removesuffix(INDEX_SUFFIX)
    prefix = data_file_prefix(prefix) or prefix
    index = prefix + INDEX_SUFFIX
    message = f"no checkpoint at {text!r}"
    if text.endswith("/"):
        message += ": there is no directory of that name"
        if _is_checkpoint(prefix):
            return f"{message}, but there is a checkpoint: remove the slash, give {prefix!r}"
    else:
        message += f": there is no file {index!r}"
    if prefix == text:
        message += f" (V2) and no file {text!r} (V1)"
    if also is not None:
        message += f", and no checkpoint at {also!r}"
    return ". ".join([message, *_hints_for_path(text, prefix)])


def _hints_for_path(text: str, prefix: str) -> list[str]:
    directory, base = os.path.split(prefix)
    with_slashes = text.replace("\\", "/")
    if with_slashes != text and (_is_checkpoint(with_slashes) or os.path.isdir(with_slashes)):
        return [f"Directories are separated by slashes here: give {with_slashes!r}"]
    url = url_without_slash(text)
    if url is not None:
        return [f"It looks like the URL {url!r} without a slash, and only local paths can be read"]
    if not os.path.isdir(directory or os.curdir):
        return [_missing_directory(directory)]
    error = listing_error(directory)
    if error is not None:
        return [f"The directory {directory!r} cannot be listed ({error})"]
    names = names_in(directory)
    links = (describe_dangling_link(prefix + INDEX_SUFFIX), describe_dangling_link(prefix))
    hints = [hint for hint in links if hint]
    hints += _partial_hints(directory, base, names)
    if not hints and any(character in base for character in "*?["):
        hints.append("Patterns are not expanded, except V1's '-?????-of-NNNNN'")
    return hints or _near_hints(directory, base, names)


def describe_wrong_file(path: str, version: int) -> str | None:
    """Describe a file that is not the expected file of a checkpoint; None if it may be.

    Reads at most 4 KiB of each end. Only regular files are read: the reader rejects others.

    Args:
        path: The file.
        version: 2 for the index of a V2 checkpoint, 1 for a V1 file.
    """
    ends = read_ends(path)
    if ends is None:
        return None
    if ends.is_table:
        return _describe_wrong_table(path, ends.head) if version == 1 else None
    if path.endswith(".meta"):
        prefix = path.removesuffix(".meta")
        return (
            f"{path!r} contains a graph (MetaGraphDef), not tensors: give the prefix {prefix!r}, "
            f"whose tensors are in {prefix + INDEX_SUFFIX!r} and the '.data-' files next to it"
        )
    if os.path.basename(path) in ("saved_model.pb", "saved_model.pbtxt"):
        return f"{path!r} is the graph of a SavedModel: give its directory instead"
    if _STATE_FILE.match(ends.head):
        return (
            f"{path!r} is the state file of a directory, not a checkpoint: give the directory, "
            "or a prefix from the file"
        )
    kind = describe_content(ends.head, ends.tail, ends.size)
    kind = kind or describe_short_text(ends.head, ends.size)
    if kind is not None:
        return f"{path!r} {kind}"
    data = _DATA_FILE.match(path)
    if data is not None:
        prefix = data["prefix"]
        exists = os.path.exists(prefix + INDEX_SUFFIX)
        missing = "" if exists else f", whose index {prefix + INDEX_SUFFIX!r} does not exist"
        return (
            f"{path!r} has the name of a data file: a checkpoint is opened by its prefix, "
            f"{prefix!r}{missing}"
        )
    return None


def _describe_wrong_table(path: str, head: bytes) -> str | None:
    if not is_renamed_index(head):
        return None
    if path.endswith(INDEX_SUFFIX):
        prefix = path.removesuffix(INDEX_SUFFIX)
        return f"{path!r} is the index of a V2 checkpoint: give the prefix, {prefix!r}"
    return (
        f"{path!r} is the renamed index of a V2 checkpoint: rename it to the prefix of the "
        f"'.data-' files plus '{INDEX_SUFFIX}', and give the prefix"
    )


def format_names(names: Sequence[str]) -> str:
    """Format names for a message, with only the first few of many."""
    first = ", ".join(repr(name) for name in names[:_MAX_NAMES])
    more = len(names) - _MAX_NAMES
    return f"{first} and {more} more" if more > 0 else first


def describe_dangling_link(path: str) -> str | None:
    """Describe a broken link, such as those of a checkout without large files or a cleaned cache.

    Returns None for every other path.
    """
    if not os.path.islink(path) or os.path.exists(path):
        return None
    return f"{path!r} is a symbolic link to {os.readlink(path)!r}, which does not exist"


def _is_checkpoint(prefix: str) -> bool:
    return os.path.exists(prefix + INDEX_SUFFIX) or os.path.isfile(prefix)


def _missing_directory(directory: str) -> str:
    if os.path.exists(directory):
        return f"{directory!r} is not a directory"
    parent = os.path.dirname(directory)
    while parent and not os.path.exists(parent):
        parent = os.path.dirname(parent)
    return f"The directory {directory!r} does not exist" + (f" ({parent!r} does)" if parent else "")


def _partial_hints(directory: str, base: str, names: list[str]) -> list[str]:
    """Return hints about a checkpoint that was copied in part, or whose writer was stopped."""
    if base + INDEX_SUFFIX in names:
        return []
    renamed = [name for name in names if _is_renamed_index(name, base)][:_MAX_NAMES]
    hints = [_renamed_index_hint(directory, name, base) for name in renamed]
    data = [name for name in names if data_file_prefix(name) == base]
    if data:
        found = f"Its data files exist ({format_names(data)}), but its index does not"
        orphans = [] if hints else _indexes_without_data(names)
        if orphans:
            hints.append(
                f"{found}: if {format_names(orphans)} belongs to them, rename it to "
                f"{base + INDEX_SUFFIX!r}"
            )
        elif hints:
            hints.insert(0, found)
        else:
            hints.append(f"{found}: copy {base + INDEX_SUFFIX!r} too")
    leftovers = [name for name in names if _is_leftover(directory, base, name)]
    if leftovers:
        hints.append(
            f"An interrupted save left {format_names(leftovers)}: use an earlier checkpoint"
        )
    if not hints and f"{base}.meta" in names:
        hints.append(
            f"{base + '.meta'!r} exists, but it contains only the graph: "
            f"copy {base + INDEX_SUFFIX!r} and the {base + '.data-'!r} files too"
        )
    return hints


def _is_renamed_index(name: str, base: str) -> bool:
    """Return whether a name is that of a renamed index: ``m.index.txt``, ``m (1).index``."""
    if ".tempstate" in name:
        return False
    return name.startswith(base + INDEX_SUFFIX) or (
        name.startswith(base)
        and re.fullmatch(r" ?\(\d+\)\.index", name.removeprefix(base)) is not None
    )


def _stem_of_index(name: str) -> str | None:
    """Return the prefix of a file that may be an index with an appended suffix, or None."""
    stem, suffix, _ = name.partition(INDEX_SUFFIX)
    return stem if suffix and ".tempstate" not in name else None


def _renamed_index_hint(directory: str, name: str, base: str) -> str:
    index = base + INDEX_SUFFIX
    if name.endswith(_UNFINISHED):
        return f"The download of {index!r} did not finish: {name!r} exists"
    kind = describe_file(os.path.join(directory, name))
    if kind is not None:
        return f"{name!r} exists, but it {kind}"
    return f"{name!r} exists: if it is the index, rename it to {index!r}"


def _indexes_without_data(names: list[str]) -> list[str]:
    with_data = {data_file_prefix(name) for name in names}
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    return [name for name in indexes if name.removesuffix(INDEX_SUFFIX) not in with_data]


def _is_leftover(directory: str, base: str, name: str) -> bool:
    if name == f"{base}_temp" or name.startswith(f"{base}_temp_"):
        return os.path.isdir(os.path.join(directory, name))
    return name.startswith(f"{base}.") and ".tempstate" in name


def _near_hints(directory: str, base: str, names: list[str]) -> list[str]:
    prefixes = prefixes_in(directory, names, _MAX_FILES_OPENED)
    near = naming.nearest(base, prefixes)
    if near:
        joined = [os.path.join(directory, name) for name in near]
        return [f"The nearest prefixes are {format_names(joined)}"]
    if prefixes:
        return [f"{directory or os.curdir!r} has the prefixes {format_names(prefixes)}"]
    return [
        f"There is no checkpoint in {directory or os.curdir!r}",
        *_foreign_hints(directory, [name for name in names if name.startswith(base)]),
    ]
