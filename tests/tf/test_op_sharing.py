# SPDX-License-Identifier: Apache-2.0
"""Ops share vocabulary joins and parsed indexes, also in concurrent calls."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from craft.bundle import Bundle, index_path
from craft.compare import same_bits

tf = pytest.importorskip("tensorflow")

PARTITIONS = 8
TOKENS = 200_000


def bytes_read() -> int:
    """Returns the bytes that this process has read."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].removeprefix("rchar: "))


def write_vocab(path: Path, tokens: Any) -> str:
    path.write_text("".join(f"token {token}\n" for token in tokens))
    return str(path)


@pytest.fixture
def vocabs(tmp_path: Path) -> dict[str, str]:
    return {
        "new_vocab": write_vocab(tmp_path / "new", range(TOKENS - 1, -1, -1)),
        "old_vocab": write_vocab(tmp_path / "old", range(0, TOKENS, 2)),
    }


def bytes_per_join(vocabs: dict[str, str]) -> int:
    """Returns the bytes that a join reads: the old vocabulary once, the new one twice."""
    new, old = (Path(path).stat().st_size for path in vocabs.values())
    return 2 * new + old


@pytest.mark.parametrize("inter_op_threads", [1, 8])
def test_partitions_share_one_join(
    inter_op_threads: int, vocabs: dict[str, str], ops: ModuleType
) -> None:
    rows = TOKENS // PARTITIONS
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=inter_op_threads)
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        counts = [
            ops.tensorbundle_missing_v1(**vocabs, offset=i * rows, num_new=rows)
            for i in range(PARTITIONS)
        ]
        session.run(tf.constant(0))
        start = bytes_read()
        assert session.run(counts) == [rows // 2] * PARTITIONS
        assert bytes_read() - start < bytes_per_join(vocabs) * 1.1


def test_mended_vocabulary_is_joined_again(
    vocabs: dict[str, str], tmp_path: Path, ops: ModuleType
) -> None:
    valid = (tmp_path / "old").read_bytes()
    (tmp_path / "old").write_bytes(valid + b"\n")

    def count_missing(_: int) -> int:
        return int(ops.tensorbundle_missing_v1(**vocabs, num_new=TOKENS).numpy())

    with ThreadPoolExecutor(PARTITIONS) as pool:
        for future in [pool.submit(count_missing, i) for i in range(PARTITIONS)]:
            with pytest.raises(tf.errors.InvalidArgumentError, match="is empty"):
                future.result()
        (tmp_path / "old").write_bytes(valid)
        assert set(pool.map(count_missing, range(PARTITIONS))) == {TOKENS // 2}


def test_index_is_parsed_once(tmp_path: Path, ops: ModuleType) -> None:
    bundle = Bundle()
    for i in range(5_000):
        bundle.add(f"tensor/with/a/long/name/{i}", np.float32(i))
    prefix = bundle.write(tmp_path / "ck")
    size = index_path(prefix).stat().st_size

    def read(i: int) -> float:
        value, _ = ops.tensorbundle_read_v1(
            prefix=str(prefix), tensor=f"tensor/with/a/long/name/{i}", dtype=tf.float32
        )
        return float(value.numpy())

    with ThreadPoolExecutor(PARTITIONS) as pool:
        start = bytes_read()
        assert list(pool.map(read, range(0, 5_000, 7))) == list(range(0, 5_000, 7))
        # one parse, the values, and files in /proc
        assert bytes_read() - start < 2 * size


def test_data_files_are_closed_after_a_read(tmp_path: Path, ops: ModuleType) -> None:
    bundle = Bundle()
    bundle.add("t", np.arange(100_000, dtype=np.float32))
    prefix = bundle.write(tmp_path / "ck")
    options = {"prefix": str(prefix), "tensor": "t", "dtype": tf.float32}
    for read in (
        lambda: ops.tensorbundle_read_v1(**options),
        lambda: ops.tensorbundle_map_v1(**options, slice_specs=[""], N=1),
    ):
        read()
        targets = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
        assert not [target for target in targets if target.startswith(str(tmp_path))]


def test_read_during_replacement_returns_one_version(tmp_path: Path, ops: ModuleType) -> None:
    """A read may also fail with an error. The two data files may be of two versions."""
    prefix = tmp_path / "ck"
    shape = (3000, 17)
    slices = [((0, 1500), (0, 17)), ((1500, 1500), (0, 17))]

    def write(number: int) -> None:
        bundle = Bundle(2)
        values = np.full(shape, number, np.float32)
        bundle.add_sliced("t", values, slices, shard_of=lambda i: i)
        fresh = bundle.write(tmp_path / "fresh")
        for path in tmp_path.glob("fresh.*"):
            path.replace(path.with_name(path.name.replace("fresh", "ck")))
        assert fresh.name == "fresh"

    write(0)
    stop = threading.Event()

    def replace_repeatedly() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            write(number)

    found: list[float] = []

    def read(_: int) -> None:
        try:
            value, _ = ops.tensorbundle_read_v1(prefix=str(prefix), tensor="t", dtype=tf.float32)
        except (tf.errors.DataLossError, tf.errors.NotFoundError):
            return
        array = value.numpy()
        assert same_bits(array, np.full(shape, array[0, 0]))
        found.append(array[0, 0])

    writer = threading.Thread(target=replace_repeatedly)
    writer.start()
    try:
        end = time.monotonic() + 60
        with ThreadPoolExecutor(4) as pool:
            while time.monotonic() < end and (len(found) < 50 or len(set(found)) < 5):
                list(pool.map(read, range(100)))
    finally:
        stop.set()
        writer.join()
    assert len(found) >= 50 and len(set(found)) >= 5, (len(found), len(set(found)))
    read(0)
    assert found[-1] == max(found)
