"""What callers ask for and are answered, in domain values: the vocabulary between the authority and what carries it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sessiond.crypto.tokens import Token
from sessiond.domain.judge import Judgement, Presented, Verdict
from sessiond.domain.policy import Policy
from sessiond.domain.requirements import Unmet
from sessiond.domain.session import Session, with_activity
from sessiond.domain.signals import Reaction
from sessiond.domain.values import Instant, Revision, SessionId

__all__ = ["Answer", "Changed", "Companion", "Description", "Limit", "Login", "Named", "Repeat", "Revoked"]

Named = Token | SessionId
"""A session as a caller names it: by the secret that proves it, or by its public name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a validation.

    session        None unless VALID or INSUFFICIENT
    renewed        the token that the client must have from now on, if not its own
    active_at      activity that may be later than the session's own; `idle_deadline` is what follows from it
    presented      what the token said, where the answer was a plain one
    unmet          what is missing, where INSUFFICIENT
    csrf           the session's CSRF token, where it was asked for
    """

    judgement: Judgement
    session: Session | None = None
    renewed: Token | None = None
    active_at: Instant | None = None
    idle_deadline: Instant | None = None
    presented: Presented | None = None
    unmet: tuple[Unmet, ...] = ()
    csrf: Token | None = None

    @property
    def current(self) -> Session | None:
        """The session with that activity."""
        if self.session is None or self.active_at is None or self.active_at <= self.session.last_active:
            return self.session
        return with_activity(self.session, self.active_at, self.idle_deadline)

    @property
    def verdict(self) -> Verdict:
        """The judgement's verdict."""
        return self.judgement.verdict


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of concurrent sessions stood in the way; ticket and live sessions where the subject may choose."""

    max_sessions: int
    live: tuple[Session, ...] = ()
    ticket: Token | None = None
    ticket_expires: Instant | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """The answer to a change: what the token was worth, the session as it is now, its new token, the revision."""

    verdict: Verdict
    session: Session | None
    revision: Revision
    token: Token | None = None
    csrf: Token | None = None
    evicted: tuple[SessionId, ...] = ()
    limit: Limit | None = None
    reaction: Reaction | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """The answer to a revocation: the session as it is now, whether this ended it, and the fresh one in its place."""

    ended: Changed
    revoked: bool
    anonymous: Changed | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """How a subject was authenticated, and what is wished for its session.

    `ticket` and `evict` carry out a choice that an earlier answer asked for.
    """

    subject: str
    level: int = 0
    methods: tuple[str, ...] = ()
    persistent: bool = False
    ticket: Token | None = None
    evict: tuple[SessionId, ...] = ()


@dataclass(frozen=True, slots=True)
class Companion:
    """The answer to the issue of a companion token."""

    verdict: Verdict
    token: Token | None = None
    expires: Instant | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """Makes a change safe to repeat: under which id, with which parameters, and how its answer is sealed."""

    key: bytes
    parameters: bytes
    seal: Callable[[object], bytes]


@dataclass(frozen=True, slots=True)
class Description:
    """Who the authority is, where its log stands, and by which policies it decides."""

    authority_id: bytes
    revision: Revision
    horizon: Revision
    policies: Mapping[str, Policy]
    origins: Mapping[str, Mapping[str, str]]
