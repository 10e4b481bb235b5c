# SPDX-License-Identifier: Apache-2.0
"""HDF5 links, and the destination of safetensors that is replaced."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorbundle as tb
from tensorbundle.errors import DestinationExistsError, LeftOutError
from tensorbundle.formats import hdf5, npz
from tensorbundle.formats import tensors as tensors_module
from tensorbundle.formats.new_files import NewFiles

TABLE = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py")


def test_dataset_keeps_the_names_of_all_links(h5py: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["layer/w"] = TABLE
        file["alias"] = file["layer/w"]
        file["group"] = file["layer"]
        file["layer/parent"] = file["layer"]
        file["layer/soft"] = h5py.SoftLink("w")
        file["root"] = h5py.SoftLink("/group/./w")
        file["twice"] = h5py.SoftLink("root")
    report = tb.convert(tmp_path / "x.h5", tmp_path / "m")
    assert tb.load(tmp_path / "m").keys() == {
        "alias", "layer/w", "layer/soft", "group/w", "group/soft", "root", "twice"
    }  # fmt: skip
    assert all(np.array_equal(array, TABLE) for array in tb.load(tmp_path / "m").values())
    circle = "a link to a group that contains it"
    assert report.left_out == {"layer/parent": circle, "group/parent": circle}


def test_other_files_are_not_read(h5py: Any, tmp_path: Path) -> None:
    """Also not through a soft link that passes an external link."""
    raw = tmp_path / "raw"
    raw.write_bytes(TABLE.tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["w"] = TABLE
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["w"] = TABLE
        file["other"] = h5py.ExternalLink("other.h5", "/")
        file["through"] = h5py.SoftLink("/other/w")
        file["absent"] = h5py.SoftLink("/nothing")
        file["circle"] = h5py.SoftLink("/circle")
        file.create_dataset("raw", TABLE.shape, "f8", external=[(str(raw), 0, TABLE.nbytes)])
        layout = h5py.VirtualLayout(TABLE.shape, "f8")
        layout[:] = h5py.VirtualSource("other.h5", "w", TABLE.shape)
        file.create_virtual_dataset("virtual", layout)
    with hdf5.read(str(tmp_path / "x.h5")) as found:
        assert list(found) == ["w"]
        reasons = {name: reason.split(" ")[1] for name, reason in found.left_out.items()}
        assert found.left_out["other"] == "a link to '/' in another file, 'other.h5'"
        assert str(raw) in found.left_out["raw"]
        assert "does not exist" in found.left_out["absent"]
    assert reasons == {
        "other": "link", "through": "link", "absent": "link", "circle": "circle",
        "raw": "dataset", "virtual": "virtual",
    }  # fmt: skip
    with pytest.raises(LeftOutError, match="external storage"):
        tb.convert(tmp_path / "x.h5", tmp_path / "m", strict=True)
    tb.convert(tmp_path / "x.h5", raw, to="npz", overwrite=True)  # not a file of the source


def test_names_that_are_not_utf8_are_read(h5py: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file[b"a\xff"] = TABLE
    tb.convert(tmp_path / "x.h5", tmp_path / "m")
    assert tb.list_variables(tmp_path / "m") == [("a\udcff", [2, 3])]
    report = tb.convert(tmp_path / "m", tmp_path / "y.h5")
    assert report.left_out == {"a\udcff": "its name is not UTF-8"}


def test_too_many_paths_raise(h5py: Any, tmp_path: Path) -> None:
    """Each group has two links to the next one."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file
        for _ in range(40):
            group["a"] = group.create_group("b")
            group = group["b"]
    script = "import tensorbundle.formats.hdf5 as h, sys; h._MAX_PATHS = 5000; h.read(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x.h5")], capture_output=True, text=True
    )
    assert "UnsupportedError" in done.stderr and "more than 5000 paths" in done.stderr


def test_escaped_paths_differ() -> None:
    parts = ["", ".", "a", "%", "%25", "%2E", "%value", "a%"]
    names = ["/".join(row) for n in (1, 2, 3) for row in itertools.product(parts, repeat=n)]
    paths = hdf5.paths_of(names)
    assert len(set(paths.values())) == len(names)
    for path in paths.values():
        groups = path.split("/")
        assert not {"/".join(groups[:n]) for n in range(1, len(groups))} & set(paths.values())
        assert "" not in groups and "." not in groups


def test_name_attribute_counts_only_for_its_own_path(h5py: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["w"] = TABLE
        file["a/%value"] = 1.0
        file["a/%value"].attrs["name"] = "w"
    with hdf5.read(str(tmp_path / "x.h5")) as found:
        assert sorted(found) == ["a/%value", "w"]


def test_longest_names(h5py: Any, tmp_path: Path) -> None:
    longest, deepest = "%" + "n" * 59_000, "/".join("g" * 1000)
    names = [longest, deepest, longest + "n" * 1001, "/" + deepest]
    tb.save(tmp_path / "m", {**dict.fromkeys(names, TABLE), "axes": np.zeros((1,) * 32)})
    report = tb.convert(tmp_path / "m", tmp_path / "x.h5")
    assert report.left_out == {
        names[2]: "its name is too long", names[3]: "its name has too many slashes"
    }  # fmt: skip
    with hdf5.read(str(tmp_path / "x.h5")) as found:
        assert sorted(found) == sorted([longest, deepest, "axes"])


def test_axes_beyond_those_of_hdf5_are_left_out(h5py: Any, tmp_path: Path) -> None:
    if hdf5.MAX_RANK >= tensors_module._MAX_RANK:
        pytest.skip("NumPy has no more axes either")
    np.savez(tmp_path / "x.npz", a=np.zeros((1,) * 33), b=TABLE)
    report = tb.convert(tmp_path / "x.npz", tmp_path / "x.h5")
    assert report.left_out == {"a": "its rank is 33, and HDF5 has 32 axes"}


def test_compressed_member_is_transposed_from_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(60_000.0).reshape(200, 300)
    np.savez_compressed(tmp_path / "x.npz", a=array)
    tb.convert(tmp_path / "x.npz", tmp_path / "m", transpose="a")
    assert np.array_equal(tb.load(tmp_path / "m")["a"], array.T)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "absent"))
    with npz.read(str(tmp_path / "x.npz")) as found, pytest.raises(tb.IOFailure, match="absent"):
        found["a"][3]


def state(folder: Path) -> Any:
    """Returns what a reader finds: by the index if there is one."""
    return {
        name: float(array[0])
        for name, array in tensors(folder / "model.safetensors.index.json").items()
    }


def tensors(path: Path) -> dict[str, Any]:
    target = path.parent.with_name("read")
    tb.convert(path, target, overwrite=True)
    return tb.load(target)


@pytest.mark.parametrize("sizes", [(3, 3), (4, 3), (2, 3)])
def test_failure_while_shards_are_replaced_keeps_a_whole_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int]
) -> None:
    """Fails at each call that changes a name: the index leads to all old or all new tensors."""
    states = [{f"t{i}": np.full(4, n + i, "f4") for i in range(sizes[n])} for n in range(2)]
    for n, values in enumerate(states):
        tb.save(tmp_path / f"m{n}", values)
    old, new = ({name: float(array[0]) for name, array in each.items()} for each in states)
    seen = []
    for fail_at in range(40):
        folder = tmp_path / f"out{fail_at}"
        folder.mkdir()
        tb.convert(tmp_path / "m0", folder / "model.safetensors", max_bytes=16)
        count = itertools.count()

        def failing(function: Any, count: Any = count, fail_at: int = fail_at) -> Any:
            def call(*args: Any, **options: Any) -> Any:
                if next(count) == fail_at:
                    raise OSError(errno.EIO, "failed")
                return function(*args, **options)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", failing(os.rename))
            patch.setattr(os, "link", failing(os.link))
            try:
                report = tb.convert(
                    tmp_path / "m1", folder / "model.safetensors", max_bytes=16, overwrite=True
                )
            except tb.IOFailure:
                report = None
        found = state(folder)
        assert found in (old, new)
        seen.append(found == new)
        if report is not None:
            names = sorted(map(os.path.basename, report.files))
            assert sorted(os.listdir(folder)) == names and f"-of-{sizes[1]:05d}" in names[0]
            break
        tb.convert(tmp_path / "m1", folder / "model.safetensors", max_bytes=16, overwrite=True)
        assert state(folder) == new and len(os.listdir(folder)) == sizes[1] + 1
    assert seen == sorted(seen) and not seen[0] and seen[-1]


def test_shards_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tb.save(tmp_path / "m", {f"t{i}": np.full(4, i, "f4") for i in range(3)})
    target = tmp_path / "out" / "model.safetensors"
    tb.convert(tmp_path / "m", target, max_bytes=16)

    def link(*args: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", link)
    report = tb.convert(tmp_path / "m", target, max_bytes=16, overwrite=True)
    assert sorted(os.listdir(target.parent)) == sorted(map(os.path.basename, report.files))
    index = json.loads(Path(report.files[-1]).read_text())
    assert set(index["weight_map"].values()) == {
        f"model-0000{i}-of-00004.safetensors" for i in (1, 2, 3)
    }
    assert state(target.parent) == {"t0": 0, "t1": 1, "t2": 2}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_everything_is_on_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tb.save(tmp_path / "m", {f"t{i}": np.full(4, i, "f4") for i in range(3)})
    target = tmp_path / "out" / "model.safetensors"
    target.parent.mkdir()
    events: list[tuple[str, str]] = []
    fsync, link, rename = os.fsync, os.link, os.rename

    def recorded_fsync(descriptor: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append(("sync", name.partition(".tempstate")[0]))
        fsync(descriptor)

    def recorded_name(function: Any) -> Any:
        def call(old: Any, new: Any) -> None:
            events.append(("name", os.path.basename(new)))
            function(old, new)

        return call

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "link", recorded_name(link))
    monkeypatch.setattr(os, "rename", recorded_name(rename))
    report = tb.convert(tmp_path / "m", target, max_bytes=16)
    *shards, index = map(os.path.basename, report.files)
    assert len(shards) == 3
    for name in (*shards, index):
        assert events.index(("sync", name)) < events.index(("name", name))
    last = max(events.index(("name", name)) for name in shards)
    named = events.index(("name", index))
    assert ("sync", "out") in events[last:named]
    assert ("sync", "out") in events[named:]


def test_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "x.npz")
    files = NewFiles(path, overwrite=False, belongs=lambda _: False)
    with pytest.raises(DestinationExistsError), files:
        with files.open() as file:
            file.write(b"ours")
        Path(path).write_bytes(b"theirs")
        files.publish()
    assert Path(path).read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["x.npz"]


def test_files_of_a_living_writer_stay(tmp_path: Path) -> None:
    path = str(tmp_path / "x.npz")
    with NewFiles(path, overwrite=True, belongs=lambda _: False) as first:
        with first.open() as file:
            file.write(b"first")
        with (
            NewFiles(path, overwrite=True, belongs=lambda _: False) as second,
            second.open() as file,
        ):
            file.write(b"second")
        assert len(os.listdir(tmp_path)) == 1  # the second one was not published
        first.publish()
    assert Path(path).read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["x.npz"]
