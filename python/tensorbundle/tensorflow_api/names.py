# SPDX-License-Identifier: Apache-2.0
"""The tree of the stand-in's modules: what each name of TensorFlow is in it.

``tensorflow``, ``tensorflow.compat.v1`` and ``tensorflow.compat.v2`` have the same names, those of
TensorFlow 1 and 2 together. The other branches are TensorFlow's internal modules that scripts
import. docs/stand_in.md has the list for users.
"""

from __future__ import annotations

import functools
import importlib.util
import types
from collections.abc import Callable, Mapping
from typing import Any

from tensorbundle import state, version
from tensorbundle.errors import UnsupportedError
from tensorbundle.tensorflow_api import dtypes, errors, gfile, logs, reader, text

# The functions behave as those of this version of TensorFlow.
VERSION = "2.21.0"
_ADVICE = (
    "it offers only the functions that read checkpoints (the list: docs/stand_in.md). Install "
    "TensorFlow to run this script"
)

Names = Mapping[str, Any]


class StandInModule(types.ModuleType):
    """A module of the stand-in. What it lacks is named when it is used."""

    _lazy: Mapping[str, Callable[[], Any]]

    def __init__(
        self, name: str, names: Names, lazy: Mapping[str, Callable[[], Any]] | None = None
    ) -> None:
        """Creates the module, and modules for the mappings among the names.

        Args:
            name: The full name of the module.
            names: The attributes; a mapping becomes a module.
            lazy: Functions that return an attribute when it is first used, and raise ImportError
                if they cannot.
        """
        super().__init__(name, "Part of tensorbundle's stand-in for TensorFlow.")
        self.__path__: list[str] = []  # has submodules, but no files
        self._lazy = lazy or {}
        for key, value in names.items():
            is_module = isinstance(value, Mapping)
            setattr(self, key, StandInModule(f"{name}.{key}", value) if is_module else value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # looked for in every module by debuggers and inspection
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        create = self._lazy.get(name)
        if create is None:
            raise AttributeError(missing(f"{self.__name__}.{name}"))
        try:
            value = create()
        except ImportError as error:
            raise AttributeError(
                f"tensorbundle's stand-in for TensorFlow has {_short(self.__name__)}.{name} only "
                f"if absl-py is installed: pip install absl-py ({error})"
            ) from error
        setattr(self, name, value)
        return value

    def __repr__(self) -> str:
        return f"<module {self.__name__!r} of tensorbundle's stand-in>"

    def __dir__(self) -> list[str]:
        lazy = self._lazy if importlib.util.find_spec("absl") else ()
        return sorted({*vars(self), *lazy} - {"_lazy"})


def missing(name: str) -> str:
    """Returns the message for a name that the stand-in does not have."""
    return f"tensorbundle's stand-in for TensorFlow has no {_short(name)}: {_ADVICE}"


def _short(name: str) -> str:
    return "tf" + name.removeprefix("tensorflow")


class _Never:
    """A type without instances, for ``isinstance`` and annotations."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        message = f"tensorbundle's stand-in for TensorFlow cannot create a tf.{cls.__name__}"
        raise UnsupportedError(f"{message}: {_ADVICE}")


class Tensor(_Never):
    """``tf.Tensor``. Nothing is one: the functions of the stand-in return NumPy arrays."""


class Variable(_Never):
    """``tf.Variable``. Nothing is one."""


class GraphKeys:
    """``tf.GraphKeys``: the name of the training step in checkpoints."""

    GLOBAL_STEP = "global_step"


def _do_nothing(*_: Any, **__: Any) -> None:
    """Does nothing: the stand-in has no graph and no devices."""


def _no_devices(*_: Any, **__: Any) -> list[Any]:
    """Returns an empty list: the stand-in has no devices."""
    return []


def _walk(top: Any, in_order: bool = True) -> Any:
    """Yields what ``tf.io.gfile.walk`` yields."""
    return gfile.walk(top, topdown=in_order)


def _public(module: types.ModuleType, *names: str) -> Names:
    """Returns the public names that a module defines, or only some names."""
    if names:
        return {name: getattr(module, name) for name in names}
    found = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and (getattr(value, "__module__", None) == module.__name__)
    }
    return found


_READER = _public(reader, "list_variables", "load_checkpoint", "load_variable")
_NEW_READER = _public(reader, "CheckpointReader", "NewCheckpointReader")
_STATE = {
    **_public(state, "checkpoint_exists", "get_checkpoint_state", "latest_checkpoint"),
    **_public(reader, "get_checkpoint_mtimes"),
}
_CHECKPOINT_UTILS = {**_READER, **_public(state, "checkpoints_iterator")}
_TRAIN = {**_CHECKPOINT_UTILS, **_STATE, **_public(reader, "NewCheckpointReader")}

_GFILE = _public(
    gfile,
    *("GFile", "copy", "exists", "get_registered_schemes", "glob", "isdir", "join", "listdir"),
    *("makedirs", "mkdir", "remove", "rename", "rmtree", "stat", "walk"),
)
# The names of TensorFlow 1, and those of tensorflow.python.lib.io.file_io.
_OLD_GFILE = {
    "Copy": gfile.copy,
    "DeleteRecursively": gfile.rmtree,
    "Exists": gfile.exists,
    "FastGFile": gfile.GFile,
    "GFile": gfile.GFile,
    "Glob": gfile.glob,
    "IsDirectory": gfile.isdir,
    "ListDirectory": gfile.listdir,
    "MakeDirs": gfile.makedirs,
    "MkDir": gfile.mkdir,
    "Open": gfile.GFile,
    "Remove": gfile.remove,
    "Rename": gfile.rename,
    "Stat": gfile.stat,
    "Walk": _walk,
}
_FILE_IO = {
    "FileIO": gfile.GFile,
    "copy": gfile.copy,
    "create_dir": gfile.mkdir,
    "delete_file": gfile.remove,
    "delete_recursively": gfile.rmtree,
    "file_exists": gfile.exists,
    "get_matching_files": gfile.glob,
    "is_directory": gfile.isdir,
    "list_directory": gfile.listdir,
    "read_file_to_string": gfile.read_file_to_string,
    "recursive_create_dir": gfile.makedirs,
    "rename": gfile.rename,
    "stat": gfile.stat,
    "walk": _walk,
    "write_string_to_file": gfile.write_string_to_file,
}

_ERRORS = {
    **{name: value for name, value in vars(errors).items() if name[0] != "_" and name.isupper()},
    **_public(errors),
}
_LOGGING = {
    name: value
    for name, value in {**_public(logs), **_public(logs, *logs.__all__)}.items()
    if name not in ("configured", "get_logger")
}
_COMPAT = {
    **_public(text),
    **{name: value for name, value in vars(text).items() if name.endswith("_types")},
}
_DTYPES = {
    **dtypes.PUBLIC,
    **_public(dtypes, "DType", "QUANTIZED_DTYPES", "as_dtype"),
    "experimental": dtypes.EXPERIMENTAL,
}
_CONFIG = dict.fromkeys(
    ("get_visible_devices", "list_logical_devices", "list_physical_devices"), _no_devices
) | {"set_visible_devices": _do_nothing}
_CONFIG_EXPERIMENTAL = {**_CONFIG, "set_memory_growth": _do_nothing}

_SWITCHES = [
    f"{verb}_{what}"
    for verb in ("enable", "disable")
    for what in (
        *("control_flow_v2", "eager_execution", "resource_variables", "tensor_equality"),
        *("v2_behavior", "v2_tensorshape"),
    )
]

# The names of `tensorflow`, and of its compat.v1 and compat.v2.
_API: Names = {
    **dtypes.PUBLIC,
    **_public(dtypes, "DType", "QUANTIZED_DTYPES", "as_dtype"),
    **_public(errors, "OpError"),
    **dict.fromkeys([*_SWITCHES, "reset_default_graph"], _do_nothing),
    "GraphKeys": GraphKeys,
    "Tensor": Tensor,
    "VERSION": VERSION,
    "Variable": Variable,
    "__git_version__": f"tensorbundle {version.__version__}",
    "__version__": VERSION,
    "config": {**_CONFIG, "experimental": _CONFIG_EXPERIMENTAL},
    "contrib": {
        "framework": {
            **_READER,
            "python": {"framework": {"checkpoint_utils": _CHECKPOINT_UTILS}},
        }
    },
    "dtypes": _DTYPES,
    "errors": _ERRORS,
    "executing_eagerly": lambda: True,
    "get_logger": logs.get_logger,
    "gfile": _OLD_GFILE,
    "io": {"gfile": _GFILE},
    "is_tensor": lambda x: False,  # noqa: ARG005
    "logging": _LOGGING,
    "train": _TRAIN,
    "version": {"GIT_VERSION": f"tensorbundle {version.__version__}", "VERSION": VERSION},
}

_PYTHON: Names = {
    "checkpoint": {"checkpoint_management": _STATE},
    "framework": {"dtypes": _DTYPES, "errors": _ERRORS, "errors_impl": _ERRORS},
    "lib": {"io": {"file_io": _FILE_IO}},
    "platform": {"gfile": _OLD_GFILE, "tf_logging": {**_LOGGING, "get_logger": logs.get_logger}},
    "pywrap_tensorflow": _NEW_READER,
    "tools": {"inspect_checkpoint": _public(reader, "print_tensors_in_checkpoint_file")},
    "training": {
        "checkpoint_management": _STATE,
        "checkpoint_utils": _CHECKPOINT_UTILS,
        "py_checkpoint_reader": _NEW_READER,
    },
    "util": {"compat": _COMPAT},
}


def _app() -> StandInModule:
    from tensorbundle.tensorflow_api import absl_flags

    return StandInModule("tensorflow.app", {"flags": absl_flags.flags(), "run": absl_flags.run})


def _flags() -> StandInModule:
    from tensorbundle.tensorflow_api import absl_flags

    return StandInModule("tensorflow.flags", absl_flags.flags())


_WITH_ABSL = {"app": _app, "flags": _flags}


@functools.cache
def root() -> StandInModule:
    """Returns the module ``tensorflow`` of the stand-in, always the same."""
    module = StandInModule("tensorflow", {**_API, "python": _PYTHON}, _WITH_ABSL)
    module.python.platform._lazy = _WITH_ABSL
    compat = StandInModule("tensorflow.compat", _COMPAT)
    setattr(module, "compat", compat)  # noqa: B010
    for name in ("v1", "v2"):
        api = StandInModule(f"tensorflow.compat.{name}", _API, _WITH_ABSL)
        setattr(api, "compat", compat)  # noqa: B010
        setattr(compat, name, api)
    return module
