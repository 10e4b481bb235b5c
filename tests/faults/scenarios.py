# SPDX-License-Identifier: Apache-2.0
"""The operations into which faults are injected, and what each must have done when it succeeds.

A `Read` returns values, which are compared with those of a run without faults. A `Write` has a
directory `out` of its own: `prepare` fills it, `run` writes into it, `load` returns the values that
it holds, or None if it holds no output.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tensorbundle as tb

TABLE = np.random.default_rng(1).standard_normal((400, 150)).astype(np.float32)
VALUES = {
    "table": TABLE,
    "half": np.arange(48, dtype=np.float16).reshape(6, 8),
    "step": np.int64(7),
    "text": np.array([b"a", b"bb", b""], object),
    "table/Adam": TABLE[:9] * 2,
}
OLD = {"table": TABLE[:3], "other": np.arange(5)}


@dataclass
class Read:
    """An operation that reads.

    Attributes:
        run: Returns the values. Receives what `prepare` returned.
        prepare: Prepares a run; no faults are injected meanwhile.
        logs: Whether a failure is logged, and the result None, as in TensorFlow.
    """

    run: Callable[[Any], Any]
    prepare: Callable[[Path], contextlib.AbstractContextManager[Any]]
    logs: bool = False


@dataclass
class Write:
    """An operation that writes into a directory.

    Attributes:
        run: Writes; receives the directory of the sources, and that of the output.
        load: Returns the values in the output directory, or None if there is no output.
        prepare: Fills the output directory; by default it stays empty.
        overwrite: Whether `run` replaces what `prepare` wrote.
    """

    run: Callable[[Path, Path], Any]
    load: Callable[[Path], Any]
    prepare: Callable[[Path], Any] = lambda out: None
    overwrite: bool = False


def write_sources(directory: Path) -> None:
    with tb.Writer(directory / "c", shards=2) as writer:
        for name, value in VALUES.items():
            writer.add(name, value)
        halves = [((0, 0), TABLE[:200]), ((200, 0), TABLE[200:])]
        writer.add_slices("sliced", TABLE.shape, halves)
    tb.save(directory / "d", {name: VALUES[name] for name in ("table", "half", "step")})
    tb.save(directory / "e", {name: VALUES[name] for name in ("table", "half", "step")})
    tb.save(directory / "large", {"large": np.resize(TABLE, (4000, 300))})
    (directory / "new.txt").write_text("".join(f"token{i}\n" for i in range(0, 6000, 2)))
    (directory / "old.txt").write_text("".join(f"token{i}\n" for i in range(400)))
    numbers = {"keep": ["table", "half", "step"]}
    tb.convert(directory / "c", directory / "foreign.safetensors", **numbers)
    tb.convert(directory / "c", directory / "foreign.npz", **numbers)
    with contextlib.suppress(ImportError):
        tb.convert(directory / "c", directory / "foreign.h5", **numbers)
    tb.update_checkpoint_state(directory, directory / "c")


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[tb.Checkpoint]:
    with tb.open(directory / "c", threads=2) as checkpoint:
        yield checkpoint


@contextlib.contextmanager
def copied(directory: Path) -> Iterator[tb.Checkpoint]:
    with tb.open(directory / "c", threads=2, io="pread") as checkpoint:
        yield checkpoint


@contextlib.contextmanager
def path_of(directory: Path) -> Iterator[Path]:
    tb.clear_caches()
    yield directory


def open_and_list(directory: Path) -> Any:
    with tb.open(directory / "c") as checkpoint:
        return {name: (str(t.dtype), t.shape, t.error) for name, t in checkpoint.items()}


def read_all(checkpoint: tb.Checkpoint) -> Any:
    return {name: tensor.read() for name, tensor in checkpoint.items()}


def view(checkpoint: tb.Checkpoint) -> Any:
    return [np.asarray(checkpoint["table"])[:3].copy(), checkpoint["half"].copy_on_write().copy()]


def stream_chunks(checkpoint: tb.Checkpoint) -> Any:
    with checkpoint["sliced"].chunks(50) as stream:
        return [chunk.copy() for _, chunk in stream]


def stream_all(checkpoint: tb.Checkpoint) -> Any:
    with checkpoint.stream(max_bytes=1 << 17) as arrays:
        return {name: array.copy() for name, array in arrays}


def verify(checkpoint: tb.Checkpoint) -> Any:
    report = checkpoint.verify()
    if report.unreadable:
        assert not report.damaged
        raise tb.IOFailure("unreadable", report.unreadable[0].errno or 5)
    assert report.ok, report
    return report.checked_bytes


def remap(directory: Path) -> Any:
    joined = tb.remap_vocab(directory / "new.txt", directory / "old.txt")
    with tb.open(directory / "c") as checkpoint:
        return tb.load_and_remap(checkpoint["table"], rows=joined, fill=0.0)


def latest(directory: Path) -> Any:
    path = tb.latest_checkpoint(directory)
    return path and Path(path).name


READS: dict[str, Read] = {
    "open": Read(open_and_list, path_of),
    "list_variables": Read(lambda path: tb.list_variables(path / "c"), path_of),
    "read": Read(read_all, opened),
    "read_pread": Read(read_all, copied),
    "slice": Read(lambda ck: ck["sliced"][150:250, 3:40].copy(), opened),
    "view": Read(view, opened),
    "gather": Read(lambda ck: ck["sliced"].take([5, 1, 399, -1]), opened),
    "load": Read(lambda ck: ck.load(), opened),
    "chunks": Read(stream_chunks, opened),
    "stream": Read(stream_all, opened),
    "verify": Read(verify, opened),
    "remap": Read(remap, path_of),
    "state": Read(latest, path_of, logs=True),
}


def load_checkpoint(out: Path) -> Any:
    """Reads every byte of the checkpoint, and compares all checksums."""
    try:
        with tb.open(out / "c", verify="full") as checkpoint:
            return {name: tensor.read() for name, tensor in checkpoint.items()}
    except tb.CheckpointNotFoundError:
        return None


def load_safetensors(out: Path) -> Any:
    from safetensors.numpy import load_file

    files = sorted(out.glob("*.safetensors"))
    if (out / "m.safetensors.index.json").exists() or len(files) < 2:
        return {k: v for path in files for k, v in load_file(path).items()} or None
    return None


def load_npz(out: Path) -> Any:
    if not (out / "m.npz").exists():
        return None
    with np.load(out / "m.npz") as arrays:
        return dict(arrays)


def load_hdf5(out: Path) -> Any:
    import h5py

    if not (out / "m.h5").exists():
        return None
    found: dict[str, Any] = {}
    with h5py.File(out / "m.h5") as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]} if hasattr(item, "dtype") else {})
        )
    return found


def load_state(out: Path) -> Any:
    state = tb.get_checkpoint_state(out)
    return None if state is None else Path(state.model_checkpoint_path).name


def save_old(out: Path) -> None:
    tb.save(out / "c", OLD)


def save_old_in_two_shards(out: Path) -> None:
    tb.save(out / "c", OLD, shards=2)


def save_old_and_leftovers(out: Path) -> None:
    """Also leaves the files of a writer that was killed while it published."""
    save_old(out)
    (out / "c.index.tempstate123-tb").write_bytes(b"an index")
    (out / "c.data-00000-of-00001.tempstate123-tb").write_bytes(b"data")


def edit(src: Path, out: Path, *, overwrite: bool = False) -> None:
    tb.edit(
        src / "c", out / "c", slots=False, rename={"half": "renamed"}, cast={"table": "bfloat16"},
        overwrite=overwrite, threads=2,
    )  # fmt: skip


NUMBERS = ["table", "half", "step"]


def convert(name: str, **options: Any) -> Callable[[Path, Path], Any]:
    return lambda src, out: tb.convert(src / "c", out / name, keep=NUMBERS, **options)


def convert_from(name: str) -> Write:
    return Write(lambda src, out: tb.convert(src / name, out / "c"), load_checkpoint)


WRITES: dict[str, Write] = {
    "save": Write(lambda _, out: tb.save(out / "c", VALUES, threads=2), load_checkpoint),
    "save_shards": Write(
        lambda _, out: tb.save(out / "new" / "c", VALUES, shards=3, threads=2),
        lambda out: load_checkpoint(out / "new"),
    ),
    "save_over": Write(
        lambda _, out: tb.save(out / "c", VALUES, overwrite=True), load_checkpoint, save_old, True
    ),
    "save_over_shards": Write(
        lambda _, out: tb.save(out / "c", VALUES, shards=2, overwrite=True),
        load_checkpoint,
        save_old_in_two_shards,
        True,
    ),
    "save_over_leftovers": Write(
        lambda _, out: tb.save(out / "c", VALUES, overwrite=True),
        load_checkpoint,
        save_old_and_leftovers,
        True,
    ),
    "edit": Write(edit, load_checkpoint),
    "edit_large": Write(  # on threads of Python
        lambda src, out: tb.edit(src / "large", out / "c", cast={"large": "bfloat16"}, threads=2),
        load_checkpoint,
    ),
    "edit_over": Write(
        lambda src, out: edit(src, out, overwrite=True), load_checkpoint, save_old, True
    ),
    "align": Write(
        lambda src, out: tb.align(src / "c", out / "c", threads=2),
        load_checkpoint,
    ),
    "average": Write(
        lambda src, out: tb.average([src / "d", src / "e"], out / "c", threads=2), load_checkpoint
    ),
    "to_safetensors": Write(convert("m.safetensors"), load_safetensors),
    "to_sharded_safetensors": Write(convert("m.safetensors", max_bytes=200_000), load_safetensors),
    "to_npz": Write(convert("m.npz"), load_npz),
    "to_hdf5": Write(convert("m.h5"), load_hdf5),
    "to_npz_over": Write(
        convert("m.npz", overwrite=True),
        load_npz,
        lambda out: np.savez(out / "m.npz", **{"old": np.arange(3)}),
        True,
    ),
    "from_safetensors": convert_from("foreign.safetensors"),
    "from_npz": convert_from("foreign.npz"),
    "from_hdf5": convert_from("foreign.h5"),
    "update_state": Write(
        lambda _, out: tb.update_checkpoint_state(out, out / "new"),
        load_state,
        lambda out: tb.update_checkpoint_state(out, out / "old"),
        True,
    ),
}


def names_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
