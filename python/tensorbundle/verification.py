# SPDX-License-Identifier: Apache-2.0
"""What a comparison of checksums found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensorbundle import _core
from tensorbundle.errors import CorruptionError, IOFailure


@dataclass(frozen=True)
class Damage:
    """Something that is wrong with a tensor, mostly with a stored slice of it.

    Attributes:
        tensor: The tensor's name.
        file: The file that it lies in.
        offset: Where its bytes begin in that file.
        nbytes: How many there are; 0 where the tensor as a whole is at fault, stored in part or
            partly stored twice. The file is the index then.
        message: What is wrong with it.
        cause: What is wrong with the file, where that is the reason; else ``""``. The same for all
            tensors in the file.
        errno: The system's error number, where it failed a read; else 0.
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
        checked_bytes: Bytes that were read and compared.
        damaged: What is damaged, in the order of files and offsets.
        unreadable: What the system failed to read, so that nothing is known of it: no permission,
            too many open files, a failing disk. That is not damage, and may be gone next time.
        warnings: What is unusual but not an error.
    """

    path: str
    checked_bytes: int
    damaged: tuple[Damage, ...]
    unreadable: tuple[Damage, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every byte was read, and is as it was written."""
        return not (self.damaged or self.unreadable)

    def raise_for_damage(self) -> None:
        """Raises CorruptionError if anything is damaged, IOFailure if the system failed a read.

        The message has the first few findings; what many tensors share is said once.
        """
        if self.damaged:
            count = len(self.damaged)
            raise CorruptionError(
                f"{self.path!r} is damaged in {count} place{'s' * (count > 1)}: "
                + "; ".join(summarized(self.damaged))
            )
        if self.unreadable:
            first = self.unreadable[0]
            raise IOFailure(
                f"{self.path!r} cannot be read whole: " + "; ".join(summarized(self.unreadable)),
                first.errno,
                first.file,
            )


def by_cause(findings: Sequence[Damage]) -> dict[str, list[Damage]]:
    """The findings that several tensors share, by their cause; a finding of its own by its message.

    In the order of the first of each.
    """
    groups: dict[str, list[Damage]] = {}
    for finding in findings:
        groups.setdefault(finding.cause or finding.message, []).append(finding)
    return {
        text if len({finding.tensor for finding in group}) > 1 else group[0].message: group
        for text, group in groups.items()
    }


def summarized(findings: Sequence[Damage], limit: int = 3) -> list[str]:
    """The first few findings in words: those of one cause as one, which names the cause."""
    groups = by_cause(findings)
    shown = []
    for text, group in list(groups.items())[:limit]:
        count = len({finding.tensor for finding in group})
        shown.append(f"{text} (this concerns {count} tensors)" if count > 1 else text)
    more = len(groups) - len(shown)
    return [*shown, f"and {more} more"] if more else shown


def verify_tensors(
    core: _core.Checkpoint,
    path: str,
    tensors: list[_core.Tensor] | None,
    progress: Callable[[int, int], object] | None,
) -> VerifyReport:
    """Implements ``Checkpoint.verify``. `tensors` are all if None."""
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, not {type(progress).__name__}")
    checked_bytes, rows = core.verify(tensors, progress=progress)
    found = [Damage(*row) for row in rows]
    return VerifyReport(
        path=path,
        checked_bytes=checked_bytes,
        damaged=tuple(finding for finding in found if not finding.errno),
        unreadable=tuple(finding for finding in found if finding.errno),
        warnings=tuple(core.warnings),
    )
