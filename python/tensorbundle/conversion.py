# SPDX-License-Identifier: Apache-2.0
"""Conversion between checkpoints and other formats: ``convert``.

A plan of ``edit_plan`` selects, renames and casts the tensors, and yields their elements in blocks.
A module of ``formats`` writes them. At most a few blocks are in memory, and the new files get their
names when all of them are complete.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from tensorbundle import arguments, casts, dtypes, edit_plan, editing
from tensorbundle.checkpoint import Checkpoint, files_of
from tensorbundle.checkpoint import open as open_checkpoint
from tensorbundle.errors import LeftOutError, UnsupportedError
from tensorbundle.filenames import (
    AnyPath,
    as_url,
    checkpoint_files,
    destination_prefix,
    names_in,
    path_text,
    shared_file,
)
from tensorbundle.formats import hdf5, npz, parquet, safetensors
from tensorbundle.formats.tensors import ForeignFile
from tensorbundle.naming import OBJECT_GRAPH
from tensorbundle.planned_tensor import PlannedTensor
from tensorbundle.renaming import Rename
from tensorbundle.rules import Cast, Rules, Selector, Transpose
from tensorbundle.tensor import Tensor
from tensorbundle.writer import Writer

Format = Literal["checkpoint", "safetensors", "npz", "hdf5", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)

# The suffixes of destinations and sources. Parquet files are only written.
_SUFFIXES = {
    safetensors.SUFFIX: "safetensors",
    npz.SUFFIX: "npz",
    **dict.fromkeys(hdf5.SUFFIXES, "hdf5"),
    parquet.SUFFIX: "parquet",
}
# Returns why a format cannot store a tensor of a name, a type and a shape, or None.
_ReasonOf = Callable[[str, np.dtype[Any], tuple[int, ...]], "str | None"]
_READERS = {"safetensors": safetensors.read, "npz": npz.read, "hdf5": hdf5.read}

# Type -> the types to cast to, the first that the format has. All keep the values but complex64
# and float64, which have fewer digits.
_CASTS = {
    "int4": ("int8",),
    "int2": ("int8",),
    "uint4": ("uint8",),
    "uint2": ("uint8",),
    "bool": ("uint8",),
    "complex128": ("complex64",),
    "longdouble": ("float64",),
    "float128": ("float64",),
}
_FLOAT_CASTS = ("bfloat16", "float32")


@dataclass(frozen=True)
class ConvertReport:
    """The result of ``convert``. Prints as text.

    Attributes:
        path: The destination: a file, the main file of several, or the prefix of a checkpoint.
        format: ``"safetensors"``, ``"npz"``, ``"hdf5"``, ``"parquet"`` or ``"checkpoint"``.
        files: The new files; empty for a checkpoint and for a dry run.
        tensors: The number of tensors that were written.
        nbytes: The number of bytes of their elements.
        left_out: Why a tensor or another object was not written, by name.
        dropped: The names of tensors that the arguments dropped.
        renamed: The new name of each renamed tensor.
        cast: (old type, new type) of each tensor that was cast, by its new name.
        warnings: Messages about arguments that had no effect.
    """

    path: str
    format: str
    files: tuple[str, ...]
    tensors: int
    nbytes: int
    left_out: Mapping[str, str] = field(default_factory=dict)
    dropped: Sequence[str] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    cast: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def __str__(self) -> str:
        noun = "tensor" if self.tensors == 1 else "tensors"
        lines = [f"{self.path}: {self.format}, {self.tensors} {noun}, {self.nbytes} bytes"]
        if len(self.files) > 1:
            lines[0] += f", {len(self.files)} files"
        for title in ("dropped", "renamed", "cast"):
            if count := len(getattr(self, title)):
                lines.append(f"{title}: {count}")
        lines += [f"left out: {name!r}: {reason}" for name, reason in self.left_out.items()]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def convert(
    src: AnyPath,
    dst: AnyPath,
    *,
    to: Format | None = None,
    keep: Selector | None = None,
    drop: Selector | None = None,
    slots: bool = True,
    rename: Rename | None = None,
    cast: Cast | None = None,
    transpose: Transpose | None = None,
    partition: Mapping[str, int] | None = None,
    merge: bool = False,
    update: Mapping[str, Any] | None = None,
    rules: Rules | None = None,
    flatten: bool = False,
    max_bytes: int | None = None,
    name: str | None = None,
    vocab: str | bytes | os.PathLike[Any] | Sequence[str | bytes] | None = None,
    shards: int = 1,
    alignment: int = 64,
    strict: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> ConvertReport:
    """Converts a checkpoint to another format, or a file of another format to a checkpoint.

    Every source byte is compared with its checksum, if the source has one. Memory use is bounded,
    for tensors of any size. The destination appears complete or not at all; a call that raises
    leaves no files.

    Names, shapes, types and values are unchanged unless arguments change them. Strings, variants,
    the object graph, and tensors whose type the format lacks are left out and listed in the report.

    Args:
        src: A checkpoint, as any path that ``open`` accepts; or a ``.safetensors`` file, the
            ``.safetensors.index.json`` of several, a ``.npz``, ``.h5`` or ``.hdf5`` file.
        dst: The new file. The suffix selects the format: ``.safetensors``, ``.npz``, ``.h5``,
            ``.hdf5``, ``.parquet``; any other is the prefix of a checkpoint, if `src` is not one.
            A missing directory is created if its parent exists. For a directory, or a path that
            ends in a slash, the name is ``model.safetensors``, or the source's with the suffix.
        to: The format, if not by suffix: "safetensors", "npz", "hdf5", "parquet" or "checkpoint".
        keep: As for ``edit``, like all arguments up to `flatten`.
        drop: Tensors to drop.
        slots: Whether to write slots of optimizers.
        rename: New names.
        cast: New types.
        transpose: Permutations of axes.
        partition: The number of slices of a tensor in a new checkpoint.
        merge: Accepted for symmetry with ``edit``: other formats store every tensor whole.
        update: Tensors to add or to replace.
        rules: A rules file.
        flatten: Whether to use the full names of an object graph.
        max_bytes: The limit for the data of a safetensors file. A larger result is written to
            ``<name>-00001-of-00002.safetensors`` and so on, with an index as transformers writes.
        name: For Parquet: the table. Needed if several tensors have rank 2.
        vocab: For Parquet: the vocabulary of the table's rows, a file with a token per line, or a
            sequence of tokens. Rows after the last token have null. Without it, the column is
            ``id``, the number of the row.
        shards: For a checkpoint: the number of data files.
        alignment: For a checkpoint: the alignment of tensors.
        strict: Whether to raise LeftOutError if anything would be left out.
        overwrite: Whether to replace files that exist.
        dry_run: Whether to return the report, with all checks, and to write nothing.
        progress: Called after each block with (bytes done, total bytes).

    Raises:
        CheckpointNotFoundError: The source does not exist.
        CorruptionError: The source is corrupted.
        DestinationExistsError: The destination exists. It is an IOFailure and a FileExistsError.
        ImportError: The format needs a library that is not installed; the message names it.
        IOFailure: The system failed a read or a write.
        LeftOutError: Something would be left out, and `strict` is true. Has ``left_out``.
        ShapeMismatchError: The tensor for Parquet is not a table that fits the vocabulary.
        TypeError: An argument has the wrong type.
        ValueError: The formats or options do not fit together, `dst` is a file of `src`, or an
            argument of ``edit`` is wrong; the message lists all that is.

    Examples:
        >>> report = tb.convert("bert_model.ckpt", "bert.safetensors", slots=False)
        >>> dict(report.left_out)
        {}
    """
    arguments.check_progress(progress)
    url = as_url(src)
    source_path = _expand(path_text(src)) if url is None else url
    source_format = _source_format(source_path)
    if url is not None and source_format != "checkpoint":
        raise UnsupportedError(
            f"{url!r} is a URL of a {source_format} file; of remote files, only checkpoints are "
            "read: download it first"
        )
    target_format = _target_format(path_text(dst), to, source_format)
    limit = None if max_bytes is None else arguments.size(max_bytes, "max_bytes", 1)
    _check_options(
        target_format,
        {"max_bytes": limit, "name": name, "vocab": vocab},
        {"partition": partition, "shards": None if shards == 1 else shards},
    )
    _import_libraries(target_format)
    with _open_source(source_path, source_format) as source:
        path = _target_path(path_text(dst), target_format, source.path)
        _check_not_source(path, target_format, source)
        plan = edit_plan.plan_edit(
            source,  # type: ignore[arg-type]
            keep=keep,
            drop=drop,
            slots=slots,
            rename=rename,
            cast=cast,
            transpose=transpose,
            partition=partition,
            merge=merge,
            update=update,
            rules=rules,
            flatten=flatten,
        )
        left_out: dict[str, str] = {}
        tokens = None
        if target_format == "parquet":
            tensors = [_find_table(plan.tensors, name, source)]
            tokens = None if vocab is None else parquet.Tokens(vocab)
            _check_table(tensors[0], tokens)
        else:
            tensors, left_out = _split(plan.tensors, target_format)
            if plan.graph is not None:
                left_out[OBJECT_GRAPH] = "the object graph"
            if isinstance(source, ForeignFile):
                left_out |= source.left_out
            if strict and left_out:
                raise LeftOutError(_left_out_message(left_out, source.path), left_out)
        output = _Output(path, target_format, tensors, overwrite, tokens, limit)
        if not dry_run and target_format == "checkpoint":
            part = replace(plan, tensors=tuple(tensors), graph=None)
            with Writer(path, shards=shards, alignment=alignment, overwrite=overwrite) as writer:
                threads = arguments.num_threads(None)
                editing.write_plan(writer, part, source, threads=threads, progress=progress)  # type: ignore[arg-type]
        elif not dry_run:
            output.write(progress)
        return ConvertReport(
            path=output.path,
            format=target_format,
            files=output.files,
            tensors=len(tensors),
            nbytes=output.nbytes,
            left_out=MappingProxyType(left_out),
            dropped=plan.dropped,
            renamed=plan.renamed,
            cast=_casts(tensors),
            warnings=plan.warnings,
        )


@dataclass
class _Output:
    """The files that a call writes, in another format than that of checkpoints."""

    path: str
    format: str
    tensors: Sequence[PlannedTensor]
    overwrite: bool
    tokens: parquet.Tokens | None
    max_bytes: int | None
    files: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def write(self, progress: Callable[[int, int], object] | None) -> None:
        """Writes the files, and sets `files`."""
        advance, overwrite = _progress_callback(progress, self.nbytes), self.overwrite
        if self.format == "safetensors":
            self.files = safetensors.write(
                self.path, self.tensors, overwrite=overwrite, max_bytes=self.max_bytes,
                advance=advance,
            )  # fmt: skip
        elif self.format == "parquet":
            self.files = parquet.write(
                self.path, self.tensors[0], tokens=self.tokens, overwrite=overwrite,
                advance=advance,
            )  # fmt: skip
        else:
            write = npz.write if self.format == "npz" else hdf5.write
            self.files = write(self.path, self.tensors, overwrite=overwrite, advance=advance)


def _expand(path: str) -> str:
    starts = path.startswith("~") and not os.path.lexists(path.partition("/")[0])
    return os.path.expanduser(path) if starts else path


def _format_of(path: str) -> str | None:
    """Returns the format that a suffix selects, or None."""
    return next((each for suffix, each in _SUFFIXES.items() if path.endswith(suffix)), None)


def _source_format(path: str) -> str:
    if path.endswith(safetensors.INDEX_SUFFIX):
        return "safetensors"
    found = _format_of(path)
    if found is None or os.path.isdir(path) or os.path.exists(f"{path}.index"):
        return "checkpoint"
    if found == "parquet":
        raise ValueError(f"{path!r} is a Parquet file, and Parquet files cannot be converted")
    return found


def _is_misspelled(path: str) -> bool:
    """Returns whether the suffix of a path is similar to that of a format: .safetensor, .npy."""
    import difflib  # only a conversion to a checkpoint needs it

    suffix = os.path.splitext(path)[1]
    similar = difflib.get_close_matches(suffix.lower(), _SUFFIXES, 1, 0.7)
    return bool(similar) and not suffix[1:].isdecimal()  # model-0.5 is a name


def _target_format(path: str, to: object, source: str) -> str:
    if to is not None and to not in FORMATS:
        raise ValueError(f"to must be one of {', '.join(map(repr, FORMATS))}, not {to!r:.50}")
    found = str(to) if to is not None else _format_of(path)
    if found is None and source != "checkpoint" and not _is_misspelled(path):
        found = "checkpoint"
    if found is None:
        hint = "" if source == "checkpoint" else ", 'checkpoint' for the prefix of a checkpoint"
        raise ValueError(
            f"the suffix of {path!r} selects no format: use one of {', '.join(_SUFFIXES)}, or "
            f"choose the format with to={hint}"
        )
    if found == source == "checkpoint":
        raise ValueError("both are checkpoints: use edit, which has the same arguments")
    return found


def _check_options(
    target: str, of_file: dict[str, object], of_checkpoint: dict[str, object]
) -> None:
    formats = {"max_bytes": "safetensors", "name": "parquet", "vocab": "parquet"}
    formats |= dict.fromkeys(of_checkpoint, "checkpoint")
    for option, value in (of_file | of_checkpoint).items():
        if value is not None and formats[option] != target:
            raise ValueError(f"{option} is only for the format {formats[option]!r}, not {target!r}")


def _import_libraries(target: str) -> None:
    """Raises ImportError before the source is opened, if the library of the format is absent."""
    if target == "hdf5":
        hdf5.import_h5py()
    elif target == "parquet":
        parquet.import_pyarrow()


@contextlib.contextmanager
def _open_source(path: str, source: str) -> Iterator[Checkpoint | ForeignFile]:
    opened = open_checkpoint(path) if source == "checkpoint" else _READERS[source](path)
    with opened:
        yield opened


def _target_path(path: str, target: str, source: str) -> str:
    """Returns the path of the new file, or the prefix of the new checkpoint."""
    stem = os.path.basename(source).removesuffix(safetensors.INDEX_SUFFIX)
    known = next((suffix for suffix in _SUFFIXES if stem.endswith(suffix)), "")
    stem = stem.removesuffix(known)
    if target == "checkpoint":
        return destination_prefix(path, stem)
    if not path or "\0" in path:
        raise ValueError(f"the destination must be a path, not {path!r}")
    path = _expand(path)
    if not (path.endswith(os.sep) or os.path.isdir(path)):
        return path
    if target == "safetensors":
        stem = "model"  # as transformers reads it
    suffix = next(suffix for suffix, each in _SUFFIXES.items() if each == target)
    return os.path.join(path, stem + suffix)


def _check_not_source(path: str, target: str, source: Checkpoint | ForeignFile) -> None:
    """Raises ValueError if a file that the call may replace is a file of the source."""
    files = source.files if isinstance(source, ForeignFile) else files_of(source)
    replaced = [path]
    if target == "checkpoint":
        replaced = checkpoint_files(path)
    elif target == "safetensors":
        directory = os.path.dirname(path)
        belongs = safetensors.belongs_to(path)
        replaced += [os.path.join(directory, name) for name in names_in(directory) if belongs(name)]
    shared = shared_file(replaced, files)
    if shared is not None:
        raise ValueError(
            f"the destination {path!r} would replace {shared[0]!r}, which is a file of the source"
        )


def _split(
    tensors: Iterable[PlannedTensor], target: str
) -> tuple[list[PlannedTensor], dict[str, str]]:
    """Returns the tensors that the format can store, and why the others are left out."""
    reason_of: _ReasonOf = {
        "checkpoint": _checkpoint_reason,
        "safetensors": safetensors.unsupported_reason,
        "npz": npz.unsupported_reason,
        "hdf5": hdf5.unsupported_reason,
        "parquet": parquet.unsupported_reason,
    }[target]
    stored, left_out = [], {}
    for tensor in tensors:
        reason = None if target == "checkpoint" else _source_reason(tensor)
        reason = reason or reason_of(tensor.name, tensor.dtype, tensor.shape)
        if reason is None:
            stored.append(tensor)
        else:
            name = tensor.dtype.name
            is_type = reason.endswith(f"no type {name}")
            hint = _cast_hint(name, reason_of) if is_type else None
            left_out[tensor.name] = f"{reason}; cast it, {hint}" if hint else reason
    return stored, left_out


def _checkpoint_reason(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str | None:
    """Returns why a checkpoint cannot store a tensor, or None."""
    del shape
    if not name:
        return "its name is empty"
    if dtype == np.dtype(object):  # strings, which the caller has passed
        return None
    return None if casts.dtype_of(dtype) else f"TensorFlow has no type {dtype.name}"


def _source_reason(tensor: PlannedTensor) -> str | None:
    """Returns why no other format can store a tensor, or None."""
    stored = tensor.source.stored_dtype if isinstance(tensor.source, Tensor) else None
    if tensor.dtype == np.dtype(object) or isinstance(tensor.source, (bytes, str)):
        return "a variant" if stored == "variant" else "strings"
    if stored is not None and tensor.dtype == tensor.source.dtype:
        is_quantized = stored.startswith(("qint", "quint"))  # integers; the scale is elsewhere
        if not is_quantized and dtypes.find(stored) is None:
            return f"the installed ml_dtypes has no type {stored}"
    return None


def _cast_hint(name: str, reason_of: _ReasonOf) -> str | None:
    """Returns the cast that makes a type storable, as in ``cast={"int4": "int8"}``, or None."""
    for target in _CASTS.get(name, _FLOAT_CASTS if name.startswith(("float", "bfloat")) else ()):
        dtype = dtypes.find(target)
        if dtype is not None and reason_of("x", dtype, ()) is None:
            return f'cast={{"{name}": "{target}"}}'
    return None


def _casts(tensors: Iterable[PlannedTensor]) -> dict[str, tuple[str, str]]:
    """Returns (old type, new type) by name for the tensors that are cast."""
    found = {}
    for tensor in tensors:
        old = getattr(tensor.source, "stored_dtype", tensor.stored_dtype)
        if old != tensor.stored_dtype:
            found[tensor.name] = (old, tensor.stored_dtype)
    return found


def _left_out_message(left_out: Mapping[str, str], path: str) -> str:
    lines = [f"{len(left_out)} of the tensors of {path!r} would be left out:"]
    lines += [f"  {name!r}: {reason}" for name, reason in left_out.items()]
    return "\n".join(lines)


def _find_table(
    tensors: Sequence[PlannedTensor], name: str | None, source: Checkpoint | ForeignFile
) -> PlannedTensor:
    """Returns the tensor for a Parquet file."""
    if name is not None:
        for tensor in tensors:
            if tensor.name == name:
                return tensor
        key = source[name].name  # raises an error with the nearest names
        for tensor in tensors:
            if getattr(tensor.source, "name", None) == key:
                return tensor
        raise ValueError(f"{name!r} is not among the tensors to convert")
    tables = [tensor for tensor in tensors if len(tensor.shape) == 2]
    if len(tables) != 1:
        names = ", ".join(repr(tensor.name) for tensor in tables[:5])
        more = f": {names}{', ...' if len(tables) > 5 else ''}" if tables else ""
        raise ValueError(f"{len(tables)} tensors have rank 2; choose one with name={more}")
    return tables[0]


def _check_table(table: PlannedTensor, tokens: parquet.Tokens | None) -> None:
    parquet.check_table(table, tokens)
    _, left_out = _split([table], "parquet")
    if left_out:
        raise ValueError(f"tensor {table.name!r}: {left_out[table.name]}")


def _progress_callback(
    progress: Callable[[int, int], object] | None, total: int
) -> Callable[[int], None]:
    done = 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, total)

    return advance
