# SPDX-License-Identifier: Apache-2.0
"""Warm-starts an embedding table whose vocabulary has changed, with TensorFlow and tensorbundle.

    pip install 'tensorbundle[tf]'
    python examples/warm_start.py [--tokens 1000000] [--dim 64] [--partitions 8]

TensorFlow trains a table for one step and saves it. Three quarters of the new vocabulary are old
tokens in another order. Each library fills the new table in a separate process, so that peak memory
is measured separately, and both tables must be equal bit for bit.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@dataclass(frozen=True)
class Result:
    """One library's time in seconds, its peak memory in bytes, and the digest of its table."""

    seconds: float
    peak: int
    digest: str


def train(folder: Path, tokens: int, dim: int) -> None:
    """Trains a table with one row per token for one step and saves it."""
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf1.Graph().as_default(), tf1.Session() as session:
        table = tf1.get_variable("embeddings", [tokens, dim])
        rows = tf.nn.embedding_lookup(table, np.arange(min(tokens, 1000)))
        step = tf1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_sum(rows**2))
        session.run(tf1.global_variables_initializer())
        session.run(step)
        tf1.train.Saver().save(session, str(folder / "model.ckpt"))


def write_vocabularies(folder: Path, tokens: int) -> int:
    """Writes both vocabularies. Returns the size of the new one, which is a fifth larger."""
    random = np.random.default_rng(1)
    new_size = tokens * 6 // 5
    num_unseen = new_size // 4
    kept = random.permutation(tokens)[: new_size - num_unseen]
    new = random.permutation(np.concatenate([kept, tokens + np.arange(num_unseen)]))
    for name, numbers in ("old.txt", np.arange(tokens)), ("new.txt", new):
        (folder / name).write_text("".join(f"token-{number}\n" for number in numbers))
    return new_size


def warm_start(library: str, folder: Path, tokens: int, dim: int, partitions: int) -> Result:
    """Fills a new table from the saved one. Both libraries have functions of the same names."""
    import tensorflow as tf

    import tensorbundle as tb

    tf1 = tf.compat.v1
    module = {"tensorbundle": tb, "TensorFlow": tf1.train}[library]
    with tf1.Graph().as_default(), tf1.Session() as session:
        partitioner = tf1.fixed_size_partitioner(partitions)
        table = tf1.get_variable("embeddings", [tokens, dim], partitioner=partitioner)
        vocabulary = module.VocabInfo(
            new_vocab=str(folder / "new.txt"),
            new_vocab_size=tokens,
            num_oov_buckets=0,
            old_vocab=str(folder / "old.txt"),
            backup_initializer=tf1.random_uniform_initializer(-0.1, 0.1, seed=1),
        )

        with Memory() as memory:
            start = time.perf_counter()
            module.warm_start(str(folder), "embeddings", {"embeddings": vocabulary})
            session.run(tf1.global_variables_initializer())
            seconds = time.perf_counter() - start

        digest = hashlib.sha256()
        for partition in table:
            digest.update(session.run(partition).data)
    return Result(seconds, memory.peak - memory.start, digest.hexdigest())


class Memory:
    """Samples the private memory of this process in bytes, without pages of mapped files."""

    def __enter__(self) -> Memory:
        self.start = self.peak = self._now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self.peak = max(self.peak, self._now())

    def _now(self) -> int:
        _, resident, of_files, *_ = map(int, Path("/proc/self/statm").read_text().split())
        return (resident - of_files) * os.sysconf("SC_PAGE_SIZE")


def run_in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


@click.command()
@click.option("--tokens", default=1_000_000, show_default=True, help="Rows of the old table.")
@click.option("--dim", default=64, show_default=True, help="Columns of both tables.")
@click.option("--partitions", default=8, show_default=True, help="Partitions of the new table.")
def main(tokens: int, dim: int, partitions: int) -> None:
    """Compares the time and the peak memory of both libraries."""
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with console.status("TensorFlow trains and saves the old table"):
            run_in_process(train, folder, tokens, dim)
            new_size = write_vocabularies(folder, tokens)
        results = {}
        for library in ("TensorFlow", "tensorbundle"):
            with console.status(f"{library} fills the new table"):
                results[library] = run_in_process(
                    warm_start, library, folder, new_size, dim, partitions
                )

    size = f"{new_size:,} x {dim} floats, {new_size * dim * 4 / 1e6:,.0f} MB"
    table = Table(title=f"{tokens:,} to {new_size:,} tokens, {partitions} partitions\n{size}")
    for column in ("", "seconds", "peak memory", "speedup"):
        table.add_column(column, justify="right" if column else "left")
    for library, result in results.items():
        speedup = f"{results['TensorFlow'].seconds / result.seconds:.1f}x"
        table.add_row(library, f"{result.seconds:.2f}", f"{result.peak / 1e6:,.0f} MB", speedup)
    console.print(table)

    if results["TensorFlow"].digest != results["tensorbundle"].digest:
        raise click.ClickException("the two tables differ")
    console.print("Both tables are equal, bit for bit.")


if __name__ == "__main__":
    main()
