# SPDX-License-Identifier: Apache-2.0
"""The DLPack protocol from the producer's side."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, shard_path
from craft.compare import mapped_file, same_bits
from craft.dtypes import KINDS, sample

import tensorbundle as tb

CPU = (1, 0)
NUMPY_TYPES = (1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 15, 17, 18, 19, 22, 23)
versioned = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="this NumPy requests no DLPack version"
)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


class Producer:
    """Exports a tensor with the given arguments instead of the consumer's."""

    def __init__(self, tensor: Any, **arguments: Any) -> None:
        self.tensor, self.arguments = tensor, arguments

    def __dlpack__(self, **_: Any) -> Any:
        return self.tensor.__dlpack__(**self.arguments)

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


def open_aligned_and_misaligned(tmp_path: Path) -> Any:
    """Opens a checkpoint of one tensor at offset 0 and at an odd offset; returns its values too."""
    bundle = Bundle()
    source = sample(KINDS[1], (40, 7))
    bundle.add("aligned", source)
    bundle.pad(64 - source.nbytes % 64)
    bundle.pad(1)
    bundle.add("odd", source)
    return tb.open(bundle.write(tmp_path / "c")), source


@pytest.mark.parametrize("number", NUMPY_TYPES, ids=lambda n: KINDS[n].label)
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 4), (1,)], ids=str)
def test_numpy_imports_every_supported_dtype(
    tmp_path: Path, number: int, shape: tuple[int, ...]
) -> None:
    source = sample(KINDS[number], shape)
    bundle = Bundle()
    bundle.pad(1)
    bundle.add("t", source, number=number)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert tuple(ck["t"].__dlpack_device__()) == CPU
        got = np.from_dlpack(ck["t"])
        assert same_bits(got, source)
        assert got.flags.aligned


@pytest.mark.parametrize("offset", [4, 16, 32])
def test_every_export_starts_at_a_multiple_of_64(tmp_path: Path, offset: int) -> None:
    source = sample(KINDS[1], (40, 7))
    bundle = Bundle()
    bundle.pad(offset)
    bundle.add("t", source)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        got = np.from_dlpack(ck["t"])
        assert same_bits(got, source)
        assert got.ctypes.data % 64 == 0


def test_misaligned_data_is_copied(tmp_path: Path) -> None:
    ck, source = open_aligned_and_misaligned(tmp_path)
    with ck:
        assert ck["aligned"].aligned
        assert not ck["odd"].aligned
        got = np.from_dlpack(ck["odd"])
        assert same_bits(got, source)
        assert got.ctypes.data % 64 == 0


@linux
@versioned
def test_aligned_data_is_shared(tmp_path: Path) -> None:
    ck, source = open_aligned_and_misaligned(tmp_path)
    with ck:
        got = np.from_dlpack(Producer(ck["aligned"], max_version=(1, 0)))
        assert same_bits(got, source)
        assert mapped_file(got) == (str(shard_path(Path(ck.path))), "rw-p")
        assert got.ctypes.data != np.asarray(ck["aligned"]).ctypes.data  # a separate mapping
        assert not got.flags.writeable


@linux
@versioned
def test_respects_copy_argument(tmp_path: Path) -> None:
    ck, source = open_aligned_and_misaligned(tmp_path)
    with ck:
        copied = np.from_dlpack(Producer(ck["aligned"], max_version=(1, 0), copy=True))
        assert same_bits(copied, source)
        assert mapped_file(copied) in (None, ("[heap]", "rw-p"))
        shared = np.from_dlpack(Producer(ck["aligned"], max_version=(1, 0), copy=False))
        assert mapped_file(shared) == (str(shard_path(Path(ck.path))), "rw-p")
        with pytest.raises(BufferError):
            ck["odd"].__dlpack__(max_version=(1, 0), copy=False)
        assert same_bits(ck["aligned"], source)


@versioned
def test_copy_is_writable(tmp_path: Path) -> None:
    ck, source = open_aligned_and_misaligned(tmp_path)
    with ck:
        copied = np.from_dlpack(ck["aligned"], copy=True)
        assert copied.flags.writeable
        copied[:] = 0
        assert same_bits(ck["aligned"], source)


def test_unversioned_capsule_never_shares_mapping(tmp_path: Path) -> None:
    """Before version 1 there is no read-only flag, so the export must be writable."""
    ck, source = open_aligned_and_misaligned(tmp_path)
    with ck:
        view = np.asarray(ck["aligned"])
        capsule = ck["aligned"].__dlpack__()
        assert '"dltensor"' in repr(capsule)
        got = np.from_dlpack(Producer(ck["aligned"]))
        assert same_bits(got, source)
        assert not np.shares_memory(got, view)
        with pytest.raises(BufferError):
            ck["aligned"].__dlpack__(copy=False)


def test_returns_requested_version(tmp_path: Path) -> None:
    ck, _ = open_aligned_and_misaligned(tmp_path)
    with ck:
        assert '"dltensor_versioned"' in repr(ck["aligned"].__dlpack__(max_version=(1, 0)))
        assert '"dltensor_versioned"' in repr(ck["aligned"].__dlpack__(max_version=(2, 5)))
        assert '"dltensor"' in repr(ck["aligned"].__dlpack__(max_version=(0, 8)))


def test_capsules_outlive_the_reader(tmp_path: Path) -> None:
    ck, source = open_aligned_and_misaligned(tmp_path)
    with ck:
        arrays = [np.from_dlpack(ck[name]) for name in ("aligned", "odd")]
        unused = ck["aligned"].__dlpack__(max_version=(1, 0))
    del ck
    gc.collect()
    assert all(same_bits(array, source) for array in arrays)
    del unused
    gc.collect()
    assert same_bits(arrays[0], source)


def test_assembles_stored_slices(tmp_path: Path) -> None:
    source = sample(KINDS[1], (8, 6))
    bundle = Bundle()
    bundle.add_sliced("t", source, tilings.cut((8, 6), 1, [2, 4]))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(np.from_dlpack(ck["t"]), source)
        with pytest.raises(BufferError):
            ck["t"].__dlpack__(max_version=(1, 0), copy=False)


def test_swaps_big_endian_data(tmp_path: Path) -> None:
    source = sample(KINDS[1], (8, 6))
    bundle = Bundle(big_endian=True)
    bundle.add("t", source)
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert same_bits(np.from_dlpack(ck["t"]), source)


def test_exports_bfloat16(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("t", sample(KINDS[14], (3, 2)))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        assert "dltensor" in repr(ck["t"].__dlpack__(max_version=(1, 0)))


def test_unsupported_export_raises_buffer_error(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add_strings("s", [b"a"], (1,))
    bundle.add("t", np.arange(3.0))
    with tb.open(bundle.write(tmp_path / "c")) as ck:
        with pytest.raises(BufferError, match="string"):
            ck["s"].__dlpack__()
        with pytest.raises(BufferError):
            ck["t"].__dlpack__(dl_device=(2, 0))
        with pytest.raises((ValueError, BufferError)):
            ck["t"].__dlpack__(stream=3)
