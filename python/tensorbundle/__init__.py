# SPDX-License-Identifier: Apache-2.0
"""Fast, zero-copy reader for TensorFlow checkpoints that does not need TensorFlow.

>>> import tensorbundle as tb
>>> with tb.open("model.ckpt-1000") as ck:
...     rows = ck["embedding"][100:200]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tensorbundle.alignment import AlignReport, align
from tensorbundle.arguments import set_num_threads
from tensorbundle.checkpoint import Checkpoint, load
from tensorbundle.checkpoint import open as open
from tensorbundle.compat import (
    CheckpointReader,
    NewCheckpointReader,
    list_variables,
    load_checkpoint,
    load_variable,
)
from tensorbundle.errors import (
    CheckpointNotFoundError,
    CorruptionError,
    Error,
    IOFailure,
    NotFoundError,
    ShapeMismatchError,
    TensorNotFoundError,
    UnsupportedError,
)
from tensorbundle.stand_in import stand_in
from tensorbundle.state import (
    CheckpointState,
    checkpoint_exists,
    checkpoints_iterator,
    get_checkpoint_state,
    latest_checkpoint,
    update_checkpoint_state,
)
from tensorbundle.tensor import StoredSlice, Tensor
from tensorbundle.verification import Damage, VerifyReport
from tensorbundle.version import __version__, show_versions
from tensorbundle.vocab import Remap, VocabInfo, clear_caches, load_and_remap, remap_vocab

if TYPE_CHECKING:
    from tensorbundle import tf as tf
    from tensorbundle.averaging import AverageReport, average
    from tensorbundle.comparison import diff
    from tensorbundle.conversion import ConvertReport, convert
    from tensorbundle.diff_report import DiffReport
    from tensorbundle.edit_plan import EditError, EditWarning
    from tensorbundle.editing import EditReport, edit
    from tensorbundle.keras_weights import LoadError, load_keras
    from tensorbundle.load_plan import LoadReport
    from tensorbundle.summary import Summary
    from tensorbundle.tf.functions import init_from_checkpoint, warm_start
    from tensorbundle.writer import Writer, save

# A star import must not hide the built-in `open` or the usual alias of TensorFlow, so `open` and
# `tf` are omitted.
__all__ = [
    "AlignReport",
    "AverageReport",
    "Checkpoint",
    "CheckpointNotFoundError",
    "CheckpointReader",
    "CheckpointState",
    "ConvertReport",
    "CorruptionError",
    "Damage",
    "DiffReport",
    "EditError",
    "EditReport",
    "EditWarning",
    "Error",
    "IOFailure",
    "LoadError",
    "LoadReport",
    "NewCheckpointReader",
    "NotFoundError",
    "Remap",
    "ShapeMismatchError",
    "StoredSlice",
    "Summary",
    "Tensor",
    "TensorNotFoundError",
    "UnsupportedError",
    "VerifyReport",
    "VocabInfo",
    "Writer",
    "__version__",
    "align",
    "average",
    "checkpoint_exists",
    "checkpoints_iterator",
    "clear_caches",
    "convert",
    "diff",
    "edit",
    "get_checkpoint_state",
    "init_from_checkpoint",
    "latest_checkpoint",
    "list_variables",
    "load",
    "load_and_remap",
    "load_checkpoint",
    "load_keras",
    "load_variable",
    "remap_vocab",
    "save",
    "set_num_threads",
    "show_versions",
    "stand_in",
    "update_checkpoint_state",
    "warm_start",
]

# Names that few programs need, by module. They are imported on first use. The import of a submodule
# also sets a name of the package, so no module has the name of a function.
_LAZY_IMPORTS = {
    "AverageReport": "tensorbundle.averaging",
    "ConvertReport": "tensorbundle.conversion",
    "DiffReport": "tensorbundle.diff_report",
    "EditError": "tensorbundle.edit_plan",
    "EditReport": "tensorbundle.editing",
    "EditWarning": "tensorbundle.edit_plan",
    "LoadError": "tensorbundle.keras_weights",
    "LoadReport": "tensorbundle.load_plan",
    "Summary": "tensorbundle.summary",
    "Writer": "tensorbundle.writer",
    "average": "tensorbundle.averaging",
    "convert": "tensorbundle.conversion",
    "diff": "tensorbundle.comparison",
    "edit": "tensorbundle.editing",
    "init_from_checkpoint": "tensorbundle.tf.functions",
    "load_keras": "tensorbundle.keras_weights",
    "save": "tensorbundle.writer",
    "warm_start": "tensorbundle.tf.functions",
}


def __getattr__(name: str) -> Any:
    if name == "tf":
        return importlib.import_module("tensorbundle.tf")
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LAZY_IMPORTS[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY_IMPORTS, "tf"})
