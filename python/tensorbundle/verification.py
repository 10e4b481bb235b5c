# SPDX-License-Identifier: Apache-2.0
"""What a comparison of checksums found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorbundle import naming
from tensorbundle.errors import CorruptionError

if TYPE_CHECKING:
    from tensorbundle.reader import Checkpoint


@dataclass(frozen=True)
class Damage:
    """A stored piece that cannot be trusted.

    Attributes:
        tensor: The tensor's name.
        file: The file that it lies in.
        offset: Where its bytes begin in that file.
        nbytes: How many there are.
        message: What is wrong with it.
    """

    tensor: str
    file: str
    offset: int
    nbytes: int
    message: str


@dataclass(frozen=True)
class VerifyReport:
    """The result of ``Checkpoint.verify``.

    Attributes:
        path: The checkpoint.
        checked_bytes: Bytes that were to be read.
        damaged: What is damaged, in the order of files and offsets.
        notes: What is odd but harmless.
    """

    path: str
    checked_bytes: int
    damaged: tuple[Damage, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was written."""
        return not self.damaged

    def raise_for_damage(self) -> None:
        """Raises CorruptionError, with the first messages, if anything is damaged."""
        if self.ok:
            return
        shown = "; ".join(damage.message for damage in self.damaged[:3])
        more = f"; and {len(self.damaged) - 3} more" if len(self.damaged) > 3 else ""
        raise CorruptionError(
            f"{self.path!r} is damaged in {len(self.damaged)} places: {shown}{more}"
        )


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
    damaged = tuple(
        Damage(core.name(index), file, offset, nbytes, message)
        for index, file, offset, nbytes, message in rows
    )
    return VerifyReport(checkpoint.path, checked_bytes, damaged, tuple(core.notes))
