# SPDX-License-Identifier: Apache-2.0
"""Errors of ``align``: every failure raises and leaves no invalid checkpoint."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from craft import user
from craft.bundle import Bundle, index_path, shard_path
from craft.specimen import TENSORS, specimen
from craft.strings import encode_strings

import tensorbundle as tb


def align_error(source: Path, destination: Path, kind: type[Exception] = tb.CorruptionError) -> str:
    """Requires ``align`` to raise and to leave no file; returns the message."""
    before = sorted(path.name for path in destination.parent.iterdir())
    with pytest.raises(kind) as caught:
        tb.align(source, destination)
    assert sorted(path.name for path in destination.parent.iterdir()) == before
    return str(caught.value)


@pytest.fixture
def valid(tmp_path: Path) -> Path:
    return specimen(2).write(tmp_path / "c")


def test_flipped_data_bit_error_names_the_tensor(valid: Path, tmp_path: Path) -> None:
    for shard in range(2):
        path = shard_path(valid, shard, 2)
        data = path.read_bytes()
        for bit in range(0, 8 * len(data), 3):
            corrupt = bytearray(data)
            corrupt[bit // 8] ^= 1 << bit % 8
            path.write_bytes(corrupt)
            message = align_error(valid, tmp_path / "d")
            assert any(f"tensor '{name}'" in message for name in TENSORS), message
        path.write_bytes(data)


def test_flipped_index_bit_raises_error(valid: Path, tmp_path: Path) -> None:
    path = index_path(valid)
    data = path.read_bytes()
    for bit in range(0, 8 * len(data), 3):
        corrupt = bytearray(data)
        corrupt[bit // 8] ^= 1 << bit % 8
        path.write_bytes(corrupt)
        align_error(valid, tmp_path / "d", tb.Error)


def test_corruption_error_names_the_slice(valid: Path, tmp_path: Path) -> None:
    path = shard_path(valid, 1, 2)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x00")
    assert "tensor 'w', slice [2:4, 0:6]" in align_error(valid, tmp_path / "d")


def test_missing_or_truncated_shard_raises_error(valid: Path, tmp_path: Path) -> None:
    path = shard_path(valid, 1, 2)
    path.write_bytes(path.read_bytes()[:-1])
    assert "truncated" in align_error(valid, tmp_path / "d")
    path.unlink()
    error = align_error(valid, tmp_path / "d", tb.CheckpointNotFoundError)
    assert f"{path} is missing; was the checkpoint copied in part?" in error


def test_missing_checksum_raises_corruption_error(tmp_path: Path) -> None:
    bundle = specimen()
    bundle.entries[b"a"].ClearField("crc32c")
    assert "no checksum" in align_error(bundle.write(tmp_path / "c"), tmp_path / "d")


def test_checks_checksum_of_empty_tensor(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("empty", np.empty((0, 3), np.float32)).crc32c = 7
    assert "tensor 'empty'" in align_error(bundle.write(tmp_path / "c"), tmp_path / "d")


@pytest.mark.parametrize("name", ["lengths", "payload"])
def test_corrupt_strings_raise_corruption_error(name: str, tmp_path: Path) -> None:
    payload, crc = encode_strings([b"one", b"two"])
    at = 0 if name == "lengths" else -1
    corrupt = bytearray(payload)
    corrupt[at] ^= 1
    bundle = Bundle()
    bundle.add_payload("s", 7, (2,), bytes(corrupt), crc=crc)
    assert "tensor 's'" in align_error(bundle.write(tmp_path / "c"), tmp_path / "d")


def test_missing_parent_directory_raises_enoent(valid: Path, tmp_path: Path) -> None:
    with pytest.raises(tb.IOFailure) as caught:
        tb.align(valid, tmp_path / "no" / "such" / "d")
    assert caught.value.errno == errno.ENOENT
    assert not (tmp_path / "no").exists()


def test_file_as_directory_raises_enotdir(valid: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(tb.IOFailure) as caught:
        tb.align(valid, tmp_path / "file" / "d")
    assert caught.value.errno == errno.ENOTDIR


def test_removes_created_directory_after_failure(valid: Path, tmp_path: Path) -> None:
    shard_path(valid, 0, 2).write_bytes(bytes(500))
    with pytest.raises(tb.CorruptionError):
        tb.align(valid, tmp_path / "new" / "d")
    assert not (tmp_path / "new").exists()


def test_read_only_directory_raises_eacces() -> None:
    with user.normal_user() as home:
        source = specimen().write(home / "c")
        tb.align(source, home / "d")
        folder = home / "locked"
        folder.mkdir(mode=0o555)
        with pytest.raises(tb.IOFailure) as caught:
            tb.align(source, folder / "d")
        assert list(folder.iterdir()) == []
    assert caught.value.errno == errno.EACCES


@pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="needs a directory in which no file can be created"
)
def test_directory_without_file_creation_raises_io_failure(valid: Path) -> None:
    with pytest.raises(tb.IOFailure) as caught:
        tb.align(valid, "/proc/self/d")
    assert caught.value.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS)


def large(prefix: Path, count: int = 8) -> Path:
    bundle = Bundle()
    bundle.add("pad", np.array([1], np.int8))
    rng = np.random.default_rng(11)
    for i in range(count):
        bundle.add(f"t{i}", rng.integers(0, 255, 1 << 20, np.uint8))
    return bundle.write(prefix)


LIMITED = """
import errno, os, resource, sys
import tensorbundle as tb
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
try:
    tb.align(sys.argv[1], sys.argv[2])
except tb.IOFailure as error:
    assert error.errno == errno.EFBIG, error
    assert error.filename.startswith(sys.argv[2]), error
    print("refused")
"""


def run_python(code: str, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_full_disk_leaves_no_files(tmp_path: Path) -> None:
    source = large(tmp_path / "c")
    (tmp_path / "out").mkdir()
    assert run_python(LIMITED, source, tmp_path / "out" / "d") == "refused\n"
    assert list((tmp_path / "out").iterdir()) == []


SMALL_MEMORY = """
import resource, sys
import tensorbundle as tb
tb.align(sys.argv[1], sys.argv[2] + "-warm", threads=2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tb.align(sys.argv[3], sys.argv[2], threads=int(sys.argv[4]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts in kilobytes")
@pytest.mark.parametrize("threads", [1, 8])
def test_memory_is_independent_of_tensor_size(threads: int, tmp_path: Path) -> None:
    small = specimen().write(tmp_path / "small")
    bundle = Bundle()
    rows = np.zeros(200 << 20, np.uint8)
    bundle.add("zeros", rows)
    bundle.add_strings("strings", [bytes(50 << 20), b"x"], (2,))
    source = bundle.write(tmp_path / "c")
    grown = int(run_python(SMALL_MEMORY, small, tmp_path / "d", source, threads))
    assert grown < 16 << 10, f"{grown} KiB more for 250 MiB of tensors"


ALIGN = "import sys, tensorbundle as tb; tb.align(sys.argv[1], sys.argv[2])"


def test_killed_run_leaves_no_invalid_checkpoint(tmp_path: Path) -> None:
    source = large(tmp_path / "c", 48)
    rng = random.Random(3)
    outcomes = {"killed": 0, "done": 0}
    for attempt in range(12):
        folder = tmp_path / f"out{attempt}"
        folder.mkdir()
        child = subprocess.Popen(
            [sys.executable, "-c", ALIGN, str(source), str(folder / "d")],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        )
        deadline = time.monotonic() + 60
        while not any(folder.iterdir()) and child.poll() is None:
            assert time.monotonic() < deadline
        time.sleep(rng.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        outcomes["killed" if child.wait() == -signal.SIGKILL else "done"] += 1
        try:
            with tb.open(folder / "d", verify="full") as ck:
                assert len(ck) == 49
        except tb.CheckpointNotFoundError:
            assert not index_path(folder / "d").exists()
        shutil.rmtree(folder)
    assert outcomes["killed"] > 0


def test_one_of_several_concurrent_runs_succeeds(tmp_path: Path) -> None:
    source = specimen(2).write(tmp_path / "c")
    (tmp_path / "out").mkdir()
    children = [
        subprocess.Popen(
            [sys.executable, "-c", ALIGN, str(source), str(tmp_path / "out" / "d")],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
            stderr=subprocess.PIPE,
        )
        for _ in range(6)
    ]
    errors = [child.communicate()[1].decode() for child in children]
    assert sorted(child.returncode for child in children) == [0, 1, 1, 1, 1, 1]
    assert all("DestinationExistsError" in error for error in errors if error)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["d.data-00000-of-00002", "d.data-00001-of-00002", "d.index"]
    with tb.open(tmp_path / "out" / "d", verify="full") as ck:
        assert list(ck) == sorted(TENSORS)


def test_exception_in_progress_leaves_no_partial_files(tmp_path: Path) -> None:
    source = large(tmp_path / "c", 96)
    (tmp_path / "out").mkdir()

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise StopError

    with pytest.raises(StopError):
        tb.align(source, tmp_path / "out" / "d", progress=stop)
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    # The last call of progress follows the rename of all files.
    assert left in ([], ["d.data-00000-of-00001", "d.index"])


def test_total_size_overflow_raises_corruption_error(tmp_path: Path) -> None:
    """Each entry is valid, but their total size exceeds the limit."""
    bundle = Bundle()
    for i in range(50):
        entry = bundle.add_payload(f"t{i}", 99, (), b"")
        entry.offset, entry.size = i, (1 << 62) - 1
    assert "more than" in align_error(bundle.write(tmp_path / "c"), tmp_path / "d")
