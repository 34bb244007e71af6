"""The status table: one row for each exception that a caller may see."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from sessiond.domain import errors

__all__ = ["STATUS", "status_of"]

STATUS: dict[type[errors.AuthorityError], grpc.StatusCode] = {
    errors.InvalidField: grpc.StatusCode.INVALID_ARGUMENT,
    errors.SessionNotFound: grpc.StatusCode.NOT_FOUND,
    errors.LockNotFound: grpc.StatusCode.NOT_FOUND,
    errors.SubjectMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.VersionMismatch: grpc.StatusCode.ABORTED,
    errors.DataUnreadable: grpc.StatusCode.DATA_LOSS,
    errors.CursorOutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.BeyondLog: grpc.StatusCode.OUT_OF_RANGE,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}


def status_of(error: errors.AuthorityError) -> Any:
    """The status of an exception, with a google.rpc.BadRequest where a field is to blame."""
    code, _ = STATUS[type(error)].value
    status = status_pb2.Status(code=code, message=str(error))
    if isinstance(error, errors.InvalidField):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.remedy)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return rpc_status.to_status(status)


INTERNAL = rpc_status.to_status(
    status_pb2.Status(code=code_pb2.INTERNAL, message="internal error; see the server's log")
)
