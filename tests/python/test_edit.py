# SPDX-License-Identifier: Apache-2.0
"""``edit`` writes what NumPy computes from the source, and nothing if something is wrong."""

from __future__ import annotations

import errno
import random
import re
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from craft import tilings, user
from craft.bundle import Bundle, index_path, shard_path
from craft.compare import same_bits, stored_tensors
from craft.dtypes import KINDS, sample
from craft.ordered_code import slice_key
from craft.specimen import specimen
from craft.v1 import FIELDS, V1File
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle.edit_plan import SLICEABLE, EditError, EditWarning

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
GOLDEN = sorted(DATA.glob("*/*.index"))
TABLE = np.random.default_rng(1).standard_normal((1000, 37), np.float32)


def edited(src: Any, dst: Any, **options: Any) -> dict[str, Any]:
    """Edits without warnings, and returns what the result has after comparing all checksums."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", EditWarning)
        report = tb.edit(src, dst, **options)
    with tb.open(dst, verify="full") as ck:
        assert set(report.kept) == set(ck) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
        return ck.load()


@pytest.mark.parametrize("index", GOLDEN, ids=lambda path: path.parent.name)
def test_nothing_to_do_keeps_the_bytes_of_every_tensor(index: Path, tmp_path: Path) -> None:
    tb.edit(index, tmp_path / "c")
    assert stored_tensors(tmp_path / "c") == stored_tensors(index)


def test_nothing_to_do_keeps_every_kind_of_tensor(tmp_path: Path) -> None:
    bundle = specimen(3)
    for number, kind in KINDS.items():
        bundle.add(f"kind/{number}", sample(kind, (3, 2)), number=number)
    bundle.add_variants("variant", [b"abc", b""], [2])
    bundle.add_sliced("part", TABLE, [((0, 3), (0, 37))])  # incomplete
    tb.edit(bundle.write(tmp_path / "c"), tmp_path / "d", shards=2)
    assert stored_tensors(tmp_path / "d") == stored_tensors(tmp_path / "c")


def test_everything_at_once(tmp_path: Path) -> None:
    bundle = Bundle(2)
    bundle.add_sliced(
        "old/table", TABLE, tilings.cut((1000, 37), 0, [400, 600]), shard_of=lambda i: i
    )
    bundle.add("old/table/Adam", TABLE, shard=1)
    bundle.add("step", np.int64(5))
    bundle.add_strings("names", [b"a\0", b""], [2])
    done = []
    result = edited(
        bundle.write(tmp_path / "c"), tmp_path / "d", slots=False, rename=[("^old/", "new/")],
        cast={"float32": "bfloat16"}, transpose="*/table", partition={"old/table": 4},
        update={"step": 6, "extra": b"x"}, progress=lambda now, total: done.append((now, total)),
    )  # fmt: skip
    assert set(result) == {"new/table", "step", "names", "extra"}
    assert same_bits(result["new/table"], np.ascontiguousarray(TABLE.T.astype(ml_dtypes.bfloat16)))
    assert (result["step"], result["extra"]) == (6, b"x")
    assert result["names"].tolist() == [b"a\0", b""]
    with tb.open(tmp_path / "d") as ck:
        assert [part.shape for part in ck["new/table"].slices] == [(10, 1000)] + [(9, 1000)] * 3
    assert done == sorted(done)
    assert done[-1][0] == done[-1][1]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_random_edits_equal_numpy(tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("edit")
    rng = random.Random(data.draw(st.integers(0, 1000)))
    shape = tuple(data.draw(st.lists(st.integers(0, 5), max_size=4)))
    kind = data.draw(st.sampled_from([k for k in KINDS.values() if not k.is_substituted]))
    layout = data.draw(st.sampled_from(["whole", "guillotine", "big", "v1"]))
    array = sample(kind, shape, rng.randrange(100))
    path = folder / "c"
    if layout == "v1" and kind.number in FIELDS:
        file = V1File()
        file.add("t", kind.number, array)
        file.write(path)
    else:
        is_big = layout == "big" and kind.number in (1, 2, 3, 5, 8, 9, 14, 17, 18, 19, 22, 23)
        bundle = Bundle(big_endian=is_big)
        if layout == "guillotine" and shape and array.size:
            boxes = tilings.guillotine(shape, 4, rng)
            bundle.add_sliced("t", array, boxes, number=kind.number)
        else:
            bundle.add("t", array, number=kind.number)
        bundle.write(path)
    options: dict[str, Any] = {}
    expected = array
    if data.draw(st.booleans()):
        permutation = tuple(rng.sample(range(len(shape)), len(shape)))
        options["transpose"] = {"t": permutation}
        expected = np.transpose(expected, permutation)
    if data.draw(st.booleans()) and str(array.dtype) in ("float32", "float64", "bfloat16"):
        target = data.draw(st.sampled_from(["float16", "bfloat16", "float32", "float8_e5m2"]))
        options["cast"] = {"t": target}
        with np.errstate(all="ignore"):
            expected = expected.astype(getattr(ml_dtypes, target, target))
    stored_dtype = options.get("cast", {}).get("t") or tb.open(path)["t"].stored_dtype
    if shape and stored_dtype in SLICEABLE and data.draw(st.booleans()):
        options["partition"] = {"t": data.draw(st.integers(1, 6))}
    options["merge"] = data.draw(st.booleans())
    expected = np.ascontiguousarray(expected).reshape(expected.shape)
    tb.edit(path, folder / "d", **options)
    with tb.open(folder / "d", verify="full") as ck:
        assert same_bits(ck["t"], expected)
        assert "cast" in options or ck["t"].stored_dtype == tb.open(path)["t"].stored_dtype
        slices = ck["t"].slices
        if "partition" in options:
            assert len(slices) == min(options["partition"]["t"], max(1, expected.shape[0]))
        elif options["merge"]:
            assert len(slices) == 1


@pytest.mark.parametrize("axes", [(1, 0), (0, 1)])
@pytest.mark.parametrize("shape", [(7, 5), (1, 9), (3, 1)])
def test_strings_are_transposed_and_merged(
    tmp_path: Path, axes: tuple[int, int], shape: tuple[int, int]
) -> None:
    values = [b"x" * (i % 5) + b"\0" for i in range(shape[0] * shape[1])]
    bundle = Bundle()
    bundle.add_full("t", 7, shape, [[(row, 1), None] for row in range(shape[0])])
    for row in range(shape[0]):
        key = slice_key(b"t", [(row, 1), None])
        bundle.add_strings(key, values[row * shape[1] :][: shape[1]], [1, shape[1]])
    result = edited(bundle.write(tmp_path / "c"), tmp_path / "d", transpose={"t": axes}, merge=True)
    expected = np.array(values, object).reshape(shape).transpose(axes)
    assert result["t"].tolist() == expected.tolist()


@pytest.mark.parametrize("permutation", [None, (1, 0), (2, 0, 1), (0, 2, 1), (1, 2, 0)])
def test_large_tensors_are_cut_into_blocks(
    tmp_path: Path, permutation: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorbundle import editing, planned_tensor

    monkeypatch.setattr(editing, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(editing, "_SMALL", 0)
    monkeypatch.setattr(planned_tensor, "_TILE_BYTES", 300)
    monkeypatch.setattr(planned_tensor, "_TRANSPOSED_BYTES", 4000)
    shape = (1000, 37) if permutation is None or len(permutation) == 2 else (3, 1000, 7)
    array = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    for boxes in (None, tilings.guillotine(shape, 5, random.Random(1))):
        bundle = Bundle()
        bundle.add("t", array) if boxes is None else bundle.add_sliced("t", array, boxes)
        options: dict[str, Any] = {"cast": {"float32": "bfloat16"}}
        if permutation is not None:
            options["transpose"] = {"t": permutation}
        expected = np.transpose(array, permutation or range(array.ndim)).astype(ml_dtypes.bfloat16)
        for partition in ({}, {"partition": {"t": 3}}, {"merge": True}):
            result = edited(
                bundle.write(tmp_path / "c"), tmp_path / "d", overwrite=True, **options, **partition
            )
            assert same_bits(result["t"], np.ascontiguousarray(expected))


def test_changed_and_unchanged_tensors_are_written_in_one_order(tmp_path: Path) -> None:
    bundle = Bundle()
    for name in "abcde":
        bundle.add(name, np.ones(100, np.float32))
    tb.edit(bundle.write(tmp_path / "c"), tmp_path / "d", cast={"b": "float64", "d": "float64"})
    with tb.open(tmp_path / "d") as ck:
        assert sorted(ck, key=lambda name: ck[name].slices[0].file_offset) == list("abcde")


def test_graph_is_written_last(tmp_path: Path) -> None:
    (index,) = (DATA / "optimizer_slots").glob("*.index")
    tb.edit(index, tmp_path / "c", slots=False, update={"v": np.float32(3)})
    with tb.open(tmp_path / "c") as ck:
        offsets = {name: tensor.slices[0].file_offset for name, tensor in ck.items()}
        assert max(offsets, key=offsets.__getitem__) == "_CHECKPOINTABLE_OBJECT_GRAPH"
        assert not any("OPTIMIZER_SLOT" in name for name in ck)
        assert ck["Variable"].read() == 3
        assert set(ck.full_names) == set(ck) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    src = specimen().write(tmp_path / "c")
    before = sorted(tmp_path.iterdir())
    report = tb.edit(src, tmp_path / "d", rename=str.upper, dry_run=True)
    assert sorted(tmp_path.iterdir()) == before
    assert report.renamed
    text = str(report)
    assert re.search(r"; [\d.]+ (B|KiB) -> [\d.]+ (B|KiB)\n", text)
    assert text.startswith(f"{tmp_path / 'd'}: {len(report.kept)} tensors kept, 0 dropped")
    assert all(new in text for new in report.renamed.values())


@pytest.mark.parametrize("suffix", ["", ".index"])
def test_destination_must_not_be_the_source(tmp_path: Path, suffix: str) -> None:
    src = specimen().write(tmp_path / "c")
    before = index_path(src).read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    for dst in (f"{src}{suffix}", tmp_path / "x" / ".." / f"c{suffix}", tmp_path / "link" / "c"):
        with pytest.raises(ValueError, match="is the source"):
            tb.edit(src, dst, overwrite=True)
    assert index_path(src).read_bytes() == before


def test_bad_destinations(tmp_path: Path) -> None:
    src = specimen().write(tmp_path / "c")
    other = specimen().write(tmp_path / "d")
    with pytest.raises(FileExistsError):
        tb.edit(src, other)
    with pytest.raises(ValueError, match="directory"):
        tb.edit(src, tmp_path)
    with pytest.raises(tb.IOFailure):
        tb.edit(src, tmp_path / "absent" / "absent" / "c")
    with pytest.raises(TypeError, match="progress"):
        tb.edit(src, tmp_path / "e", progress=1)  # type: ignore[arg-type]
    tb.edit(src, other, overwrite=True)


def test_read_only_directory_raises(tmp_path: Path) -> None:
    tb.edit(specimen().write(tmp_path / "c"), tmp_path / "d")  # imports everything
    with user.normal_user() as home:
        source = specimen().write(home / "c")
        tb.edit(source, home / "d", rename=str.upper)
        (home / "closed").mkdir(0o500)
        with pytest.raises(tb.IOFailure) as caught:
            tb.edit(source, home / "closed" / "c", rename=str.upper)
        assert list((home / "closed").iterdir()) == []
    assert caught.value.errno == errno.EACCES


def test_problems_leave_no_file(tmp_path: Path) -> None:
    src = specimen().write(tmp_path / "c")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(EditError):
        tb.edit(src, tmp_path / "d", drop="absent")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("options", [{}, {"cast": "float16"}, {"transpose": "*"}, {"merge": True}])
@pytest.mark.parametrize("is_sliced", [False, True])
def test_corruption_leaves_no_file(
    tmp_path: Path, options: dict[str, Any], is_sliced: bool
) -> None:
    bundle = Bundle()
    if is_sliced:
        bundle.add_sliced("t", TABLE, tilings.guillotine((1000, 37), 4, random.Random(2)))
    else:
        bundle.add("t", TABLE)
    src = bundle.write(tmp_path / "c")
    data = bytearray(shard_path(src).read_bytes())
    data[100_000] ^= 1
    shard_path(src).write_bytes(data)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(tb.CorruptionError, match="'t'"):
        tb.edit(src, tmp_path / "d", **options)
    assert sorted(tmp_path.iterdir()) == before


def test_exception_of_progress_leaves_no_file(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("t", TABLE)
    src = bundle.write(tmp_path / "c")
    before = sorted(tmp_path.iterdir())

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for options in ({}, {"cast": "float16"}):
        with pytest.raises(KeyboardInterrupt):
            tb.edit(src, tmp_path / "d", progress=stop, **options)
        assert sorted(tmp_path.iterdir()) == before


def test_nan_infinity_and_overflow(tmp_path: Path) -> None:
    values = np.array([np.nan, -np.inf, 1e30, -0.0, 1e-40, 65520], np.float32)
    bundle = Bundle()
    bundle.add("t", values)
    result = edited(bundle.write(tmp_path / "c"), tmp_path / "d", cast={"float32": "float16"})
    with np.errstate(all="ignore"):
        assert same_bits(result["t"], values.astype(np.float16))


EDIT_FOREVER = """
import sys
import tensorbundle as tb

print(flush=True)
while True:
    for target in ("bfloat16", "float16"):
        tb.edit(sys.argv[1], sys.argv[2], cast={"float32": target}, merge=True, overwrite=True)
"""


def test_killed_edit_leaves_the_old_or_the_new_checkpoint(tmp_path: Path) -> None:
    bundle = Bundle()
    for number in range(4):
        boxes = tilings.cut(TABLE.shape, 0, [number + 1, 999 - number])
        bundle.add_sliced(f"t{number}", TABLE + number, boxes)
    src, dst = bundle.write(tmp_path / "c"), tmp_path / "d"
    tb.edit(src, dst, cast={"float32": "float16"}, merge=True)
    expected = {
        np.dtype(target): [(TABLE + number).astype(target) for number in range(4)]
        for target in (np.float16, ml_dtypes.bfloat16)
    }
    rng = random.Random(4)
    for _ in range(20):
        command = [sys.executable, "-c", EDIT_FOREVER, str(src), str(dst)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            child.kill()
        with tb.open(dst, verify="full") as ck:
            tables = [ck[f"t{number}"].read() for number in range(4)]
        for table, other in zip(tables, expected[tables[0].dtype], strict=True):
            assert same_bits(table, other)
    tb.edit(src, dst, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for name in ("c", "d") for path in (index_path(tmp_path / name),
                                                      shard_path(tmp_path / name))
    )  # fmt: skip


def test_failed_write_leaves_no_file(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("t", TABLE)
    src = bundle.write(tmp_path / "c")
    before = sorted(tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for options in ({}, {"cast": "float64"}):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with pytest.raises(tb.IOFailure) as caught:
                tb.edit(src, tmp_path / "d", **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.errno == errno.EFBIG
        assert sorted(tmp_path.iterdir()) == before
