# SPDX-License-Identifier: Apache-2.0
"""Failed allocations and thread starts raise documented exceptions; the next call succeeds."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import faults
from craft.bundle import Bundle
from craft.v1 import V1File

import tensorbundle as tb

HERE = Path(__file__).parent
TABLE = np.random.default_rng(1).standard_normal((600, 150)).astype(np.float32)
ROWS = [5, 1, 599, -1]


def write(directory: Path) -> None:
    bundle = Bundle(2)
    bundle.add("table", TABLE)
    bundle.add("small", np.arange(10), shard=1)
    bundle.add_strings("text", [b"a", b"bb", b""], (3,))
    halves = [((0, 3), (0, 10)), ((3, 3), (0, 10))]
    bundle.add_sliced("slices", np.arange(60.0).reshape(6, 10), halves, shard_of=lambda i: i)
    bundle.write(directory / "c")
    (directory / "new.txt").write_text("".join(f"token{i}\n" for i in range(0, 60000, 2)))
    (directory / "old.txt").write_text("".join(f"token{i}\n" for i in range(600)))
    v1 = V1File()
    v1.add("f", 1, np.arange(30, dtype=np.float32))
    v1.write(directory / "v1")


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_array_equal(found, wanted)


def align(directory: Path) -> None:
    target = directory / "aligned"
    try:
        tb.align(directory / "c", target / "c", threads=2)
        with tb.open(target / "c") as ck:
            same(ck["table"].read(), TABLE)
    finally:
        left = sorted(path.name for path in target.iterdir()) if target.exists() else []
        shutil.rmtree(target, ignore_errors=True)
        assert not any("tempstate" in name for name in left), left


def open_both(directory: Path) -> None:
    with tb.open(directory / "c") as ck, tb.open(directory / "v1") as v1:
        assert set(ck) == {"table", "small", "text", "slices"}
        same(v1["f"].read(), np.arange(30))


def remap(directory: Path) -> None:
    tb.vocab.clear_caches()
    ids = tb.remap_vocab(directory / "new.txt", directory / "old.txt").ids
    same(ids[:300], np.arange(0, 600, 2))
    assert (ids[300:] == -1).all()


def stream(ck: tb.Checkpoint) -> None:
    with ck.stream(max_bytes=1 << 17) as arrays:
        found = dict(arrays)
    assert found.keys() == set(ck)
    same(found["table"], TABLE)


def chunks(ck: tb.Checkpoint) -> None:
    with ck["table"].chunks(50) as stream:
        same(np.concatenate([chunk.copy() for _, chunk in stream]), TABLE)


def load_and_remap(ck: tb.Checkpoint) -> None:
    found = tb.load_and_remap(ck["table"], rows=[1, -1, 3], fill=0.0)
    same(found, np.stack([TABLE[1], np.zeros(150), TABLE[3]]))


# Operations on the directory, and on an open checkpoint.
BY_PATH: dict[str, Callable[[Path], None]] = {
    "open": open_both,
    "align": align,
    "remap_vocab": remap,
}
BY_CHECKPOINT: dict[str, Callable[[tb.Checkpoint], None]] = {
    "read": lambda ck: same(ck["table"].read(), TABLE),
    "slices": lambda ck: same(ck["slices"][1:5], np.arange(60.0).reshape(6, 10)[1:5]),
    "strings": lambda ck: same(ck["text"].read(), np.array([b"a", b"bb", b""], object)),
    "take": lambda ck: same(ck["table"].take(ROWS), TABLE[ROWS]),
    "view": lambda ck: same(np.asarray(ck["table"])[:5], TABLE[:5]),
    "copy_on_write": lambda ck: same(ck["table"].copy_on_write()[:5], TABLE[:5]),
    "stream": stream,
    "chunks": chunks,
    "verify": lambda ck: ck.verify().raise_for_damage(),
    "explain": lambda ck: [ck["table"].explain(), ck["slices"].byte_ranges()][0] and None,
    "load_and_remap": load_and_remap,
}


def fail_each_allocation(shim: faults.Shim, body: Callable[[], None]) -> int:
    """Runs `body` repeatedly; in each run a different allocation fails."""
    body()
    body()  # a second time, with warm caches
    before = len(os.listdir("/proc/self/fd"))
    raised = 0
    call = 1
    while True:
        try:
            with shim.faults(["memory"], faults.FAIL, errno.ENOMEM, call):
                body()
        except MemoryError:
            raised += 1
        if shim.count < call:
            break
        body()
        call += 1
    assert raised > 0
    assert len(os.listdir("/proc/self/fd")) == before
    return raised


def main(library: str, directory: Path) -> None:
    shim = faults.Shim(library)
    for name, by_path in BY_PATH.items():
        print(name, fail_each_allocation(shim, lambda body=by_path: body(directory)))
    for io in ("auto", "pread"):
        with tb.open(directory / "c", threads=2, io=io) as ck:
            for name, body in BY_CHECKPOINT.items():
                if io == "pread" and name == "copy_on_write":
                    continue  # not supported with pread
                print(name, io, fail_each_allocation(shim, lambda body=body: body(ck)))
    with shim.faults(["thread"], faults.FAIL_FROM, errno.EAGAIN, 1):
        with tb.open(directory / "c", threads=2) as ck:
            for name, body in BY_CHECKPOINT.items():
                try:
                    body(ck)
                except tb.IOFailure as error:
                    assert "Resource temporarily unavailable" in str(error), error
                    assert name in ("stream", "chunks"), name
        remap(directory)
        align(directory)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.build(tmp_path_factory.mktemp("shim"))


def test_failed_allocation_raises_memory_error(shim: Path, tmp_path: Path) -> None:
    write(tmp_path)
    environment = {**os.environ, "LD_PRELOAD": str(shim)}
    command = [sys.executable, __file__, str(shim), str(tmp_path)]
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(HERE), str(Path(tb.__file__).parent.parent), environment.get("PYTHONPATH", "")]
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


OBJECTS = """
import resource, sys
import numpy as np
import tensorbundle as tb

ck = tb.open(sys.argv[1])
core = ck._core
create = eval(sys.argv[2])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
held, reserve = [], bytearray(1 << 20)
expected = (MemoryError, SystemError)
try:
    while True:
        held.append(create())
except expected as error:
    del reserve  # memory is so full that not even an int can be allocated
    count = len(held)
    held.clear()
    # CPython 3.11 raises this SystemError if there is no memory for the frame of a Python function.
    if type(error) is SystemError and str(error) != "error return without exception set":
        raise
assert count > 100, count
assert ck["small"].read().tolist() == list(range(10))
print("created", count)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize(
    "code",
    [
        "lambda: core.find('table')",
        "lambda: tb._core.Vocabulary.of_tokens('v', b'', np.zeros(1, np.uint64))",
        "lambda: ck.stream()",
        "lambda: ck['table'][0:1]",
        "lambda: ck['table'].take([0])",
        "lambda: ck['table'].__dlpack__()",
        "lambda: core.names()",
        "lambda: core.find('slices').slices()",
        "lambda: core.handles(core.names())",
        "lambda: core.find('small').view()",
        "lambda: tb.open(sys.argv[1])",
    ],
)
def test_object_creation_without_memory_raises_memory_error(code: str, tmp_path: Path) -> None:
    write(tmp_path)
    command = [sys.executable, "-c", OBJECTS, str(tmp_path / "c"), code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("created")


@pytest.mark.parametrize("name", ["Checkpoint", "Names", "Stream", "Tensor", "Vocabulary"])
def test_extension_types_cannot_be_instantiated(name: str) -> None:
    kind = getattr(tb._core, name)
    with pytest.raises(TypeError, match="cannot create"):
        kind()
    with pytest.raises(TypeError):
        object.__new__(kind)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
