# SPDX-License-Identifier: Apache-2.0
"""Errors of the command line: one line on stderr for every error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from craft.bundle import Bundle, shard_path
from craft.messages import TrackableObjectGraph

import tensorbundle as tb
from tensorbundle import cli

MNIST = Path(__file__).parents[1] / "data" / "checkpoints" / "mnist_tf1"


def program(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs the program in a child process, where logs and warnings go to stderr."""
    return subprocess.run(
        [sys.executable, "-m", "tensorbundle", *map(str, args)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **{"stdout": subprocess.PIPE, **options},  # type: ignore[call-overload]
    )


def state_file(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "checkpoint").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "content",
    [
        b'model_checkpoint_path: "gone"',
        b"nonsense: 1",
        b"",
        b"\xff\xfe",
        b'model_checkpoint_path: "\\ud800"',
        b"a\nb\nc: d",
    ],
)
def test_invalid_state_file_prints_one_line(tmp_path: Path, content: bytes) -> None:
    folder = state_file(tmp_path / "run", content)
    for words in (["ls", folder], ["verify", folder], ["align", folder, tmp_path / "x"]):
        done = program(*words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith("tensorbundle: ")
        assert str(folder) in done.stderr


def test_moved_checkpoint_is_listed_without_warning(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("w", np.arange(3.0))
    bundle.write(tmp_path / "m-7")
    done = program("ls", state_file(tmp_path, b'model_checkpoint_path: "/gone/m-7"'))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("w\t")


@pytest.mark.parametrize(
    "words",
    [
        ["plugin", "frobnicate"],
        ["ls"],
        ["ls", ""],
        ["ls", "a\0b"],
        ["ls", "a\ud800b"],
        ["ls", MNIST, "[z-a]"],
        ["ls", MNIST, ""],
        ["ls", MNIST, "conv2d/kernal"],
        ["ls", MNIST, "x" * 100_000],
        ["ls", MNIST, "--json=1"],
        ["verify", MNIST, "--names"],
        ["verify", MNIST, "--names", "\ud800"],
        ["align", MNIST, "/proc/nowhere/m"],
        ["align", MNIST, "x", "--alignment", "many"],
        ["align", MNIST, "x", "--alignment", str(1 << 70)],
        ["align", MNIST, "x", "--alignment", "-1"],
        ["align", MNIST, "a\0b"],
        ["--frobnicate"],
        ["--completion", "csh"],
        ["ls", MNIST, "--long", "--stats"],
        ["ls", MNIST, "--flat", "--depth", "2"],
        ["ls", MNIST, "--depth", "0"],
        ["ls", MNIST, "--sort", "age"],
        ["show", MNIST],
        ["show", MNIST, "nope"],
        ["show", MNIST, "global_step", "0"],
        ["show", MNIST, "dense/bias", "512"],
        ["show", MNIST, "dense/bias", "x"],
        ["show", MNIST, "dense/bias", "1,,2"],
        ["show", MNIST, "dense/bias", "9" * 30],
        ["diff", MNIST],
        ["diff", MNIST, "nowhere"],
        ["diff", MNIST, MNIST, "--rename", "("],
        ["diff", MNIST, MNIST, "--rename", "(=x"],
        ["diff", MNIST, MNIST, "--rtol", "-1"],
        ["diff", MNIST, MNIST, "--rtol", "much"],
        ["plan", MNIST],
        ["plan", MNIST, "--variables", "nowhere.json"],
        ["plan", MNIST, "--variables", MNIST / "checkpoint"],
        ["plan", MNIST, "--variables", __file__, "--map", "a"],
        ["convert", MNIST],
        ["convert", MNIST, "x"],
        ["convert", MNIST, "x.npz", "--cast", "float32=int99"],
        ["convert", MNIST, "x.npz", "--keep", "nope*"],
        ["convert", MNIST, "x.npz", "--rename", "(=x"],
        ["convert", MNIST, "x.npz", "--transpose", "dense/kernel=0,0"],
        ["convert", MNIST, "x.npz", "--transpose", "dense/kernel=a"],
        ["convert", MNIST, "x.npz", "--partition", "dense/kernel"],
        ["convert", MNIST, "x.npz", "--partition", "dense/kernel=none"],
        ["convert", MNIST, "x.npz", "--rules", "nowhere.toml"],
        ["convert", MNIST, "x.npz", "--to", "zip"],
        ["convert", MNIST, "x.safetensors", "--max-bytes", "big"],
        ["convert", MNIST, "x.safetensors", "--max-bytes", "5EB"],
        ["average"],
        ["average", "x"],
        ["average", "x", MNIST, "--weights", "a,b"],
        ["run"],
        ["run", "nowhere.py"],
    ],
    ids=lambda words: " ".join(map(str, words))[-40:],
)
def test_invalid_usage_prints_one_line(capsys, words: list[object]) -> None:
    status, out, err = run(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("tensorbundle: ")
    assert "Traceback" not in err
    assert len(err) < 5000


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (MemoryError(), 2, "not enough memory"),
        (RecursionError("too deep"), 2, "RecursionError: too deep"),
        (AssertionError("a\nb"), 2, "AssertionError: a; b"),
        (OSError(28, "No space left on device"), 2, "cannot write the output: No space left"),
        (
            PermissionError(13, "Permission denied", "/x"),
            2,
            "tensorbundle: Permission denied: '/x'",
        ),
        (tb.IOFailure("cannot read 'x'", 5), 2, "cannot read 'x'"),
        (KeyboardInterrupt(), cli.INTERRUPTED, ""),
    ],
)
def test_any_exception_prints_at_most_one_line(
    capsys, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, expected: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(tb, "open", fail)
    found, out, err = run(capsys, "ls", MNIST)
    assert (found, out) == (status, "")
    assert err.count("\n") == (1 if expected else 0)
    assert expected in err


@pytest.mark.parametrize("words", [["ls", MNIST], ["ls", "--json", MNIST], ["verify", MNIST]])
def test_unwritable_output_prints_one_line(words: list[object]) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = program(*words, stdout=full)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot write the output: No space left on device" in done.stderr


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "2>&-"])
@pytest.mark.parametrize("words", ["ls nowhere", f"ls {MNIST}", f"verify {MNIST}", ""])
def test_closed_streams_print_no_traceback(closed: str, words: str) -> None:
    command = f'"{sys.executable}" -m tensorbundle {words} {closed}'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    works = closed == "2>&-" and "nowhere" not in words
    assert done.returncode == (0 if works else 2)
    assert done.stderr.count("\n") == (1 if closed == ">&-" else 0)
    assert "Traceback" not in done.stderr


def test_interrupt_prints_no_traceback(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("w", np.arange(3.0))
    prefix = bundle.write(tmp_path / "m")
    code = (
        "import os, signal, sys, tensorbundle\n"
        "from tensorbundle import cli\n"
        "def interrupted(*arguments, **options): os.kill(os.getpid(), signal.SIGINT)\n"
        "tensorbundle.open = interrupted\n"
        f"sys.exit(cli.main(['ls', {str(prefix)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, b"", b"")


# --- names


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """A checkpoint whose object graph is in a separate data file."""
    bundle = Bundle(2)
    graph = TrackableObjectGraph()
    for key, name in [("a", "enc/kernel"), ("b", "enc/bias"), ("c", "same"), ("d", "same")]:
        bundle.add(f"{key}/.V", np.arange(3.0))
        graph.nodes.add().attributes.add(
            full_name=name.encode(), checkpoint_key=f"{key}/.V".encode()
        )
    bundle.add_strings("_CHECKPOINTABLE_OBJECT_GRAPH", [graph.SerializeToString()], (), shard=1)
    return bundle.write(tmp_path / "m")


@pytest.mark.parametrize(
    ("patterns", "keys"),
    [
        (["enc/kernel"], ["a/.V"]),
        (["a/.V"], ["a/.V"]),
        (["enc/*"], ["a/.V", "b/.V"]),
        (["*/.V"], ["a/.V", "b/.V", "c/.V", "d/.V"]),
        (["sam?"], ["c/.V", "d/.V"]),
        (["b/*", "enc/*"], ["a/.V", "b/.V"]),
    ],
)
def test_patterns_match_keys_and_full_names(
    capsys, objects: Path, patterns: list[str], keys: list[str]
) -> None:
    status, out, err = run(capsys, "ls", objects, *patterns)
    assert (status, err) == (0, "")
    assert [line.split("\t")[0] for line in out.splitlines()] == keys
    names = [word for pattern in patterns for word in ("--names", pattern)]
    assert run(capsys, "verify", objects, *names)[0] == 0


def test_ambiguous_full_name_lists_its_keys(capsys, objects: Path) -> None:
    status, out, err = run(capsys, "ls", objects, "same")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "'c/.V', 'd/.V'" in err


def test_corrupt_object_graph_is_reported_only_if_needed(capsys, objects: Path) -> None:
    shard_path(objects, 1, 2).unlink()
    assert run(capsys, "ls", objects, "a/.V")[0] == 0
    assert run(capsys, "ls", objects, "a/*")[0] == 0
    for pattern in ("enc/kernel", "enc/*"):
        status, out, err = run(capsys, "ls", objects, pattern)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "ull names may be missing" in err
