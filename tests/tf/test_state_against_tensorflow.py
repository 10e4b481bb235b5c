# SPDX-License-Identifier: Apache-2.0
"""The functions for the state file return the same as TensorFlow's on the same inputs."""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path

import pytest

tf = pytest.importorskip("tensorflow")

from tensorbundle import state  # noqa: E402 - after the importorskip

pytestmark = pytest.mark.tf

VERSION = tuple(int(part) for part in tf.__version__.split(".")[:2])
is_tf_2_21_or_later = pytest.mark.skipif(VERSION < (2, 21), reason="older TensorFlow differs here")

FIELDS = (
    "model_checkpoint_path",
    "all_model_checkpoint_paths",
    "all_model_checkpoint_timestamps",
    "last_preserved_timestamp",
)


class Outcome:
    """The outcome of a call: its value or exception type, and its log lines."""

    def __init__(self, logger: str, function, *arguments, **options) -> None:
        records: list[logging.LogRecord] = []
        handler = logging.Handler()
        handler.emit = records.append
        target = logging.getLogger(logger)
        level, propagate = target.level, target.propagate
        target.addHandler(handler)
        target.setLevel(logging.INFO)
        target.propagate = False
        self.value, self.error = None, None
        try:
            self.value = function(*arguments, **options)
        except Exception as error:
            self.error = error
        finally:
            target.removeHandler(handler)
            target.setLevel(level)
            target.propagate = propagate
        lines = [(record.levelname, record.getMessage()) for record in records]
        # TensorFlow logs once per process that a function is deprecated.
        self.log = [line for line in lines if not line[1].startswith("From ")]


def both(name: str, *arguments, **options) -> tuple[Outcome, Outcome]:
    """Calls TensorFlow's function and tensorbundle's function."""
    original = getattr(tf.compat.v1.train, name)
    return (
        Outcome("tensorflow", original, *arguments, **options),
        Outcome("tensorbundle", getattr(state, name), *arguments, **options),
    )


def assert_same(original: Outcome, result: Outcome) -> None:
    """Requires the same value and log, or an exception that the same `except` catches."""
    if original.error is not None:
        assert isinstance(result.error, type(original.error)), (original.error, result.error)
        return
    assert result.error is None
    assert comparable(result.value) == comparable(original.value)
    assert [without_reason(line) for line in result.log] == [
        without_reason(line) for line in original.log
    ]


def comparable(value):
    """Converts a state of either class to a comparable form, in which NaN equals NaN."""
    if value is None or isinstance(value, (str, bool, list)):
        return value
    path, paths, times, last = (getattr(value, field) for field in FIELDS)
    return path, list(paths), [repr(float(time)) for time in times], repr(float(last))


def without_reason(line: tuple[str, str]) -> tuple[str, str]:
    """Returns a log line; removes the reason from a parse error, which depends on the parser."""
    level, message = line
    return (level, message.split(" : ")[0]) if message.startswith("ParseError") else line


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Creates checkpoints of both formats; the folder is also the working directory."""
    directory = tmp_path / "run"
    directory.mkdir()
    for name in ("m.index", "m.data-00000-of-00001", "v1", "s-00000-of-00002", "s-00001-of-00002"):
        (directory / name).touch()
    (directory / "sub").mkdir()
    (directory / "sub" / "m-7.index").touch()
    monkeypatch.chdir(directory)
    return directory


# Valid and invalid state files; TensorFlow is the oracle.
GRAMMAR = [
    'model_checkpoint_path: "m"',
    "model_checkpoint_path: 'm'",
    'model_checkpoint_path:"m"all_model_checkpoint_paths:"m"',
    'model_checkpoint_path: "m"\r\nall_model_checkpoint_paths: "m"\r\n',
    '# c\nmodel_checkpoint_path # "x"\n : # y\n "m" # z',
    'model_checkpoint_path: "" "m"',
    "model_checkpoint_path: 'x' \"y\"\n'z'",
    'model_checkpoint_path: "old" model_checkpoint_path: "m"',
    'model_checkpoint_path: "m";',
    'model_checkpoint_path: "m",',
    'model_checkpoint_path: "m",;',
    'model_checkpoint_path: "m";;',
    ';model_checkpoint_path: "m"',
    'model_checkpoint_path: "m"\u00a0\u3000\x0c\x1c',
    'model_checkpoint_path: "m#n" # o',
    'model_checkpoint_path: "it\'s"',
    'model_checkpoint_path: "\u6a21\u578b/gr\u00f6\u00dfe"',
    r'model_checkpoint_path: "\x6d\155\x6\7"',
    r'model_checkpoint_path: "\u006d\U0000006d"',
    r'model_checkpoint_path: "\a\b\f\n\r\t\v\\\"\'"',
    r'model_checkpoint_path: "\xc3\xa9\303\251"',
    r'model_checkpoint_path: "\xc3" "\xa9"',
    r'model_checkpoint_path: "\xff"',
    r'model_checkpoint_path: "\x"',
    r'model_checkpoint_path: "\u12"',
    r'model_checkpoint_path: "m\\"',
    'model_checkpoint_path: "m\\"',
    'model_checkpoint_path: "m',
    'model_checkpoint_path: "m\nn"',
    "model_checkpoint_path: \"m'",
    'model_checkpoint_path: ["m"]',
    'model_checkpoint_path "m"',
    'model_checkpoint_path = "m"',
    'model_checkpoint_path: { "m" }',
    "model_checkpoint_path { }",
    "model_checkpoint_path: m",
    "model_checkpoint_path: 3",
    "model_checkpoint_path: true",
    'model_checkpoint_path: ""',
    'MODEL_CHECKPOINT_PATH: "m"',
    '1: "m"',
    '{ model_checkpoint_path: "m" }',
    '\ufeffmodel_checkpoint_path: "m"',
    "",
    " \n\t",
    "# only a comment",
    "last_preserved_timestamp: 1",
    'model_checkpoint_path: "m" other: 1',
    'model_checkpoint_path: "m"\n  other: "x"',
    'model_checkpoint_path: "m" all_model_checkpoint_paths: ["a", "m"]',
    'model_checkpoint_path: "m" all_model_checkpoint_paths: []',
    'model_checkpoint_path: "m" all_model_checkpoint_paths: ["a" "b", "/c"] ',
    'model_checkpoint_path: "m" all_model_checkpoint_paths: ["a",]',
    'model_checkpoint_path: "m" all_model_checkpoint_paths: ["a"; "m"]',
    'model_checkpoint_path: "m" all_model_checkpoint_paths: ["a" "m"',
    'model_checkpoint_path: "m" all_model_checkpoint_timestamps: [1, 2.5, -3e2]',
    'model_checkpoint_path: "m" all_model_checkpoint_timestamps: [nan, inf, -inf, 1f]',
    "\x08\x01",
    "\n\x01m\x12\x01m",
]
NUMBERS = ["1", "+1", "-1", ".5", "1.", "1e3", "1.5E-3", "1f", "nan", "inf", "Infinity", "-nan"]
INVALID_NUMBERS = ["0x10", "1.2.3", "- 1", "soon", '"1"', "[1]", "--1", "", ":", "f", "_1"]


@pytest.mark.parametrize("text", GRAMMAR, ids=ascii)
def test_grammar_equals_tensorflow(run: Path, text: str) -> None:
    (run / "checkpoint").write_bytes(text.encode())
    assert_same(*both("get_checkpoint_state", str(run)))
    if "\\" not in text:  # TensorFlow treats a backslash in a path as part of a pattern
        assert_same(*both("latest_checkpoint", str(run)))


@pytest.mark.parametrize("number", NUMBERS + INVALID_NUMBERS)
def test_numbers_equal_tensorflow(run: Path, number: str) -> None:
    (run / "checkpoint").write_text(
        f'model_checkpoint_path: "m" last_preserved_timestamp: {number}\n# end'
    )
    original, result = both("get_checkpoint_state", str(run))
    assert (original.value is None) == (number in INVALID_NUMBERS)
    assert_same(original, result)


@is_tf_2_21_or_later
@pytest.mark.parametrize(
    "text",
    [
        r'model_checkpoint_path: "\u00e9\u4e2d"',
        r'model_checkpoint_path: "\U0001f600"',
        r'model_checkpoint_path: "\ud800"',
        r'model_checkpoint_path: "\ud83d\ude00"',
        r'model_checkpoint_path: "\400"',
        'model_checkpoint_path: "m" last_preserved_timestamp: 012',
        'model_checkpoint_path: "m" last_preserved_timestamp: 1F',
    ],
)
def test_grammar_of_newer_protobuf_equals_tensorflow(run: Path, text: str) -> None:
    (run / "checkpoint").write_text(text)
    assert_same(*both("get_checkpoint_state", str(run)))


def test_invalid_utf8_raises_unicode_decode_error(run: Path) -> None:
    (run / "checkpoint").write_bytes(b'model_checkpoint_path: "\xff"')
    original, result = both("get_checkpoint_state", str(run))
    assert isinstance(original.error, UnicodeDecodeError)
    assert_same(original, result)


@pytest.mark.parametrize("times", [None, [0.1, 1795195457.464784], [math.inf, 5e-324]], ids=str)
def test_state_written_by_tensorflow_is_read(run: Path, times: list[float] | None) -> None:
    paths = ["old/m\u00fc 'x'", 'm"1\\\n\t\x7f']
    tf.compat.v1.train.update_checkpoint_state(
        str(run), paths[-1], paths, all_model_checkpoint_timestamps=times
    )
    original, result = both("get_checkpoint_state", str(run))
    assert original.value.model_checkpoint_path == f"{run}/{paths[-1]}"
    assert_same(original, result)


def test_state_written_by_checkpoint_manager_is_read(run: Path) -> None:
    checkpoint = tf.train.Checkpoint(v=tf.Variable(1.0))
    manager = tf.train.CheckpointManager(checkpoint, str(run / "kept"), max_to_keep=2)
    written = [manager.save() for _ in range(3)]
    original, result = both("get_checkpoint_state", str(run / "kept"))
    assert_same(original, result)
    assert result.value.all_model_checkpoint_paths == written[1:]
    assert state.latest_checkpoint(run / "kept") == written[-1]


PATHS = [
    "m",
    "v1",
    "./m",
    "../run/m",
    "sub/m-7",
    "sub/../m",
    "sub",
    "sub/",
    ".",
    "m.index",
    "s-?????-of-00002",
    "s-00000-of-00002",
    "s",
    "gone",
    "gone/x",
    "v1/x",
    "m/",
    "/no/such/place/gone",
    "{run}/m",
    "{run}/../run/m",
    "{run}/gone",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("directory", ["{run}", "{run}/", ".", "", "../run", "{run}/sub/.."])
def test_paths_resolve_as_in_tensorflow(run: Path, path: str, directory: str) -> None:
    text = f"model_checkpoint_path: '{path}' all_model_checkpoint_paths: ['x', '{path}', '/y']"
    (run / "checkpoint").write_text(text.format(run=run))
    directory = directory.format(run=run)
    assert_same(*both("get_checkpoint_state", directory))
    assert_same(*both("latest_checkpoint", directory))
    assert_same(*both("checkpoint_exists", path.format(run=run)))


@pytest.mark.parametrize("name", [None, "checkpoint", "other", "gone", "", "sub", "m.index"])
def test_state_file_name_is_used_as_in_tensorflow(run: Path, name: str | None) -> None:
    (run / "checkpoint").write_text('model_checkpoint_path: "m"')
    (run / "other").write_text('model_checkpoint_path: "v1"')
    for function in ("get_checkpoint_state", "latest_checkpoint"):
        original, result = both(function, str(run), name)
        if name == "":
            # TensorFlow's message omits the last slash of the directory.
            original.log = [
                (level, text.replace(f"{run};", f"{run}/;")) for level, text in original.log
            ]
        assert_same(original, result)


def test_directory_without_state_equals_tensorflow(run: Path) -> None:
    for directory in (str(run), f"{run}/gone", f"{run}/v1", f"{run}/sub"):
        assert_same(*both("get_checkpoint_state", directory))
        assert_same(*both("latest_checkpoint", directory))
    (run / "sub" / "checkpoint").mkdir()
    assert_same(*both("latest_checkpoint", str(run / "sub")))


def test_path_object_is_accepted(run: Path) -> None:
    (run / "checkpoint").write_text('model_checkpoint_path: "m"')
    assert_same(*both("get_checkpoint_state", run))
    assert_same(*both("latest_checkpoint", run))
    assert_same(*both("latest_checkpoint", Path(".")))


@pytest.mark.parametrize("path", [None, 3])
def test_value_that_is_not_a_path_raises(path) -> None:
    assert_same(*both("get_checkpoint_state", path))
    assert_same(*both("latest_checkpoint", path))
    assert_same(*both("checkpoint_exists", path))


def test_intended_differences_from_tensorflow(run: Path) -> None:
    """Bytes, special characters, and a moved directory."""
    (run / "checkpoint").write_text('model_checkpoint_path: "m"')
    original, result = both("latest_checkpoint", os.fsencode(run))
    assert isinstance(original.error, TypeError)
    assert result.value == f"{run}/m"

    special = run / "[1]"
    special.mkdir()
    (special / "m.index").touch()
    (special / "checkpoint").write_text('model_checkpoint_path: "m"')
    original, result = both("latest_checkpoint", str(special))
    assert (original.value, result.value) == (None, f"{special}/m")
    original, result = both("checkpoint_exists", f"{run}/?")
    assert (original.value, result.value) == (True, False)

    (run / "checkpoint").write_text('model_checkpoint_path: "/no/such/place/m"')
    original, result = both("latest_checkpoint", str(run))
    assert (original.value, result.value) == (None, f"{run}/m")


# --- checkpoints_iterator


class Clock:
    """A clock that advances only in sleep(), and saves a checkpoint at given times."""

    def __init__(self, directory: Path, saves: dict[int, str]) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        self._directory = directory
        self._saves = {1000 + when: name for when, name in saves.items()}
        self._save()

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds
        self._save()

    def _save(self) -> None:
        for when in [when for when in self._saves if when <= self.now]:
            name = self._saves.pop(when)
            self._directory.mkdir(exist_ok=True)
            (self._directory / "checkpoint").write_text(f'model_checkpoint_path: "{name}"')
            (self._directory / f"{name}.index").touch()


def iterate(
    logger: str,
    function,
    directory: Path,
    saves: dict[int, str],
    timeout_results: list[object] | None,
    work: float,
    options: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple:
    """Returns the values, times, timeout calls, sleeps, end time and log of an iteration."""
    clock = Clock(directory, saves)
    timeout_calls: list[float] = []
    yielded: list[tuple[float, str]] = []

    def timeout_fn() -> object:
        timeout_calls.append(clock.now)
        return timeout_results[min(len(timeout_calls), len(timeout_results)) - 1]

    def consume() -> None:
        extra = {} if timeout_results is None else {"timeout_fn": timeout_fn}
        for path in function(str(directory), **options, **extra):
            yielded.append((clock.now, path))
            clock.now += work

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", clock.read)
        patch.setattr(time, "monotonic", clock.read)
        patch.setattr(time, "sleep", clock.sleep)
        outcome = Outcome(logger, consume)
    assert outcome.error is None
    return yielded, timeout_calls, clock.sleeps, clock.now, outcome.log


@is_tf_2_21_or_later
@pytest.mark.parametrize("timeout", [0, 0.5, 1, 1.5, 4])
@pytest.mark.parametrize(
    "timeout_results", [None, [True], [False, True], [0, "", None, 1]], ids=str
)
@pytest.mark.parametrize(("interval", "work"), [(0, 0), (5, 0), (5, 2), (5, 9), (0, 3)])
def test_iterator_equals_tensorflow(
    tmp_path: Path, monkeypatch, timeout: float, timeout_results, interval: float, work: float
) -> None:
    saves = {0: "m-1", 2: "m-2", 3: "m-2", 7: "m-3"}
    options = {"min_interval_secs": interval, "timeout": timeout}
    original, result = (
        iterate(
            logger, function, tmp_path / "run", saves, timeout_results, work, options, monkeypatch
        )
        for logger, function in [
            ("tensorflow", tf.train.checkpoints_iterator),
            ("tensorbundle", state.checkpoints_iterator),
        ]
    )
    assert result == original
    assert original[0], "the iterator yielded nothing to compare"


@is_tf_2_21_or_later
def test_endless_iterator_calls_timeout_fn(tmp_path: Path, monkeypatch) -> None:
    saves = {3: "m-1", 9: "m-2"}
    results = []
    for logger, function in [
        ("tensorflow", tf.train.checkpoints_iterator),
        ("tensorbundle", state.checkpoints_iterator),
    ]:
        directory = tmp_path / logger
        yielded, *rest = iterate(
            logger, function, directory, saves, [False, True], 0, {}, monkeypatch
        )
        names = [(when, os.path.basename(path)) for when, path in yielded]
        results.append((names, rest[:3]))
    assert results[0] == results[1]
    assert [name for _, name in results[0][0]] == ["m-1", "m-2"]
