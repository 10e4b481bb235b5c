# SPDX-License-Identifier: Apache-2.0
"""Registered kernels read files that are not local as TensorFlow's kernels do.

As in test_kernels.py, each test runs calls in a child process, before and after the registration.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle
from craft.dtypes import sample
from craft.v1 import V1File

tf = pytest.importorskip("tensorflow")

from tensorbundle.tf import op_library  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))  # pytest imports tests by file, not as a package
try:
    import test_kernels as kernels
    from test_kernels import FLOAT, SERVED_FROM_NOW_ON, Call, restore, spec_of
finally:
    sys.path.pop(0)

RAM = "ram://folder/"


def upload(folder: Path) -> str:
    """Copies the files of a local directory to ram://. Returns the directory there."""
    for path in folder.iterdir():
        if path.is_file():
            with contextlib.suppress(tf.errors.NotFoundError):
                tf.io.gfile.remove(RAM + path.name)  # ram:// would append to it
            with tf.io.gfile.GFile(RAM + path.name, "wb") as file:
                file.write(path.read_bytes())
    return RAM


def upload_table(folder: Path, values: np.ndarray) -> None:
    """Writes the checkpoint `c` with the tensor `t`, and uploads it."""
    bundle = Bundle()
    bundle.add("t", values)
    bundle.write(folder / "c")
    upload(folder)


def random_specs(shape: tuple[int, ...], count: int, choice: random.Random) -> list[str]:
    return ["", *(spec_of(shape, kernels.random_box(shape, choice)) for _ in range(count))]


def whole_and_sliced(folder: Path) -> Iterator[Call]:
    """All dtypes, and boxes of tensors in several slices and files, in both byte orders."""
    choice = random.Random(1)
    for number, kind, dtype in kernels.restorable_dtypes():
        bundle = Bundle()
        bundle.add("t", sample(kind, (5, 3), seed=number), number=number)
        bundle.add("empty", sample(kind, (5, 3), seed=2)[:0], number=number)
        bundle.write(folder / f"d{number}")
        yield (
            dtype.name,
            lambda p=f"{RAM}d{number}", d=dtype: restore(p, ["t", "empty"], ["", ""], [d] * 2),
        )
        yield (
            f"{SERVED_FROM_NOW_ON}slice of {dtype.name}",
            lambda p=f"{RAM}d{number}", d=dtype: restore(p, ["t"], ["5 3 1,3:-"], [d]),
        )
    for case, shape in enumerate([(40, 6), (7, 5, 4), (9000, 128)]):
        values = np.random.default_rng(case).standard_normal(shape).astype(np.float32)
        for axis in range(len(shape)):
            third = shape[axis] // 3
            parts = tilings.cut(shape, axis, [shape[axis] - 2 * third, third, third])
            bundle = Bundle(2, big_endian=axis == 1)
            bundle.add_sliced("t", values, parts, shard_of=lambda i: i % 2)
            bundle.add("whole", values)
            bundle.write(folder / f"t{case}{axis}")
            for name in ("t", "whole"):
                specs = random_specs(shape, 10, choice)
                yield (
                    f"{name} {shape} {axis}",
                    lambda p=f"{RAM}t{case}{axis}", n=name, s=specs: restore(
                        p, [n] * len(s), s, [tf.float32] * len(s)
                    ),
                )
    small = Bundle()
    for i in range(300):
        small.add(f"s{i}", np.full((i % 7, 50), i, np.float32))
    small.write(folder / "small")
    names = [f"s{i}" for i in range(300)]
    random.Random(2).shuffle(names)
    yield "small", lambda: restore(f"{RAM}small", names, [""] * 300, [tf.float32] * 300)


def v1(folder: Path) -> Iterator[Call]:
    """V1 files, and patterns of them."""
    values = np.arange(300_000, dtype=np.float32).reshape(-1, 6)
    for shard in range(2):
        file = V1File()
        file.add(f"t{shard}", FLOAT, values + shard)
        file.add(f"n{shard}", 3, np.arange(10, dtype=np.int32))
        file.write(folder / f"m-{shard:05}-of-00002")
    file.write(folder / "x-?????-of-00000")
    types = [tf.float32, tf.int32]
    for prefix in ("m-00001-of-00002", "m-?????-of-00002", "m-*", "x-?????-of-00000"):
        for spec in ("", "50000 6 2,5:-", "50000 6 -:1,3"):
            yield (
                f"{prefix} {spec}",
                lambda p=RAM + prefix, s=spec: restore(p, ["t1", "n1"], [s, ""], types),
            )
    yield "both shards", lambda: restore(f"{RAM}m-*", ["t0", "t1"], ["", ""], [tf.float32] * 2)
    yield "no match", lambda: restore(f"{RAM}n-*", ["t0"], [""], [tf.float32])
    yield "absent tensor", lambda: restore(f"{RAM}m-*", ["x"], [""], [tf.float32])


def errors(folder: Path) -> Iterator[Call]:
    """Calls that fail: the same status codes."""
    for name in ("cut", "flipped", "missing", "replaced", "cut_index", "empty_index", "hole"):
        bundle = Bundle()
        bundle.add("t", np.zeros((400, 3), np.float32))
        bundle.add("bad", np.ones(100_000, np.float32))
        if name == "hole":
            parts = tilings.cut((8, 3), 0, [4, 4])[:1]
            bundle.add_sliced("h", np.ones((8, 3), np.float32), parts, shard_of=lambda _: 0)
        bundle.write(folder / name)
    shard = ".data-00000-of-00001"
    cut = folder / f"cut{shard}"
    cut.write_bytes(cut.read_bytes()[:-50_000])
    flipped = folder / f"flipped{shard}"
    content = bytearray(flipped.read_bytes())
    content[-5] ^= 1
    flipped.write_bytes(content)
    (folder / f"missing{shard}").unlink()
    index = folder / "cut_index.index"
    index.write_bytes(index.read_bytes()[:-9])
    (folder / "empty_index.index").write_bytes(b"")
    (folder / "garbage").write_bytes(b"no table " * 100)
    (folder / "empty").write_bytes(b"")

    for name in ("cut", "flipped", "missing", "cut_index", "empty_index", "garbage", "empty"):
        for spec in ("", "100000 5,10"):
            yield (
                f"{name} {spec}",
                lambda p=RAM + name, s=spec: restore(p, ["bad"], [s], [tf.float32]),
            )
    yield "intact tensor", lambda: restore(f"{RAM}flipped", ["t"], [""], [tf.float32])
    yield "not covered", lambda: restore(f"{RAM}hole", ["h"], ["8 3 3,3:-"], [tf.float32])
    for path in (
        f"{RAM}none",
        "ram://",
        "ram://none/none",
        "nosuch://a/b",
        "hdfs://a/b",
        "FILE://x",
    ):
        yield path, lambda p=path: restore(p, ["t"], [""], [tf.float32])
    yield "absent tensor", lambda: restore(f"{RAM}cut", ["x"], [""], [tf.float32])
    yield "another type", lambda: restore(f"{RAM}cut", ["t"], [""], [tf.int32])

    def replaced() -> Any:
        """The second checkpoint has the same size, and ram:// stores no time of change."""
        found = []
        for value in (3, 4):
            bundle = Bundle()
            bundle.add("t", np.full((400, 3), value, np.float32))
            bundle.add("bad", np.full(100_000, value, np.float32))
            bundle.write(folder / "replaced")
            upload(folder)
            specs = ["", "100000 5,10"]
            found += restore(f"{RAM}replaced", ["t", "bad"], specs, [tf.float32] * 2)
        return found

    yield "a checkpoint that is replaced", replaced


def remaps(folder: Path) -> Iterator[Call]:
    """GenerateVocabRemapping and LoadAndRemapMatrix."""
    local = folder / "local.txt"
    local.write_text("w1\nn5\nw2\n")
    (folder / "old.txt").write_text("".join(f"w{i}\n" for i in range(20)))
    (folder / "new.txt").write_text("w3\nn0\nw19\nw0\nn1\nw7")
    (folder / "twice.txt").write_text("a\nb\na\n")
    (folder / "gap.txt").write_text("a\n\nb\n")
    (folder / "empty.txt").write_text("")
    table = np.random.default_rng(5).standard_normal((20, 6)).astype(np.float32)
    for name, big_endian in (("r", False), ("big", True), ("bad", False), ("lost", False)):
        bundle = Bundle(2, big_endian=big_endian)
        bundle.add("t", table)
        bundle.add_sliced(
            "sliced", table, tilings.cut((20, 6), 0, [9, 11]), shard_of=lambda i: i % 2
        )
        bundle.add("no rows", table[:0])
        bundle.add("no columns", table[:, :0])
        bundle.write(folder / name)
    shard = folder / "bad.data-00001-of-00002"
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    (folder / "lost.data-00001-of-00002").unlink()

    def join(new_file: str, old_file: str, count: int, offset: int = 0) -> Any:
        return tf.raw_ops.GenerateVocabRemapping(
            new_vocab_file=new_file,
            old_vocab_file=old_file,
            new_vocab_offset=offset,
            num_new_vocab=count,
            old_vocab_size=-1,
        )

    here = str(local)
    new, old = f"{RAM}new.txt", f"{RAM}old.txt"
    yield "join", lambda: join(new, old, 6)
    yield "join a part", lambda: join(new, old, 3, 2)
    yield "join beyond the file", lambda: join(new, old, 7)
    yield "join a local file", lambda: join(here, old, 3)
    yield "join with a local file", lambda: join(new, here, 6)
    yield "join by file://", lambda: join(f"file://{here}", f"file://host{here}", 3)
    for name in ("absent", "twice", "gap", "empty"):
        yield f"join with {name}", lambda n=name: join(new, f"{RAM}{n}.txt", 1)
        yield f"join {name}", lambda n=name: join(f"{RAM}{n}.txt", old, 1)
    yield "join an unknown file system", lambda: join("nosuch://a", old, 1)

    def remap(prefix: str, rows: list[int], columns: list[int], values: int, name: str) -> Any:
        return tf.raw_ops.LoadAndRemapMatrix(
            ckpt_path=prefix,
            old_tensor_name=name,
            row_remapping=tf.constant(rows, tf.int64),
            col_remapping=tf.constant(columns, tf.int64),
            initializing_values=tf.range(values, dtype=tf.float32),
            num_rows=len(rows),
            num_cols=len(columns) or 6,
        )

    for prefix in (f"{RAM}r", f"{RAM}big", f"file://{folder}/r", f"{RAM}bad"):
        for name in ("t", "sliced"):
            yield f"rows {prefix} {name}", lambda p=prefix, n=name: remap(p, [3, -1, 19], [], 6, n)
            yield (
                f"columns {prefix} {name}",
                lambda p=prefix, n=name: remap(p, [2, -1, 5], [4, -1, 0], 5, n),
            )
    for rows in ([3], [3, 8], [8, 9], [-1, -1], [12, 4]):
        values = 6 * rows.count(-1)
        for prefix in (f"{RAM}bad", str(folder / "bad"), f"{RAM}lost"):
            yield (
                f"rows {rows} of {prefix}",
                lambda p=prefix, r=rows, v=values: remap(p, r, [], v, "sliced"),
            )
    yield "no rows", lambda: remap(f"{RAM}r", [-1, -1], [], 12, "no rows")
    yield "no columns", lambda: remap(f"{RAM}r", [3, -1], [-1], 2, "no columns")
    yield "an absent table", lambda: remap(f"{RAM}r", [1], [], 0, "x")
    yield "an absent checkpoint", lambda: remap(f"{RAM}none", [1], [], 0, "t")


GROUPS = [whole_and_sliced, v1, errors, remaps]


# Tests without a comparison: of everything that runs the ops.


def in_every_way(folder: Path) -> None:
    """Sessions, functions, threads, Saver, Checkpoint, SavedModel, iterators, string tensors."""
    values = np.random.default_rng(3).standard_normal((3000, 64)).astype(np.float32)
    bundle = Bundle()
    bundle.add("t", values)
    bundle.write(folder / "c")
    upload(folder)
    specs = [f"3000 64 {i * 500},500:-" for i in range(6)] + ["3000 64 -:5,7", ""]
    want = [values[i * 500 : i * 500 + 500] for i in range(6)] + [values[:, 5:12], values]

    def check(found: list[Any]) -> None:
        for one, other in zip(found, want, strict=True):
            assert np.asarray(one).tobytes() == other.tobytes()

    def read_all() -> list[Any]:
        return [restore(f"{RAM}c", ["t"], [spec], [tf.float32])[0] for spec in specs]

    op_library.load_op_library()
    for threads in (1, 4):
        config = tf.compat.v1.ConfigProto(
            inter_op_parallelism_threads=threads, intra_op_parallelism_threads=1
        )
        with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
            check(session.run(read_all()))
    check(read_all())
    check(tf.function(read_all)())
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(read_all) for _ in range(8)]:
            check(future.result())
    data = tf.data.Dataset.from_tensor_slices(specs).map(
        lambda spec: tf.raw_ops.RestoreV2(
            prefix=f"{RAM}c",
            tensor_names=["t"],
            shape_and_slices=tf.reshape(spec, [1]),
            dtypes=[tf.float32],
        )[0],
        num_parallel_calls=4,
    )
    check(list(data))

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        text = tf.compat.v1.get_variable("s", initializer=tf.constant([b"a", b"", b"c" * 1000]))
        table = tf.compat.v1.get_variable(
            "e", [100, 4], partitioner=tf.compat.v1.fixed_size_partitioner(3)
        )
        for version in (tf.compat.v1.train.SaverDef.V1, tf.compat.v1.train.SaverDef.V2):
            saver = tf.compat.v1.train.Saver([text, *table], write_version=version, sharded=True)
            session.run(tf.compat.v1.global_variables_initializer())
            before = session.run([text, *table])
            path = saver.save(session, f"{RAM}saver{version}")
            session.run(tf.compat.v1.global_variables_initializer())
            saver.restore(session, path)
            for one, other in zip(session.run([text, *table]), before, strict=True):
                assert one.tolist() == other.tolist()

    module = tf.Module()
    module.v = tf.Variable(values)
    module.f = tf.function(lambda: module.v + 0, input_signature=[])
    tf.saved_model.save(module, f"{RAM}model")
    loaded = tf.saved_model.load(f"{RAM}model")
    assert loaded.f().numpy().tobytes() == values.tobytes()

    def iterator() -> Any:
        return iter(tf.data.Dataset.range(100).shuffle(10, seed=1).batch(3))

    saved = iterator()
    next(saved)
    prefix = tf.train.Checkpoint(iterator=saved, v=module.v).write(f"{RAM}it")
    resumed, other = iterator(), tf.Variable(tf.zeros_like(values))
    tf.train.Checkpoint(iterator=resumed, v=other).read(prefix).assert_consumed()
    assert next(resumed).numpy().tolist() == next(saved).numpy().tolist()
    assert other.numpy().tobytes() == values.tobytes()
    with tf.io.gfile.GFile(f"{RAM}c.index", "rb") as file:
        assert file.read()
    from tensorbundle.tf import remote_files

    assert not remote_files._files, "files are left open"


def without_python(folder: Path) -> None:
    """Without registered functions: an error that says which path, and what is missing.

    The paths and file:// URLs of local files need no such functions.
    """
    upload_table(folder, np.zeros(3, np.float32))
    op_library.load_op_library()
    restore(f"{RAM}c", ["t"], [""], [tf.float32])
    op_library.c_library().tensorbundle_tf_set_remote_files(*[None] * 5)
    calls: list[Callable[[], Any]] = [
        lambda: restore(f"{RAM}c", ["t"], [""], [tf.float32]),
        lambda: tf.raw_ops.GenerateVocabRemapping(
            new_vocab_file=f"{RAM}c",
            old_vocab_file=f"{RAM}c",
            new_vocab_offset=0,
            num_new_vocab=1,
        ),
    ]
    for call in calls:
        with pytest.raises(tf.errors.UnimplementedError, match=r"ram://folder/c.*tf\.io\.gfile"):
            call()
    for local in (str(folder / "c"), f"file://{folder}/c", f"file://host{folder}/c"):
        assert restore(local, ["t"], [""], [tf.float32])[0].numpy().tolist() == [0, 0, 0]
    vocab = folder / "vocab.txt"
    vocab.write_text("a\nb\n")
    ids, count = tf.raw_ops.GenerateVocabRemapping(
        new_vocab_file=f"file://{vocab}",
        old_vocab_file=f"file://{vocab}",
        new_vocab_offset=0,
        num_new_vocab=2,
    )
    assert (ids.numpy().tolist(), int(count)) == ([0, 1], 2)


def at_exit(folder: Path) -> None:
    """The process ends while threads restore."""
    upload_table(folder, np.zeros(3_000_000, np.float32))
    op_library.load_op_library()
    data = tf.data.Dataset.range(1000).map(
        lambda _: restore(f"{RAM}c", ["t"], [""], [tf.float32])[0], num_parallel_calls=4
    )
    iterator = iter(data.prefetch(8))
    assert next(iterator).shape == 3_000_000
    globals()["_running"] = iterator


def bad_functions(folder: Path) -> None:
    """Sizes and bytes from Python are checked like those from a file."""
    from tensorbundle.tf import remote_files

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    upload_table(folder, np.ones(100_000, np.float32))
    op_library.load_op_library()
    restore(f"{RAM}c", ["t"], [""], [tf.float32])  # registers the functions
    opens, reads = (type(each) for each in remote_files._FUNCTIONS[:2])
    sizes: dict[str, int] = {}
    counts: list[int] = []
    interrupted: list[str] = []

    def interrupt(name: str) -> None:
        if name in interrupted:
            interrupted.remove(name)
            raise KeyboardInterrupt

    def fake_open(number: int, path: bytes, max_whole: int, result: int, reply: int) -> None:
        interrupt("open")
        size = next((sizes[end] for end in sizes if path.decode().endswith(end)), None)
        is_whole = size is None or size <= max_whole
        remote_files._open(number, path, max_whole if is_whole else -1, result, reply)
        if size is not None:
            remote_files._set(result, size)

    def fake_read(number: int, offset: int, size: int, data: int, result: int, reply: int) -> None:
        interrupt("read")
        remote_files._read(number, offset, size, data, result, reply)
        for count in counts:
            remote_files._set(result, count)

    functions = (opens(fake_open), reads(fake_read), *remote_files._FUNCTIONS[2:])
    op_library.c_library().tensorbundle_tf_set_remote_files(*functions)
    data = "data-00000-of-00001"

    def outcome() -> Any:
        return kernels.outcome(lambda: restore(f"{RAM}c", ["t"], [""], [tf.float32]))

    good = outcome()
    assert isinstance(good, list)
    for name, size, expected in [
        (data, -2, "UnknownError"),
        (data, -7, "PermissionDeniedError"),
        (data, 399_999, "OutOfRangeError"),
        (data, 3999, "OutOfRangeError"),
        (data, 1 << 62, good),
        (".index", -99, "UnknownError"),
        (".index", 1 << 62, "UnimplementedError"),
        (".index", 1 << 20, "OutOfRangeError"),
        (".index", 10, "DataLossError"),
    ]:
        sizes = {name: size}
        assert outcome() == expected, (name, size, outcome())
    sizes = {}
    for count, expected in [
        (0, "OutOfRangeError"),
        (7, "OutOfRangeError"),
        (1 << 40, "DataLossError"),
        (-5, "NotFoundError"),
        (-14, "UnavailableError"),
        (-99, "UnknownError"),
    ]:
        counts = [count]
        assert outcome() == expected, (count, outcome())
    counts = []
    for names in (["open"], ["read"], ["read", "open"], ["read"] * 5):
        interrupted = list(names)  # a signal handler raises before the function does anything
        found = None
        try:
            found = restore(f"{RAM}c", ["t"], [""], [tf.float32])
            time.sleep(1)
        except KeyboardInterrupt:
            assert not interrupted
            continue
        raise AssertionError(f"the interrupt was lost: {found}")
    interrupted = ["read"] * 1000
    assert outcome() == "CancelledError"
    interrupted = []
    assert outcome() == good


ALONE = [in_every_way, without_python, at_exit, bad_functions]


def main(group: str, folder: Path) -> None:
    if group in [each.__name__ for each in ALONE]:
        globals()[group](folder)
        return
    calls = list(globals()[group](folder))
    upload(folder)
    kernels.compare(calls)


@pytest.mark.skipif(op_library.find() is None, reason="built without the op library")
@pytest.mark.parametrize("group", [each.__name__ for each in GROUPS + ALONE])
def test_kernels_read_other_file_systems(group: str, tmp_path: Path) -> None:
    kernels.run_child(group, tmp_path, Path(__file__))


PLUGIN = """
import sys
import tensorflow as tf
tf.load_library(sys.argv[1])  # as tensorflow-plugins does
assert "tensorbundle" not in sys.modules
if sys.argv[2] == "hidden":
    sys.modules["tensorbundle"] = None
before = set(globals())
tf.raw_ops.SaveV2(prefix="ram://m", tensor_names=["t"], shape_and_slices=[""], tensors=[[1.0, 2.0]])
try:
    read = tf.raw_ops.RestoreV2(
        prefix="ram://m", tensor_names=["t"], shape_and_slices=[""], dtypes=[tf.float32]
    )
    print(read[0].numpy().tolist())
except tf.errors.UnimplementedError as error:
    print("tf.io.gfile" in str(error))
assert not {name for name in globals() if name not in before} - {"before", "read", "error"}
"""


@pytest.mark.skipif(op_library.find() is None, reason="built without the op library")
@pytest.mark.parametrize(("package", "printed"), [("found", "[1.0, 2.0]"), ("hidden", "True")])
def test_library_asks_python_for_its_functions(package: str, printed: str) -> None:
    """A script that does not import tensorbundle, with a library that TensorFlow has loaded."""
    run = subprocess.run(
        [sys.executable, "-c", PLUGIN, str(op_library.find()), package],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.splitlines()[-1] == printed


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
