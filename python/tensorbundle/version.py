# SPDX-License-Identifier: Apache-2.0
"""Which version this is, and of what."""

from __future__ import annotations

from tensorbundle import _core, arguments, plugin

__version__: str = _core.version


def show_versions() -> None:
    """Prints what a bug report needs: versions, and what was chosen for this machine."""
    import platform
    import sys

    rows = [
        ("tensorbundle", __version__),
        ("python", sys.version.split()[0]),
        ("platform", platform.platform()),
        *((name, _installed(name)) for name in ("numpy", "ml_dtypes", "tensorflow")),
        ("crc32c", _core.crc32c_implementation()),
        ("threads", str(arguments.num_threads(None))),
        ("op library", _op_library()),
    ]
    for name, value in rows:
        sys.stdout.write(f"{name:<13} {value}\n")


def _op_library() -> str:
    """What there is for TensorFlow, and why not where there is none. Imports no TensorFlow."""
    import sys

    now = plugin.status()
    if now.library is None:
        return "not built"
    library = sys.modules.get("tensorbundle.tf.op_library")
    # Asking whether the ops load would load TensorFlow: only what is known already is told.
    loaded = library.state() if library is not None else "not loaded"
    return f"{loaded}; {now.library}; plugin {now.state}"


def _installed(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
