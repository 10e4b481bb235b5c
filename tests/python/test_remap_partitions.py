# SPDX-License-Identifier: Apache-2.0
"""The rows and columns of a remapped table that each partition receives."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorbundle as tb
from tensorbundle.assignment import Slice, Variable
from tensorbundle.warm_plan import PartitionRemap, plan_partitions


def partition(shape, whole=None, offset=None):
    info = None if whole is None else Slice("v", whole, offset, shape)
    return Variable("v:0", shape, info, None)


def plan(*partitions, axis=0, new_size=5, num_oov=0):
    return plan_partitions("v", partitions, axis=axis, new_size=new_size, num_oov=num_oov)


def test_plans_whole_table():
    (found,) = plan(partition((7, 3)), num_oov=2)
    assert found == PartitionRemap(
        axis=0,
        shape=(7, 3),
        remapped_shape=(7, 3),
        window_offset=(0, 0),
        offset=0,
        num_rows=5,
        num_cols=-1,
        num_oov=2,
        is_all_oov=False,
    )
    assert (found.num_entries, found.cells_per_entry, found.oov_shape) == (5, 3, (2, 3))


def test_small_table_uses_first_vocabulary_entries():
    (found,) = plan(partition((3, 2)))
    assert (found.num_rows, found.num_oov) == (3, 0)


@pytest.mark.parametrize(("rows", "width", "fits"), [
    (2**31 - 1, 1, True), (2**31, 1, False), (2**30, 2, False), (2**29, 3, True),
])  # fmt: skip
def test_missing_cells_are_counted_in_int32_up_to_its_maximum(rows, width, fits):
    (found,) = plan(partition((rows, width)), new_size=rows)
    assert found.counts_in_int32 == fits


def test_plans_rank_1_and_rank_3():
    (bias,) = plan(partition((6,)), num_oov=1)
    assert (bias.num_rows, bias.cells_per_entry, bias.oov_shape) == (5, 1, (1,))
    (cube,) = plan(partition((5, 2, 3)))
    assert cube.cells_per_entry == 6
    (classes,) = plan(partition((4, 6, 3)), axis=1, num_oov=1)
    assert (classes.cells_per_entry, classes.oov_shape) == (12, (4, 1, 3))


def test_partition_offset_is_its_first_row():
    whole = (8, 2)
    partitions = [partition((3, 2), whole, (first, 0)) for first in (0, 3)] + [
        partition((2, 2), whole, (6, 0))
    ]
    found = plan(*partitions, new_size=5, num_oov=3)
    assert [(each.offset, each.num_rows, each.num_oov) for each in found] == [
        (0, 3, 0),
        (3, 2, 1),
        (6, 0, 2),
    ]
    # TensorFlow initialises a whole partition at once only if it starts after the first OOV row.
    assert [each.is_all_oov for each in found] == [False, False, True]


def test_partition_starting_at_oov_rows_is_not_all_oov():
    found = plan(partition((3, 2), (8, 2), (5, 0)), num_oov=3)
    assert (found[0].num_rows, found[0].num_oov, found[0].is_all_oov) == (0, 3, False)


def test_axis_1_uses_partition_rows_and_vocabulary_columns():
    partitions = [partition((2, 6), (4, 6), (first, 0)) for first in (0, 2)]
    found = plan(*partitions, axis=1, num_oov=1)
    assert [(each.offset, each.num_rows, each.num_cols, each.num_oov) for each in found] == [
        (0, 2, 5, 1),
        (2, 2, 5, 1),
    ]
    assert found[0].first_entry == found[1].first_entry == 0
    assert found[0].num_entries == 5
    # A subset of the partitions has the same plan.
    assert plan(partitions[1], axis=1, num_oov=1) == found[1:]


@pytest.mark.parametrize("axis", [0, 1])
def test_column_partitions_are_windows(axis):
    whole = (5, 6)
    found = plan(
        partition((5, 4), whole, (0, 0)),
        partition((5, 2), whole, (0, 4)),
        axis=axis,
        num_oov=0 if axis == 0 else 1,
    )
    assert all(each.is_window and each.remapped_shape == whole for each in found)
    assert [each.window_offset for each in found] == [(0, 0), (0, 4)]


def test_detects_counts_wider_than_32_bits():
    (found,) = plan(partition((2**26, 64)), new_size=2**26)
    assert not found.counts_in_int32
    (found,) = plan(partition((2**24, 64)), new_size=2**24)
    assert found.counts_in_int32


@pytest.mark.parametrize(
    ("shape", "axis", "message"),
    [
        (None, 0, "unknown rank"),
        ((None, 3), 0, "a known shape"),
        ((), 0, "Expected 1-dim"),
        ((5,), 1, "Expected 2-dim"),
        ((0, 3), 0, "1st dim of shape to be > 0"),
        ((6, 3), 0, r"6 additional rows after 0 rows .* \(5\) \+ num_row_oov_buckets \(0\) = 5"),
        ((4, 4), 1, r"new_col_vocab_size \(5\) \+ num_col_oov_buckets \(0\) = 5"),
        ((4, 6), 1, "2nd dim"),
    ],
)
def test_unsuitable_shape_raises_shape_mismatch_error(shape, axis, message):
    with pytest.raises(tb.ShapeMismatchError, match=message):
        plan(partition(shape), axis=axis)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=6),
    st.integers(0, 4),
    st.integers(1, 3),
    st.data(),
)
def test_partitions_cover_the_table(rows, num_oov, width, data):
    """The partitions receive the rows 0, 1, 2, … in order, then the out-of-vocabulary rows."""
    total = sum(rows)
    num_oov = min(num_oov, total - 1)
    starts = np.cumsum([0, *rows[:-1]]).tolist()
    partitions = [
        partition((count, width), (total, width), (first, 0))
        for first, count in zip(starts, rows, strict=True)
    ]
    found = plan(*partitions, new_size=total - num_oov, num_oov=num_oov)
    taken = [each.offset + i for each in found for i in range(each.num_rows)]
    assert taken == list(range(total - num_oov))
    assert sum(each.num_oov for each in found) == num_oov
    assert sum(math.prod(each.shape) for each in found) == total * width
