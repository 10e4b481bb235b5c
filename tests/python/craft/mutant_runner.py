# SPDX-License-Identifier: Apache-2.0
"""Reads corrupt checkpoints in a child process with bounded memory and time.

Run as ``python -m craft.mutant_runner JOB``, where JOB is a pickle of (folder, mutants) and
``mutants`` is a list of {file name: content}. The child writes each mutant into ``folder``, opens
"c", reads every tensor and counts the outcomes. If the reader crashes, so does the child, and
``folder/at`` has the number of the current mutant.
"""

from __future__ import annotations

import collections
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LIMIT = 1 << 30


def run(
    folder: Path, mutants: Iterable[dict[str, bytes]], *, timeout: float = 60
) -> dict[str, int]:
    """Reads every mutant in a child process.

    Args:
        folder: The directory of the checkpoint "c"; each mutant replaces the files that it names.
        mutants: One {file name: content} per mutant.
        timeout: Seconds per mutant; far more than any needs on a busy machine.

    Returns:
        The number of mutants per exception class; "read" counts those that raised none.

    Raises:
        AssertionError: The child crashed, hung, ran out of memory, or raised another exception.
    """
    job = folder / "job.pickle"
    job.write_bytes(pickle.dumps((str(folder), list(mutants))))
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-m", "craft.mutant_runner", str(job)]
    with (
        (folder / "stderr").open("w+") as stderr,
        (folder / "stdout").open("w+") as stdout,
        subprocess.Popen(command, env=environment, stdout=stdout, stderr=stderr) as child,
    ):
        _watch(child, folder, timeout)
        stderr.seek(0)
        stdout.seek(0)
        assert child.returncode == 0, (
            f"mutant {_at(folder)}: {child.returncode}\n{stderr.read()[-2000:]}"
        )
        result: dict[str, int] = json.load(stdout)
        return result


def _watch(child: subprocess.Popen[bytes], folder: Path, timeout: float) -> None:
    """Waits for the child, and kills it if one mutant exceeds the timeout."""
    at, since = "", time.monotonic()
    while True:
        try:
            child.wait(timeout=1)
            return
        except subprocess.TimeoutExpired:
            now = _at(folder)
            if now != at:
                at, since = now, time.monotonic()
            elif time.monotonic() - since > timeout:
                child.kill()
                child.wait()
                raise AssertionError(f"mutant {at} hangs") from None


def _at(folder: Path) -> str:
    at = folder / "at"
    return at.read_text() if at.exists() else "0 (the child did not start)"


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + LIMIT, size + LIMIT))


def _read_all(prefix: str) -> None:
    """Opens the checkpoint and reads every tensor; raises the last error at the end."""
    import numpy as np

    import tensorbundle as tb

    failure = None
    with tb.open(prefix, verify="none", threads=1) as ck:
        for name in ck:
            t = ck[name]
            _ = t.shape, t.nbytes, t.slices, t.error
            try:
                t.read() if t.nbytes < 1 << 26 else np.asarray(t)
            except tb.Error as error:
                failure = error
    if failure is not None:
        raise failure


def main() -> None:
    folder, mutants = pickle.loads(Path(sys.argv[1]).read_bytes())
    import tensorbundle as tb

    counts: collections.Counter[str] = collections.Counter()
    prefix = os.path.join(folder, "c")
    _limit_memory()
    with open(os.path.join(folder, "at"), "w") as progress:
        for number, mutant in enumerate(mutants):
            progress.seek(0)
            progress.write(f"{number:9d}")
            progress.flush()
            _place(folder, mutant)
            try:
                _read_all(prefix)
            except tb.Error as error:
                counts[type(error).__name__] += 1
            else:
                counts["read"] += 1
    json.dump(counts, sys.stdout)


def _place(folder: str, mutant: dict[str, Any]) -> None:
    for name, content in mutant.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)


if __name__ == "__main__":
    main()
