"""Comparing client contexts: what differs, and what is not known on either side."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessiond.domain.client_facts import ClientFacts, compare
from sessiond.domain.signals import Signal, SignalType

HOME = ClientFacts("192.0.2.0/24", "AS64500", "DE", "Chrome on Windows", "aa", "laptop")
FACTS = [
    ("network", SignalType.IP_CHANGE),
    ("operator", SignalType.NETWORK_CHANGE),
    ("country", SignalType.COUNTRY_CHANGE),
    ("agent", SignalType.USER_AGENT_CHANGE),
    ("certificate", SignalType.CERTIFICATE_MISMATCH),
    ("device", SignalType.DEVICE_MISMATCH),
]
BOUND = ("certificate", "device")


def test_the_same_client_is_no_suspicion() -> None:
    """Where every fact is as expected there is no signal."""
    assert compare(HOME, HOME) == ()


@pytest.mark.parametrize(("fact", "kind"), FACTS)
def test_a_fact_that_differs(fact: str, kind: SignalType) -> None:
    """A fact that is known on both sides and differs is one signal of its kind, with both values as evidence."""
    assert compare(HOME, replace(HOME, **{fact: "other"})) == (Signal(kind, getattr(HOME, fact), "other"),)


@pytest.mark.parametrize("fact", [fact for fact, _ in FACTS if fact not in BOUND])
def test_a_fact_that_is_unknown_now(fact: str) -> None:
    """A fact that is not known now is not compared."""
    assert compare(HOME, replace(HOME, **{fact: ""})) == ()


@pytest.mark.parametrize(("fact", "kind"), [(fact, kind) for fact, kind in FACTS if fact in BOUND])
def test_a_binding_that_is_missing_now(fact: str, kind: SignalType) -> None:
    """A certificate or device that the session was bound to and that is missing now is a signal."""
    assert compare(HOME, replace(HOME, **{fact: ""})) == (Signal(kind, getattr(HOME, fact), "none"),)


@pytest.mark.parametrize("fact", [fact for fact, _ in FACTS])
def test_a_fact_that_was_never_known(fact: str) -> None:
    """A fact that the session's record does not have is never compared."""
    unknown = replace(HOME, **{fact: ""})
    assert compare(unknown, HOME) == ()
    assert compare(unknown, unknown) == ()


def test_every_difference_is_told() -> None:
    """Each fact that differs is a signal of its own."""
    other = ClientFacts("n", "o", "c", "a", "x", "d")
    assert {signal.type for signal in compare(HOME, other)} == {kind for _, kind in FACTS}


def test_families_of_addresses_are_not_compared() -> None:
    """An IPv4 and an IPv6 network say nothing about each other; two of either family do."""
    sixth, other = replace(HOME, network="2001:db8:1::/48"), replace(HOME, network="2001:db8:2::/48")
    assert compare(HOME, sixth) == compare(sixth, HOME) == ()
    assert compare(sixth, other) == (Signal(SignalType.IP_CHANGE, "2001:db8:1::/48", "2001:db8:2::/48"),)
