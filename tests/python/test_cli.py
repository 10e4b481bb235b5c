# SPDX-License-Identifier: Apache-2.0
"""The command line: its output and exit status."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from craft.bundle import Bundle, shard_path

import tensorbundle as tb
from tensorbundle import cli, terminal

CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"
MNIST = CHECKPOINTS / "mnist_tf1"
PREFIX = "model.ckpt-46900"
SHARD = f"{PREFIX}.data-00000-of-00001"


@pytest.fixture
def corrupt(tmp_path: Path) -> Path:
    """A checkpoint with one flipped bit in `conv2d/kernel`."""
    folder = tmp_path / "corrupt"
    shutil.copytree(MNIST, folder)
    with tb.open(MNIST) as checkpoint:
        ((_, _, _, offset, _, _),) = checkpoint["conv2d/kernel"].slices
    data = bytearray((folder / SHARD).read_bytes())
    data[offset + 5] ^= 0x10
    (folder / SHARD).write_bytes(data)
    return folder


def pretend_terminal(monkeypatch: pytest.MonkeyPatch, name: str) -> io.StringIO:
    """Replaces a standard stream with a wide terminal without colours."""
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, name, stream)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    return stream


def unstyled(text: str) -> str:
    """Removes the terminal's escape sequences (NO_COLOR still allows bold)."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_ls_prints_tab_separated_lines_to_pipe(capsys):
    status, out, err = run(capsys, "ls", MNIST)
    rows = [line.split("\t") for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert len(rows) == 27
    assert ["conv2d/kernel", "float32", "[3,3,1,32]", "1152", "1", ""] in rows
    assert ["global_step", "int64", "[]", "8", "1", ""] in rows


def test_ls_accepts_patterns_and_exact_names(capsys):
    _, out, _ = run(capsys, "ls", MNIST, "conv2d/kernel*", "global_step")
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names == ["conv2d/kernel", "conv2d/kernel/Adam", "conv2d/kernel/Adam_1", "global_step"]


def test_ls_long_prints_stored_slices(capsys):
    _, out, _ = run(capsys, "ls", MNIST, "--long", "conv2d/bias")
    (row,) = (line.split("\t") for line in out.splitlines())
    assert row[:5] == ["conv2d/bias", "float32", "[32]", "[0:32]", "128"]
    assert row[5].endswith(SHARD)
    assert row[6].isdigit()


def test_ls_prints_json(capsys):
    status, out, _ = run(capsys, "ls", "--json", MNIST, "conv2d/bias")
    (tensor,) = json.loads(out)["tensors"]
    (stored,) = tensor.pop("slices")
    assert status == 0
    assert tensor == {
        "name": "conv2d/bias",
        "dtype": "float32",
        "shape": [32],
        "nbytes": 128,
        "error": None,
        "full_name": None,
        "slot": False,
    }
    assert (stored["offset"], stored["shape"], stored["nbytes"]) == ([0], [32], 128)


def test_ls_prints_table_to_terminal(monkeypatch):
    terminal = pretend_terminal(monkeypatch, "stdout")
    assert cli.main(["ls", str(MNIST), "conv2d/bias"]) == 0
    header, row, empty, totals = unstyled(terminal.getvalue()).splitlines()
    assert header.split() == ["name", "dtype", "shape", "parameters", "size"]
    assert row.split() == ["conv2d/bias", "float32", "[32]", "32", "128", "B"]
    assert (empty, totals) == ("", "1 of 27 tensors, 32 parameters, 128 B")


def test_ls_prints_error_of_unreadable_tensor(tmp_path, capsys):
    shutil.copy(MNIST / f"{PREFIX}.index", tmp_path)
    status, out, _ = run(capsys, "ls", tmp_path / PREFIX, "conv2d/bias")
    assert status == 0
    assert SHARD in out.rstrip("\n").split("\t")[5]
    _, out, _ = run(capsys, "ls", tmp_path / PREFIX)
    assert out.count(SHARD) == 1  # printed once
    assert all(line.split("\t")[5] for line in out.splitlines())


def test_reports_incompletely_stored_tensors(tmp_path, capsys):
    bundle = Bundle()
    bundle.add("whole", np.zeros(3, np.float32))
    bundle.add_sliced("part", np.zeros((6, 4), np.float32), [((0, 2), (0, 4))])
    prefix = bundle.write(tmp_path / "c")
    for long in ([], ["--long"]):
        status, out, _ = run(capsys, "ls", prefix, *long)
        assert status == 1
        assert ["stored in part" in line for line in out.splitlines()] == [True, False]
        assert run(capsys, "ls", prefix, "whole", *long)[0] == 0
    status, out, _ = run(capsys, "ls", "--json", prefix)
    assert status == 1
    assert "stored in part" in json.loads(out)["tensors"][0]["error"]
    status, out, _ = run(capsys, "verify", prefix)
    assert status == 1
    assert "stored in part" in out
    assert out.splitlines()[0] == f"1 damaged: {12 + 32} bytes checked"
    assert run(capsys, "verify", prefix, "--names", "whole")[0] == 0


def test_verify_prints_shared_cause_once(tmp_path, capsys):
    bundle = Bundle(num_shards=2)
    for i in range(20):
        bundle.add(f"t{i}", np.zeros(3, np.float32), shard=i % 2)
    prefix = bundle.write(tmp_path / "c")
    shard_path(prefix, 1, 2).write_bytes(b"<html>404</html>")
    status, out, _ = run(capsys, "verify", prefix)
    lines = [line.split("\t") for line in out.splitlines()]
    assert status == 1
    assert out.count("HTML page") == 1
    assert lines[0] == [f"10 damaged: {10 * 12} bytes checked"]
    assert [line[0] for line in lines[1:]] == ["cause"] + ["damaged"] * 10
    status, out, _ = run(capsys, "verify", "--json", prefix)
    assert len({item["cause"] for item in json.loads(out)["damaged"]}) == 1


def test_ls_prints_every_sample_checkpoint(capsys):
    indexes = sorted(CHECKPOINTS.rglob("*.index"))
    assert indexes
    for index in indexes:
        status, out, err = run(capsys, "ls", index)
        assert (status, err) == (0, ""), index
        assert all(len(line.split("\t")) == 6 for line in out.splitlines())
        assert out


def test_verify_accepts_valid_checkpoint(capsys):
    status, out, err = run(capsys, "verify", MNIST)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == f"ok: {(MNIST / SHARD).stat().st_size} bytes checked"


def test_verify_prints_corrupt_slice(corrupt, capsys):
    status, out, _ = run(capsys, "verify", corrupt)
    lines = [line.split("\t") for line in out.splitlines()]
    slices = [line for line in lines if line[0] == "damaged"]
    assert status == 1
    assert [each[1] for each in slices] == ["conv2d/kernel"]
    assert slices[0][2].endswith(SHARD)
    assert slices[0][4] == "1152"
    assert lines[0][0].startswith("1 damaged: ")


def test_verify_checks_only_given_names(corrupt, capsys):
    assert run(capsys, "verify", corrupt, "--names", "dense*")[0] == 0
    assert run(capsys, "verify", corrupt, "--names", "dense*", "--names", "conv2d/kernel")[0] == 1


def test_verify_prints_json(corrupt, capsys):
    status, out, _ = run(capsys, "verify", "--json", corrupt)
    document = json.loads(out)
    (item,) = document["damaged"]
    assert status == 1
    assert document["ok"] is False
    assert document["checked_bytes"] == (MNIST / SHARD).stat().st_size
    assert (item["tensor"], item["nbytes"]) == ("conv2d/kernel", 1152)
    assert "conv2d/kernel" in item["message"]


def test_verify_draws_progress_on_stderr(monkeypatch, capsys):
    terminal = pretend_terminal(monkeypatch, "stderr")
    assert cli.main(["verify", str(MNIST)]) == 0
    assert "mnist_tf1" in unstyled(terminal.getvalue())
    assert capsys.readouterr().out.splitlines()[-1].startswith("ok: ")


def test_align_prints_summary(tmp_path, capsys):
    status, out, err = run(capsys, "align", MNIST, tmp_path / "new" / "m")
    assert (status, err) == (0, "")
    assert out == f"{tmp_path}/new/m: 26 of 27 stored slices moved, 686920 bytes (before: 686728)\n"
    assert run(capsys, "verify", tmp_path / "new" / "m")[0] == 0


def test_align_prints_json(tmp_path, capsys):
    status, out, _ = run(capsys, "align", "--json", "--alignment", "1024", MNIST, tmp_path)
    assert status == 0
    assert json.loads(out) == {
        "path": f"{tmp_path}/{PREFIX}",
        "slices": 27,
        "moved": 26,
        "bytes_before": 686728,
        "bytes_after": 686920,
    }


def test_align_of_corrupt_checkpoint_fails(corrupt, tmp_path, capsys):
    status, out, err = run(capsys, "align", corrupt, tmp_path / "m")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "'conv2d/kernel'" in err
    assert not list(tmp_path.glob("m*"))


def test_align_draws_progress_on_stderr(tmp_path, monkeypatch, capsys):
    terminal = pretend_terminal(monkeypatch, "stderr")
    assert cli.main(["align", str(MNIST), str(tmp_path / "m")]) == 0
    assert "mnist_tf1" in unstyled(terminal.getvalue())
    assert "26 of 27" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["frobnicate"], "frobnicate"),
        (["ls"], "CKPT"),
        (["ls", "--wide", "x"], "--wide"),
        (["ls", "no/such/checkpoint"], "no/such/checkpoint"),
        (["verify", "no/such/checkpoint"], "no/such/checkpoint"),
        (["ls", str(MNIST), "no_such_*"], "no_such_*"),
        (["verify", str(MNIST), "--names", "no_such"], "no_such"),
        (["align", str(MNIST)], "DST"),
        (["align", "no/such/checkpoint", "x"], "no/such/checkpoint"),
        (["align", str(MNIST), str(MNIST / PREFIX)], "is the source"),
        (["align", str(MNIST), "x", "--alignment", "63"], "power of two"),
        (["align", str(MNIST), str(MNIST.parent / "simple_v1_model" / "variables")], "replace"),
    ],
)
def test_failure_prints_one_line_to_stderr(args, expected, capsys):
    status, out, err = run(capsys, *args)
    assert (status, out) == (2, "")
    assert err.startswith("tensorbundle: ")
    assert expected in err
    assert err.count("\n") == 1


def test_corrupt_index_prints_one_line_to_stderr(tmp_path, capsys):
    (tmp_path / "model.index").write_bytes(b"not a table" * 10)
    model = tmp_path / "model"
    for args in (
        ["ls", model],
        ["show", model, "w"],
        ["verify", model],
        ["diff", model, MNIST],
        ["plan", model, "--variables", __file__],
        ["align", model, tmp_path / "x"],
        ["edit", model, tmp_path / "x"],
        ["convert", model, tmp_path / "x.npz"],
        ["average", tmp_path / "x", MNIST, model],
    ):
        status, out, err = run(capsys, *args)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "model.index" in err or args[0] == "plan"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain/name", "plain/name"),
        ("größe", "größe"),
        ("a\tb\nc", r"a\tb\nc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        (b"\xff\xfe".decode("utf-8", "surrogateescape"), r"\xff\xfe"),
    ],
)
def test_escapes_control_characters_in_names(name, expected):
    assert terminal.escape_text(name) == expected


def test_prints_version(capsys):
    status, out, _ = run(capsys, "--version")
    assert status == 0
    assert tb.__version__ in out


def test_runs_as_a_module(corrupt, tmp_path):
    command = [sys.executable, "-W", "error", "-m", "tensorbundle"]
    listed = subprocess.run(
        [*command, "ls", MNIST], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.count("\n") == 27
    checked = subprocess.run([*command, "verify", corrupt], capture_output=True, check=False)
    assert checked.returncode == 1


def test_closed_pipe_prints_no_traceback(tmp_path):
    program = subprocess.Popen(
        [sys.executable, "-m", "tensorbundle", "ls", "--json", MNIST],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    assert program.stdout is not None
    program.stdout.close()
    _, err = program.communicate()
    assert err == b""
    assert program.returncode == cli.PIPE_CLOSED
