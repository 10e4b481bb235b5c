# SPDX-License-Identifier: Apache-2.0
"""Reading whole tensors: warm and cold, as a view, from a V1 file, a whole model, and strings."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from craft.bundle import Bundle
from craft.v1 import V1File

import tensorbundle as tb
from bench import baseline, data
from bench.case import (
    BASELINE,
    OURS,
    THREADS,
    UNVERIFIED,
    VERIFIED,
    Case,
    Contender,
    Destination,
    Phases,
    Run,
    tensorflow,
)  # fmt: skip
from bench.data import DIM, MIB, Table, binary

SIZES = {"smoke": 2 * MIB, "256MB": 256 * MIB, "1GB": 1024 * MIB}
V1_SIZES = {"smoke": MIB, "256MB": 64 * MIB}
BERT_LAYERS = {"smoke": 2, "256MB": 12}
STRINGS = {"smoke": 1_000, "256MB": 2_000_000}


def test_read(compare: Callable[[], None]) -> None:
    compare()


def cases(size: str) -> list[Case]:
    found = []
    if size in SIZES:
        table = Table(SIZES[size] // (4 * DIM))
        found += [_whole(table), _whole_cold(table), _view(table)]
    if size in V1_SIZES:
        found += [_v1(V1_SIZES[size]), _load(BERT_LAYERS[size]), _strings(STRINGS[size])]
    return found


def opening(table: Table, out: Destination, **options: Any) -> Callable[[], Any]:
    """Returns the start of a contender that opens the table's checkpoint and reads the table."""

    @contextmanager
    def start() -> Iterator[Run]:
        into, prefix = out.array, table.prefix

        def run() -> Any:
            # An open checkpoint compares a checksum only once, so every run opens it again.
            with tb.open(prefix, **options) as ck:
                return ck["table"].read(out=into)

        yield run

    return start


def _contenders(table: Table, out: Destination) -> list[Contender]:
    """Returns the contenders that run warm and cold; they keep no file open between two runs."""

    @contextmanager
    def get_tensor() -> Iterator[Run]:
        tf, prefix = tensorflow(), str(table.prefix)
        yield lambda: tf.train.load_checkpoint(prefix).get_tensor("table")

    @contextmanager
    def restore() -> Iterator[Run]:
        tf, prefix = tensorflow(), str(table.prefix)
        yield lambda: tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=["table"], shape_and_slices=[""], dtypes=[tf.float32]
        )[0]

    @contextmanager
    def memmap() -> Iterator[Run]:
        into = out.array

        def run() -> Any:
            np.copyto(into, table.maps()[0])
            return into

        yield run

    @contextmanager
    def pread() -> Iterator[Run]:
        into = out.array

        def run() -> Any:
            with table.descriptor() as file:
                return baseline.pread(file, table.offset, into, THREADS)

        yield run

    return [
        Contender("tensorbundle", opening(table, out), OURS, VERIFIED),
        Contender("tensorbundle, 1 thread", opening(table, out, threads=1), OURS, VERIFIED),
        Contender(
            "tensorbundle, verify=none", opening(table, out, verify="none"), OURS, UNVERIFIED
        ),
        Contender("TensorFlow reader", get_tensor, checksum=VERIFIED, needs=("tensorflow",)),
        Contender("TensorFlow RestoreV2", restore, checksum=VERIFIED, needs=("tensorflow",)),
        Contender("numpy.memmap, copyto", memmap, checksum=UNVERIFIED),
        Contender(f"C: pread, {THREADS} threads", pread, BASELINE, UNVERIFIED),
    ]


def _other_formats(table: Table, out: Destination) -> list[Contender]:
    @contextmanager
    def safetensors() -> Iterator[Run]:
        from safetensors import safe_open

        with safe_open(table.safetensors, "numpy") as file:
            yield lambda: file.get_tensor("table")

    @contextmanager
    def tensorstore() -> Iterator[Run]:
        array = table.tensorstore()
        yield lambda: array.read().result()

    @contextmanager
    def zarr() -> Iterator[Run]:
        import zarr

        array = zarr.open_array(table.zarr, mode="r")
        yield lambda: array[...]

    @contextmanager
    def memcpy() -> Iterator[Run]:
        into, source = out.array, table.maps()[0]

        def run() -> Any:
            baseline.call("baseline_memcpy", into, source, into.nbytes, THREADS)
            return into

        yield run

    return [
        Contender("safetensors get_tensor", safetensors, needs=("safetensors",)),
        Contender("TensorStore, Zarr 3", tensorstore, needs=("tensorstore", "zarr")),
        Contender("zarr, Zarr 3", zarr, needs=("zarr",)),
        Contender(f"C: memcpy, {THREADS} threads", memcpy, BASELINE, UNVERIFIED),
    ]


def _whole(table: Table) -> Case:
    out, size = Destination(table.rows, DIM), binary(table.nbytes)
    return Case(
        key=f"read/{size}, warm",
        title=f"read a tensor of {size} into a given buffer, page cache warm",
        contenders=_contenders(table, out) + _other_formats(table, out),
        check=data.require_table,
        unit="bytes",
        amount=table.nbytes,
        destination=out,
        memory=True,
    )


def _whole_cold(table: Table) -> Case:
    out, size = Destination(table.rows, DIM), binary(table.nbytes)
    direct = opening(table, out, io="direct")
    return Case(
        key=f"read/{size}, cold",
        title=f"open and read a tensor of {size} into a given buffer, page cache cold",
        contenders=[
            *_contenders(table, out),
            Contender("tensorbundle, io=direct", direct, OURS, VERIFIED),
        ],
        check=data.require_table,
        unit="bytes",
        amount=table.nbytes,
        destination=out,
        cold_files=table.files,
    )


def _view(table: Table) -> Case:
    @contextmanager
    def tensorbundle() -> Iterator[Run]:
        prefix = table.prefix

        def run() -> Any:
            with tb.open(prefix) as ck:
                return np.asarray(ck["table"])

        yield run

    @contextmanager
    def opened() -> Iterator[Run]:
        with tb.open(table.prefix) as ck:
            yield lambda: np.asarray(ck["table"])

    @contextmanager
    def memmap() -> Iterator[Run]:
        table.files()  # writes missing files
        yield lambda: table.maps()[0]

    @contextmanager
    def get_tensor() -> Iterator[Run]:
        reader = tensorflow().train.load_checkpoint(str(table.prefix))
        yield lambda: reader.get_tensor("table")

    tf_reader = "TensorFlow reader (a copy)"
    return Case(
        key=f"view/{binary(table.nbytes)}",
        title=f"a tensor of {binary(table.nbytes)} as a NumPy array that can be indexed",
        contenders=[
            Contender("tensorbundle: open and view", tensorbundle, OURS, UNVERIFIED),
            Contender("tensorbundle: view", opened, OURS, UNVERIFIED),
            Contender("numpy.memmap, place known", memmap, checksum=UNVERIFIED),
            Contender(tf_reader, get_tensor, checksum=VERIFIED, needs=("tensorflow",)),
        ],
        check=data.require_table,
        memory=True,
    )


@data.stored
def _v1_table(folder: Path, rows: int) -> None:
    """Writes a V1 checkpoint with a table."""
    file = V1File()
    file.add("table", data.FLOAT, data.elements(0, rows * DIM).reshape(-1, DIM))
    file.write(folder / "ckpt")


def _v1(nbytes: int) -> Case:
    rows = nbytes // (4 * DIM)
    out = Destination(rows, DIM)

    @contextmanager
    def tensorbundle() -> Iterator[Run]:
        path, into = _v1_table(rows) / "ckpt", out.array

        def run() -> Any:
            with tb.open(path) as ck:
                return ck["table"].read(out=into)

        yield run

    @contextmanager
    def get_tensor() -> Iterator[Run]:
        tf, path = tensorflow(), str(_v1_table(rows) / "ckpt")
        yield lambda: tf.train.load_checkpoint(path).get_tensor("table")

    @contextmanager
    def pread() -> Iterator[Run]:
        path, into = _v1_table(rows) / "ckpt", out.array
        with tb.open(path) as ck:
            ((_, offset, size),) = ck["table"].byte_ranges()

        def run() -> Any:
            with path.open("rb", buffering=0) as file:
                baseline.pread_checked(file.fileno(), offset, size, into, THREADS)
            return into

        yield run

    return Case(
        key=f"read V1/{binary(nbytes)}",
        title=f"open a V1 file and read its tensor of {binary(nbytes)} into a given buffer",
        contenders=[
            Contender("tensorbundle", tensorbundle, OURS, VERIFIED),
            Contender("TensorFlow reader", get_tensor, checksum=VERIFIED, needs=("tensorflow",)),
            Contender(f"C: pread and CRC-32C, {THREADS} threads", pread, BASELINE, UNVERIFIED),
        ],
        check=data.require_table,
        unit="bytes",
        amount=nbytes,
        destination=out,
        memory=True,
    )


# The shapes of BERT-base: 201 tensors, 438 MB; two layers for a test.
def bert_shapes(layers: int) -> dict[str, tuple[int, ...]]:
    width, words = (768, 30_522) if layers == 12 else (24, 100)
    shapes: dict[str, tuple[int, ...]] = {
        "bert/embeddings/word_embeddings": (words, width),
        "bert/embeddings/position_embeddings": (512, width),
        "bert/embeddings/token_type_embeddings": (2, width),
        "bert/pooler/dense/kernel": (width, width),
        "bert/pooler/dense/bias": (width,),
        "cls/predictions/output_bias": (width,),
        "cls/seq_relationship/output_bias": (2,),
        "bert/embeddings/LayerNorm/beta": (width,),
        "bert/embeddings/LayerNorm/gamma": (width,),
    }
    for layer in range(layers):
        scope = f"bert/encoder/layer_{layer}"
        for name in ("query", "key", "value", "output"):
            shapes[f"{scope}/attention/{name}/kernel"] = (width, width)
            shapes[f"{scope}/attention/{name}/bias"] = (width,)
        for name, inner in (("intermediate", (width, 4 * width)), ("output", (4 * width, width))):
            shapes[f"{scope}/{name}/dense/kernel"] = inner
            shapes[f"{scope}/{name}/dense/bias"] = inner[1:]
        for name in ("attention/output/LayerNorm", "output/LayerNorm"):
            shapes[f"{scope}/{name}/beta"] = shapes[f"{scope}/{name}/gamma"] = (width,)
    return dict(sorted(shapes.items()))


@data.stored
def _bert(folder: Path, layers: int) -> None:
    """Writes the model as a checkpoint and, if safetensors is installed, as such a file."""
    bundle, arrays = Bundle(), {}
    for i, (name, shape) in enumerate(bert_shapes(layers).items()):
        arrays[name] = data.elements(i << 20, (i << 20) + math.prod(shape)).reshape(shape)
        bundle.add(name, arrays[name])
    bundle.write(folder / "ckpt")
    with contextlib.suppress(ImportError):
        from safetensors.numpy import save_file

        save_file(arrays, folder / "model.safetensors")


def _load(layers: int) -> Case:
    """Loads a model in a fresh process, because that is what users do; its memory is new."""
    shapes = bert_shapes(layers)

    def contender(name: str, load: Callable[[Path], Any], **options: Any) -> Contender:
        @contextmanager
        def start() -> Iterator[Run]:
            folder = _bert(layers)
            data.warm(folder.iterdir())
            load(_bert(2))  # loads the libraries

            def run() -> Phases:
                phases = Phases()
                with phases.phase("loading"):
                    phases.result = load(folder)
                return phases

            yield run

        return Contender(name, start, **options)

    def check(phases: Phases) -> None:
        assert sorted(phases.result) == list(shapes)
        for i, (name, shape) in enumerate(shapes.items()):
            array = phases.result[name]
            assert array.shape == shape, name
            assert array.flags.writeable, name
            data.require_table(array, i << 20)

    def get_tensors(folder: Path) -> Any:
        reader = tensorflow().train.load_checkpoint(str(folder / "ckpt"))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}

    def load_file(folder: Path) -> Any:
        from safetensors.numpy import load_file

        return load_file(folder / "model.safetensors")

    def read_each(folder: Path) -> Any:
        with tb.open(folder / "ckpt") as ck:
            return {name: tensor.read() for name, tensor in ck.items()}

    return Case(
        key=f"load/BERT of {layers} layers",
        title=f"load {len(shapes)} tensors of a BERT model, "
        f"{binary(4 * sum(map(math.prod, shapes.values())))}, as arrays, in a fresh process",
        contenders=[
            contender("tensorbundle, load", lambda folder: tb.load(folder / "ckpt"), role=OURS,
                      checksum=VERIFIED),
            contender("tensorbundle, load, 1 thread",
                      lambda folder: tb.load(folder / "ckpt", threads=1), role=OURS,
                      checksum=VERIFIED),
            contender("tensorbundle, one by one", read_each, role=OURS, checksum=VERIFIED),
            contender("TensorFlow reader", get_tensors, checksum=VERIFIED, needs=("tensorflow",)),
            contender("safetensors load_file", load_file, needs=("safetensors",)),
        ],
        check=check,
        unit="bytes",
        amount=4 * sum(map(math.prod, shapes.values())),
        fresh_process=True,
    )  # fmt: skip


@data.stored
def _tokens(folder: Path, count: int) -> None:
    bundle = Bundle()
    bundle.add_strings("tokens", _token_list(count), (count,))
    bundle.write(folder / "ckpt")


def _token_list(count: int) -> list[bytes]:
    return [b"token_%x" % (i * 2654435761 % 2**32) for i in range(count)]


def _strings(count: int) -> Case:
    def prefix() -> Path:
        return _tokens(count) / "ckpt"

    @contextmanager
    def tensorbundle() -> Iterator[Run]:
        path = prefix()

        def run() -> Any:
            with tb.open(path) as ck:
                return ck["tokens"].read()

        yield run

    @contextmanager
    def get_tensor() -> Iterator[Run]:
        tf, path = tensorflow(), str(prefix())
        yield lambda: tf.train.load_checkpoint(path).get_tensor("tokens")

    @contextmanager
    def split() -> Iterator[Run]:
        text = b"\n".join(_token_list(count))
        yield lambda: text.split(b"\n")

    def check(result: Any) -> None:
        assert list(result) == _token_list(count)

    return Case(
        key=f"strings/{count}",
        title=f"open, and read {count:,} strings into Python",
        contenders=[
            Contender("tensorbundle", tensorbundle, OURS, VERIFIED),
            Contender("TensorFlow reader", get_tensor, checksum=VERIFIED, needs=("tensorflow",)),
            Contender("Python: bytes.split creates them", split, BASELINE, needs=("builtins",)),
        ],
        check=check,
        unit="strings",
        amount=count,
        memory=True,
    )
