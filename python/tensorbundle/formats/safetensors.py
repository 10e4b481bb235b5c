# SPDX-License-Identifier: Apache-2.0
"""The safetensors format, in one file or in shards with an index.

::

    8 bytes    N, the size of the header, little-endian
    N bytes    JSON: {"__metadata__": {...}, name: {"dtype", "shape", "data_offsets": [begin, end]}}
               and spaces up to a multiple of 8
    the data   without gaps: the widest types first, names in order within a type

The safetensors library writes only from memory, and its NumPy reader lacks the types of 8 bits.
This module writes the same bytes as the library, and reads by mapping.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorbundle import dtypes
from tensorbundle.errors import CheckpointNotFoundError, CorruptionError, UnsupportedError
from tensorbundle.formats import tensors
from tensorbundle.formats.new_files import NewFiles, copy_rows, write_array
from tensorbundle.formats.tensors import (
    Advance,
    ForeignFile,
    ForeignTensor,
    MappedTensor,
    SourceTensor,
    nbytes_of,
    require,
)
from tensorbundle.tensor import Tensor

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"

# The types in the order of the library's enumeration, by their names in NumPy or ml_dtypes.
_TYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}
_RANKS = {name: rank for rank, name in enumerate(_TYPES)}
_NAMES = {code: name for name, code in _TYPES.items()}
_METADATA = "__metadata__"
# transformers refuses files without a format in their metadata.
_WRITTEN_METADATA = {"format": "pt"}
# The library refuses larger headers.
_MAX_HEADER = 100_000_000


def unsupported_reason(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str | None:
    """Returns why the format cannot store a tensor, or None."""
    del shape  # any, for tensors that NumPy has
    if dtype.name not in _TYPES:
        return f"safetensors has no type {dtype.name}"
    if name == _METADATA:
        return "safetensors reserves that name"
    return tensors.invalid_utf8_reason(name)


@dataclass
class _Shard:
    """One file: its tensors, and their offsets in its data."""

    tensors: list[SourceTensor] = field(default_factory=list)
    nbytes: int = 0
    path: str = ""

    def add(self, tensor: SourceTensor) -> None:
        self.tensors.append(tensor)
        self.nbytes += nbytes_of(tensor)

    def layout(self) -> tuple[bytes, dict[str, int]]:
        """Returns the encoded header, and the offset of each tensor in the file."""
        header: dict[str, Any] = {_METADATA: _WRITTEN_METADATA}
        offset, offsets = 0, {}
        for tensor in sorted(self.tensors, key=lambda each: (-_RANKS[each.dtype.name], each.name)):
            end = offset + nbytes_of(tensor)
            offsets[tensor.name] = offset
            header[tensor.name] = {
                "dtype": _TYPES[tensor.dtype.name],
                "shape": list(tensor.shape),
                "data_offsets": [offset, end],
            }
            offset = end
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        if len(text) > _MAX_HEADER:
            raise UnsupportedError(
                f"the header of {self.path!r} would have {len(text)} bytes, and safetensors allows "
                f"{_MAX_HEADER}: write several files, with a smaller max_bytes"
            )
        start = 8 + len(text)
        offsets = {name: start + offset for name, offset in offsets.items()}
        return len(text).to_bytes(8, "little") + text, offsets


def belongs_to(path: str) -> Callable[[str], bool]:
    """Returns a function that says whether a file name is the index or a shard of an output."""
    stem = os.path.basename(path).removesuffix(SUFFIX)
    names = re.compile(
        rf"{re.escape(stem)}(-\d{{5}}-of-\d{{5}}{re.escape(SUFFIX)}|{re.escape(INDEX_SUFFIX)})"
    )
    return lambda name: names.fullmatch(name) is not None


def write(
    path: str,
    source: Sequence[SourceTensor],
    *,
    overwrite: bool,
    max_bytes: int | None,
    advance: Advance,
) -> tuple[str, ...]:
    """Writes tensors to one file, or to several of at most `max_bytes` of data with an index.

    A tensor that is larger has a file of its own. Several files are named as transformers names
    them: ``model-00001-of-00002.safetensors`` and ``model.safetensors.index.json``.

    Returns:
        The paths of the new files, the index last.
    """
    shards = _split(source, max_bytes)
    stem = path.removesuffix(SUFFIX)
    index = None
    if len(shards) == 1:
        shards[0].path = path
    else:
        index = stem + INDEX_SUFFIX
        for shard, name in zip(shards, _shard_paths(stem, len(shards), len(shards)), strict=True):
            shard.path = name
    layouts = [shard.layout() for shard in shards]
    with NewFiles(path, overwrite=overwrite, belongs=belongs_to(path)) as files:
        paths = [shard.path for shard in shards]
        first = paths if index is None else _unused_paths(paths, stem, files)
        for shard, name, (header, offsets) in zip(shards, first, layouts, strict=True):
            with files.open(name) as file:
                write_array(file, np.frombuffer(header, np.uint8))
                copies: list[tuple[Tensor, int]] = []
                for tensor in shard.tensors:
                    stored = tensor.stored_rows
                    if stored is not None:
                        copies.append((stored, offsets[tensor.name]))
                        continue
                    file.seek(offsets[tensor.name])
                    for block in tensor.blocks(splits_rows=True):
                        advance(write_array(file, block))
                copy_rows(file, shard.path, copies, advance)
        if index is None:
            files.publish()
            return tuple(paths)
        text = _index_text(shards, first)
        with files.open(index) as file:
            write_array(file, np.frombuffer(text, np.uint8))

        def finish() -> list[str]:
            nonlocal paths
            if first != paths:
                links = (files.link(*names) for names in zip(first, paths, strict=True))
                if all(links):
                    files.replace(index, _index_text(shards, paths))
                else:
                    paths = first
            return [*paths, index]

        files.publish(finish)
    return (*paths, index)


def _unused_paths(paths: list[str], stem: str, files: NewFiles) -> list[str]:
    """Returns paths for shards that the old output does not have.

    An index names its own shards at all times: the new shards first have another number of shards
    in their names, and the index that names them replaces the old output at once. Then they get
    their usual names, as links, and a second index replaces the first.
    """
    found, total = paths, len(paths)
    while any(map(files.replaces, found)):
        total += 1
        found = _shard_paths(stem, len(paths), total)
    return found


def _shard_paths(stem: str, count: int, total: int) -> list[str]:
    return [f"{stem}-{number:05d}-of-{total:05d}{SUFFIX}" for number in range(1, count + 1)]


def _split(source: Iterable[SourceTensor], max_bytes: int | None) -> list[_Shard]:
    """Distributes tensors among files in their order, as transformers does."""
    shards, current = [], _Shard()
    for tensor in source:
        nbytes = nbytes_of(tensor)
        if max_bytes is not None and nbytes > max_bytes:
            shards.append(_Shard([tensor], nbytes))
            continue
        if max_bytes is not None and current.nbytes + nbytes > max_bytes:
            shards.append(current)
            current = _Shard()
        current.add(tensor)
    if current.tensors or not shards:
        shards.append(current)
    return shards


def _index_text(shards: list[_Shard], paths: list[str]) -> bytes:
    weight_map = {
        tensor.name: os.path.basename(path)
        for shard, path in zip(shards, paths, strict=True)
        for tensor in shard.tensors
    }
    total = sum(shard.nbytes for shard in shards)
    document = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read(path: str) -> ForeignFile:
    """Opens a file, or the index of several files.

    Raises:
        CorruptionError: The header or the index is not valid.
        CheckpointNotFoundError: A file that the index names does not exist.
        IOFailure: The system failed a read.
    """
    if not path.endswith(INDEX_SUFFIX):
        found, left_out = _read_file(path)
        return ForeignFile(path, found, left_out)
    weight_map = _read_index(path)
    found, left_out, read_files = {}, {}, {}
    for file in dict.fromkeys(weight_map.values()):
        shard = os.path.join(os.path.dirname(path), file)
        if not os.path.exists(shard):
            raise CheckpointNotFoundError(f"{path!r} names {shard!r}, which does not exist", shard)
        read_files[file] = _read_file(shard)
    for name, file in weight_map.items():
        shard_tensors, shard_left_out = read_files[file]
        if name in shard_left_out:
            left_out[name] = shard_left_out[name]
        else:
            require(
                name in shard_tensors, path, f"says that {name!r} is in {file!r}, but it is not"
            )
            found[name] = shard_tensors[name]
    shards = (os.path.join(os.path.dirname(path), file) for file in read_files)
    return ForeignFile(path, found, left_out, files=(path, *shards))


def _read_index(path: str) -> dict[str, str]:
    data = tensors.map_file(path)
    require(data.size <= _MAX_HEADER, path, f"has {data.size} bytes, too many for an index")
    document = _parse_json(data.tobytes(), path)
    weight_map: Any = document.get("weight_map", {})
    require(isinstance(weight_map, dict) and bool(weight_map), path, "has no weight_map")
    for name, file in weight_map.items():
        _check_name(name, path)
        is_name = isinstance(file, str) and bool(file) and "\0" not in file
        is_name = is_name and file == os.path.basename(file)
        is_name = is_name and tensors.invalid_utf8_reason(file) is None
        require(is_name, path, f"has {file!r:.100} as the file of {name!r:.100}")
    result: dict[str, str] = weight_map
    return result


def _read_file(path: str) -> tuple[dict[str, ForeignTensor], dict[str, str]]:
    """Returns the tensors of a file in the order of their data, and what is left out."""
    data = tensors.map_file(path)
    require(data.size >= 8, path, f"has {data.size} bytes, too few for a safetensors file")
    size = int.from_bytes(data[:8].tobytes(), "little")
    require(
        size <= min(_MAX_HEADER, data.size - 8),
        path,
        f"says that its header has {size} bytes, in a file of {data.size}: it is truncated or not "
        "a safetensors file",
    )
    header = _parse_json(data[8 : 8 + size].tobytes(), path)
    header.pop(_METADATA, None)
    entries = [(*_parse_entry(name, entry, path), name) for name, entry in header.items()]
    entries.sort(key=lambda entry: entry[:2])
    payload = data[8 + size :]
    found: dict[str, ForeignTensor] = {}
    left_out: dict[str, str] = {}
    position = 0
    for begin, end, code, shape, name in entries:
        require(
            begin == position <= end,
            path,
            f"has tensor {name!r} at [{begin}, {end}), but the previous one ends at {position}",
        )
        require(
            end <= payload.size,
            path,
            f"has {payload.size} bytes of data, but tensor {name!r} ends at {end}: it is truncated",
        )
        position = end
        dtype = dtypes.find(_NAMES[code]) if code in _NAMES else None
        if dtype is None:
            left_out[name] = f"type {code}, which cannot be read"
            continue
        nbytes = math.prod(shape) * dtype.itemsize
        require(
            end - begin == nbytes,
            path,
            f"has {end - begin} bytes for tensor {name!r}, which needs {nbytes}",
        )
        reason = tensors.shape_reason(shape, dtype.itemsize)
        if reason is not None:
            left_out[name] = reason
            continue
        array = tensors.array_over(payload[begin:end], dtype, shape)
        found[name] = MappedTensor(name, array)
    require(
        position == payload.size,
        path,
        f"has {payload.size} bytes of data, but its header describes {position}",
    )
    return found, left_out


def _parse_entry(name: str, entry: Any, path: str) -> tuple[int, int, str, tuple[int, ...]]:
    """Returns (begin, end, type, shape) of an entry of the header."""
    _check_name(name, path)
    message = f"has an invalid entry for tensor {name!r:.100}: {entry!r:.200}"
    require(isinstance(entry, dict), path, message)
    code, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    require(isinstance(code, str) and _are_sizes(shape) and _are_sizes(offsets), path, message)
    require(len(offsets) == 2, path, message)
    return offsets[0], offsets[1], code, tuple(shape)


def _check_name(name: str, path: str) -> None:
    # JSON can have half of a surrogate pair, which is no character.
    is_text = tensors.invalid_utf8_reason(name) is None
    require(is_text, path, f"has a tensor name that is not Unicode: {name!r:.100}")


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in values)


def _parse_json(text: bytes, path: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        require(len(found) == len(pairs), path, "has a name twice")
        return found

    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except CorruptionError:
        raise
    except (ValueError, RecursionError) as error:
        raise CorruptionError(f"{path!r} has a header that is not JSON: {error}") from None
    require(isinstance(document, dict), path, "has a header that is not a JSON object")
    result: dict[str, Any] = document
    return result
