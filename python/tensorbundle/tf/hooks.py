# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's own names, leading to ours and back.

What callers look up when they call is replaced: the functions in the modules that define them, and
in every module of TensorFlow that holds them by the same name. A replacement asks each time whether
the installation is still in force, so that a reference which somebody kept is TensorFlow's function
again after ``uninstall()``.
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

from tensorbundle.tf import placement, served_paths
from tensorbundle.tf import remote as remote_paths

Function = Callable[..., Any]

# Where TensorFlow defines what is replaced.
_DEFINED_IN = {
    "load_checkpoint": "checkpoint_utils",
    "list_variables": "checkpoint_utils",
    "load_variable": "checkpoint_utils",
    "init_from_checkpoint": "checkpoint_utils",
    "NewCheckpointReader": "py_checkpoint_reader",
    "warm_start": "warm_starting_util",
    "_warm_start_var_with_vocab": "warm_starting_util",
}
# Which argument is the checkpoint: (position, name).
_PATH_ARGUMENT = {
    "NewCheckpointReader": (0, "filepattern"),
    "warm_start": (0, "ckpt_to_initialize_from"),
    "_warm_start_var_with_vocab": (3, "prev_ckpt"),
}
_FIRST = (0, "ckpt_dir_or_file")
# Which TensorFlow's functions do not have.
_OUR_KEYWORDS = {"missing", "mismatch", "cast"}
_PACKAGES = ("tensorflow", "tensorflow_estimator")


class _Installation:
    """What is installed in this process. All changes are made under ``lock``.

    Attributes:
        holds: Who wants the installation, and with which ``remote``: ``install()`` by the key
            None, each ``with installed()`` by one of its own. The latest decides.
        replaced: Name to (TensorFlow's function, ours in its place). Kept for good: one function of
            TensorFlow's has one replacement.
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
            # Each time: a module that was loaded anew meanwhile may hold TensorFlow's functions.
            # And first: where there is no TensorFlow, nothing is held. It acts from `holds` on.
            _put_ours(self)
            if not self.holds:
                self.calls.clear()
            self.holds.pop(key, None)  # the latest stands last
            self.holds[key] = remote
            placement.set_other_tasks(remote)

    def release(self, *keys: object) -> None:
        """Lets go of these; of all, if none is named."""
        with self.lock:
            for key in keys or list(self.holds):
                self.holds.pop(key, None)
            placement.set_other_tasks(not self.holds or list(self.holds.values())[-1])
            if not self.holds:
                _put_theirs(self)


_installation = _Installation()


def install(remote: bool = False) -> None:
    """Makes TensorFlow's own names lead to ours, until ``uninstall()``.

    These are ``load_checkpoint``, ``list_variables``, ``load_variable``, ``NewCheckpointReader``,
    ``init_from_checkpoint`` and ``warm_start`` wherever TensorFlow offers them, so that Estimator
    and feature columns use ours. Checkpoints on file systems that are not local stay TensorFlow's.
    A second call changes ``remote`` and nothing else.

    Args:
        remote: Whether variables on tasks of other processes are ours too. Those processes must
            have loaded the op library (``load_op_library()``, or ``tensorbundle plugin enable``).

    Raises:
        ImportError: There is no TensorFlow.
    """
    _installation.hold(None, remote)


def uninstall() -> None:
    """Gives TensorFlow all its names back, inside a ``with installed()`` too."""
    _installation.release()


@contextlib.contextmanager
def installed(remote: bool = False) -> Iterator[None]:
    """Installs for the ``with`` statement, in the whole process.

    Afterwards everything is as before: still installed if it was, or if another such statement is
    still running.

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
    """How often ours served each of TensorFlow's functions since the installation.

    What was handed on to TensorFlow is not counted. A name that was never called is 0.
    """
    with _installation.lock:
        return _installation.calls.copy()


def _put_ours(installation: _Installation) -> None:
    for name, module in _definitions():
        function = getattr(module, name)
        known = installation.replaced.get(name)
        if known is None or function not in known:
            installation.replaced[name] = (function, _replacement(name, function))
    remote_paths.keep_originals({name: pair[0] for name, pair in installation.replaced.items()})
    for name, (theirs, ours) in installation.replaced.items():
        _exchange(name, theirs, ours)


def _put_theirs(installation: _Installation) -> None:
    for name, (theirs, ours) in installation.replaced.items():
        _exchange(name, ours, theirs)
    remote_paths.keep_originals({})


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


def _exchange(name: str, old: Function, new: Function) -> None:
    """Sets the name to `new` wherever a module of TensorFlow has it as `old`."""
    for module in _modules():
        if module.__dict__.get(name) is old:
            setattr(module, name, new)


def _modules() -> list[ModuleType]:
    """TensorFlow's modules, also those that a later import of the same name has displaced."""
    import tensorflow as tf

    found = [tf.train, tf.compat.v1.train, tf.compat.v2.train]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _PACKAGES and isinstance(module, ModuleType):
            found.append(module)
    return found


def _replacement(name: str, theirs: Function) -> Function:
    """The function that stands in TensorFlow's place."""
    import tensorflow as tf

    position, keyword = _PATH_ARGUMENT.get(name, _FIRST)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        path = args[position] if len(args) > position else kwargs.get(keyword)
        if not _installation.holds or _is_handed_on(name, path, kwargs):
            return theirs(*args, **kwargs)
        _installation.count(name)
        return _ours(name)(*args, **kwargs)

    # As for TensorFlow's own functions, AutoGraph rewrites nothing of it inside a tf.function.
    kept: Function = tf.autograph.experimental.do_not_convert(replacement)
    return functools.update_wrapper(kept, theirs)


def _is_handed_on(name: str, path: Any, keywords: dict[str, Any]) -> bool:
    """Whether TensorFlow's own function serves a call, unless only ours knows its keywords."""
    if _OUR_KEYWORDS & keywords.keys():
        return False
    return remote_paths.is_remote(path) or served_paths.are_tensorflows(name, path)


def _ours(name: str) -> Function:
    # Here and not above: these modules are wanted when they are called, not at every import.
    if name == "init_from_checkpoint":
        from tensorbundle.tf import initialization

        return initialization.served_init_from_checkpoint
    if name in ("warm_start", "_warm_start_var_with_vocab"):
        from tensorbundle.tf import warm_starting

        if name == "warm_start":
            return warm_starting.served_warm_start
        return warm_starting.warm_start_var_with_vocab
    from tensorbundle.tf import served_reader

    return getattr(served_reader, name)  # type: ignore[no-any-return]
