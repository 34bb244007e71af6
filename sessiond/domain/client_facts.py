"""Comparing two client contexts, by what they mean rather than by their text."""

from __future__ import annotations

from collections.abc import Iterable

from sessiond.domain.immutable import immutable
from sessiond.domain.signals import Signal, SignalType

__all__ = ["OF_THE_CLIENT", "ClientFacts", "compare", "differ", "merged"]


@immutable
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
OF_THE_CLIENT = ("agent", "certificate", "device")
"""The facts that tell one client from another, wherever it is."""
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


def differ(one: ClientFacts, other: ClientFacts, facts: Iterable[str] = _FACTS) -> bool:
    """Whether any of these facts is known on both sides and differs.

    One server may pass on less about the same client than another: an unknown fact makes no other client.
    """
    return any(_clash(fact, getattr(one, fact), getattr(other, fact)) for fact in facts)


def merged(one: ClientFacts, other: ClientFacts) -> ClientFacts:
    """What is known of a client from two of its uses."""
    return ClientFacts(**{fact: getattr(one, fact) or getattr(other, fact) for fact in _FACTS})


def _clash(fact: str, one: str, other: str) -> bool:
    if not one or not other or one == other:
        return False
    return fact != "network" or (":" in one) == (":" in other)
