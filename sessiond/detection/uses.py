"""Which clients use a session: the memory behind the signal `concurrent_use`."""

from __future__ import annotations

from typing import NamedTuple

from sessiond.domain.client_facts import CLIENT_IDENTITY, ClientFacts, differ, merged
from sessiond.domain.event import Event, EventType
from sessiond.domain.signals import Signal, SignalType
from sessiond.domain.values import NOBODY, ClientContext, Instant, Millis, SessionId
from sessiond.system.lru import Lru

__all__ = ["RecentLogins", "SupersededUses", "UseWatch"]

_TURNS = 3
_TURNS_OF_NETWORK = 8
_LONGER = 10


class UseWatch:
    """Which clients take turns in using a session.

    Holds only sessions that were seen with more than one client, `capacity` of them at most.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._uses: Lru[SessionId, _Use] = Lru(capacity)

    def knows(self, session_id: SessionId) -> bool:
        """Whether the session was seen with more than one client."""
        return session_id in self._uses

    def see(
        self, session_id: SessionId, home: ClientFacts, seen: ClientFacts, window: Millis, now: Instant
    ) -> Signal | None:
        """Take in a use; a signal if two clients take turns.

        Three turns within `window` between clients of different agents, certificates or devices are two clients. By
        network alone eight are needed within ten windows: a phone on the doorstep changes between two networks three
        or four times a minute.
        """
        use = self._uses.get(session_id)
        if use is None:
            if not differ(home, seen):
                return None
            use = _Use(home)
            self._uses.put(session_id, use)
        turns = [turn for turn in use.turns if 0 <= now - turn.at < _LONGER * window]
        if not differ(use.latest, seen):
            use.latest = merged(use.latest, seen)
            if not turns and not differ(home, seen):
                self.forget(session_id)  # back for good
            return None
        before, use.latest = use.latest, seen
        use.turns = turns = [*turns, _Turn(now, differ(before, seen, CLIENT_IDENTITY))]
        if len(turns) < _TURNS_OF_NETWORK and sum(t.of_client and now - t.at < window for t in turns) < _TURNS:
            return None
        use.turns = []
        return Signal(SignalType.CONCURRENT_USE, _name(before), _name(seen))

    def forget(self, session_id: SessionId) -> None:
        """Begin anew: the session was authenticated again, or has ended."""
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
    return ", ".join(part for part in (facts.agent, facts.network) if part) or "a client without facts"


_APART = 1_000  # milliseconds: requests that were under way together arrive together


class SupersededUses:
    """How often a token came that a roll had replaced, while the new one was in use already.

    Requests under way at the roll do that too, in one burst: what comes within a second counts once.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._uses: Lru[SessionId, tuple[int, int, Instant]] = Lru(capacity)

    def knows(self, session_id: SessionId) -> bool:
        """Whether that happened to the session."""
        return session_id in self._uses

    def note(self, session_id: SessionId, generation: int, now: Instant) -> None:
        """Take in one such use of a session at that generation."""
        known = self._uses.get(session_id)
        if known is None or known[0] != generation:
            self._uses.put(session_id, (generation, 1, now))
        elif not 0 <= now - known[2] < _APART:
            self._uses.put(session_id, (generation, known[1] + 1, now))

    def times(self, session_id: SessionId, generation: int) -> int:
        """How often, at that generation."""
        known = self._uses.peek(session_id)
        return 0 if known is None or known[0] != generation else known[1]

    def forget(self, session_id: SessionId) -> None:
        """Start afresh: the session was authenticated again, or has ended."""
        self._uses.pop(session_id)


_MOST_CLIENTS = 4


class RecentLogins:
    """Sessions whose last roll was a login, and which clients have presented a token from before it since then.

    Changed by committed events alone. What is forgotten, or happened before a restart, counts as no login.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._clients: Lru[SessionId, tuple[ClientContext, ...]] = Lru(capacity)
        self._authenticated: tuple[SessionId, int] | None = None  # the last SESSION_AUTHENTICATED, and its revision

    def apply(self, event: Event) -> None:
        """Take in an event."""
        session_id = event.session_id
        if session_id is None:
            return
        match event.type:
            case EventType.SESSION_AUTHENTICATED:
                self._authenticated = session_id, event.revision
                self._clients.put(session_id, ())
            case EventType.SESSION_ROLLED:
                if self._authenticated != (session_id, event.revision - 1):  # a login's roll comes right after it
                    self._clients.pop(session_id)
            case EventType.OLD_TOKEN_PRESENTED:
                self._note(session_id, event.client)
            case EventType.SESSION_REVOKED | EventType.SESSION_EXPIRED:
                self._clients.pop(session_id)

    def clients(self, session_id: SessionId) -> tuple[ClientContext, ...] | None:
        """Return the clients; None if the last roll was no login, as far as is known.

        `NOBODY` among them stands for clients that are unknown: there were more than four different ones.
        """
        return self._clients.peek(session_id)

    def _note(self, session_id: SessionId, client: ClientContext) -> None:
        known = self._clients.get(session_id)
        if known is not None and client not in known and NOBODY not in known:
            self._clients.put(session_id, (*known, client) if len(known) < _MOST_CLIENTS else (NOBODY,))
