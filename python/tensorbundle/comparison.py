# SPDX-License-Identifier: Apache-2.0
"""Comparison of two checkpoints: ``diff``.

names    tensors of both are paired by name, after `rename`
index    type, shape, and the stored checksums: equal checksums of equal slices decide, and so do
         unequal ones unless figures or a tolerance are wanted. Slices along axis 0 are combined
         to one checksum of the tensor, so partitions need not be the same
values   what is left is read, in blocks, in the order of the files
renames  tensors without a partner are paired by type, shape and checksum
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tensorbundle import _core, arguments, blocks, casts, checkpoint, naming
from tensorbundle.checkpoint import Checkpoint
from tensorbundle.diff_report import Ambiguity, DiffReport, TensorDiff, Unreadable
from tensorbundle.errors import Error
from tensorbundle.filenames import AnyPath
from tensorbundle.renaming import Names, Rename, Renaming
from tensorbundle.tensor import Tensor
from tensorbundle.value_diff import (
    Tolerance,
    ValueDiff,
    compare_chunks,
    compare_in_boxes,
    needs_chunks,
)


def diff(
    a: AnyPath | Checkpoint,
    b: AnyPath | Checkpoint,
    *,
    rename: Rename | None = None,
    rtol: float = 0.0,
    atol: float = 0.0,
    values: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> DiffReport:
    """Compares two checkpoints.

    The checksums in both indexes decide first, so comparing equal checkpoints takes milliseconds.
    They are trusted: ``Checkpoint.verify`` finds bytes that do not match them. Values are read,
    compared with their checksums, and never held in memory as a whole, where checksums cannot
    decide: other partitions than along axis 0, another byte order, a V1 checkpoint; and where
    checksums differ and `values` or a tolerance is given.

    Without a tolerance, elements are the same if their bits are. So 0.0 differs from -0.0, and NaN
    equals NaN with the same bits. With one, numbers of a and b are the same if ``abs(a - b) <= atol
    + rtol * abs(b)``, NaN equals every NaN, and infinities equal those of the same sign. Strings
    and bools have no tolerance. Tensors of different dtypes are always reported as changed.

    Args:
        a: A path, as for ``open``, or an open checkpoint.
        b: The other one.
        rename: The names in b of tensors of a, as for ``edit``: a mapping; a list of (regular
            expression, replacement), which are all applied in turn; or a callable.
        rtol: The relative tolerance, at least 0.
        atol: The absolute tolerance, at least 0.
        values: Whether to read tensors that differ, and report how many elements differ, and by how
            much.
        progress: Called from time to time with (bytes done, total bytes) of the values.

    Returns:
        A report with ``.same``, ``.changed``, ``.only_a``, ``.only_b`` and ``.renamed``.
        ``print`` formats it.

    Raises:
        CheckpointNotFoundError, CorruptionError, IOFailure, UnsupportedError: An index cannot be
            read. A tensor that cannot be read is in ``.unreadable`` instead.
        TypeError: An argument has the wrong type.
        ValueError: A tolerance is negative or NaN; `rename` maps several tensors to one, maps a
            name that a does not have, or has an invalid regular expression.

    Examples:
        >>> report = tb.diff("model.ckpt-1000", "model.ckpt-2000", values=True)
        >>> assert report.same, report
    """
    tolerance = Tolerance(_tolerance(rtol, "rtol"), _tolerance(atol, "atol"))
    arguments.check_progress(progress)
    with checkpoint.opened(a) as first, checkpoint.opened(b) as second:
        return _Comparison(first, second, rename, tolerance, bool(values), progress).run()


def _tolerance(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}") from None
    if not number >= 0:
        raise ValueError(f"{name} must be at least 0, not {number}")
    return number


class _Fingerprint(NamedTuple):
    """The stored checksums of a tensor. Two of them can be compared if their layouts are equal."""

    layout: Hashable
    checksum: Hashable


# The kind of error of a tensor whose type is not known. Its checksums can be compared.
_NOT_SUPPORTED = "not supported"
# The bytes of the largest tensor that is read to find out whether it is constant.
_TINY = 1024
# The layout of elements in row-major and little-endian order, with one checksum for all of them.
_WHOLE = ("whole", False)


class _Pair(NamedTuple):
    """Two tensors that are compared."""

    a: Tensor
    b: Tensor


class _Comparison:
    """One call of ``diff``."""

    def __init__(
        self,
        a: Checkpoint,
        b: Checkpoint,
        rename: Rename | None,
        tolerance: Tolerance,
        values: bool,
        progress: Callable[[int, int], object] | None,
    ) -> None:
        self._a, self._b = a, b
        self._tensors_a, self._tensors_b = dict(a.items()), dict(b.items())
        self._new_names, self._warnings = _new_names(self._tensors_a, rename, a.path)
        self._tolerance = tolerance
        self._reads_differing = values or not tolerance.is_exact
        self._progress = progress
        self._changed: list[TensorDiff] = []
        self._close: list[TensorDiff] = []
        self._unreadable: list[Unreadable] = []
        self._unchanged = 0
        self._scratch = blocks.Scratch()

    def run(self) -> DiffReport:
        pairs = {
            name: new
            for name, new in zip(self._tensors_a, self._new_names, strict=True)
            if new in self._tensors_b
        }
        to_read = []
        for name, new in pairs.items():
            pair = _Pair(self._tensors_a[name], self._tensors_b[new])
            if self._is_undecided(pair):
                to_read.append(pair)
        self._compare_values(to_read)
        partners = set(pairs.values())
        only_a = [name for name in self._tensors_a if name not in pairs]
        only_b = [name for name in self._tensors_b if name not in partners]
        renamed, ambiguous = self._find_renames(only_a, only_b)
        blocks.require_unchanged(self._a._core, self._b._core)
        gone, added = {old for old, _ in renamed}, {new for _, new in renamed}
        order = {name: i for i, name in enumerate(self._tensors_a)}
        return DiffReport(
            a=self._a.path,
            b=self._b.path,
            changed=tuple(sorted(self._changed, key=lambda row: order[row.name])),
            only_a=tuple(name for name in only_a if name not in gone),
            only_b=tuple(name for name in only_b if name not in added),
            renamed=tuple(renamed),
            ambiguous=tuple(ambiguous),
            unchanged=self._unchanged,
            close=tuple(sorted(self._close, key=lambda row: order[row.name])),
            unreadable=tuple(self._unreadable),
            warnings=tuple(self._warnings),
        )

    def _is_undecided(self, pair: _Pair) -> bool:
        """Compares two tensors by the index; returns whether their values must be compared."""
        errors = self._errors(pair)
        if any(kind != _NOT_SUPPORTED for kind, _ in errors):
            self._unreadable += [error for _, error in errors]
            return False
        reasons = []
        if pair.a._core.type_number != pair.b._core.type_number:
            reasons.append("dtype")
        if pair.a.shape != pair.b.shape:
            reasons.append("shape")
        if reasons:
            if reasons == ["dtype"] and self._reads_differing and _are_numbers(pair):
                return True
            self._changed.append(_difference(pair, *reasons))
            return False
        first = _fingerprint(pair.a, self._a._core.big_endian)
        second = _fingerprint(pair.b, self._b._core.big_endian)
        decided = first is not None and second is not None and first.layout == second.layout
        if decided and first == second:
            self._unchanged += 1
        elif decided and (errors or not self._reads_differing):
            self._changed.append(_difference(pair, "values"))
        elif errors:
            self._unreadable += [error for _, error in errors]
        else:
            return True
        return False

    def _errors(self, pair: _Pair) -> list[tuple[str, Unreadable]]:
        """Returns (kind, error) of each tensor that cannot be read."""
        first, second = pair.a._core.error(), pair.b._core.error()
        errors = []
        if first is not None:
            errors.append((first[0], Unreadable(self._a.path, pair.a.name, first[1])))
        if second is not None:
            errors.append((second[0], Unreadable(self._b.path, pair.b.name, second[1])))
        return errors

    def _compare_values(self, pairs: list[_Pair]) -> None:
        pairs.sort(key=lambda pair: blocks.file_order(pair.a))
        total = sum(pair.a.nbytes + pair.b.nbytes for pair in pairs)
        done = 0
        for batch in blocks.batches(pairs, lambda pair: pair.a.nbytes + pair.b.nbytes):
            readable = self._verified(batch)
            found = self._compare_batch(readable)
            for pair in readable:
                if pair.a.name in found:
                    self._classify(pair, found[pair.a.name])
            done += sum(pair.a.nbytes + pair.b.nbytes for pair in batch)
            if self._progress is not None:
                self._progress(done, total)

    def _verified(self, batch: list[_Pair]) -> list[_Pair]:
        """Compares the checksums of a batch; returns the pairs that are not corrupted."""
        wrong_a = blocks.damage(self._a._core, [pair.a for pair in batch])
        wrong_b = blocks.damage(self._b._core, [pair.b for pair in batch])
        for path, wrong in ((self._a.path, wrong_a), (self._b.path, wrong_b)):
            self._unreadable += [
                Unreadable(path, name, message) for name, (message, _) in wrong.items()
            ]
        return [pair for pair in batch if pair.a.name not in wrong_a and pair.b.name not in wrong_b]

    def _compare_batch(self, pairs: Sequence[_Pair]) -> dict[str, ValueDiff]:
        """Compares the values of pairs; returns the results by name in a.

        On one thread: more would mostly wait for the interpreter's lock, once for each short call.
        """
        found = {pair.a.name: ValueDiff(0) for pair in pairs}
        for pair in pairs:
            if needs_chunks(pair.a, pair.b):
                parts = compare_chunks(pair.a, pair.b, self._tolerance)
            else:
                parts = compare_in_boxes(pair.a, pair.b, self._tolerance, self._scratch)
            for part in parts:
                found[pair.a.name] += part
        return found

    def _classify(self, pair: _Pair, found: ValueDiff) -> None:
        if pair.a.stored_dtype != pair.b.stored_dtype:
            reasons = ("dtype", "values") if found.different else ("dtype",)
            self._changed.append(replace(_difference(pair, *reasons), values=found))
        elif found.different:
            self._changed.append(replace(_difference(pair, "values"), values=found))
        else:
            self._unchanged += 1
            if found.max_abs is not None:
                self._close.append(replace(_difference(pair), values=found))

    def _find_renames(
        self, only_a: Sequence[str], only_b: Sequence[str]
    ) -> tuple[list[tuple[str, str]], list[Ambiguity]]:
        """Pairs tensors without a partner that have the same type, shape and checksum."""
        first = [self._tensors_a[name] for name in only_a]
        second = [self._tensors_b[name] for name in only_b]
        kinds = {_kind(tensor) for tensor in first} & {_kind(tensor) for tensor in second}
        by_content: dict[Hashable, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for side, owner, tensors in ((0, self._a, first), (1, self._b, second)):
            candidates = [tensor for tensor in tensors if _kind(tensor) in kinds]
            for tensor, content in _contents(owner, candidates):
                by_content[_kind(tensor), content][side].append(tensor.name)
        groups = [(names, others) for names, others in by_content.values() if names and others]
        renamed = [
            (a[0], b[0])
            for a, b in groups
            if len(a) == len(b) == 1 and not _is_tiny_constant(self._tensors_a[a[0]])
        ]
        ambiguous = [Ambiguity(tuple(a), tuple(b)) for a, b in groups if not len(a) == len(b) == 1]
        return renamed, ambiguous


def _difference(pair: _Pair, *reasons: str) -> TensorDiff:
    return TensorDiff(
        name=pair.a.name,
        name_b=pair.b.name,
        reasons=reasons,
        dtypes=(pair.a.stored_dtype, pair.b.stored_dtype),
        shapes=(pair.a.shape, pair.b.shape),
    )


def _are_numbers(pair: _Pair) -> bool:
    return pair.a.dtype != object and pair.b.dtype != object


def _kind(tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    return tensor.stored_dtype, tensor.shape


def _is_tiny_constant(tensor: Tensor) -> bool:
    """Returns whether equal contents are no evidence that two tensors are the same."""
    if tensor.size <= 1:
        return True
    if tensor.dtype == object or tensor.nbytes > _TINY:
        return False
    try:
        data = casts.bits(np.asarray(tensor)).reshape(-1)
    except Error:
        return False
    return bool((data == data[0]).all())


def _contents(owner: Checkpoint, tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, Hashable]]:
    """Yields tensors with a value that is equal for equal contents: the checksum of all elements.

    It is computed if the index does not have it. Tensors that have none are left out.
    """
    unknown = []
    for tensor in tensors:
        if tensor.error is not None:
            continue
        found = _fingerprint(tensor, owner._core.big_endian)
        if found is not None and found.layout == _WHOLE:
            yield tensor, found.checksum
        elif tensor.dtype != object:
            unknown.append(tensor)
    for batch in blocks.batches(unknown, lambda tensor: tensor.nbytes):
        wrong = blocks.damage(owner._core, batch)
        for tensor in batch:
            if tensor.name not in wrong:
                yield tensor, _computed_checksum(tensor)


def _computed_checksum(tensor: Tensor) -> int:
    arrays: Iterator[Any]
    if tensor._core.is_decoded and tensor.shape:
        arrays = (array.reshape(-1) for _, array in tensor.chunks())
    else:
        scratch = blocks.Scratch()
        arrays = (scratch.read_box("", tensor, box) for box in blocks.boxes(tensor.shape))
    checksum = 0
    for array in arrays:
        checksum = _core.crc32c(array.view(np.uint8), checksum)
    return checksum


def _fingerprint(tensor: Tensor, big_endian: bool) -> _Fingerprint | None:
    """Returns the checksums of a tensor in the index, or None if it does not have them all."""
    rows = tensor._core.slices()
    if any(row[5] is None for row in rows):
        return None
    is_swapped = big_endian and tensor.dtype.itemsize > 1
    if len(rows) == 1:
        return _Fingerprint(("whole", is_swapped), rows[0][5])
    # The checksum of strings covers their lengths as numbers, so it cannot be combined.
    combined = None if tensor.dtype == object else _combined(rows, tensor.shape)
    if combined is not None:
        return _Fingerprint(("whole", is_swapped), combined)
    ordered = sorted(rows)
    boxes = tuple((row[0], row[1]) for row in ordered)
    return _Fingerprint((boxes, is_swapped), tuple(row[5] for row in ordered))


def _combined(rows: Sequence[tuple[Any, ...]], shape: tuple[int, ...]) -> int | None:
    """Returns the checksum of all elements from those of slices along axis 0, or None.

    The slices must be all of the tensor, as `Tensor.error` has checked.
    """
    end = crc = 0
    for offset, lengths, _, _, nbytes, stored in sorted(rows):
        if not shape or offset[0] != end or lengths[1:] != shape[1:]:
            return None
        end += lengths[0]
        crc = _core.crc32c_combine(crc, stored, nbytes)
    return crc if end == shape[0] else None


def _new_names(
    tensors: Mapping[str, Tensor], rename: Rename | None, path: str
) -> tuple[list[str], list[str]]:
    """Returns the name in b of each tensor of a, and warnings."""
    names = list(tensors)
    if rename is None:
        return names, []
    renaming = Renaming(rename)
    new = [renaming.key_and_full_name(Names.of(name, None), None)[0] for name in names]
    sources: dict[str, list[str]] = defaultdict(list)
    for name, other in zip(names, new, strict=True):
        sources[other].append(name)
    problems = [
        f"{len(old)} tensors would be compared with {other!r}: {', '.join(map(repr, old))}"
        for other, old in sources.items()
        if len(old) > 1
    ]
    problems += [
        f"{path!r} has no tensor {name!r}{_nearest(name, names)}" for name in renaming.absent
    ]
    if problems:
        raise ValueError("rename: " + "; ".join(problems))
    return new, [
        f"rename: no name matches {pattern!r}{_nearest(pattern, names)}"
        for pattern in renaming.unused
    ]


def _nearest(name: str, names: list[str]) -> str:
    near = ", ".join(map(repr, naming.nearest(name, names)))
    return f"; the nearest names are {near}" if near else ""
