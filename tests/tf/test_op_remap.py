# SPDX-License-Identifier: Apache-2.0
"""TensorbundleMissingV1 and TensorbundleRemapV1 return the same as TensorFlow's two ops."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle
from craft.compare import same_bits
from craft.v1 import V1File

tf = pytest.importorskip("tensorflow")


def write_vocab(path: Path, tokens: Sequence[str]) -> str:
    path.write_text("".join(f"{token}\n" for token in tokens))
    return str(path)


@pytest.fixture
def vocabs(tmp_path: Path) -> dict[str, str]:
    """Writes a vocabulary of 9 tokens, 4 of them new, and an old vocabulary of 8."""
    return {
        "new_vocab": write_vocab(tmp_path / "new.txt", list("gxabyhzcw")),
        "old_vocab": write_vocab(tmp_path / "old.txt", list("abcdefgh")),
    }


IDS = [6, -1, 0, 1, -1, 7, -1, 2, -1]


@pytest.fixture
def table(tmp_path: Path) -> tuple[str, np.ndarray]:
    """Writes a float table `t` of shape [8, 5]."""
    values = np.arange(40, dtype=np.float32).reshape(8, 5)
    bundle = Bundle()
    bundle.add("t", values)
    return str(bundle.write(tmp_path / "ck")), values


def remapping(vocabs: dict[str, str], **options: Any) -> Any:
    return tf.raw_ops.GenerateVocabRemapping(
        new_vocab_file=vocabs["new_vocab"], old_vocab_file=vocabs["old_vocab"], **options
    )


@pytest.mark.parametrize(("offset", "count"), [(0, 9), (0, 0), (9, 0), (2, 3), (4, 5)])
@pytest.mark.parametrize("old_size", [-1, 1, 7, 8])
def test_missing_op_counts_new_tokens(
    offset: int, count: int, old_size: int, vocabs: dict[str, str], ops: ModuleType
) -> None:
    _, present = remapping(
        vocabs, new_vocab_offset=offset, num_new_vocab=count, old_vocab_size=old_size
    )
    for out_type in (tf.int32, tf.int64):
        missing = ops.tensorbundle_missing_v1(
            **vocabs, offset=offset, num_new=count, old_size=old_size, cells_per_entry=5,
            out_type=out_type,
        )  # fmt: skip
        assert missing.dtype == out_type and missing.shape == ()
        assert missing.numpy() == (count - present.numpy()) * 5


def test_overflow_of_the_count_raises(vocabs: dict[str, str], ops: ModuleType) -> None:
    options = {**vocabs, "num_new": 9, "cells_per_entry": 2**30}
    assert ops.tensorbundle_missing_v1(**options).numpy() == 2**32
    with pytest.raises(tf.errors.InvalidArgumentError, match="DT_INT32"):
        ops.tensorbundle_missing_v1(**options, out_type=tf.int32)


def remap(ops: ModuleType, prefix: str, vocabs: dict[str, str], **options: Any) -> np.ndarray:
    fills = options.pop("fills", [])
    value = ops.tensorbundle_remap_v1(
        fills=fills, prefix=prefix, tensor=options.pop("tensor", "t"),
        dtype=options.pop("dtype", tf.float32), **vocabs, **options,
    )  # fmt: skip
    return value.numpy()


@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("num_oov", [0, 2])
def test_remapped_rows_equal_tensorflow(
    offset: int, num_oov: int, table: tuple[str, np.ndarray], vocabs: dict[str, str],
    ops: ModuleType,
) -> None:  # fmt: skip
    prefix, _ = table
    rows = 9 - offset
    ids, present = remapping(vocabs, new_vocab_offset=offset, num_new_vocab=rows)
    cells = 100 + np.arange((rows - present.numpy()) * 5, dtype=np.float32)
    expected = tf.raw_ops.LoadAndRemapMatrix(
        ckpt_path=prefix, old_tensor_name="t", row_remapping=ids,
        col_remapping=np.array([], np.int64), initializing_values=cells, num_rows=rows, num_cols=5,
    ).numpy()  # fmt: skip
    oov = -np.arange(num_oov * 5, dtype=np.float32).reshape(-1, 5)
    expected = np.concatenate([expected, oov])
    options = {"offset": offset, "num_rows": rows, "num_oov": num_oov, "shape": [rows + num_oov, 5]}
    fills = [cells[:, None], oov] if num_oov else [cells[:, None]]
    assert same_bits(
        remap(ops, prefix, vocabs, fills=fills, fill_layout="cells", **options), expected
    )

    known = np.array([*(np.array(IDS[offset:]) >= 0), *[False] * num_oov])[:, None]
    full = np.random.default_rng(1).random(expected.shape, np.float32)
    assert same_bits(
        remap(ops, prefix, vocabs, fills=[full], fill_layout="full", **options),
        np.where(known, expected, full),
    )
    assert same_bits(
        remap(ops, prefix, vocabs, **options), np.where(known, expected, np.float32(0))
    )


@pytest.mark.parametrize(("first", "rows"), [(0, 4), (1, 3), (2, 0)])
@pytest.mark.parametrize("num_oov", [0, 2])
def test_remapped_columns_equal_tensorflow(
    first: int, rows: int, num_oov: int, vocabs: dict[str, str], tmp_path: Path, ops: ModuleType
) -> None:
    values = np.arange(32, dtype=np.float32).reshape(4, 8)
    bundle = Bundle()
    bundle.add("t", values)
    prefix = str(bundle.write(tmp_path / "ck"))
    ids, present = remapping(vocabs, new_vocab_offset=0, num_new_vocab=9)
    cells = 100 + np.arange(rows * (9 - present.numpy()), dtype=np.float32)
    expected = np.zeros((rows, 9), np.float32)
    if rows:
        expected = tf.raw_ops.LoadAndRemapMatrix(
            ckpt_path=prefix, old_tensor_name="t",
            row_remapping=np.arange(first, first + rows, dtype=np.int64), col_remapping=ids,
            initializing_values=cells, num_rows=rows, num_cols=9,
        ).numpy()  # fmt: skip
    oov = -np.arange(rows * num_oov, dtype=np.float32).reshape(rows, num_oov)
    expected = np.concatenate([expected, oov], axis=1)
    options = {
        "axis": 1, "offset": first, "num_rows": rows, "num_cols": 9, "num_oov": num_oov,
        "shape": [rows, 9 + num_oov],
    }  # fmt: skip
    fills = [cells, oov] if num_oov else [cells]
    assert same_bits(
        remap(ops, prefix, vocabs, fills=fills, fill_layout="cells", **options), expected
    )

    known = np.array([*(np.array(IDS) >= 0), *[False] * num_oov])
    full = np.random.default_rng(1).random(expected.shape, np.float32)
    assert same_bits(
        remap(ops, prefix, vocabs, fills=[full], fill_layout="full", **options),
        np.where(known, expected, full),
    )
    assert same_bits(
        remap(ops, prefix, vocabs, **options), np.where(known, expected, np.float32(0))
    )


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float64", "int8", "int64", "bool", "complex128"]
)
def test_every_dtype_rank_and_slicing_is_remapped(
    axis: int, dtype: str, vocabs: dict[str, str], tmp_path: Path, ops: ModuleType
) -> None:
    as_dtype = tf.as_dtype(dtype).as_numpy_dtype
    rng = random.Random(axis)
    for rank in range(axis + 1, 5):
        shape = [3] * rank
        shape[axis] = 8
        values = np.arange(np.prod(shape)) % 2 if dtype == "bool" else np.arange(np.prod(shape))
        values = (values % 100).astype(as_dtype).reshape(shape)
        bundle = Bundle(big_endian=rank == 3)
        bundle.add_sliced("t", values, tilings.guillotine(tuple(shape), 4, rng))
        prefix = str(bundle.write(tmp_path / f"ck{rank}"))
        remapped = np.moveaxis(values, axis, 0)[np.maximum(IDS, 0)]
        remapped[np.array(IDS) < 0] = 0
        expected = np.moveaxis(remapped, 0, axis)
        options = {"num_rows": 9} if axis == 0 else {"num_rows": 3, "num_cols": 9}
        value = remap(
            ops, prefix, vocabs, axis=axis, shape=list(expected.shape), dtype=dtype, **options
        )
        assert same_bits(value, np.ascontiguousarray(expected))


def test_table_of_v1_checkpoint_is_remapped(
    vocabs: dict[str, str], tmp_path: Path, ops: ModuleType
) -> None:
    values = np.arange(40, dtype=np.float32).reshape(8, 5)
    file = V1File()
    file.add("t", 1, values)
    prefix = str(file.write(tmp_path / "old"))
    value = remap(ops, prefix, vocabs, num_rows=9, shape=[9, 5])
    assert same_bits(value[[0, 2, 7]], values[[6, 0, 2]])


def test_old_row_can_be_remapped_several_times(
    table: tuple[str, np.ndarray], vocabs: dict[str, str], tmp_path: Path, ops: ModuleType
) -> None:
    vocabs["new_vocab"] = write_vocab(tmp_path / "twice.txt", ["a", "a", "b", "a"])
    value = remap(ops, table[0], vocabs, num_rows=4, shape=[4, 5])
    assert same_bits(value, table[1][[0, 0, 1, 0]])


def test_result_does_not_depend_on_threads(tmp_path: Path, ops: ModuleType) -> None:
    rng = np.random.default_rng(0)
    old = rng.random((60_000, 24), np.float32)
    bundle = Bundle()
    bundle.add_sliced("t", old, tilings.cut(old.shape, 0, [20_000, 40_000]))
    prefix = str(bundle.write(tmp_path / "ck"))
    tokens = rng.permutation(80_000)
    vocabs = {
        "new_vocab": write_vocab(tmp_path / "new", [str(token) for token in tokens]),
        "old_vocab": write_vocab(tmp_path / "old", [str(token) for token in range(60_000)]),
    }
    cells = np.arange(20_000 * 24, dtype=np.float32)
    expected = np.empty((80_000, 24), np.float32)
    expected[tokens < 60_000] = old[tokens[tokens < 60_000]]
    expected[tokens >= 60_000] = cells.reshape(-1, 24)
    for threads in (0, 1, 5):
        value = remap(
            ops, prefix, vocabs, fills=[cells], fill_layout="cells", num_rows=80_000,
            shape=[80_000, 24], threads=threads,
        )  # fmt: skip
        assert same_bits(value, expected)


def test_full_fill_buffer_is_reused_as_the_output(
    table: tuple[str, np.ndarray], vocabs: dict[str, str], ops: ModuleType
) -> None:
    """In a graph the buffer of the fill is forwarded."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        fill = tf.random.uniform((9, 5), 1, 2)
        value = ops.tensorbundle_remap_v1(
            fills=[fill * 2], prefix=table[0], tensor="t", dtype=tf.float32, **vocabs, num_rows=9,
            fill_layout="full", shape=[9, 5],
        )  # fmt: skip
        actual = session.run(value)
    known = np.array(IDS) >= 0
    assert same_bits(actual[known], table[1][np.array(IDS)[known]])
    assert ((actual[~known] >= 2) & (actual[~known] < 4)).all()


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"num_rows": 10, "shape": [10, 5]}, "InvalidArgument", "last new vocab entry's line"),
        ({"offset": 1}, "InvalidArgument", "last new vocab entry's line"),
        ({"new_size": 8}, "InvalidArgument", "last new vocab entry's line"),
        ({"shape": [9, 4]}, "InvalidArgument", r"\[9,5\], expected \[9,4\]"),
        ({"shape": [9]}, "InvalidArgument", r"\[9,5\], expected \[9\]"),
        ({"shape": []}, "InvalidArgument", r"expected \[\]"),
        ({"axis": 2}, "InvalidArgument", "axis is 2, not 0 or 1"),
        ({"num_cols": 5}, "InvalidArgument", "num_cols is for axis 1"),
        ({"num_oov": 2**63 - 1}, "InvalidArgument", "too many to count"),
        ({"shape": [9, -5]}, "InvalidArgument", r"no tensor can have the shape \[9,-5\]"),
        ({"shape": [2**62, 4]}, "InvalidArgument", "no tensor can have the shape"),
        ({"axis": 1}, "InvalidArgument", "needs num_cols"),
        ({"dtype": tf.float64}, "InvalidArgument", "does not equal original dtype float"),
        ({"tensor": "q"}, "NotFound", "Key q not found"),
        ({"old_size": 9}, "InvalidArgument", "at most the 8 rows"),
        ({"old_size": 0}, "OutOfRange", "old_size is 0"),
        ({"fill_layout": "cells"}, "InvalidArgument", "0 fills were given, expected 1"),
        (
            {"fill_layout": "cells", "fills": [np.zeros(19, np.float32)]},
            "InvalidArgument",
            "76 bytes, the 20 missing",
        ),
        (
            {"fill_layout": "cells", "fills": [np.zeros(20)]},
            "InvalidArgument",
            "a fill has type double, expected float",
        ),
        (
            {"fill_layout": "full", "fills": [np.zeros((5, 9), np.float32)]},
            "InvalidArgument",
            r"shape \[5,9\], expected \[9,5\]",
        ),
    ],
)
def test_invalid_attribute_raises(
    changes: dict[str, Any], error: str, match: str, table: tuple[str, np.ndarray],
    vocabs: dict[str, str], ops: ModuleType,
) -> None:  # fmt: skip
    options = {"num_rows": 9, "shape": [9, 5], **changes}
    with pytest.raises(getattr(tf.errors, f"{error}Error"), match=match):
        remap(ops, table[0], vocabs, **options)


def test_old_token_beyond_the_table_raises(
    tmp_path: Path, vocabs: dict[str, str], ops: ModuleType
) -> None:
    """TensorFlow raises an InternalError for a row, and reads out of bounds for a column."""
    advice = r".*new.txt is in line 7 of the old vocabulary .*old.txt, .* set old_vocab_size=5"
    bundle = Bundle()
    bundle.add("t", np.zeros((5, 5), np.float32))
    prefix = str(bundle.write(tmp_path / "ck"))
    error = tf.errors.InvalidArgumentError
    with pytest.raises(error, match=r"row 6 .*'t', which has 5" + advice):
        remap(ops, prefix, vocabs, num_rows=9, shape=[9, 5])
    with pytest.raises(error, match=r"column 6 .*'t', which has 5" + advice):
        remap(ops, prefix, vocabs, axis=1, num_rows=5, num_cols=9, shape=[5, 9])
    with pytest.raises(error, match="5 rows, fewer than the 4 wanted from row 2"):
        remap(
            ops, prefix, vocabs, axis=1, offset=2, num_rows=4, num_cols=1, new_size=1, old_size=1,
            shape=[4, 1],
        )  # fmt: skip


INVALID_VOCABULARIES = [
    ("new", b"", "OutOfRange"),
    ("old", b"", "OutOfRange"),
    ("new", b"a\n\nb\n", "InvalidArgument"),
    ("old", b"a\n\nb\n", "InvalidArgument"),
    ("old", b"a\nb\na\n", "FailedPrecondition"),
    ("new", None, "NotFound"),
    ("old", None, "NotFound"),
]


@pytest.mark.parametrize(("which", "content", "error"), INVALID_VOCABULARIES)
def test_invalid_vocabulary_raises_tensorflows_error(
    which: str, content: bytes | None, error: str, vocabs: dict[str, str], ops: ModuleType
) -> None:
    path = Path(vocabs[f"{which}_vocab"])
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    expected = getattr(tf.errors, f"{error}Error")
    with pytest.raises(expected, match=path.name):
        ops.tensorbundle_missing_v1(**vocabs, num_new=1)
    with pytest.raises(expected):
        remapping(vocabs, new_vocab_offset=0, num_new_vocab=1)
    path.unlink(missing_ok=True)
    path.mkdir()
    with pytest.raises(tf.errors.FailedPreconditionError, match="directory"):
        ops.tensorbundle_missing_v1(**vocabs, num_new=1)


def test_rewritten_vocabulary_is_read_again(
    vocabs: dict[str, str], tmp_path: Path, ops: ModuleType
) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        missing = ops.tensorbundle_missing_v1(**vocabs, num_new=2)
        assert session.run(missing) == 1
        write_vocab(tmp_path / "new.txt", ["a", "b"])
        assert session.run(missing) == 0
        write_vocab(tmp_path / "old.txt", ["c", "d"])
        assert session.run(missing) == 2
