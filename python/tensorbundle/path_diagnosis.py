# SPDX-License-Identifier: Apache-2.0
"""What to tell a person whose path leads to no checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from tensorbundle import file_kinds, naming
from tensorbundle.filenames import (
    INDEX_SUFFIX,
    data_file_prefix,
    names_in,
    printable,
    url_without_slash,
    v1_pattern,
    v1_shard_parts,
    why_not_listed,
)

_SHOWN = 5  # names that a message lists in full
_LOOKED_INTO = 500  # files that a message opens, so that a huge directory does not take seconds
_INDEXES_LOOKED_INTO = 100  # indexes that are opened to see whether they are another program's
_FOREIGN_LOOKED_INTO = 50  # of those, files of other programs
_SUBDIRECTORIES = 50  # directories that a message lists

_STATE_FILE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:model_checkpoint_path|all_model_checkpoint_\w+)\s*:"
)
_DATA_FILE = re.compile(r"(?P<prefix>.+)\.data-\d{5,}-of-\d{5,}")
# What browsers and download tools append to a file that they have not finished.
_UNFINISHED = (".crdownload", ".part", ".partial", ".download", ".opdownload", ".aria2", ".tmp")
# What the description of a file begins with that says nothing about a whole directory.
_ANY_FILE = ("is JSON", "is empty", "begins and ends")
_FOREIGN_DIRECTORIES = (
    ({"_CHECKPOINT_METADATA"}, "an Orbax checkpoint (JAX): orbax.checkpoint reads it"),
    ({"manifest.ocdbt"}, "an Orbax checkpoint (JAX): orbax.checkpoint reads it"),
    ({".metadata", "__0_0.distcp"}, "a distributed PyTorch checkpoint: torch reads it"),
)


def prefixes_in(directory: str, names: Sequence[str], limit: int | None = None) -> list[str]:
    """Return what each checkpoint in a directory is called there, sorted.

    V2 prefixes have an index, which is looked into where there are several; V1 files end as tables
    do, and sharded V1 checkpoints are named by their pattern.

    Args:
        directory: The directory.
        names: The names in it.
        limit: How many files are opened to see whether they are V1's; all if None.
    """
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if 1 < len(indexes) <= _INDEXES_LOOKED_INTO:
        # One of another program must not hide the only checkpoint.
        own = [
            name
            for name in indexes
            if not file_kinds.is_foreign_index(os.path.join(directory, name))
        ]
        indexes = own or indexes
    found = {name.removesuffix(INDEX_SUFFIX) for name in indexes}
    looked_into = 0
    for name in names:
        parts = v1_shard_parts(name)
        called = v1_pattern(parts[0], parts[2]) if parts else name
        if called in found or _is_not_v1(name):
            continue
        if limit is not None and looked_into >= limit:
            break
        looked_into += 1
        if file_kinds.is_v1_file(os.path.join(directory, name)):
            found.add(called)
    return sorted(found)


def _is_not_v1(name: str) -> bool:
    """Whether the name alone tells that a file is not a V1 checkpoint."""
    return (
        name.endswith((INDEX_SUFFIX, ".meta", ".ldb", ".sst"))  # the last two are LevelDB's
        or ".tempstate" in name
        or data_file_prefix(name) is not None
    )


def no_checkpoint_in(directory: str, problem: str | None = None) -> str:
    """Say why a directory leads to no checkpoint.

    Args:
        directory: The directory.
        problem: What is wrong with its state file; None if there is no such file.
    """
    # TensorFlow's own sentence comes first: people search for it.
    begin = "Couldn't find 'checkpoint' file or checkpoints in given directory"
    text = f"{begin} {printable(directory)}"
    if problem is not None:
        text += f": {problem}"
    names = names_in(directory)
    prefixes = prefixes_in(directory, names, _LOOKED_INTO)
    if len(prefixes) > 1 and problem is None:
        text += f". {len(prefixes)} prefixes are in it, and no state file says which is meant"
    if prefixes:
        return f"{text}. {give_one_of(directory, prefixes)}"
    return ". ".join([text, *_hints_for_directory(directory, names)])


def give_one_of(directory: str, prefixes: Sequence[str]) -> str:
    """Return the sentence that lists what a directory's checkpoints are called."""
    joined = [os.path.join(directory, prefix) for prefix in prefixes]
    return f"These prefixes are in it, give one of them: {enumerated(joined)}"


def _hints_for_directory(directory: str, names: list[str]) -> list[str]:
    """What is in a directory that has no prefix."""
    hints = _foreign_hints(directory, names)
    stems = {data_file_prefix(name) or _stem_of_index(name) for name in names} - {None}
    for stem in sorted(filter(None, stems))[:_SHOWN]:
        hints += _partial_hints(directory, stem, names)
    below = _prefixes_below(directory, names)
    if below:
        hints.append(f"These prefixes are in its subdirectories, give one of them: {below}")
    return hints or [
        f"No name in it ends in '{INDEX_SUFFIX}', and no file in it is a V1 checkpoint"
    ]


def _prefixes_below(directory: str, names: list[str]) -> str:
    found = []
    listed = 0
    for name in sorted(names, key=lambda name: name != "checkpoint"):
        path = os.path.join(directory, name)
        if listed == _SUBDIRECTORIES:
            break
        if os.path.isdir(path):
            listed += 1
            inside = names_in(path)
            found += [
                os.path.join(path, other.removesuffix(INDEX_SUFFIX))
                for other in inside
                if other.endswith(INDEX_SUFFIX)
            ]
    return enumerated(found) if found else ""


def _foreign_hints(directory: str, names: list[str]) -> list[str]:
    """Which other program's files a directory holds."""
    for marks, description in _FOREIGN_DIRECTORIES:
        if marks <= set(names):
            return [f"It is {description}"]
    hints = []
    for name in names[:_FOREIGN_LOOKED_INTO]:
        kind = file_kinds.kind_of_file(os.path.join(directory, name))
        if kind is not None and not kind.startswith(_ANY_FILE):
            hints.append(f"{name!r} in it {kind}")
    return hints[:2]


def not_found(text: str, also: str | None = None) -> str:
    """Say why a path leads to no checkpoint, and what is near it.

    Args:
        text: The path.
        also: What else the path was taken for.
    """
    # A slash at the end makes a directory of it, and there is none.
    prefix = (text.rstrip("/") or text).removesuffix(INDEX_SUFFIX)
    prefix = data_file_prefix(prefix) or prefix
    index = prefix + INDEX_SUFFIX
    message = f"no checkpoint at {text!r}"
    if text.endswith("/"):
        message += ": there is no directory of that name"
        if _is_checkpoint(prefix):
            return f"{message}, but there is a checkpoint: take the slash off, give {prefix!r}"
    else:
        message += f": there is no file {index!r}"
    if prefix == text:
        message += f" (V2) and no file {text!r} (V1)"
    if also is not None:
        message += f", and no checkpoint at {also!r}"
    return ". ".join([message, *_hints_for_path(text, prefix)])


def _hints_for_path(text: str, prefix: str) -> list[str]:
    directory, base = os.path.split(prefix)
    turned = text.replace("\\", "/")
    if turned != text and (_is_checkpoint(turned) or os.path.isdir(turned)):
        return [f"Directories are separated by slashes here: give {turned!r}"]
    url = url_without_slash(text)
    if url is not None:
        return [f"It looks like the URL {url!r} without a slash, and only local paths can be read"]
    if not os.path.isdir(directory or os.curdir):
        return [_missing_directory(directory)]
    unlisted = why_not_listed(directory)
    if unlisted is not None:
        return [f"The directory {directory!r} cannot be listed ({unlisted})"]
    names = names_in(directory)
    hints = [hint for hint in (dangling(prefix + INDEX_SUFFIX), dangling(prefix)) if hint]
    hints += _partial_hints(directory, base, names)
    if not hints and any(character in base for character in "*?["):
        hints.append("Patterns are not expanded, except V1's '-?????-of-NNNNN'")
    return hints or _near_hints(directory, base, names)


def mistaken_for_checkpoint(path: str, form: int) -> str | None:
    """Say what a file is that cannot be a checkpoint's; None if it may be one.

    Args:
        path: The file.
        form: 2 for the index of a V2 checkpoint, 1 for a V1 file.

    At most 4 KiB of each end are read, and none of a file that is not a regular one: the reader
    refuses those itself.
    """
    ends = file_kinds.ends_of(path)
    if ends is None:
        return None
    if ends.is_table:
        return _mistaken_table(path, ends.head) if form == 1 else None
    if path.endswith(".meta"):
        prefix = path.removesuffix(".meta")
        return (
            f"{path!r} holds a graph (MetaGraphDef), no tensors: give the prefix {prefix!r}, "
            f"whose tensors are in {prefix + INDEX_SUFFIX!r} and the '.data-' files beside it"
        )
    if os.path.basename(path) in ("saved_model.pb", "saved_model.pbtxt"):
        return f"{path!r} is the graph of a SavedModel: give its directory instead"
    if _STATE_FILE.match(ends.head):
        return (
            f"{path!r} is the state file of a directory, not a checkpoint: give the directory, "
            "or a prefix that is named in the file"
        )
    kind = file_kinds.kind_of(ends.head, ends.tail, ends.size)
    kind = kind or file_kinds.quoted_text(ends.head, ends.size)
    if kind is not None:
        return f"{path!r} {kind}"
    data = _DATA_FILE.match(path)
    if data is not None:
        prefix = data["prefix"]
        there = os.path.exists(prefix + INDEX_SUFFIX)
        missing = "" if there else f", whose index {prefix + INDEX_SUFFIX!r} is not there"
        return (
            f"{path!r} has the name of a data file: a checkpoint is opened by its prefix, "
            f"{prefix!r}{missing}"
        )
    return None


def _mistaken_table(path: str, head: bytes) -> str | None:
    if not file_kinds.is_renamed_index(head):
        return None
    if path.endswith(INDEX_SUFFIX):
        prefix = path.removesuffix(INDEX_SUFFIX)
        return f"{path!r} is the index of a V2 checkpoint: give the prefix, {prefix!r}"
    return (
        f"{path!r} is the index of a V2 checkpoint under another name: rename it to the prefix "
        f"of the '.data-' files with '{INDEX_SUFFIX}' behind it, and give the prefix"
    )


def enumerated(names: Sequence[str]) -> str:
    """Return names for a message, the first few of them if there are many."""
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def dangling(path: str) -> str | None:
    """Describe a link to nowhere: a checkout without its large files, or a cleaned cache."""
    if not os.path.islink(path) or os.path.exists(path):
        return None
    return f"{path!r} is a symbolic link to {os.readlink(path)!r}, which does not exist"


def _is_checkpoint(prefix: str) -> bool:
    return os.path.exists(prefix + INDEX_SUFFIX) or os.path.isfile(prefix)


def _missing_directory(directory: str) -> str:
    if os.path.exists(directory):
        return f"{directory!r} is not a directory"
    parent = os.path.dirname(directory)
    while parent and not os.path.exists(parent):
        parent = os.path.dirname(parent)
    return f"The directory {directory!r} does not exist" + (f" ({parent!r} does)" if parent else "")


def _partial_hints(directory: str, base: str, names: list[str]) -> list[str]:
    """What is left of a checkpoint that was copied in part, or whose writer was stopped."""
    if base + INDEX_SUFFIX in names:
        return []
    renamed = [name for name in names if _is_renamed_index(name, base)][:_SHOWN]
    hints = [_renamed(directory, name, base) for name in renamed]
    data = [name for name in names if data_file_prefix(name) == base]
    if data:
        found = f"Its data files are there ({enumerated(data)}), its index is not"
        orphans = [] if hints else _indexes_without_data(names)
        if orphans:
            hints.append(
                f"{found}: if {enumerated(orphans)} belongs to them, rename it to "
                f"{base + INDEX_SUFFIX!r}"
            )
        elif hints:
            hints.insert(0, found)
        else:
            hints.append(f"{found}: copy {base + INDEX_SUFFIX!r} too")
    leftovers = [name for name in names if _is_leftover(directory, base, name)]
    if leftovers:
        hints.append(
            f"A save that did not finish left {enumerated(leftovers)} behind: "
            "use an earlier checkpoint"
        )
    if not hints and f"{base}.meta" in names:
        hints.append(
            f"{base + '.meta'!r} is there, but it holds the graph only: "
            f"copy {base + INDEX_SUFFIX!r} and the {base + '.data-'!r} files too"
        )
    return hints


def _is_renamed_index(name: str, base: str) -> bool:
    """Whether a name is nearly that of a prefix's index: ``m.index.txt``, ``m (1).index``."""
    if ".tempstate" in name:
        return False
    return name.startswith(base + INDEX_SUFFIX) or (
        name.startswith(base)
        and re.fullmatch(r" ?\(\d+\)\.index", name.removeprefix(base)) is not None
    )


def _stem_of_index(name: str) -> str | None:
    """The prefix of a file that may be an index with something behind its name."""
    stem, suffix, _ = name.partition(INDEX_SUFFIX)
    return stem if suffix and ".tempstate" not in name else None


def _renamed(directory: str, name: str, base: str) -> str:
    index = base + INDEX_SUFFIX
    if name.endswith(_UNFINISHED):
        return f"The download of {index!r} did not finish: {name!r} is there"
    kind = file_kinds.kind_of_file(os.path.join(directory, name))
    if kind is not None:
        return f"{name!r} is there, but it {kind}"
    return f"{name!r} is there: if it is the index, rename it to {index!r}"


def _indexes_without_data(names: list[str]) -> list[str]:
    with_data = {data_file_prefix(name) for name in names}
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    return [name for name in indexes if name.removesuffix(INDEX_SUFFIX) not in with_data]


def _is_leftover(directory: str, base: str, name: str) -> bool:
    if name == f"{base}_temp" or name.startswith(f"{base}_temp_"):
        return os.path.isdir(os.path.join(directory, name))
    return name.startswith(f"{base}.") and ".tempstate" in name


def _near_hints(directory: str, base: str, names: list[str]) -> list[str]:
    prefixes = prefixes_in(directory, names, _LOOKED_INTO)
    near = naming.nearest(base, prefixes)
    if near:
        return [f"Near it: {enumerated([os.path.join(directory, name) for name in near])}"]
    if prefixes:
        return [f"In {directory or os.curdir!r} there are {enumerated(prefixes)}"]
    return [
        f"There is no checkpoint in {directory or os.curdir!r}",
        *_foreign_hints(directory, [name for name in names if name.startswith(base)]),
    ]
