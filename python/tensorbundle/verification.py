# SPDX-License-Identifier: Apache-2.0
"""What a comparison of checksums found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorbundle import naming
from tensorbundle.errors import CorruptionError, IOFailure

if TYPE_CHECKING:
    from tensorbundle.reader import Checkpoint


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
        notes: What is odd but harmless.
    """

    path: str
    checked_bytes: int
    damaged: tuple[Damage, ...]
    unreadable: tuple[Damage, ...]
    notes: tuple[str, ...]

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
    checkpoint: Checkpoint,
    names: Iterable[str] | None,
    progress: Callable[[int, int], object] | None,
) -> VerifyReport:
    """Does the work of ``Checkpoint.verify``."""
    core = checkpoint._opened
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, not {type(progress).__name__}")
    if names is None:
        indices = list(range(len(core)))
    else:
        # Once each, also where a tensor is named by its key and by its full name.
        required = map(checkpoint._require, naming.several(names))
        indices = list(dict.fromkeys(required))
    checked_bytes, rows = core.verify(indices, threads=checkpoint.threads, progress=progress)
    found = [
        Damage(core.name(index), file, offset, nbytes, message, cause, errno)
        for index, file, offset, nbytes, message, cause, errno in rows
    ]
    return VerifyReport(
        path=checkpoint.path,
        checked_bytes=checked_bytes,
        damaged=tuple(finding for finding in found if not finding.errno),
        unreadable=tuple(finding for finding in found if finding.errno),
        notes=tuple(core.warnings),
    )
