"""Parameters and results of the use cases, in terms of domain values: the interface between authority and transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sessiond.changes.idempotency import EncodedAnswer
from sessiond.crypto.tokens import Token
from sessiond.domain.immutable import immutable
from sessiond.domain.judge import Judgement, Presented, Verdict
from sessiond.domain.policy import Policy
from sessiond.domain.position import Position
from sessiond.domain.requirements import Unmet
from sessiond.domain.session import Activity, Session
from sessiond.domain.signals import Reaction
from sessiond.domain.values import NO_REVISION, Instant, Millis, Revision, SessionId, VersionedData

__all__ = [
    "ValidationResult",
    "ChangeResult",
    "IssuedCompanion",
    "AuthorityDescription",
    "EncodedAnswer",
    "Limit",
    "SessionRef",
    "AnswerSpec",
    "RequestId",
    "RevocationResult",
    "BulkRevocationResult",
    "TicketChoice",
]

R = TypeVar("R")

SessionRef = Token | SessionId
"""How a call names a session: by token, which proves the right to use it, or by public id."""


@dataclass(slots=True)  # not frozen: each validation creates one, and frozen would triple the cost
class ValidationResult:
    """The result of a validation. Treat it as immutable.

    session          None unless the verdict is VALID or INSUFFICIENT
    renewed          the token that the client must use from now on; None: it keeps its own
    activity         the last activity, including this one, if it may be later than that of `session`
    presented        the content of the token, if the result came from memory without consequences
    unmet            the unmet requirements of the verdict INSUFFICIENT
    csrf             the session's CSRF token, if requested
    cacheable_until  until when a cache that follows the log may reuse the result; None: it must not reuse it
    data             the session's data, if requested and newer than the version that the caller has
    revision         the revision of the log at which a reusable result is true
    """

    judgement: Judgement
    session: Session | None = None
    renewed: Token | None = None
    activity: Activity | None = None
    presented: Presented | None = None
    unmet: tuple[Unmet, ...] = ()
    csrf: Token | None = None
    cacheable_until: Instant | None = None
    data: VersionedData | None = None
    revision: Revision = NO_REVISION

    @property
    def verdict(self) -> Verdict:
        """Return the judgement's verdict."""
        return self.judgement.verdict


@immutable
class Limit:
    """A login would exceed the limit of concurrent sessions.

    max_sessions    the limit
    live            the subject's live sessions, newest first, if the subject may choose which to end
    ticket          authorizes the choice, until `ticket_expires`
    live_count      the number of live sessions; there may be more than `live` holds
    """

    max_sessions: int
    live: tuple[Session, ...] = ()
    ticket: Token | None = None
    ticket_expires: Instant | None = None
    live_count: int = 0


@immutable
class ChangeResult:
    """The result of a change.

    verdict     the verdict on the token; VALID if the change needs none
    session     the session after the change, if any
    revision    the revision of the log that includes the change
    token       the session's new token, if the change issued one
    csrf        the CSRF token that belongs to the new token
    evicted     sessions that were ended because of the limit of concurrent sessions
    limit       set if the limit of concurrent sessions prevented the change
    reaction    the policy's reaction to a reported suspicion
    presented   the verdict on the presented token, if a new session was opened instead of using it
    data        the session's data after the change, if requested
    at          when the token was issued; 0 if there is none
    """

    verdict: Verdict
    session: Session | None
    revision: Revision
    token: Token | None = None
    csrf: Token | None = None
    evicted: tuple[SessionId, ...] = ()
    limit: Limit | None = None
    reaction: Reaction | None = None
    presented: Verdict | None = None
    data: VersionedData | None = None
    at: Instant = Instant(0)


@immutable
class RevocationResult:
    """The result of a revocation.

    ended       the verdict and the session after the change
    revoked     whether this call ended the session
    anonymous   the anonymous session that was opened in its place, if requested
    """

    ended: ChangeResult
    revoked: bool
    anonymous: ChangeResult | None = None


@immutable
class BulkRevocationResult:
    """The result of a bulk revocation: how many sessions it ended, and the revision that includes the last of them."""

    count: int
    revision: Revision


@immutable
class TicketChoice:
    """The subject's choice of sessions to end, and the ticket from the refused login that authorizes it."""

    ticket: Token | None = None
    evict: tuple[SessionId, ...] = ()
    evict_oldest: bool = False


@immutable
class IssuedCompanion:
    """The result of issuing a companion token. `token` and `expires` are None unless the verdict is VALID."""

    verdict: Verdict
    token: Token | None = None
    expires: Instant | None = None


@immutable
class RequestId:
    """A caller's id of a call, which makes the call safe to repeat.

    key, parameters   digests of the id and of the call's other fields, as in `KeptAnswer`
    secret            the id itself; the kept answer is encrypted under it
    keep_for          how long to keep the answer, in milliseconds
    """

    key: bytes
    parameters: bytes
    secret: bytes = field(repr=False)
    keep_for: Millis


@immutable
class AnswerSpec(Generic[R]):
    """How to answer a change: `encode` returns the encoded message, `request` is the caller's request id, if any.

    `encode` must be pure, because it may be called more than once.
    """

    encode: Callable[[R], bytes]
    request: RequestId | None = None


@immutable
class AuthorityDescription:
    """The authority's identity, the position and horizon of its log, and its policies with their sources."""

    authority_id: bytes
    position: Position
    horizon: Revision
    policies: Mapping[str, Policy]
    origins: Mapping[str, Mapping[str, str]]
    fingerprint: str
    replicas_with_other_policies: Sequence[str] = ()
