# SPDX-License-Identifier: Apache-2.0
"""Diagnosis of a table's vocabularies when its initializers are built.

Errors that TensorFlow reports when the initializers run are not reported here: they may run on
another machine, with other files. Only problems that TensorFlow does not detect are reported.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from tensorbundle import vocab_diagnosis
from tensorbundle.arguments import format_value
from tensorbundle.errors import Error, VocabularyNotFoundError
from tensorbundle.load_plan import Stored
from tensorbundle.tf import backend, checkpoint_index, fill_values, op_library
from tensorbundle.tf.errors import invalid_argument, translated
from tensorbundle.tf.options import Options
from tensorbundle.tf.remap_backends import path_in_ops
from tensorbundle.tf.variables import on_another_job
from tensorbundle.variables import Variable
from tensorbundle.vocab_diagnosis import Diagnosis, JoinResult, RemapInputs
from tensorbundle.warm_plan import Remap

_MESSAGE_BYTES = 8192


def ask(
    step: Remap,
    partitions: Sequence[Variable],
    stored: Stored | None,
    options: Options,
    *,
    exact: bool,
) -> Diagnosis:
    """Diagnoses the vocabularies of a table.

    Args:
        step: The plan for the table.
        partitions: Its variables.
        stored: The stored table, if known.
        options: The options of reading.
        exact: Whether to join vocabularies of any size.

    Raises:
        tf.errors.NotFoundError, InvalidArgumentError: In eager mode, in which the vocabularies are
            joined now.
        TypeError, ValueError: The backup initializer cannot be called, or a size is out of range.
    """
    import tensorflow as tf

    info = step.info
    if info.backup_initializer is not None:
        fill_values.check_callable(info.backup_initializer)
    if not -(1 << 63) <= info.old_vocab_size < 1 << 63:
        raise ValueError(f"old_vocab_size {format_value(info.old_vocab_size)} is no 64-bit integer")
    new, old = path_in_ops(info.new_vocab), path_in_ops(info.old_vocab)
    if checkpoint_index.is_remote(new) or checkpoint_index.is_remote(old):
        return Diagnosis("remapped", ())
    shape = partitions[0].full_shape
    axis = int(info.axis)
    question = RemapInputs(
        variable=step.group,
        new=new,
        old=old,
        new_size=info.new_vocab_size,
        old_size=info.old_vocab_size,
        axis=axis,
        wanted=step.wanted,
        room=None if shape is None else shape[axis],
        num_oov=info.num_oov_buckets,
        table_rows=None if stored is None else stored.shape[axis],
    )
    backends = {backend.backend_for(partition.handle, options) for partition in partitions}
    join = _by_library if backends == {"op"} else vocab_diagnosis.join_files
    now = tf.executing_eagerly()
    try:
        answer = vocab_diagnosis.diagnose(question, join, exact=exact or now, is_immediate=now)
    except VocabularyNotFoundError as error:
        raise translated(error) from error
    except (Error, ValueError) as error:
        raise invalid_argument(f"{step.group!r}: {error}") from error
    if answer.error is None or not any(
        on_another_job(partition.handle) for partition in partitions
    ):
        return answer
    # The other machine may have other files.
    return answer._replace(warnings=(*answer.warnings, answer.error), error=None)


def _by_library(new: bytes, old: bytes, old_size: int, wanted: int, table_rows: int) -> JoinResult:
    """Returns statistics of the join that our ops in this process will use.

    Raises:
        Error: The join failed.
    """
    summary = (ctypes.c_int64 * len(JoinResult._fields))()
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    code = op_library.c_library().tensorbundle_tf_join(
        new,
        old,
        ctypes.c_int64(old_size),
        ctypes.c_int64(wanted),
        ctypes.c_int64(table_rows),
        summary,
        message,
        ctypes.c_size_t(_MESSAGE_BYTES),
    )
    if code != 0:
        raise Error(message.value.decode("utf-8", "replace"))
    return JoinResult(*summary)
