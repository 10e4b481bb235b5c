# SPDX-License-Identifier: Apache-2.0
"""The nodes of an object graph: ``TrackableObjectGraph``, decoded from its protobuf message.

======================================  ========================================================
TrackableObjectGraph                    repeated TrackableObject nodes = 1
TrackableObject                         repeated ObjectReference children = 1,
                                        repeated SerializedTensor attributes = 2
ObjectReference                         int32 node_id = 1, string local_name = 2
SerializedTensor                        string name = 1, string checkpoint_key = 3
======================================  ========================================================

Other fields are skipped. The core decodes the graph for full names and edits; this module is for
those that compare the graph with objects of Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARIABLE_VALUE = b"VARIABLE_VALUE"


@dataclass
class Node:
    """An object that was saved.

    Attributes:
        children: Local name to the number of another node.
        key: The key of the tensor with the object's value, if the object is a variable.
    """

    children: dict[str, int] = field(default_factory=dict)
    key: str | None = None


def decode(graph: bytes) -> list[Node]:
    """Decodes the nodes of a graph, the root first.

    Raises:
        ValueError: The message is malformed.
    """
    return [_node(value) for number, value in _fields(graph) if number == 1]


def _node(message: bytes | int) -> Node:
    node = Node()
    for number, value in _fields(message):
        if number == 1:
            reference = dict(_fields(value))
            child, name = reference.get(1, 0), reference.get(2, b"")
            if not isinstance(child, int):
                raise ValueError("a node's number is not an integer")
            node.children[_text(name)] = child
        elif number == 2:
            attribute = dict(_fields(value))
            if attribute.get(1) == _VARIABLE_VALUE:
                node.key = _text(attribute.get(3, b""))
    return node


def _text(value: bytes | int) -> str:
    if isinstance(value, int):
        raise ValueError("a name is not a string")
    return value.decode("utf-8", "surrogateescape")


def _fields(message: bytes | int) -> Iterator[tuple[int, bytes | int]]:
    """Yields the number and the value of each field of a message."""
    if isinstance(message, int):
        raise ValueError("a field is not a message")
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == _BYTES:
            size, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} is unknown")
        if size > len(message) - position:
            raise ValueError("a field is longer than its message")
        yield number, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Returns a varint of at most 64 bits, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position == len(message):
            raise ValueError("the message ends within a varint")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a varint has more than ten bytes")
