# SPDX-License-Identifier: Apache-2.0
"""Blocks of remote files that are kept on disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.range_server import Answer, RangeServer, serve

import tensorbundle as tb
from tensorbundle import remote

pytest.importorskip("requests")

BLOCK = 1 << 20
VALUES = np.arange(3 * BLOCK // 4, dtype=np.int32).reshape(3, -1)  # a block in each row
DATA = "c.data-00000-of-00001"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    """A checkpoint "c" whose data file has exactly three blocks."""
    folder = tmp_path / "served"
    folder.mkdir()
    bundle = Bundle()
    bundle.add("t", VALUES)
    bundle.write(folder / "c")
    assert (folder / DATA).stat().st_size == 3 * BLOCK
    with serve(folder) as server:
        yield server


def data_bytes(server: RangeServer) -> int:
    """Returns the bytes of the data file that were requested, and forgets the requests."""
    found = sum(last - first + 1 for path, first, last in server.requests if path == DATA)
    server.forget()
    return found


def blocks(cache: Path) -> dict[str, Path]:
    """Returns the cached blocks of the data file, the larger file, by name."""
    folder = max(cache.iterdir(), key=lambda path: sum(f.stat().st_size for f in path.iterdir()))
    return {path.name: path for path in folder.iterdir()}


def read(server: RangeServer, cache: Path, row: Any = ...) -> None:
    with tb.open(f"{server.url}/c", cache_dir=cache) as ck:
        assert np.array_equal(ck["t"][row], VALUES[row])


def test_blocks_are_requested_once(server: RangeServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    size = 1  # of the first request, for the version
    read(server, cache, 1)
    assert data_bytes(server) == size + BLOCK
    assert list(blocks(cache)) == ["00000001"]
    read(server, cache)
    assert data_bytes(server) == size + 2 * BLOCK
    read(server, cache)
    assert data_bytes(server) == size
    assert sorted(blocks(cache)) == ["00000000", "00000001", "00000002"]


def test_blocks_around_a_cached_one_are_requested(server: RangeServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    read(server, cache)
    data_bytes(server)
    for name in ("00000000", "00000002"):
        blocks(cache)[name].unlink()
    read(server, cache)
    assert data_bytes(server) == 1 + 2 * BLOCK


@pytest.mark.parametrize("size", [0, 7, BLOCK + 1])
def test_block_of_another_size_is_replaced(server: RangeServer, tmp_path: Path, size: int) -> None:
    cache = tmp_path / "cache"
    read(server, cache)
    data_bytes(server)
    blocks(cache)["00000001"].write_bytes(b"x" * size)
    read(server, cache)
    assert data_bytes(server) == 1 + BLOCK
    assert blocks(cache)["00000001"].read_bytes() == VALUES[1].tobytes()


def test_cache_that_cannot_be_written(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    read(server, tmp_path / "file" / "cache")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(remote.os, "replace", fail)
    cache = tmp_path / "cache"
    read(server, cache)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_cache_is_of_one_version(server: RangeServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for step in (0, 1):
        tb.save(server.folder / "c", {"t": VALUES + step}, overwrite=True)
        loaded = tb.load(f"{server.url}/c", cache_dir=cache)
        assert np.array_equal(loaded["t"], VALUES + step)


def test_cache_is_of_one_file(server: RangeServer, tmp_path: Path) -> None:
    """Files of one size may have the same ETag, such as a number that counts their versions."""
    tb.save(server.folder / "d", {"t": VALUES + 1})

    def same_tag(path: str, number: int, answer: Answer) -> None:
        answer.status = 206
        answer.headers["ETag"] = 'W/"1"'

    server.fault = same_tag
    for name, step in (("c", 0), ("d", 1)):
        loaded = tb.load(f"{server.url}/{name}", cache_dir=tmp_path / "cache")
        assert np.array_equal(loaded["t"], VALUES + step)
