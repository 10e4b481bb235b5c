# SPDX-License-Identifier: Apache-2.0
"""What lies in the repository, for the tests about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (".ci", "bench", "cpp", "docs", "examples", "python", "tests")
NOT_SOURCES = {"__pycache__", "build", "dist"}
# What the benchmarks make, unless told where, and the fuzzers' seeds: bytes, not text.
DATA = {ROOT / "bench" / "data", ROOT / "tests" / "fuzz" / "corpus"}


def walk(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder, leaving out what tools leave behind."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name != ".ci"
            if not hidden and path.name not in NOT_SOURCES and path not in DATA:
                yield from walk(path)
        else:
            yield path


class Repository:
    """The checkout's files, by kind."""

    root = ROOT

    def files(self) -> list[Path]:
        """Every file that we wrote: the root's own, and those in our folders."""
        top = [path for path in ROOT.iterdir() if path.is_file()]
        return top + [path for name in FOLDERS for path in walk(ROOT / name)]

    def sources(self, *suffixes: str, under: str = "") -> list[Path]:
        """The files with one of these suffixes, below a folder."""
        found = [
            path
            for path in self.files()
            if path.suffix in suffixes and (ROOT / under) in path.parents
        ]
        assert found, f"no {suffixes} below {under or 'the root'}: is the layout another one?"
        return found

    def name(self, path: Path) -> str:
        """The path as one would type it at the root."""
        return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def repo() -> Repository:
    """The repository under test."""
    return Repository()
