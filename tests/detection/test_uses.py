"""Which clients use a session: who takes turns, and what is remembered of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessiond.detection.uses import RecentLogins, UseWatch
from sessiond.domain.client_facts import ClientFacts
from sessiond.domain.event import Event, EventType
from sessiond.domain.signals import Signal, SignalType
from sessiond.domain.values import NOBODY, Cause, CauseKind, ClientContext, Instant, Millis, Revision, SessionId
from tests.contracts import samples
from tests.support.clock import START

HOME = ClientFacts("192.0.2.0/24", "AS64500", "DE", "Chrome on Windows", "aa", "laptop")
AWAY = replace(HOME, network="198.51.100.0/24")
STRANGER = replace(AWAY, agent="Firefox on Linux")
FACTS = ("network", "operator", "country", "agent", "certificate", "device")
WINDOW = Millis(1_000)
SESSION = samples.session_id()


def uses(watch: UseWatch, *seen: tuple[ClientFacts, int]) -> list[bool]:
    """Whether each of these uses, so many milliseconds after the start, was suspicious."""
    return [watch.record(SESSION, HOME, facts, WINDOW, Instant(START + at)) is not None for facts, at in seen]


def test_a_session_used_at_home_is_not_remembered() -> None:
    """A session that only its own client uses takes no memory."""
    watch = UseWatch()
    assert uses(watch, (HOME, 0), (HOME, 1)) == [False, False]
    assert not watch.knows(SESSION)


def test_going_to_another_network_and_staying() -> None:
    """Another network from some moment on is no suspicion, however often it is used."""
    watch = UseWatch()
    assert uses(watch, *((AWAY, at) for at in range(20))) == [False] * 20
    assert watch.knows(SESSION)


def test_going_and_coming_back() -> None:
    """Going to another network once and coming back is no suspicion."""
    assert uses(UseWatch(), (AWAY, 0), (AWAY, 1), (HOME, 2), (HOME, 3)) == [False] * 4


def test_two_clients_taking_turns() -> None:
    """The third turn within the window is one signal, whose evidence is the client before and the one now."""
    watch = UseWatch()
    assert uses(watch, (STRANGER, 0), (HOME, 1)) == [False, False]
    turns = watch.record(SESSION, HOME, STRANGER, WINDOW, Instant(START + 2))
    evidence = ("Chrome on Windows, 192.0.2.0/24", "Firefox on Linux, 198.51.100.0/24")
    assert turns == Signal(SignalType.CONCURRENT_USE, *evidence)


def test_clients_that_go_on_taking_turns() -> None:
    """After a signal the turns are counted from the start: each third one is suspicious."""
    assert uses(UseWatch(), *(((HOME, STRANGER)[at % 2 == 0], at) for at in range(9))) == [False, False, True] * 3


@pytest.mark.parametrize(("third", "suspicious"), [(999, True), (1_000, False)])
def test_the_window_of_turns(third: int, suspicious: bool) -> None:
    """A turn that is as old as the window counts no more."""
    assert uses(UseWatch(), (STRANGER, 0), (HOME, 500), (STRANGER, third)) == [False, False, suspicious]


def test_a_phone_between_two_networks() -> None:
    """By network alone seven turns within ten windows are a phone on the doorstep, and the eighth is two clients."""
    turns = [((HOME, AWAY)[number % 2 == 0], number * 1_250) for number in range(8)]
    assert uses(UseWatch(), *turns) == [*[False] * 7, True]
    slow = [(facts, at + at // 7) for facts, at in turns]
    assert uses(UseWatch(), *slow) == [False] * 8


def test_turns_under_a_clock_that_is_set_back() -> None:
    """Turns that lie in the future since the clock was set back do not count."""
    assert uses(UseWatch(), (STRANGER, 0), (HOME, 1), (STRANGER, -5_000), (HOME, -4_999), (STRANGER, -4_998)) == [
        *[False] * 4,
        True,
    ]


def test_a_browser_that_uses_both_families_of_addresses() -> None:
    """A client that comes by IPv4 and IPv6 by turns is one client and takes no memory."""
    watch, sixth = UseWatch(), replace(HOME, network="2001:db8:1::/48")
    assert uses(watch, (sixth, 0), (HOME, 1), (sixth, 2), (HOME, 3)) == [False] * 4
    assert not watch.knows(SESSION)


@pytest.mark.parametrize(("at", "known"), [(10_000, True), (10_001, False)])
def test_a_session_that_came_back_for_good(at: int, known: bool) -> None:
    """A session that is used at home again takes no more memory once its last turn is as old as ten windows."""
    watch = UseWatch()
    uses(watch, (AWAY, 0), (HOME, 1), (HOME, at))
    assert watch.knows(SESSION) is known


def test_a_session_that_stays_away_is_remembered() -> None:
    """A session that stays in another network is remembered beyond the window: its way back is a turn."""
    watch = UseWatch()
    assert uses(watch, (STRANGER, 0), (STRANGER, 5_000), (HOME, 5_001), (STRANGER, 5_002), (HOME, 5_003)) == [
        *[False] * 4,
        True,
    ]


@pytest.mark.parametrize("fact", FACTS)
def test_a_server_that_passes_on_less_is_no_other_client(fact: str) -> None:
    """Uses that differ by what is not known are of one client, whoever of the callers knows more."""
    watch, less = UseWatch(), replace(HOME, **{fact: ""})
    assert uses(watch, (less, 0), (HOME, 1), (less, 2), (HOME, 3)) == [False] * 4
    assert not watch.knows(SESSION)


def test_what_becomes_known_of_a_client_counts() -> None:
    """A fact that the first use of another client left out is taken from its next one."""
    first, curl = replace(AWAY, agent=""), replace(AWAY, agent="curl")
    assert uses(UseWatch(), (first, 0), (AWAY, 1), (curl, 2), (AWAY, 3), (curl, 4)) == [*[False] * 4, True]


def test_a_client_without_facts_to_show() -> None:
    """Clients told apart by something else than agent and network have evidence that says so."""
    watch = UseWatch()
    one, other = ClientFacts(device="laptop"), ClientFacts(device="phone")
    seen = [watch.record(SESSION, one, facts, WINDOW, START) for facts in (other, one, other)]
    assert seen[-1] == Signal(SignalType.CONCURRENT_USE, "unknown client", "unknown client")


def test_sessions_take_turns_apart() -> None:
    """The turns of one session do not count for another."""
    watch = UseWatch()
    for _ in range(6):
        assert watch.record(samples.session_id(), HOME, AWAY, WINDOW, START) is None


def test_the_watch_is_bounded() -> None:
    """Over its capacity the watch lets go of the session that was used longest ago."""
    watch = UseWatch(capacity=2)
    first, second, third = (samples.session_id() for _ in range(3))
    for session in (first, second, first, third):
        watch.record(session, HOME, AWAY, WINDOW, START)
    assert [watch.knows(session) for session in (first, second, third)] == [True, False, True]


def test_a_forgotten_session_takes_turns_anew() -> None:
    """The turns of a session that was forgotten count no more, and forgetting one that is not known is fine."""
    watch = UseWatch()
    uses(watch, (STRANGER, 0), (HOME, 1))
    watch.forget(SESSION)
    watch.forget(samples.session_id())
    assert not watch.knows(SESSION)
    assert uses(watch, (STRANGER, 2), (HOME, 3)) == [False, False]


def event(session: SessionId, type: EventType, revision: int = 1, client: ClientContext = NOBODY) -> Event:
    """An event about a session."""
    cause = Cause(CauseKind.REQUEST)
    return Event(Revision(revision), type, START, "default", "ada", session, cause, client)


def logged_in(*sessions: SessionId, capacity: int = 10) -> RecentLogins:
    """A memory that has seen these sessions log in."""
    logins = RecentLogins(capacity)
    for number, session in enumerate(sessions):
        logins.apply(event(session, EventType.SESSION_AUTHENTICATED, 2 * number + 1))
        logins.apply(event(session, EventType.SESSION_ROLLED, 2 * number + 2))
    return logins


def test_clients_that_present_an_old_token_after_a_login() -> None:
    """Each client counts once; after four different ones they are unknown, whoever comes then."""
    logins = logged_in(SESSION)
    seen = [ClientContext(ip_address=f"192.0.2.{number}") for number in range(1, 7)]
    assert logins.clients(SESSION) == ()
    for client in (*seen[:4], seen[0]):
        logins.apply(event(SESSION, EventType.OLD_TOKEN_PRESENTED, client=client))
    assert logins.clients(SESSION) == tuple(seen[:4])
    for client in (seen[4], seen[0], seen[5]):
        logins.apply(event(SESSION, EventType.OLD_TOKEN_PRESENTED, client=client))
        assert logins.clients(SESSION) == (NOBODY,)


@pytest.mark.parametrize("end", [EventType.SESSION_ROLLED, EventType.SESSION_REVOKED, EventType.SESSION_EXPIRED])
def test_a_login_that_is_over(end: EventType) -> None:
    """After a roll that is no login, and after the session's end, nothing is known, and nothing is noted."""
    logins = logged_in(SESSION)
    logins.apply(event(samples.session_id(), end, 3))
    assert logins.clients(SESSION) == ()
    logins.apply(event(SESSION, end, 4))
    logins.apply(event(SESSION, EventType.OLD_TOKEN_PRESENTED, client=ClientContext(ip_address="192.0.2.1")))
    assert logins.clients(SESSION) is None


def test_recent_logins_are_bounded() -> None:
    """Over its capacity the memory forgets the session that logged in longest ago."""
    first, second, third = (samples.session_id() for _ in range(3))
    logins = logged_in(first, second, third, capacity=2)
    assert [logins.clients(session) for session in (first, second, third)] == [None, (), ()]
