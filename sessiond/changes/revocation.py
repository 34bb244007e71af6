"""Units that revoke sessions on request."""

from __future__ import annotations

from collections.abc import Sequence

from sessiond.changes.judging import OpenedSessionRef, Outcome, end_session, find, needs_of
from sessiond.changes.login import Create
from sessiond.domain.call import Call
from sessiond.domain.errors import SessionNotFound
from sessiond.domain.immutable import immutable
from sessiond.domain.lifecycle import expired_view
from sessiond.domain.session import Session
from sessiond.domain.values import Labels, SessionId
from sessiond.eventlog.work import Needs, Work

__all__ = ["Revocation", "Revoke", "RevokeMany"]


@immutable
class Revocation:
    """The outcome of one revocation: whether it ended the session, and the anonymous session opened instead, if any."""

    outcome: Outcome
    revoked: bool
    anonymous: Session | None


@immutable
class Revoke:
    """End one session.

    successor   opens an anonymous session in its place; None: do not
    owner       the subject that the session must belong to; None: any
    """

    call: Call
    named: OpenedSessionRef
    successor: Create | None = None
    owner: str | None = None

    def needs(self) -> Needs:
        """Return what to read: the session."""
        return needs_of(self.call, self.named)

    def apply(self, work: Work) -> Revocation:
        """End the session. A call by id also gets a session that had already ended. Raises `SessionNotFound`."""
        outcome = find(work, self.call, self.named, allow_suspicious=True)
        # A call with an invalid token gets only the verdict, and no information about the session.
        known = work.session(self.named) if isinstance(self.named, SessionId) else outcome.session
        if self.owner is not None and known is not None and known.subject != self.owner:
            raise SessionNotFound  # as if it did not exist, so that the error does not reveal its subject
        anonymous = None if self.successor is None else self.successor.apply(work).session
        if outcome.session is None:
            return Revocation(Outcome(outcome.judgement, known), revoked=False, anonymous=anonymous)
        ended = end_session(work, self.call, outcome.session, self.call.cause)
        return Revocation(Outcome(outcome.judgement, ended), revoked=True, anonymous=anonymous)


@immutable
class RevokeMany:
    """End those of the given sessions that are still live and still match the query that found them.

    by_subject   whether the query selected a subject
    labels       the labels that the query selected
    """

    call: Call
    found: Sequence[Session]
    by_subject: bool
    labels: Labels = ()

    def needs(self) -> Needs:
        """Return what to read: the sessions."""
        return Needs(sessions=[session.id for session in self.found])

    def apply(self, work: Work) -> int:
        """End them and return how many this ended."""
        ended = 0
        for found in self.found:
            session = work.session(found.id)
            if session is None or (self.by_subject and session.subject != found.subject):
                continue
            if not set(self.labels) <= set(session.labels):
                continue  # a login has changed its labels in the meantime
            if expired_view(session, work.now).ending is not None:
                continue
            end_session(work, self.call, session, self.call.cause)
            ended += 1
        return ended
