# SPDX-License-Identifier: Apache-2.0
"""System errors are reported with their errno, not as corruption, and are not cached."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle, shard_path

import tensorbundle as tb

COUNT = 300

DESCRIPTORS = """
import errno, os, resource, sys
import numpy as np
import tensorbundle as tb, tensorbundle.remap

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
ck = tb.open(sys.argv[1])
open(os.devnull).close()  # the process can still open files
held = []
try:
    while True:
        held.append(open(os.devnull))
except OSError as error:
    assert error.errno == errno.EMFILE
last = ck["t299"]
reads = [
    last.read, lambda: np.asarray(last), lambda: last[0:1], lambda: last[[0]],
    lambda: list(last.chunks()), last.explain, lambda: tb.load_and_remap(last, rows=[0]),
]
for read in reads:
    try:
        read()
    except tb.IOFailure as error:
        assert error.errno == errno.EMFILE, error
        assert "t299" in str(error), error
    else:
        raise AssertionError("the read needed no descriptor")
assert "Too many open files" in last.error
report = ck.verify()
assert not report.ok
assert not report.damaged
assert {item.errno for item in report.unreadable} == {errno.EMFILE}
assert report.checked_bytes == 4 * 300 - sum(item.nbytes for item in report.unreadable)
try:
    report.raise_for_damage()
except tb.IOFailure as error:
    assert error.errno == errno.EMFILE
    print(error)
for file in held:
    file.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
for read in reads:
    read()
assert last.error is None
assert ck.verify().ok
assert ck.verify().checked_bytes == 4 * 300
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with one tensor in each of COUNT data files."""
    bundle = Bundle(num_shards=COUNT)
    for i in range(COUNT):
        bundle.add(f"t{i}", np.full(1, i, np.float32), shard=i)
    return bundle.write(tmp_path_factory.mktemp("many") / "c")


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False, **options
    )  # type: ignore[call-overload]


def test_too_many_open_files_raises_io_failure(many: Path) -> None:
    done = run("-c", DESCRIPTORS, many)
    assert done.returncode == 0, done.stderr
    # The message is not repeated per tensor.
    assert done.stdout.count("Too many open files") <= 4


def limit_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))


def test_cli_distinguishes_system_error_from_corruption(many: Path) -> None:
    done = run("-m", "tensorbundle", "verify", many, preexec_fn=limit_descriptors)
    assert done.returncode in (0, 2), done.stderr
    if done.returncode == 2:
        assert done.stderr.count("\n") == 1
        assert "Too many open files" in done.stderr
    shard_path(many, 7, COUNT).write_bytes(b"\xff" * 4)
    assert run("-m", "tensorbundle", "verify", many).returncode == 1
    shard_path(many, 7, COUNT).write_bytes(np.full(1, 7, np.float32).tobytes())


WITHOUT_PERMISSION = """
import errno, os, sys
import tensorbundle as tb

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
ck = tb.open(sys.argv[1])
assert ck["b"].read().tolist() == [2]
for read in (ck["a"].read, lambda: ck["a"][0:1], lambda: ck["a"][[0]]):
    try:
        read()
    except tb.IOFailure as error:
        assert error.errno == errno.EACCES, error
    else:
        raise AssertionError("the file was read without permission")
report = ck.verify()
assert [(item.tensor, item.errno) for item in report.unreadable] == [("a", errno.EACCES)]
assert not report.damaged
try:
    tb.open(sys.argv[1], verify="full")
except tb.IOFailure as error:
    assert error.errno == errno.EACCES
"""


def test_unreadable_file_raises_eacces(tmp_path: Path) -> None:
    bundle = Bundle(num_shards=2)
    bundle.add("a", np.full(1, 1, np.int32), shard=0)
    bundle.add("b", np.full(1, 2, np.int32), shard=1)
    prefix = bundle.write(tmp_path / "c")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if os.stat(folder).st_uid == os.geteuid():
            folder.chmod(0o755)
    shard_path(prefix, 0, 2).chmod(0)
    done = run("-c", WITHOUT_PERMISSION, prefix)
    assert done.returncode == 0, done.stderr
    with tb.open(prefix) as ck:
        shard_path(prefix, 0, 2).chmod(0o644)
        assert ck["a"].read().tolist() == [1]  # the error is not cached


def test_directory_as_shard_is_corruption(tmp_path: Path) -> None:
    bundle = Bundle(num_shards=2)
    bundle.add("a", np.full(1, 1, np.int32), shard=0)
    bundle.add("b", np.full(1, 2, np.int32), shard=1)
    prefix = bundle.write(tmp_path / "c")
    shard_path(prefix, 0, 2).unlink()
    shard_path(prefix, 0, 2).mkdir()
    with tb.open(prefix) as ck:
        (item,) = ck.verify().damaged
        assert item.tensor == "a"
        with pytest.raises(tb.IOFailure) as caught:
            ck["a"].read()
        assert caught.value.errno == errno.EISDIR
