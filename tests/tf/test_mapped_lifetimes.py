# SPDX-License-Identifier: Apache-2.0
"""Lifetime and isolation of the mappings of variables; the file never changes."""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tensorbundle.tf  # noqa: E402
from tensorbundle.tf import op_library  # noqa: E402
from tensorbundle.tf.functions import init_from_checkpoint  # noqa: E402

pytestmark = [
    pytest.mark.skipif(op_library.load() is None, reason="the op library cannot be loaded"),
    pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="mappings are listed by Linux"),
]

v1 = tf.compat.v1
TABLE = np.random.default_rng(3).standard_normal((4096, 64)).astype(np.float32)  # 1 MiB
SHARD = ".data-00000-of-00001"
KINDS = pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])


@pytest.fixture
def prefix(tmp_path: Path, save: Callable[..., str]) -> str:
    """Writes a single tensor, which is at offset 0."""
    return save(tmp_path / "model", {"table": TABLE})


def mappings(prefix: str) -> int:
    return Path("/proc/self/maps").read_text().count(prefix + SHARD)


def digest(prefix: str) -> str:
    return hashlib.sha256(Path(prefix + SHARD).read_bytes()).hexdigest()


def mapped_variable(prefix: str, resource: bool, mode: str = "map") -> Any:
    """Creates a variable in the current graph that is initialized from the checkpoint."""
    variable = v1.get_variable("table", TABLE.shape, use_resource=resource)
    with tensorbundle.tf.options(mode=mode):
        init_from_checkpoint(prefix, {"table": variable})
    return variable


def sparse_step(variable: Any) -> Any:
    loss = tf.reduce_sum(tf.nn.embedding_lookup(variable, [1, 5]))
    return v1.train.GradientDescentOptimizer(1.0).minimize(loss)


def table_after(steps: int = 1) -> np.ndarray:
    """Returns the expected table after that many steps."""
    expected = TABLE.copy()
    for _ in range(steps):
        expected[[1, 5]] -= 1
    return expected


@KINDS
def test_closing_the_session_unmaps(prefix: str, resource: bool) -> None:
    with tf.Graph().as_default():
        variable = mapped_variable(prefix, resource)
        session = v1.Session()
        session.run(variable.initializer)
        assert mappings(prefix) == 1
        session.close()
        assert mappings(prefix) == 0


@KINDS
def test_fetched_value_outlives_the_session(prefix: str, resource: bool) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        variable = mapped_variable(prefix, resource)
        session.run(variable.initializer)
        value = session.run(variable)
    del session, variable
    gc.collect()
    np.testing.assert_array_equal(value, TABLE)


@KINDS
def test_two_sessions_have_separate_tables(prefix: str, resource: bool) -> None:
    with tf.Graph().as_default():
        variable = mapped_variable(prefix, resource)
        step = sparse_step(variable)
        with v1.Session() as first, v1.Session() as second:
            for session in (first, second):
                session.run(variable.initializer)
            first.run(step)
            np.testing.assert_array_equal(first.run(variable), table_after())
            np.testing.assert_array_equal(second.run(variable), TABLE)


@KINDS
@pytest.mark.parametrize("mode", ["copy", "map", "auto"])
def test_training_never_changes_the_file(prefix: str, resource: bool, mode: str) -> None:
    before = digest(prefix)
    with tf.Graph().as_default(), v1.Session() as session:
        variable = mapped_variable(prefix, resource, mode)
        step = sparse_step(variable)
        dense = v1.assign_add(variable, tf.ones_like(variable))
        session.run(variable.initializer)
        session.run(step)
        np.testing.assert_array_equal(session.run(variable), table_after())
        session.run(dense)
        np.testing.assert_array_equal(session.run(variable), table_after() + 1)
        assert digest(prefix) == before
        session.run(variable.initializer)  # reads the file again
        np.testing.assert_array_equal(session.run(variable), TABLE)
    assert digest(prefix) == before


@KINDS
def test_mapped_table_can_be_saved_over_its_checkpoint(prefix: str, resource: bool) -> None:
    """TensorFlow replaces files by renaming, so the mapping keeps the old file."""
    with tf.Graph().as_default(), v1.Session() as session:
        variable = mapped_variable(prefix, resource)
        step = sparse_step(variable)
        session.run(variable.initializer)
        session.run(step)
        saved = v1.train.Saver([variable]).save(session, prefix, write_meta_graph=False)
        assert saved == prefix
        np.testing.assert_array_equal(tf.train.load_variable(prefix, "table"), table_after())
        session.run(step)
        np.testing.assert_array_equal(session.run(variable), table_after(2))
        session.run(variable.initializer)  # maps the new checkpoint
        np.testing.assert_array_equal(session.run(variable), table_after())


@KINDS
def test_deleted_checkpoint_stays_mapped(prefix: str, resource: bool) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        variable = mapped_variable(prefix, resource)
        step = sparse_step(variable)
        session.run(variable.initializer)
        for suffix in (".index", SHARD):
            os.remove(prefix + suffix)
        session.run(step)
        np.testing.assert_array_equal(session.run(variable), table_after())
        with pytest.raises(tf.errors.NotFoundError):
            session.run(variable.initializer)
        np.testing.assert_array_equal(session.run(variable), table_after())


def test_fork_keeps_the_mapping_of_the_parent(prefix: str) -> None:
    script = """
        import os, sys
        import numpy as np
        import tensorflow as tf
        import tensorbundle.tf
        from tensorbundle.tf.functions import init_from_checkpoint

        prefix = sys.argv[1]
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            variable = v1.get_variable("table", [4096, 64])
            with tensorbundle.tf.options(mode="map"):
                init_from_checkpoint(prefix, {"table": variable})
            session.run(variable.initializer)
            rows = tf.nn.embedding_lookup(variable, [1, 5])
            step = v1.train.GradientDescentOptimizer(1.0).minimize(tf.reduce_sum(rows))
            session.run(step)
            before = session.run(rows)
            mapped = open("/proc/self/maps").read().count(prefix)
            child = os.fork()
            if child == 0:
                same = open("/proc/self/maps").read().count(prefix) == mapped
                os._exit(0 if same and mapped else 3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            np.testing.assert_array_equal(session.run(rows), before)
            session.run(step)
            np.testing.assert_array_equal(session.run(rows), before - 1)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), prefix],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert np.frombuffer(Path(prefix + SHARD).read_bytes(), np.float32).size == TABLE.size
