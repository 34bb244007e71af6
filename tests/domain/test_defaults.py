"""What a value has that is created without it: the defaults of the domain, each written out once more."""

from __future__ import annotations

import pytest

from sessiond.domain.call import Call, Caller
from sessiond.domain.client_facts import ClientFacts
from sessiond.domain.device import UNKNOWN_DEVICE, Device, DeviceType
from sessiond.domain.event import Event, EventFilter, EventType
from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.judge import FORGED, LOCKED, MALFORMED, PLAIN, UNKNOWN, Judgement, Verdict
from sessiond.domain.login import ANONYMOUS, Login
from sessiond.domain.policy import PRESETS, CookieRules, LimitRule, Policy
from sessiond.domain.query import SessionQuery
from sessiond.domain.requirements import AuthenticationRequirements, RequirementKind, Unmet
from sessiond.domain.session import Activity, Session, SessionState
from sessiond.domain.values import (
    NO_REVISION,
    NOBODY,
    POLICY_LIFETIMES,
    Cause,
    CauseKind,
    ClientContext,
    Lifetimes,
    Millis,
    Revision,
)
from tests.contracts import samples
from tests.support.clock import START

LOW = PRESETS["owasp-low"]
ID = samples.session_id()
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("default", "written_out"),
    [
        (NO_REVISION, 0),
        (ClientContext(), ClientContext("", "", b"", "")),
        (NOBODY, ClientContext("", "", b"", "")),
        (ClientFacts(), ClientFacts("", "", "", "", "", "")),
        (Device(), Device("", DeviceType.UNSPECIFIED)),
        (UNKNOWN_DEVICE, Device("", DeviceType.UNSPECIFIED)),
        (Cause(CauseKind.SIGNAL), Cause(CauseKind.SIGNAL, "authority", "")),
        (Lifetimes(), Lifetimes(None, None)),
        (POLICY_LIFETIMES, Lifetimes(None, None)),
        (Caller("app"), Caller("app", "", ())),
        (Call("default", LOW, Caller("app"), NOBODY), Call("default", LOW, Caller("app"), NOBODY, "", True)),
        (Login("ada"), Login("ada", 0, (), False, None, ())),
        (ANONYMOUS, Login("", 0, (), False, None, ())),
        (Judgement(Verdict.VALID), Judgement(Verdict.VALID, False, None, (), False, False)),
        (PLAIN, Judgement(Verdict.VALID)),
        (MALFORMED, Judgement(Verdict.MALFORMED)),
        (FORGED, Judgement(Verdict.FORGED)),
        (UNKNOWN, Judgement(Verdict.UNKNOWN)),
        (LOCKED, Judgement(Verdict.LOCKED)),
        (AuthenticationRequirements(), AuthenticationRequirements(0, None)),
        (Unmet(RequirementKind.CSRF_TOKEN, "send it"), Unmet(RequirementKind.CSRF_TOKEN, "send it", 0, None)),
        (Activity(ID, START, None), Activity(ID, START, None, None)),
        (EventFilter(), EventFilter(frozenset(), frozenset(), frozenset(), frozenset())),
        (GuessLimits(), GuessLimits(20, 100, 1_000, Millis(MINUTE), Millis(15 * MINUTE), False)),
        (CookieRules(), CookieRules("id", "id", True, "Lax", "/", ("cache", "storage"), False)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_by_default(default: object, written_out: object) -> None:
    """What is not named is empty, off or unlimited, and otherwise what the reference of the configuration says."""
    assert default == written_out


def test_a_query_by_default() -> None:
    """By default a query is for a hundred live sessions of any subject, and assumes that no activity lags."""
    default = SessionQuery("default", START)
    assert default == SessionQuery(
        "default", START, SessionState.ACTIVE, None, None, None, None, (), None, None, Millis(0), 100
    )


def test_an_event_by_default() -> None:
    """An event has no authentication, signals, reaction, source or labels unless they are given."""
    facts = (Revision(1), EventType.POLICY_CHANGED, START, "default", "", None, Cause(CauseKind.CONFIGURATION), NOBODY)
    assert Event(*facts) == Event(*facts, 0, None, (), None, "", ())


def test_a_session_by_default() -> None:
    """A session has neither data, ending, elevation, labels nor timeouts of its own unless they are given."""
    facts = (ID, "default", "ada", START, START, None, None, 0, START, bytes(32))
    assert Session(*facts) == Session(
        *facts,
        rolled_digest=None,
        rolled_at=None,
        authentication=None,
        client=NOBODY,
        data_version=0,
        data_bytes=0,
        ending=None,
        persistent=False,
        login_page=False,
        elevation=None,
        must_authenticate=False,
        old_token=None,
        earlier_csrf=None,
        earlier_csrf_at=None,
        last_client=NOBODY,
        labels=(),
        lifetimes=POLICY_LIFETIMES,
        revision=NO_REVISION,
    )


def test_a_policy_by_default() -> None:
    """What a preset or a configuration leaves unset is that of the default preset, to the millisecond."""
    default = Policy("owasp-low", Millis(30 * MINUTE), Millis(8 * HOUR), Millis(HOUR))
    assert default == LOW
    assert default == Policy(
        "owasp-low",
        idle_timeout=Millis(30 * MINUTE),
        absolute_timeout=Millis(8 * HOUR),
        renewal_timeout=Millis(HOUR),
        renewal_overlap=Millis(60 * SECOND),
        roll_tolerance=Millis(20 * SECOND),
        lost_answer_tolerance=Millis(60 * SECOND),
        refresh_extends_lifetime=False,
        retention=Millis(30 * DAY),
        anonymous_retention=Millis(DAY),
        answer_retention=Millis(DAY),
        max_data_bytes=65_536,
        login_timeout=Millis(10 * MINUTE),
        remember_idle_timeout=None,
        remember_absolute_timeout=None,
        remember_level=1,
        elevation_timeout=Millis(15 * MINUTE),
        csrf_overlap=Millis(10 * MINUTE),
        max_sessions=0,
        on_limit=LimitRule.EVICT_OLDEST,
        ticket_timeout=Millis(2 * MINUTE),
        companion_timeout=Millis(10 * MINUTE),
        related_agents=(),
        ipv4_prefix=24,
        ipv6_prefix=48,
        concurrent_use_window=Millis(MINUTE),
        fold_window=Millis(HOUR),
        reactions=LOW.reactions,
        guessing=GuessLimits(),
        cookie=CookieRules(),
    )


@pytest.mark.parametrize(
    ("preset", "minutes"), [("owasp-high", 5), ("nist-aal3", 5), ("nist-aal1", 15), ("nist-aal2", 15)]
)
def test_how_long_an_elevation_counts(preset: str, minutes: int) -> None:
    """An elevation counts for five minutes in the strict presets and for fifteen in the others."""
    assert PRESETS[preset].elevation_timeout == minutes * MINUTE


@pytest.mark.parametrize(
    ("preset", "minutes"), [("owasp-high", 5), ("nist-aal3", 5), ("nist-aal1", 10), ("nist-aal2", 10)]
)
def test_how_long_an_earlier_csrf_token_counts(preset: str, minutes: int) -> None:
    """After a step-up the earlier CSRF token counts for five minutes in the strict presets, in the others for ten."""
    assert PRESETS[preset].csrf_overlap == minutes * MINUTE
