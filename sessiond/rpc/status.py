"""The status table: the gRPC status code of each exception that a caller may see."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sessiond.domain import errors
from sessiond.system.ongoing import Metadata, ending_call

__all__ = ["STATUS", "status_message", "status_of"]

_RETRY_AFTER = 200
"""Milliseconds, if nobody can know when a call will succeed."""
_DOMAIN = "sessiond"
_LIMIT_REACHED = "LIMIT_REACHED"

STATUS: dict[type[errors.AuthorityError], grpc.StatusCode] = {
    errors.InvalidField: grpc.StatusCode.INVALID_ARGUMENT,
    errors.SessionNotFound: grpc.StatusCode.NOT_FOUND,
    errors.LockNotFound: grpc.StatusCode.NOT_FOUND,
    errors.SubjectMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.VersionMismatch: grpc.StatusCode.ABORTED,
    errors.DataUnreadable: grpc.StatusCode.DATA_LOSS,
    errors.PositionOutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
    errors.CallerExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.CallerNotFound: grpc.StatusCode.NOT_FOUND,
    errors.LastAdmin: grpc.StatusCode.FAILED_PRECONDITION,
    errors.KeyNotFound: grpc.StatusCode.NOT_FOUND,
    errors.KeyRingRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.BackupRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.LimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}


def status_of(error: errors.AuthorityError, metadata: Metadata | None = ()) -> Any:
    """Return the gRPC status with which an exception ends the ongoing call, whose caller has sent this metadata.

    It has the details of `status_message`, and the id of the call as google.rpc.RequestInfo.
    """
    status = status_message(error)
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=ending_call(metadata).id))
    return rpc_status.to_status(status)


def status_message(error: errors.AuthorityError) -> status_pb2.Status:
    """Return the status of an exception as a message.

    It contains a google.rpc.BadRequest if a field is invalid, a google.rpc.RetryInfo if the call may be retried, and a
    google.rpc.ErrorInfo with the name of the setting if a limit on calls was reached.
    """
    # Subclasses, such as the store's failures, have the code of the nearest base class in the table.
    row = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    status = status_pb2.Status(code=row.value[0], message=error.public)
    if isinstance(error, errors.Unavailable | errors.Overloaded):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after if isinstance(error, errors.LimitReached) else _RETRY_AFTER)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, errors.LimitReached):
        info = error_details_pb2.ErrorInfo(reason=_LIMIT_REACHED, domain=_DOMAIN, metadata={"setting": error.setting})
        status.details.add().Pack(info)
    if isinstance(error, errors.InvalidField):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.remedy)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return status
