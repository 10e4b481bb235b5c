# SPDX-License-Identifier: Apache-2.0
"""Files that change under an open handle, and while another thread reads them.

Every function that returns copies is tested. It returns the old values, or the new ones where the
documents allow them, or raises a documented exception. No function that copies crashes; those that
read rows through the mapping of the file do not either if the checkpoint was opened with "pread".
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle, index_path, shard_path
from craft.changing_file import Changer

import tensorbundle as tb

load_file = pytest.importorskip("safetensors.numpy").load_file

ROWS, COLUMNS = 4000, 64
HALVES = [((0, 1900), (0, COLUMNS)), ((1900, ROWS - 1900), (0, COLUMNS))]
IDS = np.random.default_rng(0).integers(0, ROWS, 300)
BOX = np.s_[1000:3000, 3:]
NUMBERS = ["sliced", "table"]
FAILURES = (tb.CorruptionError, tb.IOFailure)


def table(version: int) -> np.ndarray:
    values = np.full((ROWS, COLUMNS), version, np.float32)
    values += np.arange(ROWS, dtype=np.float32)[:, None] * 8
    return values


def write(prefix: Path, version: int) -> Path:
    bundle = Bundle()
    bundle.add("first", np.full(10, version, np.float32))
    bundle.add_sliced("sliced", table(version), HALVES)
    bundle.add("table", table(version))
    bundle.add_strings("words", [b"version%d" % version] * 2000, (2000,))
    prefix.parent.mkdir(exist_ok=True)
    return bundle.write(prefix)


def out_of(t: tb.Tensor) -> np.ndarray:
    out = np.empty(t.shape, np.float32)
    return t.read(out=out)


def chunks(t: tb.Tensor) -> np.ndarray:
    return np.concatenate([chunk.copy() for _, chunk in t.chunks(500)])


def stream(ck: tb.Checkpoint) -> dict[str, Any]:
    with ck.stream(NUMBERS) as arrays:
        return {name: array.copy() for name, array in arrays}


# Whole tensors: their checksums are compared.
WHOLE: dict[str, Callable[[tb.Checkpoint], Any]] = {
    "read": lambda ck: ck["table"].read(),
    "read of slices": lambda ck: ck["sliced"].read(),
    "read into an array": lambda ck: out_of(ck["table"]),
    "chunks": lambda ck: chunks(ck["table"]),
    "chunks of slices": lambda ck: chunks(ck["sliced"]),
    "load": lambda ck: ck.load(NUMBERS)["table"],
    "stream": lambda ck: stream(ck)["table"],
    "strings": lambda ck: ck["words"].read(),
    # NumPy 1 copies a view, whose checksum is not compared.
    **({"array": lambda ck: np.array(ck["sliced"])} if np.__version__ >= "2" else {}),
}
# Parts of stored slices: their checksums are not compared.
PARTS: dict[str, Callable[[tb.Checkpoint], Any]] = {
    "box": lambda ck: ck["table"].read(BOX),
    "box of slices": lambda ck: ck["sliced"].read(BOX),
    "take": lambda ck: ck["table"].take(IDS),
    "take of slices": lambda ck: ck["sliced"].take(IDS),
    "remap": lambda ck: tb.load_and_remap(ck["table"], rows=IDS),
    "remap of slices": lambda ck: tb.load_and_remap(ck["sliced"], rows=IDS, columns=[5, 1, -1]),
}
WAYS = {**WHOLE, **PARTS}


def expected(way: str, version: int) -> Any:
    if way == "strings":
        return np.array([b"version%d" % version] * 2000, object)
    values = table(version)
    if "box" in way:
        return values[BOX]
    if way == "remap of slices":
        return np.concatenate([values[IDS][:, [5, 1]], np.zeros((len(IDS), 1), np.float32)], axis=1)
    return values[IDS] if way in PARTS else values


def is_version(way: str, found: Any, version: int) -> bool:
    return bool(np.array_equal(found, expected(way, version)))


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return write(tmp_path / "new" / "c", 1)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return write(tmp_path / "c", 0)


def rename_data(prefix: Path, new: Path) -> None:
    os.replace(shard_path(new), shard_path(prefix))


def rename_both(prefix: Path, new: Path) -> None:
    rename_data(prefix, new)
    os.replace(index_path(new), index_path(prefix))


def delete_both(prefix: Path, new: Path) -> None:
    shard_path(prefix).unlink()
    index_path(prefix).unlink()


def truncate_index(prefix: Path, new: Path) -> None:
    os.truncate(index_path(prefix), 10)


def rewrite_index(prefix: Path, new: Path) -> None:
    shutil.copyfile(index_path(new), index_path(prefix))


def rewrite_data(prefix: Path, new: Path) -> None:
    with open(shard_path(prefix), "r+b") as file:
        file.write(shard_path(new).read_bytes())


def lengthen_data(prefix: Path, new: Path) -> None:
    with open(shard_path(prefix), "wb") as file:
        file.write(shard_path(new).read_bytes() + bytes(100_000))


def shorten_data(prefix: Path, new: Path) -> None:
    with open(shard_path(prefix), "wb") as file:
        file.write(shard_path(new).read_bytes()[:2000])


def truncate_data(prefix: Path, new: Path) -> None:
    os.truncate(shard_path(prefix), 500)


def empty_data(prefix: Path, new: Path) -> None:
    os.truncate(shard_path(prefix), 0)


KEEPS_OLD = [rename_data, rename_both, delete_both, truncate_index, rewrite_index]
IN_PLACE = [rewrite_data, lengthen_data]
SHORTER = [shorten_data, truncate_data, empty_data]


def name_of(change: Callable[..., None]) -> str:
    return change.__name__


def load_and_change(
    ck: tb.Checkpoint, read_before: bool, change: Callable[..., None], prefix: Path, new: Path
) -> None:
    if read_before:
        ck.load()
    change(prefix, new)


modes = pytest.mark.parametrize("io", ["auto", "mmap", "pread"])
both_orders = pytest.mark.parametrize("read_before", [False, True], ids=["unread", "read"])


@modes
@both_orders
@pytest.mark.parametrize("change", KEEPS_OLD, ids=name_of)
def test_open_handle_reads_old_values(
    prefix: Path, new: Path, change: Callable[..., None], read_before: bool, io: str
) -> None:
    with tb.open(prefix, io=io) as ck:
        load_and_change(ck, read_before, change, prefix, new)
        for way, read in WAYS.items():
            assert is_version(way, read(ck), 0), way
        assert ck["first"].read().tolist() == [0] * 10
        assert ck.verify().ok


@modes
@pytest.mark.parametrize("change", IN_PLACE, ids=name_of)
def test_whole_read_after_rewriting_in_place_raises(
    prefix: Path, new: Path, change: Callable[..., None], io: str
) -> None:
    for way, read in WHOLE.items():
        write(prefix, 0)
        with tb.open(prefix, io=io) as ck:
            change(prefix, new)
            with pytest.raises(tb.CorruptionError):
                read(ck)
            assert not ck.verify().ok, way


@modes
@both_orders
@pytest.mark.parametrize("change", IN_PLACE, ids=name_of)
def test_part_after_rewriting_in_place_is_of_one_version(
    prefix: Path, new: Path, change: Callable[..., None], read_before: bool, io: str
) -> None:
    """Nothing compares the checksum of a part, or that of a slice that was verified before."""
    with tb.open(prefix, io=io) as ck:
        load_and_change(ck, read_before, change, prefix, new)
        for way, read in (WAYS if read_before else PARTS).items():
            if way == "strings":
                with pytest.raises(tb.CorruptionError):  # always compared
                    read(ck)
            else:
                assert is_version(way, read(ck), 1), way
        assert not ck.verify().ok


@modes
@both_orders
@pytest.mark.parametrize("change", SHORTER, ids=name_of)
def test_shorter_file_raises(
    prefix: Path, new: Path, change: Callable[..., None], read_before: bool, io: str
) -> None:
    with tb.open(prefix, io=io) as ck:
        load_and_change(ck, read_before, change, prefix, new)
        for way, read in WAYS.items():
            with pytest.raises(FAILURES) as caught:
                read(ck)
            assert str(shard_path(prefix)) in str(caught.value), way
        report = ck.verify()
        assert {item.tensor for item in report.damaged} >= {"sliced", "table", "words"}


def test_reader_keeps_old_values_and_reports_truncation(prefix: Path, new: Path) -> None:
    reader = tb.load_checkpoint(str(prefix))
    rename_both(prefix, new)
    assert np.array_equal(reader.get_tensor("table"), table(0))
    reader = tb.load_checkpoint(str(prefix))
    assert np.array_equal(reader.get_tensor("table"), table(1))
    truncate_data(prefix, new)
    with pytest.raises(FAILURES):
        reader.get_tensor("table")


# Functions that open the checkpoint themselves: (source, destination) -> values.
def edited(source: Path, out: Path) -> Any:
    tb.edit(source, out, cast={"table": "float64"}, overwrite=True)
    return tb.load_variable(str(out), "table")


def aligned(source: Path, out: Path) -> Any:
    for path in out.parent.glob(out.name + ".*"):
        path.unlink()
    tb.align(source, out)
    return tb.load_variable(str(out), "table")


def averaged(source: Path, out: Path) -> Any:
    tb.average([source, source], out, overwrite=True)
    return tb.load_variable(str(out), "table")


def converted(source: Path, out: Path) -> Any:
    tb.convert(source, out.with_suffix(".npz"), keep=["table", "sliced"], overwrite=True)
    with np.load(out.with_suffix(".npz")) as arrays:
        return arrays["table"]


def transposed(source: Path, out: Path) -> Any:
    tb.edit(source, out, transpose="table", overwrite=True)
    return tb.load_variable(str(out), "table").T


def to_safetensors(source: Path, out: Path) -> Any:
    path = out.with_suffix(".safetensors")
    tb.convert(source, path, keep=["table"], overwrite=True)
    return load_file(path)["table"]


WRITERS = {
    "edit": edited,
    "edit with a transposition": transposed,
    "align": aligned,
    "average": averaged,
    "convert": converted,
    "convert to safetensors": to_safetensors,
}


@pytest.mark.parametrize("change", [rename_data, *IN_PLACE, *SHORTER], ids=name_of)
@pytest.mark.parametrize("writer", WRITERS)
def test_data_file_of_another_save_is_never_written(
    prefix: Path, new: Path, change: Callable[..., None], writer: str, tmp_path: Path
) -> None:
    change(prefix, new)
    with pytest.raises((*FAILURES, tb.EditError)):
        WRITERS[writer](prefix, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


# Changes while another thread reads. The index stays that of version 0.


def repeat(prefix: Path, new: Path, how: str, body: Callable[[], bool | None]) -> None:
    """Runs a body while the data file changes. It returns whether it succeeded."""
    contents = [shard_path(new).read_bytes(), shard_path(prefix).read_bytes()]
    counts = {True: 0, False: 0}
    end = time.monotonic() + 0.4
    with Changer(shard_path(prefix), contents, how) as changer:
        while time.monotonic() < end or min(changer.changes, sum(counts.values())) < 4:
            try:
                counts[body() is not False] += 1
            except (*FAILURES, tb.EditError):
                counts[False] += 1


changes = pytest.mark.parametrize("how", ["renamed", "overwritten", "truncated"])


# np.array() copies from the mapping, and a mapping of a file that shrinks crashes.
@changes
@pytest.mark.parametrize(
    ("way", "io"),
    [
        *((way, "auto") for way in WHOLE if way != "array"),
        *((way, "pread") for way in WHOLE),
    ],
)
def test_whole_read_during_changes_is_right_or_raises(
    prefix: Path, new: Path, way: str, io: str, how: str
) -> None:
    def body() -> None:
        with tb.open(prefix, io=io) as ck:
            assert is_version(way, WHOLE[way](ck), 0)

    repeat(prefix, new, how, body)


@changes
@pytest.mark.parametrize("way", PARTS)
def test_part_during_changes_has_elements_of_the_file(
    prefix: Path, new: Path, way: str, how: str
) -> None:
    versions = [expected(way, version) for version in (0, 1)]

    def body() -> None:
        with tb.open(prefix, io="pread") as ck:
            found = PARTS[way](ck)
        assert ((found == versions[0]) | (found == versions[1])).all()

    repeat(prefix, new, how, body)


@changes
def test_verify_during_changes_reports_or_succeeds(prefix: Path, new: Path, how: str) -> None:
    def body() -> bool:
        with tb.open(prefix) as ck:
            return ck.verify().ok

    repeat(prefix, new, how, body)


@changes
@pytest.mark.parametrize("writer", WRITERS)
def test_writer_during_changes_writes_right_values_or_nothing(
    prefix: Path, new: Path, writer: str, how: str, tmp_path: Path
) -> None:
    def body() -> None:
        found = WRITERS[writer](prefix, tmp_path / "out")
        assert np.array_equal(found, table(0))

    repeat(prefix, new, how, body)


@changes
def test_comparison_during_changes_ends_or_raises(
    prefix: Path, new: Path, how: str, tmp_path: Path
) -> None:
    other = write(tmp_path / "other" / "c", 2)

    def body() -> bool:
        return not tb.diff(prefix, other, values=True).same

    repeat(prefix, new, how, body)


@changes
def test_join_during_changes_is_of_whole_tokens_or_raises(tmp_path: Path, how: str) -> None:
    """Ids of a vocabulary that is rewritten in place may be those of both versions."""
    count = 50_000
    contents = ["".join(f"{word}{i:07}\n" for i in range(count)).encode() for word in ("a", "b")]
    old, fresh = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_bytes(contents[0])
    fresh.write_bytes(contents[0] + contents[1])
    rows = np.tile(np.arange(count), 2)
    end = time.monotonic() + 1
    joins = 0
    with Changer(old, contents, how):
        while time.monotonic() < end:
            try:
                ids = tb.remap_vocab(fresh, old).ids
            except FAILURES:
                continue
            joins += 1
            assert ((ids == rows) | (ids == -1)).all()
            assert how != "renamed" or (ids >= 0).sum() == count
    assert joins > 0


def test_documents_say_which_reads_crash() -> None:
    text = (Path(__file__).parents[2] / "docs" / "lifetimes.md").read_text(encoding="utf-8")
    assert "SIGBUS" in text
    assert "`take`" in text.split("## A view is the file")[1]
