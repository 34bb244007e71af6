"""Comparing two client contexts by their meaning instead of their text."""

from __future__ import annotations

from collections.abc import Iterable

from sessiond.domain.immutable import immutable
from sessiond.domain.signals import Signal, SignalType

__all__ = ["CLIENT_IDENTITY", "ClientFacts", "compare", "differ", "merged"]


@immutable
class ClientFacts:
    """The facts of a client context that are compared. An empty fact means unknown and is never compared.

    network      network prefix of the IP address, as long as the policy says
    operator     operator of the network (autonomous system), if a database is configured and knows it
    country      country of the IP address, if a database is configured and knows it
    agent        family and platform of the user agent; without the version, because updates change it
    certificate  thumbprint of the client's TLS certificate, in hex
    device       device id
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
CLIENT_IDENTITY = ("agent", "certificate", "device")
"""The facts that identify a client independently of the network it uses."""
_FACTS = tuple(fact for fact, _ in _COMPARED)


def compare(expected: ClientFacts, seen: ClientFacts) -> tuple[Signal, ...]:
    """Return one signal for each fact that is known on both sides and differs.

    A certificate or device that the session is bound to and that is missing now also counts as different: omitting it
    must not bypass the binding. An IPv4 network and an IPv6 network are never compared, because browsers alternate
    between the two (RFC 8305).
    """
    signals = []
    for fact, kind in _COMPARED:
        known, now = getattr(expected, fact), getattr(seen, fact)
        if _clash(fact, known, now) or (known and not now and fact in _BOUND):
            signals.append(Signal(kind, known, now or "none"))
    return tuple(signals)


def differ(one: ClientFacts, other: ClientFacts, facts: Iterable[str] = _FACTS) -> bool:
    """Return whether any of these facts is known on both sides and differs.

    A fact that is unknown on one side does not count: one server may report less about the same client than another.
    """
    return any(_clash(fact, getattr(one, fact), getattr(other, fact)) for fact in facts)


def merged(one: ClientFacts, other: ClientFacts) -> ClientFacts:
    """Combine what two uses revealed about one client. If both know a fact, that of `one` is used."""
    return ClientFacts(**{fact: getattr(one, fact) or getattr(other, fact) for fact in _FACTS})


def _clash(fact: str, one: str, other: str) -> bool:
    if not one or not other or one == other:
        return False
    return fact != "network" or (":" in one) == (":" in other)
