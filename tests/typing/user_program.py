# SPDX-License-Identifier: Apache-2.0
"""A program of a user, which type checkers accept in strict mode: see `nox -s typing`.

The calls of ``assert_type`` state the types that a user gets. `test_typing.py` runs it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tensorbundle as tb

if TYPE_CHECKING or sys.version_info >= (3, 11):
    from typing import assert_type
else:

    def assert_type(value: Any, kind: Any) -> Any:
        return value


Array = np.ndarray[Any, Any]
Table = np.ndarray[Any, np.dtype[np.float32]]


def write(folder: Path) -> Path:
    """Writes a checkpoint in two ways."""
    prefix = folder / "model.ckpt-1"
    table: Table = np.ones((10, 4), np.float32)
    assert_type(tb.save(prefix, {"table": table, "step": np.int64(1)}, shards=2), str)
    with tb.Writer(folder / "other", overwrite=True) as writer:
        writer.add("table", table)
        writer.add_chunks("rows", (10, 4), np.float32, [table[:5], table[5:]])
    tb.update_checkpoint_state(folder, prefix)
    return prefix


def read(prefix: str | os.PathLike[str]) -> Table:
    """Reads a checkpoint in all ways."""
    table: Table = np.zeros((10, 4), np.float32)
    with tb.open(prefix, verify="full", io="pread", threads=2) as ck:
        assert_type(ck, tb.Checkpoint)
        assert_type(ck["table"], tb.Tensor)
        assert_type(ck.get("absent"), tb.Tensor | None)
        assert_type(ck.get("absent", 0), tb.Tensor | int)
        for name, tensor in ck.items():
            assert_type(name, str)
            assert_type(tensor, tb.Tensor)
        t = ck["table"]
        assert_type(t.shape, tuple[int, ...])
        assert_type(t.nbytes + t.size + t.ndim, int)
        assert_type(t.error, str | None)
        assert_type(t.slices[0], tb.StoredSlice)
        assert_type(t.slices[0].crc32c, int | None)
        assert_type(t[2:4], Array)
        assert_type(t[[3, 1]], Array)
        assert_type(t.read(out=table), Table)
        assert_type(t.take([[3, 1], [0, -1]], fill=0), Array)
        assert_type(t.take(np.arange(10), out=table), Table)
        print(np.asarray(t, np.float32).sum())
        assert_type(t.byte_ranges(slice(2)), list[tuple[str, int, int]])
        for start, chunk in t.chunks(rows=4):
            assert_type(start, int)
            assert_type(chunk, Array)
        with ck.stream(max_bytes=1 << 20) as stream:
            for name, _ in stream:
                assert_type(name, str)
        report = ck.verify(progress=lambda done, total: None)
        assert_type(report.ok, bool)
        assert_type(report.damaged, tuple[tb.Damage, ...])
        assert_type(ck.summary(), tb.Summary)
        print(ck.summary(), int(ck["step"]), len(ck.load(["table"])))
        remap = tb.remap_vocab(["a", "b"], ["b", "c"])
        assert_type(tb.load_and_remap(t, rows=remap, fill=0.0, num_oov_rows=1), Array)
    return table


def read_as_tensorflow(folder: Path) -> list[tuple[str, list[int]]]:
    """Reads by the names of TensorFlow's functions."""
    assert_type(tb.latest_checkpoint(folder), str | None)
    reader = tb.load_checkpoint(folder)
    assert_type(reader, tb.CheckpointReader)
    assert_type(reader.has_tensor("table"), bool)
    assert_type(reader.get_variable_to_shape_map(), dict[str, list[int]])
    return tb.list_variables(folder)


def edit(prefix: Path, folder: Path) -> None:
    """Writes other checkpoints."""
    cast = {"float32": "bfloat16"}
    edited = tb.edit(prefix, folder / "a", rename=[("^ta", "Ta")], cast=cast, drop="st*")
    assert_type(edited, tb.EditReport)
    assert_type(edited.renamed["table"], str)
    tb.edit(prefix, folder / "b", keep=lambda name: name == "table", transpose={"table": (1, 0)})
    assert_type(tb.convert(prefix, folder / "c", to="safetensors"), tb.ConvertReport)
    assert_type(tb.average([prefix, prefix], folder / "d", weights=[1, 3]), tb.AverageReport)
    difference = tb.diff(prefix, folder / "b", rename={"table": "Table"}, values=True)
    assert_type(difference, tb.DiffReport)
    assert_type(tb.align(prefix, folder / "e"), tb.AlignReport)


def warm_start(prefix: Path, variable: object) -> str:
    """Loads variables; needs TensorFlow."""
    with tb.tf.options(mode="auto", verify="lazy", op="stock"):
        report = tb.init_from_checkpoint(prefix, {"table": variable}, missing="skip")
    assert_type(report, tb.tf.LoadReport)
    assert_type(report.loaded["table"], str)
    info = tb.VocabInfo("new.txt", 10, 1, "old.txt")
    plan = tb.tf.plan_warm_start(prefix, var_name_to_vocab_info={"table": info}, mismatch="skip")
    assert_type(plan.problems, tuple[str, ...])
    return str(plan)


def main(folder: Path) -> None:
    """Does everything that needs no TensorFlow."""
    prefix = write(folder)
    read(prefix)
    print(read_as_tensorflow(folder))
    edit(prefix, folder)
    try:
        tb.load_variable(prefix, "absent")
    except tb.TensorNotFoundError as error:
        print(error)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
