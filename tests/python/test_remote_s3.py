# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in a bucket of an S3 server on this machine: see `nox -s remote`."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle
from test_remote import GRID, SMALL, TABLE, assert_same

import tensorbundle as tb

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, Any]]:
    """Starts the server. Yields its storage options."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield {
            "key": "key",
            "secret": "secret",
            "endpoint_url": f"http://127.0.0.1:{port}",
        }
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    bundle = Bundle(num_shards=2)
    bundle.add("table", TABLE)
    bundle.add_sliced("grid", TABLE, GRID, shard_of=lambda i: i % 2)
    bundle.add_strings("words", [b"word%d" % i for i in range(500)], (500,))
    for key, value in SMALL.items():
        bundle.add(key, value)
    bundle.write(folder / "model.ckpt-5")
    (folder / "checkpoint").write_text('model_checkpoint_path: "/old/model.ckpt-5"\n')
    return folder


@pytest.fixture(scope="module")
def bucket(options: dict[str, Any], folder: Path) -> Any:
    system = s3fs.S3FileSystem(**options)
    system.mkdir("bucket")
    for path in folder.iterdir():
        system.put_file(str(path), f"bucket/models/{path.name}")
    return system


@pytest.mark.parametrize("path", ["models", "models/model.ckpt-5", "models/model.ckpt-5.index"])
def test_every_read_gives_the_same_values(
    bucket: Any, options: dict[str, Any], folder: Path, path: str
) -> None:
    with tb.open(f"s3://bucket/{path}", storage_options=options) as ck, tb.open(folder) as local:
        assert ck.path == "s3://bucket/models/model.ckpt-5"
        assert_same(ck, local)
        copied = pickle.loads(pickle.dumps(ck["table"]))
        assert np.array_equal(copied.take([5, 50_000]), TABLE[[5, 50_000]])


# fsspec leaves the file of its block cache open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("wrapper", ["simplecache", "blockcache"])
def test_caches_of_fsspec(
    bucket: Any, options: dict[str, Any], folder: Path, tmp_path: Path, wrapper: str
) -> None:
    chained = {"s3": options, wrapper: {"cache_storage": str(tmp_path)}}
    url = f"{wrapper}::s3://bucket/models/model.ckpt-5"
    for _ in range(2):
        with tb.open(url, storage_options=chained) as ck, tb.open(folder) as local:
            assert_same(ck, local)


def test_blocks_on_disk(bucket: Any, options: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    url = "s3://bucket/models/model.ckpt-5"
    for _ in range(2):
        with (
            tb.open(url, storage_options=options, cache_dir=tmp_path) as ck,
            tb.open(folder) as local,
        ):
            assert_same(ck, local)


def test_missing_objects_and_buckets(bucket: Any, options: dict[str, Any]) -> None:
    for url in ("s3://bucket/models/none", "s3://bucket/none", "s3://no-such-bucket/a"):
        with pytest.raises(tb.CheckpointNotFoundError, match=re.escape(url)):
            tb.open(url, storage_options=options)


def test_server_that_refuses(bucket: Any, options: dict[str, Any]) -> None:
    wrong = options | {"endpoint_url": "http://127.0.0.1:1"}
    with pytest.raises(tb.IOFailure, match=r"s3://bucket/models/model\.ckpt-5\.index"):
        tb.open(
            "s3://bucket/models/model.ckpt-5",
            storage_options=wrong | {"config_kwargs": {"retries": {"max_attempts": 1}}},
        )


def test_replaced_object_is_not_mixed(
    bucket: Any, options: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    for path in folder.glob("model.*"):
        shutil.copy(path, tmp_path)
        bucket.put_file(str(path), f"bucket/changing/{path.name}")
    with tb.open("s3://bucket/changing/model.ckpt-5", storage_options=options) as ck:
        table = ck["table"]
        assert np.array_equal(table[7], TABLE[7])
        data = "model.ckpt-5.data-00000-of-00002"
        content = bytearray((folder / data).read_bytes())
        content[7 * 128] ^= 1
        bucket.pipe_file(f"bucket/changing/{data}", bytes(content))
        for read in (lambda: table[7], lambda: table.take([7, 9]), table.read):
            with pytest.raises(tb.CorruptionError, match="was replaced since it was opened"):
                read()


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(ImportError, match=r"pip install 'tensorbundle\[remote\]'"):
        tb.open("abfs://bucket/a")


def test_credentials_are_not_shown(bucket: Any, options: dict[str, Any]) -> None:
    with tb.open("s3://bucket/models", storage_options=options) as ck:
        assert "secret" not in repr(ck) + repr(ck["table"]) + str(ck.summary())
    assert os.environ.get("AWS_SECRET_ACCESS_KEY") is None
