"""Tracking which clients use a session, for the signal `concurrent_use`."""

from __future__ import annotations

from typing import NamedTuple

from sessiond.domain.client_facts import CLIENT_IDENTITY, ClientFacts, differ, merged
from sessiond.domain.event import Event, EventType
from sessiond.domain.signals import Signal, SignalType
from sessiond.domain.values import NOBODY, CauseKind, ClientContext, Instant, Millis, SessionId
from sessiond.system.lru import Lru

__all__ = ["MAX_CLIENTS", "RecentLogins", "SupersededUses", "UseWatch"]

_CLIENT_TURNS = 3
_NETWORK_TURNS = 8
_NETWORK_WINDOWS = 10


class UseWatch:
    """Tracks sessions that several clients use alternately.

    Holds only sessions that were used by more than one client, at most `capacity` of them.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._uses: Lru[SessionId, _Use] = Lru(capacity)

    def knows(self, session_id: SessionId) -> bool:
        """Return whether the session was used by more than one client."""
        return session_id in self._uses

    def record(
        self, session_id: SessionId, home: ClientFacts, seen: ClientFacts, window: Millis, now: Instant
    ) -> Signal | None:
        """Record a use and return a signal if two clients use the session alternately.

        A turn is a change from one client to another. Three turns within `window` between different agents,
        certificates or devices raise the signal. Turns in which only the network differs need eight within ten windows:
        a phone at the edge of a Wi-Fi network changes between two networks three or four times a minute.
        """
        use = self._uses.get(session_id)
        if use is None:
            if not differ(home, seen):
                return None
            use = _Use(home)
            self._uses.put(session_id, use)
        turns = [turn for turn in use.turns if 0 <= now - turn.at < _NETWORK_WINDOWS * window]
        if not differ(use.latest, seen):
            use.latest = merged(use.latest, seen)
            if not turns and not differ(home, seen):
                self.forget(session_id)  # only the home client uses the session again
            return None
        before, use.latest = use.latest, seen
        use.turns = turns = [*turns, _Turn(now, differ(before, seen, CLIENT_IDENTITY))]
        if len(turns) < _NETWORK_TURNS and sum(t.of_client and now - t.at < window for t in turns) < _CLIENT_TURNS:
            return None
        use.turns = []
        return Signal(SignalType.CONCURRENT_USE, _name(before), _name(seen))

    def forget(self, session_id: SessionId) -> None:
        """Forget the session: it was authenticated again, or it has ended."""
        self._uses.pop(session_id)


class _Turn(NamedTuple):
    at: Instant
    of_client: bool


class _Use:
    __slots__ = ("latest", "turns")

    def __init__(self, latest: ClientFacts) -> None:
        self.latest = latest
        self.turns: list[_Turn] = []


def _name(facts: ClientFacts) -> str:
    return ", ".join(part for part in (facts.agent, facts.network) if part) or "unknown client"


_BURST = 1_000  # milliseconds: requests that were sent together arrive together


class SupersededUses:
    """Counts the uses of tokens that a roll has replaced, while the new token is already in use.

    Requests that were in flight at the roll also cause such uses, in one burst. So uses within a second of a counted
    one do not count.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._uses: Lru[SessionId, tuple[int, int, Instant]] = Lru(capacity)

    def knows(self, session_id: SessionId) -> bool:
        """Return whether the session had such a use."""
        return session_id in self._uses

    def note(self, session_id: SessionId, generation: int, now: Instant) -> None:
        """Record one such use of the session at this generation."""
        known = self._uses.get(session_id)
        if known is None or known[0] != generation:
            self._uses.put(session_id, (generation, 1, now))
        elif not 0 <= now - known[2] < _BURST:
            self._uses.put(session_id, (generation, known[1] + 1, now))

    def count(self, session_id: SessionId, generation: int) -> int:
        """Return the number of counted uses at this generation."""
        known = self._uses.peek(session_id)
        return 0 if known is None or known[0] != generation else known[1]

    def forget(self, session_id: SessionId) -> None:
        """Forget the session: it was authenticated again, or it has ended."""
        self._uses.pop(session_id)


MAX_CLIENTS = 4
"""The number of clients that are remembered for a login; one more is recorded, and then all count as unknown."""


class RecentLogins:
    """The sessions whose last roll was a login, with the clients that have presented a pre-roll token since then.

    Only committed events change this memory. A login that was evicted, or that is too far back in the log
    after a restart, is unknown here, and its session is treated as if the last roll was not a login.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._clients: Lru[SessionId, tuple[ClientContext, ...]] = Lru(capacity)
        self._authenticated: tuple[SessionId, int] | None = None  # the last SESSION_AUTHENTICATED, and its revision

    def apply(self, event: Event) -> None:
        """Apply a committed event."""
        session_id = event.session_id
        if session_id is None:
            return
        match event.type:
            case EventType.SESSION_AUTHENTICATED:
                self._authenticated = session_id, event.revision
                self._clients.put(session_id, ())
            case EventType.SESSION_ROLLED:
                if self._authenticated != (session_id, event.revision - 1):  # a login's roll is the next event after it
                    self._clients.pop(session_id)
            case EventType.SESSION_REFRESHED if event.cause.kind is CauseKind.REQUEST:
                # A repeated login: from now on an old token is news again, whoever presents it.
                if self._clients.peek(session_id) is not None:
                    self._clients.put(session_id, ())
            case EventType.OLD_TOKEN_PRESENTED:
                self._note(session_id, event.client)
            case EventType.SESSION_REVOKED | EventType.SESSION_EXPIRED:
                self._clients.pop(session_id)

    def clients(self, session_id: SessionId) -> tuple[ClientContext, ...] | None:
        """Return the clients, or None if the last roll of the session was not a login, as far as is known.

        `NOBODY` among them means that not all clients are known: there were more than four, or one was unknown.
        """
        return self._clients.peek(session_id)

    def _note(self, session_id: SessionId, client: ClientContext) -> None:
        known = self._clients.get(session_id)
        if known is not None and client not in known and NOBODY not in known:
            self._clients.put(session_id, (*known, client) if len(known) < MAX_CLIENTS else (NOBODY,))
