# SPDX-License-Identifier: Apache-2.0
"""A link to the op library that makes ``import tensorflow`` load it.

TensorFlow loads the libraries in the folder ``tensorflow-plugins`` next to its package. The library
then serves scripts that cannot be changed: its kernels run TensorFlow's own restore ops, and a
parameter server has tensorbundle's ops. The library is linked, not copied, because a copy would not
be upgraded with the package. This module does not import TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from tensorbundle import errors

LIBRARY = "libtensorbundle_tf.so"
FOLDER = "tensorflow-plugins"
# The ops of TensorFlow for which the library has kernels.
SERVED_OPS = ("RestoreV2", "GenerateVocabRemapping", "LoadAndRemapMatrix")


@dataclass(frozen=True)
class Status:
    """The state of the link.

    Attributes:
        state: ``"enabled"``: a link to this package's library. ``"disabled"``: no file.
            ``"stale"``: a broken link, or a link to another file. ``"foreign"``: a file that is not
            a link. ``"no tensorflow"``: TensorFlow is not installed.
        library: This package's library, or None if the package was built without it.
        link: The path of the link, or None without TensorFlow.
        target: The target of the existing link, as returned by ``os.readlink``.
    """

    state: str
    library: Path | None
    link: Path | None
    target: str | None

    @property
    def serves(self) -> tuple[str, ...]:
        """The ops of TensorFlow that the library serves in every script of this Python."""
        return SERVED_OPS if self.state == "enabled" else ()


def find_library() -> Path | None:
    """Returns the path of the op library, or None if the package was built without it."""
    path = Path(__file__).with_name(LIBRARY)
    return path if path.is_file() else None


def status() -> Status:
    """Returns the state of the link."""
    library = find_library()
    folder = _folder()
    if folder is None:
        return Status("no tensorflow", library, None, None)
    link = folder / LIBRARY
    if not link.is_symlink():
        return Status("foreign" if link.exists() else "disabled", library, link, None)
    is_enabled = library is not None and link.exists() and link.samefile(library)
    return Status("enabled" if is_enabled else "stale", library, link, os.readlink(link))


def enable() -> Status:
    """Creates the link, or replaces a stale one.

    Raises:
        tensorbundle.NotFoundError: TensorFlow is not installed, or the package was built without
            the library.
        tensorbundle.UnsupportedError: A file that is not a link has the link's name.
        OSError: The folder cannot be written.
    """
    current = status()
    library, link = _require_library_and_link(current)
    if current.state == "foreign":
        raise errors.UnsupportedError(
            f"{link} is a file, not a link to tensorbundle's library; remove it first"
        )
    if current.state != "enabled":
        link.parent.mkdir(exist_ok=True)
        # Create a temporary link and rename it, so that other processes always see a link.
        temporary = link.with_name(f".{link.name}.{os.getpid()}")
        temporary.symlink_to(library)
        os.replace(temporary, link)
    return status()


def disable() -> Status:
    """Removes the link, even a stale one, and the folder if it is empty.

    Raises:
        tensorbundle.NotFoundError: TensorFlow is not installed.
        tensorbundle.UnsupportedError: A file that is not a link has the link's name.
        OSError: The folder cannot be written.
    """
    current = status()
    if current.link is None:
        raise errors.NotFoundError("TensorFlow is not installed for this Python")
    if current.state == "foreign":
        raise errors.UnsupportedError(
            f"{current.link} is a file, not a link to tensorbundle's library; it is not removed"
        )
    if current.state != "disabled":
        current.link.unlink()
    with contextlib.suppress(OSError):  # not empty, or does not exist
        current.link.parent.rmdir()
    return status()


def _require_library_and_link(current: Status) -> tuple[Path, Path]:
    """Returns the library and the path of its link, or raises NotFoundError."""
    if current.link is None:
        raise errors.NotFoundError("TensorFlow is not installed for this Python")
    if current.library is None:
        raise errors.NotFoundError(f"this installation of tensorbundle was built without {LIBRARY}")
    return current.library, current.link


def _folder() -> Path | None:
    """Returns TensorFlow's plugin folder, next to the package that would be imported."""
    try:
        spec = importlib.util.find_spec("tensorflow")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parents[1] / FOLDER
