"""The tally: what happened in the simulated time, what the table expects, and what must not happen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address

from sessiond.domain.event import Event, EventType
from sessiond.domain.policy import Policy
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import CauseKind
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.simulation.expected import ELSEWHERE, ENDED, EXPECTED, Life, allowed

__all__ = ["LOGOUT", "Report", "Tally", "alarms_in", "report_of"]

LOGOUT = "logout"
OTHER_LOGIN = "another subject logged in"
"""The reason that the authority gives if a user logs in where another one was logged in, who is logged out by that."""
_NEVER_VERDICTS = ("REPLAYED", "MALFORMED", "FORGED", "LOCKED")
_NEVER_EVENTS = (EventType.GUESSING_SUSPECTED, EventType.SOURCE_LOCKED, EventType.SOURCE_UNLOCKED)
# Ordinary events that a policy may want to report: clients change networks.
_MAY_BE_NAMED = (SignalType.IP_CHANGE, SignalType.NETWORK_CHANGE)


@dataclass(slots=True)
class Tally:
    """Counts by kind. A verdict REPLAYED without a signal, after a lost response, is counted as MISSED."""

    traffic: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    _lives: dict[tuple[int, str, str], tuple[frozenset[Life], bool]] = field(default_factory=dict)

    def note(self, at: int, client: pb.ClientContext, lives: frozenset[Life], *, elsewhere: bool) -> None:
        """Record what a request of a client at a time is part of."""
        if lives:
            address = client.ip_address and str(ip_address(client.ip_address))  # as in events
            key = (at, address, client.user_agent)
            known, was_elsewhere = self._lives.get(key, (frozenset(), False))
            self._lives[key] = (known | lives, elsewhere or was_elsewhere)

    def lives_of(self, event: Event) -> tuple[frozenset[Life], bool]:
        """Return what the request that led to an event was part of, and whether its client was seen elsewhere."""
        key = (event.at, event.client.ip_address, event.client.user_agent)
        return self._lives.get(key, (frozenset(), False))


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a simulation: its counts, the effects that the table expects, and those that must not happen."""

    title: str
    traffic: Counter[str]
    verdicts: Counter[str]
    events: Counter[str]
    signals: Counter[str]
    endings: Counter[str]
    life: Counter[str]
    alarms: Counter[str]
    examples: tuple[str, ...]

    def __str__(self) -> str:
        parts = [self.title]
        for name in ("traffic", "verdicts", "events", "signals", "endings", "life", "alarms"):
            counts = ", ".join(f"{key} {count}" for key, count in sorted(getattr(self, name).items())) or "none"
            if name == "alarms":
                counts += " beyond the table"
            parts.append(f"  {name:<9} {counts}")
        parts.extend(f"    {example}" for example in self.examples)
        return "\n".join(parts)


def report_of(title: str, tally: Tally, events: list[Event], policy: Policy, start: int) -> Report:
    """Return the report on the tally and the log."""
    alarms: Counter[str] = Counter()
    led_to: Counter[str] = Counter()
    examples: list[str] = []
    for event in events:
        found = alarms_in(event, policy)
        lives, elsewhere = tally.lives_of(event) if found else (frozenset(), False)
        expected = allowed(policy.preset, lives, elsewhere=elsewhere)
        for alarm in found:
            if alarm in expected:
                by = [life for life in sorted(lives) if alarm in EXPECTED[policy.preset][life]]
                what = " or ".join(by) if by else f"{ELSEWHERE} ({' or '.join(sorted(lives))})"
                led_to[f"{what}: {alarm}"] += 1
                continue
            alarms[alarm] += 1
            if alarms[alarm] <= 3:
                examples.append(_example(alarm, event, start))
    for verdict in _NEVER_VERDICTS:
        if tally.verdicts[verdict]:
            alarms[f"verdict {verdict}"] = tally.verdicts[verdict]
    return Report(
        title,
        tally.traffic,
        tally.verdicts,
        Counter(event.type.value for event in events),
        Counter(signal.type.value for event in events for signal in event.signals),
        Counter(_ending(event) for event in events if event.type is EventType.SESSION_REVOKED),
        led_to,
        alarms,
        tuple(examples),
    )


def alarms_in(event: Event, policy: Policy) -> list[str]:
    """Return what about an event must not happen in ordinary traffic."""
    if event.type in _NEVER_EVENTS:
        return [event.type.value]
    if event.type is EventType.SESSION_REVOKED:
        own = event.cause.kind is CauseKind.REQUEST and event.cause.reason in (LOGOUT, OTHER_LOGIN)
        return [] if own or event.cause.kind is CauseKind.CONCURRENCY_LIMIT else [ENDED]
    if event.type is not EventType.HIJACK_SUSPECTED:
        return []
    heard = {signal.type for signal in event.signals if policy.reactions[signal.type] is not Reaction.IGNORE}
    named = {kind for kind in _MAY_BE_NAMED if policy.reactions[kind] is Reaction.ALERT}
    return [kind.value for kind in sorted(heard - named)]


def _ending(event: Event) -> str:
    return event.cause.reason if event.cause.kind is CauseKind.REQUEST else event.cause.kind.value


def _example(alarm: str, event: Event, start: int) -> str:
    minutes = (event.at - start) // 60_000
    when = f"day {minutes // 1440} {minutes // 60 % 24:02}:{minutes % 60:02}"
    evidence = "; ".join(f"{s.type.value}: {s.expected} -> {s.seen}" for s in event.signals)
    return f"{alarm}: {when}, {event.subject or 'anonymous'}, {event.session_id}: {evidence or event.cause.kind.value}"
