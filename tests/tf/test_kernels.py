# SPDX-License-Identifier: Apache-2.0
"""Registered kernels of TensorFlow's ops return what TensorFlow's kernels return.

A kernel cannot be unregistered, so each test runs in a child process: it runs calls of the ops with
TensorFlow's kernels, loads the op library, runs the same calls again, and compares.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, shard_path
from craft.dtypes import KINDS, sample
from craft.v1 import V1File

tf = pytest.importorskip("tensorflow")

from tensorbundle.tf import op_library  # noqa: E402

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data" / "checkpoints"
FLOAT = 1

# The name of a call that may succeed where TensorFlow's kernel raises one of these errors.
SERVED_FROM_NOW_ON = "also supported: "
UNSUPPORTED = ("InvalidArgumentError", "UnimplementedError")
Call = tuple[str, Callable[[], Any]]


def restore(prefix: Any, names: Any, specs: Any, dtypes: list[Any]) -> list[Any]:
    result: list[Any] = tf.raw_ops.RestoreV2(
        prefix=prefix if tf.is_tensor(prefix) else str(prefix),
        tensor_names=names,
        shape_and_slices=specs,
        dtypes=dtypes,
    )
    return result


def spec_of(shape: tuple[int, ...], box: list[tuple[int, int]]) -> str:
    return " ".join(map(str, shape)) + " " + ":".join(f"{a},{n}" for a, n in box)


def random_box(shape: tuple[int, ...], choice: random.Random) -> list[tuple[int, int]]:
    box = []
    for size in shape:
        start = choice.randrange(size)
        box.append((start, choice.randint(1, size - start)))
    return box


def real_checkpoints(_: Path) -> Iterator[Call]:
    """Whole tensors and boxes of checkpoints that TensorFlow wrote, V1 and V2."""
    choice = random.Random(1)
    for directory in sorted(path for path in DATA.iterdir() if path.is_dir()):
        for index in sorted(directory.rglob("*.index")):
            prefix = index.with_suffix("")
            reader = tf.train.load_checkpoint(str(prefix))
            dtypes = reader.get_variable_to_dtype_map()
            for name, shape in sorted(reader.get_variable_to_shape_map().items()):
                if dtypes[name] == tf.variant:
                    continue
                specs = [""]
                if shape and all(shape) and dtypes[name] != tf.string:
                    specs.append(spec_of(tuple(shape), random_box(tuple(shape), choice)))
                for spec in specs:
                    yield (
                        f"{prefix.name} {name} {spec}",
                        lambda p=prefix, n=name, s=spec, d=dtypes[name]: restore(p, [n], [s], [d]),
                    )


def restorable_dtypes() -> Iterator[tuple[int, Any, Any]]:
    """Yields (number, kind, ``tf.DType``) of the dtypes that this TensorFlow has."""
    for number, kind in KINDS.items():
        try:
            dtype = tf.as_dtype(number)
        except TypeError:
            continue
        if dtype != tf.variant:
            yield number, kind, dtype


def every_dtype(folder: Path) -> Iterator[Call]:
    """All dtypes: whole, a scalar and an empty tensor in one node; and a slice."""
    for number, kind, dtype in restorable_dtypes():
        bundle = Bundle()
        bundle.add("t", sample(kind, (5, 3), seed=number), number=number)
        bundle.add("scalar", sample(kind, (), seed=1), number=number)
        bundle.add("empty", sample(kind, (5, 3), seed=2)[:0], number=number)
        prefix = bundle.write(folder / f"d{number}")
        names = ["t", "scalar", "empty"]
        yield (
            dtype.name,
            lambda p=prefix, n=names, d=dtype: restore(p, n, [""] * len(n), [d] * len(n)),
        )
        yield (
            f"{SERVED_FROM_NOW_ON}slice of {dtype.name}",
            lambda p=prefix, d=dtype: restore(p, ["t"], ["5 3 1,3:-"], [d]),
        )


def tiled(folder: Path) -> Iterator[Call]:
    """Random boxes of tensors in several slices and files, small and large."""
    choice = random.Random(3)
    for case, shape in enumerate([(40, 6), (7, 5, 4), (3000, 128)]):
        values = np.random.default_rng(case).standard_normal(shape).astype(np.float32)
        for axis in range(len(shape)):
            third = shape[axis] // 3
            parts = tilings.cut(shape, axis, [shape[axis] - 2 * third, third, third])
            bundle = Bundle(2)
            bundle.add_sliced("t", values, parts, shard_of=lambda i: i % 2)
            prefix = bundle.write(folder / f"t{case}{axis}")
            boxes = [random_box(shape, choice) for _ in range(12)]
            specs = ["", *(spec_of(shape, box) for box in boxes)]
            yield (
                f"{shape} {axis}",
                lambda p=prefix, s=specs: restore(p, ["t"] * len(s), s, [tf.float32] * len(s)),
            )


def v1_and_big_endian(folder: Path) -> Iterator[Call]:
    """V1 files, and bundles in big-endian order."""
    values = np.arange(60, dtype=np.float32).reshape(10, 6)
    file = V1File()
    file.add("t", FLOAT, values)
    v1 = file.write(folder / "v1")
    bundle = Bundle(big_endian=True)
    bundle.add("t", values)
    for prefix in (v1, bundle.write(folder / "big")):
        for spec in ("", "10 6 2,5:-", "10 6 -:1,3"):
            yield (
                f"{prefix.name} {spec}",
                lambda p=prefix, s=spec: restore(p, ["t"], [s], [tf.float32]),
            )


def variants(folder: Path) -> Iterator[Call]:
    """The state of a tf.data iterator, which is stored as a variant tensor."""

    def iterator() -> Any:
        return iter(tf.data.Dataset.range(100).shuffle(10, seed=1).batch(3))

    saved = iterator()
    next(saved)
    prefix = tf.train.Checkpoint(iterator=saved).write(str(folder / "it"))

    def resume() -> Any:
        resumed = iterator()
        tf.train.Checkpoint(iterator=resumed).read(prefix).assert_consumed()
        return [next(resumed), next(resumed)]

    yield "iterator", resume

    lists = [
        tf.raw_ops.TensorListFromTensor(tensor=[1.0, last], element_shape=tf.constant([], tf.int32))
        for last in (2.0, 3.0)
    ]
    tf.raw_ops.SaveV2(
        prefix=str(folder / "lists"),
        tensor_names=["v"],
        shape_and_slices=[""],
        tensors=[tf.stack(lists)],
    )

    def stacked(spec: str) -> Any:
        restored = restore(folder / "lists", ["v"], [spec], [tf.variant])[0]
        return [
            tf.raw_ops.TensorListStack(
                input_handle=restored[i],
                element_shape=tf.constant([], tf.int32),
                element_dtype=tf.float32,
            )
            for i in range(restored.shape[0])
        ]

    for spec in ("", "2 0,2", "2 0,1", "2 1,1", "2 0,0"):
        yield f"variants {spec}", lambda s=spec: stacked(s)


def patterns(folder: Path) -> Iterator[Call]:
    """Patterns of V1 files."""
    for shard in range(2):
        file = V1File()
        file.add(f"t{shard}", FLOAT, np.full((2, 3), shard, np.float32))
        file.write(folder / f"m-{shard:05}-of-00002")
    one = [tf.float32]
    file.write(folder / "x-?????-of-00000")
    for pattern in ("x-?????-of-00000", "x-*"):
        yield pattern, lambda p=folder / pattern: restore(p, ["t1"], [""], one)
    for pattern in ("m-?????-of-00002", "m-*", "m-0000[01]-of-00002"):
        yield pattern, lambda p=folder / pattern: restore(p, ["t0", "t1"], ["", ""], one * 2)
    yield "no match", lambda: restore(folder / "n-*", ["t0"], [""], one)


def specifications(folder: Path) -> Iterator[Call]:
    """Unusual slice specifications, and unusual names of local files."""
    bundle = Bundle()
    bundle.add("t", np.arange(12, dtype=np.float32).reshape(4, 3))
    prefix = bundle.write(folder / "s")
    one = [tf.float32]
    for spec in ("+4 3 -:-", "4 3 +0,2:-", "4 3 +3,+1:-"):  # TensorFlow 2.15 refuses "+"
        yield SERVED_FROM_NOW_ON + spec, lambda s=spec: restore(prefix, ["t"], [s], one)
    for spec in (
        *("4 3 ++0,2:-", "4 3 +-0,2:-", "4 3 -0,2:-", "\t4 3 -:-", "4 3 \t0,2 :-", "4 3 0,2\t:-"),
        *("4 3 0,2", "4 3 ", "4 3 0,2:-:-", "4 3 :0,2::-:", "4  3 -:-", " 4 3 -:-", "4 3 -:- "),
        *("04 3 00,02:-", "4 3 0,99999999999999999999:-", "4 3 -,-:-", "4 3 0,2,1:-", "4 3 +:-"),
    ):
        yield repr(spec), lambda s=spec: restore(prefix, ["t"], [s], one)
    for path in (
        *(f"{folder}/none/../s", f"{folder}//./s", f"{folder}/s\0ignored", f"{folder}/s/"),
        *(f"file://{folder}/s", f"file://host{folder}/s", f"file://{folder}/none/../s"),
        *("file://", "file://host", f"file:{folder}/s", f"FILE://{folder}/s", "a://b", "ab://c"),
        *(str(folder), "/", "", "/dev/null", "/dev/zero", os.path.relpath(folder / "none/../s")),
    ):
        yield repr(path), lambda p=path: restore(p, ["t"], [""], one)


def errors(folder: Path) -> Iterator[Call]:
    """Calls that fail: the same status codes."""
    bundle = Bundle()
    bundle.add("t", np.zeros((4, 3), np.float32))
    bundle.add("bad", np.ones(100_000, np.float32))
    prefix = bundle.write(folder / "e")
    shard = shard_path(prefix, 0, 1)
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    for name, size in (("short", 4), ("empty", 0)):
        cut = shard_path(bundle.write(folder / name), 0, 1)
        cut.write_bytes(cut.read_bytes()[:size])
    for name in ("absent", "directory"):
        shard = shard_path(bundle.write(folder / name), 0, 1)
        shard.unlink()
    shard.mkdir()
    hole = Bundle()
    parts = tilings.cut((8, 3), 0, [4, 4])[:1]
    hole.add_sliced("h", np.ones((8, 3), np.float32), parts, shard_of=lambda _: 0)
    hole_prefix = hole.write(folder / "hole")
    one = [tf.float32]
    for name in ("short", "empty", "absent", "directory"):
        for spec in ("", "100000 0,10"):
            yield (
                f"{name} {spec}",
                lambda p=folder / name, s=spec: restore(p, ["bad"], [s], one),
            )
    for spec in ("", "8 3 1,2:-", "8 3 3,3:-", "8 3 5,2:-"):
        yield f"not covered {spec}", lambda s=spec: restore(hole_prefix, ["h"], [s], one)
    yield "absent tensor", lambda: restore(prefix, ["x"], [""], one)
    yield "absent checkpoint", lambda: restore(folder / "none", ["t"], [""], one)
    yield "another type", lambda: restore(prefix, ["t", "t"], ["", ""], [tf.int32, tf.half])
    yield "another shape", lambda: restore(prefix, ["t"], ["4 4 -:-"], one)
    yield "beyond the tensor", lambda: restore(prefix, ["t"], ["4 3 3,2:-"], one)
    yield "not a specification", lambda: restore(prefix, ["t"], ["nonsense"], one)
    yield "too few names", lambda: restore(prefix, ["t"], ["", ""], one)
    yield "more types than names", lambda: restore(prefix, ["t"], [""], one * 2)
    yield "names of rank 0", lambda: restore(prefix, "t", "", one)
    yield "several prefixes", lambda: restore(tf.constant(["a", "b"]), ["t"], [""], one)
    yield "corrupt, whole", lambda: restore(prefix, ["bad"], [""], one)
    yield "corrupt, a part", lambda: restore(prefix, ["bad"], ["100000 0,10"], one)
    yield "corrupt, again", lambda: restore(prefix, ["bad"], ["100000 5,10"], one)
    yield "the intact tensor", lambda: restore(prefix, ["t"], [""], one)


def remaps(folder: Path) -> Iterator[Call]:
    """GenerateVocabRemapping and LoadAndRemapMatrix."""
    old = [f"w{i}" for i in range(20)]
    new = ["w3", "n0", "w19", "w0", "n1", "w7"]
    (folder / "old.txt").write_text("\n".join(old) + "\n")
    (folder / "new.txt").write_text("\n".join(new) + "\n")
    (folder / "twice.txt").write_text("a\nb\na\n")
    bundle = Bundle()
    table = np.random.default_rng(5).standard_normal((20, 6)).astype(np.float32)
    bundle.add("t", table)
    bundle.add("vector", table[:, 0].copy())
    bundle.add("no columns", table[:, :0])
    prefix = bundle.write(folder / "r")

    def join(new_file: str, old_file: str, offset: int, count: int, size: int = -1) -> Any:
        return tf.raw_ops.GenerateVocabRemapping(
            new_vocab_file=new_file and str(folder / new_file),
            old_vocab_file=old_file and str(folder / old_file),
            new_vocab_offset=offset,
            num_new_vocab=count,
            old_vocab_size=size,
        )

    for offset, count, size in [(0, 6, -1), (1, 3, -1), (2, 0, -1), (0, 6, 5)]:
        yield (
            f"join {offset} {count} {size}",
            lambda a=offset, n=count, s=size: join("new.txt", "old.txt", a, n, s),
        )
    yield "join beyond the file", lambda: join("new.txt", "old.txt", 4, 5)
    yield "join an absent file", lambda: join("new.txt", "absent.txt", 0, 1)
    yield "join an unnamed file", lambda: join("", "old.txt", 0, 1)
    yield "join a repeated token", lambda: join("new.txt", "twice.txt", 0, 1)

    def remap(rows: list[int], columns: list[int], values: int, cols: int, name: str = "t") -> Any:
        return tf.raw_ops.LoadAndRemapMatrix(
            ckpt_path=str(prefix),
            old_tensor_name=name,
            row_remapping=tf.constant(rows, tf.int64),
            col_remapping=tf.constant(columns, tf.int64),
            initializing_values=tf.range(values, dtype=tf.float32),
            num_rows=len(rows),
            num_cols=cols,
        )

    yield "rows", lambda: remap([3, -1, 19, 0], [], 6, 6)
    yield "a table without columns", lambda: remap([3, -1], [-1], 2, 1, "no columns")
    yield "no rows, another width", lambda: remap([], [], 0, 1, "no columns")
    yield "no rows of a table without columns", lambda: remap([], [-1], 0, 1, "no columns")
    yield "no rows of another width", lambda: remap([], [1], 0, 1)
    yield "negative rows", lambda: remap([3, -2, -9], [], 12, 6)
    yield "a row beyond the table", lambda: remap([3, 20], [], 0, 6)
    yield "all missing", lambda: remap([-1, -1], [], 12, 6)
    yield "columns", lambda: remap([2, -1, 5], [4, -1, 0], 5, 3)
    yield "no rows", lambda: remap([], [], 0, 6)
    yield "too few values", lambda: remap([3, -1], [], 5, 6)
    yield "too many values", lambda: remap([3, -1], [], 7, 6)

    def message(values: int, cols: int) -> Any:
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            remap([3, -1], [], values, cols)
        return tf.constant(re.sub(r"^{{.*?}} | \[Op:.*", "", caught.value.message))

    for values, cols in ((5, 6), (7, 6), (5, 5), (7, 7)):
        name = f"the message of {values} values and {cols} columns"
        yield name, lambda n=values, c=cols: message(n, c)
    yield "another width", lambda: remap([1], [], 0, 5)
    yield "a vector", lambda: remap([1], [], 0, 6, "vector")
    yield "an absent table", lambda: remap([1], [], 0, 6, "absent")


def unusual_files(folder: Path) -> Iterator[Call]:
    """Prefixes that are no path, and files of a checkpoint that are no files."""
    bundle = Bundle()
    bundle.add("t", np.arange(12, dtype=np.float32))
    for suffix in (".index", ".data-00000-of-00001"):
        for kind in ("loop", "dangling", "directory", "empty", "missing", "link"):
            prefix = bundle.write(folder / f"{kind}{suffix[1:5]}")
            path = Path(f"{prefix}{suffix}")
            path.rename(folder / f"old{kind}{suffix[1:5]}")
            if kind in ("loop", "dangling", "link"):
                target = {"loop": path, "dangling": folder / "none"}.get(
                    kind, folder / f"old{kind}{suffix[1:5]}"
                )
                path.symlink_to(target)
            elif kind == "directory":
                path.mkdir()
            elif kind == "empty":
                path.touch()
            yield f"{kind} {suffix}", lambda p=prefix: restore(p, ["t"], [""], [tf.float32])
    loop = folder / "loop"
    loop.symlink_to(loop)
    prefixes = (
        "",
        "/",
        loop,
        folder,
        f"{folder}/",
        f"{loop}/x",
        "x" * 10_000,
        f"{folder}/" + "y" * 255,
    )
    for prefix in prefixes:
        name = f"prefix {str(prefix)[-20:]}"
        yield name, lambda p=prefix: restore(p, ["t"], [""], [tf.float32])


GROUPS = [
    real_checkpoints,
    every_dtype,
    tiled,
    v1_and_big_endian,
    variants,
    patterns,
    specifications,
    errors,
    unusual_files,
    remaps,
]


def bytes_read() -> int:
    """Returns the bytes that the read calls of this process returned."""
    (line,) = [x for x in Path("/proc/self/io").read_text().splitlines() if x.startswith("rchar")]
    return int(line.split()[1])


def open_files_below(folder: Path) -> list[str]:
    """Returns the open files of this process below `folder`; TensorFlow's own come and go."""
    links = (Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
    return [str(x.readlink()) for x in links if x.is_symlink() and folder in x.readlink().parents]


def descriptors(folder: Path) -> None:
    """A node that fails after it has read a part of a slice keeps no file open."""
    op_library.load_op_library()
    bundle = Bundle()
    bundle.add("good", np.zeros((100_000,), np.float32))
    bundle.add("bad", np.ones((100_000,), np.float32))
    for i in range(8):
        prefix = bundle.write(folder / f"f{i}")
        shard = shard_path(prefix, 0, 1)
        shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
        call = restore, (prefix, ["good", "bad"], ["100000 0,10", ""], [tf.float32] * 2)
        assert outcome(lambda call=call: call[0](*call[1])) == "DataLossError"
    assert open_files_below(folder) == []


def ledger(folder: Path) -> None:
    """Many ops that read parts of one slice verify it in one pass; an error reaches all of them."""
    op_library.load_op_library()
    rows, columns, count = 40_000, 64, 8
    values = np.random.default_rng(7).standard_normal((rows, columns)).astype(np.float32)
    bundle = Bundle()
    bundle.add("t", values)
    content = bytes(bundle.shards[0])
    for threads in (1, 4):
        for axis in (0, 1):
            prefix = bundle.write(folder / f"l{threads}{axis}")
            time.sleep(0.05)  # ops share no checksums of files that have just been written
            before = bytes_read()
            found = run_parts(prefix, values.shape, axis, count, threads)
            read = bytes_read() - before
            assert np.concatenate(found, axis).tobytes() == values.tobytes()
            # One pass for the parts and at most one for the checksum: with a single thread, the
            # first op must verify all that the others have not read yet. Parts of columns are read
            # with the gaps between them.
            passes = 2 if axis == 0 else count + 1
            assert read < (passes + 0.1) * values.nbytes, read / values.nbytes
            shard = shard_path(prefix, 0, 1)
            for position in (0, len(content) // 2, len(content) - 1):
                corrupt = bytearray(content)
                corrupt[position] ^= 1
                shard.write_bytes(corrupt)
                for _ in range(2):
                    assert run_parts(prefix, values.shape, axis, count, threads) == [
                        "DataLossError"
                    ]
            shard.write_bytes(content)
            found = run_parts(prefix, values.shape, axis, count, threads)
            assert np.concatenate(found, axis).tobytes() == values.tobytes()
    # Outputs of one node that overlap. They are large, so one is read after the other.
    starts, length = (0, 5_000), 35_000
    specs = [spec_of(values.shape, [(start, length), (0, columns)]) for start in starts]
    found = restore(bundle.write(folder / "overlap"), ["t"] * 2, specs, [tf.float32] * 2)
    for part, start in zip(found, starts, strict=True):
        assert part.numpy().tobytes() == values[start : start + length].tobytes()


def run_parts(prefix: Path, shape: tuple[int, int], axis: int, count: int, threads: int) -> Any:
    """Restores equal parts of a tensor by an op each; returns them, or the class of the error."""
    size = shape[axis] // count
    boxes = [[(0, n) for n in shape] for _ in range(count)]
    for i, box in enumerate(boxes):
        box[axis] = (i * size, size)
    random.Random(threads).shuffle(boxes)
    config = tf.compat.v1.ConfigProto(
        inter_op_parallelism_threads=threads, intra_op_parallelism_threads=1
    )
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        parts = [restore(prefix, ["t"], [spec_of(shape, box)], [tf.float32])[0] for box in boxes]
        try:
            found = session.run(parts)
        except tf.errors.OpError as error:
            return [type(error).__name__]
    return [part for _, part in sorted(zip(boxes, found, strict=True), key=lambda each: each[0])]


def outcome(call: Callable[[], Any]) -> Any:
    """Returns the bits of all results, or the class of the exception."""
    try:
        results = call()
    except tf.errors.OpError as error:
        return type(error).__name__
    results = list(results) if isinstance(results, (list, tuple)) else [results]
    return [(each.dtype.name, tuple(each.shape), bits(each)) for each in results]


def bits(tensor: Any) -> Any:
    if tensor.dtype == tf.string:
        return np.asarray(tensor.numpy()).tolist()
    quantized = {"qint8": tf.int8, "quint8": tf.uint8, "qint16": tf.int16, "quint16": tf.uint16}
    integer = {**quantized, "qint32": tf.int32}.get(tensor.dtype.name)
    return (tensor if integer is None else tf.bitcast(tensor, integer)).numpy().tobytes()


def main(group: str, folder: Path) -> None:
    if group in ("ledger", "descriptors"):
        globals()[group](folder)
        return
    compare(list(globals()[group](folder)))


def compare(calls: list[Call]) -> None:
    """Runs the calls before and after the registration."""
    expected = [outcome(call) for _, call in calls]
    op_library.load_op_library()
    op_library.load_op_library()  # does nothing
    actual = [outcome(call) for _, call in calls]
    served = sum(op_library.kernel_calls().values())
    wrong = [
        f"{name}: {str(a)[:200]}, expected {str(b)[:200]}"
        for (name, _), a, b in zip(calls, actual, expected, strict=True)
        if a != b and not (name.startswith(SERVED_FROM_NOW_ON) and b in UNSUPPORTED)
    ]
    print(f"{len(calls)} calls, {served} served")
    if wrong or served < len(calls):
        raise SystemExit("\n".join(wrong) or "some calls were not served")


@pytest.mark.skipif(op_library.find() is None, reason="built without the op library")
@pytest.mark.parametrize("group", [each.__name__ for each in GROUPS])
def test_registered_kernels_equal_tensorflows(group: str, tmp_path: Path) -> None:
    run_child(group, tmp_path)


@pytest.mark.skipif(op_library.find() is None, reason="built without the op library")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_ops_that_share_a_slice_verify_it_once(tmp_path: Path) -> None:
    run_child("ledger", tmp_path)


@pytest.mark.skipif(op_library.find() is None, reason="built without the op library")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_failed_node_keeps_no_file_open(tmp_path: Path) -> None:
    run_child("descriptors", tmp_path)


def run_child(group: str, tmp_path: Path, script: Path = Path(__file__)) -> None:
    path = [str(HERE.parent / "python"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    command = [sys.executable, str(script), group, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
