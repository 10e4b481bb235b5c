# SPDX-License-Identifier: Apache-2.0
"""The rooms of the C++ core include only lower rooms (docs/architecture.md)."""

import re

# Each room, and the other rooms that it may include.
_UP_TO_TABLE = {"base", "io", "table"}
_FORMATS = _UP_TO_TABLE | {"bundle", "v1"}
ROOMS = {
    "base": set(),
    "io": {"base"},
    "table": {"base", "io"},
    "bundle": _UP_TO_TABLE,
    # A V1 checkpoint is presented as a bundle.
    "v1": _UP_TO_TABLE | {"bundle"},
    "read": _FORMATS,
    "vocab": _FORMATS,
    "write": _FORMATS,
}
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
PYTHON = re.compile(r"pybind11/|Python\.h|numpy/")


def includes(path):
    """Returns the quoted and the bracketed includes of a file."""
    found = INCLUDE.findall(path.read_text(encoding="utf-8"))
    return [quoted for quoted, _ in found if quoted], [angled for _, angled in found if angled]


def test_rooms_include_only_lower_rooms(repo):
    core = repo.root / "cpp" / "tensorbundle"
    wrong = []
    for path in repo.sources(".h", ".cc", under="cpp/tensorbundle"):
        room = path.relative_to(core).parts[0]
        assert room in ROOMS, f"{repo.name(path)}: add the room to ROOMS"
        for quoted in includes(path)[0]:
            parts = quoted.split("/")
            other = parts[1] if parts[0] == "tensorbundle" and len(parts) > 2 else None
            if other is None or other not in ROOMS[room] | {room}:
                wrong.append(f'{repo.name(path)} includes "{quoted}"')
    assert not wrong, "\n".join(wrong)


def test_quoted_includes_exist(repo):
    missing = [
        f'{repo.name(path)} includes "{quoted}"'
        for path in repo.sources(".h", ".cc", under="cpp")
        for quoted in includes(path)[0]
        if not (repo.root / "cpp" / quoted).is_file()
    ]
    assert not missing, "\n".join(missing)


def test_only_bindings_include_python_headers(repo):
    wrong = [
        f"{repo.name(path)} includes {name}"
        for path in repo.sources(".h", ".cc", under="cpp/tensorbundle")
        for names in includes(path)
        for name in names
        if PYTHON.search(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_includes_tensorflow_headers(repo):
    wrong = [
        f"{repo.name(path)} includes {name}"
        for path in repo.sources(".h", ".cc", under="cpp")
        for names in includes(path)
        for name in names
        if name.startswith("tensorflow/")
    ]
    assert not wrong, "\n".join(wrong)


def test_headers_have_pragma_once(repo):
    wrong = [
        repo.name(path)
        for path in repo.sources(".h", under="cpp")
        if "\n#pragma once\n" not in path.read_text(encoding="utf-8")
    ]
    assert not wrong, wrong


def test_core_never_prints_or_aborts(repo):
    forbidden = re.compile(
        r"\b(std::(cout|cerr|clog|abort|exit|terminate)|f?printf|abort|exit)\b\s*(\(|<<)"
    )
    wrong = [
        f"{repo.name(path)}: {found.group()}"
        for path in repo.sources(".h", ".cc", under="cpp")
        for found in forbidden.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def test_threads_start_in_one_place(repo):
    """Where fork() cannot be in the middle: fork_lock.h says what happens otherwise."""
    starts = re.compile(r"std::(thread(?!::)|jthread|async)\b|pthread_create")
    files = {
        repo.name(path)
        for path in repo.sources(".h", ".cc", under="cpp")
        for line in path.read_text(encoding="utf-8").splitlines()
        if starts.search(line.partition("//")[0])
    }
    assert files == {"cpp/tensorbundle/base/fork_lock.h"}


def test_static_variables_of_functions_need_no_guard(repo):
    """A child of fork() would wait for a thread that was initializing one, forever."""
    # Names of functions begin with a capital letter.
    guarded = re.compile(r"^ +(const )*static (?!constexpr)[\w:<>,&* ]+\b[a-z]\w*( =|;|\{|\(|\[)")
    wrong = [
        f"{repo.name(path)}: {line.strip()}"
        for path in repo.sources(".h", ".cc", under="cpp/tensorbundle")
        for line in path.read_text(encoding="utf-8").splitlines()
        if guarded.search(line)
    ]
    assert not wrong, "\n".join(wrong)
