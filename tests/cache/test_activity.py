"""Activity that the store does not have yet: the latest of each session, until a commit has it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessiond.cache.activity import Unsaved, UnsavedActivity
from sessiond.domain.session import Session
from sessiond.domain.values import ClientContext, Instant, Millis
from tests.contracts import samples
from tests.support.clock import START

HOME, PHONE = ClientContext("192.0.2.10", "browser"), ClientContext("198.51.100.7", "phone")
SESSION = samples.session(idle_deadline=Instant(START + 100), last_client=HOME)


def note(unsaved: UnsavedActivity, at: int, client: ClientContext | None = None, session: Session = SESSION) -> None:
    """Take in activity so many milliseconds after the start, with an idle deadline 100 ms later."""
    unsaved.note(session, Instant(START + at), Instant(START + at + 100), client)


def seen(unsaved: UnsavedActivity, session: Session = SESSION) -> tuple[int, int | None, ClientContext]:
    """When, until when and with what client the session was seen last, in milliseconds after the start."""
    now = unsaved.apply_to(session)
    deadline = None if now.idle_deadline is None else now.idle_deadline - START
    return now.last_active - START, deadline, now.last_client


def test_a_session_without_activity() -> None:
    """A session of which nothing is noted is the very same, whatever is noted of others."""
    unsaved = UnsavedActivity()
    note(unsaved, 5, session=samples.session())
    assert unsaved.apply_to(SESSION) is SESSION


def test_the_latest_activity_counts() -> None:
    """Of several activities the latest counts, with its deadline and client."""
    unsaved = UnsavedActivity()
    note(unsaved, 5, HOME)
    note(unsaved, 7, PHONE)
    assert seen(unsaved) == (7, 107, PHONE)


@pytest.mark.parametrize("at", [7, 6, 0, -1])
def test_activity_never_moves_backwards(at: int) -> None:
    """Activity that is not later than what is known changes nothing."""
    unsaved = UnsavedActivity()
    note(unsaved, 7, PHONE)
    note(unsaved, at, HOME)
    assert seen(unsaved) == (7, 107, PHONE)


@pytest.mark.parametrize("at", [0, -1])
def test_activity_that_the_session_has_is_not_noted(at: int) -> None:
    """Activity that is not later than the session's own is nothing to be saved."""
    unsaved = UnsavedActivity()
    note(unsaved, at, PHONE)
    assert list(unsaved.all()) == []
    assert unsaved.apply_to(SESSION) is SESSION


def test_activity_without_a_client() -> None:
    """Activity of a call that tells of no client keeps the one that was seen last, in memory or in the record."""
    unsaved = UnsavedActivity()
    note(unsaved, 5)
    assert seen(unsaved) == (5, 105, HOME)
    note(unsaved, 6, PHONE)
    note(unsaved, 7)
    assert seen(unsaved) == (7, 107, PHONE)
    (one,) = unsaved.all()
    assert (one.session, one.activity.client) == (SESSION, PHONE)


@pytest.mark.parametrize(("at", "left"), [(6, 1), (7, 0), (8, 0)])
def test_what_a_commit_has_is_forgotten(at: int, left: int) -> None:
    """A commit makes the activity up to its time known; what is later stays to be saved."""
    unsaved = UnsavedActivity()
    note(unsaved, 7)
    unsaved.saved(SESSION.id, Instant(START + at))
    assert len(list(unsaved.all())) == left


def test_a_session_that_ended() -> None:
    """Activity of a session that has ended is forgotten, that of others is not, and an end that comes twice is none."""
    unsaved, other = UnsavedActivity(), samples.session()
    note(unsaved, 5)
    note(unsaved, 6, session=other)
    for _ in range(2):
        unsaved.drop(SESSION.id)
        unsaved.saved(SESSION.id, START)
    assert [one.session for one in unsaved.all()] == [other]


def test_activity_outlives_the_session_in_memory() -> None:
    """Activity is added to whatever state of the session is read later, unless that is later itself or has ended."""
    unsaved = UnsavedActivity()
    note(unsaved, 5, PHONE)
    rolled = replace(SESSION, generation=4)
    assert unsaved.apply_to(rolled) == replace(
        rolled, last_active=Instant(START + 5), idle_deadline=Instant(START + 105), last_client=PHONE
    )
    for newer in (replace(SESSION, last_active=Instant(START + 6)), replace(SESSION, ending=samples.ending(START))):
        assert unsaved.apply_to(newer) is newer


def test_what_is_listed_may_be_saved_meanwhile() -> None:
    """The list of what is not saved stays as it was while commits make it shorter."""
    unsaved, other = UnsavedActivity(), samples.session()
    note(unsaved, 5)
    note(unsaved, 5, session=other)
    for one in unsaved.all():
        unsaved.saved(one.session.id, one.activity.at)
    assert list(unsaved.all()) == []


# What has gone quiet


def test_what_is_quiet_is_told_until_it_is_saved() -> None:
    """Activity is quiet from its lag on, to the millisecond, and is told again until a commit has it."""
    unsaved = UnsavedActivity()
    note(unsaved, 5)
    assert unsaved.quiet(Instant(START + 20_004), lambda _: Millis(20_000)) == []
    for at in (20_005, 20_006, 90_000):
        (quiet,) = unsaved.quiet(Instant(START + at), lambda _: Millis(20_000))
        assert (quiet.session_id, quiet.at) == (SESSION.id, START + 5)
    unsaved.saved(SESSION.id, Instant(START + 5))
    assert unsaved.quiet(Instant(START + 90_001), lambda _: Millis(20_000)) == []


def test_more_activity_is_not_quiet() -> None:
    """A session in use goes quiet its lag after the last use, however early it was noted first."""
    unsaved = UnsavedActivity()
    for at in range(0, 60_000, 7_000):
        note(unsaved, at)
        assert unsaved.quiet(Instant(START + at + 6_999), lambda _: Millis(10_000)) == []
    assert unsaved.quiet(Instant(START + 65_999), lambda _: Millis(10_000)) == []
    assert len(unsaved.quiet(Instant(START + 66_000), lambda _: Millis(10_000))) == 1


def test_a_session_in_use_is_hardly_looked_at() -> None:
    """Of many sessions in use each is looked at about once in the time after which it could be quiet."""
    unsaved, looks = UnsavedActivity(), 0
    sessions = [samples.session() for _ in range(100)]

    def lag(_: Unsaved) -> Millis:
        nonlocal looks
        looks += 1
        return Millis(60_000)

    for second in range(120):
        for session in sessions:
            note(unsaved, second * 1_000, session=session)
        assert unsaved.quiet(Instant(START + second * 1_000 + 500), lag) == []
    assert looks <= 3 * len(sessions)
