# SPDX-License-Identifier: Apache-2.0
"""The `checkpoint` state file: reading it, its latest checkpoint, and waiting for new ones."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import time
from pathlib import Path

import pytest

from tensorbundle import errors, state


def write_state(directory: Path, text: str | bytes, name: str = "checkpoint") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    data = text.encode() if isinstance(text, str) else text
    (directory / name).write_bytes(data)
    return directory


def touch(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


# --- get_checkpoint_state


def test_missing_state_file_returns_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert state.get_checkpoint_state(tmp_path) is None
    assert state.get_checkpoint_state(tmp_path / "nowhere") is None
    assert state.latest_checkpoint(tmp_path) is None
    assert not caplog.records


def test_relative_paths_are_joined_without_normalising(tmp_path: Path) -> None:
    write_state(
        tmp_path,
        'model_checkpoint_path: "../a/m-2"\n'
        'all_model_checkpoint_paths: ["./m-1", "/abs/m-0"]\n'
        "all_model_checkpoint_timestamps: [1, 2] last_preserved_timestamp: 3",
    )
    read = state.get_checkpoint_state(f"{tmp_path}/.")
    assert read is not None
    assert read.model_checkpoint_path == f"{tmp_path}/./../a/m-2"
    assert read.all_model_checkpoint_paths == [f"{tmp_path}/././m-1", "/abs/m-0"]
    assert read.all_model_checkpoint_timestamps == [1.0, 2.0]
    assert read.last_preserved_timestamp == 3.0


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, "file://{}".format])
def test_accepts_every_path_type(tmp_path: Path, kind) -> None:
    write_state(tmp_path, 'model_checkpoint_path: "m-1"')
    write_state(tmp_path, 'model_checkpoint_path: "m-2"', "best")
    prefixes = [touch(tmp_path / f"m-{i}.index").removesuffix(".index") for i in (1, 2)]
    directory = kind(str(tmp_path))
    assert state.latest_checkpoint(directory) == prefixes[0]
    assert state.latest_checkpoint(directory, "best") == prefixes[1]
    assert state.latest_checkpoint(directory, latest_filename=Path("best")) == prefixes[1]
    assert state.checkpoint_exists(kind(prefixes[0]))
    read = state.get_checkpoint_state(directory)
    assert read is not None
    assert read.model_checkpoint_path == prefixes[0]


def test_accepts_directory_name_that_is_not_utf8(tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path) + b"/\xff"
    try:
        os.mkdir(directory)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    for name, text in [(b"checkpoint", b'model_checkpoint_path: "m"'), (b"m.index", b"")]:
        with open(os.path.join(directory, name), "wb") as file:
            file.write(text)
    assert state.latest_checkpoint(directory) == os.fsdecode(directory + b"/m")


@pytest.mark.parametrize(
    "text", ["", " \n", "# x", 'model_checkpoint_path: ""', "last_preserved_timestamp: 1"]
)
def test_state_without_latest_raises_corruption_error(tmp_path: Path, text: str) -> None:
    write_state(tmp_path, text)
    for function in (state.get_checkpoint_state, state.latest_checkpoint):
        with pytest.raises(ValueError, match="Invalid checkpoint state loaded from") as caught:
            function(os.fsencode(tmp_path))
        assert isinstance(caught.value, errors.CorruptionError)
        assert str(tmp_path) in str(caught.value)


def test_text_that_is_not_utf8_raises_unicode_decode_error(tmp_path: Path) -> None:
    write_state(tmp_path, b'model_checkpoint_path: "\xff"')
    with pytest.raises(UnicodeDecodeError, match="checkpoint") as caught:
        state.get_checkpoint_state(tmp_path)
    assert isinstance(caught.value, errors.CorruptionError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_unparsable_state_is_ignored_with_two_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_state(tmp_path, 'model_checkpoint_path: "m"\nnonsense: 1')
    touch(tmp_path / "m.index")
    assert state.latest_checkpoint(tmp_path) is None
    assert [(r.name, r.levelname) for r in caplog.records] == [("tensorbundle", "WARNING")] * 2
    assert caplog.messages[0].startswith("ParseError: 2:1 : ")
    assert caplog.messages[1] == f"{tmp_path}/checkpoint: Checkpoint ignored"


def test_directory_as_state_file_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoint").mkdir()
    assert state.get_checkpoint_state(tmp_path) is None
    assert caplog.messages == [
        f"FailedPreconditionError: {tmp_path}/checkpoint; Is a directory",
        f"{tmp_path}/checkpoint: Checkpoint ignored",
    ]


def test_pipe_as_state_file_does_not_block(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "checkpoint")
    assert state.get_checkpoint_state(tmp_path) is None
    assert "Not a regular file" in caplog.messages[0]


def test_huge_state_file_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open(tmp_path / "checkpoint", "wb") as file:
        file.truncate(1 << 40)
    assert state.get_checkpoint_state(tmp_path) is None
    assert "too many for a state file" in caplog.messages[0]


@pytest.mark.parametrize("path", [None, 3, ["a"]])
def test_other_type_raises_type_error(path) -> None:
    for function in (state.get_checkpoint_state, state.latest_checkpoint, state.checkpoint_exists):
        with pytest.raises(TypeError, match="PathLike"):
            function(path)


def test_remote_directory_raises_error() -> None:
    with pytest.raises(NotImplementedError, match="only local paths"):
        state.latest_checkpoint("gs://bucket/run")


# --- latest_checkpoint, checkpoint_exists


@pytest.mark.parametrize("name", ["m.index", "m"])
def test_finds_checkpoint_of_either_format(tmp_path: Path, name: str) -> None:
    write_state(tmp_path, 'model_checkpoint_path: "m"')
    assert not state.checkpoint_exists(tmp_path / "m")
    touch(tmp_path / name)
    assert state.checkpoint_exists(tmp_path / "m")
    assert state.latest_checkpoint(tmp_path) == f"{tmp_path}/m"


def test_finds_sharded_v1_checkpoint_by_pattern(tmp_path: Path) -> None:
    write_state(tmp_path, 'model_checkpoint_path: "m-?????-of-00002"')
    touch(tmp_path / "m-00001-of-00003")
    assert state.latest_checkpoint(tmp_path) is None
    touch(tmp_path / "m-00001-of-00002")
    assert state.latest_checkpoint(tmp_path) == f"{tmp_path}/m-?????-of-00002"
    assert not state.checkpoint_exists(tmp_path / "m")


def test_logs_missing_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_state(tmp_path, 'model_checkpoint_path: "gone" all_model_checkpoint_paths: "m"')
    touch(tmp_path / "m.index")
    assert state.latest_checkpoint(tmp_path) is None
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"Couldn't match files for checkpoint {tmp_path}/gone"


@pytest.mark.parametrize("character", "[]*?\\")
def test_pattern_characters_are_literal(tmp_path: Path, character: str) -> None:
    directory = tmp_path / f"run{character}1"
    write_state(directory, "model_checkpoint_path: 'm'")
    touch(directory / "m.index")
    touch(tmp_path / "run1" / "other.index")
    assert state.latest_checkpoint(directory) == f"{directory}/m"
    assert not state.checkpoint_exists(tmp_path / "run[1]" / "other")
    assert not state.checkpoint_exists(tmp_path / "run1" / "oth*")
    assert not state.checkpoint_exists(tmp_path / "run1" / "othe?")


@pytest.mark.parametrize("recorded", ["/no/such/place/m-7", "../gone/m-7", "sub/m-7"])
def test_finds_moved_checkpoint_beside_state_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recorded: str
) -> None:
    write_state(tmp_path / "new", f'model_checkpoint_path: "{recorded}"')
    touch(tmp_path / "new" / "m-7.index")
    assert state.latest_checkpoint(tmp_path / "new") == f"{tmp_path}/new/m-7"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert recorded in record.getMessage()


def test_existing_absolute_path_is_kept(tmp_path: Path) -> None:
    kept = touch(tmp_path / "old" / "m.index").removesuffix(".index")
    write_state(tmp_path / "new", f'model_checkpoint_path: "{kept}"')
    touch(tmp_path / "new" / "m.index")
    assert state.latest_checkpoint(tmp_path / "new") == kept


@pytest.mark.parametrize("recorded", ["/no/such/place/", "/no/such/..", "/no/such/sub"])
def test_directory_is_not_a_moved_checkpoint(tmp_path: Path, recorded: str) -> None:
    write_state(tmp_path, f'model_checkpoint_path: "{recorded}"')
    (tmp_path / "sub").mkdir()
    assert state.latest_checkpoint(tmp_path) is None


def test_path_with_nul_byte_is_ignored(tmp_path: Path) -> None:
    write_state(tmp_path, r'model_checkpoint_path: "m\x00"')
    touch(tmp_path / "m.index")
    assert state.latest_checkpoint(tmp_path) is None


# --- checkpoints_iterator


class Clock:
    """A fake clock that advances only in sleep() and runs scheduled events."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []
        self.events: dict[float, list] = {}

    def at(self, when: float, event) -> None:
        self.events.setdefault(when, []).append(event)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds
        for when in sorted(self.events):
            if when <= self.now:
                for event in self.events.pop(when):
                    event()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: fake.now)
    monkeypatch.setattr(time, "sleep", fake.sleep)
    return fake


def save(directory: Path, number: int) -> str:
    write_state(directory, f'model_checkpoint_path: "m-{number}"')
    return touch(directory / f"m-{number}.index").removesuffix(".index")


def test_iterator_yields_each_checkpoint_once(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tensorbundle")
    run = tmp_path / "run"
    clock.at(3, lambda: save(run, 1))
    clock.at(5, lambda: save(run, 1))
    clock.at(8, lambda: save(run, 2))
    found = list(state.checkpoints_iterator(run, timeout=10))
    assert found == [f"{run}/m-1", f"{run}/m-2"]
    assert set(clock.sleeps) == {1}
    assert clock.now == 18
    assert caplog.messages == [
        f"Waiting for new checkpoint at {run}",
        f"Found new checkpoint at {run}/m-1",
        f"Waiting for new checkpoint at {run}",
        f"Found new checkpoint at {run}/m-2",
        f"Waiting for new checkpoint at {run}",
        "Timed-out waiting for a checkpoint (without timeout_fn).",
    ]
    assert {record.levelname for record in caplog.records} == {"INFO"}


@pytest.mark.parametrize(("timeout", "sleeps"), [(0, 0), (0.9, 0), (1, 1), (2.5, 2)])
def test_iterator_stops_at_timeout(
    tmp_path: Path, clock: Clock, timeout: float, sleeps: int
) -> None:
    assert list(state.checkpoints_iterator(tmp_path, timeout=timeout)) == []
    assert len(clock.sleeps) == sleeps


def test_interval_is_measured_from_yield(tmp_path: Path, clock: Clock) -> None:
    save(tmp_path, 1)
    found = state.checkpoints_iterator(tmp_path, min_interval_secs=30, timeout=0)
    next(found)
    clock.now += 10  # the caller's work
    assert list(found) == []
    assert clock.sleeps == [20]


def test_iterator_does_not_sleep_after_slow_caller(tmp_path: Path, clock: Clock) -> None:
    save(tmp_path, 1)
    found = state.checkpoints_iterator(tmp_path, min_interval_secs=5, timeout=0)
    next(found)
    clock.now += 5
    assert list(found) == []
    assert clock.sleeps == []


def test_timeout_fn_is_called_after_timeouts_and_yields(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tensorbundle")
    save(tmp_path, 1)
    clock.at(4, lambda: save(tmp_path, 2))
    calls: list[float] = []
    answers = itertools.chain([False, False, 0], itertools.repeat("done"))

    def timeout_fn() -> object:
        calls.append(clock.now)
        return next(answers)

    found = list(state.checkpoints_iterator(tmp_path, timeout=2, timeout_fn=timeout_fn))
    assert found == [f"{tmp_path}/m-1", f"{tmp_path}/m-2"]
    # After the first yield, a timeout, the second yield, and a timeout.
    assert calls == [0, 2, 4, 6]
    assert caplog.messages[-1] == "Done. No new checkpoints will be generated."


def test_iterator_checks_arguments_at_first_step() -> None:
    iterator = state.checkpoints_iterator(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        next(iterator)
