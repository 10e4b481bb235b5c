# SPDX-License-Identifier: Apache-2.0
"""``tf.errors`` of the stand-in: a constant and an exception per status code of TensorFlow.

What the stand-in raises is also one of our exceptions (``raised``).
"""

from __future__ import annotations

from typing import Any

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15
UNAUTHENTICATED = 16


class OpError(Exception):
    """The base of the exceptions of ``tf.errors``."""

    def __init__(
        self, node_def: Any, op: Any, message: Any, error_code: int = UNKNOWN, *args: Any
    ) -> None:
        """Takes TensorFlow's arguments; the stand-in has no ops, and passes None."""
        Exception.__init__(self)
        self._node_def = node_def
        self._op = op
        self._message = message
        self._error_code = error_code
        self._payloads = args[0] if args else {}

    @property
    def message(self) -> Any:
        """The message."""
        return self._message

    @property
    def error_code(self) -> int:
        """The status code, such as ``tf.errors.NOT_FOUND``."""
        return self._error_code

    @property
    def op(self) -> Any:
        """The op that failed, or None."""
        return self._op

    @property
    def node_def(self) -> Any:
        """The node that failed, or None."""
        return self._node_def

    @property
    def experimental_payloads(self) -> Any:
        """Details of the error."""
        return self._payloads

    def __str__(self) -> str:
        return str(self._message)

    def __reduce__(self) -> tuple[Any, ...]:
        code = (self._error_code,) if type(self) is OpError else ()
        return type(self), (self._node_def, self._op, self._message, *code)


def _create(name: str, code: int) -> type[OpError]:
    """Returns the exception of a status code, whose constructor does not take the code."""

    def __init__(self: Any, node_def: Any, op: Any, message: Any, *args: Any) -> None:
        OpError.__init__(self, node_def, op, message, code, *args)

    members = {"__init__": __init__, "__module__": __name__, "__doc__": f"Status code {code}."}
    return type(name, (OpError,), members)


CancelledError = _create("CancelledError", CANCELLED)
UnknownError = _create("UnknownError", UNKNOWN)
InvalidArgumentError = _create("InvalidArgumentError", INVALID_ARGUMENT)
DeadlineExceededError = _create("DeadlineExceededError", DEADLINE_EXCEEDED)
NotFoundError = _create("NotFoundError", NOT_FOUND)
AlreadyExistsError = _create("AlreadyExistsError", ALREADY_EXISTS)
PermissionDeniedError = _create("PermissionDeniedError", PERMISSION_DENIED)
ResourceExhaustedError = _create("ResourceExhaustedError", RESOURCE_EXHAUSTED)
FailedPreconditionError = _create("FailedPreconditionError", FAILED_PRECONDITION)
AbortedError = _create("AbortedError", ABORTED)
OutOfRangeError = _create("OutOfRangeError", OUT_OF_RANGE)
UnimplementedError = _create("UnimplementedError", UNIMPLEMENTED)
InternalError = _create("InternalError", INTERNAL)
UnavailableError = _create("UnavailableError", UNAVAILABLE)
DataLossError = _create("DataLossError", DATA_LOSS)
UnauthenticatedError = _create("UnauthenticatedError", UNAUTHENTICATED)

_TYPES: dict[int, type[OpError]] = {
    CANCELLED: CancelledError,
    UNKNOWN: UnknownError,
    INVALID_ARGUMENT: InvalidArgumentError,
    DEADLINE_EXCEEDED: DeadlineExceededError,
    NOT_FOUND: NotFoundError,
    ALREADY_EXISTS: AlreadyExistsError,
    PERMISSION_DENIED: PermissionDeniedError,
    RESOURCE_EXHAUSTED: ResourceExhaustedError,
    FAILED_PRECONDITION: FailedPreconditionError,
    ABORTED: AbortedError,
    OUT_OF_RANGE: OutOfRangeError,
    UNIMPLEMENTED: UnimplementedError,
    INTERNAL: InternalError,
    UNAVAILABLE: UnavailableError,
    DATA_LOSS: DataLossError,
    UNAUTHENTICATED: UnauthenticatedError,
}


def exception_type_from_error_code(error_code: int) -> type[OpError]:
    """Returns the exception of a status code."""
    return _TYPES[error_code]
