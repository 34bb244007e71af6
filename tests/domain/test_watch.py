"""Watching how a session is used: what differs, who takes turns, and what was told already."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessiond.domain.signals import Signal, SignalType
from sessiond.domain.values import Instant, Millis
from sessiond.domain.watch import ClientFacts, SuspicionFold, UseWatch, compare
from tests.contracts import samples
from tests.support.clock import START

HOME = ClientFacts("192.0.2.0/24", "AS64500", "DE", "Chrome on Windows", "aa", "laptop")
AWAY = replace(HOME, network="198.51.100.0/24")
STRANGER = replace(AWAY, agent="Firefox on Linux")
FACTS = [
    ("network", SignalType.IP_CHANGE),
    ("operator", SignalType.NETWORK_CHANGE),
    ("country", SignalType.COUNTRY_CHANGE),
    ("agent", SignalType.USER_AGENT_CHANGE),
    ("certificate", SignalType.CERTIFICATE_MISMATCH),
    ("device", SignalType.DEVICE_MISMATCH),
]
BOUND = ("certificate", "device")
WINDOW = Millis(1_000)
SESSION = samples.session_id()


# Comparing


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


# Taking turns


def uses(watch: UseWatch, *seen: tuple[ClientFacts, int]) -> list[bool]:
    """Whether each of these uses, so many milliseconds after the start, was suspicious."""
    return [watch.see(SESSION, HOME, facts, WINDOW, Instant(START + at)) is not None for facts, at in seen]


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
    turns = watch.see(SESSION, HOME, STRANGER, WINDOW, Instant(START + 2))
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


@pytest.mark.parametrize("fact", [fact for fact, _ in FACTS])
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
    seen = [watch.see(SESSION, one, facts, WINDOW, START) for facts in (other, one, other)]
    assert seen[-1] == Signal(SignalType.CONCURRENT_USE, "a client without facts", "a client without facts")


def test_sessions_take_turns_apart() -> None:
    """The turns of one session do not count for another."""
    watch = UseWatch()
    for _ in range(6):
        assert watch.see(samples.session_id(), HOME, AWAY, WINDOW, START) is None


def test_the_watch_is_bounded() -> None:
    """Over its capacity the watch lets go of the session that was used longest ago."""
    watch = UseWatch(capacity=2)
    first, second, third = (samples.session_id() for _ in range(3))
    for session in (first, second, first, third):
        watch.see(session, HOME, AWAY, WINDOW, START)
    assert [watch.knows(session) for session in (first, second, third)] == [True, False, True]


def test_a_forgotten_session_takes_turns_anew() -> None:
    """The turns of a session that was forgotten count no more, and forgetting one that is not known is fine."""
    watch = UseWatch()
    uses(watch, (STRANGER, 0), (HOME, 1))
    watch.forget(SESSION)
    watch.forget(samples.session_id())
    assert not watch.knows(SESSION)
    assert uses(watch, (STRANGER, 2), (HOME, 3)) == [False, False]


# Folding


def signal(kind: SignalType = SignalType.IP_CHANGE, seen: str = "elsewhere") -> Signal:
    """A signal with that evidence."""
    return Signal(kind, "home", seen)


def is_news(fold: SuspicionFold, at: int, told: Signal | None = None) -> bool:
    """Whether the fold lets a signal through, so many milliseconds after the start."""
    return bool(fold.news(SESSION, [told or signal()], WINDOW, Instant(START + at)))


def test_a_repeat_is_folded_whatever_the_evidence() -> None:
    """A session's next signal of the same kind is folded into the first, whatever its evidence."""
    fold = SuspicionFold()
    assert is_news(fold, 0)
    assert not is_news(fold, 1)
    assert not is_news(fold, 2, signal(seen="elsewhere again"))


def test_folding_is_per_session_and_kind() -> None:
    """Another kind of signal, or the same kind about another session, is news."""
    fold = SuspicionFold()
    assert is_news(fold, 0)
    assert is_news(fold, 0, signal(SignalType.COUNTRY_CHANGE))
    assert fold.news(samples.session_id(), [signal()], WINDOW, START) == (signal(),)


def test_of_several_signals_only_the_news_is_told() -> None:
    """Of signals that come together those that were told already are left out, twice of one kind included."""
    fold, other = SuspicionFold(), signal(SignalType.COUNTRY_CHANGE)
    is_news(fold, 0)
    assert fold.news(SESSION, [signal(), other, replace(other, seen="x")], WINDOW, START) == (other,)


@pytest.mark.parametrize(("at", "news"), [(999, False), (1_000, True)])
def test_the_window_of_folding(at: int, news: bool) -> None:
    """A signal is told again from the window's end on, counted from when it was last told and not from its repeats."""
    fold = SuspicionFold()
    is_news(fold, 0)
    is_news(fold, 998)
    assert is_news(fold, at) is news


def test_what_is_told_again_opens_a_window() -> None:
    """A signal that is told again has its repeats folded for another window."""
    fold = SuspicionFold()
    assert [is_news(fold, at) for at in (0, 1_000, 1_999, 2_000)] == [True, True, False, True]


def test_folding_under_a_clock_that_is_set_back() -> None:
    """A clock that is set back tells a signal once more and then folds as ever."""
    fold = SuspicionFold()
    assert [is_news(fold, at) for at in (0, -5_000, -4_999, -4_000)] == [True, True, False, True]


def test_the_fold_is_bounded() -> None:
    """Over its capacity the fold lets go of what was told longest ago."""
    fold = SuspicionFold(capacity=2)
    first, second, third = (signal(kind) for kind in list(SignalType)[:3])
    for at, told in enumerate((first, second)):
        is_news(fold, at, told)
    assert is_news(fold, 1_000, first)  # told again: now the later of the two
    assert is_news(fold, 1_000, third)
    assert not is_news(fold, 1_000, first)
    assert is_news(fold, 1_000, second)


def test_a_forgotten_session_is_told_of_anew() -> None:
    """After forgetting, every kind of signal about that session is news again, and about no other."""
    fold, other = SuspicionFold(), samples.session_id()
    signals = [signal(kind) for kind in SignalType]
    fold.news(SESSION, signals, WINDOW, START)
    fold.news(other, signals, WINDOW, START)
    fold.forget(SESSION)
    fold.forget(samples.session_id())
    assert fold.news(SESSION, signals, WINDOW, START) == tuple(signals)
    assert fold.news(other, signals, WINDOW, START) == ()
