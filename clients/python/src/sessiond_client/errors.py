"""One exception tree for everything that can go wrong with a call, and its mapping from gRPC statuses.

No exception shows a token: messages are the authority's own text, which never contains one, and exceptions do not hold
the request. A `request_id` and the ticket of a `ConcurrencyLimitReached` are `Token`s. Every exception can be copied
and pickled; a pickle has `WITHHELD` in place of each token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Self, TypeVar

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sessiond_client.tokens import Token
from sessiond_client.values import ConcurrencyLimit
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "WITHHELD",
    "AlreadyExists",
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
    "from_failure",
    "from_rpc",
    "never_sent",
    "with_tls_hint",
    "may_have_taken_effect",
]

WITHHELD: Final = Token("<a token that was left out of a pickle>")
"""Replaces each token of an exception that was pickled. No authority accepts it."""


E = TypeVar("E", bound="SessiondError")


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field of a request, found by the authority, or one wrong argument, found by the client."""

    field: str
    """The path of the field in the contract, or of the argument, such as `authentication.level`."""
    description: str
    """What is wrong with it, and what is accepted instead."""


class _Placeholder(Enum):
    """Replaces a token inside a pickle."""

    WITHHELD = "WITHHELD"


class SessiondError(Exception):
    """A call that failed. Treat it as a denial.

    `status`: the name of the gRPC status, such as `UNAVAILABLE`; if the client raises the exception itself, the nearest
    one.

    `outcome_unknown`: True if the call may have taken effect. Only calls that change something set it, mostly with
    `Unavailable`, `DeadlineExceeded` and `Cancelled`. False: nothing has changed.

    `request_id`: the id that a changing call was sent with, yours or the client's; None if it had none. Repeat the call
    with the same parameters and this id, and it takes effect once. It is as secret as the token that the call returns.

    `call_id`: the id by which the authority's log, its audit log and traces name the call; empty if the authority did
    not answer, or the client raises the exception itself. It is no secret: show it to your users and in your log.
    """

    call_id: str = ""

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
        """The text of the authority, of the transport or of the client."""
        return str(self)

    # The default `__reduce__` of exceptions does not work here: it passes positional arguments to the constructor,
    # which takes keywords, and pickles the attributes, among them tokens, which refuse to be pickled.

    def __copy__(self) -> Self:
        return _rebuilt(type(self), self.args, self.__dict__)

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()  # its attributes are immutable

    def __reduce_ex__(self, protocol: object) -> Any:
        return _unpickled, (type(self), self.args, _replaced(self.__dict__, WITHHELD, _Placeholder.WITHHELD))


def _rebuilt(kind: type[E], args: tuple[Any, ...], attributes: dict[str, Any]) -> E:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


def _unpickled(kind: type[E], args: tuple[Any, ...], attributes: dict[str, Any]) -> E:
    return _rebuilt(kind, args, _replaced(attributes, _Placeholder.WITHHELD, WITHHELD))


def _replaced(value: Any, old: Any, new: Any) -> Any:
    """The value with everything in it that is of the type of `old` replaced by `new`."""
    if isinstance(value, type(old)):
        return new
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_replaced(item, old, new) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        changed = {name: _replaced(item, old, new) for name, item in fields.items()}
        return dataclasses.replace(value, **changed)
    return value


class InvalidArgument(SessiondError):
    """The request is wrong; `violations` names the fields. Do not repeat it unchanged.

    The client checks the types of all arguments before it sends anything; the authority checks their values.
    """

    def __init__(
        self, message: str = "", *, status: str = "INVALID_ARGUMENT", violations: tuple[Violation, ...] = ()
    ) -> None:
        super().__init__(message, status=status)
        self.violations = violations


class ClientUnusable(SessiondError):
    """The client object cannot make the call, whatever the state of the authority. See the subclasses."""


class ClientClosed(ClientUnusable):
    """The client was closed before or during the call. `outcome_unknown` says whether it may have taken effect."""


class WrongEventLoop(ClientUnusable):
    """An `AsyncClient` was used in a second event loop: create one client for each loop. Nothing was sent."""


class ClientForked(ClientUnusable):
    """The parent process used this client before it forked: create a new client in the child. Nothing was sent.

    Two processes cannot share a gRPC connection: the child would hang or crash. If a thread of the parent was making a
    call at the fork, every client in the child raises this; if an `AsyncClient` was open, every `AsyncClient` does.
    """


class ConcurrencyLimitReached(SessiondError):
    """The subject has as many live sessions as the policy allows: no session was opened, nobody is logged in.

    The RPC itself succeeded (`status` is `OK`). This is an exception, so that code that does not handle the case denies
    the login. If the policy says `ask`, `limit` has the live sessions and a ticket for repeating the call:
    `create(..., ticket=limit.ticket, evict=[chosen.session_id])`.
    """

    def __init__(self, limit: ConcurrencyLimit) -> None:
        super().__init__(f"the subject has reached its limit of {limit.max_sessions} live sessions", status="OK")
        self.limit = limit


class NotFound(SessiondError):
    """There is no such session in the application (or not of that `subject`), no such lock, or no such caller."""


class AlreadyExists(SessiondError):
    """There is a caller of that name."""


class Conflict(SessiondError):
    """The session data is not at `expected_version`: read it again and retry the change (ABORTED)."""


class FailedPrecondition(SessiondError):
    """The session does not allow this: it belongs to another subject, or is anonymous and was to be elevated."""


class OutOfRange(SessiondError):
    """A cursor or consistency token (`at_least`) is ahead of the log, or from a part of it that no longer exists.

    Forget a consistency token and repeat the call without it. After a cursor, rebuild what you keep from `list`.
    """


class Unavailable(SessiondError):
    """The authority is out of reach or shutting down, after all retries. Try again later."""


class DeadlineExceeded(SessiondError):
    """There was no answer within the timeout, retries included. Try again later."""


class Cancelled(SessiondError):
    """The call was cancelled by the authority or on the way to it, not by the caller. Try again later."""


class ResourceExhausted(SessiondError):
    """The authority is overloaded and did not begin the call (try again later), or a message is too large.

    `retry_after`: after how many seconds the authority asked to try again; None: it did not. The client does so by
    itself as long as the call's timeout and `retries` allow.

    `setting`: the limit on calls that was reached, by the name of the setting in the authority's configuration, such as
    `limits.rate_per_caller`; empty: the reason is another one.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: str = "RESOURCE_EXHAUSTED",
        outcome_unknown: bool = False,
        request_id: Token | None = None,
        retry_after: float | None = None,
        setting: str = "",
    ) -> None:
        super().__init__(message, status=status, outcome_unknown=outcome_unknown, request_id=request_id)
        self.retry_after = retry_after
        self.setting = setting


class NotServed(SessiondError):
    """The authority does not offer this call (UNIMPLEMENTED)."""


class Unauthenticated(SessiondError):
    """The authority does not know this application's identity. It says nothing about the user."""


class PermissionDenied(SessiondError):
    """The authority knows this application and does not allow it the call. It says nothing about the user."""


class InternalError(SessiondError):
    """The authority or the transport failed; the authority's log has the reason.

    With the status `DATA_LOSS` the data of this one session cannot be read; `validate` without `data` still works.
    """


_BY_STATUS: dict[str, type[SessiondError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": AlreadyExists,
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


_STATUS_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


def from_rpc(error: grpc.RpcError) -> SessiondError:
    """The exception for a gRPC failure of either client. Never raises: details that cannot be read are left out."""
    status: Any = error  # in both libraries the error is the call as well, which the types do not say
    return _exception(str(status.code().name), str(status.details() or ""), lambda: _details(status))


def from_failure(failure: pb.ValidationFailure) -> SessiondError:
    """The exception for a question in a batch that has no answer; the one that it would have had as a call."""
    name = _STATUS_NAMES.get(failure.code, "UNKNOWN")
    return _exception(name, failure.message, lambda: failure.details)


def _exception(name: str, message: str, details: Callable[[], Iterable[Any]]) -> SessiondError:
    found = list(details())
    error = _of_status(name, message, found)
    if info := _unpacked(found, error_details_pb2.RequestInfo):
        error.call_id = info.request_id
    return error


def _of_status(name: str, message: str, details: Iterable[Any]) -> SessiondError:
    kind = _BY_STATUS.get(name, SessiondError)
    if issubclass(kind, InvalidArgument):
        return kind(message or name, status=name, violations=_violations(details))
    if issubclass(kind, ResourceExhausted):
        retry_after, setting = _limit(details)
        return kind(message or name, status=name, retry_after=retry_after, setting=setting)
    if name == "UNAVAILABLE":
        message = with_tls_hint(message)
    if name == "UNAUTHENTICATED":
        message = message.replace(_SEND_A_KEY, "pass the key of a caller to the client, as `key=`")
    return kind(message or name, status=name)


def _details(status: Any) -> Iterable[Any]:
    try:
        rich = rpc_status.from_call(status)
    except Exception:  # noqa: BLE001 - details come from the network; if they are broken, the status still counts
        return ()
    return () if rich is None else rich.details


def _violations(details: Iterable[Any]) -> tuple[Violation, ...]:
    """The fields that a google.rpc.BadRequest among the details of a status names; empty if there is none."""
    found = _unpacked(details, error_details_pb2.BadRequest)
    fields = () if found is None else found.field_violations
    return tuple(Violation(item.field, item.description) for item in fields)


def _limit(details: Iterable[Any]) -> tuple[float | None, str]:
    """The seconds of a google.rpc.RetryInfo, and the setting that a google.rpc.ErrorInfo names."""
    known = tuple(details)
    retry = _unpacked(known, error_details_pb2.RetryInfo)
    info = _unpacked(known, error_details_pb2.ErrorInfo)
    setting = info.metadata.get("setting", "") if info is not None and info.reason == "LIMIT_REACHED" else ""
    delay = None if retry is None else retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return None if delay is None else max(0.0, delay), setting


def _unpacked(details: Iterable[Any], kind: Any) -> Any:
    """The first of the details that is of this kind; None if there is none."""
    for detail in details:
        if detail.Is(kind.DESCRIPTOR):
            found = kind()
            try:
                detail.Unpack(found)
            except Exception:  # noqa: BLE001 - as above
                return None
            return found
    return None


_SEND_A_KEY = "send the key of a caller, as `authorization: Bearer KEY`"
"""The remedy of an authority for a call without a key. It suits those who write clients."""

_TLS_HINTS = (
    ("WRONG_VERSION_NUMBER", "the authority does not serve TLS at this address"),
    ("Hostname Verification Check failed", "the authority's certificate is for another name than the target's host"),
    ("certificate has expired", "the authority's certificate has expired"),
    ("certificate is not yet valid", "the authority's certificate is not valid yet; compare the clocks"),
    ("CERTIFICATE_VERIFY_FAILED", "the authority's certificate is not signed by an authority that this client trusts"),
    ("CERTIFICATE_REQUIRED", "the authority requires a certificate of the client"),
    ("Socket closed", "the authority may expect TLS, or another certificate of the client"),
    ("Connection reset by peer", "the authority may expect TLS, or another certificate of the client"),
)
"""What gRPC's messages about TLS mean, the first one that fits. It has one status for all failures to connect."""


_OTHER_LOOPBACK = "ipv6:%5B::1%5D"
"""[::1] in gRPC's messages."""


def with_tls_hint(message: str) -> str:
    """The message of an attempt to connect, with what it says about TLS, if it says anything."""
    if not message.startswith(_NOT_CONNECTED[0]):
        return message
    hint = next((text for said, text in _TLS_HINTS if said in message), "")
    if "Connection refused" in message and _OTHER_LOOPBACK in message:
        # `localhost` has two addresses, and gRPC names only the last one that it tried.
        hint = "if the authority listens at 127.0.0.1, use that address to see why it did not work"
    return f"{message} ({hint})" if hint else message


_NOT_CONNECTED = ("failed to connect to all addresses", "DNS resolution failed", "empty address list")
"""gRPC's messages for a call that it had no connection to send on. Any other UNAVAILABLE may have arrived."""

_REJECTED_UNCHANGED = frozenset(
    (
        *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "ABORTED", "FAILED_PRECONDITION", "OUT_OF_RANGE"),
        *("RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED"),
    )
)
"""The authority rejects a call with one of these before it changes anything."""


def never_sent(error: SessiondError) -> bool:
    """Whether the call was never sent because there was no connection."""
    return isinstance(error, Unavailable) and any(said in error.message for said in _NOT_CONNECTED)


def may_have_taken_effect(error: SessiondError) -> bool:
    """Whether a call that ended in this exception may have taken effect."""
    if "Received message larger than max" in error.message:
        return True  # RESOURCE_EXHAUSTED of the client's own side: the answer came, and was too large
    return error.status not in _REJECTED_UNCHANGED and not never_sent(error)
