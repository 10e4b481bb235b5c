# SPDX-License-Identifier: Apache-2.0
"""Pickles contain the path and the checksum of the index, but no data."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.compare import same_bits, shows_a_file
from craft.specimen import TENSORS, specimen

import tensorbundle as tb


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return specimen(num_shards=2).write(tmp_path / "c")


def test_tensor_pickles(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        copied = pickled(ck["w"])
    assert (copied.name, copied.shape, copied.dtype) == ("w", (4, 6), np.dtype(np.float32))
    assert same_bits(copied, TENSORS["w"])
    assert same_bits(copied[1:3, 2], TENSORS["w"][1:3, 2])


def test_checkpoint_pickles(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        copied = pickled(ck)
    with copied:
        assert set(copied) == set(TENSORS)
        assert all(same_bits(copied[name], TENSORS[name]) for name in TENSORS)


def test_pickle_contains_no_data(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("t", np.zeros(1_000_000))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert len(pickle.dumps(ck["t"])) < 2000
        assert len(pickle.dumps(ck)) < 2000


def test_pickled_path_is_absolute(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prefix.parent)
    with tb.open(prefix.name) as ck:
        stored = pickle.dumps(ck["a"])
    monkeypatch.chdir("/")
    assert same_bits(pickle.loads(stored), TENSORS["a"])


def test_names_that_are_not_utf8_pickle(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add(b"\xff\0", np.arange(3.0))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        (name,) = ck
        assert same_bits(pickled(ck[name]), np.arange(3.0))


def test_options_pickle(prefix: Path) -> None:
    with tb.open(prefix, io="pread", verify="none") as ck:
        copied = pickled(ck["a"])
    assert not shows_a_file(np.asarray(copied))


@pytest.mark.parametrize("change", ["rewritten", "gone"])
def test_changed_index_raises_error(prefix: Path, change: str) -> None:
    with tb.open(prefix) as ck:
        stored = pickle.dumps(ck["a"])
    if change == "gone":
        prefix.with_name("c.index").unlink()
    else:
        bundle = specimen(num_shards=2)
        bundle.add("new", np.arange(3.0))
        bundle.write(prefix)
    with pytest.raises(tb.Error, match=str(prefix)):
        copied = pickle.loads(stored)
        np.asarray(copied)


def test_closed_tensor_does_not_pickle(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        t = ck["a"]
    with pytest.raises(ValueError, match="closed"):
        pickle.dumps(t)


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copied_tensor_reads_same_values(prefix: Path, copier: Callable[[Any], Any]) -> None:
    with tb.open(prefix) as ck:
        assert same_bits(copier(ck["a"]), TENSORS["a"])


def test_tensor_is_sent_to_spawned_process(prefix: Path) -> None:
    with tb.open(prefix) as ck, multiprocessing.get_context("spawn").Pool(1) as pool:
        assert same_bits(pool.apply(np.array, (ck["w"],)), TENSORS["w"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_views_and_tensors_work_after_fork(prefix: Path) -> None:
    with tb.open(prefix, threads=2) as ck:
        view = np.asarray(ck["a"])
        ck["b"].read()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                good = same_bits(view, TENSORS["a"]) and same_bits(ck["w"].read(), TENSORS["w"])
                code = 0 if good and ck.verify().ok else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert same_bits(view, TENSORS["a"])
