# SPDX-License-Identifier: Apache-2.0
"""Options, mappings, fallbacks and leaks of `init_from_checkpoint`."""

from __future__ import annotations

import gc
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft.compare import same_bits

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")
tf1 = tf.compat.v1

from tensorbundle.tf import backend, op_library  # noqa: E402
from tensorbundle.tf.options import current  # noqa: E402

Save = Callable[..., str]
needs_op = pytest.mark.skipif(op_library.find() is None, reason="built without the op library")

# 64-byte rows, so that every slice of an aligned table can be mapped.
TABLE = np.random.default_rng(3).standard_normal((96, 16)).astype(np.float32)
OUR_OPS = ("TensorbundleReadV1", "TensorbundleMapV1", "TensorbundleVerifyV1")
READS = ("RestoreV2", *OUR_OPS)


@pytest.fixture
def prefix(tmp_path: Path, save: Save) -> str:
    """`a` is at offset 0; `odd` and `z` are at offsets that are not multiples of 64."""
    return save(tmp_path / "m", {"a": TABLE, "odd": np.float32([1]), "z": TABLE})


def reads(graph: Any) -> list[str]:
    return [op.type for op in graph.get_operations() if op.type in READS]


def partitioned(shards: int, resource: bool = True, **options: Any) -> list[Any]:
    split = tf1.fixed_size_partitioner(shards, **options) if shards else None
    table = tf1.get_variable("t", TABLE.shape, partitioner=split, use_resource=resource)
    return list(table) if shards else [table]


def anonymous_kilobytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("no RssAnon")


# -- Options


def test_options_at_the_call_apply(prefix: str) -> None:
    with tf.Graph().as_default() as graph:
        with tb.tf.options(op="stock"):
            tb.init_from_checkpoint(prefix, {"a": partitioned(0)[0]})
        assert reads(graph) == ["RestoreV2"]
    assert current().op == "auto"


def test_context_options_override_process_options(monkeypatch: pytest.MonkeyPatch) -> None:
    # `tensorbundle.tf.options` is the function; this is the module.
    module = sys.modules["tensorbundle.tf.options"]
    monkeypatch.setattr(module, "_process", module.Options())
    tb.tf.set_options(verify="lazy", threads=3)
    with tb.tf.options(threads=2) as inner:
        assert (inner.verify, inner.threads, inner.mode) == ("lazy", 2, "copy")
        assert current() is inner
    assert current().threads == 3


@pytest.mark.parametrize(
    "options",
    [{"mode": "mmap"}, {"verify": "parts"}, {"op": "custom"}, {"threads": 0},
     {"op": "stock", "mode": "map"}],
)  # fmt: skip
def test_invalid_option_raises_value_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError), tb.tf.options(**options):
        pass


# -- Mappings


@needs_op
@pytest.mark.parametrize("mode", ["map", "auto"])
@pytest.mark.parametrize("shards", [0, 4])
@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("verify", [None, "full", "lazy"])
@pytest.mark.parametrize(("op", "kind"), [("auto", "RestoreV2"), ("native", "TensorbundleMapV1")])
def test_mapped_variables_are_private_copies(
    prefix: str, mode: str, shards: int, resource: bool, verify: str | None, op: str, kind: str
) -> None:
    before = Path(f"{prefix}.data-00000-of-00001").read_bytes()
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        partitions = partitioned(shards, resource)
        with tb.tf.options(mode=mode, verify=verify, op=op):
            tb.init_from_checkpoint(prefix, {"a": partitions if shards else partitions[0]})
        assert reads(graph) == [kind]
        session.run([partition.initializer for partition in partitions])
        assert same_bits(np.concatenate(session.run([p.value() for p in partitions])), TABLE)
        session.run([partition.assign_add(tf.ones(partition.shape)) for partition in partitions])
        assert same_bits(np.concatenate(session.run([p.value() for p in partitions])), TABLE + 1)
    assert Path(f"{prefix}.data-00000-of-00001").read_bytes() == before


@needs_op
@pytest.mark.parametrize("op", ["auto", "native"])
def test_initializer_maps_only_its_partition(prefix: str, op: str) -> None:
    """The mappings of the other partitions are released."""
    shard = Path(f"{prefix}.data-00000-of-00001")
    with tf.Graph().as_default(), tf1.Session() as session:
        partitions = partitioned(4)
        with tb.tf.options(mode="map", op=op):
            tb.init_from_checkpoint(prefix, {"a": partitions})
        for i, partition in enumerate(partitions):
            session.run(partition.initializer)
            assert Path("/proc/self/maps").read_text().count(str(shard)) == i + 1
            assert same_bits(session.run(partition), TABLE[24 * i : 24 * (i + 1)])
        session.run(partitions[2].initializer)  # a second time
        assert same_bits(np.concatenate(session.run(partitions)), TABLE)


@needs_op
@pytest.mark.parametrize("traced", [False, True], ids=["eager", "function"])
def test_shards_of_eager_variables_are_mapped(prefix: str, traced: bool) -> None:
    shard = Path(f"{prefix}.data-00000-of-00001")
    partitions = [tf.Variable(tf.zeros([48, 16])) for _ in range(2)]
    sharded = tf.__internal__.distribute.ShardedVariable(partitions)

    def start() -> None:
        with tb.tf.options(mode="map"):
            tb.init_from_checkpoint(prefix, {"a": sharded})

    (tf.function(start) if traced else start)()
    assert same_bits(np.concatenate([partition.numpy() for partition in partitions]), TABLE)
    assert Path("/proc/self/maps").read_text().count(str(shard)) == 2


@needs_op
@pytest.mark.parametrize("mode", ["copy", "map"])
@pytest.mark.parametrize("op", ["auto", "native"])
@pytest.mark.parametrize("shards", [0, 2])
def test_ops_get_the_number_of_threads(prefix: str, shards: int, op: str, mode: str) -> None:
    with tf.Graph().as_default() as graph:
        table = partitioned(shards)
        with tb.tf.options(mode=mode, op=op, threads=3):
            tb.init_from_checkpoint(prefix, {"a": table if shards else table[0]})
        found = [each for each in graph.get_operations() if each.type in READS[:3]]
        assert found
        for each in found:
            name = "_tensorbundle_threads" if each.type == "RestoreV2" else "threads"
            assert each.get_attr(name) == 3


@needs_op
@pytest.mark.parametrize("op", ["auto", "native"])
@pytest.mark.parametrize("verify", ["full", None, "none"])
def test_one_mapping_op_verifies_only_if_asked(prefix: str, verify: str | None, op: str) -> None:
    shard = Path(f"{prefix}.data-00000-of-00001")
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    with tf.Graph().as_default(), tf1.Session() as session:
        table = tf1.get_variable("a", TABLE.shape)
        with tb.tf.options(mode="map", verify=verify, op=op):
            tb.init_from_checkpoint(prefix, {"a": table})
        if verify == "full":
            with pytest.raises(tf.errors.DataLossError):
                session.run(table.initializer)
            assert not session.run(tf1.is_variable_initialized(table))
        else:  # by default, a mapped value is not read
            session.run(table.initializer)
            assert not same_bits(session.run(table), TABLE)


@needs_op
@pytest.mark.parametrize("flipped", [None, 5, 90], ids=["intact", "first", "last"])
@pytest.mark.parametrize(("op", "kind"), [("auto", "RestoreV2"), ("native", "TensorbundleMapV1")])
def test_corruption_fails_partitions_on_all_devices(
    prefix: str, flipped: int | None, op: str, kind: str
) -> None:
    """There is one op per device."""
    shard = Path(f"{prefix}.data-00000-of-00001")
    if flipped is not None:
        content = bytearray(shard.read_bytes())
        content[flipped * TABLE.strides[0]] ^= 1
        shard.write_bytes(content)
    devices = ["/cpu:0", "/job:localhost/task:0/cpu:0", "/cpu:0"]
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        with tf1.device(lambda op: devices[int(op.name.partition("part_")[2][:1])]):
            partitions = partitioned(3)
        with tb.tf.options(mode="map", verify="full", op=op):
            tb.init_from_checkpoint(prefix, {"a": partitions})
        map_ops = [each for each in graph.get_operations() if each.type == kind]
        outputs = [[out for out in each.outputs if out.dtype == tf.float32] for each in map_ops]
        assert [len(each) for each in outputs] == [2, 1]
        for partition in partitions:
            if flipped is None:
                session.run(partition.initializer)
                continue
            with pytest.raises(tf.errors.DataLossError):
                session.run(partition.initializer)
            assert not session.run(tf1.is_variable_initialized(partition))
        if flipped is None:
            assert same_bits(np.concatenate(session.run(partitions)), TABLE)


@needs_op
@pytest.mark.parametrize(
    ("tensor", "options", "reason"),
    [
        ("z", {}, r"offset \d+ of .*not a multiple of 64.*tensorbundle align"),
        ("a", {"axis": 1}, "parts of longer stored rows"),
    ],
)
def test_unmappable_partitions_raise_or_are_copied(
    prefix: str, tensor: str, options: dict[str, int], reason: str
) -> None:
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        partitions = partitioned(2, **options)
        initializers = [partition.initializer for partition in partitions]
        with tb.tf.options(mode="map"), pytest.raises(ValueError, match=reason):
            tb.init_from_checkpoint(prefix, {tensor: partitions})
        assert [partition.initializer for partition in partitions] == initializers
        assert not reads(graph)
        with tb.tf.options(mode="auto"):
            tb.init_from_checkpoint(prefix, {tensor: partitions})
        session.run([partition.initializer for partition in partitions])
        values = session.run([p.value() for p in partitions])
        assert same_bits(np.concatenate(values, options.get("axis", 0)), TABLE)


@needs_op
def test_small_and_string_tensors_are_copied(tmp_path: Path, save: Save) -> None:
    arrays = {
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.float32(3),
        "text": np.array([b"x", b""], object),
    }
    prefix = save(tmp_path / "m", arrays)
    with tb.tf.options(mode="map"):
        for name, value in arrays.items():
            variable = tf.Variable(tf.constant(value) if name == "text" else np.zeros_like(value))
            tb.init_from_checkpoint(prefix, {name: variable})
            assert variable.numpy().tolist() == value.tolist()


@needs_op
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("op", ["auto", "native"])
def test_mapped_variable_is_updated_in_place(
    tmp_path: Path, save: Save, eager: bool, op: str
) -> None:
    megabytes = 64
    shape = (megabytes << 12, 64)
    prefix = save(tmp_path / "m", {"t": np.ones(shape, np.float32)})

    def update(variable: Any) -> Any:
        return variable.scatter_sub(tf.IndexedSlices(tf.ones([1, 64]), tf.constant([5])))

    gc.collect()
    if eager:
        # The variable takes ownership of the mapping without a copy.
        variable = tf.Variable(tf.zeros([0, 64]), shape=[None, 64])
        before = anonymous_kilobytes()
        with tb.tf.options(mode="map", op=op):
            tb.init_from_checkpoint(prefix, {"t": variable})
        update(variable)
        row = tf.gather(variable, [5, 6]).numpy()
    else:
        with tf.Graph().as_default(), tf1.Session() as session:
            variable = tf1.get_variable("t", shape, use_resource=True)
            with tb.tf.options(mode="map", op=op):
                tb.init_from_checkpoint(prefix, {"t": variable})
            looked_up, updated = tf.gather(variable, [5, 6]), update(variable).op
            before = anonymous_kilobytes()
            session.run(variable.initializer)
            session.run(updated)
            row = session.run(looked_up)
            grown = anonymous_kilobytes() - before
    if eager:
        grown = anonymous_kilobytes() - before
    assert row[0].tolist() == [0] * 64
    assert row[1].tolist() == [1] * 64
    assert grown < megabytes * 1024 / 2


# -- Fallbacks


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op_library, "load", lambda: None)
    monkeypatch.setattr(op_library, "unavailable_reason", lambda: "disabled by a test")
    op_library.warn_once.cache_clear()


@pytest.mark.usefixtures("no_library")
def test_missing_library_warns_once(prefix: str) -> None:
    with tf.Graph().as_default() as graph:
        with pytest.warns(RuntimeWarning, match="disabled by a test") as caught:
            tb.init_from_checkpoint(prefix, {"a": partitioned(3)})
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tb.init_from_checkpoint(prefix, {"a": tf1.get_variable("u", TABLE.shape)})
        assert set(reads(graph)) == {"RestoreV2"}


@pytest.mark.usefixtures("no_library")
@pytest.mark.filterwarnings("ignore:tensorbundle reads checkpoints the slow way")
def test_missing_library_disables_mapping(prefix: str) -> None:
    variable = tf.Variable(tf.zeros(TABLE.shape))
    with tb.tf.options(mode="map"), pytest.raises(ValueError, match="disabled by a test"):
        tb.init_from_checkpoint(prefix, {"a": variable})
    with tb.tf.options(mode="auto"):
        tb.init_from_checkpoint(prefix, {"a": variable})
    assert same_bits(variable.numpy(), TABLE)


def test_tasks_without_our_ops_get_stock_op(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_remote_ops", False)  # as after install()
    with tf.Graph().as_default() as graph, tf1.device("/job:ps/task:0"):
        variable = partitioned(0)[0]
        tb.init_from_checkpoint(prefix, {"a": variable})
        assert reads(graph) == ["RestoreV2"]
        with tb.tf.options(mode="map"), pytest.raises(ValueError, match="install"):
            tb.init_from_checkpoint(prefix, {"a": variable})


def test_remote_paths_are_read_by_tensorflow(save: Save) -> None:
    save("ram://folder/m", {"a": TABLE})
    tf.io.gfile.GFile("ram://folder/checkpoint", "w").write('model_checkpoint_path: "m"')
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        variable = partitioned(0)[0]
        tb.init_from_checkpoint("ram://folder", {"a": variable})
        assert reads(graph) == ["RestoreV2"]
        session.run(variable.initializer)
        assert same_bits(session.run(variable), TABLE)


def test_file_url_is_read_as_local_path(prefix: str) -> None:
    with tf.Graph().as_default(), tf1.Session() as session:
        variable = partitioned(0)[0]
        tb.init_from_checkpoint(f"file://{prefix}", {"a": variable})
        session.run(variable.initializer)
        assert same_bits(session.run(variable), TABLE)


# -- Leaks and costs


@pytest.mark.usefixtures("backend_name")
def test_graph_contains_no_data(tmp_path: Path, save: Save) -> None:
    prefix = save(tmp_path / "m", {"t": np.zeros((1 << 18, 16), np.float32)})
    with tf.Graph().as_default() as graph:
        split = tf1.fixed_size_partitioner(4)
        table = tf1.get_variable("t", [1 << 18, 16], partitioner=split)
        tb.init_from_checkpoint(prefix, {"t": table})
        assert len(str(graph.as_graph_def())) < 32_000


@pytest.mark.usefixtures("backend_name")
def test_repeated_initialization_leaks_no_memory(prefix: str) -> None:
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        partitions = partitioned(2)
        tb.init_from_checkpoint(prefix, {"a": partitions})
        initializers = [partition.initializer for partition in partitions]
        graph.finalize()
        for _ in range(50):
            session.run(initializers)
        files, kilobytes = len(os.listdir("/proc/self/fd")), anonymous_kilobytes()
        for _ in range(500):
            session.run(initializers)
        assert len(os.listdir("/proc/self/fd")) <= files + 2
        assert anonymous_kilobytes() - kilobytes < 4096


@needs_op
def test_mappings_are_unmapped_with_their_variable(prefix: str) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(prefix)

    with tf.Graph().as_default(), tf1.Session() as session:
        variable = partitioned(0)[0]
        with tb.tf.options(mode="map"):
            tb.init_from_checkpoint(prefix, {"a": variable})
        for _ in range(20):
            session.run(variable.initializer)
        assert mapped() <= 2
    del variable
    gc.collect()
    assert mapped() == 0


def test_many_tensors_load_faster_than_tensorflow(tmp_path: Path, save: Save) -> None:
    many = 5000
    prefix = save(tmp_path / "m", {f"s/v{i}": np.float32(i) for i in range(many)})
    with tf.Graph().as_default():
        variables = [tf1.get_variable(f"v{i}", [], use_resource=True) for i in range(100)]
        seconds = []
        for function in (tf1.train.init_from_checkpoint, tb.init_from_checkpoint):
            start = time.perf_counter()
            for i, variable in enumerate(variables):
                function(prefix, {f"s/v{i}": variable})
            seconds.append(time.perf_counter() - start)
    assert seconds[1] < seconds[0], seconds
