# SPDX-License-Identifier: Apache-2.0
"""What to tell a person whose path leads to no checkpoint."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Sequence

from tensorbundle.filenames import (
    INDEX_SUFFIX,
    data_file_prefix,
    names_in,
    v1_pattern,
    v1_shard_parts,
)
from tensorbundle.state_text import CheckpointState

# The last eight bytes of every table file, V1's and V2's index alike.
_TABLE_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_HEAD_BYTES = 64

_SHOWN = 5  # as many names as a message lists in full
_CANDIDATES = 2000  # names compared with a misspelt one, so that a huge directory costs no minutes

_KNOWN_HEADS = (
    (
        re.compile(rb"version https://git-lfs"),
        "is a Git-LFS pointer, not the file itself: run 'git lfs pull' in its repository",
    ),
    (
        re.compile(rb"\s*(?:model_checkpoint_path|all_model_checkpoint_\w+)\s*:"),
        "is the state file of a directory, not a checkpoint: give the directory, "
        "or a prefix that is named in the file",
    ),
    (
        re.compile(rb"\s*<(?:!doctype\s+)?html", re.IGNORECASE),
        "is an HTML page, not a checkpoint: the download went wrong",
    ),
    (
        re.compile(rb"\x89HDF\r\n\x1a\n"),
        "is an HDF5 file (Keras weights), not a checkpoint: h5py reads it",
    ),
)


def no_checkpoint_in(directory: str, state: CheckpointState | None) -> str:
    """Say why a directory leads to no checkpoint.

    Args:
        directory: The directory.
        state: What its state file says, if it could be read.
    """
    # TensorFlow's own sentence comes first: people search for it.
    text = f"Couldn't find 'checkpoint' file or checkpoints in given directory {directory}"
    names = names_in(directory)
    if state is not None:
        latest = state.model_checkpoint_path
        text += f": its 'checkpoint' file names {latest!r}, which does not exist"
    elif "checkpoint" in names:
        text += ": its 'checkpoint' file is not a readable state file (the log has the reason)"
    prefixes = _prefixes(names)
    if not prefixes:
        return f"{text}. No name in it ends in '{INDEX_SUFFIX}' either"
    joined = [os.path.join(directory, prefix) for prefix in prefixes]
    return f"{text}. These prefixes are in it, give one of them: {enumerated(joined)}"


def not_found(text: str) -> str:
    """Say why a prefix leads to no checkpoint, and what is near it."""
    # A slash at the end makes a directory of it, and there is none.
    prefix = (text.rstrip("/") or text).removesuffix(INDEX_SUFFIX)
    prefix = data_file_prefix(prefix) or prefix
    index = prefix + INDEX_SUFFIX
    message = f"no checkpoint at {text!r}"
    if text.endswith("/"):
        message += ": it is no directory, as its last character says"
    else:
        message += f": there is no file {index!r}"
    if prefix == text:
        message += f" (V2) and no file {text!r} (V1)"
    directory, base = os.path.split(prefix)
    if not os.path.isdir(directory or os.curdir):
        return f"{message}. {_missing_directory(directory)}"
    names = names_in(directory)
    hints = [hint for hint in (_dangling(index), _dangling(prefix)) if hint]
    hints += _partial_hints(directory, base, names)
    if not hints and any(character in base for character in "*?["):
        hints.append("Patterns are not expanded, except V1's '-?????-of-NNNNN'")
    if not hints:
        hints += _near_hints(directory, base, names)
    return ". ".join([message, *hints])


def mistaken_for_checkpoint(path: str) -> str | None:
    """Say what a file is that cannot be a checkpoint's; None if it may be one.

    At most the first 64 and the last 8 bytes are read, and none of a file that is not a regular
    one: the reader refuses those itself.
    """
    ends = _ends_of(path)
    if ends is None or ends[1] == _TABLE_MAGIC:
        return None
    head = ends[0]
    if path.endswith(".meta"):
        prefix = path.removesuffix(".meta")
        return (
            f"{path!r} holds a graph (MetaGraphDef), no tensors: give the prefix {prefix!r}, "
            f"whose tensors are in {prefix + INDEX_SUFFIX!r} and the '.data-' files beside it"
        )
    if os.path.basename(path) in ("saved_model.pb", "saved_model.pbtxt"):
        return f"{path!r} is the graph of a SavedModel: give its directory instead"
    for pattern, sentence in _KNOWN_HEADS:
        if pattern.match(head):
            return f"{path!r} {sentence}"
    return None


def enumerated(names: Sequence[str]) -> str:
    """Return names for a message, the first few of them if there are many."""
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _ends_of(path: str) -> tuple[bytes, bytes] | None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_TABLE_MAGIC)))
            return head, file.read(len(_TABLE_MAGIC))
    except OSError:
        return None  # whoever opens it next says why, with the system's own reason


def _missing_directory(directory: str) -> str:
    if os.path.exists(directory):
        return f"{directory!r} is not a directory"
    parent = os.path.dirname(directory)
    while parent and not os.path.exists(parent):
        parent = os.path.dirname(parent)
    return f"The directory {directory!r} does not exist" + (f" ({parent!r} does)" if parent else "")


def _dangling(path: str) -> str | None:
    """A link to nowhere: a checkout without its large files, or a cache that was cleaned."""
    if not os.path.islink(path) or os.path.exists(path):
        return None
    return f"{path!r} is a symbolic link to {os.readlink(path)!r}, which does not exist"


def _partial_hints(directory: str, base: str, names: list[str]) -> list[str]:
    """What is left of a checkpoint that was copied in part, or whose writer was stopped."""
    hints = []
    data = [name for name in names if data_file_prefix(name) == base]
    if data and base + INDEX_SUFFIX not in names:
        hints.append(
            f"Its data files are there ({enumerated(data)}), its index is not: "
            f"copy '{base}{INDEX_SUFFIX}' too"
        )
    leftovers = [name for name in names if _is_leftover(directory, base, name)]
    if leftovers:
        hints.append(
            f"A save that did not finish left {enumerated(leftovers)} behind: "
            "use an earlier checkpoint"
        )
    if not hints and f"{base}.meta" in names:
        hints.append(
            f"'{base}.meta' is there, but it holds the graph only: "
            f"copy '{base}{INDEX_SUFFIX}' and the '{base}.data-' files too"
        )
    return hints


def _is_leftover(directory: str, base: str, name: str) -> bool:
    if name == f"{base}_temp" or name.startswith(f"{base}_temp_"):
        return os.path.isdir(os.path.join(directory, name))
    return name.startswith(f"{base}.") and ".tempstate" in name


def _near_hints(directory: str, base: str, names: list[str]) -> list[str]:
    prefixes = _prefixes(names)
    near = difflib.get_close_matches(base, prefixes[:_CANDIDATES], n=3)
    if near:
        return [f"Near it: {enumerated([os.path.join(directory, name) for name in near])}"]
    if prefixes:
        return [f"In {directory or os.curdir!r} there are {enumerated(prefixes)}"]
    return [f"There is no checkpoint in {directory or os.curdir!r}"]


def _prefixes(names: list[str]) -> list[str]:
    found = {name.removesuffix(INDEX_SUFFIX) for name in names if name.endswith(INDEX_SUFFIX)}
    for name in names:
        parts = v1_shard_parts(name)
        if parts is not None and data_file_prefix(name) is None:
            found.add(v1_pattern(parts[0], parts[2]))
    return sorted(found)
