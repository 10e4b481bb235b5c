# SPDX-License-Identifier: Apache-2.0
"""examples/convert_to_safetensors.py writes the values of the checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.compare import same_bits
from craft.dtypes import KINDS, sample

import tensorbundle as tb

pytest.importorskip("safetensors")

EXAMPLE = Path(__file__).parents[2] / "examples" / "convert_to_safetensors.py"
# safetensors' name of each supported dtype.
NAMES = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "half": "F16",
    "float": "F32",
    "double": "F64",
    "complex64": "C64",
    "bfloat16": "BF16",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "qint8": "I8",
    "quint8": "U8",
    "qint16": "I16",
    "quint16": "U16",
    "qint32": "I32",
}
SUPPORTED = [kind for kind in KINDS.values() if kind.label in NAMES and not kind.is_substituted]
UNSUPPORTED = [kind for kind in KINDS.values() if kind not in SUPPORTED]


def convert(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )


def read(target: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Parses a safetensors file; returns {name: (dtype, shape, bytes)}."""
    data = target.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__")
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        found[name] = (entry["dtype"], entry["shape"], data[8 + size :][begin:end])
    return found


def test_converts_every_dtype_and_shape(tmp_path: Path) -> None:
    bundle = Bundle()
    shapes = [(), (1,), (3, 4), (0, 2), (2, 1, 5)]
    for kind in SUPPORTED:
        for shape in shapes:
            bundle.add(f"{kind.label}{shape}", sample(kind, shape), number=kind.number)
    bundle.add_sliced("sliced", np.arange(12.0).reshape(4, 3), [((2, 2), (0, 3)), ((0, 2), (0, 3))])
    prefix = bundle.write(tmp_path / "m")
    done = convert(prefix, tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = read(tmp_path / "out")
    with tb.open(prefix) as checkpoint:
        assert found.keys() == checkpoint.keys()
        for name, tensor in checkpoint.items():
            dtype, shape, data = found[name]
            assert tuple(shape) == tensor.shape
            assert same_bits(np.frombuffer(data, tensor.dtype).reshape(shape), tensor)
            assert dtype == NAMES.get(name.partition("(")[0], "F64")


def test_skipped_tensors_are_printed_and_set_exit_status(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("kept", np.arange(3.0))
    bundle.add_strings("words", [b"a"], (1,))
    bundle.add("__metadata__", np.arange(3.0))
    bundle.add(b"\xff", np.arange(3.0))
    for kind in UNSUPPORTED:
        bundle.add(kind.label, sample(kind, (2,)), number=kind.number)
    done = convert(bundle.write(tmp_path / "m"), tmp_path / "out")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert len(lines) == 3 + len(UNSUPPORTED)
    for name in ["words", "__metadata__", "\udcff", *(kind.label for kind in UNSUPPORTED)]:
        (line,) = (line for line in lines if line.startswith(f"left out: {name!r}: "))
        assert line.count(":") == 2
    assert list(read(tmp_path / "out")) == ["kept"]


def test_unreadable_checkpoint_prints_one_line(tmp_path: Path) -> None:
    done = convert(tmp_path / "nowhere", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert not (tmp_path / "out").exists()
