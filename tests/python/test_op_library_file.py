# SPDX-License-Identifier: Apache-2.0
"""The built op library: its dependencies and its exported symbols; those of the extension."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tensorbundle import _core, plugin

LIBRARY = plugin.find_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the op library is not built")

# The parts of the C library, and the dynamic loader.
ALLOWED = re.compile(r"lib(c|m|pthread|dl)\.so\.\d+|ld-linux[-a-z0-9_]*\.so\.\d+")


def readelf(option: str, library: object = LIBRARY) -> list[str]:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    done = subprocess.run(
        ["readelf", "-W", option, str(library)], check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


def test_library_depends_only_on_c_library() -> None:
    needed = [line.split("[")[1].rstrip("]") for line in readelf("-d") if "(NEEDED)" in line]
    assert needed
    assert not [name for name in needed if not ALLOWED.fullmatch(name)]


def test_library_has_no_undefined_tensorflow_symbol() -> None:
    undefined = [line.split()[-1] for line in readelf("--dyn-syms") if " UND " in line]
    assert not [name for name in undefined if re.match(r"TF_|_ZN10tensorflow|_ZN3tsl", name)]


def exported(library: object) -> list[str]:
    lines = readelf("--dyn-syms", library)
    fields = [line.split() for line in lines if re.match(r"\s*\d+:", line)]
    return sorted(field[-1] for field in fields if "UND" not in field and field[4] != "LOCAL")


def test_library_exports_its_functions_only() -> None:
    functions = ("append", "error", "join", "op_calls", "set_remote_files")
    assert exported(LIBRARY) == [f"tensorbundle_tf_{name}" for name in functions]


def test_extension_exports_its_initializer_only() -> None:
    """Not the types of a C++ library that is linked statically: processes have other copies."""
    assert exported(_core.__file__) == ["PyInit__core"]


def test_library_without_tensorflow_reports_missing_library() -> None:
    """The child process loads the library and exits normally."""
    script = (
        "import ctypes, sys; library = ctypes.CDLL(sys.argv[1]);"
        "library.tensorbundle_tf_error.restype = ctypes.c_char_p;"
        "print(library.tensorbundle_tf_error().decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(LIBRARY)], check=True, capture_output=True, text=True
    )
    assert "libtensorflow_framework" in done.stdout
    assert "is not loaded" in done.stdout
