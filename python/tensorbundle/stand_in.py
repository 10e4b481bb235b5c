# SPDX-License-Identifier: Apache-2.0
"""A stand-in for TensorFlow, for scripts that only read checkpoints through ``import tensorflow``.

Inside ``stand_in()`` a finder at the head of ``sys.meta_path`` answers imports of ``tensorflow``
and its submodules with the modules of ``tensorflow_api.names``, which are the same in every use.
Afterwards ``sys.modules`` is as before; code that holds the modules can go on using them.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorbundle.tensorflow_api.names import StandInModule

__all__ = ["run_script", "stand_in"]

_ERROR = 1
_INTERRUPTED = 130  # what a shell reports for a program that SIGINT ended


@contextlib.contextmanager
def stand_in() -> Iterator[types.ModuleType]:
    """Makes ``import tensorflow`` find a stand-in that only reads checkpoints.

    It offers TensorFlow's reader functions under all their names, ``tf.io.gfile`` for local files,
    dtypes, exceptions and logging (docs/stand_in.md). Using anything else raises AttributeError, or
    ImportError for a module, with the missing name. The context applies to the whole process, can
    be nested, and can be entered by several threads. An installed TensorFlow is not imported.

    Yields:
        The module ``tensorflow``.

    Raises:
        RuntimeError: TensorFlow itself is already imported.
    """
    module = _installation.enter()
    try:
        yield module
    finally:
        _installation.leave()


def run_script(path: str, args: Sequence[str] = ()) -> int:
    """Runs a Python script with the stand-in, as ``python SCRIPT ARGS...`` would.

    The script is the module ``__main__``; ``sys.argv`` and ``sys.path[0]`` are set, and restored at
    the end. An exception is reported by ``sys.excepthook``, with a traceback that begins in the
    script. The stand-in stays until the last thread ends that the script started, except daemons.

    Args:
        path: The script.
        args: Its arguments.

    Returns:
        The exit status of the script.

    Raises:
        OSError: The script cannot be read.
        RuntimeError: TensorFlow itself is already imported.
    """
    with open(path, "rb") as file:
        source = file.read()
    main = types.ModuleType("__main__")
    main.__file__ = os.path.abspath(path)
    folder = os.path.dirname(os.path.realpath(path))
    before = set(threading.enumerate())
    with stand_in(), _as_main(main, [path, *args], folder):
        status = _execute(source, path, main)
        left = [each for each in threading.enumerate() if each not in before and not each.daemon]
        if left:
            _installation.enter()
            threading.Thread(target=_leave_after, args=(left,), daemon=True).start()
        return status


def _leave_after(threads: list[threading.Thread]) -> None:
    """Waits for threads, and ends a use of the stand-in."""
    for thread in threads:
        thread.join()
    _installation.leave()


def _execute(source: bytes, path: str, main: types.ModuleType) -> int:
    """Executes the script, and returns its exit status."""
    try:
        exec(compile(source, path, "exec", dont_inherit=True), vars(main))
        status = 0
    except SystemExit as end:
        status = _status_of(end.code)
    except BaseException as error:
        # The first frame is this function.
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        status = _INTERRUPTED if isinstance(error, KeyboardInterrupt) else _ERROR
    return status


def _status_of(code: object) -> int:
    """Returns the status of ``sys.exit(code)``; prints a code that is not a number."""
    if code is None:
        return 0
    if isinstance(code, int):
        return int(code)
    print(code, file=sys.stderr)  # noqa: T201
    return _ERROR


@contextlib.contextmanager
def _as_main(main: types.ModuleType, argv: list[str], folder: str) -> Iterator[None]:
    """Sets, and restores, what belongs to the main script."""
    before = sys.argv, list(sys.path), sys.modules["__main__"]
    sys.argv = argv
    sys.path.insert(0, folder)
    sys.modules["__main__"] = main
    try:
        yield
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = before


class _Installation:
    """The stand-in's place in the import system, shared by all uses of the context."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses = 0
        self._removed: dict[str, types.ModuleType] = {}
        self._finder: _Finder | None = None
        self._logging = contextlib.ExitStack()

    def enter(self) -> types.ModuleType:
        """Installs the finder at the first use, and returns the module ``tensorflow``."""
        from tensorbundle.tensorflow_api import logs, names

        with self._lock:
            root = names.root()  # two threads at once would make two of them
            if self._uses == 0:
                _refuse_tensorflow(root)
                self._removed = _remove_modules()
                self._finder = _Finder(root)
                sys.meta_path.insert(0, self._finder)
                self._logging.enter_context(logs.configured())
            self._uses += 1
        return root

    def leave(self) -> None:
        """Removes the finder and the modules at the last use."""
        if sys.is_finalizing():
            return
        with self._lock:
            self._uses -= 1
            if self._uses == 0:
                sys.meta_path[:] = [each for each in sys.meta_path if each is not self._finder]
                _remove_modules()
                sys.modules.update(self._removed)
                self._logging.close()


def _refuse_tensorflow(root: types.ModuleType) -> None:
    module = sys.modules.get("tensorflow")
    if module is not None and module is not root:
        version = getattr(module, "__version__", "")
        raise RuntimeError(
            f"TensorFlow {version} is already imported, and tensorbundle's stand-in would hide it. "
            "Enter tb.stand_in() before anything imports TensorFlow, or use TensorFlow itself"
        )


def _remove_modules() -> dict[str, types.ModuleType]:
    """Removes ``tensorflow`` and its submodules from ``sys.modules``, and returns them."""
    found = [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]
    return {name: sys.modules.pop(name) for name in found}


class _Finder:
    """Finds the modules of the stand-in; refuses those that need TensorFlow itself."""

    def __init__(self, root: StandInModule) -> None:
        self._root = root

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Returns the spec of a module of the stand-in; None for modules of other packages.

        Raises:
            ModuleNotFoundError: The stand-in does not have this module of TensorFlow.
        """
        if name.startswith("tensorbundle.tf."):
            # They would keep the stand-in's classes after the context.
            raise ImportError(
                f"{name} needs TensorFlow itself, and cannot be imported inside tb.stand_in()",
                name=name,
            )
        package, _dot, rest = name.partition(".")
        if package != "tensorflow":
            return None
        from tensorbundle.tensorflow_api.names import StandInModule, missing

        module: Any = self._root
        for part in rest.split(".") if rest else []:
            try:
                module = getattr(module, part)
            except AttributeError as error:
                # Without a name: the import system drops such errors of `from package import name`.
                raise ModuleNotFoundError(str(error)) from None
            if not isinstance(module, StandInModule):
                raise ModuleNotFoundError(missing(f"{name} as a module"))
        loader: Any = _Loader(module)
        return importlib.machinery.ModuleSpec(name, loader, is_package=True)


class _Loader:
    """Loads a module that exists."""

    def __init__(self, module: types.ModuleType) -> None:
        self._module = module

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Returns the module."""
        del spec
        return self._module

    def exec_module(self, module: types.ModuleType) -> None:
        """Does nothing: the module has its names."""


_installation = _Installation()
