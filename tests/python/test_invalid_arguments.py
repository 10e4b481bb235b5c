# SPDX-License-Identifier: Apache-2.0
"""Invalid arguments either work or raise a documented exception with a message."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from craft.bundle import Bundle

import tensorbundle as tb


class Index:
    def __index__(self) -> int:
        return 1


class BadPath:
    def __fspath__(self) -> int:
        return 3


INTEGERS: list[Any] = [
    *(True, False, -1, 0, 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 2**200),
    *(np.int64(3), np.int8(-1), np.uint64(2**63), np.bool_(True), np.array(5), Index()),
]
TEXTS: list[Any] = [
    *("", "x", "\ud800", "\udcff", "a\0b", "\U0010ffff", "x" * 100_000, np.str_("t")),
    *(b"", b"x", b"\xff", b"a\0b", bytearray(b"x"), memoryview(b"x")),
]
OTHERS: list[Any] = [
    *(
        None,
        1.5,
        float("nan"),
        float("inf"),
        1j,
        np.float32(1),
        np.array(1.5),
        np.datetime64("2020"),
    ),
    *([], [1], ["x"], ["\ud800"], [None], (), (1, 2), {}, {"x": 1}, set(), range(3), iter([1])),
    *(np.array([1, 2]), np.array([]), np.array(["a"]), np.dtype("f4")),
    *(slice(None), slice(2**70, -(2**70), 2**65), slice(1.5), slice(0, 1, 0), slice("a"), ...),
    *(object(), int, tb.Error, BadPath(), pathlib.Path("\ud800")),
]
VALUES = INTEGERS + TEXTS + OTHERS
# Messages of pybind11, of codecs and of C that users must not see.
INTERNAL_MESSAGES = [
    *("incompatible function arguments", "incompatible constructor", "codec can't"),
    *("surrogates not allowed", "C long", "C int", "too large to convert", "Unable to cast"),
]


def show(value: Any) -> str:
    """Returns a test id that is the same in every process."""
    text = ascii(value)
    return type(value).__name__ if " at 0x" in text else text[:40]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    bundle = Bundle()
    bundle.add("t", np.arange(12, dtype=np.float32).reshape(3, 4))
    bundle.add("scalar", np.int64(7))
    bundle.add("int4", np.array([1, 2], ml_dtypes.int4))
    bundle.add("empty", np.zeros((0, 3), np.float32))
    bundle.add_strings("strings", [b"a", b"bb"], (2,))
    bundle.add_sliced("sliced", np.arange(8.0), [((0, 4),), ((4, 4),)])
    return bundle.write(tmp_path_factory.mktemp("odd") / "m")


def attempt(call: Callable[[], object]) -> None:
    """Requires `call` to succeed or to raise a documented exception with a readable message."""
    try:
        call()
    except (tb.Error, TypeError, ValueError, IndexError, BufferError) as error:
        assert not isinstance(error, UnicodeError)
        message = str(error)
        assert message
        assert len(message) < 1000
        assert not [words for words in INTERNAL_MESSAGES if words in message], message


# Name of the case: function of (prefix, value).
OPENING: dict[str, Callable[[pathlib.Path, Any], object]] = {
    "open": lambda prefix, value: tb.open(value),
    "open(verify)": lambda prefix, value: tb.open(prefix, verify=value),
    "open(io)": lambda prefix, value: tb.open(prefix, io=value),
    "open(threads)": lambda prefix, value: tb.open(prefix, threads=value),
    "load_checkpoint": lambda prefix, value: tb.load_checkpoint(value),
    "NewCheckpointReader": lambda prefix, value: tb.NewCheckpointReader(value),
    "list_variables": lambda prefix, value: tb.list_variables(value),
    "load_variable(path)": lambda prefix, value: tb.load_variable(value, "t"),
    "load_variable(name)": tb.load_variable,
    "checkpoint_exists": lambda prefix, value: tb.checkpoint_exists(value),
    "latest_checkpoint": lambda prefix, value: tb.latest_checkpoint(value),
    "latest_checkpoint(name)": lambda prefix, value: tb.latest_checkpoint(prefix.parent, value),
    "get_checkpoint_state": lambda prefix, value: tb.get_checkpoint_state(value),
    "iterator(directory)": lambda prefix, value: list(tb.checkpoints_iterator(value, timeout=0)),
    "iterator(interval)": lambda prefix, value: list(
        tb.checkpoints_iterator(prefix.parent, value, timeout=0)
    ),
    "align(source)": lambda prefix, value: tb.align(value, prefix.parent / "aligned"),
    "align(alignment)": lambda prefix, value: tb.align(
        prefix, prefix.parent / "new" / str(abs(hash(ascii(value)))), alignment=value
    ),
    "align(threads)": lambda prefix, value: tb.align(
        prefix, prefix.parent / "threads" / str(abs(hash(ascii(value)))), threads=value
    ),
}
READING: dict[str, Callable[[tb.Checkpoint, Any], object]] = {
    "[]": lambda checkpoint, value: checkpoint[value],
    "get": lambda checkpoint, value: checkpoint.get(value),
    "in": lambda checkpoint, value: value in checkpoint,
    "verify(names)": lambda checkpoint, value: checkpoint.verify(value),
    "verify([name])": lambda checkpoint, value: checkpoint.verify([value]),
    "verify(progress)": lambda checkpoint, value: checkpoint.verify(progress=value),
    "get_tensor": lambda checkpoint, value: tb.load_checkpoint(checkpoint.path).get_tensor(value),
    "has_tensor": lambda checkpoint, value: tb.load_checkpoint(checkpoint.path).has_tensor(value),
    "==": lambda checkpoint, value: checkpoint["t"] == value,
    "dlpack(stream)": lambda checkpoint, value: checkpoint["t"].__dlpack__(stream=value),
    "dlpack(version)": lambda checkpoint, value: checkpoint["t"].__dlpack__(max_version=value),
    "dlpack(device)": lambda checkpoint, value: checkpoint["t"].__dlpack__(dl_device=value),
}
TENSORS = ["t", "scalar", "int4", "empty", "strings", "sliced"]


@pytest.mark.parametrize("value", VALUES, ids=show)
@pytest.mark.parametrize("case", OPENING)
def test_open_raises_documented_exceptions(
    prefix: pathlib.Path, case: str, value: Any, tmp_path: pathlib.Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attempt(lambda: OPENING[case](prefix, value))


@pytest.mark.parametrize("value", VALUES, ids=show)
@pytest.mark.parametrize("case", READING)
def test_read_raises_documented_exceptions(prefix: pathlib.Path, case: str, value: Any) -> None:
    with tb.open(prefix) as checkpoint:
        attempt(lambda: READING[case](checkpoint, value))


@pytest.mark.parametrize("value", VALUES, ids=show)
@pytest.mark.parametrize("name", TENSORS)
def test_indexing_raises_documented_exceptions(prefix: pathlib.Path, name: str, value: Any) -> None:
    with tb.open(prefix) as checkpoint:
        tensor = checkpoint[name]
        for index in (value, (value,), (value, value), (None, value), (..., value)):
            attempt(lambda index=index: tensor[index])  # type: ignore[misc]


@pytest.mark.parametrize("value", VALUES, ids=show)
def test_set_num_threads_raises_documented_exceptions(value: Any) -> None:
    try:
        attempt(lambda: tb.set_num_threads(value))
    finally:
        tb.set_num_threads(None)


@pytest.mark.parametrize("count", [1, np.int64(3), np.uint8(2), np.array(2), Index()])
def test_threads_accepts_every_integer_type(prefix: pathlib.Path, count: Any) -> None:
    assert tb.open(prefix, threads=count).threads == int(count.__index__())


@pytest.mark.parametrize("count", [True, np.bool_(True), 1.0, "1", [1]])
def test_threads_of_other_type_raises_type_error(prefix: pathlib.Path, count: Any) -> None:
    with pytest.raises(TypeError, match="threads must be an int"):
        tb.open(prefix, threads=count)


@pytest.mark.parametrize("seconds", ["1", None, [], 1j, object()])
def test_interval_and_timeout_require_numbers(tmp_path: pathlib.Path, seconds: Any) -> None:
    with pytest.raises(TypeError, match="min_interval_secs must be a number of seconds"):
        next(tb.checkpoints_iterator(tmp_path, seconds))
    if seconds is not None:
        with pytest.raises(TypeError, match="timeout must be a number of seconds"):
            next(tb.checkpoints_iterator(tmp_path, timeout=seconds))
    with pytest.raises(ValueError, match="not nan"):
        next(tb.checkpoints_iterator(tmp_path, timeout=float("nan")))
    with pytest.raises(TypeError, match="timeout_fn must be callable"):
        next(tb.checkpoints_iterator(tmp_path, timeout_fn=3))  # type: ignore[arg-type]
    assert list(tb.checkpoints_iterator(tmp_path, timeout=-(10**400))) == []


def test_long_interval_is_split_into_daily_sleeps(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.index").touch()
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m"')
    sleeps: list[float] = []

    class StopSleepingError(Exception):
        pass

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 3:
            raise StopSleepingError

    monkeypatch.setattr("time.sleep", sleep)
    found = tb.checkpoints_iterator(tmp_path, min_interval_secs=10**400, timeout=0)
    assert next(found) == f"{tmp_path}/m"
    with pytest.raises(StopSleepingError):
        next(found)
    assert sleeps == [86400.0] * 3
