"""Guessing: alarms, locks and floods, each boundary to the guess and to the millisecond, in bounded memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessiond.detection.guesses import GuessEffect, GuessWatch, SourceLock
from sessiond.domain.event import EventType
from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.values import Instant, Millis, Revision
from tests.contracts import samples
from tests.support.clock import START

NOTHING, ALARM, LOCK = GuessEffect.NOTHING, GuessEffect.ALARM, GuessEffect.LOCK
LIMITS = GuessLimits(alarm_after=3, lock_after=5, flood_after=4, window=Millis(1_000), lock_time=Millis(10_000))
SOURCE = "192.0.2.1/32"


def guess(
    watch: GuessWatch, times: int, at: int = 0, source: str = SOURCE, limits: GuessLimits = LIMITS, app: str = "shop"
) -> list[GuessEffect]:
    """What so many guesses from a source set off, so many milliseconds after the start."""
    return [watch.guess(app, source, limits, Instant(START + at)) for _ in range(times)]


def is_locked(watch: GuessWatch, at: int, source: str = SOURCE) -> bool:
    """Whether a source is locked, so many milliseconds after the start."""
    return watch.locked("shop", source, Instant(START + at)) is not None


def record(
    watch: GuessWatch,
    revision: int,
    source: str = SOURCE,
    kind: EventType = EventType.SOURCE_LOCKED,
    app: str = "shop",
) -> None:
    """Commit what a lock, or the end of one, is recorded by."""
    watch.apply([samples.other_event(revision, type=kind, application=app, source=source)])


def unlock(watch: GuessWatch, revision: int, source: str = SOURCE, app: str = "shop") -> None:
    """Commit the end of a lock."""
    record(watch, revision, source, EventType.SOURCE_UNLOCKED, app)


def test_alarm_and_lock() -> None:
    """A window alarms once, at exactly `alarm_after` guesses, and locks at exactly `lock_after`."""
    assert guess(GuessWatch(), 5) == [NOTHING, NOTHING, ALARM, NOTHING, LOCK]


def test_a_lock_without_alarm() -> None:
    """Where the lock comes no later than the alarm there is only the lock."""
    assert guess(GuessWatch(), 3, limits=replace(LIMITS, lock_after=3)) == [NOTHING, NOTHING, LOCK]


def test_a_policy_that_never_locks() -> None:
    """With `lock_after` 0 no number of guesses locks, and a window still alarms once."""
    watch = GuessWatch()
    effects = guess(watch, 10_000, limits=replace(LIMITS, lock_after=0))
    assert effects.count(ALARM) == 1
    assert LOCK not in effects
    assert watch.locks("shop", START) == []


def test_sources_and_applications_are_counted_apart() -> None:
    """Guesses from other sources, or at other applications, add nothing to a source's count."""
    watch = GuessWatch()
    guess(watch, 2)
    assert guess(watch, 2, source="192.0.2.2/32") == [NOTHING, NOTHING]
    assert guess(watch, 2, app="bank") == [NOTHING, NOTHING]
    assert guess(watch, 1) == [ALARM]


@pytest.mark.parametrize(("at", "effects"), [(999, [ALARM, NOTHING, LOCK]), (1_000, [NOTHING, NOTHING, ALARM])])
def test_the_window_of_guesses(at: int, effects: list[GuessEffect]) -> None:
    """At the end of its window the count starts again, alarm included."""
    watch = GuessWatch()
    guess(watch, 2)
    assert guess(watch, 3, at) == effects


def test_each_window_alarms() -> None:
    """A source that goes on guessing is told of once in every window."""
    watch = GuessWatch()
    assert [guess(watch, 4, at).count(ALARM) for at in (0, 1_000, 2_000)] == [1, 1, 1]


def test_counting_under_a_clock_that_is_set_back() -> None:
    """A clock that is set back starts a new window; a count from the future is never carried on."""
    watch = GuessWatch()
    guess(watch, 4)
    assert guess(watch, 5, -5_000) == [NOTHING, NOTHING, ALARM, NOTHING, LOCK]


def test_a_lock_says_since_when_and_until_when() -> None:
    """A lock names application, source, beginning and end, and is listed with its revision once it is recorded."""
    watch = GuessWatch()
    guess(watch, 5, 7)
    lock = SourceLock("shop", SOURCE, Instant(START + 7), Instant(START + 10_007))
    assert watch.locked("shop", SOURCE, Instant(START + 7)) == lock
    assert watch.locks("shop", Instant(START + 7)) == []
    record(watch, 9)
    assert watch.locks("shop", Instant(START + 7)) == [replace(lock, revision=Revision(9))]


def test_a_lock_is_of_one_application_and_source() -> None:
    """A lock holds neither for another application nor for another source."""
    watch = GuessWatch()
    guess(watch, 5)
    record(watch, 1)
    assert watch.locked("bank", SOURCE, START) is None
    assert watch.locks("bank", START) == []
    assert not is_locked(watch, 0, "192.0.2.2/32")


def test_a_locked_source_counts_nothing() -> None:
    """Guesses from a locked source set nothing off, prolong nothing and are not kept for after the lock."""
    watch = GuessWatch()
    guess(watch, 5)
    assert guess(watch, 50, 9_999) == [NOTHING] * 50
    assert len(watch) == 0
    assert guess(watch, 5, 10_000) == [NOTHING, NOTHING, ALARM, NOTHING, LOCK]


def test_a_lock_ends_by_time() -> None:
    """A lock is in force up to one millisecond before its end, on every path."""
    watch = GuessWatch()
    guess(watch, 5)
    record(watch, 1)
    before, until = Instant(START + 9_999), Instant(START + 10_000)
    assert is_locked(watch, 9_999)
    assert len(watch.locks("shop", before)) == 1
    assert watch.due(before) == []
    assert not is_locked(watch, 10_000)
    assert watch.locks("shop", until) == []
    assert [lock.source for lock in watch.due(until)] == [SOURCE]


def test_a_lock_is_due_until_its_end_is_recorded() -> None:
    """A lock whose time is over is due until SOURCE_UNLOCKED is committed, so a failed commit loses no end."""
    watch = GuessWatch()
    guess(watch, 5)
    guess(watch, 5, 1, "192.0.2.2/32")
    record(watch, 1)
    record(watch, 2, "192.0.2.2/32")
    over = Instant(START + 10_000)
    assert [lock.source for lock in watch.due(over)] == [lock.source for lock in watch.due(over)] == [SOURCE]
    unlock(watch, 3)
    assert watch.due(over) == []
    assert is_locked(watch, 10_000, "192.0.2.2/32")


def test_an_unlocked_source_begins_again() -> None:
    """A committed SOURCE_UNLOCKED lets the source in and starts its count again."""
    watch = GuessWatch()
    guess(watch, 5)
    record(watch, 1)
    unlock(watch, 2)
    assert not is_locked(watch, 0)
    assert guess(watch, 2) == [NOTHING, NOTHING]


def test_the_end_of_an_old_lock_does_not_end_a_new_one() -> None:
    """A source that was locked again before the end of its old lock was recorded stays locked."""
    watch = GuessWatch()
    guess(watch, 5)
    record(watch, 1)
    guess(watch, 5, 10_000)
    unlock(watch, 2)
    assert is_locked(watch, 10_000)
    record(watch, 3)
    assert [lock.revision for lock in watch.locks("shop", Instant(START + 10_000))] == [3]


def test_the_end_of_no_lock_forgets_nothing() -> None:
    """Without a lock SOURCE_UNLOCKED changes nothing: what was counted against the source still counts."""
    watch, untouched = GuessWatch(), GuessWatch()
    guess(watch, 2)
    guess(untouched, 2)
    unlock(watch, 1)
    assert guess(watch, 2) == guess(untouched, 2) != [NOTHING, NOTHING]


def test_unlocking_is_for_one_application_and_source() -> None:
    """Unlocking another source, or the source at another application, leaves a lock alone."""
    watch = GuessWatch()
    guess(watch, 5)
    record(watch, 1)
    unlock(watch, 2, app="bank")
    unlock(watch, 3, "192.0.2.2/32")
    assert is_locked(watch, 0)


def test_locks_are_listed_in_the_order_of_the_log() -> None:
    """Locks are listed by their revisions, a source that was locked again before its release included."""
    watch = GuessWatch()
    for revision, (at, source) in enumerate(((0, "a"), (5_000, "b"), (10_000, "a")), 1):
        guess(watch, 5, at, source)
        record(watch, revision, source)
    locks = watch.locks("shop", Instant(START + 10_000))
    assert [(lock.source, lock.revision) for lock in locks] == [("b", 2), ("a", 3)]


# Floods


def flood(watch: GuessWatch, times: int, at: int = 0, app: str = "shop") -> list[bool]:
    """Whether each of so many guesses made a flood, so many milliseconds after the start."""
    return [watch.flood(app, LIMITS, Instant(START + at)) for _ in range(times)]


def test_a_flood_is_told_once() -> None:
    """A window tells of a flood once, at exactly `flood_after` guesses from all sources together."""
    assert flood(GuessWatch(), 9) == [False, False, False, True, *[False] * 5]


@pytest.mark.parametrize(("at", "told"), [(999, [True, False]), (1_000, [False, False])])
def test_the_window_of_a_flood(at: int, told: list[bool]) -> None:
    """At the end of its window the sum starts again."""
    watch = GuessWatch()
    flood(watch, 3)
    assert flood(watch, 2, at) == told


def test_each_window_tells_of_its_flood() -> None:
    """A flood that goes on is told once in every window, and after the clock was set back."""
    watch = GuessWatch()
    assert [flood(watch, 6, at).count(True) for at in (0, 1_000, 2_000, -9_000)] == [1, 1, 1, 1]


def test_applications_are_flooded_apart() -> None:
    """Guesses at one application are no flood of another."""
    watch = GuessWatch()
    flood(watch, 3)
    assert flood(watch, 3, app="bank") == [False] * 3
    assert flood(watch, 1) == [True]


# Bounds


def test_spoofed_sources_cost_no_memory() -> None:
    """A hundred thousand sources keep at most `capacity` counters."""
    watch = GuessWatch(capacity=1_000)
    most = 0
    for number in range(100_000):
        guess(watch, 1, source=str(number))
        most = max(most, len(watch))
    assert most == len(watch) == 1_000


def test_a_source_pushed_out_of_the_counters_begins_again() -> None:
    """The counter least recently seen goes first, and its source is counted from the start when it comes back."""
    watch = GuessWatch(capacity=2)
    guess(watch, 2, source="a")
    guess(watch, 1, source="b")
    guess(watch, 1, source="c")  # pushes out "a"
    assert guess(watch, 2, source="a") == [NOTHING, NOTHING]


def test_a_source_that_goes_on_keeps_its_counter() -> None:
    """A source that guesses on between others is not the one pushed out."""
    watch = GuessWatch(capacity=2)
    assert [guess(watch, 1, source=source) for source in ("a", "b", "a", "c", "a")][-1] == [ALARM]


def test_a_window_that_starts_again_keeps_its_place() -> None:
    """A source whose window starts again pushes nobody out and counts as seen just now."""
    watch = GuessWatch(capacity=2)
    guess(watch, 2, 0, "a")
    guess(watch, 2, 900, "b")
    guess(watch, 2, 1_000, "a")
    assert len(watch) == 2
    guess(watch, 1, 1_000, "c")  # pushes out "b"
    assert guess(watch, 1, 1_000, "a") == [ALARM]


def test_a_flood_of_sources_pushes_out_no_lock() -> None:
    """A lock stays in force however many other sources guess without being locked."""
    watch = GuessWatch(capacity=10)
    guess(watch, 5)
    for number in range(1_000):
        guess(watch, 4, source=str(number))
    assert is_locked(watch, 0)


def test_locks_are_bounded() -> None:
    """As many sources as `capacity` can be locked; one more pushes out the oldest lock and no other."""
    watch = GuessWatch(capacity=3)
    for number in range(4):
        guess(watch, 5, number, str(number))
        record(watch, number + 1, str(number))
        if number == 2:
            assert [lock.source for lock in watch.locks("shop", Instant(START + 3))] == ["0", "1", "2"]
    assert [lock.source for lock in watch.locks("shop", Instant(START + 3))] == ["1", "2", "3"]
    assert not is_locked(watch, 3, "0")
