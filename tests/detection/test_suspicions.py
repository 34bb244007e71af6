"""Which suspicions were reported lately, learned from committed events alone; and which client is a session's own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessiond.detection.client_facts import FactReader
from sessiond.detection.suspicions import ReportedSignals, Suspicions
from sessiond.detection.uses import SupersededUses, UseWatch
from sessiond.domain.event import EventType
from sessiond.domain.policy import PRESETS
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import NOBODY, ClientContext, Instant, Millis, SessionId
from tests.contracts import samples
from tests.support.clock import START

WINDOW = Millis(1_000)
SESSION, OTHER = samples.session_id(), samples.session_id()
IP, COUNTRY = SignalType.IP_CHANGE, SignalType.COUNTRY_CHANGE


def report(reported: ReportedSignals, at: int, *kinds: SignalType, session: SessionId = SESSION) -> None:
    """Commit an alarm with these kinds of signals, so many milliseconds after the start."""
    signals = tuple(Signal(kind, "home", "elsewhere") for kind in kinds)
    reported.apply([samples.event(1, START + at, type=EventType.HIJACK_SUSPECTED, session_id=session, signals=signals)])


def was_reported(reported: ReportedSignals, at: int, kind: SignalType = IP, session: SessionId = SESSION) -> bool:
    """Whether that was reported within the window before so many milliseconds after the start."""
    return reported.was_reported(session, kind, WINDOW, Instant(START + at))


def test_nothing_is_reported_before_it_is_committed() -> None:
    """Asking whether something was reported does not report it."""
    reported = ReportedSignals()
    assert [was_reported(reported, at) for at in (0, 1)] == [False, False]


def test_a_report_is_per_session_and_kind() -> None:
    """A report says nothing about another kind of signal, or about another session."""
    reported = ReportedSignals()
    report(reported, 0, IP)
    assert was_reported(reported, 0)
    assert not was_reported(reported, 0, COUNTRY)
    assert not was_reported(reported, 0, session=OTHER)


def test_an_alarm_reports_all_its_signals() -> None:
    """Each kind of signal in an alarm counts as reported."""
    reported = ReportedSignals()
    report(reported, 0, IP, COUNTRY)
    assert was_reported(reported, 1)
    assert was_reported(reported, 1, COUNTRY)


@pytest.mark.parametrize(("at", "within"), [(999, True), (1_000, False), (-1, False)])
def test_the_window(at: int, within: bool) -> None:
    """A report counts until the window's end, and not before it was made: a clock set back reports once more."""
    reported = ReportedSignals()
    report(reported, 0, IP)
    assert was_reported(reported, at) is within


def test_a_new_report_opens_a_new_window() -> None:
    """A suspicion that is reported again counts as reported for another window."""
    reported = ReportedSignals()
    report(reported, 0, IP)
    report(reported, 900, IP)
    assert was_reported(reported, 1_899)


@pytest.mark.parametrize(
    "kind", [EventType.SESSION_AUTHENTICATED, EventType.SESSION_REVOKED, EventType.SESSION_EXPIRED]
)
def test_a_session_starts_afresh(kind: EventType) -> None:
    """After authentication or its end nothing counts as reported of that session, and all does of others."""
    reported = ReportedSignals()
    for session in (SESSION, OTHER):
        report(reported, 0, *SignalType, session=session)
    reported.apply([samples.event(2, START, type=kind, session_id=SESSION)])
    assert not any(was_reported(reported, 1, signal) for signal in SignalType)
    assert all(was_reported(reported, 1, signal, OTHER) for signal in SignalType)


def test_other_events_change_nothing() -> None:
    """A roll or a refresh leaves what was reported as it was."""
    reported = ReportedSignals()
    report(reported, 0, IP)
    for kind in (EventType.SESSION_ROLLED, EventType.SESSION_REFRESHED, EventType.SESSION_RENEWED):
        reported.apply([samples.event(2, START, type=kind, session_id=SESSION)])
    assert was_reported(reported, 1)


def test_memory_is_bounded() -> None:
    """Over its capacity the report made longest ago is forgotten first."""
    reported = ReportedSignals(capacity=2)
    for at, kind in enumerate((IP, COUNTRY, IP, SignalType.REPORTED)):
        report(reported, at, kind)
    kinds = (IP, COUNTRY, SignalType.REPORTED)
    assert [was_reported(reported, 5, kind) for kind in kinds] == [True, False, True]


# The session's own client


class OperatorReader(FactReader):
    """A reader that knows the operator of each address: home, or another for those that end in 66."""

    def _operator(self, address: str) -> str:
        if not address:
            return ""
        return "AS64666" if address.endswith("66") else "AS64500"


@pytest.mark.parametrize(
    ("reader", "address", "own"),
    [
        (OperatorReader(), "192.0.2.77", True),
        (OperatorReader(), "198.51.100.7", False),  # the same operator, but another network of the same family
        (OperatorReader(), "2001:db8::7", True),
        (OperatorReader(), "2001:db8::66", False),
        (OperatorReader(), "", False),
        (FactReader(), "192.0.2.77", True),
        (FactReader(), "2001:db8::7", False),  # without a database nothing links the two families
    ],
)
def test_the_own_client_by_network(reader: FactReader, address: str, own: bool) -> None:
    """A session's own client is on its network, or on its operator's if one address is IPv4 and the other IPv6."""
    agent = "shop-app/1.2"
    home = ClientContext("192.0.2.10", agent)
    session = samples.session(START, client=home, last_client=home)
    suspicions = Suspicions(reader, UseWatch(), SupersededUses())
    policy = PRESETS["owasp-low"]
    assert suspicions.is_own_client(session, ClientContext(address, agent), policy) is own
    assert not suspicions.is_own_client(session, ClientContext(address, "other/1"), policy)


@pytest.mark.parametrize(
    ("seen", "own"),
    [
        (ClientContext("203.0.113.9", "shop-app/1.2", b"", "phone"), True),
        (ClientContext("203.0.113.9", "", b"", "phone"), True),
        (ClientContext("203.0.113.9", "other/1", b"", "phone"), False),
        (ClientContext("203.0.113.9", "", b"", "tablet"), False),
        (ClientContext("192.0.2.10", "", b"", ""), False),
    ],
)
def test_the_own_client_by_device(seen: ClientContext, own: bool) -> None:
    """A device that the session is bound to is its own client on any network, also if no user agent was passed on."""
    home = ClientContext("192.0.2.10", "shop-app/1.2", b"", "phone")
    session = samples.session(START, client=home, last_client=ClientContext("192.0.2.10", "shop-app/1.2"))
    suspicions = Suspicions(FactReader(), UseWatch(), SupersededUses())
    assert suspicions.is_own_client(session, seen, PRESETS["owasp-low"]) is own


# Clients that the policy denies

FIREFOX, CHROME = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "shop-app/1.2"


@pytest.mark.parametrize(
    ("home", "seen", "denied"),
    [
        (ClientContext("192.0.2.10", FIREFOX), ClientContext("192.0.2.10", FIREFOX), False),
        (ClientContext("192.0.2.10", FIREFOX), ClientContext("203.0.113.9", FIREFOX), False),
        (ClientContext("192.0.2.10", FIREFOX), ClientContext("192.0.2.10", CHROME), True),
        (ClientContext("192.0.2.10", FIREFOX), NOBODY, False),
        (NOBODY, ClientContext("192.0.2.10", CHROME), False),
        (ClientContext(device_id="phone"), ClientContext(device_id="phone"), False),
        (ClientContext(device_id="phone"), ClientContext(device_id="tablet"), True),
        (ClientContext(device_id="phone"), NOBODY, True),
    ],
)
def test_a_client_that_must_authenticate_first(home: ClientContext, seen: ClientContext, denied: bool) -> None:
    """A client is denied if it differs from the session's home so that the policy's reaction is a step-up or more."""
    suspicions = Suspicions(FactReader(), UseWatch(), SupersededUses())
    session = samples.session(START, client=home)
    assert suspicions.is_denied_client(session, seen, PRESETS["owasp-high"]) is denied


@pytest.mark.parametrize("reaction", list(Reaction))
def test_which_reactions_deny_a_client(reaction: Reaction) -> None:
    """A reaction that only reports does not deny the client; all others do."""
    policy = replace(PRESETS["owasp-low"], reactions=dict.fromkeys(SignalType, reaction))
    session = samples.session(START, client=ClientContext("192.0.2.10", FIREFOX))
    suspicions = Suspicions(FactReader(), UseWatch(), SupersededUses())
    denied = suspicions.is_denied_client(session, ClientContext("192.0.2.10", CHROME), policy)
    assert denied is (reaction not in (Reaction.IGNORE, Reaction.ALERT))
