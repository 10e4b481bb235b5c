# SPDX-License-Identifier: Apache-2.0
"""The command-line program as a whole: its help, its completion in shells, and `run`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from command_line import in_terminal, run
from craft.bundle import Bundle

from tensorbundle import cli, cli_options

CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"
MNIST = CHECKPOINTS / "mnist_tf1"
COMMANDS = [
    "ls",
    "show",
    "verify",
    "diff",
    "plan",
    "edit",
    "convert",
    "average",
    "align",
    "run",
    "plugin",
]


# --- what it needs


@pytest.mark.parametrize(
    ("absent", "named"),
    [(["click"], "click"), (["rich"], "rich"), (["click", "rich"], "click and rich")],
)
def test_missing_packages_are_named(absent, named):
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "from tensorbundle.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "ls", str(MNIST)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"tensorbundle: the command line needs {named}: pip install 'tensorbundle[cli]'\n"
    )


# --- help


def test_program_without_arguments_prints_its_help(capsys):
    status, out, err = run(capsys)
    assert (status, err) == (0, "")
    assert out.startswith("Usage: tensorbundle [OPTIONS] ")
    places = [out.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)
    assert "..." not in out.partition("Look:")[2]  # no summary is cut


def test_plugin_without_arguments_prints_its_help(capsys):
    status, out, _ = run(capsys, "plugin")
    assert status == 0
    assert "enable" in out


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help(name, option):
    result = CliRunner().invoke(cli.program, [name, option])
    assert result.exit_code == 0
    assert f"Usage: tensorbundle {name}" in result.output.replace("program", "tensorbundle")


def leaves(command: click.Command) -> list[click.Command]:
    if isinstance(command, click.Group):
        return [leaf for each in command.commands.values() for leaf in leaves(each)]
    return [command]


def test_every_command_has_json():
    without = [
        command.name
        for command in leaves(cli.program)
        if not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert not without


def test_command_without_arguments_prints_its_help_to_people():
    screen = in_terminal("show")
    assert screen.status == 2
    assert screen.lines[0] == "Usage: tensorbundle show [OPTIONS] CKPT NAME [INDEX]"
    assert any(line.startswith("tensorbundle: Missing argument 'CKPT'") for line in screen.lines)
    # With some arguments, the error alone says more.
    assert len(in_terminal("show", MNIST).lines) <= 3


def test_command_without_arguments_prints_one_line_in_a_pipe(capsys):
    status, out, err = run(capsys, "verify")
    assert (status, out) == (2, "")
    assert err == (
        "tensorbundle: Missing argument 'CKPT'. Usage: tensorbundle verify [OPTIONS] CKPT "
        "(-h for help)\n"
    )


def test_unknown_option_names_the_help(capsys):
    status, _, err = run(capsys, "ls", MNIST, "--flatt")
    assert status == 2
    assert "--flatt" in err
    assert err.endswith("For help: tensorbundle ls -h\n")


def test_misspelled_command_is_one_sentence_after_another(capsys):
    status, _, err = run(capsys, "lss", MNIST)
    assert status == 2
    assert "?." not in err
    assert ")." not in err
    assert err.endswith(" For help: tensorbundle -h\n")


# --- completion


def complete(*words: str, **variables: str) -> list[str]:
    """Returns what the program offers to bash for the last word."""
    done = subprocess.run(
        [sys.executable, "-m", "tensorbundle"],
        env={
            **os.environ,
            "_TENSORBUNDLE_COMPLETE": "bash_complete",
            "COMP_WORDS": "\n".join(["tensorbundle", *words]),
            "COMP_CWORD": str(len(words)),
            **variables,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_completes_commands_options_and_choices():
    assert complete("") == COMMANDS
    assert complete("ver") == ["verify"]
    assert complete("ls", "--st") == ["--stats"]
    assert complete("ls", "--sort", "") == ["name", "size"]
    assert complete("plugin", "") == ["disable", "enable", "status"]


def test_completes_names_of_tensors():
    kernels = ["conv2d/kernel", "conv2d/kernel/Adam", "conv2d/kernel/Adam_1"]
    assert complete("show", str(MNIST), "conv2d/k") == kernels
    assert complete("ls", str(MNIST), "dense", "conv2d/k") == kernels
    assert complete("verify", str(MNIST), "--names", "conv2d/k") == kernels
    assert complete("edit", str(MNIST), "x", "--keep", "conv2d/k") == kernels
    assert complete("show", "$FOLDER/mnist_tf1", "glo", FOLDER=str(CHECKPOINTS)) == ["global_step"]
    assert "Adam/Variable/m" in complete("show", str(CHECKPOINTS / "optimizer_slots"), "Adam")


def test_completion_is_silent_about_errors(tmp_path):
    (tmp_path / "m.index").write_bytes(b"nonsense")
    for path in ("nowhere", str(tmp_path / "m"), str(tmp_path)):
        assert complete("show", path, "a") == []


def test_paths_are_completed_by_the_shell():
    for words in (["edit", "a", ""], ["run", ""], ["edit", "--rules", ""]):
        assert complete(*words) == [""]


def test_completes_prefixes_of_checkpoints(tmp_path):
    names = ["checkpoint", "model.meta", "old_v1", "weights.npz", ".hidden"]
    files = ["model.index", "model.data-00000-of-00002", "model.data-00001-of-00002"]
    for name in (*names, *files):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    # The first line lets the shell complete directories.
    offered = [f"{tmp_path}/{name}" for name in ("model", "old_v1", "weights.npz")]
    assert complete("ls", f"{tmp_path}/") == [f"{tmp_path}/", *offered]
    for words in (["diff", "a"], ["edit"], ["average", "to", "a"]):
        assert complete(*words, f"{tmp_path}/mod") == [f"{tmp_path}/mod", f"{tmp_path}/model"]
    assert complete("ls", "$FOLDER/mod", FOLDER=str(tmp_path))[1:] == ["$FOLDER/model"]
    assert complete("ls", f"{tmp_path}/.")[1:] == [f"{tmp_path}/.hidden"]
    assert complete("ls", f"{tmp_path}/nowhere/x") == [f"{tmp_path}/nowhere/x"]


def test_bash_adds_directories_to_prefixes(capsys):
    _, script, _ = run(capsys, "--completion", "bash")
    assert "compopt -o plusdirs -o filenames" in script
    assert "dirnames" not in script


def test_many_names_are_completed_scope_by_scope():
    names = [f"net/layer_{i}/{part}" for i in range(300) for part in ("kernel", "bias")]
    assert cli_options.complete("", ["step", *names]) == ["net/", "step"]
    assert len(cli_options.complete("net/", names)) == 300
    assert cli_options.complete("", names)[:2] == ["net/layer_0/", "net/layer_1/"]
    assert cli_options.complete("net/layer_7/", names) == ["net/layer_7/bias", "net/layer_7/kernel"]
    assert len(cli_options.complete("", [f"x{i}" for i in range(300)])) == 300


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_prints_completion_script(shell):
    done = subprocess.run(
        [sys.executable, "-m", "tensorbundle", "--completion", shell],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "_TENSORBUNDLE_COMPLETE" in done.stdout


def test_bash_completes_with_the_script(tmp_path):
    bash = shutil.which("bash")
    if bash is None or os.environ.get("BASH_VERSION", "5") < "4":
        pytest.skip("needs bash 4.4")
    program = tmp_path / "tensorbundle"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tensorbundle "$@"\n')
    program.chmod(0o755)
    script = f"""
        eval "$(tensorbundle --completion bash)"
        COMP_WORDS=(tensorbundle show {MNIST} conv2d/k) COMP_CWORD=3
        _tensorbundle_completion tensorbundle
        printf '%s\\n' "${{COMPREPLY[@]}}"
        complete -p tensorbundle
    """
    done = subprocess.run(
        [bash, "--norc", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[:3] == [
        "conv2d/kernel",
        "conv2d/kernel/Adam",
        "conv2d/kernel/Adam_1",
    ]
    assert "-F _tensorbundle_completion tensorbundle" in done.stdout


# --- run


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "convert.py"
    path.write_text(
        "import sys\n"
        "import tensorflow as tf\n"
        "for name, shape in tf.train.list_variables(sys.argv[1]):\n"
        "    print(name, shape, tf.train.load_variable(sys.argv[1], name).sum())\n"
        "sys.exit(len(sys.argv) - 2)\n"
    )
    return path


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    bundle = Bundle()
    bundle.add("w", np.ones((2, 3), np.float32))
    return bundle.write(tmp_path / "m")


def test_run_passes_arguments_and_status(script, prefix):
    command = [sys.executable, "-m", "tensorbundle", "run", script, prefix, "-h", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "w [2, 3] 6.0\n", "")


def test_run_prints_json_apart_from_the_script(script, prefix):
    command = [sys.executable, "-m", "tensorbundle", "run", "--json", script, prefix]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "w [2, 3] 6.0\n")
    assert json.loads(done.stdout) == {
        "script": str(script),
        "arguments": [str(prefix)],
        "status": 0,
    }


def test_run_shows_the_traceback_of_the_script(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("import tensorflow as tf\ntf.keras.Model()\n")
    command = [sys.executable, "-m", "tensorbundle", "run", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "tf.keras" in done.stderr.splitlines()[-1]
    assert "tensorbundle/cli" not in done.stderr
