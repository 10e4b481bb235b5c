# SPDX-License-Identifier: Apache-2.0
"""Full names of an object graph, and messages for names that a checkpoint does not have.

An object-based checkpoint (``tf.train.Checkpoint``, Keras) stores tensors under keys such as
``model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE``. Its object graph also has the full name that each
variable had in the program, such as ``dense/kernel``. Several variables may have the same full
name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from tensorbundle import _core
from tensorbundle.errors import AmbiguousNameError

# The key of the object graph in a checkpoint of ``tf.train.Checkpoint``.
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"

# The end of a variable's key in such a checkpoint.
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"

# Limits of a message: nearest names, keys of one full name, and characters of the absent name.
_MAX_NEAREST = 3
_MAX_KEYS = 5
_MAX_NAME_CHARS = 500

# The lowest difflib ratio of two similar names.
_MIN_RATIO = 0.6
# The lowest ratio for UTF-8 bytes: in the worst case, common characters have one byte, others four.
_MIN_BYTE_RATIO = _MIN_RATIO / (_MIN_RATIO + 4 * (1 - _MIN_RATIO))
# The fewest characters of a name with whose beginning a component is compared.
_MIN_BEGINNING = 3
# The number of candidates for difflib, which is exact but slow, after a fast preselection.
_MAX_COMPARED = 24
# difflib's time is quadratic in the length.
_MAX_COMPARED_CHARS = 256


@dataclass(frozen=True)
class FullNames:
    """The full names of one checkpoint.

    Attributes:
        by_key: Key to full name, for the tensors of the checkpoint.
        keys: Full name to its keys, for the same tensors.
        absent: Full name to a key that is in the graph but not in the checkpoint.
        error: The reason why full names may be missing, or None.
    """

    by_key: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None


def full_names(rows: Iterable[tuple[str, str, bool]], error: str | None) -> FullNames:
    """Builds the maps from the rows of an object graph.

    Args:
        rows: (full name, key, whether the checkpoint has that key).
        error: The reason why rows may be missing, or None.
    """
    by_key: dict[str, str] = {}
    keys: dict[str, list[str]] = {}
    absent: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for name, key, present in rows:
        if not present:
            absent.setdefault(name, key)
        elif (name, key) not in seen:
            seen.add((name, key))
            by_key.setdefault(key, name)
            keys.setdefault(name, []).append(key)
    return FullNames(MappingProxyType(by_key), keys, absent, error)


def as_text(name: str | bytes) -> str:
    """Converts a name to the str that the checkpoint lists."""
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")


def as_bytes(name: str | bytes) -> bytes:
    """Converts a name to its bytes in a checkpoint and in op attributes, which may not be UTF-8.

    Raises:
        TypeError: `name` is of another type.
    """
    if isinstance(name, bytes):
        return name
    if not isinstance(name, str):
        raise TypeError(f"the name of a tensor must be a str or bytes, not {type(name).__name__}")
    return name.encode("utf-8", "surrogateescape")


def check_names(names: object) -> Iterable[str | bytes]:
    """Returns `names` after checking that it is a collection.

    Raises:
        TypeError: `names` is a single name, or not iterable.
    """
    if isinstance(names, (str, bytes)):
        raise TypeError(f"names must be a sequence of names, not a single {type(names).__name__}")
    if not isinstance(names, Iterable):
        raise TypeError(f"names must be a sequence of names, not {type(names).__name__}")
    return names


def ambiguous_name_error(name: str, keys: Sequence[str], path: str) -> AmbiguousNameError:
    """Returns the error for a full name that several tensors have."""
    first = ", ".join(map(repr, keys[:_MAX_KEYS]))
    more = f" and {len(keys) - _MAX_KEYS} more" if len(keys) > _MAX_KEYS else ""
    return AmbiguousNameError(
        f"{name!r} is the full name of {len(keys)} tensors of {path!r}: give the key of one of "
        f"them, {first}{more}"
    )


def not_found_message(
    name: str, names: Callable[[], list[str]], full: FullNames, path: str
) -> Callable[[], str]:
    """Returns a function that composes the message about an absent name."""
    return functools.partial(_compose_message, name, names, full, path)


def _compose_message(
    name: str, list_names: Callable[[], list[str]], full: FullNames, path: str
) -> str:
    names = list_names()
    clipped = repr(name[:_MAX_NAME_CHARS]) + "..." * (len(name) > _MAX_NAME_CHARS)
    count = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    text = f"{path!r} has {count}, but no tensor {clipped}"
    if name in full.absent:
        text += f": it is the full name of {full.absent[name]!r}, which is not stored"
    near = [_describe(found, full) for found in nearest(name, [*names, *full.keys])]
    if near:
        text += f"; the nearest names are {', '.join(near)}"
    if full.error is not None:
        text += f". Full names may be missing, because {full.error}"
    return text


def _describe(name: str, full: FullNames) -> str:
    keys = full.keys.get(name)
    if keys is None:
        return repr(name)
    if len(keys) > 1:
        return f"{name!r} (the full name of {len(keys)} tensors)"
    return f"{name!r} (the full name of {keys[0]!r})" if keys[0] != name else repr(name)


def nearest(name: str, candidates: list[str], count: int = _MAX_NEAREST) -> list[str]:
    """Returns the candidates that are similar to a name, except the name itself, nearest first.

    Takes about 50 ms for 100,000 candidates. The work is bounded: of millions of candidates, only
    the first are compared.
    """
    encoded = name.encode("utf-8", "surrogatepass")
    found = _core.similar_names(encoded, candidates, _MAX_COMPARED, _MIN_BYTE_RATIO)
    import difflib  # only an error needs it

    matcher = difflib.SequenceMatcher(b=name[:_MAX_COMPARED_CHARS])
    scores: dict[str, float] = {}
    for candidate in found:
        if candidate not in scores and candidate != name:
            matcher.set_seq1(candidate[:_MAX_COMPARED_CHARS])
            scores[candidate] = matcher.ratio()
    near = [candidate for candidate, score in scores.items() if score >= _MIN_RATIO]
    near.sort(key=scores.__getitem__, reverse=True)
    if len(near) < count:
        # A long name is not similar to one of its components, so compare the components: all of
        # the last one, or the beginning of any.
        ending = f"/{name}"
        found_in = {other for other in candidates if other.endswith(ending)}
        if len(name) >= _MIN_BEGINNING:
            found_in.update(
                other for other in candidates if other.startswith(name) or ending in other
            )
        found_in = found_in.difference(near, [name])
        near += sorted(found_in, key=lambda each: (not each.endswith(ending), len(each), each))
    return near[:count]
