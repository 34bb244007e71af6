"""One exception tree for everything that can go wrong with a call, and its mapping from gRPC statuses.

No exception shows a token: messages are the authority's own text, which never contains one, and no request is kept. A
`request_id` and the ticket of a `ConcurrencyLimitReached` are `Token`s. Every exception can be copied and pickled; a
pickle has `WITHHELD` in place of each token.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Self, TypeVar

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sessiond_client.tokens import Token
from sessiond_client.values import ConcurrencyLimit

__all__ = [
    "WITHHELD",
    "Cancelled",
    "ClientClosed",
    "ClientForked",
    "ClientUnusable",
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
    "WrongEventLoop",
    "from_rpc",
    "is_refused",
    "may_have_happened",
]

WITHHELD: Final = Token("<a token that was left out of a pickle>")
"""Stands for each token in an exception that was pickled. No authority accepts it."""


E = TypeVar("E", bound="SessiondError")


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that the authority refuses, or one argument that the client refuses."""

    field: str
    """The field's path as the contract names it, or the argument's, such as `authentication.level`."""
    description: str
    """What is wrong with it, and what would be right."""


class _Marker(Enum):
    """The place of a token in a pickle."""

    WITHHELD = "WITHHELD"


class SessiondError(Exception):
    """A call that failed. Treat it as a denial.

    `status` is the name of the gRPC status; of an exception that the client raises itself, the nearest one.

    `outcome_unknown`: the call may have taken effect. Only for calls that change something, and mostly with
    `Unavailable`, `DeadlineExceeded` and `Cancelled`. False: nothing has changed.

    `request_id`: the id that a changing call was sent with, yours or the client's; None if it had none. Repeat the call
    with the same parameters and this id, and it takes effect once. It is as secret as the token that the call returns.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: str = "UNKNOWN",
        outcome_unknown: bool = False,
        request_id: Token | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.outcome_unknown = outcome_unknown
        self.request_id = request_id

    @property
    def message(self) -> str:
        """What the authority, the transport or the client said."""
        return str(self)

    # An exception's own `__reduce__` passes positional arguments to the constructor and takes the attributes as they
    # are: it fits neither the keywords here nor the tokens, which refuse to be pickled.

    def __copy__(self) -> Self:
        return _rebuilt(type(self), self.args, self.__dict__)

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()  # what it holds is immutable

    def __reduce_ex__(self, protocol: object) -> Any:
        return _unpickled, (type(self), self.args, _exchanged(self.__dict__, WITHHELD, _Marker.WITHHELD))


def _rebuilt(kind: type[E], args: tuple[Any, ...], attributes: dict[str, Any]) -> E:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


def _unpickled(kind: type[E], args: tuple[Any, ...], attributes: dict[str, Any]) -> E:
    return _rebuilt(kind, args, _exchanged(attributes, _Marker.WITHHELD, WITHHELD))


def _exchanged(value: Any, old: Any, new: Any) -> Any:
    """The value with every token in it, or every marker, exchanged for `new`."""
    if isinstance(value, type(old)):
        return new
    if isinstance(value, dict):
        return {key: _exchanged(item, old, new) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_exchanged(item, old, new) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        changed = {name: _exchanged(item, old, new) for name, item in fields.items()}
        return dataclasses.replace(value, **changed)
    return value


class InvalidArgument(SessiondError):
    """The request is wrong; `violations` names the fields. Do not repeat it.

    The client checks the types of all arguments before it sends anything, the authority checks what they mean.
    """

    def __init__(
        self, message: str = "", *, status: str = "INVALID_ARGUMENT", violations: tuple[Violation, ...] = ()
    ) -> None:
        super().__init__(message, status=status)
        self.violations = violations


class ClientUnusable(SessiondError):
    """The client object cannot make the call, whatever the state of the authority."""


class ClientClosed(ClientUnusable):
    """The client was closed, before the call or during it. `outcome_unknown` tells whether it may have taken effect."""


class WrongEventLoop(ClientUnusable):
    """An `AsyncClient` was used in a second event loop: make one client for each loop. Nothing was sent."""


class ClientForked(ClientUnusable):
    """A client that the parent process used before it forked: make a client in the child. Nothing was sent.

    A connection cannot be shared by two processes: gRPC hangs or crashes in the child. Raised by every client in the
    child if a thread of the parent was making a call at the fork, and by every `AsyncClient` if one was open.
    """


class ConcurrencyLimitReached(SessiondError):
    """The subject has as many live sessions as it may have: nothing was opened or bound, nobody is logged in.

    The call itself succeeded (`status` is `OK`). It is raised, not returned, so that a caller who forgets
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


_NOT_CONNECTED = ("failed to connect to all addresses", "DNS resolution failed", "empty address list")
"""What gRPC says when it had no connection to send a call on. Any other UNAVAILABLE may have arrived."""

_NEVER_HAPPENED = frozenset(
    (
        *("INVALID_ARGUMENT", "NOT_FOUND", "ABORTED", "FAILED_PRECONDITION", "OUT_OF_RANGE"),
        *("RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED"),
    )
)
"""With these the authority refuses a call before it changes anything."""


def is_refused(error: SessiondError) -> bool:
    """Whether a call was never sent, since there was no connection."""
    return isinstance(error, Unavailable) and any(said in error.message for said in _NOT_CONNECTED)


def may_have_happened(error: SessiondError) -> bool:
    """Whether a call that ended so may have taken effect."""
    if "Received message larger than max" in error.message:
        return True  # RESOURCE_EXHAUSTED of our own side: there is an answer, and it does not fit
    return error.status not in _NEVER_HAPPENED and not is_refused(error)
