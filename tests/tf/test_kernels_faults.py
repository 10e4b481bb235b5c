# SPDX-License-Identifier: Apache-2.0
"""Reads of ops that the system fails: their error, and the next op on the same slice."""

from __future__ import annotations

import errno
import faulthandler
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from craft import faults
from craft.bundle import Bundle

tf = pytest.importorskip("tensorflow")

from tensorbundle.tf import op_library  # noqa: E402

SHAPE = (3000, 64)  # one slice of 750 KiB, which a ledger verifies
VALUES = np.arange(3000 * 64, dtype=np.float32).reshape(SHAPE)
MOST = 60  # reads of the system in one restore


def restore(prefix: Path, first: int, count: int) -> np.ndarray:
    read = tf.raw_ops.RestoreV2(
        prefix=str(prefix),
        tensor_names=["t"],
        shape_and_slices=[f"3000 64 {first},{count}:-"],
        dtypes=[tf.float32],
    )
    result: np.ndarray = read[0].numpy()
    return result


CODES = {
    errno.EACCES: tf.errors.PermissionDeniedError,
    errno.EAGAIN: tf.errors.ResourceExhaustedError,
    errno.EIO: tf.errors.InternalError,
    errno.EMFILE: tf.errors.ResourceExhaustedError,
    errno.ENFILE: tf.errors.ResourceExhaustedError,
    errno.ENOMEM: tf.errors.ResourceExhaustedError,
    errno.ENXIO: tf.errors.NotFoundError,
}


def codes(shim: faults.Shim, folder: Path) -> None:
    """The code of an error of the system."""
    ops = op_library.load_op_library()
    for group in ("open", "read"):
        for number, code in CODES.items():
            bundle = Bundle()
            bundle.add("t", VALUES)
            prefix = bundle.write(folder / f"{group}{number}")  # that is in no cache
            with shim.faults([group], faults.FAIL_FROM, number, 1), pytest.raises(code) as caught:
                ops.tensorbundle_read_v1(prefix=str(prefix), tensor="t", dtype=tf.float32)
            assert os.strerror(number) in str(caught.value), caught.value
            value, _ = ops.tensorbundle_read_v1(prefix=str(prefix), tensor="t", dtype=tf.float32)
            assert np.array_equal(value.numpy(), VALUES)


def joins(shim: faults.Shim, folder: Path) -> None:
    """A join that the system failed is not cached: the same files are joined again."""
    ops = op_library.load_op_library()
    for group in ("open", "read", "map"):
        files = {"new_vocab": folder / f"{group}.new", "old_vocab": folder / f"{group}.old"}
        for path, step in zip(files.values(), (1, 2), strict=True):
            path.write_text("".join(f"token{i}\n" for i in range(0, 20_000, step)))
        options = {name: str(path) for name, path in files.items()} | {"num_new": 20_000}
        failed = 0
        for number in range(1, MOST):
            with shim.faults([group], faults.FAIL, errno.EIO, number):
                try:
                    ops.tensorbundle_missing_v1(**options)
                except tf.errors.InternalError:
                    failed += 1
                if shim.count < number:
                    break
        assert failed > 0 or group == "map", group
        assert int(ops.tensorbundle_missing_v1(**options).numpy()) == 10_000


def claims(shim: faults.Shim, folder: Path) -> None:
    """Read number n of a restore fails, for each n. Other rows of the slice are restored then.

    An op that waited for the bytes that the failed one has claimed would wait forever.
    """
    op_library.load_op_library()
    bundle = Bundle()
    bundle.add("t", VALUES)
    bundle.write(folder / "first")
    assert np.array_equal(restore(folder / "first", 5, 10), VALUES[5:15])
    failed = 0
    for number in range(1, MOST):
        prefix = bundle.write(folder / f"c{number}")  # that no op has verified yet
        time.sleep(0.05)  # ops share no verification of files that have just been written
        with shim.faults(["read"], faults.FAIL, errno.EIO, number):
            try:
                found = restore(prefix, 500, 1000)
            except tf.errors.OpError:
                failed += 1
            else:
                assert np.array_equal(found, VALUES[500:1500])
            count = shim.count
        assert np.array_equal(restore(prefix, 2000, 700), VALUES[2000:2700])
        if count < number:
            break
    else:
        raise AssertionError(f"more than {MOST} reads")
    assert failed >= 2, failed


def main(name: str, library: str, folder: Path) -> None:
    faulthandler.dump_traceback_later(200, exit=True)
    shim = faults.Shim(library, folder)
    {"claims": claims, "codes": codes, "joins": joins}[name](shim, folder)
    print("good")


@pytest.mark.skipif(op_library.find() is None, reason="built without the op library")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="preloads a library")
@pytest.mark.parametrize("name", ["claims", "codes", "joins"])
def test_ops_whose_system_calls_fail(name: str, tmp_path: Path) -> None:
    library = faults.build(tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    path = [str(Path(__file__).parents[1] / "python"), *sys.path]
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }
    command = [sys.executable, __file__, name, str(library), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout == "good\n"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
