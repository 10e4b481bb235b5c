# SPDX-License-Identifier: Apache-2.0
"""The list of mutants: deliberate bugs that the tests must find.

Each ``*.toml`` file beside this one has the mutants of one suite:

    suite = "cpp"

    [[mutant]]
    id = "C2"
    file = "cpp/tensorbundle/table/table.cc"
    bug = "the checksum of a block is not compared"
    old = '''...'''                # occurs exactly once in the file
    new = '''...'''
    killed_by = "table_test TableFile.EveryFlippedBitIsNoticed"

``killed_by`` is the test that runs first: a test program and a filter of GoogleTest, or arguments
of pytest. ``equivalent`` replaces it if no test can find the bug, and says why.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]

# The tests that must find the mutants of a suite, and the sources that the mutants may change.
SUITES = {
    "cpp": ("tests/cpp", "cpp/tensorbundle/"),
    "bindings": ("tests/python", "cpp/bindings/"),
    "python": ("tests/python", "python/tensorbundle/"),
    "tf": ("tests/tf", "python/tensorbundle/tf/"),
    "kernels": ("tests/tf", "cpp/tensorflow_op/"),
}
KEYS = {"id", "file", "bug", "old", "new", "killed_by", "equivalent"}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One deliberate bug: the text `old` of a file becomes `new`."""

    id: str
    file: str
    bug: str
    old: str
    new: str
    suite: str
    listed_in: Path
    killed_by: str = ""
    equivalent: str = ""

    def problems(self, root: Path = ROOT) -> Iterator[str]:
        """Yields what is wrong with the entry, for the test of the list."""
        folder = SUITES[self.suite][1]
        in_tf = self.file.startswith(SUITES["tf"][1])
        if not self.file.startswith(folder) or (self.suite == "python" and in_tf):
            yield f"{self.id}: the suite {self.suite} has no mutants of {self.file}"
        elif not (root / self.file).is_file():
            yield f"{self.id}: {self.file} does not exist"
        elif (count := (root / self.file).read_text(encoding="utf-8").count(self.old)) != 1:
            yield f"{self.id}: the text is {count} times in {self.file}, not once: {self.old!r}"
        if self.old == self.new:
            yield f"{self.id}: changes nothing"
        if bool(self.killed_by) == bool(self.equivalent):
            yield f"{self.id}: needs either killed_by or equivalent"

    def apply(self, root: Path) -> None:
        """Changes the file in a copy of the tree."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.id}: the text is not exactly once in {self.file}")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")

    def record(self, killed_by: str) -> None:
        """Writes the test that found the mutant into the list."""
        text = self.listed_in.read_text(encoding="utf-8")
        head, *entries = re.split(r"(?m)^(?=\[\[mutant\]\]$)", text)
        line = f"killed_by = '{killed_by}'\n"
        for i, entry in enumerate(entries):
            if f'id = "{self.id}"\n' not in entry:
                continue
            entries[i] = re.sub(r"(?m)^killed_by = .*\n", lambda _: line, entry)
            if "killed_by = " not in entry:
                entries[i] = entry.rstrip("\n") + "\n" + line + "\n"
        self.listed_in.write_text(head + "".join(entries).rstrip("\n") + "\n", encoding="utf-8")


def load() -> list[Mutant]:
    """Returns all mutants, sorted by file, so that few files change between two of them."""
    mutants = []
    for path in sorted(FOLDER.glob("*.toml")):
        listed = tomllib.loads(path.read_text(encoding="utf-8"))
        for entry in listed["mutant"]:
            if unknown := entry.keys() - KEYS:
                raise ValueError(f"{path.name}: {entry.get('id')}: unknown keys {unknown}")
            mutants.append(Mutant(**entry, suite=listed["suite"], listed_in=path))
    return sorted(mutants, key=lambda mutant: (mutant.suite, mutant.file, mutant.id))
