# SPDX-License-Identifier: Apache-2.0
"""Names resolve to a stored key, else to a full name of the object graph, in every function."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle, shard_path
from craft.compare import same_bits
from craft.messages import TrackableObjectGraph

import tensorbundle as tb
from tensorbundle.errors import AmbiguousNameError

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def with_graph(names: list[tuple[str | bytes, str | bytes]], stored: list[str]) -> Bundle:
    """Returns a checkpoint with a graph of (full name, key) that stores the keys of `stored`.

    The value of each tensor is its position in `stored`.
    """

    def as_bytes(text: str | bytes) -> bytes:
        return text.encode() if isinstance(text, str) else text

    bundle = Bundle(2)
    for i, key in enumerate(stored):
        bundle.add(key, np.array([float(i)]))
    graph = TrackableObjectGraph()
    for name, key in names:
        attribute = graph.nodes.add().attributes.add(name=b"VARIABLE_VALUE")
        attribute.full_name, attribute.checkpoint_key = as_bytes(name), as_bytes(key)
    bundle.add_strings(GRAPH, [graph.SerializeToString()], (), shard=1)
    return bundle


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A checkpoint with every kind of full name.

    `enc/kernel` belongs to one tensor and is twice in the graph; `bias` belongs to three tensors;
    `plain` is also a key; `gone` belongs to a key that is not stored; `half` belongs to two keys,
    one of which is stored; `two` has two names.
    """
    names = [
        ("enc/kernel", "a" + SUFFIX),
        ("enc/kernel", "a" + SUFFIX),
        ("bias", "b" + SUFFIX),
        ("bias", "c" + SUFFIX),
        ("bias", "d" + SUFFIX),
        ("plain", "e" + SUFFIX),
        ("gone", "lost" + SUFFIX),
        ("half", "lost" + SUFFIX),
        ("half", "f" + SUFFIX),
        ("first", "two" + SUFFIX),
        ("second", "two" + SUFFIX),
        ("", "a" + SUFFIX),
        ("no key", ""),
        (b"\xff\xfe", "bytes" + SUFFIX),
    ]
    keys = [key + SUFFIX for key in ("a", "b", "c", "d", "e", "f", "two", "bytes")]
    return with_graph(names, [*keys, "plain"]).write(tmp_path / "m")


# Functions that take a name and return an array or raise.
LOOKUPS: dict[str, Callable[[Path, Any], Any]] = {
    "[]": lambda prefix, name: tb.open(prefix)[name].read(),
    "get": lambda prefix, name: tb.open(prefix).get(name, _missing).read(),
    "stream": lambda prefix, name: dict(tb.open(prefix).stream([name]))[name],
    "get_tensor": lambda prefix, name: tb.load_checkpoint(prefix).get_tensor(name),
    "load_variable": tb.load_variable,
    "a pickled handle": lambda p, name: pickle.loads(pickle.dumps(tb.open(p)[name])).read(),
}


class _Missing:
    def read(self) -> Any:
        raise tb.TensorNotFoundError("the default of get")


_missing = _Missing()


@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a" + SUFFIX, 0),
        ("enc/kernel", 0),
        ("plain", 8),  # the key has precedence over the full name
        ("e" + SUFFIX, 4),
        ("half", 5),
        ("first", 6),
        ("second", 6),
        (b"enc/kernel", 0),
        ("\udcff\udcfe", 7),
        (b"\xff\xfe", 7),
    ],
)
def test_name_resolves_identically_everywhere(
    prefix: Path, lookup: Callable[[Path, Any], Any], name: str | bytes, value: int
) -> None:
    assert same_bits(lookup(prefix, name), np.array([float(value)]))
    with tb.open(prefix) as checkpoint:
        assert name in checkpoint
        assert checkpoint.verify([name]).ok
    assert tb.load_checkpoint(prefix).has_tensor(name)


@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS)
@pytest.mark.parametrize(
    "name", ["gone", "nowhere", "", "no key", "\ud800", "enc", b"\xff", GRAPH[1:]]
)
def test_missing_name_raises_everywhere(
    prefix: Path, lookup: Callable[[Path, Any], Any], name: str | bytes
) -> None:
    with pytest.raises(tb.TensorNotFoundError) as caught:
        lookup(prefix, name)
    assert not isinstance(caught.value, AmbiguousNameError)
    with tb.open(prefix) as checkpoint:
        assert name not in checkpoint
        assert checkpoint.get(name) is None
        with pytest.raises(tb.TensorNotFoundError):
            checkpoint.verify(["plain", name])
    assert not tb.load_checkpoint(prefix).has_tensor(name)


@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS)
@pytest.mark.parametrize("name", ["bias", b"bias"])
def test_ambiguous_full_name_raises_error_with_keys(
    prefix: Path, lookup: Callable[[Path, Any], Any], name: str | bytes
) -> None:
    with pytest.raises(AmbiguousNameError) as caught:
        lookup(prefix, name)
    error = caught.value
    assert isinstance(error, tb.TensorNotFoundError) and isinstance(error, ValueError)
    for key in "bcd":
        assert repr(key + SUFFIX) in str(error)
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is AmbiguousNameError and str(copied) == str(error)
    with tb.open(prefix) as checkpoint:
        assert name not in checkpoint  # exactly when checkpoint[name] raises
        with pytest.raises(AmbiguousNameError):
            checkpoint.verify([name])
    assert not tb.load_checkpoint(prefix).has_tensor(name)


def test_tensor_named_twice_is_verified_once(prefix: Path) -> None:
    with tb.open(prefix) as checkpoint:
        names = ["a" + SUFFIX, "enc/kernel", "enc/kernel", "plain"]
        assert checkpoint.verify(names).checked_bytes == 16


def test_name_of_other_type_raises_type_error(prefix: Path) -> None:
    with tb.open(prefix) as checkpoint:
        for name in (3, None, 2**64, bytearray(b"plain"), ("plain",), np.float32(1)):
            assert name not in checkpoint
            for lookup in (checkpoint.__getitem__, checkpoint.get):
                with pytest.raises(TypeError, match="a tensor's name must be a str or bytes, not"):
                    lookup(name)  # type: ignore[operator]
        for names in ("plain", b"plain", 3):
            with pytest.raises(TypeError, match="names must be a sequence of names"):
                checkpoint.verify(names)  # type: ignore[arg-type]
        assert checkpoint[np.str_("plain")].name == "plain"


def test_strips_tensor_suffix_once(prefix: Path) -> None:
    for name in ("enc/kernel:0", b"enc/kernel:0"):
        assert same_bits(tb.load_variable(prefix, name), np.array([0.0]))
    with pytest.raises(tb.TensorNotFoundError):
        tb.load_variable(prefix, "enc/kernel:0:0")
    with pytest.raises(TypeError, match="name must be a str or bytes"):
        tb.load_variable(prefix, 3)  # type: ignore[arg-type]


# --- full_names


def test_full_names_maps_key_to_name(prefix: Path) -> None:
    with tb.open(prefix) as checkpoint:
        names = checkpoint.full_names
        assert dict(names) == {
            "a" + SUFFIX: "enc/kernel",
            **{key + SUFFIX: "bias" for key in "bcd"},
            "e" + SUFFIX: "plain",
            "f" + SUFFIX: "half",
            "two" + SUFFIX: "first",
            "bytes" + SUFFIX: "\udcff\udcfe",
        }
        assert all(key in checkpoint for key in names)
        with pytest.raises(TypeError):
            names["x"] = "y"  # type: ignore[index]
        assert names is checkpoint.full_names
    with pytest.raises(ValueError, match="closed"):
        _ = checkpoint.full_names


@pytest.mark.parametrize("graph", [None, "a float", "a vector"])
def test_full_names_is_empty_without_object_graph(tmp_path: Path, graph: str | None) -> None:
    bundle = Bundle()
    bundle.add("w", np.arange(3.0))
    if graph == "a float":
        bundle.add(GRAPH, np.float32(1))
    elif graph == "a vector":
        bundle.add_strings(GRAPH, [b"x", b"y"], (2,))
    with tb.open(bundle.write(tmp_path / "m")) as checkpoint:
        assert dict(checkpoint.full_names) == {}
        assert "kernel" not in checkpoint


def corrupt_graph(prefix: Path, how: str) -> None:
    """Corrupts the data file that contains only the object graph."""
    file = shard_path(prefix, 1, 2)
    if how == "missing":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[-3] ^= 0x40
        file.write_bytes(data[:-1] if how == "short" else data)


@pytest.mark.parametrize("how", ["missing", "short", "flipped"])
def test_corrupt_object_graph_affects_no_key(prefix: Path, how: str) -> None:
    corrupt_graph(prefix, how)
    with tb.open(prefix) as checkpoint:
        assert same_bits(checkpoint["plain"], np.array([8.0]))
        assert "enc/kernel" not in checkpoint
        assert checkpoint.get("enc/kernel") is None
        with pytest.raises(tb.TensorNotFoundError) as caught:
            checkpoint["enc/kernel"]
        assert "Full names may be missing, because the object graph cannot be read" in str(
            caught.value
        )
        with pytest.raises(tb.Error) as corruption:
            _ = checkpoint.full_names
        assert GRAPH in str(corruption.value)
    reader = tb.load_checkpoint(prefix)
    assert same_bits(reader.get_tensor("plain"), np.array([8.0]))
    assert not reader.has_tensor("enc/kernel")


def test_malformed_object_graph_is_reported(tmp_path: Path) -> None:
    bundle = with_graph([("enc/kernel", "a")], ["a"])
    graph = TrackableObjectGraph()
    graph.nodes.add().attributes.add(full_name=b"enc/kernel", checkpoint_key=b"a")
    bundle.add_strings(GRAPH, [graph.SerializeToString() + b"\x0a\x7f"], (), shard=1)
    with tb.open(bundle.write(tmp_path / "m")) as checkpoint:
        assert checkpoint["enc/kernel"].name == "a"
        with pytest.raises(tb.TensorNotFoundError, match="parts of the object graph are malformed"):
            checkpoint["dec/kernel"]
        with pytest.raises(tb.CorruptionError, match="malformed"):
            _ = checkpoint.full_names


def test_resolves_many_tensors_of_one_full_name_quickly(tmp_path: Path) -> None:
    """Unnamed variables are all called "Variable"; grouping them must not take quadratic time."""
    keys = [f"v/{i:05d}" for i in range(20_000)]
    bundle = Bundle(2)
    entry = bundle.add(keys[0], np.float32(1))
    bundle.entries.update({key.encode(): entry for key in keys})
    graph = TrackableObjectGraph()
    for key in keys:
        node = graph.nodes.add()
        for _ in range(2):
            node.attributes.add(full_name=b"Variable", checkpoint_key=key.encode())
    bundle.add_strings(GRAPH, [graph.SerializeToString()], (), shard=1)
    with tb.open(bundle.write(tmp_path / "m")) as checkpoint:
        with pytest.raises(AmbiguousNameError) as caught:
            checkpoint["Variable"]
        assert "20000 tensors" in str(caught.value)
        assert "and 19995 more" in str(caught.value)
        assert len(checkpoint.full_names) == 20_000
