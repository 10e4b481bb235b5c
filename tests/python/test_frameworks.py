# SPDX-License-Identifier: Apache-2.0
"""PyTorch, JAX, Flax, Keras, Dask and Ray: the pages of the docs about them, and what they promise.

Each test is skipped if its framework is not installed; ``nox -s frameworks`` installs all of them.
Each runs in a process of its own, because frameworks have global state and warn at import.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from document_pages import ROOT, blocks

import tensorbundle as tb

# Statements that are executed after the blocks of a page.
CHECKS = {
    "pytorch": """
first = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
assert model.get_parameter("0.bias").data_ptr() == state["0.bias"].data_ptr()
before, after = tb.load("model.ckpt-1000"), tb.load("model.ckpt-1001")
np.testing.assert_array_equal(before["dense/kernel"], first)     # the file did not change
assert not np.array_equal(after["dense/kernel"], first)          # the parameters did
np.testing.assert_allclose(after["dense/kernel"], first, atol=1)
assert after["logits/kernel"].shape == (32, 10)
assert ck.verify().ok
np.testing.assert_array_equal(inputs, before["embedding"][ids])
assert count == len(table) == 10_000
assert isinstance(rows, torch.Tensor) and rows.dtype == torch.float32 and rows.shape[1] == 64
""",
    "jax": """
expected = tb.load("model.ckpt-1000")
np.testing.assert_array_equal(array, expected["embedding"])
np.testing.assert_allclose(mean, expected["embedding"].mean(axis=0), atol=1e-6)
np.testing.assert_array_equal(rows, expected["embedding"][:5])
np.testing.assert_array_equal(table, expected["embedding"])
shards = table.addressable_shards
assert len({shard.device for shard in shards}) == 8
assert all(shard.data.shape == (1250, 64) for shard in shards)
# A row is 256 bytes.
assert [n for shard in shards for _, _, n in t.byte_ranges(shard.index)] == [1250 * 256] * 8
hidden = np.maximum(expected["embedding"][:4] @ expected["dense/kernel"], 0)
np.testing.assert_allclose(logits, hidden @ expected["logits/kernel"], rtol=1e-4, atol=1e-4)
assert jax.tree.structure(params) == jax.tree.structure(shapes)
""",
    "keras": """
expected = tb.load("model.ckpt-1000")
kernel = keras.ops.convert_to_numpy(model.layers[1].kernel)
np.testing.assert_array_equal(kernel, expected["old_logits/kernel"].astype(np.float32))
loaded = keras.ops.convert_to_numpy(head.layers[0].kernel)
np.testing.assert_array_equal(loaded, expected["hidden/kernel"])
assert list(report.missing) == [weight.path for weight in head.layers[1].weights]
""",
}
# What the scripts of "Many processes" print, by the package that they need.
OUTPUTS = {"numpy": "64 (100, 64)", "distributed": "(200, 2)", "ray": "."}

TABLE_BYTES = 640 << 20


def require(package: str) -> str:
    """Returns the version of a package, without importing it, or skips the test."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")


def environment(**variables: str) -> dict[str, str]:
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "DASK_DISTRIBUTED__VERSION_CHECK": "False",
        **variables,
    }


def run(directory: Path, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout


def run_code(directory: Path, code: str) -> str:
    script = directory / "script.py"
    script.write_text(code)
    return run(directory, str(script))


@pytest.mark.parametrize(
    ("page", "package", "backend"),
    [
        ("pytorch", "torch", ""),
        ("jax", "flax", ""),
        ("keras", "torch", "torch"),
        ("keras", "jax", "jax"),
        ("keras", "scipy", "numpy"),  # which this backend needs
    ],
)
def test_page(page: str, package: str, backend: str, tmp_path: Path) -> None:
    require(package)
    if page == "keras" and require("keras").startswith("2."):
        pytest.skip("Keras 2 is installed")
    program = str(ROOT / "tests" / "python" / "document_pages.py")
    run(tmp_path, program, f"docs/{page}", CHECKS[page], KERAS_BACKEND=backend or "numpy")


@pytest.mark.parametrize(("number", "package"), list(enumerate(OUTPUTS, 1)))
def test_script(number: int, package: str, tmp_path: Path) -> None:
    require(package)
    scripts = blocks("docs/distributed", "python")
    assert len(scripts) == 1 + len(OUTPUTS)
    run_code(tmp_path, scripts[0])
    assert OUTPUTS[package] in run_code(tmp_path, scripts[number])


def test_pytorch_takes_rows_by_tensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    table = np.arange(60, dtype=np.float32).reshape(20, 3)
    tb.save(tmp_path / "ck", {"t": table})
    t = tb.open(tmp_path / "ck")["t"]
    for ids in ([3, 0, -1], [3], [[1], [2]]):
        np.testing.assert_array_equal(t[torch.tensor(ids)], table[ids])
    np.testing.assert_array_equal(t[torch.tensor(3)], table[3])
    with pytest.raises(TypeError, match="not a boolean mask"):
        t[torch.ones(20, dtype=torch.bool)]


def test_jax_does_not_change_the_file_when_it_reuses_memory(tmp_path: Path) -> None:
    require("jax")
    code = """
import jax, jax.numpy as jnp, numpy as np, tensorbundle as tb
expected = np.arange(1 << 20, dtype=np.float32)
tb.save("ck", {"t": expected})
t = tb.open("ck")["t"]
view = np.asarray(t)
add = jax.jit(lambda x: x + 1, donate_argnums=0)       # may overwrite its argument
for create in (jnp.from_dlpack, jnp.asarray, lambda t: jax.device_put(np.asarray(t))):
    np.testing.assert_array_equal(add(create(t)), expected + 1)
    np.testing.assert_array_equal(view, expected)
    np.testing.assert_array_equal(t.read(), expected)
assert tb.open("ck").verify().ok
"""
    run_code(tmp_path, code)


def test_dask_finds_chunks_and_names(tmp_path: Path) -> None:
    require("dask")
    code = """
import dask.array as da, numpy as np, tensorbundle as tb
from dask.base import tokenize
table = np.arange(60000, dtype=np.float32).reshape(20000, 3)
with tb.Writer("ck") as writer:
    writer.add("whole", table)
    writer.add_slices("sliced", table.shape, [((0, 0), table[:7]), ((7, 0), table[7:])])
ck, again = tb.open("ck"), tb.open("ck")
for name in ck:
    t = ck[name]
    for array in (da.from_array(t), da.asarray(t), da.from_array(t, chunks=(3000, 2))):
        assert array.dtype == t.dtype
        np.testing.assert_array_equal(array, table)
        np.testing.assert_array_equal(array[::-7, 1:], table[::-7, 1:])
        np.testing.assert_array_equal(array[[5, 19999, 5], :2], table[[5, 19999, 5], :2])
        np.testing.assert_array_equal(array[array[:, 0] > 5], table[table[:, 0] > 5])
    assert tokenize(t) == tokenize(again[name])     # equal work is done once
tokens = {tokenize(ck["whole"]), tokenize(ck["sliced"])}
tb.save("ck", {"whole": table}, overwrite=True)
assert len(tokens | {tokenize(tb.open("ck")["whole"])}) == 3
"""
    run_code(tmp_path, code)


def write_large_table(directory: Path) -> None:
    """Writes a table whose rows are their numbers."""
    rows = TABLE_BYTES // 256
    blocks = (
        np.repeat(np.arange(i, i + 4096, dtype=np.float32)[:, None], 64, axis=1)
        for i in range(0, rows, 4096)
    )
    with tb.Writer(directory / "ck") as writer:
        writer.add_chunks("t", (rows, 64), np.float32, blocks)


def test_dask_processes_table_larger_than_its_memory(tmp_path: Path) -> None:
    require("distributed")
    write_large_table(tmp_path)
    code = f"""
import dask, dask.array as da, tensorbundle as tb
from dask.distributed import Client, LocalCluster
if __name__ == "__main__":
    limit = {TABLE_BYTES} // 2
    t = tb.open("ck", io="pread")["t"]
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=limit,
                      dashboard_address=None) as cluster, Client(cluster) as client:
        first = set(client.run(__import__("os").getpid).values())
        table = da.from_array(t, chunks=(1 << 15, -1))
        total = table.sum(axis=0, dtype="float64").compute()
        assert total.tolist() == [len(t) * (len(t) - 1) / 2] * 64
        assert set(client.run(__import__("os").getpid).values()) == first     # none was restarted
"""
    run_code(tmp_path, code)


def test_ray_processes_table_larger_than_its_memory(tmp_path: Path) -> None:
    require("ray")
    write_large_table(tmp_path)
    code = f"""
import resource
import ray
import tensorbundle as tb
@ray.remote
def work(table, start, stop):
    total = float(table[start:stop].sum(dtype="float64"))
    return total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
if __name__ == "__main__":
    ray.init(num_cpus=2, object_store_memory=100 << 20, include_dashboard=False)
    table = tb.open("ck", io="pread")["t"]
    handle = ray.put(table)
    parts = range(0, len(table), 1 << 15)
    results = ray.get([work.remote(handle, start, start + (1 << 15)) for start in parts])
    assert sum(total for total, _ in results) == 64 * len(table) * (len(table) - 1) / 2
    assert max(peak for _, peak in results) < {TABLE_BYTES}
    ray.shutdown()
"""
    run_code(tmp_path, code)
