# SPDX-License-Identifier: Apache-2.0
"""``Checkpoint.verify`` and its report: which tensors are damaged or cannot be read, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensorbundle import _core, tables
from tensorbundle.arguments import check_progress
from tensorbundle.errors import CorruptionError, IOFailure

# The columns of a report.
_HEADER = ("", "tensor", "file", "offset", "bytes", "message")


@dataclass(frozen=True)
class Damage:
    """A corrupted or unreadable tensor, usually one of its stored slices.

    Attributes:
        tensor: The tensor's name.
        file: The path of the file with the bytes.
        offset: The offset of the first byte in that file.
        nbytes: The number of bytes; 0 for an error of the whole tensor, which is stored in part or
            has elements that are stored twice. The file is the index then.
        message: The error.
        cause: The error of the whole file, if there is one, else ``""``. All tensors in the file
            have the same cause.
        errno: The system's error number if a read failed, else 0.
    """

    tensor: str
    file: str
    offset: int
    nbytes: int
    message: str
    cause: str = ""
    errno: int = 0


@dataclass(frozen=True)
class VerifyReport:
    """The result of ``Checkpoint.verify``.

    Attributes:
        path: The checkpoint.
        checked_bytes: The number of bytes that were read and compared.
        damaged: The corrupted tensors and slices, in the order of files and offsets.
        unreadable: The tensors and slices that the system failed to read: no permission, too many
            open files, a failing disk. Their bytes were not compared, and may be intact.
        warnings: Descriptions of unusual properties that are not errors.
    """

    path: str
    checked_bytes: int
    damaged: tuple[Damage, ...]
    unreadable: tuple[Damage, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every byte was read and matches its checksum."""
        return not (self.damaged or self.unreadable)

    @property
    def summary(self) -> str:
        """One line: ``"ok: 437.9 MiB checked"`` or ``"1 damaged, 2 unreadable: ..."``."""
        counts = [
            f"{len(findings):,} {kind}"
            for kind, findings in (("damaged", self.damaged), ("unreadable", self.unreadable))
            if findings
        ]
        return f"{', '.join(counts) or 'ok'}: {tables.size_text(self.checked_bytes)} checked"

    def __str__(self) -> str:
        rows = self._rows()
        return f"{self.summary}\n{tables.text_table(_HEADER, rows)}" if rows else self.summary

    def _repr_html_(self) -> str:
        return tables.html_table(f"{self.path}: {self.summary}", _HEADER, self._rows())

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            (kind, each.tensor, each.file, f"{each.offset:,}", f"{each.nbytes:,}", each.message)
            for kind, findings in (("damaged", self.damaged), ("unreadable", self.unreadable))
            for each in findings
        ]
        return rows + [("warning", "", "", "", "", text) for text in self.warnings]

    def raise_for_damage(self) -> None:
        """Raises CorruptionError if bytes are corrupted, IOFailure if the system failed a read.

        The message lists the first few errors; a cause that several tensors share is listed once.
        """
        if self.damaged:
            count = len(self.damaged)
            raise CorruptionError(
                f"{self.path!r} is corrupted in {count} place{'s' * (count > 1)}: "
                + "; ".join(summarize(self.damaged))
            )
        if self.unreadable:
            first = self.unreadable[0]
            raise IOFailure(
                f"{self.path!r} cannot be read in full: " + "; ".join(summarize(self.unreadable)),
                first.errno,
                first.file,
            )


def group_by_cause(findings: Sequence[Damage]) -> dict[str, list[Damage]]:
    """Groups findings by their cause, or by their message if no other tensor shares the cause.

    The groups are in the order of their first findings.
    """
    groups: dict[str, list[Damage]] = {}
    for finding in findings:
        groups.setdefault(finding.cause or finding.message, []).append(finding)
    return {
        text if len({finding.tensor for finding in group}) > 1 else group[0].message: group
        for text, group in groups.items()
    }


def summarize(findings: Sequence[Damage], limit: int = 3) -> list[str]:
    """Returns sentences for the first few groups of findings."""
    groups = group_by_cause(findings)
    sentences = []
    for text, group in list(groups.items())[:limit]:
        count = len({finding.tensor for finding in group})
        sentences.append(f"{text} (affects {count} tensors)" if count > 1 else text)
    more = len(groups) - len(sentences)
    return [*sentences, f"and {more} more"] if more else sentences


def verify_tensors(
    core: _core.Checkpoint,
    path: str,
    tensors: list[_core.Tensor] | None,
    progress: Callable[[int, int], object] | None,
) -> VerifyReport:
    """Implements ``Checkpoint.verify``. `tensors` is None for all tensors."""
    check_progress(progress)
    checked_bytes, rows = core.verify(tensors, progress)
    findings = [Damage(*row) for row in rows]
    return VerifyReport(
        path=path,
        checked_bytes=checked_bytes,
        damaged=tuple(finding for finding in findings if not finding.errno),
        unreadable=tuple(finding for finding in findings if finding.errno),
        warnings=tuple(core.warnings),
    )
