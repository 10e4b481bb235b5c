# SPDX-License-Identifier: Apache-2.0
"""Consumers that write to arrays despite their read-only flag.

PyTorch does so through every conversion. These tests write to the address of an array; the tests
with PyTorch itself need it installed.
"""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, shard_path
from craft.compare import mapped_file, same_bits
from craft.dtypes import KINDS

import tensorbundle as tb

SOURCE = np.arange(40_000, dtype=np.float32).reshape(100, 400)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(params=["aligned", "odd"])
def prefix(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A whole tensor, a tensor of two slices, and a scalar, at aligned or misaligned offsets."""
    bundle = Bundle()
    bundle.pad(64 if request.param == "aligned" else 1)
    bundle.add("t", SOURCE)
    bundle.add_sliced("sliced", SOURCE, tilings.cut(SOURCE.shape, 0, [30, 70]))
    bundle.add("scalar", np.float32(7))
    bundle.add("bits", SOURCE.astype(np.float16), number=KINDS[19].number)
    return bundle.write(tmp_path / "c")


def digest(prefix: Path) -> str:
    return hashlib.sha256(shard_path(prefix).read_bytes()).hexdigest()


def overwrite(array: np.ndarray) -> None:
    """Writes to an array's memory, like a consumer that ignores the read-only flag."""
    ctypes.memset(array.ctypes.data, 0xFF, array.nbytes)


VIEWS = {
    "asarray": lambda ck: np.asarray(ck["t"]),
    "slice": lambda ck: ck["t"][3:9],
    "row": lambda ck: ck["t"][5],
    "sliced": lambda ck: np.asarray(ck["sliced"]),
    "inside a slice": lambda ck: ck["sliced"][40:50],
    "scalar": lambda ck: np.asarray(ck["scalar"]),
    "dlpack": lambda ck: np.from_dlpack(ck["t"]),
    "copy on write": lambda ck: ck["t"].copy_on_write(),
    "copy on write of a part": lambda ck: ck["t"].copy_on_write(np.s_[3:9]),
    "copy on write inside a slice": lambda ck: ck["sliced"].copy_on_write(np.s_[40:50]),
    "copy on write of a row": lambda ck: ck["sliced"].copy_on_write(5),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("io", ["auto", "mmap"])
def test_write_to_view_leaves_file_unchanged(prefix: Path, view, io: str) -> None:
    before = digest(prefix)
    with tb.open(prefix, io=io) as ck:
        array = view(ck)
        overwrite(array)
        assert np.isnan(array).all()
        # Reads never return what was written to a view.
        assert same_bits(ck["t"].read(), SOURCE)
        assert same_bits(ck["t"].take([5, 0]), SOURCE[[5, 0]])
        assert same_bits(tb.load_and_remap(ck["t"], rows=[4, 3]), SOURCE[[4, 3]])
        assert ck.verify().ok
    assert digest(prefix) == before
    with tb.open(prefix) as ck:
        assert same_bits(np.asarray(ck["t"]), SOURCE)


def test_exports_do_not_share_writes(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        view = np.asarray(ck["t"])
        exports = [np.from_dlpack(ck["t"]), np.from_dlpack(ck["t"]), ck["t"].copy_on_write()]
        overwrite(exports[0])
        assert same_bits(view, SOURCE)
        assert same_bits(exports[1], SOURCE)
        assert same_bits(exports[2], SOURCE)


@linux
def test_views_are_private_mappings(prefix: Path) -> None:
    with tb.open(prefix) as ck:
        view = np.asarray(ck["t"])
        assert mapped_file(view) == (str(shard_path(prefix)), "rw-p")
        assert not view.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1
        with pytest.raises(ValueError):
            view.flags.writeable = True


LIMITED = """
import resource, sys
import numpy as np
import tensorbundle as tb
from craft.compare import mapped_file

# RLIMIT_DATA counts private writable mappings, so mmap fails as with strict overcommit.
used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if "VmData" in line)
resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20), resource.RLIM_INFINITY))
ck = tb.open(sys.argv[1])
view = np.asarray(ck["big"])
assert mapped_file(view)[1] == "r--s", mapped_file(view)
assert not view.flags.writeable
assert (view[:10] == 0).all()
if np.lib.NumpyVersion(np.__version__) >= "2.1.0":  # older versions request writable memory: a copy
    assert (np.from_dlpack(ck["big"])[:10] == 0).all()
assert (ck["big"].take([5, 7]) == 0).all()
try:
    ck["big"].copy_on_write()
except tb.IOFailure as error:
    print(error)
"""


@linux
def test_falls_back_to_shared_mappings(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("big", np.zeros((32 << 20,), np.float32))
    prefix = bundle.write(tmp_path / "c")
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(prefix)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cannot map" in done.stdout


ROUTES = {
    "from_dlpack": "torch.from_dlpack(t)",
    "as_tensor": "torch.as_tensor(t)",
    "as_tensor of a view": "torch.as_tensor(np.asarray(t))",
    "from_numpy": "torch.from_numpy(np.asarray(t))",
    "asarray": "torch.asarray(np.asarray(t))",
    "a slice": "torch.from_numpy(t[2:5])",
    "copy_on_write": "torch.from_numpy(t.copy_on_write())",
    "torch": "t.torch()",
    "torch of a part": "t.torch(slice(2, 5))",
    "read": "torch.from_numpy(t.read())",
}

TRAINING = """
import sys, warnings
import numpy as np, torch
import tensorbundle as tb

warnings.simplefilter("ignore")
ck = tb.open(sys.argv[1])
for name in ("t", "sliced"):
    t = ck[name]
    before = t.read().sum()
    weight = eval(sys.argv[2])
    weight.add_(1.0)
    weight.mul_(0.5)
    parameter = torch.nn.Parameter(weight)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    (parameter * parameter).sum().backward()
    optimizer.step()
    assert ck[name].read().sum() == before
print("ok")
"""


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES.keys())
def test_pytorch_training_leaves_file_unchanged(prefix: Path, route: str) -> None:
    pytest.importorskip("torch")
    before = digest(prefix)
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(prefix), route],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ok\n"
    assert digest(prefix) == before
