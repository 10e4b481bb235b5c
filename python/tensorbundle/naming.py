# SPDX-License-Identifier: Apache-2.0
"""Full names of an object graph, and what to say of a name that a checkpoint does not have.

An object-based checkpoint (``tf.train.Checkpoint``, Keras) stores tensors under keys such as
``model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE``. Its object graph also has the full name that each
variable had in the program, such as ``dense/kernel``. Several variables may have the same one.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from tensorbundle import _core
from tensorbundle.errors import AmbiguousNameError

_SHOWN = 3  # as many near names as a message lists
_KEYS_SHOWN = 5  # as many keys of one full name
_NAME_SHOWN = 500  # as many characters of the absent name
# A ratio of difflib's from which two names are near.
_NEAR = 0.6
# The same of UTF-8 bytes, at worst: what two names share has one byte per character, the rest four.
_NEAR_IN_BYTES = _NEAR / (_NEAR + 4 * (1 - _NEAR))
# As many names as difflib compares, which is exact and slow; those that share the most characters.
_COMPARED = 24
# difflib takes the square of the sizes.
_COMPARED_SIZE = 256


@dataclass(frozen=True)
class FullNames:
    """The full names of one checkpoint.

    Attributes:
        by_key: Key to full name, of the tensors that the checkpoint has.
        keys: Full name to its keys, of the same tensors.
        absent: Full name to a key that the graph names and the checkpoint does not have.
        problem: Why full names may be missing here, or None.
    """

    by_key: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


def full_names(rows: Iterable[tuple[str, str, bool]], problem: str | None) -> FullNames:
    """Sorts what the object graph says.

    Args:
        rows: (full name, key, whether the checkpoint has that key).
        problem: Why rows may be missing, or None.
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
    return FullNames(MappingProxyType(by_key), keys, absent, problem)


def as_text(name: str | bytes) -> str:
    """Returns a name as the checkpoint lists it."""
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")


def several(names: object) -> Iterable[str | bytes]:
    """Returns what is to be a collection of names, if it may be one.

    Raises:
        TypeError: It is a single name, or not a collection.
    """
    if isinstance(names, (str, bytes)):
        raise TypeError(f"names must be a sequence of names, not a single {type(names).__name__}")
    if not isinstance(names, Iterable):
        raise TypeError(f"names must be a sequence of names, not {type(names).__name__}")
    return names


def ambiguous(name: str, keys: Sequence[str], path: str) -> AmbiguousNameError:
    """Returns the error for a full name that several tensors have."""
    shown = ", ".join(map(repr, keys[:_KEYS_SHOWN]))
    more = f" and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else ""
    return AmbiguousNameError(
        f"{name!r} is the full name of {len(keys)} tensors of {path!r}: give the key of one of "
        f"them, {shown}{more}"
    )


def not_found(
    name: str, names: Callable[[], list[str]], full: FullNames, path: str
) -> Callable[[], str]:
    """Returns a function that composes the message about an absent name."""
    return functools.partial(_compose, name, names, full, path)


def _compose(name: str, list_names: Callable[[], list[str]], full: FullNames, path: str) -> str:
    names = list_names()
    clipped = repr(name[:_NAME_SHOWN]) + "..." * (len(name) > _NAME_SHOWN)
    text = f"there is no tensor {clipped} among the {len(names)} of {path!r}"
    if name in full.absent:
        text += f": it is the full name of {full.absent[name]!r}, which is not stored"
    near = [_described(found, full) for found in nearest(name, [*names, *full.keys])]
    if near:
        text += f"; the nearest names are {', '.join(near)}"
    if full.problem is not None:
        text += f". Full names may be missing, because {full.problem}"
    return text


def _described(name: str, full: FullNames) -> str:
    keys = full.keys.get(name)
    if keys is None:
        return repr(name)
    if len(keys) > 1:
        return f"{name!r} (the full name of {len(keys)} tensors)"
    return f"{name!r} (the full name of {keys[0]!r})" if keys[0] != name else repr(name)


def nearest(name: str, candidates: list[str], count: int = _SHOWN) -> list[str]:
    """Returns the candidates that resemble a name, the nearest first; never the name itself.

    Takes some 50 ms for 100,000 candidates. The work is bounded: of millions, only the first are
    compared.
    """
    wanted = name.encode("utf-8", "surrogatepass")
    found = _core.similar_names(wanted, candidates, count=_COMPARED, least=_NEAR_IN_BYTES)
    matcher = difflib.SequenceMatcher(b=name[:_COMPARED_SIZE])
    scores: dict[str, float] = {}
    for candidate in found:
        if candidate not in scores and candidate != name:
            matcher.set_seq1(candidate[:_COMPARED_SIZE])
            scores[candidate] = matcher.ratio()
    near = [candidate for candidate, score in scores.items() if score >= _NEAR]
    near.sort(key=scores.__getitem__, reverse=True)
    if len(near) < count:
        # What is in a scope has little in common with its own last part.
        ending = f"/{name}"
        in_scopes = {other for other in candidates if other.endswith(ending)}
        near += sorted(in_scopes.difference(near), key=lambda other: (len(other), other))
    return near[:count]
