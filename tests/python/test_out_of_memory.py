# SPDX-License-Identifier: Apache-2.0
"""Failed allocations and thread starts raise documented exceptions; the next call succeeds."""

from __future__ import annotations

import errno
import inspect
import itertools
import os
import re
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
from tensorbundle.streaming import Stream

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


def python_path() -> list[str]:
    return [str(HERE), str(Path(tb.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.build(tmp_path_factory.mktemp("shim"))


def test_failed_allocation_raises_memory_error(shim: Path, tmp_path: Path) -> None:
    write(tmp_path)
    environment = {**os.environ, "LD_PRELOAD": str(shim)}
    command = [sys.executable, __file__, str(shim), str(tmp_path)]
    environment["PYTHONPATH"] = os.pathsep.join(python_path())
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


# CPython 3.11 and NumPy 2.4 raise SystemError with these words in some places without memory.
NO_EXCEPTION = ("error return without exception set", "returned NULL without setting an exception")


def calls_of_core(directory: Path) -> dict[str, Callable[[], object]]:
    """Returns calls of the extension that make Python objects, by description."""
    core = tb._core
    path = os.fsencode(directory / "c")
    ck = core.Checkpoint.open_bundle(path, "auto", "c", True, 2)
    table, slices, text = ck.find("table"), ck.find("slices"), ck.find("text")
    ids, box = np.array(ROWS[:3]), ((1, 0), (2, 150))
    empty, offsets = np.empty(0), np.array([0, 1, 2], np.uint64)
    arrays = np.arange(3.0), np.arange(3.0) + 1

    def stream() -> object:
        items = core.Stream.of_tensors(ck, [table, slices], 1 << 20)
        return items.next(), items.next()

    def join() -> object:
        new = core.Vocabulary.of_tokens("a", b"ab", offsets)
        return core.join(new, core.Vocabulary.of_tokens("b", b"bc", offsets), 2, 1)

    return {
        "open": lambda: core.Checkpoint.open_bundle(path, "auto", "c", True, 2),
        "find": lambda: (ck.find("table"), ck.find_handle("table"), ck.get_tensor("table")),
        "list": lambda: (ck.names(), ck.tensors(), ck.handles(ck.names()), ck.warnings, len(ck)),
        "maps": lambda: (ck.shape_map(ck.names()), ck.type_map(ck.names())),
        "numbers": lambda: (table.nbytes, table.checkpoint_id, ck.index_checksum, table.row_size()),
        "slices": lambda: (slices.slices(), slices.file_paths(), slices.view_obstacle()),
        "view": lambda: (table.view(), table.view_row(3), table.view_box(*box)),
        "private": lambda: (table.copy_on_write(), table.copy_on_write_box(*box)),
        "locate": lambda: table.locate_box(*box),
        "read": lambda: (table.read_whole(), table.read_row(3), slices.read_whole()),
        "strings": lambda: (text.read_whole(), text.read_string_box((1,), (2,))),
        "take": lambda: table.take(ids, None, "none", empty),
        "ranges": lambda: table.inspect_ranges(table.ranges_of_rows(ids)),
        "stream": stream,
        "verify": lambda: ck.verify(None, None),
        "load": lambda: ck.load([table, slices], 0),
        "join": join,
        "DLPack": lambda: core.dlpack_capsule(arrays[0], 2, 64, True, False),
        "compare": lambda: core.compare_elements(*arrays, True, True, 0.0, 0.0),
        "checksum": lambda: core.crc32c_combine(core.crc32c(b"a"), core.crc32c(b"b"), 1),
        "address": lambda: core.address_of(arrays[0]),
    }


def calls_of_package(directory: Path) -> dict[str, Callable[[], object]]:
    """Returns calls that users make, by description."""
    path, saved = str(directory / "c"), str(directory / "saved")
    number = itertools.count()
    ck = tb.open(path)
    table = ck["table"]

    def save() -> None:
        arrays = {"a": np.arange(3.0), "s": np.array([b"x", b""], object)}
        tb.save(saved, arrays, overwrite=True)

    with tb.Writer(directory / "other") as writer:
        writer.add("table", TABLE + 1)
    return {
        "open": lambda: (tb.open(path), tb.open(str(directory / "v1"))),
        "list": lambda: (list(ck), list(ck.values()), ck.summary()),
        "show": lambda: (repr(ck), repr(table), ck._repr_html_()),
        "explain": lambda: (table.explain(), ck["slices"].slices, ck["slices"].byte_ranges()),
        "view": lambda: (np.asarray(table), table[3], table[1:3], table.copy_on_write()),
        "DLPack": lambda: (table.__dlpack__(), table.__dlpack__(max_version=(1, 0))),
        "read": lambda: (table.read(), ck["slices"].read(), ck["slices"][1:5, ::2]),
        "strings": lambda: (ck["text"].read(), ck["text"][1], ck["text"].take([1])),
        "take": lambda: (table.take(ROWS), table.take(np.array([1, -1]), fill=0.0)),
        "remap": lambda: tb.load_and_remap(table, rows=[1, -1, 3], fill=0.0),
        "vocabulary": lambda: tb.remap_vocab(["a", "b"], ["b", "c"]),
        "stream": lambda: ck.stream().close(),
        "stream to the end": lambda: dict(ck.stream(max_bytes=1 << 17)),
        "chunks": lambda: list(table.chunks(200)),
        "verify": lambda: ck.verify(),
        "load": lambda: tb.load(path),
        "reader": lambda: tb.NewCheckpointReader(path).debug_string(),
        "state": lambda: tb.get_checkpoint_state(str(directory)),
        "difference": lambda: tb.diff(path, str(directory / "other"), values=True),
        "save": save,
        "align": lambda: tb.align(path, f"{directory}/{next(number)}/c"),
    }


def fail_each_allocation_of_python(of: str, directory: Path) -> None:
    """Makes each allocation of Python objects fail in turn; the same call then succeeds."""
    import _testcapi

    calls = calls_of_core if of == "core" else calls_of_package
    for name, call in calls(directory).items():
        print(name, flush=True)  # the last one, if the process ends
        call()
        call()
        raised = succeeded = 0
        for before in itertools.count():
            succeeded += 1
            _testcapi.set_nomemory(before, before + 1)
            try:
                call()
            except MemoryError:
                raised, succeeded = raised + 1, 0
            except SystemError as error:
                assert of == "package", error
                assert str(error).endswith(NO_EXCEPTION), error
                succeeded = 0
            except RuntimeError as error:  # of threading.Lock()
                assert of == "package", error
                assert str(error) == "can't allocate lock", error
                succeeded = 0
            finally:
                _testcapi.remove_mem_hooks()
            if succeeded == 30:  # Python swallows some of the errors
                break
        assert raised > 0, name
        call()
    assert not [path for path in directory.rglob("*") if "temp" in path.name]


def fail_each_allocation_of_an_item(directory: Path) -> None:
    """Makes each allocation of a stream's second item fail: no item is left out silently."""
    import _testcapi

    ck = tb.open(directory / "c")
    streams: dict[str, Callable[[], Stream[Any]]] = {
        "numbers": lambda: ck["table"].chunks(100),
        "numbers into out": lambda: ck["table"].chunks(100, out=[TABLE[:100].copy()]),
        "strings": lambda: ck["text"].chunks(1),
        "tensors": lambda: ck.stream(),
    }
    for name, begin in streams.items():
        print(name, flush=True)
        with begin() as stream:
            wanted = [item[0] for item in stream]
        assert len(wanted) > 2
        lost = succeeded = 0
        for before in itertools.count():
            succeeded += 1
            with begin() as stream:
                found = [next(stream)[0]]
                _testcapi.set_nomemory(before, before + 1)
                try:
                    item = next(stream)
                except (MemoryError, SystemError):
                    item = None
                finally:
                    _testcapi.remove_mem_hooks()
                if item is not None:
                    found.append(item[0])
                else:
                    succeeded = 0
                try:
                    found += [item[0] for item in stream]
                    assert found == wanted, (found, wanted)
                except MemoryError as error:
                    assert "is lost" in str(error), error
                    assert item is None
                    lost += 1
                    with pytest.raises(MemoryError, match="is lost"):
                        next(stream)
            if succeeded == 30:
                break
        assert lost > 0, name


def run_without_memory(function: str, directory: Path) -> None:
    """Runs a function of this file, with these arguments, on new files in another process."""
    pytest.importorskip("_testcapi")  # some builds of Python have no tests of their own
    write(directory)
    code = f"import test_out_of_memory as t; t.{function}"
    command = [sys.executable, "-X", "faulthandler", "-c", code]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(python_path())}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def skip_if_others_crash() -> None:
    if sys.version_info[:2] != (3, 11) or np.lib.NumpyVersion(np.__version__) < "2.4.0":
        pytest.skip("Python 3.12 and 3.13, and NumPy 1 and 2.2, end the process themselves")


@pytest.mark.parametrize("of", ["core", "package"])
def test_each_failed_allocation_of_python_raises_memory_error(of: str, tmp_path: Path) -> None:
    if of == "package":
        skip_if_others_crash()
    run_without_memory(f"fail_each_allocation_of_python({of!r}, t.Path('.'))", tmp_path)


def test_a_stream_leaves_no_item_out_after_memory_error(tmp_path: Path) -> None:
    skip_if_others_crash()
    run_without_memory("fail_each_allocation_of_an_item(t.Path('.'))", tmp_path)


def test_the_core_takes_no_keywords() -> None:
    """Because pybind11 dereferences null if there is no memory for the name of an argument."""
    owners = [tb._core, *filter(inspect.isclass, vars(tb._core).values())]
    functions = [
        each
        for owner in owners
        for name, each in inspect.getmembers(owner, inspect.isroutine)
        if not name.startswith("_")
    ]
    signatures = [(function.__doc__ or "").splitlines()[0] for function in functions]
    assert len(signatures) > 50
    for signature in signatures:
        left = re.sub(r"\(.*, /(?=[,)])", "(", signature)  # arguments by position only
        assert not re.search(r"[(,] ?(?!self|arg\d)\w+:", left), signature


@pytest.mark.parametrize("name", ["Checkpoint", "Names", "Stream", "Tensor", "Vocabulary"])
def test_extension_types_cannot_be_instantiated(name: str) -> None:
    kind = getattr(tb._core, name)
    with pytest.raises(TypeError, match="cannot create"):
        kind()
    with pytest.raises(TypeError):
        object.__new__(kind)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
