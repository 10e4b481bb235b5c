# SPDX-License-Identifier: Apache-2.0
"""The stand-in's functions that read checkpoints, with its dtypes and exceptions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from tensorbundle import compat
from tensorbundle.error_classes import ErrorClasses
from tensorbundle.filenames import INDEX_SUFFIX
from tensorbundle.strict_reader import StrictReader
from tensorbundle.tensorflow_api import dtypes, gfile, raised


class CheckpointReader(StrictReader):
    """The reader that ``tf.train.load_checkpoint`` returns."""

    _errors: ClassVar[ErrorClasses] = raised.CLASSES

    @staticmethod
    def _as_dtype(number: int) -> dtypes.DType:
        return dtypes.as_dtype(number)


def NewCheckpointReader(filepattern: compat.PathLike) -> CheckpointReader:
    """Opens a checkpoint by its prefix.

    Raises:
        tf.errors.DataLossError: Among others, for a directory.
    """
    CheckpointReader.refuse_directory(filepattern)
    return CheckpointReader(filepattern)


def load_checkpoint(ckpt_dir_or_file: compat.PathLike) -> CheckpointReader:
    """Opens a checkpoint by its prefix, or the latest one of a directory."""
    return CheckpointReader(ckpt_dir_or_file)


def list_variables(ckpt_dir_or_file: compat.PathLike) -> list[tuple[str, list[int]]]:
    """Returns (name, shape) of every tensor, by name."""
    return sorted(load_checkpoint(ckpt_dir_or_file).get_variable_to_shape_map().items())


def load_variable(ckpt_dir_or_file: compat.PathLike, name: str) -> Any:
    """Reads one tensor; one trailing ``":0"`` of the name is ignored."""
    return load_checkpoint(ckpt_dir_or_file).get_tensor(name.removesuffix(":0"))


def get_checkpoint_mtimes(checkpoint_prefixes: Iterable[Any]) -> list[float]:
    """Returns the time of change, in seconds, of each checkpoint that exists."""
    times = []
    for prefix in checkpoint_prefixes:
        path = os.fsdecode(prefix)
        for file in (path + INDEX_SUFFIX, path):
            if gfile.exists(file):
                times.append(gfile.stat(file).mtime_nsec / 1e9)
                break
    return times


def print_tensors_in_checkpoint_file(
    file_name: str,
    tensor_name: str | None,
    all_tensors: bool,
    all_tensor_names: bool = False,
    count_exclude_pattern: str = "",
) -> None:
    """Prints tensors, as ``tensorflow.python.tools.inspect_checkpoint`` does.

    Args:
        file_name: The checkpoint.
        tensor_name: The tensor whose value is printed, if no list is asked for.
        all_tensors: Print every tensor with its value.
        all_tensor_names: Print every tensor.
        count_exclude_pattern: A regular expression of names not to count.
    """
    try:
        reader = NewCheckpointReader(file_name)
        shapes = reader.get_variable_to_shape_map()
        types = reader.get_variable_to_dtype_map()
        if all_tensors or all_tensor_names:
            for name in sorted(shapes):
                print(f"tensor: {name} ({types[name].name}) {shapes[name]}")  # noqa: T201
                if all_tensors:
                    print(reader.get_tensor(name))  # noqa: T201
        elif not tensor_name:
            print(reader.debug_string().decode("utf-8", errors="ignore"))  # noqa: T201
        elif not reader.has_tensor(tensor_name):
            print(f"Tensor {tensor_name} not found in checkpoint")  # noqa: T201
            return
        else:
            print(  # noqa: T201
                f"tensor: {tensor_name} ({types[tensor_name].name}) {shapes[tensor_name]}"
            )
            print(reader.get_tensor(tensor_name))  # noqa: T201
        _print_count(shapes, count_exclude_pattern)
    except Exception as error:
        print(error)  # noqa: T201


def _print_count(shapes: dict[str, list[int]], pattern: str) -> None:
    """Prints the number of elements of the tensors whose name does not match the pattern."""
    sizes = {name: int(np.prod(shape, dtype=np.int64)) for name, shape in shapes.items()}
    excluded = [name for name in sizes if pattern and re.search(pattern, name)]
    if pattern:
        count = sum(sizes.pop(name) for name in excluded)
        print(  # noqa: T201
            f"# Excluding {len(excluded)} tensors ({count} params) that match {pattern} when "
            "counting."
        )
    print(f"# Total number of params: {sum(sizes.values())}")  # noqa: T201
