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
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from tensorbundle.tf import backend, tf_reader
from tensorbundle.tf import checkpoint_index as remote_paths

Function = Callable[..., Any]

# The modules in which TensorFlow defines the functions.
_DEFINED_IN = {
    "load_checkpoint": "checkpoint_utils",
    "list_variables": "checkpoint_utils",
    "load_variable": "checkpoint_utils",
    "init_from_checkpoint": "checkpoint_utils",
    "NewCheckpointReader": "py_checkpoint_reader",
    "warm_start": "warm_starting_util",
    "_warm_start_var_with_vocab": "warm_starting_util",
}
# The argument that is the checkpoint: (position, name).
_PATH_ARGUMENT = {
    "NewCheckpointReader": (0, "filepattern"),
    "warm_start": (0, "ckpt_to_initialize_from"),
    "_warm_start_var_with_vocab": (3, "prev_ckpt"),
}
_DEFAULT_PATH_ARGUMENT = (0, "ckpt_dir_or_file")
# Keyword arguments that only our functions have.
_EXTENSION_KEYWORDS = {"missing", "mismatch", "cast"}
_PACKAGES = ("tensorflow", "tensorflow_estimator")


class _Installation:
    """The state of the installation in this process. ``lock`` guards all changes.

    Attributes:
        holds: The ``remote`` setting of each request for the installation: ``install()`` has the
            key None, each ``with installed()`` its own. The last one is in effect.
        replaced: Name to (original function, patched function). Never cleared: each original
            function has one patched function.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.holds: dict[object, bool] = {}
        self.calls: collections.Counter[str] = collections.Counter()
        self.replaced: dict[str, tuple[Function, Function]] = {}

    def count(self, name: str) -> None:
        with self.lock:
            self.calls[name] += 1

    def hold(self, key: object, remote: bool) -> None:
        with self.lock:
            # At each call: modules that were reloaded since have the original functions.
            # Before `holds` changes: if importing TensorFlow fails, no state is left behind.
            _patch(self)
            if not self.holds:
                self.calls.clear()
            self.holds.pop(key, None)  # the last request comes last
            self.holds[key] = remote
            backend.allow_remote_ops(remote)

    def release(self, *keys: object) -> None:
        """Removes these requests; all of them if no key is given."""
        with self.lock:
            for key in keys or list(self.holds):
                self.holds.pop(key, None)
            backend.allow_remote_ops(not self.holds or list(self.holds.values())[-1])
            if not self.holds:
                _unpatch(self)


_installation = _Installation()


def install(remote: bool = False) -> None:
    """Replaces TensorFlow's checkpoint functions by ours, until ``uninstall()``.

    These are ``load_checkpoint``, ``list_variables``, ``load_variable``, ``NewCheckpointReader``,
    ``init_from_checkpoint`` and ``warm_start`` in all modules of TensorFlow, so that Estimator and
    feature columns use ours. TensorFlow still reads checkpoints on remote file systems. A second
    call only changes ``remote``.

    Args:
        remote: Whether our ops also initialize variables on tasks of other processes. Those
            processes must have loaded the op library (``load_op_library()``, or
            ``tensorbundle plugin enable``).

    Raises:
        ImportError: TensorFlow cannot be imported.
    """
    _installation.hold(None, remote)


def uninstall() -> None:
    """Restores TensorFlow's functions, also inside a ``with installed()``."""
    _installation.release()


@contextlib.contextmanager
def installed(remote: bool = False) -> Iterator[None]:
    """Installs for the duration of the ``with`` statement, in the whole process.

    Afterwards the previous state is restored: the installation stays active if it was before, or if
    another ``with`` statement is still running.

    Args:
        remote: As for ``install``.
    """
    key = object()
    _installation.hold(key, remote)
    try:
        yield
    finally:
        _installation.release(key)


def calls() -> dict[str, int]:
    """Returns how often our functions were called in place of TensorFlow's since the installation.

    Calls that were passed on to TensorFlow are not counted. The count of other names is 0.
    """
    with _installation.lock:
        return _installation.calls.copy()


def _patch(installation: _Installation) -> None:
    for name, module in _definitions():
        function = getattr(module, name)
        known = installation.replaced.get(name)
        if known is None or function not in known:
            installation.replaced[name] = (function, _patched(name, function))
    remote_paths.set_original_functions(
        {name: pair[0] for name, pair in installation.replaced.items()}
    )
    for name, (original, patched) in installation.replaced.items():
        _swap(name, original, patched)


def _unpatch(installation: _Installation) -> None:
    for name, (original, patched) in installation.replaced.items():
        _swap(name, patched, original)
    remote_paths.set_original_functions({})


def _definitions() -> Iterator[tuple[str, ModuleType]]:
    from tensorflow.python.training import (
        checkpoint_utils,
        py_checkpoint_reader,
        warm_starting_util,
    )

    modules = (checkpoint_utils, py_checkpoint_reader, warm_starting_util)
    by_name = {module.__name__.rpartition(".")[2]: module for module in modules}
    for name, module in _DEFINED_IN.items():
        yield name, by_name[module]


def _swap(name: str, old: Function, new: Function) -> None:
    """Sets the name to `new` in every module of TensorFlow in which it is `old`."""
    for module in _modules():
        if module.__dict__.get(name) is old:
            setattr(module, name, new)


def _modules() -> list[ModuleType]:
    """Returns TensorFlow's modules, including those that are no longer in ``sys.modules``."""
    import tensorflow as tf

    found = [tf.train, tf.compat.v1.train, tf.compat.v2.train]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _PACKAGES and isinstance(module, ModuleType):
            found.append(module)
    return found


def _patched(name: str, original: Function) -> Function:
    """Returns the function that replaces TensorFlow's `original`."""
    import tensorflow as tf

    position, keyword = _PATH_ARGUMENT.get(name, _DEFAULT_PATH_ARGUMENT)

    def patched(*args: Any, **kwargs: Any) -> Any:
        path = args[position] if len(args) > position else kwargs.get(keyword)
        if not _installation.holds or _is_passed_on(name, path, kwargs):
            return original(*args, **kwargs)
        _installation.count(name)
        return _own(name)(*args, **kwargs)

    # As for TensorFlow's own functions, AutoGraph must not convert it inside a tf.function.
    kept: Function = tf.autograph.experimental.do_not_convert(patched)
    return functools.update_wrapper(kept, original)


def _is_passed_on(name: str, path: Any, keywords: dict[str, Any]) -> bool:
    """Whether a call is passed on to TensorFlow's function. Never if only ours has its keywords."""
    if _EXTENSION_KEYWORDS & keywords.keys():
        return False
    return remote_paths.is_remote(path) or tf_reader.is_handled_by_tensorflow(name, path)


def _own(name: str) -> Function:
    # Imported at the first call, not when this module is imported.
    if name == "init_from_checkpoint":
        from tensorbundle.tf import init_from_checkpoint

        return init_from_checkpoint.patched_init_from_checkpoint
    if name in ("warm_start", "_warm_start_var_with_vocab"):
        from tensorbundle.tf import warm_start

        if name == "warm_start":
            return warm_start.patched_warm_start
        return warm_start.warm_start_var_with_vocab
    from tensorbundle.tf import tf_reader

    return getattr(tf_reader, name)  # type: ignore[no-any-return]
