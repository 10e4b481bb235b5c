# SPDX-License-Identifier: Apache-2.0
"""Sizes, headers, names and forbidden words of the files."""

import re

MAX_LINES = 700
SOURCES = {".py", ".pyi", ".h", ".cc", ".sh"}
WITH_HEADER = SOURCES | {".cmake"}
TEXT = SOURCES | {".md", ".toml", ".yaml", ".txt", ".cmake", ""}
# Assembled here, so that this file itself passes the search.
LOCAL_PATHS = [f"/{name}/" for name in ("work", "root", "home")]
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}


def has_suffix(path, suffixes):
    return path.suffix in suffixes and path.name not in {"LICENSE", "py.typed"}


def own_text(repo, suffixes):
    """Returns the text files of the project, without the checkpoints that TensorFlow wrote."""
    data = repo.root / "tests" / "data"
    return [
        path
        for path in repo.files()
        if has_suffix(path, suffixes) and (data not in path.parents or path.suffix == ".md")
    ]


def test_sources_stay_below_line_limit(repo):
    long = {
        repo.name(path): lines
        for path in own_text(repo, SOURCES)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long, f"more than {MAX_LINES} lines: {long}"


def test_every_source_has_licence_header(repo):
    files = own_text(repo, WITH_HEADER) + build_files(repo)
    without = [
        repo.name(path)
        for path in files
        if not any(
            "SPDX-License-Identifier: Apache-2.0" in line
            for line in path.read_text(encoding="utf-8").splitlines()[:2]
        )
    ]
    assert not without, without


def build_files(repo):
    """Returns the build files and scripts that are known by name."""
    found = [path for path in repo.files() if path.name in {"CMakeLists.txt", "run"}]
    assert found
    return found


def test_files_contain_no_local_path(repo):
    wrong = [
        f"{repo.name(path)}:{number}: {line.strip()}"
        for path in own_text(repo, TEXT)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if any(word in line for word in LOCAL_PATHS)
    ]
    assert not wrong, "\n".join(wrong)


def test_files_have_descriptive_names(repo):
    vague = [repo.name(path) for path in repo.files() if path.stem.lower() in VAGUE]
    assert not vague


def test_sources_have_no_debugging_leftovers(repo):
    leftover = re.compile(r"\b(breakpoint\(\)|pdb\.set_trace|FIXME|XXX)\b")
    wrong = [
        f"{repo.name(path)}: {found.group()}"
        for path in own_text(repo, SOURCES)
        if path.name != "test_files.py"
        for found in leftover.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not wrong


def test_files_contain_no_conflict_markers(repo):
    marker = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    wrong = [
        repo.name(path)
        for path in own_text(repo, TEXT | {".cff", ".css", ".yml"})
        if marker.search(path.read_text(encoding="utf-8"))
    ]
    assert not wrong
