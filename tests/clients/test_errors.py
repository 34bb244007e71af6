"""Every gRPC failure becomes one exception of the tree."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from sessiond_client import (
    AlreadyExists,
    Cancelled,
    ConcurrencyLimit,
    ConcurrencyLimitReached,
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    NotServed,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    SessiondError,
    Unauthenticated,
    Unavailable,
    Violation,
)
from sessiond_client.errors import from_rpc


def failure(code: grpc.StatusCode, details: str = "no", trailing: Metadata | None = None) -> AioRpcError:
    return AioRpcError(code, Metadata(), trailing or Metadata(), details)


def rich(code: grpc.StatusCode, *violations: tuple[str, str], message: str = "no") -> Metadata:
    """The trailing metadata of a status with a google.rpc.BadRequest in its details."""
    bad = error_details_pb2.BadRequest()
    for field, description in violations:
        bad.field_violations.add(field=field, description=description)
    detail = AnyMessage()
    detail.Pack(bad)
    status = status_pb2.Status(code=code.value[0], message=message, details=[detail])
    return Metadata(("grpc-status-details-bin", status.SerializeToString()))


EXPECTED: dict[grpc.StatusCode, type[SessiondError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNIMPLEMENTED: NotServed,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.DATA_LOSS: InternalError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_has_its_exception(code: grpc.StatusCode) -> None:
    """Each gRPC status becomes its own exception, which keeps the authority's words and the status's name."""
    error = from_rpc(failure(code, "why it is so"))
    assert type(error) is EXPECTED[code]
    assert error.message == str(error) == "why it is so"
    assert error.status == code.name


@pytest.mark.parametrize("details", ["", None])
def test_a_failure_without_words_is_named_by_its_status(details: str | None) -> None:
    """A status that says nothing more becomes an exception whose message is the status's name, never an empty one."""
    error = from_rpc(AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), details))
    assert isinstance(error, Unavailable)
    assert error.message == str(error) == "UNAVAILABLE"


def test_a_limit_names_its_number_and_is_no_rpc_error() -> None:
    """A limit that was reached says how many sessions it allows, and has the status OK."""
    limit = ConcurrencyLimit(max_sessions=3, live_sessions=(), ticket=None, ticket_expire_time=None)
    error = ConcurrencyLimitReached(limit)
    assert error.message == "the subject has reached its limit of 3 live sessions"
    assert (error.status, error.limit) == ("OK", limit)
    assert isinstance(error, SessiondError)


def test_the_fields_of_a_bad_request_are_told() -> None:
    """`violations` names each refused field and what is wrong with it."""
    code = grpc.StatusCode.INVALID_ARGUMENT
    error = from_rpc(failure(code, trailing=rich(code, ("subject", "is too long"), ("data", "is too big"))))
    assert isinstance(error, InvalidArgument)
    assert error.violations == (Violation("subject", "is too long"), Violation("data", "is too big"))


@pytest.mark.parametrize(
    "trailing",
    [
        Metadata(),
        Metadata(("grpc-status-details-bin", b"\xff\xff not a status")),
        rich(grpc.StatusCode.NOT_FOUND, ("subject", "is too long")),
        rich(grpc.StatusCode.INVALID_ARGUMENT, ("subject", "is too long"), message="another message"),
    ],
    ids=["none", "broken", "of another code", "of another message"],
)
def test_details_that_cannot_be_trusted_are_left_out(trailing: Metadata) -> None:
    """A status whose details are missing, broken or contradict it is still the same exception."""
    error = from_rpc(failure(grpc.StatusCode.INVALID_ARGUMENT, "no", trailing))
    assert isinstance(error, InvalidArgument)
    assert error.violations == ()
