# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's variables filled from checkpoints. Importing this does not import TensorFlow."""

from __future__ import annotations

from tensorbundle.tf.library import load_op_library

__all__ = ["load_op_library"]
