# SPDX-License-Identifier: Apache-2.0
"""Fixtures that compare with an installed TensorFlow; without TensorFlow, all tests are skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from craft.compare import same_bits

import tensorbundle as tb
from tensorbundle import plugin

# get_tensor returns quantized values as plain integers; as_numpy_dtype is a structured type.
_PLAIN = {
    "qint8": np.int8, "quint8": np.uint8, "qint16": np.int16, "quint16": np.uint16,
    "qint32": np.int32, "string": object,
}  # fmt: skip

Compare = Callable[..., None]

WITHOUT_LIBRARY = "TENSORBUNDLE_TESTS_WITHOUT_LIBRARY" in os.environ


def pytest_configure() -> None:
    if WITHOUT_LIBRARY:
        plugin.LIBRARY = "absent.so"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps only the tests of reads, if there is no op library."""
    if WITHOUT_LIBRARY:
        kept = [each for each in items if "backend_name" in each.fixturenames]  # type: ignore[attr-defined]
        config.hook.pytest_deselected(items=[each for each in items if each not in kept])
        items[:] = kept


@pytest.fixture(autouse=True)
def _environment_keeps_its_plugin() -> Iterator[None]:
    """A test that links the plugin into the environment changes all tests after it."""
    before = plugin.status()
    yield
    assert plugin.status() == before


def numpy_dtype(dtype: Any) -> np.dtype:
    """Returns the NumPy type of the array that get_tensor returns for a tf.DType."""
    return np.dtype(_PLAIN.get(dtype.name, dtype.as_numpy_dtype))


def _assert_equal_values(name: str, actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected), name
    if isinstance(expected, bytes):
        assert actual == expected, name
    else:
        assert same_bits(actual, expected), name


@pytest.fixture(scope="session")
def compare() -> Compare:
    """Returns a function that compares our reader with ``tf.train.load_checkpoint``.

    ``compare(path, our_path=None, saved=None, unreadable=())``: ``our_path`` is the path for our
    reader if it differs, ``saved`` the values that were saved, and ``unreadable`` the names that
    TensorFlow's reader cannot read; those must be in ``saved``.
    """
    tf = pytest.importorskip("tensorflow")

    def run(
        path: str | Path,
        *,
        our_path: str | Path | None = None,
        saved: dict[str, np.ndarray] | None = None,
        unreadable: tuple[str, ...] = (),
    ) -> None:
        reference = tf.train.load_checkpoint(str(path))
        shapes = reference.get_variable_to_shape_map()
        dtypes = reference.get_variable_to_dtype_map()
        reader = tb.load_checkpoint(str(our_path or path))
        assert reader.get_variable_to_shape_map() == shapes
        expected_dtypes = {name: numpy_dtype(dtype) for name, dtype in dtypes.items()}
        assert reader.get_variable_to_dtype_map() == expected_dtypes
        with tb.open(our_path or path, verify="full") as ck:
            assert set(ck) == set(shapes)
            for name in shapes:
                assert ck[name].shape == tuple(shapes[name])
                assert ck[name].dtype == expected_dtypes[name]
                if name not in unreadable:
                    original = reference.get_tensor(name)
                    _assert_equal_values(name, reader.get_tensor(name), original)
                    expected = np.array(original, dtype=expected_dtypes[name])
                    assert same_bits(ck[name], expected), name
                    assert same_bits(ck[name].read(), expected), name
            for name, value in (saved or {}).items():
                assert same_bits(ck[name], value), name
            assert set(unreadable) <= set(saved or {})
            assert ck.verify().ok

    return run


@pytest.fixture(scope="session")
def save() -> Callable[..., str]:
    """Returns a function that saves arrays or slices with TensorFlow and returns the prefix.

    ``save(prefix, arrays, specs=None)``: `arrays` is a dict, or a sequence of pairs if a name
    occurs more than once; `specs` has one slice specification of SaveV2 per array.
    """
    tf = pytest.importorskip("tensorflow")

    def run(prefix: str | Path, arrays: Any, specs: list[str] | None = None) -> str:
        from tensorflow.python.eager import context

        pairs = list(arrays.items() if isinstance(arrays, dict) else arrays)
        with context.eager_mode():  # also if TF1 behavior is enabled
            tf.raw_ops.SaveV2(
                prefix=str(prefix),
                tensor_names=[name for name, _ in pairs],
                shape_and_slices=specs or [""] * len(pairs),
                tensors=[value for _, value in pairs],
            )
        return str(prefix)

    return run


@pytest.fixture(params=["stock"] if WITHOUT_LIBRARY else ["auto", "native"])
def backend_name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Selects what reads variables.

    ``"auto"``: TensorFlow's ops with our kernels. ``"native"``: our ops. ``"stock"``: TensorFlow's
    ops with its own kernels, in a process without the op library (test_without_library.py).
    """
    pytest.importorskip("tensorflow")
    from tensorbundle.tf import op_library

    if not WITHOUT_LIBRARY and op_library.load() is None:
        pytest.skip(f"no op library: {op_library.unavailable_reason()}")
    with tb.tf.options(op="auto" if WITHOUT_LIBRARY else request.param):
        yield request.param


@pytest.fixture(scope="session")
def ops() -> ModuleType:
    """Returns the op library's functions; skips the test if the library is not built."""
    pytest.importorskip("tensorflow")
    from tensorbundle.tf import op_library

    if op_library.find() is None:
        pytest.skip("the op library is not built")
    return op_library.load_op_library()
