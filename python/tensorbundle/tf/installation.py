# SPDX-License-Identifier: Apache-2.0
"""Patching of TensorFlow's functions with ours, and its reversal.

A function is replaced in the module that defines it, and in every module of TensorFlow that has it
under the same name. A patched function checks at each call whether the installation is active, so a
reference that was kept calls TensorFlow's original function after ``uninstall()``.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import re
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.training import checkpoint_utils, py_checkpoint_reader, warm_starting_util

from tensorbundle.filenames import is_remote
from tensorbundle.tf import backend, init_from_checkpoint, op_library, tf_reader, warm_start

Function = Callable[..., Any]


class _Patch(NamedTuple):
    """Our function for a function of TensorFlow, which `module` defines.

    The argument that is the checkpoint has this position and keyword.
    """

    module: ModuleType
    ours: Function
    position: int = 0
    keyword: str = "ckpt_dir_or_file"


_PATCHES = {
    "load_checkpoint": _Patch(checkpoint_utils, tf_reader.load_checkpoint),
    "list_variables": _Patch(checkpoint_utils, tf_reader.list_variables),
    "load_variable": _Patch(checkpoint_utils, tf_reader.load_variable),
    "init_from_checkpoint": _Patch(
        checkpoint_utils, functools.partial(init_from_checkpoint.run, as_tensorflow=True)
    ),
    "NewCheckpointReader": _Patch(
        py_checkpoint_reader, tf_reader.NewCheckpointReader, keyword="filepattern"
    ),
    "warm_start": _Patch(
        warm_starting_util,
        functools.partial(warm_start.run, as_tensorflow=True),
        keyword="ckpt_to_initialize_from",
    ),
    "_warm_start_var_with_vocab": _Patch(
        warm_starting_util, warm_start.warm_start_var_with_vocab, 3, "prev_ckpt"
    ),
}
# Keyword arguments that only our functions have.
_EXTENSION_KEYWORDS = {"missing", "mismatch", "cast"}
_PACKAGES = re.compile(r"(tensorflow|tensorflow_estimator)(\.|$)")

_lock = threading.RLock()  # guards all changes of the following
# The `remote` setting of each request for the installation: ``install()`` has the key None, each
# ``with installed()`` its own. The last one is in effect.
_holds: dict[object, bool] = {}
_calls: collections.Counter[str] = collections.Counter()
# Name to (original function, patched function). Never cleared: each original function has one
# patched function.
_replaced: dict[str, tuple[Function, Function]] = {}


def install(remote: bool = False) -> None:
    """Serves TensorFlow's checkpoint functions and restore ops, until ``uninstall()``.

    Replaces ``load_checkpoint``, ``list_variables``, ``load_variable``, ``NewCheckpointReader``,
    ``init_from_checkpoint`` and ``warm_start`` in all modules of TensorFlow, so that Estimator and
    feature columns use ours. Loads the op library, whose kernels serve every other restore
    (``load_op_library()``); if it cannot be loaded, one warning says why. TensorFlow still reads
    checkpoints on remote file systems. A second call only changes ``remote``.

    Args:
        remote: Whether our ops also initialize variables on tasks of other processes. Those
            processes must have loaded the op library (``load_op_library()``, or
            ``tensorbundle plugin enable``).
    """
    _hold(None, remote)


def uninstall() -> None:
    """Restores TensorFlow's functions, also inside a ``with installed()``.

    TensorFlow cannot unregister kernels: ours serve its ops until the process ends, with the
    results and errors of TensorFlow's kernels.
    """
    _release()


@contextlib.contextmanager
def installed(remote: bool = False) -> Iterator[None]:
    """Installs for the duration of the ``with`` statement, in the whole process.

    Afterwards the previous state is restored, as by ``uninstall()``: the installation stays active
    if it was before, or if another ``with`` statement is still running.

    Args:
        remote: As for ``install``.
    """
    key = object()
    _hold(key, remote)
    try:
        yield
    finally:
        _release(key)


def calls() -> dict[str, int]:
    """Returns what tensorbundle has served in this process; the count of other names is 0.

    By name of TensorFlow's function: calls since the installation, without those that were passed
    on to TensorFlow. By name of TensorFlow's op (``"RestoreV2"``, ``"GenerateVocabRemapping"``,
    ``"LoadAndRemapMatrix"``): runs of our kernel since the op library was loaded.
    """
    with _lock:
        return _calls + op_library.kernel_calls()


def _hold(key: object, remote: bool) -> None:
    with _lock:
        reason = op_library.kernels_unavailable_reason()  # loads them
        if reason is not None:
            op_library.warn_once(f"tensorbundle does not serve TensorFlow's restore ops: {reason}")
        _patch()  # at each call: modules that were reloaded since have the original functions
        if not _holds:
            _calls.clear()
        _holds.pop(key, None)  # the last request comes last
        _holds[key] = remote
        backend.allow_remote_ops(remote)


def _release(*keys: object) -> None:
    """Removes these requests; all of them if no key is given."""
    with _lock:
        for key in keys or list(_holds):
            _holds.pop(key, None)
        backend.allow_remote_ops(list(_holds.values())[-1] if _holds else None)
        if not _holds:
            for name, (original, patched) in _replaced.items():
                _swap(name, patched, original)


def _patch() -> None:
    for name, patch in _PATCHES.items():
        function = getattr(patch.module, name)
        if function not in _replaced.get(name, ()):
            _replaced[name] = (function, _patched(name, function))
    for name, (original, patched) in _replaced.items():
        _swap(name, original, patched)


def _swap(name: str, old: Function, new: Function) -> None:
    """Sets the name to `new` in every module of TensorFlow in which it is `old`."""
    # The first three need not be in sys.modules.
    modules: list[Any] = [tf.train, tf.compat.v1.train, tf.compat.v2.train]
    modules += [module for key, module in list(sys.modules.items()) if _PACKAGES.match(key)]
    for module in modules:
        if isinstance(module, ModuleType) and module.__dict__.get(name) is old:
            setattr(module, name, new)


def _patched(name: str, original: Function) -> Function:
    """Returns the function that replaces TensorFlow's `original`."""
    _, ours, position, keyword = _PATCHES[name]

    def patched(*args: Any, **kwargs: Any) -> Any:
        path = args[position] if len(args) > position else kwargs.get(keyword)
        if not _holds or _is_passed_on(name, path, kwargs):
            return original(*args, **kwargs)
        with _lock:
            _calls[name] += 1
        return ours(*args, **kwargs)

    # As for TensorFlow's own functions, AutoGraph must not convert it inside a tf.function.
    kept: Function = tf.autograph.experimental.do_not_convert(patched)
    return functools.update_wrapper(kept, original)


def _is_passed_on(name: str, path: Any, keywords: dict[str, Any]) -> bool:
    """Whether a call is passed on to TensorFlow's function. Never if only ours has its keywords."""
    if _EXTENSION_KEYWORDS & keywords.keys():
        return False
    return is_remote(path) or tf_reader.is_handled_by_tensorflow(name, path)
