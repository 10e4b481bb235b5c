# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's side: options, the op library, and TensorFlow's own names leading to ours.

Importing this imports no TensorFlow; calling what is in it does.
"""

from __future__ import annotations

from tensorbundle.tf.hooks import calls, install, installed, uninstall
from tensorbundle.tf.library import load_op_library
from tensorbundle.tf.options import Options, options, set_options

__all__ = [
    "Options",
    "calls",
    "install",
    "installed",
    "load_op_library",
    "options",
    "set_options",
    "uninstall",
]
