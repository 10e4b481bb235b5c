# SPDX-License-Identifier: Apache-2.0
"""Runs mypy and pyright, both strict, on two programs of users: `nox -s typing`.

They must accept `user_program.py`, and find an error in each line of `wrong_program.py` with the
comment ``# error``, and in no other. Pyright reads `pyrightconfig.json`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = ("user_program.py", "wrong_program.py")


def lines_of_mypy() -> dict[str, set[int]]:
    """Returns the lines with errors, by the name of the file."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *PROGRAMS],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr)
    found: dict[str, set[int]] = {name: set() for name in PROGRAMS}
    for file, line in re.findall(r"^(.+?):(\d+): error:", done.stdout, re.MULTILINE):
        found.setdefault(Path(file).name, set()).add(int(line))
    return found


def lines_of_pyright() -> dict[str, set[int]]:
    """Returns the lines with errors, by the name of the file."""
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, set[int]] = {name: set() for name in PROGRAMS}
    for each in json.loads(done.stdout)["generalDiagnostics"]:
        line = each["range"]["start"]["line"] + 1
        print(f"{each['file']}:{line}: {each['message']}")
        found.setdefault(Path(each["file"]).name, set()).add(line)
    return found


def main() -> int:
    """Returns the exit status: 1 if a checker finds other errors than those that are marked."""
    status = 0
    marked = {
        name: {
            number
            for number, line in enumerate((HERE / name).read_text("utf-8").splitlines(), 1)
            if line.endswith("# error")
        }
        for name in PROGRAMS
    }
    for checker, lines in (("mypy", lines_of_mypy), ("pyright", lines_of_pyright)):
        found = lines()
        if found != marked:
            print(f"{checker}: errors in {found}, but they are marked in {marked}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
