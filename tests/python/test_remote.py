# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on an HTTP server and in fsspec's file systems: the same values, in few requests."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.compare import same_bits
from craft.range_server import RangeServer, serve
from craft.v1 import V1File
from document_pages import blocks, run_page
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle import remote

pytest.importorskip("requests")
fsspec = pytest.importorskip("fsspec")

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
TABLE = np.arange(60_000 * 32, dtype=np.float32).reshape(60_000, 32)  # 7.3 MiB: two requests
SMALL = {f"small/{i:03d}": np.arange(i, i + 20, dtype=np.int32) for i in range(200)}
GRID = [((0, 30_000), (0, 20)), ((0, 30_000), (20, 12)), ((30_000, 30_000), (0, 32))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """V2 checkpoints "c" (with all kinds of tensors) and "big_endian", a V1 checkpoint "v1"."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("c", "big_endian"):
        bundle = Bundle(num_shards=2, big_endian=name == "big_endian")
        bundle.add("table", TABLE)
        bundle.add_sliced("grid", TABLE, GRID, shard_of=lambda i: i % 2)
        bundle.add_strings("words", [b"word%d" % i for i in range(500)], (500,))
        bundle.add("scalar", np.float64(0.5))
        bundle.add("empty", np.zeros((0, 3), np.float32))
        for key, value in SMALL.items():
            bundle.add(key, value)
        bundle.write(folder / name)
    file = V1File()
    file.add("t", 1, TABLE[:1000].reshape(-1).copy())
    file.add("n", 3, np.arange(50, dtype=np.int32))
    file.write(folder / "v1")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    with serve(folder) as server:
        yield server


def assert_same(remote: tb.Checkpoint, local: tb.Checkpoint) -> None:
    """Compares everything that both read, by every way of reading."""
    assert list(remote) == list(local)
    expected = local.load()
    loaded = remote.load()
    for name, value in expected.items():
        assert same_bits(loaded[name], value), name
        assert same_bits(remote[name].read(), value), name
        assert same_bits(np.asarray(remote[name]), np.asarray(local[name])), name
        if remote[name].ndim and remote[name].dtype != object:
            assert same_bits(remote[name][1:3], local[name][1:3]), name
            chunks = [chunk for _, chunk in remote[name].chunks(7 if value.size < 999 else 9000)]
            assert same_bits(np.concatenate(chunks) if chunks else value, value), name
    streamed = dict(remote.stream())
    assert set(streamed) == set(expected)
    assert all(same_bits(streamed[name], expected[name]) for name in expected)
    assert remote.verify().ok
    assert str(remote.summary().line) == str(local.summary().line)


@pytest.mark.parametrize("name", ["c", "big_endian", "v1"])
def test_every_read_gives_the_same_values(server: RangeServer, name: str) -> None:
    with tb.open(f"{server.url}/{name}") as ck, tb.open(server.folder / name) as local:
        assert_same(ck, local)


@pytest.mark.parametrize("index", sorted(DATA.rglob("*.index")), ids=lambda path: path.parent.name)
def test_checkpoints_of_tensorflow(index: Path) -> None:
    with (
        serve(index.parent) as server,
        tb.open(f"{server.url}/{index.name}") as ck,
        tb.open(index) as local,
    ):
        assert_same(ck, local)
        assert dict(ck.full_names) == dict(local.full_names)


def test_index_is_read_once(server: RangeServer) -> None:
    with tb.open(f"{server.url}/c") as ck:
        assert [path for path, _, _ in server.requests] == ["c.index", "c.index"]
        size = (server.folder / "c.index").stat().st_size
        assert server.num_bytes == size + 1
        server.forget()
        list(ck.items())
        repr(ck), ck.summary(), ck["table"].slices
        assert server.requests == []


def test_one_row_moves_the_bytes_of_one_row(server: RangeServer) -> None:
    with tb.open(f"{server.url}/c") as ck:
        server.forget()
        assert np.array_equal(ck["table"][7], TABLE[7])
        assert server.num_bytes == 128 + 1  # and the first request, for the size
        server.forget()
        assert np.array_equal(ck["grid"].take([9]), TABLE[[9]])
        assert server.num_bytes == 128 + 1  # of the other data file
        assert len(server.requests) <= 3


def test_one_row_of_ten_gigabytes(tmp_path: Path) -> None:
    num_rows = 40 << 20
    bundle = Bundle()
    entry = bundle.add_payload("table", 1, (num_rows, 64), b"", crc=0)
    entry.size = num_rows * 256
    bundle.write(tmp_path / "c")
    row = np.arange(64, dtype=np.float32)
    with (tmp_path / "c.data-00000-of-00001").open("r+b") as data:
        data.truncate(num_rows * 256)  # takes no space on the disk
        data.seek(30_000_000 * 256)
        data.write(row.tobytes())
    with serve(tmp_path) as server, tb.open(f"{server.url}/c") as ck:
        index = (tmp_path / "c.index").stat().st_size
        assert np.array_equal(ck["table"][30_000_000], row)
        assert np.array_equal(ck["table"].take([30_000_000, 5])[0], row)
        assert server.num_bytes - index < 1024


def test_rows_that_are_close_together_share_a_request(server: RangeServer) -> None:
    with tb.open(f"{server.url}/c") as ck:
        table = ck["table"]
        table.read(np.s_[:1])
        server.forget()
        near = [100, 3, 3, 57, 400]
        assert np.array_equal(table.take(near), TABLE[near])
        assert len(server.requests) == 1
        server.forget()
        far = [0, 20_000, 40_000, 59_999]
        assert np.array_equal(table.take(far), TABLE[far])
        assert len(server.requests) == 4
        assert server.num_bytes == 4 * 128


def test_columns_are_read_with_short_gaps(server: RangeServer) -> None:
    with tb.open(f"{server.url}/c") as ck:
        server.forget()
        assert np.array_equal(ck["table"][1000:2000, 3:5], TABLE[1000:2000, 3:5])
        assert len(server.requests) == 2  # the first is for the size
        assert server.num_bytes < 1000 * 128


def test_small_tensors_are_loaded_together(server: RangeServer) -> None:
    with tb.open(f"{server.url}/c") as ck:
        server.forget()
        loaded = ck.load(list(SMALL))
        assert all(np.array_equal(loaded[name], value) for name, value in SMALL.items())
        assert len(server.requests) == 2
        assert server.num_bytes <= 200 * 80 + 1


def test_small_tensors_are_streamed_with_read_ahead(server: RangeServer) -> None:
    with tb.open(f"{server.url}/c") as ck:
        server.forget()
        assert {name for name, _ in ck.stream(list(SMALL))} == set(SMALL)
        assert len(server.requests) <= 4


def test_requests_are_made_at_the_same_time(server: RangeServer) -> None:
    server.latency = 0.2
    ids = np.arange(0, 60_000, 3000)
    with tb.open(f"{server.url}/c") as ck:
        table = ck["table"]
        table[0]
        start = time.monotonic()
        assert np.array_equal(table.take(ids), TABLE[ids])
        assert server.most_at_once >= 8
        assert time.monotonic() - start < 0.2 * len(ids) / 2


def test_threads_bound_the_requests_at_a_time(server: RangeServer) -> None:
    server.latency = 0.02
    with tb.open(f"{server.url}/c", threads=2) as ck:
        assert ck.threads == 2
        ck["table"].take(np.arange(0, 60_000, 3000))
        assert server.most_at_once <= 2


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_rows_and_boxes_equal_numpy(server: RangeServer, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["table", "grid"]))
    prefix = data.draw(st.sampled_from(["c", "big_endian"]))
    with tb.open(f"{server.url}/{prefix}") as ck:
        tensor = ck[name]
        rows = st.integers(-60_000, 59_999)
        ids = data.draw(st.lists(rows, max_size=40))
        assert np.array_equal(tensor.take(np.array(ids, np.int64)), TABLE[ids])
        absent = data.draw(st.lists(st.one_of(st.just(-1), st.integers(0, 59_999)), max_size=40))
        expected = np.where(np.array(absent)[:, None] < 0, 7.0, TABLE[absent]) if absent else 0
        if absent:
            assert np.array_equal(tensor.take(absent, fill=7.0), expected.astype(np.float32))
        begin, end = sorted(data.draw(st.tuples(st.integers(0, 60_000), st.integers(0, 60_000))))
        left, right = sorted(data.draw(st.tuples(st.integers(0, 32), st.integers(0, 32))))
        assert np.array_equal(tensor[begin:end, left:right], TABLE[begin:end, left:right])


def test_remapped_table_equals_that_of_local_files(server: RangeServer) -> None:
    rows = np.random.default_rng(0).integers(-1, 60_000, 30_000)
    with tb.open(f"{server.url}/c") as ck, tb.open(server.folder / "c") as local:
        for columns in (None, [3, 1, -1, 1]):
            for name in ("table", "grid"):
                ours = tb.load_and_remap(ck[name], rows=rows, columns=columns, fill=0.5)
                theirs = tb.load_and_remap(local[name], rows=rows, columns=columns, fill=0.5)
                assert np.array_equal(ours, theirs)


def test_views_and_mappings_are_refused(server: RangeServer) -> None:
    with tb.open(f"{server.url}/c") as ck:
        refused = [lambda: ck["table"].copy_on_write()]
        if np.__version__ >= "2":
            refused.append(lambda: np.asarray(ck["table"], copy=False))
        for view in refused:
            with pytest.raises(ValueError, match="it is in a remote store"):
                view()
        plan = ck["table"].explain()
        assert (plan.means, plan.why_no_view) == ("requests", "it is in a remote store")
    for mode in ("mmap", "direct"):
        with pytest.raises(ValueError, match="is remote and cannot be read with io"):
            tb.open(f"{server.url}/c", io=mode)
    with pytest.raises(ValueError, match="are for URLs"):
        tb.open(server.folder / "c", storage_options={})
    with pytest.raises(ValueError, match="are for URLs"):
        tb.open(server.folder / "c", cache_dir="x")


def test_handles_pickle_with_their_options(server: RangeServer) -> None:
    options = {"headers": {"X-Key": "secret"}}
    with tb.open(f"{server.url}/c?signature=abc", storage_options=options) as ck:
        assert (server.headers["x-key"], server.query) == ("secret", "signature=abc")
        assert "secret" not in repr(ck) and "signature" not in ck.path
        copied = pickle.loads(pickle.dumps(ck["table"]))
    assert np.array_equal(copied[5], TABLE[5])
    assert (server.headers["x-key"], server.query) == ("secret", "signature=abc")
    with pytest.raises(ValueError, match="cannot have \\['anon'\\]"):
        tb.open(f"{server.url}/c", storage_options={"anon": True})


def test_paths_of_all_kinds(server: RangeServer, tmp_path: Path) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    saved = tmp_path / "saved" / "variables"
    named = tmp_path / "named"
    only = tmp_path / "only"
    for folder in (saved, named / "below", only):
        folder.mkdir(parents=True)
    tb.save(saved / "variables", {"a": np.arange(3)})
    tb.save(named / "model.ckpt-7", {"a": np.arange(3)})
    (named / "checkpoint").write_text('model_checkpoint_path: "/moved/away/model.ckpt-7"\n')
    with serve(tmp_path) as other:
        for path in (
            "saved",
            "saved/",
            "named",
            "named/model.ckpt-7",
            "named/model.ckpt-7.index",
            "named/model.ckpt-7.data-00000-of-00001",
        ):
            with tb.open(f"{other.url}/{path}") as ck:
                assert ck["a"].read().tolist() == [0, 1, 2]
                prefix = "saved/variables/variables" if "saved" in path else "named/model.ckpt-7"
                assert ck.path == f"{other.url}/{prefix}"
        for root in (other.url, f"{other.url}/"):
            with pytest.raises(tb.CheckpointNotFoundError, match="append the path of a checkpoint"):
                tb.open(root)  # not a file `<host>.index`, of another host
        (tmp_path / "checkpoint").write_text('model_checkpoint_path: "named/model.ckpt-7"\n')
        assert tb.open(other.url).path == f"{other.url}/named/model.ckpt-7"
        (named / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-8"\n')
        with pytest.raises(
            tb.CheckpointNotFoundError, match=r"names 'model.ckpt-8', which does not"
        ):
            tb.open(f"{other.url}/named")
        tb.save(named / "below" / "b", {"a": np.arange(4)})
        (named / "checkpoint").write_text('model_checkpoint_path: "below/b"\n')
        with tb.open(f"{other.url}/named") as ck:
            assert ck.path == f"{other.url}/named/below/b"
        (named / "checkpoint").write_bytes(b"#" * ((1 << 20) + 1))
        with pytest.raises(tb.CorruptionError, match="it is no state file"):
            tb.open(f"{other.url}/named")
        (named / "checkpoint").write_bytes(b"\xff\xfe{")
        with pytest.raises(tb.CorruptionError, match="is not a state file"):
            tb.open(f"{other.url}/named")
        with pytest.raises(tb.CheckpointNotFoundError, match="no checkpoint at"):
            tb.open(f"{other.url}/nothing")
        with pytest.raises(tb.CheckpointNotFoundError, match="no checkpoint at"):
            tb.open(f"{other.url}/nothing.index")


def test_shards_of_version_1(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    for shard in range(2):
        file = V1File()
        file.add(f"t{shard}", 3, np.arange(shard, 9, dtype=np.int32))
        path = file.write(tmp_path / f"v1-{shard:05d}-of-00002")
        system.pipe_file(f"/shards/{path.name}", path.read_bytes())
    pattern = "v1-?????-of-00002"
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{pattern}"\n')
    with serve(tmp_path) as server:
        for url, query in (
            (f"memory://shards/{pattern}", ""),
            (f"{server.url}/{pattern}", ""),
            (f"{server.url}/{pattern}?signature=abc", "signature=abc"),
            (f"{server.url}/?signature=abc", "signature=abc"),  # named by the state file
            (f"{server.url}/v1-00001-of-00002?x=-?????-of-00002", "x=-?????-of-00002"),
        ):
            with tb.open(url) as ck:
                expected = [1] if "v1-00001" in url else [0, 1]
                assert [ck[name].read()[0] for name in ck] == expected, url
                assert server.query == query
    system.rm("/shards", recursive=True)


def test_function_of_python_cannot_keep_the_memory_of_a_read(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[memoryview] = []
    original = remote.RemoteFiles.open_for_core

    def keep(self: Any, url: str) -> Any:
        size, read = original(self, url)

        def read_and_keep(offset: int, buffer: memoryview) -> None:
            kept.append(buffer)
            read(offset, buffer)

        return size, read_and_keep

    monkeypatch.setattr(remote.RemoteFiles, "open_for_core", keep)
    with tb.open(f"{server.url}/c") as ck:
        ck["scalar"].read()
    assert kept
    for buffer in kept:
        with pytest.raises(ValueError, match="released memoryview"):
            buffer[0]


def test_a_missing_data_file_concerns_its_tensors(server: RangeServer, tmp_path: Path) -> None:
    for path in server.folder.glob("c.*"):
        shutil.copy(path, tmp_path)
    (tmp_path / "c.data-00001-of-00002").unlink()
    with serve(tmp_path) as other, tb.open(f"{other.url}/c") as ck:
        assert np.array_equal(ck["table"].read(), TABLE)
        with pytest.raises(tb.CheckpointNotFoundError, match=r"'grid'.*is missing"):
            ck["grid"].read()
        with pytest.raises(tb.CheckpointNotFoundError, match="is missing"):
            ck["grid"].take([0])
        report = ck.verify()
        assert {damage.tensor for damage in report.damaged} == {"grid"}
        shutil.copy(server.folder / "c.data-00001-of-00002", tmp_path)  # it comes back
        assert np.array_equal(ck["grid"].read(), TABLE)


def test_damaged_bytes_are_found(server: RangeServer, tmp_path: Path) -> None:
    for path in server.folder.glob("c.*"):
        shutil.copy(path, tmp_path)
    data = tmp_path / "c.data-00000-of-00002"
    content = bytearray(data.read_bytes())
    content[5_000_000] ^= 1
    data.write_bytes(content)
    with serve(tmp_path) as other, tb.open(f"{other.url}/c") as ck:
        with pytest.raises(tb.CorruptionError, match="the stored CRC32C is"):
            ck["table"].read()
        assert {damage.tensor for damage in ck.verify().damaged} == {"table"}
        data.write_bytes(content[:-1_000_000])  # a truncated upload, and another version
        with pytest.raises(tb.CorruptionError, match="was replaced since it was opened"):
            ck["table"].read()


def test_tools_read_urls(server: RangeServer, tmp_path: Path) -> None:
    url = f"{server.url}/c"
    assert tb.diff(url, server.folder / "c").same
    tb.edit(url, tmp_path / "e", drop="words")
    assert tb.diff(tmp_path / "e", server.folder / "c", values=True).only_b == ("words",)
    assert np.array_equal(tb.load(url, ["table"])["table"], TABLE)
    tb.average([url, url], tmp_path / "m")
    assert tb.diff(tmp_path / "m", server.folder / "c").same
    report = tb.convert(url, tmp_path / "c.npz")
    assert set(report.left_out) == {"words"}
    with np.load(tmp_path / "c.npz") as converted:
        assert same_bits(converted["table"], TABLE)
    report = tb.convert(f"{url}.index", f"{tmp_path}/", to="npz", keep="table", overwrite=True)
    assert report.path.endswith("/c.npz")
    with pytest.raises(tb.UnsupportedError, match="of remote files, only checkpoints are read"):
        tb.convert(f"{server.url}/c.npz", tmp_path / "d")
    done = subprocess.run(
        [sys.executable, "-m", "tensorbundle", "ls", "--flat", url],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "small/199" in done.stdout
    with pytest.raises(tb.UnsupportedError, match="only local paths"):
        tb.save(url, {"a": np.zeros(1)})
    with pytest.raises(tb.UnsupportedError, match="only local paths"):
        tb.align(url, tmp_path / "aligned")


def test_cached_blocks_give_the_same_values(server: RangeServer, tmp_path: Path) -> None:
    for _ in range(2):
        server.forget()
        with (
            tb.open(f"{server.url}/c", cache_dir=tmp_path) as ck,
            tb.open(server.folder / "c") as local,
        ):
            assert_same(ck, local)
    assert server.num_bytes == len(server.requests)  # one byte each, for the version


@pytest.mark.parametrize("wrapped", ["", "simplecache::"])
def test_file_systems_of_fsspec(folder: Path, tmp_path: Path, wrapped: str) -> None:
    system = fsspec.filesystem("memory")
    for path in folder.iterdir():
        system.pipe_file(f"/bucket/dir/{path.name}", path.read_bytes())
    name = wrapped.removesuffix("::")
    options = {name: {"cache_storage": str(tmp_path)}} if name else {}
    for prefix in ("c", "v1"):
        url = f"{wrapped}memory://bucket/dir/{prefix}"
        with tb.open(url, storage_options=options) as ck, tb.open(folder / prefix) as local:
            assert_same(ck, local)
    system.rm("/bucket", recursive=True)


def test_directory_of_fsspec_with_one_checkpoint() -> None:
    system = fsspec.filesystem("memory")
    tb_path = "memory://models/a"
    with pytest.raises(tb.CheckpointNotFoundError, match="no checkpoint at"):
        tb.open(tb_path)
    for name in ("m-1", "m-2"):
        content = Bundle()
        content.add("a", np.arange(3))
        path = content.write(Path(os.path.join(os.environ.get("TMPDIR", "/tmp"), name)))
        for file in path.parent.glob(f"{name}.*"):
            system.pipe_file(f"/models/a/{file.name}", file.read_bytes())
            file.unlink()
        if name == "m-1":
            assert tb.open(tb_path).path == "memory://models/a/m-1"
    with pytest.raises(tb.CheckpointNotFoundError, match=r"several checkpoints.*m-1, m-2"):
        tb.open(tb_path)
    system.rm("/models", recursive=True)


def test_unknown_protocol_and_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(tb.UnsupportedError, match="fsspec knows no file system"):
        tb.open("nonsense://a/b")
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ImportError, match=r"pip install 'tensorbundle\[remote\]'"):
        tb.open("http://127.0.0.1:1/c")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ImportError, match=r"pip install 'tensorbundle\[remote\]'"):
        tb.open("memory://a/b")


class ScriptedFile(io.BytesIO):
    """A file of fsspec. Its first reads return less; `slow` seconds pass after each seek."""

    short_reads = 0
    slow = 0.0
    error: Exception | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        found = super().seek(offset, whence)
        time.sleep(self.slow)
        return found

    def read(self, size: int | None = -1) -> bytes:
        if self.error is not None:
            raise self.error
        self.short_reads -= 1
        return super().read(size if self.short_reads < 0 or not size else size // 2)


class FileExpired(OSError):
    """As of s3fs, which compares the ETag."""


def test_short_reads_of_fsspec_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSE", 0.001)
    file = ScriptedFile(bytes(range(100)))
    opened = remote._FsspecFile(file, "memory://f", 100, None)
    buffer = bytearray(40)
    file.short_reads = 3
    opened.read_into(10, memoryview(buffer))
    assert buffer == bytes(range(10, 50))
    file.short_reads = 1000
    with pytest.raises(tb.IOFailure, match="40 bytes were asked for, 20 came, in 5 attempts"):
        opened.read_into(10, memoryview(buffer))
    file.error = FileExpired("the version is gone")
    with pytest.raises(tb.CorruptionError, match="memory://f was replaced since it was opened"):
        opened.read_into(10, memoryview(buffer))


def test_threads_share_a_file_of_fsspec() -> None:
    file = ScriptedFile(bytes(range(200)))
    file.slow = 0.002
    opened = remote._FsspecFile(file, "memory://f", 200, None)

    def read(offset: int) -> bytes:
        buffer = bytearray(5)
        opened.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(150)))
    assert found == [bytes(range(i, i + 5)) for i in range(150)]


SCRIPTS: dict[str, str] = {
    "a live stream": "stream = ck['table'].chunks(100); next(stream)",
    "a live stream of tensors": "stream = ck.stream(); held = next(stream)",
    "a stream in a cycle": "loop = [ck['table'].chunks(9)]; loop.append(loop); next(loop[0])",
    "a daemon that reads": """
def work():
    while True:
        ck["table"].read()
threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)""",
    "a child": """
pid = os.fork()
if pid == 0:
    assert ck["table"].take([5, 50_000])[1, 0] == 50_000 * 32
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0""",
    "a child of a stream": """
stream = ck["table"].chunks(1000); next(stream)
pid = os.fork()
if pid == 0:
    assert ck["table"][7][0] == 7 * 32
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert sum(len(rows) for _, rows in stream) == 59_000""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("case", SCRIPTS)
def test_process_ends_and_forks_in_the_middle_of_reads(server: RangeServer, case: str) -> None:
    script = (
        "import os, sys, threading, time\nimport tensorbundle as tb\n"
        f"ck = tb.open({server.url + '/c'!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script + textwrap.dedent(SCRIPTS[case])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_blocks_of_the_page_run(tmp_path: Path) -> None:
    tensors = {
        "embedding": np.zeros((50_000, 16), np.float32),
        "dense/kernel": np.zeros((4, 4), np.float32),
        "dense/bias": np.zeros(4, np.float32),
    }
    with serve(tmp_path) as server:
        stand_ins = {
            "s3://my-bucket/run-7/model.ckpt-1000": f"{server.url}/model.ckpt-1000",
            "https://models.example.org/big/model.ckpt": f"{server.url}/model.ckpt",
            "/var/tmp/checkpoints": str(tmp_path / "cache"),
            '{"profile": "research"}': '{"headers": {"X-Profile": "research"}}',
        }
        for name in ("model.ckpt-1000", "model.ckpt"):
            tb.save(tmp_path / name, tensors)

        def prepare(block: str) -> str:
            for text, stand_in in stand_ins.items():
                block = block.replace(text, stand_in)
            assert "://" not in block.replace(server.url, "")
            return block

        assert run_page("docs/remote", {}, prepare) == len(blocks("docs/remote", "python")) == 2
    assert any((tmp_path / "cache").rglob("*"))


def test_closed_checkpoint_raises(server: RangeServer) -> None:
    ck = tb.open(f"{server.url}/c")
    table: Any = ck["table"]
    stream = table.chunks(1000)
    next(stream)
    ck.close()
    with pytest.raises(ValueError, match="is closed"):
        table.read()
