"""Watching how a session is used: the client it is seen with against the client it was given to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import NamedTuple

from sessiond.domain.signals import Signal, SignalType, token_replay
from sessiond.domain.values import Instant, Millis, SessionId

__all__ = ["ClientFacts", "MissedRolls", "SuspicionFold", "UseWatch", "compare"]


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What a client context means, in the grain that is compared. An empty fact is never compared.

    network   the prefix of the address, as wide as the policy says
    operator  the network's operator (autonomous system), if a database tells
    country   the address's country, if a database tells
    agent     family and platform of the user agent: versions come and go with updates
    """

    network: str = ""
    operator: str = ""
    country: str = ""
    agent: str = ""
    certificate: str = ""
    device: str = ""


_COMPARED = (
    ("agent", SignalType.USER_AGENT_CHANGE),
    ("network", SignalType.IP_CHANGE),
    ("operator", SignalType.NETWORK_CHANGE),
    ("country", SignalType.COUNTRY_CHANGE),
    ("certificate", SignalType.CERTIFICATE_MISMATCH),
    ("device", SignalType.DEVICE_MISMATCH),
)
_BOUND = ("certificate", "device")
_OF_THE_CLIENT = ("agent", "certificate", "device")
_FACTS = tuple(fact for fact, _ in _COMPARED)


def compare(expected: ClientFacts, seen: ClientFacts) -> tuple[Signal, ...]:
    """A signal for each fact that is known on both sides and differs.

    A certificate or device that the session was bound to and that is now missing differs too: leaving it out must not
    be a way around the binding. An IPv4 and an IPv6 network say nothing about each other: browsers use both by turns
    (RFC 8305).
    """
    signals = []
    for fact, kind in _COMPARED:
        known, now = getattr(expected, fact), getattr(seen, fact)
        if _clash(fact, known, now) or (known and not now and fact in _BOUND):
            signals.append(Signal(kind, known, now or "none"))
    return tuple(signals)


_TURNS = 3
_TURNS_OF_NETWORK = 8
_LONGER = 10


class UseWatch:
    """Which clients use a session by turns.

    Holds only sessions that were seen with more than one client, `capacity` of them at most.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._uses: OrderedDict[SessionId, _Use] = OrderedDict()

    def knows(self, session_id: SessionId) -> bool:
        """Whether the session was seen with more than one client."""
        return session_id in self._uses

    def see(
        self, session_id: SessionId, home: ClientFacts, seen: ClientFacts, window: Millis, now: Instant
    ) -> Signal | None:
        """Take in a use; a signal where two clients take turns.

        Three turns within `window` between clients of different agents, certificates or devices are two clients. By
        network alone eight are needed within ten windows: a phone on the doorstep changes between two networks three
        or four times a minute.
        """
        use = self._uses.get(session_id)
        if use is None:
            if not _differ(home, seen):
                return None
            use = self._uses[session_id] = _Use(home)
            while len(self._uses) > self._capacity:
                self._uses.popitem(last=False)
        self._uses.move_to_end(session_id)
        turns = [turn for turn in use.turns if 0 <= now - turn.at < _LONGER * window]
        if not _differ(use.latest, seen):
            use.latest = _together(use.latest, seen)
            if not turns and not _differ(home, seen):
                self.forget(session_id)  # back for good
            return None
        before, use.latest = use.latest, seen
        use.turns = turns = [*turns, _Turn(now, _differ(before, seen, _OF_THE_CLIENT))]
        if len(turns) < _TURNS_OF_NETWORK and sum(t.of_client and now - t.at < window for t in turns) < _TURNS:
            return None
        use.turns = []
        return Signal(SignalType.CONCURRENT_USE, _name(before), _name(seen))

    def forget(self, session_id: SessionId) -> None:
        """Begin anew: the session was authenticated again, or has ended."""
        self._uses.pop(session_id, None)


class _Turn(NamedTuple):
    at: Instant
    of_client: bool


class _Use:
    __slots__ = ("latest", "turns")

    def __init__(self, latest: ClientFacts) -> None:
        self.latest = latest
        self.turns: list[_Turn] = []


def _differ(one: ClientFacts, other: ClientFacts, facts: Iterable[str] = _FACTS) -> bool:
    # One server may pass on less of the same client than another: what is not known is no other client.
    return any(_clash(fact, getattr(one, fact), getattr(other, fact)) for fact in facts)


def _clash(fact: str, one: str, other: str) -> bool:
    if not one or not other or one == other:
        return False
    return fact != "network" or (":" in one) == (":" in other)


def _together(one: ClientFacts, other: ClientFacts) -> ClientFacts:
    return ClientFacts(*(a or b for a, b in zip(astuple(one), astuple(other), strict=True)))


def _name(facts: ClientFacts) -> str:
    return ", ".join(part for part in (facts.agent, facts.network) if part) or "a client without facts"


class SuspicionFold:
    """Which suspicions were told lately: a session's next one of the same kind within the window is folded into it.

    Folded whatever the evidence: who holds a token can make up any number of user agents.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._told: OrderedDict[tuple[SessionId, SignalType], Instant] = OrderedDict()

    def news(
        self, session_id: SessionId, signals: Iterable[Signal], window: Millis, now: Instant
    ) -> tuple[Signal, ...]:
        """Those of the signals that were not told within the window; they count as told from now on."""
        fresh = []
        for signal in signals:
            key = (session_id, signal.type)
            told = self._told.get(key)
            if told is not None and 0 <= now - told < window:
                continue
            self._told[key] = now
            self._told.move_to_end(key)
            fresh.append(signal)
        while len(self._told) > self._capacity:
            self._told.popitem(last=False)
        return tuple(fresh)

    def forget(self, session_id: SessionId) -> None:
        """Begin anew: the session was authenticated again, or has ended."""
        for kind in SignalType:
            self._told.pop((session_id, kind), None)


class MissedRolls:
    """Of which sessions a token from before the last roll came back, whose holder may have missed the roll's answer.

    That alone is no suspicion. With a use of the new token it is one: two hold the session, whoever of them rolled.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._missed: OrderedDict[SessionId, int] = OrderedDict()

    def note(self, session_id: SessionId, generation: int) -> None:
        """One came back while this generation was the session's own."""
        self._missed[session_id] = generation
        self._missed.move_to_end(session_id)
        while len(self._missed) > self._capacity:
            self._missed.popitem(last=False)

    def signals(self, session_id: SessionId, generation: int) -> tuple[Signal, ...]:
        """What a use of the session's own token comes to."""
        missed = self._missed.get(session_id)
        return () if missed is None else (token_replay(generation, missed - 1, other_secret=True),)

    def forget(self, session_id: SessionId) -> None:
        """Begin anew: the session was authenticated again, or has ended."""
        self._missed.pop(session_id, None)
