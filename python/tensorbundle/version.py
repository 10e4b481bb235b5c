# SPDX-License-Identifier: Apache-2.0
"""The version of the package, and the report for bug reports: ``show_versions``.

Modules of the standard library are imported when the report is made: `import tensorbundle` must not
wait for them.
"""

from __future__ import annotations

from tensorbundle import _core, arguments

__version__: str = _core.version


def show_versions() -> None:
    """Prints the versions and machine-dependent settings that a bug report needs."""
    import platform
    import sys

    rows = [
        ("tensorbundle", __version__),
        ("python", sys.version.split()[0]),
        ("platform", platform.platform()),
        *((name, _installed_version(name)) for name in ("numpy", "ml_dtypes", "tensorflow")),
        ("crc32c", _core.crc32c_implementation()),
        ("threads", str(arguments.num_threads(None))),
        ("op library", _op_library()),
    ]
    for name, value in rows:
        sys.stdout.write(f"{name:<13} {value}\n")


def _op_library() -> str:
    """Describes the state of the op library. Does not import TensorFlow."""
    import sys

    from tensorbundle import plugin

    status = plugin.status()
    if status.library is None:
        return "not built"
    # Loading the library would import TensorFlow, so report its state only if it is imported.
    library = sys.modules.get("tensorbundle.tf.op_library")
    loaded = library.state() if library is not None else "not loaded"
    serves = ": it serves all scripts" if status.serves else ""
    return f"{loaded}; {status.library}; plugin {status.state}{serves}"


def _installed_version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
