# SPDX-License-Identifier: Apache-2.0
"""The state file's functions, ours and TensorFlow's, on the same inputs."""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path

import pytest

tf = pytest.importorskip("tensorflow")

from tensorbundle import state  # noqa: E402 - only where TensorFlow is

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
        # TensorFlow announces, once per process, that a function is deprecated.
        self.log = [line for line in lines if not line[1].startswith("From ")]


def both(name: str, *arguments, **options) -> tuple[Outcome, Outcome]:
    """Call TensorFlow's function and ours."""
    original = getattr(tf.compat.v1.train, name)
    return (
        Outcome("tensorflow", original, *arguments, **options),
        Outcome("tensorbundle", getattr(state, name), *arguments, **options),
    )


def same_answer(original: Outcome, ours: Outcome) -> None:
    """The same value, or an exception that the same `except` catches; the same log."""
    if original.error is not None:
        assert isinstance(ours.error, type(original.error)), (original.error, ours.error)
        return
    assert ours.error is None
    assert plain(ours.value) == plain(original.value)
    assert [shortened(line) for line in ours.log] == [shortened(line) for line in original.log]


def plain(value):
    """A state of either class in a comparable form; NaN equals NaN."""
    if value is None or isinstance(value, (str, bool, list)):
        return value
    path, paths, times, last = (getattr(value, field) for field in FIELDS)
    return path, list(paths), [repr(float(time)) for time in times], repr(float(last))


def shortened(line: tuple[str, str]) -> tuple[str, str]:
    """A log line; of a parse error without the reason, whose words are the parser's own."""
    level, message = line
    return (level, message.split(" : ")[0]) if message.startswith("ParseError") else line


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with checkpoints of both formats, which is also the working directory."""
    directory = tmp_path / "run"
    directory.mkdir()
    for name in ("m.index", "m.data-00000-of-00001", "v1", "s-00000-of-00002", "s-00001-of-00002"):
        (directory / name).touch()
    (directory / "sub").mkdir()
    (directory / "sub" / "m-7.index").touch()
    monkeypatch.chdir(directory)
    return directory


# Texts of state files, valid or not; TensorFlow is the oracle.
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
NO_NUMBERS = ["0x10", "1.2.3", "- 1", "soon", '"1"', "[1]", "--1", "", ":", "f", "_1"]


@pytest.mark.parametrize("text", GRAMMAR, ids=ascii)
def test_the_grammar(run: Path, text: str) -> None:
    (run / "checkpoint").write_bytes(text.encode())
    same_answer(*both("get_checkpoint_state", str(run)))
    if "\\" not in text:  # in a path, TensorFlow takes it for a part of a pattern
        same_answer(*both("latest_checkpoint", str(run)))


@pytest.mark.parametrize("number", NUMBERS + NO_NUMBERS)
def test_numbers(run: Path, number: str) -> None:
    (run / "checkpoint").write_text(
        f'model_checkpoint_path: "m" last_preserved_timestamp: {number}\n# end'
    )
    original, ours = both("get_checkpoint_state", str(run))
    assert (original.value is None) == (number in NO_NUMBERS)
    same_answer(original, ours)


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
def test_the_grammar_of_newer_protobuf(run: Path, text: str) -> None:
    (run / "checkpoint").write_text(text)
    same_answer(*both("get_checkpoint_state", str(run)))


def test_text_that_is_not_utf8(run: Path) -> None:
    (run / "checkpoint").write_bytes(b'model_checkpoint_path: "\xff"')
    original, ours = both("get_checkpoint_state", str(run))
    assert isinstance(original.error, UnicodeDecodeError)
    same_answer(original, ours)


@pytest.mark.parametrize("times", [None, [0.1, 1795195457.464784], [math.inf, 5e-324]], ids=str)
def test_what_tensorflow_writes_is_read(run: Path, times: list[float] | None) -> None:
    paths = ["old/m\u00fc 'x'", 'm"1\\\n\t\x7f']
    tf.compat.v1.train.update_checkpoint_state(
        str(run), paths[-1], paths, all_model_checkpoint_timestamps=times
    )
    original, ours = both("get_checkpoint_state", str(run))
    assert original.value.model_checkpoint_path == f"{run}/{paths[-1]}"
    same_answer(original, ours)


def test_what_a_checkpoint_manager_writes_is_read(run: Path) -> None:
    checkpoint = tf.train.Checkpoint(v=tf.Variable(1.0))
    manager = tf.train.CheckpointManager(checkpoint, str(run / "kept"), max_to_keep=2)
    written = [manager.save() for _ in range(3)]
    original, ours = both("get_checkpoint_state", str(run / "kept"))
    same_answer(original, ours)
    assert ours.value.all_model_checkpoint_paths == written[1:]
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
def test_relative_and_absolute_paths(run: Path, path: str, directory: str) -> None:
    text = f"model_checkpoint_path: '{path}' all_model_checkpoint_paths: ['x', '{path}', '/y']"
    (run / "checkpoint").write_text(text.format(run=run))
    directory = directory.format(run=run)
    same_answer(*both("get_checkpoint_state", directory))
    same_answer(*both("latest_checkpoint", directory))
    same_answer(*both("checkpoint_exists", path.format(run=run)))


@pytest.mark.parametrize("name", [None, "checkpoint", "other", "gone", "", "sub", "m.index"])
def test_names_of_the_state_file(run: Path, name: str | None) -> None:
    (run / "checkpoint").write_text('model_checkpoint_path: "m"')
    (run / "other").write_text('model_checkpoint_path: "v1"')
    for function in ("get_checkpoint_state", "latest_checkpoint"):
        original, ours = both(function, str(run), name)
        if name == "":
            # TensorFlow's own message lost the directory's last slash.
            original.log = [
                (level, text.replace(f"{run};", f"{run}/;")) for level, text in original.log
            ]
        same_answer(original, ours)


def test_invalid_directories(run: Path) -> None:
    for directory in (str(run), f"{run}/gone", f"{run}/v1", f"{run}/sub"):
        same_answer(*both("get_checkpoint_state", directory))
        same_answer(*both("latest_checkpoint", directory))
    (run / "sub" / "checkpoint").mkdir()
    same_answer(*both("latest_checkpoint", str(run / "sub")))


def test_path_objects(run: Path) -> None:
    (run / "checkpoint").write_text('model_checkpoint_path: "m"')
    same_answer(*both("get_checkpoint_state", run))
    same_answer(*both("latest_checkpoint", run))
    same_answer(*both("latest_checkpoint", Path(".")))


@pytest.mark.parametrize("path", [None, 3])
def test_values_that_are_not_paths(path) -> None:
    same_answer(*both("get_checkpoint_state", path))
    same_answer(*both("latest_checkpoint", path))
    same_answer(*both("checkpoint_exists", path))


def test_inputs_on_which_tensorflow_fails(run: Path) -> None:
    """Intended differences: bytes, special characters, a moved directory."""
    (run / "checkpoint").write_text('model_checkpoint_path: "m"')
    original, ours = both("latest_checkpoint", os.fsencode(run))
    assert isinstance(original.error, TypeError)
    assert ours.value == f"{run}/m"

    special = run / "[1]"
    special.mkdir()
    (special / "m.index").touch()
    (special / "checkpoint").write_text('model_checkpoint_path: "m"')
    original, ours = both("latest_checkpoint", str(special))
    assert (original.value, ours.value) == (None, f"{special}/m")
    original, ours = both("checkpoint_exists", f"{run}/?")
    assert (original.value, ours.value) == (True, False)

    (run / "checkpoint").write_text('model_checkpoint_path: "/no/such/place/m"')
    original, ours = both("latest_checkpoint", str(run))
    assert (original.value, ours.value) == (None, f"{run}/m")


# --- checkpoints_iterator


class Clock:
    """A clock that advances only in sleep(); a checkpoint appears now and then."""

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
    answers: list[object] | None,
    work: float,
    options: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple:
    """Everything observable of one iteration: values, times, calls, sleeps, the end, the log."""
    clock = Clock(directory, saves)
    asked: list[float] = []
    found: list[tuple[float, str]] = []

    def timeout_fn() -> object:
        asked.append(clock.now)
        return answers[min(len(asked), len(answers)) - 1]

    def consume() -> None:
        extra = {} if answers is None else {"timeout_fn": timeout_fn}
        for path in function(str(directory), **options, **extra):
            found.append((clock.now, path))
            clock.now += work

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", clock.read)
        patch.setattr(time, "monotonic", clock.read)
        patch.setattr(time, "sleep", clock.sleep)
        outcome = Outcome(logger, consume)
    assert outcome.error is None
    return found, asked, clock.sleeps, clock.now, outcome.log


@is_tf_2_21_or_later
@pytest.mark.parametrize("timeout", [0, 0.5, 1, 1.5, 4])
@pytest.mark.parametrize("answers", [None, [True], [False, True], [0, "", None, 1]], ids=str)
@pytest.mark.parametrize(("interval", "work"), [(0, 0), (5, 0), (5, 2), (5, 9), (0, 3)])
def test_iteration(
    tmp_path: Path, monkeypatch, timeout: float, answers, interval: float, work: float
) -> None:
    saves = {0: "m-1", 2: "m-2", 3: "m-2", 7: "m-3"}
    options = {"min_interval_secs": interval, "timeout": timeout}
    original, ours = (
        iterate(logger, function, tmp_path / "run", saves, answers, work, options, monkeypatch)
        for logger, function in [
            ("tensorflow", tf.train.checkpoints_iterator),
            ("tensorbundle", state.checkpoints_iterator),
        ]
    )
    assert ours == original
    assert original[0], "nothing was found: the test compares nothing"


@is_tf_2_21_or_later
def test_iteration_without_an_end_asks_after_each_yield(tmp_path: Path, monkeypatch) -> None:
    saves = {3: "m-1", 9: "m-2"}
    results = []
    for logger, function in [
        ("tensorflow", tf.train.checkpoints_iterator),
        ("tensorbundle", state.checkpoints_iterator),
    ]:
        directory = tmp_path / logger
        found, *rest = iterate(
            logger, function, directory, saves, [False, True], 0, {}, monkeypatch
        )
        names = [(when, os.path.basename(path)) for when, path in found]
        results.append((names, rest[:3]))
    assert results[0] == results[1]
    assert [name for _, name in results[0][0]] == ["m-1", "m-2"]
