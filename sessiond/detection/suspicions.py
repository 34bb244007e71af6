"""Suspicions: what is suspicious about the use of a session, and which suspicions were reported lately."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sessiond.detection.client_facts import FactReader
from sessiond.detection.uses import RecentLogins, SupersededUses, UseWatch
from sessiond.domain.client_facts import ClientFacts, compare, differ
from sessiond.domain.event import Event, EventType
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import NOBODY, ClientContext, Instant, Millis, SessionId
from sessiond.system.lru import Lru

__all__ = ["Reported", "Suspicions"]

_FORGETS = (EventType.SESSION_AUTHENTICATED, EventType.SESSION_REVOKED, EventType.SESSION_EXPIRED)
_SUPERSEDED_TIMES = 3
_REFUSING = (Reaction.STEP_UP, Reaction.REVOKE_SESSION, Reaction.REVOKE_SUBJECT)


class Reported:
    """Which kinds of suspicion were reported lately of a session: within the window a repeat is not reported again.

    Whatever the evidence: anyone who holds a token can make up any number of user agents. Changed by committed events
    alone, so nothing is taken for reported that was not.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._reported: Lru[tuple[SessionId, SignalType], Instant] = Lru(capacity)

    def was_reported(self, session_id: SessionId, kind: SignalType, window: Millis, now: Instant) -> bool:
        """Whether a suspicion of this kind was reported of the session within the window."""
        at = self._reported.peek((session_id, kind))
        return at is not None and 0 <= now - at < window

    def apply(self, events: Sequence[Event]) -> None:
        """Take in what was committed. A session that was authenticated again starts afresh."""
        for event in events:
            if event.session_id is None:
                continue
            if event.type is EventType.HIJACK_SUSPECTED:
                for signal in event.signals:
                    self._reported.put((event.session_id, signal.type), event.at)
            elif event.type in _FORGETS and len(self._reported):
                for kind in SignalType:
                    self._reported.pop((event.session_id, kind))


class Suspicions:
    """What is suspicious about the uses of sessions. Bounded memory of one process; events are what is durable."""

    def __init__(self, reader: FactReader, uses: UseWatch, superseded: SupersededUses) -> None:
        self._reader = reader
        self._uses = uses
        self._superseded = superseded
        self._logins = RecentLogins()

    def is_at_home(self, session: Session, client: ClientContext) -> bool:
        """Whether `examine` would find nothing to look at."""
        home = session.client
        silent = client == NOBODY and not _is_bound(home)
        return (client == home or silent or home == NOBODY) and not self._uses.knows(session.id)

    def is_watched(self, session: Session) -> bool:
        """Whether something was noticed of the session that its next use must be looked at for, whoever comes."""
        return self._superseded.knows(session.id)

    def examine(self, session: Session, client: ClientContext, policy: Policy, now: Instant) -> tuple[Signal, ...]:
        """What is suspicious about this client using this session.

        Nothing can be if nothing was seen, unless the session is bound to something that is then missing.
        """
        if session.client == NOBODY or (client == NOBODY and not _is_bound(session.client)):
            return ()
        if client == session.client:
            if not self._uses.knows(session.id):
                return ()  # nearly always
            seen = expected = self._facts(client, policy)
        else:
            expected, seen = self._facts(session.client, policy), self._facts(client, policy)
        signals = compare(expected, seen)
        if policy.reaction_to(signals) in _REFUSING:
            return signals  # a refused client does not take turns with the honest one
        turns = self._uses.see(session.id, expected, seen, policy.concurrent_use_window, now)
        return signals if turns is None else (*signals, turns)

    def is_own_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """Whether this is, as far as can be told, the client that uses the session: the one that used it last.

        The same kind of user agent, certificate and device; and the same network, unless certificate or device prove
        it: then the user agent may be missing too. Browsers use IPv4 and IPv6 by turns: between the two families, the
        same operator counts as the same network. A client without any of this could be anybody. The client that the
        session was opened by does not count for itself: where another one uses the session now, whoever comes back with
        an old token may be its owner.
        """
        home, last = session.client, session.last_client
        if last != NOBODY:  # of the last activity, only address and user agent are recorded
            last = replace(last, certificate_thumbprint=home.certificate_thumbprint, device_id=home.device_id)
        return self._is_same_client(session, home if last == NOBODY else last, client, policy)

    def is_new_old_token(self, session: Session, client: ClientContext, others: Iterable[ClientContext] = ()) -> bool:
        """Return whether it must be recorded that this client presented a token from before the last roll.

        Once; after a login once for each client. `others` did so in a transaction that is not committed yet.
        """
        if session.old_token is None:
            return True
        known = self._logins.clients(session.id)
        if known is None:
            return False
        known = (*known, *others)
        return client not in known and NOBODY not in known

    def presented_old_token(
        self, session: Session, client: ClientContext, policy: Policy, others: Iterable[ClientContext] = ()
    ) -> bool:
        """Return whether this client, and as far as is known no other, presented a token from before the last login.

        By the rule of `is_own_client`. `others` presented it in a transaction that is not committed yet. False if the
        last roll was no login: anyone who has the token could have asked for it.
        """
        known = self._logins.clients(session.id)
        if known is None:
            return False
        clients = (*known, *others)
        return bool(clients) and all(self._is_same_client(session, one, client, policy) for one in clients)

    def _is_same_client(self, session: Session, one: ClientContext, other: ClientContext, policy: Policy) -> bool:
        if NOBODY in (one, other, session.client):
            return False
        first, second, bound = (self._facts(client, policy) for client in (one, other, session.client))
        proves = _is_bound(session.client)
        if proves and any(
            (bound.certificate, bound.device) != (facts.certificate, facts.device) for facts in (first, second)
        ):
            return False
        if differ(first, second, ("agent",)):
            return False
        return proves or bool(second.agent and _is_same_network(first, second))

    def note_superseded(self, session: Session, now: Instant) -> None:
        """Take in that a token was used that a roll replaced moments ago, although the new one is in use already."""
        self._superseded.note(session.id, session.generation, now)

    def superseded_uses(self, session: Session) -> tuple[Signal, ...]:
        """The signal that the replaced token came again and again beside the new one: two hold the session."""
        times = self._superseded.times(session.id, session.generation)
        if times < _SUPERSEDED_TIMES:
            return ()
        seen = f"the token it replaced, {times} times after that"
        return (Signal(SignalType.CONCURRENT_USE, f"generation {session.generation}", seen),)

    def apply(self, events: Sequence[Event]) -> None:
        """Take in what was committed: a session that was authenticated again starts afresh, others have ended."""
        for event in events:
            self._logins.apply(event)
            if event.type in _FORGETS and event.session_id is not None:
                self._uses.forget(event.session_id)
                self._superseded.forget(event.session_id)

    def _facts(self, client: ClientContext, policy: Policy) -> ClientFacts:
        facts = self._reader.facts(client, policy.ipv4_prefix, policy.ipv6_prefix)
        return self._reader.related(facts, policy.related_agents) if policy.related_agents else facts


def _is_bound(home: ClientContext) -> bool:
    return bool(home.certificate_thumbprint or home.device_id)


def _is_same_network(one: ClientFacts, other: ClientFacts) -> bool:
    if not one.network or not other.network:
        return False
    if (":" in one.network) == (":" in other.network):
        return one.network == other.network
    return bool(one.operator) and one.operator == other.operator
