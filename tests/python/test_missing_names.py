# SPDX-License-Identifier: Apache-2.0
"""Lookups of missing names: their cost and their messages."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.messages import TrackableObjectGraph
from hypothesis import given
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle import naming

COUNT = 100_000


def many(tmp_path: Path, *, graph: bool) -> Path:
    """Writes a checkpoint with 100,000 names."""
    bundle = Bundle()
    entry = bundle.add("bias", np.float32(1))
    message = TrackableObjectGraph()
    for i in range(COUNT):
        key = b"model/layer_%06d/attention/kernel" % i
        bundle.entries[key] = entry
        if graph:
            message.nodes.add().attributes.add(full_name=b"l%d/kernel" % i, checkpoint_key=key)
    if graph:
        bundle.add_strings("_CHECKPOINTABLE_OBJECT_GRAPH", [message.SerializeToString()], ())
    return bundle.write(tmp_path / "m")


@pytest.fixture(scope="module", params=[False, True], ids=["no graph", "graph"])
def checkpoint(request, tmp_path_factory: pytest.TempPathFactory) -> tb.Checkpoint:
    return tb.open(many(tmp_path_factory.mktemp("many"), graph=request.param))


def lookup_error(checkpoint: tb.Checkpoint, name: str) -> tb.TensorNotFoundError:
    with pytest.raises(tb.TensorNotFoundError) as caught:
        checkpoint[name]
    return caught.value


def seconds(function: Callable[[], object], times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - start) / times


def failing(lookup: Callable[[str], object]) -> Callable[[], None]:
    def attempt() -> None:
        try:
            lookup("model/layer_x/attention/kernels")
        except KeyError:
            return
        raise AssertionError

    return attempt


def test_failed_lookup_takes_microseconds(checkpoint: tb.Checkpoint) -> None:
    reader = tb.load_checkpoint(checkpoint.path)
    name = "model/layer_x/attention/kernels"
    lookups: list[Callable[[], object]] = [
        lambda: name in checkpoint,
        lambda: checkpoint.get(name),
        lambda: reader.has_tensor(name),
        failing(checkpoint.__getitem__),
        failing(reader.get_tensor),
        failing(lambda missing: checkpoint.verify([missing])),
        failing(lambda missing: checkpoint.stream([missing])),
    ]
    for lookup in lookups:
        lookup()  # the first lookup reads the names and the graph
        # A comparison with all names takes at least 10 ms.
        assert seconds(lookup, 100) < 0.0005


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("model/layer_000123/attention/kernels", "model/layer_000123/attention/kernel"),
        ("modl/layer_000123/attntion/kernel", "model/layer_000123/attention/kernel"),
        ("Model/Layer_000123/Attention/Kernel", "model/layer_000123/attention/kernel"),
        ("model/layer_000123/attention/kernel:0", "model/layer_000123/attention/kernel"),
        ("layer_077777/attention/kernel", "model/layer_077777/attention/kernel"),
        ("ema/model/layer_000123/attention/kernel", "model/layer_000123/attention/kernel"),
        ("biass", "bias"),
        ("layer_077777/att", "model/layer_077777/attention/kernel"),
        ("model/layer_077777", "model/layer_077777/attention/kernel"),
    ],
)
def test_message_suggests_nearest_name_quickly(
    checkpoint: tb.Checkpoint, name: str, nearest: str
) -> None:
    error = lookup_error(checkpoint, name)
    assert seconds(lambda: str(copy.copy(error)), 1) < 0.2
    message = str(error)
    assert repr(nearest) in message
    assert message.count(repr(name)) == 1


@pytest.mark.parametrize("name", ["", "zzz", "m" * 100_000, "kernel/" * 500, "\ud800"])
def test_name_without_near_match_fails_quickly(checkpoint: tb.Checkpoint, name: str) -> None:
    error = lookup_error(checkpoint, name)
    assert seconds(lambda: str(copy.copy(error)), 1) < 0.2
    assert len(str(error)) < 2000


def test_suggested_full_name_includes_its_key(tmp_path: Path) -> None:
    checkpoint = tb.open(many(tmp_path, graph=True))
    message = str(lookup_error(checkpoint, "l777/kernal"))
    assert "'l777/kernel' (the full name of 'model/layer_000777/attention/kernel')" in message


def test_name_without_scope_suggests_scoped_name(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("encoder/block_17/self_attention/w", np.arange(3.0))
    bundle.add("unrelated", np.arange(3.0))
    checkpoint = tb.open(bundle.write(tmp_path / "m"))
    assert "'encoder/block_17/self_attention/w'" in str(lookup_error(checkpoint, "w"))


def test_message_reports_full_name_of_missing_key(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("a", np.arange(3.0))
    graph = TrackableObjectGraph()
    graph.nodes.add().attributes.add(full_name=b"kernel", checkpoint_key=b"b")
    bundle.add_strings("_CHECKPOINTABLE_OBJECT_GRAPH", [graph.SerializeToString()], ())
    message = str(lookup_error(tb.open(bundle.write(tmp_path / "m")), "kernel"))
    assert "it is the full name of 'b', which is not stored" in message


def test_message_is_identical_in_every_rendering(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("kernel", np.arange(3.0))
    checkpoint = tb.open(bundle.write(tmp_path / "m"))
    messages = [
        str(lookup_error(checkpoint, "kernels")),
        lookup_error(checkpoint, "kernels").args[0],
        str(pickle.loads(pickle.dumps(lookup_error(checkpoint, "kernels")))),
        str(copy.deepcopy(lookup_error(checkpoint, "kernels"))),
        traceback.format_exception_only(lookup_error(checkpoint, "kernels"))[0]
        .partition(": ")[2]
        .strip(),
    ]
    assert set(messages) == {messages[0]}
    assert "'kernel'" in messages[0]
    assert repr(lookup_error(checkpoint, "kernels")) == f"TensorNotFoundError({messages[0]!r})"
    error = lookup_error(checkpoint, "kernels")
    if hasattr(error, "add_note"):
        error.add_note("requested by the optimizer")
        copied = pickle.loads(pickle.dumps(error))
        assert copied.__notes__ == ["requested by the optimizer"]
    error.args = ("another",)
    assert str(error) == "another"
    assert str(tb.TensorNotFoundError("plain")) == "plain"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_kept_error_holds_no_open_file(tmp_path: Path) -> None:
    def open_files() -> list[str]:
        gc.collect()
        with open("/proc/self/maps") as maps:
            mapped = [line for line in maps if str(tmp_path) in line]
        names = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        return mapped + [
            target
            for name in names
            if os.path.lexists(name) and str(tmp_path) in (target := os.readlink(name))
        ]

    bundle = Bundle()
    bundle.add("kernel", np.arange(3.0))
    bundle.add_strings("_CHECKPOINTABLE_OBJECT_GRAPH", [b""], ())
    with tb.open(bundle.write(tmp_path / "m")) as checkpoint:
        error = lookup_error(checkpoint, "kernels")
        error.__traceback__ = None
    del checkpoint
    assert open_files() == []
    assert "'kernel'" in str(error)  # the suggestion still works


NAMES = st.text(st.sampled_from("ab/_0"), max_size=12)


@given(NAMES, st.lists(NAMES, max_size=20))
def test_nearest_returns_distinct_candidates(name: str, others: list[str]) -> None:
    found = naming.nearest(name, others)
    assert len(found) <= 3
    assert len(set(found)) == len(found)
    assert set(found) <= set(others) - {name}


@given(st.text(max_size=30), st.text(min_size=1, max_size=3), st.data())
def test_nearest_finds_name_with_one_edit(name: str, inserted: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(name)))
    other = name[:at] + inserted + name[at:]
    if len(name) >= 6 and other != name:
        assert naming.nearest(other, ["unrelated/x", name]) == [name]
