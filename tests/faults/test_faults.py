# SPDX-License-Identifier: Apache-2.0
"""System calls and allocations that fail, one after another, in every operation.

A preloaded library (`shim.cc`) makes call number n fail, be short or be interrupted. `child.py`
runs a scenario for n = 1, 2, ... until it succeeds without a fault, and checks after each run: the
exception is a documented one with the system's error number; no descriptor, mapping or thread is
left; the handle works; what was to be written is absent, the old, or the new and complete; and the
next write succeeds and leaves no other file. TENSORBUNDLE_DEEP=1 injects every fault; otherwise
the failing allocations are a sample.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from craft import faults

import tensorbundle as tb

HERE = Path(__file__).parent
CRAFT = str(HERE.parent / "python")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")

# Functions that the core calls without a fault in the shim, with the reason.
WITHOUT_FAULTS = {
    "closedir", "fstatfs64", "mincore", "munmap", "madvise", "posix_fadvise64",
    "syscall",  # userfaultfd, whose failure is expected everywhere
    "ioctl",  # of userfaultfd
}  # fmt: skip
IO_SYMBOL = re.compile(
    r"^(?!pthread_).*(open|read|write|stat|sync|rename|link|trunc|alloc$|mmap|munmap|madvise|fadvise|mincore"
    r"|mkdir|rmdir|flock|copy_file|sendfile|splice|seek|dir|access|ioctl|syscall)|pthread_create"
)

spec = importlib.util.spec_from_file_location("fault_scenarios", HERE / "scenarios.py")
assert spec is not None
assert spec.loader is not None
scenarios = importlib.util.module_from_spec(spec)
sys.modules["fault_scenarios"] = scenarios
spec.loader.exec_module(scenarios)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.build(tmp_path_factory.mktemp("shim"))


def symbols(path: Path, option: str) -> set[str]:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm")
    output = subprocess.check_output([nm, "-D", option, path], text=True)
    return {line.split()[-1].split("@")[0] for line in output.splitlines()}


def test_every_system_function_of_the_extension_is_in_the_shim(shim: Path) -> None:
    used = symbols(Path(tb._core.__file__), "--undefined-only")
    used = {name for name in used if not name.startswith(("_", "Py")) and IO_SYMBOL.search(name)}
    assert {"open64", "pread64", "pwrite64", "fsync", "rename"} & used
    missing = used - symbols(shim, "--defined-only") - WITHOUT_FAULTS
    assert not missing, f"add these functions to shim.cc: {sorted(missing)}"


def writes(*starts: str) -> list[str]:
    return [name for name in scenarios.WRITES if name.startswith(starts)]


# A process for each group.
GROUPS = {
    "reads": list(scenarios.READS),
    "saves": writes("save", "update"),
    "edits": writes("edit", "align", "average"),
    "conversions_from_checkpoints": writes("to_"),
    "conversions_to_checkpoints": writes("from_"),
}
LIBRARIES = {"hdf5": "h5py", "safetensors": "safetensors"}


def is_installed(name: str) -> bool:
    """Returns whether the library that a scenario needs is installed."""
    needed = [library for word, library in LIBRARIES.items() if word in name]
    return all(importlib.util.find_spec(library) for library in needed)


def test_every_scenario_is_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted([*scenarios.READS, *scenarios.WRITES])


@pytest.mark.parametrize("group", GROUPS)
def test_every_fault_is_reported_and_leaves_nothing(group: str, shim: Path, tmp_path: Path) -> None:
    names = [name for name in GROUPS[group] if is_installed(name)]
    package = str(Path(tb.__file__).parents[1])
    environment = {
        **os.environ,
        "LD_PRELOAD": str(shim),
        "PYTHONPATH": os.pathsep.join([package, CRAFT, os.environ.get("PYTHONPATH", "")]),
        "PYTHONFAULTHANDLER": "1",
    }
    depth = "deep" if os.environ.get("TENSORBUNDLE_DEEP") else "sample"
    command = [
        sys.executable,
        str(HERE / "child.py"),
        shim,
        ",".join(names),
        tmp_path / "run",
        depth,
    ]
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=1200
    )
    output = done.stdout[-6000:] + done.stderr[-6000:]
    assert done.returncode == 0, f"exit status {done.returncode}: {output}"
    injected = dict.fromkeys(names, 0)
    for name, count in re.findall(r"^= (\w+): [\w ]+: (\d+)$", done.stdout, re.MULTILINE):
        injected[name] += int(count)
    assert min(injected.values()) > 5, injected
