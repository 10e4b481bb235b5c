# SPDX-License-Identifier: Apache-2.0
"""Warm-starts an Estimator whose vocabulary has changed, with TensorFlow and with tensorbundle.

    pip install 'tensorflow==2.15.*' '.[tf]' && python examples/estimator.py [WORDS]

TensorFlow 2.15 is the last version with Estimator. The code of the Estimator does not change: the
second run is inside ``with tb.tf.installed()``.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# TensorFlow reads these when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

import tensorbundle as tb

WORDS = 400_000
WIDTH = 32
PARTITIONS = 8  # as for eight parameter servers
TABLE = "dnn/input_from_feature_columns/input_layer/word_embedding/embedding_weights"


def write_vocabularies(folder: Path, words: int) -> tuple[list[str], list[str]]:
    """Writes the old vocabulary, and a shuffled new one in which a quarter of the words is new."""
    old = [f"word-{number}" for number in range(words)]
    new = old[words // 4 :] + [f"new-{number}" for number in range(words // 4)]
    np.random.default_rng(1).shuffle(new)
    (folder / "old.txt").write_text("\n".join(old) + "\n")
    (folder / "new.txt").write_text("\n".join(new) + "\n")
    return old, new


def classifier(folder: Path, vocabulary: Path, start: Any = None) -> Any:
    """Returns a small network over an embedding of the vocabulary."""
    feature_column = tf.feature_column
    words = feature_column.categorical_column_with_vocabulary_file("word", str(vocabulary))
    return tf.compat.v1.estimator.DNNClassifier(
        hidden_units=[16],
        feature_columns=[feature_column.embedding_column(words, WIDTH)],
        optimizer=tf.compat.v1.train.GradientDescentOptimizer(0.1),
        input_layer_partitioner=tf.compat.v1.fixed_size_partitioner(PARTITIONS),
        model_dir=str(folder),
        warm_start_from=start,
        config=tf.estimator.RunConfig(tf_random_seed=1, save_summary_steps=None),
    )


def batch(words: list[str]) -> Any:
    """Returns an input function with one batch."""

    def input_function() -> Any:
        features = {"word": [[word] for word in words]}
        return tf.data.Dataset.from_tensors((features, [[i % 2] for i in range(len(words))]))

    return input_function


def train(folder: Path, vocabulary: Path, words: list[str], start: Any) -> tuple[Any, float]:
    """Trains a warm-started model for one step. Returns its table and the time in seconds."""
    model = classifier(folder, vocabulary, start)
    begin = time.perf_counter()
    model.train(batch(words), steps=1)
    return model.get_variable_value(TABLE), time.perf_counter() - begin


def main() -> int:
    """Prints both times, and whether both tables are equal bit for bit."""
    tf.get_logger().setLevel(logging.ERROR)
    words = int(sys.argv[1]) if len(sys.argv) > 1 else WORDS
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        old, new = write_vocabularies(folder, words)
        classifier(folder / "old_model", folder / "old.txt").train(batch(old[:64]), steps=1)
        info = tf.estimator.VocabInfo(
            new_vocab=str(folder / "new.txt"),
            new_vocab_size=len(new),
            num_oov_buckets=0,
            old_vocab=str(folder / "old.txt"),
            backup_initializer=tf.compat.v1.truncated_normal_initializer(stddev=0.1, seed=1),
        )
        start = tf.estimator.WarmStartSettings(
            str(folder / "old_model"), var_name_to_vocab_info={TABLE: info}
        )
        vocabulary = folder / "new.txt"
        original, original_time = train(folder / "original", vocabulary, new[:64], start)
        with tb.tf.installed():
            patched, patched_time = train(folder / "patched", vocabulary, new[:64], start)
            calls = tb.tf.calls()["warm_start"]
    same = np.array_equal(original.view(np.uint32), patched.view(np.uint32))
    print(f"{words} words x {WIDTH} in {PARTITIONS} partitions, a quarter of the words new:")
    print("warm start, initialization and one step of training")
    print(f"  TensorFlow           {original_time:6.2f} s")
    print(f"  tensorbundle.tf      {patched_time:6.2f} s   (calls of warm_start: {calls})")
    print(f"  the tables are {'equal, bit for bit' if same else 'DIFFERENT'}")
    return 0 if same and calls == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
