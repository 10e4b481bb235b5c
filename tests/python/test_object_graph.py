# SPDX-License-Identifier: Apache-2.0
"""The editing of object graphs, compared with the same changes by the protobuf library."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Collection
from typing import Any

import pytest
from craft import wire
from craft.messages import TrackableObjectGraph
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle import _core, object_graph

KEYS = [b"key%d" % number for number in range(6)]
NAMES = [b"kernel", b"bias", b""]


@st.composite
def graphs(draw: st.DrawFn) -> Any:
    """Returns a graph whose nodes refer to each other at random, also to absent ones."""
    graph = TrackableObjectGraph()
    count = draw(st.integers(0, 6))
    ids = st.integers(0, count + 1)
    for _ in range(count):
        node = graph.nodes.add()
        for number in draw(st.lists(ids, max_size=3)):
            node.children.add(node_id=number, local_name=b"child%d" % number)
        for key in draw(st.lists(st.sampled_from(KEYS), max_size=2)):
            full_name = draw(st.sampled_from(NAMES))
            node.attributes.add(name=b"VARIABLE_VALUE", full_name=full_name, checkpoint_key=key)
        for number in draw(st.lists(ids, max_size=2)):
            node.slot_variables.add(
                original_variable_node_id=0, slot_name=b"m", slot_variable_node_id=number
            )
    return graph


def edit_with_protobuf(
    graph: Any, dropped: set[bytes], keys: dict[bytes, bytes], full_names: dict[bytes, bytes]
) -> bytes:
    result = TrackableObjectGraph()
    result.CopyFrom(graph)
    empty = {
        number
        for number, node in enumerate(graph.nodes)
        if node.attributes
        and not node.children
        and all(each.checkpoint_key in dropped for each in node.attributes)
    }
    for node in result.nodes:
        for field, kept in (
            (node.attributes, [a for a in node.attributes if a.checkpoint_key not in dropped]),
            (node.children, [c for c in node.children if c.node_id not in empty]),
            (
                node.slot_variables,
                [s for s in node.slot_variables if s.slot_variable_node_id not in empty],
            ),
        ):
            copies = [type(each).FromString(each.SerializeToString()) for each in kept]
            del field[:]
            field.extend(copies)
        for attribute in node.attributes:
            attribute.full_name = full_names.get(attribute.full_name, attribute.full_name)
            attribute.checkpoint_key = keys.get(attribute.checkpoint_key, attribute.checkpoint_key)
    return result.SerializeToString()


def edited(
    graph: bytes,
    dropped: Collection[bytes] = (),
    keys: dict[bytes, bytes] | None = None,
    full_names: dict[bytes, bytes] | None = None,
) -> bytes:
    return _core.edit_object_graph(graph, sorted(dropped), keys or {}, full_names or {})


@settings(max_examples=300, deadline=None)
@given(
    graph=graphs(),
    dropped=st.sets(st.sampled_from(KEYS)),
    keys=st.dictionaries(st.sampled_from(KEYS), st.binary(min_size=1, max_size=3), max_size=2),
    full_names=st.dictionaries(st.sampled_from(NAMES[:2]), st.binary(min_size=1), max_size=2),
)
def test_edits_equal_those_of_protobuf(
    graph: Any, dropped: set[bytes], keys: dict[bytes, bytes], full_names: dict[bytes, bytes]
) -> None:
    content = graph.SerializeToString()
    actual = edited(content, dropped, keys, full_names)
    # Compared as messages: protobuf omits empty strings, the editor keeps what it was given.
    actual_graph = TrackableObjectGraph.FromString(actual)
    expected = TrackableObjectGraph.FromString(edit_with_protobuf(graph, dropped, keys, full_names))
    assert actual_graph == expected
    assert edited(content) == content


def test_unknown_fields_are_kept() -> None:
    unknown = wire.varint_field(100, 7) + wire.bytes_field(101, b"text")

    def graph(key: bytes) -> bytes:
        attribute = wire.bytes_field(2, unknown + wire.bytes_field(3, key) + unknown)
        return unknown + wire.bytes_field(1, unknown + attribute) + unknown

    assert edited(graph(b"key0"), keys={b"key0": b"x"}) == graph(b"x")


def test_hostile_bytes_raise_or_are_edited() -> None:
    graph = TrackableObjectGraph()
    for key in KEYS:
        node = graph.nodes.add()
        node.children.add(node_id=1, local_name=b"x")
        node.attributes.add(name=b"v", full_name=key, checkpoint_key=key)
    content = graph.SerializeToString()
    rng = random.Random(3)
    refused = 0
    for _ in range(3000):
        mutant = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        try:
            result = edited(bytes(mutant), {b"key1"}, {b"key2": b"x"})
        except tb.CorruptionError:
            refused += 1
        else:
            assert len(result) <= len(content)
    assert 100 < refused < 3000


@pytest.mark.parametrize(
    "graph", [b"\xff", b"\x0a\x05", b"\x0b", b"\x0a\x02\x12\x05", wire.group(1), b"\x00\x00"]
)
def test_malformed_graph_is_refused(graph: bytes) -> None:
    with pytest.raises(tb.CorruptionError, match="object graph is not a well-formed"):
        edited(graph)


@given(graphs(), st.integers(0, 1 << 16), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_nodes_equal_those_of_protobuf(graph: Any, place: int, byte: int) -> None:
    message = graph.SerializeToString()
    nodes = object_graph.decode(message)
    assert [node.children for node in nodes] == [
        {child.local_name.decode(): child.node_id for child in node.children}
        for node in graph.nodes
    ]
    assert [node.key for node in nodes] == [
        node.attributes[-1].checkpoint_key.decode() if node.attributes else None
        for node in graph.nodes
    ]
    damaged = bytearray(message)
    if damaged:
        damaged[place % len(damaged)] = byte
        with contextlib.suppress(ValueError):  # no other exception
            object_graph.decode(bytes(damaged))


@pytest.mark.parametrize(
    "message",
    [b"\x0a", b"\x0a\x05a", b"\xff" * 11, b"\x08\x01", b"\x0a\x02\x0a\x05", b"\x0b", b"\x09\x00"],
)
def test_malformed_nodes_raise_value_error(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"field|varint|wire type|message"):
        object_graph.decode(message)
