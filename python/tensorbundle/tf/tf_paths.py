# SPDX-License-Identifier: Apache-2.0
"""Paths that the patched functions pass on to TensorFlow's original functions.

TensorFlow treats a path as a glob pattern and an index file as a V1 checkpoint without tensors, and
its reader does not accept directories. Code that probes the kind of a path relies on this, so such
paths are passed on.
"""

from __future__ import annotations

import os
from typing import Any

from tensorbundle.filenames import INDEX_SUFFIX, v1_pattern_parts

_SPECIAL = frozenset("*?[\\")
_FILE = "file://"


def is_handled_by_tensorflow(function: str, path: Any) -> bool:
    """Whether a call must be passed on to TensorFlow's original function.

    Args:
        function: The name of TensorFlow's function.
        path: Its checkpoint argument.
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
        # A prefix and a directory may have the same name.
        return os.path.exists(text + INDEX_SUFFIX) if is_reader else isinstance(path, bytes)
    return text.endswith(INDEX_SUFFIX) and os.path.exists(text)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
