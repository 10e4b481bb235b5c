# SPDX-License-Identifier: Apache-2.0
"""Translated exceptions are instances of both our class and TensorFlow's class."""

from __future__ import annotations

import errno
import pickle

import pytest

import tensorbundle as tb

tf = pytest.importorskip("tensorflow")

from tensorbundle.tf import errors  # noqa: E402
from tensorbundle.tf.errors import as_tensorflow_raises, translated  # noqa: E402

CASES = {
    "no checkpoint": (tb.CheckpointNotFoundError("m", "f"), tf.errors.NotFoundError),
    "no tensor": (tb.TensorNotFoundError("m"), tf.errors.NotFoundError),
    "corruption": (tb.CorruptionError("m"), tf.errors.DataLossError),
    "shapes": (tb.ShapeMismatchError("m"), tf.errors.InvalidArgumentError),
    "unsupported": (tb.UnsupportedError("m"), tf.errors.UnimplementedError),
    "refused": (tb.IOFailure("m", errno.EACCES, "f"), tf.errors.PermissionDeniedError),
    "failed": (tb.IOFailure("m", errno.EIO, "f"), tf.errors.InternalError),
}


@pytest.mark.parametrize("name", CASES)
def test_translated_error_has_both_classes(name: str) -> None:
    error, kind = CASES[name]
    with pytest.raises(kind) as caught, as_tensorflow_raises():
        raise error
    for translated_error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert isinstance(translated_error, type(error))
        assert isinstance(translated_error, kind)
        assert type(translated_error).__module__ == "tensorbundle.tf.errors"
        assert str(translated_error) == str(error)
        assert translated_error.message == str(error)
        assert translated_error.error_code == kind(None, None, "m").error_code
        assert (translated_error.op, translated_error.node_def) == (None, None)
        if isinstance(error, OSError):
            assert (translated_error.errno, translated_error.filename) == (error.errno, "f")
    assert caught.value.__cause__ is error


def test_value_error_is_not_translated(tmp_path: object) -> None:
    message = "Couldn't find 'checkpoint' file"
    with pytest.raises(ValueError, match=message) as caught, as_tensorflow_raises():
        tb.open(str(tmp_path))
    assert not isinstance(caught.value, tf.errors.OpError)
    assert translated(caught.value) is caught.value


def test_error_is_translated_once() -> None:
    outer = pytest.raises(tf.errors.DataLossError)
    with outer as caught, as_tensorflow_raises(), as_tensorflow_raises():
        raise tb.CorruptionError("m")
    assert isinstance(caught.value.__cause__, tb.CorruptionError)
    assert not isinstance(caught.value.__cause__, tf.errors.OpError)


def test_unknown_class_raises_attribute_error() -> None:
    with pytest.raises(AttributeError):
        errors.AbortedError  # noqa: B018
