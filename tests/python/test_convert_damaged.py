# SPDX-License-Identifier: Apache-2.0
"""Damaged files of other formats: a conversion succeeds or raises a documented error.

The flips and truncations come from a seed. HDF5 files are read in a child process, because the
HDF5 library may crash.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tensorbundle as tb
from tensorbundle.formats import npz, safetensors

ROUNDS = 2000
DOCUMENTED = (tb.CorruptionError, tb.IOFailure, tb.UnsupportedError, tb.CheckpointNotFoundError)
ARRAYS = {
    "dense/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "step": np.array(7, np.int64),
    "flags": np.array([True, False]),
}


def write_safetensors(path: Path) -> None:
    pytest.importorskip("safetensors.numpy").save_file(ARRAYS, path)


def write_index(path: Path) -> None:
    write_safetensors(path.with_name("shard.safetensors"))
    names = dict.fromkeys(ARRAYS, "shard.safetensors")
    path.write_text(json.dumps({"metadata": {"total_size": 58}, "weight_map": names}))


def write_npz(path: Path) -> None:
    np.savez(path, allow_pickle=True, **ARRAYS)


def write_compressed_npz(path: Path) -> None:
    np.savez_compressed(path, allow_pickle=True, **ARRAYS, order=np.asfortranarray(np.eye(3)))


def write_hdf5(path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[name] = array
        file["other"] = file["step"]
        file["soft"] = h5py.SoftLink("/dense/kernel")
        file.create_dataset("packed", data=np.arange(64.0).reshape(8, 8), compression="gzip")


WRITERS = {
    "x.safetensors": write_safetensors,
    "x.safetensors.index.json": write_index,
    "x.npz": write_npz,
    "packed.npz": write_compressed_npz,
    "x.h5": write_hdf5,
}


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Returns data with some bytes replaced, most often near the ends, or truncated."""
    kind = random.integers(10)
    if kind == 0:
        return data[: random.integers(len(data))]
    result = bytearray(data)
    for _ in range(random.integers(1, 4)):
        at = int(random.integers(len(data)))
        value = int(random.choice([0, 1, 0x7F, 0x80, 0xFF, random.integers(256)]))
        result[at] = value if kind < 6 else result[at] ^ 1 << int(random.integers(8))
    return bytes(result)


def convert_mutations(path: Path, seed: int, rounds: int) -> int:
    """Converts mutations of a file; returns how many raised a documented error."""
    data, random, failed = path.read_bytes(), np.random.default_rng(seed), 0
    target = path.with_name("out.npz")
    transpose = {"packed": "order"}.get(path.stem)
    for _ in range(rounds):
        content = mutated(data, random)
        path.write_bytes(content)
        try:
            tb.convert(path, target, transpose=transpose, overwrite=True)
        except DOCUMENTED as error:
            failed += 1
            assert path.parent.name in str(error) or error.filename, content
            assert not target.exists(), content
        except ValueError as error:  # the damaged name of the tensor to transpose
            assert "transpose" in str(error), content
        except Exception as error:
            error.add_note(repr(content)) if sys.version_info >= (3, 11) else None
            raise
        target.unlink(missing_ok=True)
        assert {each.name for each in path.parent.iterdir()} <= {path.name, "shard.safetensors"}
    return failed


@pytest.mark.parametrize("file", [file for file in WRITERS if file != "x.h5"])
@pytest.mark.filterwarnings("ignore")
def test_damage_is_a_documented_error(tmp_path: Path, file: str) -> None:
    WRITERS[file](tmp_path / file)
    assert convert_mutations(tmp_path / file, 0, ROUNDS) > ROUNDS / 5


def test_damage_of_hdf5_is_a_documented_error(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "x.h5")
    original = (tmp_path / "x.h5").read_bytes()
    finished = crashed = 0
    for seed in range(10):
        (tmp_path / "x.h5").write_bytes(original)
        (tmp_path / "out.npz").unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, str(tmp_path / "x.h5"), str(seed)],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        if done.returncode < 0:
            crashed += 1  # in the HDF5 library
        else:
            assert done.returncode == 0, done.stderr[-3000:]
            finished += 1
    assert finished >= crashed, crashed


def header_of(document: object) -> bytes:
    text = json.dumps(document).encode()
    return len(text).to_bytes(8, "little") + text


def safetensors_of(name: str, shape: list[int], nbytes: int) -> bytes:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, nbytes]}
    return header_of({name: entry}) + b"\0" * nbytes


@pytest.mark.parametrize(
    ("shape", "nbytes", "reason"),
    [([1] * 65, 4, "rank"), ([1 << 62, 1 << 62, 0], 0, "too large"), ([0, 1 << 61], 0, "large")],
)
def test_shapes_that_numpy_lacks_are_left_out(
    tmp_path: Path, shape: list[int], nbytes: int, reason: str
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_of("a", shape, nbytes))
    with safetensors.read(str(path)) as found:
        assert not found and reason in found.left_out["a"]
    with pytest.raises(tb.UnsupportedError, match="'a'"):
        tb.convert(path, tmp_path / "m", strict=True)


def test_half_of_a_surrogate_pair_is_no_name(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_of("\ud800", [1], 4))
    with pytest.raises(tb.CorruptionError, match=r"x\.safetensors.*not Unicode.*ud800"):
        tb.convert(path, tmp_path / "m")


def test_empty_name(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_of("", [1], 4))
    with pytest.raises(ValueError, match="'' would get an empty name"):
        tb.convert(path, tmp_path / "m")
    tb.convert(path, tmp_path / "m", rename={"": "a"})
    assert tb.load(tmp_path / "m").keys() == {"a"}


@pytest.mark.parametrize(
    ("text", "error"),
    [("{", tb.CorruptionError), ("(" * 3000, tb.CorruptionError), ("{'descr': 1}", None),
     ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", None),
     ("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}", None)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_invalid_npy_header_raises(tmp_path: Path, text: str, error: type[Exception]) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as file:
        data = text.encode() + b"\n"
        file.writestr("a.npy", b"\x93NUMPY\x01\0" + len(data).to_bytes(2, "little") + data)
    with pytest.raises(tb.CorruptionError, match=r"x\.npz.*a\.npy") as caught:
        npz.read(str(path))
    assert error is None or caught.type is error
    assert not isinstance(caught.value, tb.IOFailure)


def test_unknown_compression_is_not_supported(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.zeros(3))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 10] = data[8] = 99
    path.write_bytes(data)
    with pytest.raises(tb.UnsupportedError, match=r"x\.npz.*a\.npy"):
        tb.convert(path, tmp_path / "m")
    assert os.listdir(tmp_path) == ["x.npz"]


if __name__ == "__main__":
    convert_mutations(Path(sys.argv[1]), int(sys.argv[2]), ROUNDS // 10)
    os._exit(0)  # without the exit handlers of the HDF5 library
