"""What callers ask for and are answered, in domain values: the vocabulary between the authority and what carries it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sessiond.changes.idempotency import Kept
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
    "Answer",
    "Changed",
    "Companion",
    "Description",
    "Kept",
    "Limit",
    "Named",
    "Reply",
    "RequestId",
    "Revoked",
    "RevokedAll",
    "TicketChoice",
]

R = TypeVar("R")

Named = Token | SessionId
"""A session as a caller names it: by the secret that proves it, or by its public name."""


@dataclass(slots=True)  # not frozen: one is made for each validation, and freezing triples what that costs
class Answer:
    """The answer to a validation. Nobody changes one.

    session        None unless VALID or INSUFFICIENT
    renewed        the token that the client must have from now on, if not its own
    activity       the last activity, this one included, if it may be later than the session's own
    presented      what the token said, where the answer was a plain one
    unmet          what is missing, where INSUFFICIENT
    csrf           the session's CSRF token, if it was asked for
    cacheable_until  until when the answer may be reused by a cache that follows; None: not at all
    revision       the state that it is true at, if it may be reused
    data           the session's data, if it was asked for and is newer than what the caller has
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
        """The judgement's verdict."""
        return self.judgement.verdict


@immutable
class Limit:
    """The limit of concurrent sessions stood in the way; ticket and live sessions where the subject may choose."""

    max_sessions: int
    live: tuple[Session, ...] = ()
    ticket: Token | None = None
    ticket_expires: Instant | None = None
    live_count: int = 0


@immutable
class Changed:
    """The answer to a change: the verdict on the token, the session as it is now, its new token, the revision.

    presented   the verdict on the presented token if a fresh session was opened instead of using it; else None
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
class Revoked:
    """The answer to a revocation: the session as it is now, whether this ended it, and the fresh one in its place."""

    ended: Changed
    revoked: bool
    anonymous: Changed | None = None


@immutable
class RevokedAll:
    """The answer to a bulk revocation: how many sessions it ended, and the revision after the last."""

    count: int
    revision: Revision


@immutable
class TicketChoice:
    """The subject's choice of what to end, and the ticket that an earlier answer gave for it."""

    ticket: Token | None = None
    evict: tuple[SessionId, ...] = ()
    evict_oldest: bool = False


@immutable
class Companion:
    """The answer to the issue of a companion token."""

    verdict: Verdict
    token: Token | None = None
    expires: Instant | None = None


@immutable
class RequestId:
    """A caller's id of a call, which makes it safe to repeat.

    key, parameters   digests of the id and of the call's other fields, as in `KeptAnswer`
    secret            the id itself, under which the answer is sealed
    keep_for          for how long the answer is to be kept
    """

    key: bytes
    parameters: bytes
    secret: bytes = field(repr=False)
    keep_for: Millis


@immutable
class Reply(Generic[R]):
    """How a change is answered: what makes the bytes of its message, and the caller's id of it, if it has one.

    `encode` must be pure: it may be called more than once.
    """

    encode: Callable[[R], bytes]
    request: RequestId | None = None


@immutable
class Description:
    """Who the authority is, where its log stands, and by which policies it decides."""

    authority_id: bytes
    position: Position
    horizon: Revision
    policies: Mapping[str, Policy]
    origins: Mapping[str, Mapping[str, str]]
    fingerprint: str
