"""One exception tree for everything that can go wrong with a call, and its mapping from gRPC statuses.

No exception shows a token: messages are the authority's own text, which never contains one, and no request is kept. The
ticket of a `ConcurrencyLimitReached` is a `Token`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sessiond_client.values import ConcurrencyLimit

__all__ = [
    "Cancelled",
    "ConcurrencyLimitReached",
    "Conflict",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InternalError",
    "InvalidArgument",
    "NotFound",
    "NotServed",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "SessiondError",
    "Unauthenticated",
    "Unavailable",
    "Violation",
    "from_rpc",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that the authority refuses."""

    field: str
    """The field's path as the contract names it, such as `authentication.level`."""
    description: str
    """What is wrong with it, and what would be right."""


class SessiondError(Exception):
    """A call that failed. Treat it as a denial.

    After an error nothing has changed, except after `Unavailable`, `DeadlineExceeded` and `Cancelled`, whose outcome is
    unknown. `status` is the name of the gRPC status.
    """

    def __init__(self, message: str = "", *, status: str = "UNKNOWN") -> None:
        super().__init__(message)
        self.status = status

    @property
    def message(self) -> str:
        """What the authority, or the transport, said."""
        return str(self)


class InvalidArgument(SessiondError):
    """The request is wrong; `violations` names the fields. Do not repeat it."""

    def __init__(
        self, message: str = "", *, status: str = "INVALID_ARGUMENT", violations: tuple[Violation, ...] = ()
    ) -> None:
        super().__init__(message, status=status)
        self.violations = violations


class ConcurrencyLimitReached(SessiondError):
    """The subject has as many live sessions as it may have: nothing was opened or bound, nobody is logged in.

    The only exception that is no RPC error (`status` is `OK`). It is raised, not returned, so that a caller who forgets
    this case denies. If the policy is to ask, `limit` has the live sessions and the ticket for repeating the call:
    `create(..., ticket=limit.ticket, evict=[chosen.session_id])`.
    """

    def __init__(self, limit: ConcurrencyLimit) -> None:
        super().__init__(f"the subject has reached its limit of {limit.max_sessions} live sessions", status="OK")
        self.limit = limit


class NotFound(SessiondError):
    """There is no such session in the application, or no such lock."""


class Conflict(SessiondError):
    """`expected_version` is not the current one (ABORTED): read again and decide again."""


class FailedPrecondition(SessiondError):
    """The session is not in a state that allows this, such as a login over another subject's session."""


class OutOfRange(SessiondError):
    """A cursor or consistency token (`at_least`) is ahead of the log, or from a part of it that no longer exists."""


class Unavailable(SessiondError):
    """The authority is out of reach or shutting down."""


class DeadlineExceeded(SessiondError):
    """No answer within the timeout."""


class Cancelled(SessiondError):
    """The call was cancelled, and not by its caller."""


class ResourceExhausted(SessiondError):
    """A bound was reached: of the authority, or of a message's size."""


class NotServed(SessiondError):
    """The authority does not serve this call (UNIMPLEMENTED)."""


class Unauthenticated(SessiondError):
    """The authority does not know the caller."""


class PermissionDenied(SessiondError):
    """The authority knows the caller and refuses it."""


class InternalError(SessiondError):
    """The authority, or the transport, failed for a reason that it does not give."""


_BY_STATUS: dict[str, type[SessiondError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "ABORTED": Conflict,
    "FAILED_PRECONDITION": FailedPrecondition,
    "OUT_OF_RANGE": OutOfRange,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "UNIMPLEMENTED": NotServed,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "INTERNAL": InternalError,
    "UNKNOWN": InternalError,
    "DATA_LOSS": InternalError,
}


def from_rpc(error: grpc.RpcError) -> SessiondError:
    """The exception for a gRPC failure, of either client. Never raises: a status that is broken loses its details."""
    status: Any = error  # both libraries raise errors that are calls too, which their types do not say
    name = str(status.code().name)
    message = str(status.details() or name)
    kind = _BY_STATUS.get(name, SessiondError)
    if issubclass(kind, InvalidArgument):
        return kind(message, status=name, violations=_violations(status))
    return kind(message, status=name)


def _violations(status: Any) -> tuple[Violation, ...]:
    """The fields named by a google.rpc.BadRequest in the details of a status, if there is one."""
    try:
        rich = rpc_status.from_call(status)
    except Exception:  # noqa: BLE001 - details come from the wire; whatever is wrong with them, the status stands
        return ()
    found = error_details_pb2.BadRequest()
    for detail in rich.details if rich is not None else ():
        if detail.Is(found.DESCRIPTOR):
            try:
                detail.Unpack(found)
            except Exception:  # noqa: BLE001 - as above
                return ()
            break
    return tuple(Violation(item.field, item.description) for item in found.field_violations)
