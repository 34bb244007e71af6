"""Suspicions: what is suspicious about the use of a session, and which suspicions were reported recently."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sessiond.detection.client_facts import FactReader
from sessiond.detection.uses import MAX_CLIENTS, RecentLogins, SupersededUses, UseWatch
from sessiond.domain.client_facts import ClientFacts, compare, differ
from sessiond.domain.event import Event, EventType
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import NOBODY, ClientContext, Instant, Millis, SessionId
from sessiond.system.lru import Lru

__all__ = ["ReportedSignals", "Suspicions"]

_RESETTING_EVENTS = (EventType.SESSION_AUTHENTICATED, EventType.SESSION_REVOKED, EventType.SESSION_EXPIRED)
_SUPERSEDED_TIMES = 3
_REFUSING = (Reaction.STEP_UP, Reaction.REVOKE_SESSION, Reaction.REVOKE_SUBJECT)


class ReportedSignals:
    """Which types of signals were reported recently for a session. Within the window they are not reported again.

    The evidence does not matter, because the holder of a token can invent any number of user agents. Only committed
    events change this memory, so a signal never counts as reported before its event is durable.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._reported: Lru[tuple[SessionId, SignalType], Instant] = Lru(capacity)

    def was_reported(self, session_id: SessionId, kind: SignalType, window: Millis, now: Instant) -> bool:
        """Return whether a signal of this type was reported for the session within the window."""
        at = self._reported.peek((session_id, kind))
        return at is not None and 0 <= now - at < window

    def apply(self, events: Sequence[Event]) -> None:
        """Apply committed events. Authentication and the end of a session reset its memory."""
        for event in events:
            if event.session_id is None:
                continue
            if event.type is EventType.HIJACK_SUSPECTED:
                for signal in event.signals:
                    self._reported.put((event.session_id, signal.type), event.at)
            elif event.type in _RESETTING_EVENTS and len(self._reported):
                for kind in SignalType:
                    self._reported.pop((event.session_id, kind))


class Suspicions:
    """Detects suspicious uses of sessions. This is the bounded memory of one process; only events are durable."""

    def __init__(self, reader: FactReader, uses: UseWatch, superseded: SupersededUses) -> None:
        self._reader = reader
        self._uses = uses
        self._superseded = superseded
        self._logins = RecentLogins()

    def can_skip_examine(self, session: Session, client: ClientContext) -> bool:
        """Return whether `examine` has nothing to check for this client, so that a validation can skip it."""
        home = session.client
        silent = client == NOBODY and not _is_bound(home)
        return (client == home or silent or home == NOBODY) and not self._uses.knows(session.id)

    def must_examine(self, session: Session) -> bool:
        """Return whether the next use of the session must be examined, whichever client it comes from."""
        return self._superseded.knows(session.id)

    def examine(self, session: Session, client: ClientContext, policy: Policy, now: Instant) -> tuple[Signal, ...]:
        """Return the signals of this client using this session.

        If nothing was seen of the client there are none, unless the session is bound to a certificate or device, which
        is then missing.
        """
        if session.client == NOBODY or (client == NOBODY and not _is_bound(session.client)):
            return ()
        if client == session.client:
            if not self._uses.knows(session.id):
                return ()  # the common case
            seen = expected = self._facts(client, policy)
        else:
            expected, seen = self._facts(session.client, policy), self._facts(client, policy)
        signals = compare(expected, seen)
        if policy.reaction_to(signals) in _REFUSING:
            return signals  # the client is denied, so it does not alternate with the honest one
        turns = self._uses.record(session.id, expected, seen, policy.concurrent_use_window, now)
        return signals if turns is None else (*signals, turns)

    def is_own_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """Return whether this is, as far as can be determined, the client that used the session last.

        The user agent and the network must be the same, and the certificate and device if the session is bound to one.
        A client proven by certificate or device may come from any network and without a user agent. Browsers alternate
        between IPv4 and IPv6; between the two, the same operator counts as the same network. A client of which nothing
        is known never qualifies.

        The session's home counts only if it was also the last client: if another client uses the session now, the
        client that presents an old token may be the rightful owner.
        """
        home, last = session.client, session.last_client
        if last != NOBODY:  # only IP address and user agent of the last activity are recorded
            last = replace(last, certificate_thumbprint=home.certificate_thumbprint, device_id=home.device_id)
        return self._is_same_client(session, home if last == NOBODY else last, client, policy)

    def is_denied_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """Return whether the policy denies this client, because it differs from the session's home.

        Unlike `examine` this records nothing.
        """
        home = session.client
        if home in (NOBODY, client) or (client == NOBODY and not _is_bound(home)):
            return False
        return policy.reaction_to(compare(self._facts(home, policy), self._facts(client, policy))) in _REFUSING

    def is_new_old_token(self, session: Session, client: ClientContext, others: Iterable[ClientContext] = ()) -> bool:
        """Return whether to record that this client presented a token from before the last roll.

        It is recorded once; if the roll was a login, once for each client, and at most five times. `others` are clients
        that presented one in a transaction that is not committed yet.
        """
        known = self._logins.clients(session.id)
        if known is None:
            return session.old_token is None
        known = (*known, *others)
        return client not in known and NOBODY not in known and len(known) <= MAX_CLIENTS

    def presented_old_token(
        self, session: Session, client: ClientContext, policy: Policy, others: Iterable[ClientContext] = ()
    ) -> bool:
        """Return whether only this client presented a token from before the last login, as far as is known.

        Clients are compared as in `is_own_client`. `others` are clients that presented one in a transaction that is not
        committed yet. False if the last roll was not a login, because any holder of the token can cause such a roll.
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
        return proves or bool(first.agent and second.agent and _is_same_network(first, second))

    def note_superseded(self, session: Session, now: Instant) -> None:
        """Record a use of a token that a roll has just replaced, while the new token is already in use."""
        self._superseded.note(session.id, session.generation, now)

    def superseded_uses(self, session: Session) -> tuple[Signal, ...]:
        """Return a signal if a replaced token was used repeatedly beside the new one: two clients hold one."""
        times = self._superseded.count(session.id, session.generation)
        if times < _SUPERSEDED_TIMES:
            return ()
        seen = f"the token it replaced, {times} times after that"
        return (Signal(SignalType.CONCURRENT_USE, f"generation {session.generation}", seen),)

    def apply(self, events: Sequence[Event]) -> None:
        """Apply committed events. Authentication and the end of a session reset its memory."""
        for event in events:
            self._logins.apply(event)
            if event.type in _RESETTING_EVENTS and event.session_id is not None:
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
