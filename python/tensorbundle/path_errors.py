# SPDX-License-Identifier: Apache-2.0
"""Errors for paths that are not checkpoints.

The first bytes of a file tell its kind. A message says what the path is, and what to pass instead.
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
    names_in,
    printable,
    url_without_slash,
    v1_pattern,
    v1_shard_parts,
    why_not_listed,
)

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


_SHOWN = 5  # names that a message lists in full
_LOOKED_INTO = 500  # files that a message opens, so that a huge directory does not take seconds
_INDEXES_LOOKED_INTO = 100  # indexes that are opened to see whether they are another program's
_FOREIGN_LOOKED_INTO = 50  # of those, files of other programs
_SUBDIRECTORIES = 50  # directories that a message lists

_STATE_FILE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:model_checkpoint_path|all_model_checkpoint_\w+)\s*:"
)
_DATA_FILE = re.compile(r"(?P<prefix>.+)\.data-\d{5,}-of-\d{5,}")
# What browsers and download tools append to a file that they have not finished.
_UNFINISHED = (".crdownload", ".part", ".partial", ".download", ".opdownload", ".aria2", ".tmp")
# What the description of a file begins with that says nothing about a whole directory.
_ANY_FILE = ("is JSON", "is empty", "begins and ends")
_FOREIGN_DIRECTORIES = (
    ({"_CHECKPOINT_METADATA"}, "an Orbax checkpoint (JAX): orbax.checkpoint reads it"),
    ({"manifest.ocdbt"}, "an Orbax checkpoint (JAX): orbax.checkpoint reads it"),
    ({".metadata", "__0_0.distcp"}, "a distributed PyTorch checkpoint: torch reads it"),
)


def prefixes_in(directory: str, names: Sequence[str], limit: int | None = None) -> list[str]:
    """Return what each checkpoint in a directory is called there, sorted.

    V2 prefixes have an index, which is looked into where there are several; V1 files end as tables
    do, and sharded V1 checkpoints are named by their pattern.

    Args:
        directory: The directory.
        names: The names in it.
        limit: How many files are opened to see whether they are V1's; all if None.
    """
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if 1 < len(indexes) <= _INDEXES_LOOKED_INTO:
        # One of another program must not hide the only checkpoint.
        own = [name for name in indexes if not is_foreign_index(os.path.join(directory, name))]
        indexes = own or indexes
    found = {name.removesuffix(INDEX_SUFFIX) for name in indexes}
    looked_into = 0
    for name in names:
        parts = v1_shard_parts(name)
        called = v1_pattern(parts[0], parts[2]) if parts else name
        if called in found or _is_not_v1(name):
            continue
        if limit is not None and looked_into >= limit:
            break
        looked_into += 1
        if is_v1_file(os.path.join(directory, name)):
            found.add(called)
    return sorted(found)


def _is_not_v1(name: str) -> bool:
    """Whether the name alone tells that a file is not a V1 checkpoint."""
    return (
        name.endswith((INDEX_SUFFIX, ".meta", ".ldb", ".sst"))  # the last two are LevelDB's
        or ".tempstate" in name
        or data_file_prefix(name) is not None
    )


def no_checkpoint_in(directory: str, problem: str | None = None) -> str:
    """Say why a directory leads to no checkpoint.

    Args:
        directory: The directory.
        problem: What is wrong with its state file; None if there is no such file.
    """
    # TensorFlow's own sentence comes first: people search for it.
    begin = "Couldn't find 'checkpoint' file or checkpoints in given directory"
    text = f"{begin} {printable(directory)}"
    if problem is not None:
        text += f": {problem}"
    names = names_in(directory)
    prefixes = prefixes_in(directory, names, _LOOKED_INTO)
    if len(prefixes) > 1 and problem is None:
        text += f". {len(prefixes)} prefixes are in it, and no state file says which is meant"
    if prefixes:
        return f"{text}. {give_one_of(directory, prefixes)}"
    return ". ".join([text, *_hints_for_directory(directory, names)])


def give_one_of(directory: str, prefixes: Sequence[str]) -> str:
    """Return the sentence that lists what a directory's checkpoints are called."""
    joined = [os.path.join(directory, prefix) for prefix in prefixes]
    return f"These prefixes are in it, give one of them: {enumerated(joined)}"


def _hints_for_directory(directory: str, names: list[str]) -> list[str]:
    """What is in a directory that has no prefix."""
    hints = _foreign_hints(directory, names)
    stems = {data_file_prefix(name) or _stem_of_index(name) for name in names} - {None}
    for stem in sorted(filter(None, stems))[:_SHOWN]:
        hints += _partial_hints(directory, stem, names)
    below = _prefixes_below(directory, names)
    if below:
        hints.append(f"These prefixes are in its subdirectories, give one of them: {below}")
    return hints or [
        f"No name in it ends in '{INDEX_SUFFIX}', and no file in it is a V1 checkpoint"
    ]


def _prefixes_below(directory: str, names: list[str]) -> str:
    found = []
    listed = 0
    for name in sorted(names, key=lambda name: name != "checkpoint"):
        path = os.path.join(directory, name)
        if listed == _SUBDIRECTORIES:
            break
        if os.path.isdir(path):
            listed += 1
            inside = names_in(path)
            found += [
                os.path.join(path, other.removesuffix(INDEX_SUFFIX))
                for other in inside
                if other.endswith(INDEX_SUFFIX)
            ]
    return enumerated(found) if found else ""


def _foreign_hints(directory: str, names: list[str]) -> list[str]:
    """Which other program's files a directory holds."""
    for marks, description in _FOREIGN_DIRECTORIES:
        if marks <= set(names):
            return [f"It is {description}"]
    hints = []
    for name in names[:_FOREIGN_LOOKED_INTO]:
        kind = kind_of_file(os.path.join(directory, name))
        if kind is not None and not kind.startswith(_ANY_FILE):
            hints.append(f"{name!r} in it {kind}")
    return hints[:2]


def not_found(text: str, also: str | None = None) -> str:
    """Say why a path leads to no checkpoint, and what is near it.

    Args:
        text: The path.
        also: What else the path was taken for.
    """
    # A slash at the end makes a directory of it, and there is none.
    prefix = (text.rstrip("/") or text).removesuffix(INDEX_SUFFIX)
    prefix = data_file_prefix(prefix) or prefix
    index = prefix + INDEX_SUFFIX
    message = f"no checkpoint at {text!r}"
    if text.endswith("/"):
        message += ": there is no directory of that name"
        if _is_checkpoint(prefix):
            return f"{message}, but there is a checkpoint: take the slash off, give {prefix!r}"
    else:
        message += f": there is no file {index!r}"
    if prefix == text:
        message += f" (V2) and no file {text!r} (V1)"
    if also is not None:
        message += f", and no checkpoint at {also!r}"
    return ". ".join([message, *_hints_for_path(text, prefix)])


def _hints_for_path(text: str, prefix: str) -> list[str]:
    directory, base = os.path.split(prefix)
    turned = text.replace("\\", "/")
    if turned != text and (_is_checkpoint(turned) or os.path.isdir(turned)):
        return [f"Directories are separated by slashes here: give {turned!r}"]
    url = url_without_slash(text)
    if url is not None:
        return [f"It looks like the URL {url!r} without a slash, and only local paths can be read"]
    if not os.path.isdir(directory or os.curdir):
        return [_missing_directory(directory)]
    unlisted = why_not_listed(directory)
    if unlisted is not None:
        return [f"The directory {directory!r} cannot be listed ({unlisted})"]
    names = names_in(directory)
    hints = [hint for hint in (dangling(prefix + INDEX_SUFFIX), dangling(prefix)) if hint]
    hints += _partial_hints(directory, base, names)
    if not hints and any(character in base for character in "*?["):
        hints.append("Patterns are not expanded, except V1's '-?????-of-NNNNN'")
    return hints or _near_hints(directory, base, names)


def mistaken_for_checkpoint(path: str, form: int) -> str | None:
    """Say what a file is that cannot be a checkpoint's; None if it may be one.

    Args:
        path: The file.
        form: 2 for the index of a V2 checkpoint, 1 for a V1 file.

    At most 4 KiB of each end are read, and none of a file that is not a regular one: the reader
    refuses those itself.
    """
    ends = ends_of(path)
    if ends is None:
        return None
    if ends.is_table:
        return _mistaken_table(path, ends.head) if form == 1 else None
    if path.endswith(".meta"):
        prefix = path.removesuffix(".meta")
        return (
            f"{path!r} holds a graph (MetaGraphDef), no tensors: give the prefix {prefix!r}, "
            f"whose tensors are in {prefix + INDEX_SUFFIX!r} and the '.data-' files beside it"
        )
    if os.path.basename(path) in ("saved_model.pb", "saved_model.pbtxt"):
        return f"{path!r} is the graph of a SavedModel: give its directory instead"
    if _STATE_FILE.match(ends.head):
        return (
            f"{path!r} is the state file of a directory, not a checkpoint: give the directory, "
            "or a prefix that is named in the file"
        )
    kind = kind_of(ends.head, ends.tail, ends.size)
    kind = kind or quoted_text(ends.head, ends.size)
    if kind is not None:
        return f"{path!r} {kind}"
    data = _DATA_FILE.match(path)
    if data is not None:
        prefix = data["prefix"]
        there = os.path.exists(prefix + INDEX_SUFFIX)
        missing = "" if there else f", whose index {prefix + INDEX_SUFFIX!r} is not there"
        return (
            f"{path!r} has the name of a data file: a checkpoint is opened by its prefix, "
            f"{prefix!r}{missing}"
        )
    return None


def _mistaken_table(path: str, head: bytes) -> str | None:
    if not is_renamed_index(head):
        return None
    if path.endswith(INDEX_SUFFIX):
        prefix = path.removesuffix(INDEX_SUFFIX)
        return f"{path!r} is the index of a V2 checkpoint: give the prefix, {prefix!r}"
    return (
        f"{path!r} is the index of a V2 checkpoint under another name: rename it to the prefix "
        f"of the '.data-' files with '{INDEX_SUFFIX}' behind it, and give the prefix"
    )


def enumerated(names: Sequence[str]) -> str:
    """Return names for a message, the first few of them if there are many."""
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def dangling(path: str) -> str | None:
    """Describe a link to nowhere: a checkout without its large files, or a cleaned cache."""
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
    """What is left of a checkpoint that was copied in part, or whose writer was stopped."""
    if base + INDEX_SUFFIX in names:
        return []
    renamed = [name for name in names if _is_renamed_index(name, base)][:_SHOWN]
    hints = [_renamed(directory, name, base) for name in renamed]
    data = [name for name in names if data_file_prefix(name) == base]
    if data:
        found = f"Its data files are there ({enumerated(data)}), its index is not"
        orphans = [] if hints else _indexes_without_data(names)
        if orphans:
            hints.append(
                f"{found}: if {enumerated(orphans)} belongs to them, rename it to "
                f"{base + INDEX_SUFFIX!r}"
            )
        elif hints:
            hints.insert(0, found)
        else:
            hints.append(f"{found}: copy {base + INDEX_SUFFIX!r} too")
    leftovers = [name for name in names if _is_leftover(directory, base, name)]
    if leftovers:
        hints.append(
            f"A save that did not finish left {enumerated(leftovers)} behind: "
            "use an earlier checkpoint"
        )
    if not hints and f"{base}.meta" in names:
        hints.append(
            f"{base + '.meta'!r} is there, but it holds the graph only: "
            f"copy {base + INDEX_SUFFIX!r} and the {base + '.data-'!r} files too"
        )
    return hints


def _is_renamed_index(name: str, base: str) -> bool:
    """Whether a name is nearly that of a prefix's index: ``m.index.txt``, ``m (1).index``."""
    if ".tempstate" in name:
        return False
    return name.startswith(base + INDEX_SUFFIX) or (
        name.startswith(base)
        and re.fullmatch(r" ?\(\d+\)\.index", name.removeprefix(base)) is not None
    )


def _stem_of_index(name: str) -> str | None:
    """The prefix of a file that may be an index with something behind its name."""
    stem, suffix, _ = name.partition(INDEX_SUFFIX)
    return stem if suffix and ".tempstate" not in name else None


def _renamed(directory: str, name: str, base: str) -> str:
    index = base + INDEX_SUFFIX
    if name.endswith(_UNFINISHED):
        return f"The download of {index!r} did not finish: {name!r} is there"
    kind = kind_of_file(os.path.join(directory, name))
    if kind is not None:
        return f"{name!r} is there, but it {kind}"
    return f"{name!r} is there: if it is the index, rename it to {index!r}"


def _indexes_without_data(names: list[str]) -> list[str]:
    with_data = {data_file_prefix(name) for name in names}
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    return [name for name in indexes if name.removesuffix(INDEX_SUFFIX) not in with_data]


def _is_leftover(directory: str, base: str, name: str) -> bool:
    if name == f"{base}_temp" or name.startswith(f"{base}_temp_"):
        return os.path.isdir(os.path.join(directory, name))
    return name.startswith(f"{base}.") and ".tempstate" in name


def _near_hints(directory: str, base: str, names: list[str]) -> list[str]:
    prefixes = prefixes_in(directory, names, _LOOKED_INTO)
    near = naming.nearest(base, prefixes)
    if near:
        return [f"Near it: {enumerated([os.path.join(directory, name) for name in near])}"]
    if prefixes:
        return [f"In {directory or os.curdir!r} there are {enumerated(prefixes)}"]
    return [
        f"There is no checkpoint in {directory or os.curdir!r}",
        *_foreign_hints(directory, [name for name in names if name.startswith(base)]),
    ]
