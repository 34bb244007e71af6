"""Which sessions: the question behind every list and every bulk revocation."""

from __future__ import annotations

from dataclasses import replace

from sessiond.domain.immutable import immutable
from sessiond.domain.session import SessionState
from sessiond.domain.values import Instant, Labels, Millis, SessionId

__all__ = ["SessionQuery"]


_EVERY_ADDRESS = ("0" * 32, "f" * 32)


@immutable
class SessionQuery:
    """Which sessions of one application, newest first.

    state          ACTIVE: not ended and not past a deadline at `now`; EXPIRED: ended by a deadline, or past one;
                   REVOKED: ended otherwise
    ip_range       first and last address of a network, as 32 hex digits each (IPv4 mapped into IPv6)
    labels         with all of these labels
    before         only sessions whose id is less: where the page before ended
    down_to        only sessions whose id is not less: where a bounded walk ends
    activity_lag   how far recorded activity may lag: a session is left out as expired only past deadline and lag
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
        """Whether the conditions leave any live session out, as far as can be seen without looking at sessions."""
        return (
            self.subject is not None
            or bool(self.labels)
            or self.ip_range not in (None, _EVERY_ADDRESS)
            or (self.created_from is not None and self.created_from > 0)
            or (self.created_until is not None and self.created_until <= self.now)
        )

    @property
    def is_sparse(self) -> bool:
        """Whether sessions that match may be far apart among all of the application's: there is no index for them."""
        if self.subject is not None:
            return False
        conditions = (self.ip_range, self.created_from, self.created_until, self.labels or None)
        return self.state is not SessionState.ACTIVE or any(condition is not None for condition in conditions)

    def page(self, before: SessionId | None, limit: int) -> SessionQuery:
        """The same question for another page."""
        return replace(self, before=before, limit=limit)
