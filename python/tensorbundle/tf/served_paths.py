# SPDX-License-Identifier: Apache-2.0
"""Paths that lead TensorFlow's functions elsewhere than ours, and are left to it under its names.

Code that probes what a path is must take the branch that it takes without us: TensorFlow takes a
path for a pattern, an index for an older checkpoint without tensors, and its reader knows no
directories.
"""

from __future__ import annotations

import os
from typing import Any

from tensorbundle.filenames import INDEX_SUFFIX, v1_pattern_parts

_SPECIAL = frozenset("*?[\\")
_FILE = "file://"


def are_tensorflows(function: str, path: Any) -> bool:
    """Whether only TensorFlow's own function answers a call as TensorFlow answers it.

    Args:
        function: The name of TensorFlow's function.
        path: The checkpoint that it is called with.
    """
    is_reader = function == "NewCheckpointReader"
    if not isinstance(path, (str, bytes)):
        return is_reader and isinstance(path, os.PathLike)
    text = os.fsdecode(path).removeprefix(_FILE)
    if "\0" in text:
        return False  # TensorFlow would read another path.
    pattern = v1_pattern_parts(text)
    if _SPECIAL & set(text if pattern is None else pattern[0]):
        return True
    if isinstance(path, str) and not _is_utf8(text):
        return True
    if os.path.isdir(text):
        # A prefix may be called as a directory is.
        return os.path.exists(text + INDEX_SUFFIX) if is_reader else isinstance(path, bytes)
    return text.endswith(INDEX_SUFFIX) and os.path.exists(text)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
