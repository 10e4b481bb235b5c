# SPDX-License-Identifier: Apache-2.0
"""The files of the repository, for the tests about them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (".ci", "bench", "cpp", "docs", "examples", "python", "tests")
NOT_SOURCES = {"__pycache__", "build", "dist"}
# Binary data: the default output of the benchmarks, and the seeds of the fuzzers.
DATA = {ROOT / "bench" / "data", ROOT / "tests" / "fuzz" / "corpus"}


def walk(folder: Path) -> Iterator[Path]:
    """Yields the files below a directory, except hidden and generated ones."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name != ".ci"
            if not hidden and path.name not in NOT_SOURCES and path not in DATA:
                yield from walk(path)
        else:
            yield path


class Repository:
    """The files of the checkout, by kind."""

    root = ROOT

    def files(self) -> list[Path]:
        """Returns the files of the project: in the root, and below FOLDERS."""
        top = [path for path in ROOT.iterdir() if path.is_file()]
        return top + [path for name in FOLDERS for path in walk(ROOT / name)]

    def sources(self, *suffixes: str, under: str = "") -> list[Path]:
        """Returns the files with one of these suffixes below a directory."""
        found = [
            path
            for path in self.files()
            if path.suffix in suffixes and (ROOT / under) in path.parents
        ]
        assert found, f"no {suffixes} below {under or 'the root'}: has the layout changed?"
        return found

    def name(self, path: Path) -> str:
        """Returns the path relative to the root."""
        return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def repo() -> Repository:
    """The repository under test."""
    return Repository()
