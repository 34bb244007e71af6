"""The query behind every list of sessions and every bulk revocation."""

from __future__ import annotations

from dataclasses import replace

from sessiond.domain.immutable import immutable
from sessiond.domain.session import SessionState
from sessiond.domain.values import Instant, Labels, Millis, SessionId

__all__ = ["SessionQuery"]


_EVERY_ADDRESS = ("0" * 32, "f" * 32)


@immutable
class SessionQuery:
    """Selects sessions of one application, newest first. None is no condition.

    state          ACTIVE: not ended and not past a deadline at `now`; EXPIRED: ended by a deadline, or past one;
                   REVOKED: ended in any other way
    ip_range       first and last address of a network, as 32 hex digits each (IPv4 mapped into IPv6)
    created_from, created_until
                   bounds on the time of creation
    labels         only sessions with all of these labels
    before         only sessions with a smaller id: the page continues after this session
    down_to        only sessions with this id or a greater one: the end of a bounded scan
    activity_lag   how far recorded activity may lag behind real activity, in milliseconds: a session counts as expired
                   only after its deadline plus this lag
    limit          the maximum number of sessions
    """

    application: str
    now: Instant
    state: SessionState = SessionState.ACTIVE
    subject: str | None = None
    ip_range: tuple[str, str] | None = None
    created_from: Instant | None = None
    created_until: Instant | None = None
    labels: Labels = ()
    before: SessionId | None = None
    down_to: SessionId | None = None
    activity_lag: Millis = Millis(0)
    limit: int = 100

    @property
    def restricts(self) -> bool:
        """Return whether the conditions can exclude any live session, judging by the conditions alone."""
        return (
            self.subject is not None
            or bool(self.labels)
            or self.ip_range not in (None, _EVERY_ADDRESS)
            or (self.created_from is not None and self.created_from > 0)
            or (self.created_until is not None and self.created_until <= self.now)
        )

    @property
    def is_sparse(self) -> bool:
        """Return whether no index finds the matching sessions, so that a page may need a long scan."""
        if self.subject is not None:
            return False
        conditions = (self.ip_range, self.created_from, self.created_until, self.labels or None)
        return self.state is not SessionState.ACTIVE or any(condition is not None for condition in conditions)

    def page(self, before: SessionId | None, limit: int) -> SessionQuery:
        """Return the same query for another page."""
        return replace(self, before=before, limit=limit)
