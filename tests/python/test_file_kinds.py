# SPDX-License-Identifier: Apache-2.0
"""Files of other programs, recognised by their first and last bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.checksum import masked_crc
from hypothesis import given
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle import path_errors

MAGIC = path_errors.TABLE_MAGIC


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, bytes(9000))
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.ckpt.index"))
    return buffer.getvalue()


def saved(function, *arrays) -> bytes:
    buffer = io.BytesIO()
    function(buffer, *arrays)
    return buffer.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


def record(payload: bytes) -> bytes:
    size = struct.pack("<Q", len(payload))
    checksums = (struct.pack("<I", masked_crc(data)) for data in (size, payload))
    return size + next(checksums) + payload + next(checksums)


WEIGHTS = {"state_dict": [1.0] * 99}
S3_ERROR = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
# Name of the case: (content, words of the message)
KINDS = {
    "git-lfs": (LFS, "git lfs pull"),
    "html": (b"<!DOCTYPE html>\n<html><head>", "HTML page"),
    "html after a byte order mark": (b"\xef\xbb\xbf\n<HTML lang=en>", "HTML page"),
    "xhtml": (b'<?xml version="1.0"?>\n<html xmlns="http">', "HTML page"),
    "s3 error": (S3_ERROR, "(AccessDenied)"),
    "xml": (b"<?xml version='1.0'?><model/>", "XML document"),
    "empty": (b"", "is empty (0 bytes)"),
    "zeros": (bytes(20_000), "zero bytes"),
    "text": (b"404: Not Found\n", "'404: Not Found'"),
    "torch zip": (zipped("archive/data.pkl", "archive/data/0", "archive/version"), "torch.load"),
    "torch zip, late": (zipped("m/.format_version", "m/data/0", "m/data.pkl"), "torch.load"),
    "keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "Keras 3 model"),
    "npz": (saved(np.savez, np.arange(3), np.arange(4)), "numpy.load"),
    "npy": (saved(np.save, np.arange(3)), "numpy.load"),
    "zip": (zipped("readme.txt"), "zip archive"),
    "empty zip": (zipped(), "zip archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(80), "h5py"),
    "hdf5 with a user block": (bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(80), "h5py"),
    "torch pickle": (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03." + bytes(99),
        "PyTorch file",
    ),
    **{
        f"pickle {protocol}, {type(value).__name__}": (
            pickle.dumps(value, protocol),
            "Python pickle",
        )
        for protocol in (2, 3, 4, 5)
        for value in (WEIGHTS, [1, 2], "text", np.arange(3))
    },
    "old pickle": (pickle.dumps(WEIGHTS, 0), "Python pickle"),
    "safetensors": (safetensors(), "safetensors package"),
    "gzip": (gzip.compress(b"x" * 999), "gunzip"),
    "bzip2": (bz2.compress(b"x" * 999), "bunzip2"),
    "xz": (lzma.compress(b"x" * 999), "unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04" + bytes(50), "unzstd"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(50), "unlz4"),
    "tar": (tarred(), "tar archive"),
    "records": (record(b"example") + record(b"x" * 99), "TFRecord"),
    "flax": (b"\x83\xa7version\x03\xa9optimizer\x82\xa5state\xcd\xff\xff", "flax"),
    "flax, many": (b"\xde\x00\x20\xd9\x20" + b"params/decoder" * 9, "flax"),
    "json": (b'{\n  "weight_map": {"w": "model-00001.safetensors"}, "n": 1}' * 9, "JSON text"),
    "json list": (b'[{"name": "w"}]' * 50, "JSON text"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["m.index", "m", "m-00001-of-00002"])
def test_error_names_kind_of_file(tmp_path: Path, kind: str, name: str) -> None:
    content, advice = KINDS[kind]
    file = tmp_path / name
    file.write_bytes(content)
    if "-of-" in name:
        (tmp_path / "m-00000-of-00002").write_bytes(MAGIC)
    for path in {tmp_path / "m", file}:
        with pytest.raises(tb.CorruptionError) as caught:
            tb.open(path)
        assert str(caught.value).startswith(f"{str(file)!r} ")
        assert advice in str(caught.value)
        assert len(str(caught.value)) < 400 + len(str(file))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "json" not in kind])
def test_error_names_kind_of_file_in_directory(tmp_path: Path, kind: str) -> None:
    content, advice = KINDS[kind]
    (tmp_path / "weights.bin").write_bytes(content)
    (tmp_path / "config.json").write_text('{"layers": 12}')
    with pytest.raises(ValueError, match="Couldn't find 'checkpoint' file") as caught:
        tb.open(tmp_path)
    assert isinstance(caught.value, tb.CheckpointNotFoundError)
    if kind not in ("empty", "zeros", "text"):  # kinds that are not reported for a directory
        assert f"'weights.bin' in it {path_errors.describe_file(tmp_path / 'weights.bin')}" in str(
            caught.value
        )
        assert advice in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_table_is_never_another_kind(tmp_path: Path, kind: str) -> None:
    (tmp_path / "m").write_bytes(KINDS[kind][0] + MAGIC)
    assert path_errors.describe_file(str(tmp_path / "m")) is None


@pytest.mark.parametrize(
    "content",
    [
        b"\0\0\x10\x08\1\x1a\x02\x08\1",  # a truncated V2 index
        b"\0\0\x80\1\x0a\x08\x80\x02}",  # a truncated V1 file
        b"\x80\x02\xff\xff",
        b"PK\x01\x02",
        b"\x83\xff\xff",
        struct.pack("<Q", 1 << 40) + b'{"w":',
        struct.pack("<Q", 8) + b"\x01\x02\x03\x04" + bytes(range(100)),
        b"{not json" * 30,
        np.arange(1000.0).tobytes(),
        os.urandom(5000),
    ],
)
def test_unknown_kind_raises_reader_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    assert path_errors.describe_file(str(tmp_path / "m")) is None
    with pytest.raises(tb.CorruptionError, match="is not a TensorFlow checkpoint table"):
        tb.open(tmp_path / "m")


@given(st.binary(max_size=600), st.binary(max_size=100))
def test_any_bytes_return_sentence_or_none(head: bytes, tail: bytes) -> None:
    kind = path_errors.describe_content(head, tail, len(head) + len(tail))
    assert kind is None or (kind.isprintable() and kind.split()[0] in ("is", "begins"))


@given(st.sampled_from(list(KINDS)), st.integers(0, 400), st.binary(max_size=50))
def test_truncated_file_raises_no_exception(kind: str, size: int, more: bytes) -> None:
    content = KINDS[kind][0][:size] + more
    path_errors.describe_content(content, content[-4096:], len(content))


def test_special_files_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "pipe", tmp_path / "loop", tmp_path, tmp_path / "gone", "/dev/zero"):
        assert path_errors.read_ends(str(path)) is None
        assert path_errors.describe_file(str(path)) is None


def test_reads_only_ends_of_huge_file(tmp_path: Path) -> None:
    with open(tmp_path / "m", "wb") as file:
        file.truncate(1 << 40)
    ends = path_errors.read_ends(str(tmp_path / "m"))
    assert ends is not None
    assert (len(ends.head), len(ends.tail), ends.size) == (4096, 4096, 1 << 40)


def test_renamed_v2_index_is_recognised(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("w", np.arange(3.0))
    bundle.write(tmp_path / "m")
    for name in ("m.index.txt", "m.index (1)", "copy"):
        os.rename(tmp_path / "m.index", tmp_path / name)
        with pytest.raises(tb.CorruptionError, match="is the renamed index of a V2 checkpoint"):
            tb.open(tmp_path / name)
        os.rename(tmp_path / name, tmp_path / "m.index")
    assert tb.open(tmp_path / "m.index")["w"].shape == (3,)


@pytest.mark.parametrize("files", [{"_CHECKPOINT_METADATA"}, {"manifest.ocdbt", "d"}])
def test_recognises_orbax_directory(tmp_path: Path, files: set[str]) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(tb.CheckpointNotFoundError, match="Orbax"):
        tb.open(tmp_path)
