# SPDX-License-Identifier: Apache-2.0
"""The link that makes every ``import tensorflow`` load the ops, without a line of user code.

TensorFlow loads what lies in the folder ``tensorflow-plugins`` beside it. For a parameter server
whose script nobody can change that is the only way in. A link and never a copy: a second copy in
one process breaks both, and a copy stays behind when the package is upgraded. Nothing here imports
TensorFlow.
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


@dataclass(frozen=True)
class Status:
    """What lies where TensorFlow looks.

    Attributes:
        state: ``"enabled"``: a link to this package's library. ``"disabled"``: nothing.
            ``"stale"``: a link that leads nowhere or to another file. ``"foreign"``: a file that is
            no link. ``"no tensorflow"``: there is no TensorFlow to look.
        library: This package's library, or None where it was built without.
        link: The place of the link, or None without a TensorFlow.
        target: Where the link that is there leads, as it is spelled.
    """

    state: str
    library: Path | None
    link: Path | None
    target: str | None


def find_library() -> Path | None:
    """The op library of this package, or None where it was built without."""
    path = Path(__file__).with_name(LIBRARY)
    return path if path.is_file() else None


def status() -> Status:
    """Looks; changes nothing."""
    library = find_library()
    folder = _folder()
    if folder is None:
        return Status("no tensorflow", library, None, None)
    link = folder / LIBRARY
    if not link.is_symlink():
        return Status("foreign" if link.exists() else "disabled", library, link, None)
    leads_to_ours = library is not None and link.exists() and link.samefile(library)
    return Status("enabled" if leads_to_ours else "stale", library, link, os.readlink(link))


def enable() -> Status:
    """Makes the link. A stale one is replaced; one that is right stays.

    Raises:
        tensorbundle.NotFoundError: There is no TensorFlow, or the package was built without the
            library.
        tensorbundle.UnsupportedError: A file that is no link is in the way.
        OSError: The folder cannot be written.
    """
    now = status()
    library, link = _both(now)
    if now.state == "foreign":
        raise errors.UnsupportedError(f"{link} is a file and no link of ours; remove it first")
    if now.state != "enabled":
        link.parent.mkdir(exist_ok=True)
        # Made beside it and renamed: a process that starts meanwhile sees the old link or the new.
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        fresh.symlink_to(library)
        os.replace(fresh, link)
    return status()


def disable() -> Status:
    """Removes the link, stale or not, and the folder if nothing else is in it.

    Raises:
        tensorbundle.NotFoundError: There is no TensorFlow.
        tensorbundle.UnsupportedError: What is there is a file and no link.
        OSError: The folder cannot be written.
    """
    now = status()
    if now.link is None:
        raise errors.NotFoundError("TensorFlow is not installed for this Python")
    if now.state == "foreign":
        raise errors.UnsupportedError(f"{now.link} is a file and no link of ours; it is left alone")
    if now.state != "disabled":
        now.link.unlink()
    with contextlib.suppress(OSError):  # it holds something else, or was never there
        now.link.parent.rmdir()
    return status()


def _both(now: Status) -> tuple[Path, Path]:
    """The library and the place of its link."""
    if now.link is None:
        raise errors.NotFoundError("TensorFlow is not installed for this Python")
    if now.library is None:
        raise errors.NotFoundError(
            f"this installation of tensorbundle has no {LIBRARY}: it was built without it"
        )
    return now.library, now.link


def _folder() -> Path | None:
    """Where `import tensorflow` looks for libraries: beside the package that it would import."""
    try:
        spec = importlib.util.find_spec("tensorflow")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parents[1] / FOLDER
