"""What units see and write: each change of a session has its event, and the newest state is what counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sessiond.domain.event import EventType
from sessiond.domain.policy import PRESETS
from sessiond.domain.session import Activity, Session
from sessiond.domain.signals import Signal, SignalType
from sessiond.domain.values import Authentication, ClientContext, Instant, Millis, Revision
from sessiond.eventlog.work import NOTHING, Needs, Read, Work
from sessiond.store.contract import Changes
from tests.contracts import samples
from tests.eventlog.memory import NO_MEMORY, Memory
from tests.support.clock import START

HEAD = Revision(41)
POLICY = PRESETS["owasp-low"]
REPLAY = Signal(SignalType.TOKEN_REPLAY, "generation 1", "generation 0")
AGENT = Signal(SignalType.USER_AGENT_CHANGE, "Firefox", "Safari")


@dataclass
class Step:
    """A unit that does what the test says."""

    do: Callable[[Work], Any]

    def needs(self) -> Needs:
        """Nothing: the test says what was read."""
        return NOTHING

    def apply(self, work: Work) -> Any:
        """What the test says."""
        return self.do(work)


def work_on(*sessions: Session, read: Read | None = None, memory: Memory = NO_MEMORY) -> Work:
    """The work of one transaction that has read these sessions."""
    return Work(START, HEAD, read or Read({session.id: session for session in sessions}), memory)


def saves(session: Session, type: EventType = EventType.SESSION_REFRESHED, *signals: Signal) -> Step:
    """Saves a session."""
    return Step(lambda work: work.save(session, type, samples.REVOKED, signals=signals))


def records(session: Session, type: EventType, *signals: Signal) -> Step:
    """Records an event about a session, which stays as it is."""
    return Step(lambda work: work.record(type, session, samples.REVOKED, signals=signals))


# What a unit writes


def test_a_saved_session_has_the_revision_of_its_event() -> None:
    """Saving a session records the event that says so, and gives the session that event's revision."""
    session, client = samples.session(labels=(("tenant", "acme"),)), ClientContext("192.0.2.1", "Firefox")
    work = work_on(session)
    done = work.run(
        Step(lambda work: work.save(session, EventType.SESSION_REFRESHED, samples.REVOKED, client, (AGENT,)))
    )
    assert done.revision == HEAD + 1
    assert done.result == replace(session, revision=Revision(HEAD + 1))
    assert work.changes.sessions == {session.id: done.result}
    [event] = work.changes.events
    assert (event.revision, event.type, event.session_id) == (HEAD + 1, EventType.SESSION_REFRESHED, session.id)
    assert (event.subject, event.client, event.signals, event.labels) == ("ada", client, (AGENT,), session.labels)


def test_a_session_saved_twice_has_the_last_revision() -> None:
    """Each save has an event of its own, and the row that is written has the revision of the last."""
    session = samples.session()
    work = work_on(session)

    def twice(work: Work) -> Session:
        first = work.save(session, EventType.SESSION_AUTHENTICATED, samples.REVOKED)
        return work.save(first, EventType.SESSION_ROLLED, samples.REVOKED)

    assert work.run(Step(twice)).result.revision == HEAD + 2
    assert work.run(saves(session)).result.revision == HEAD + 3
    assert [event.revision for event in work.changes.events] == [HEAD + 1, HEAD + 2, HEAD + 3]
    assert work.changes.sessions[session.id].revision == HEAD + 3


def test_an_ending_is_saved_with_its_retention() -> None:
    """A session that ends has its event, and how long its history is kept."""
    session = samples.session(ending=samples.ending(START))
    work = work_on()
    work.run(Step(lambda work: work.save_ended(session, Millis(7), EventType.SESSION_REVOKED, samples.REVOKED)))
    assert work.changes.retention == {session.id: 7}
    assert work.changes.sessions[session.id].revision == work.changes.events[0].revision == HEAD + 1


@pytest.mark.parametrize(
    ("type", "shown"),
    [(type, type.value in ("session_created", "session_authenticated", "session_level_lowered")) for type in EventType],
)
def test_events_about_authentication_show_it(type: EventType, shown: bool) -> None:
    """The events that open, authenticate or lower a session say how its subject is authenticated; no others do."""
    session = samples.session(authentication=Authentication(2, ("pwd", "otp"), START))
    work = work_on()
    work.run(records(session, type))
    assert (work.changes.events[0].authentication is not None) is shown


def test_a_session_is_never_changed_without_an_event() -> None:
    """A draft with a session that has no event of its own is refused, whatever else is in it, and leaves nothing."""
    silent, told = samples.session(), samples.session()
    work = work_on(silent, told)

    def sneak(work: Work) -> None:
        work.save(told, EventType.SESSION_REFRESHED, samples.REVOKED)
        work._draft.sessions[silent.id] = replace(silent, must_authenticate=True)

    with pytest.raises(AssertionError, match=str(silent.id)):
        work.run(Step(sneak))
    assert work.changes == Changes()
    assert work.revision == HEAD
    assert work.session(silent.id) == silent


def test_data_is_never_changed_without_an_event() -> None:
    """A draft that changes data of a session which it does not save is refused, and leaves nothing."""
    session = samples.session()
    work = work_on(session)
    with pytest.raises(AssertionError, match=str(session.id)):
        work.run(Step(lambda work: work.put_data(session.id, {"k": b"v"})))
    assert work.changes == Changes()
    assert work.data(session.id) == {}


def test_activity_needs_no_event() -> None:
    """Activity alone is no change of a session's state: it has no event, and moves no revision."""
    session = samples.session()
    work = work_on(session)
    activity = Activity(session.id, Instant(START + 1), None)
    assert work.run(Step(lambda work: work.put_activity(activity))).revision == HEAD
    assert work.changes.activity == {session.id: activity}
    assert work.changes.events == []


def test_activity_of_one_transaction_keeps_the_last_known_client() -> None:
    """Of two activities the later counts, and one of an unknown client leaves the client that is known."""
    session = samples.session()
    seen = ClientContext("192.0.2.1", "Firefox")

    def active(at: int, client: ClientContext | None) -> Activity:
        return Activity(session.id, Instant(START + at), None, client)

    for first, second, merged in (
        (active(5, seen), active(8, None), active(8, seen)),
        (active(8, None), active(5, seen), active(8, None)),
        (active(5, seen), active(8, ClientContext()), active(8, ClientContext())),
        (active(5, None), active(8, seen), active(8, seen)),
    ):
        changes = Changes(activity={session.id: first})
        changes.merge(Changes(activity={session.id: second}))
        assert changes.activity == {session.id: merged}


def test_the_horizon_of_one_transaction_is_the_greatest() -> None:
    """Of two horizons the greater counts, whichever comes last: what was dropped does not come back."""
    for first, second in ((Revision(5), Revision(3)), (Revision(3), Revision(5)), (None, Revision(5))):
        changes = Changes(horizon=first)
        changes.merge(Changes(horizon=second))
        changes.merge(Changes())
        assert changes.horizon == 5


# What a unit sees


def test_the_newest_answer_under_a_key_counts() -> None:
    """Of several answers under one key the one that was kept last is found, as a later transaction would find it."""
    first = samples.answer(START + 1)
    second, third = (replace(samples.answer(START + 1), key=first.key) for _ in range(2))
    work = work_on(read=Read(answers={first.key: first}))
    assert work.answer(first.key) == first
    for newer in (second, third):
        work.run(Step(lambda work, newer=newer: work.keep_answer(newer)))  # type: ignore[misc]
        assert work.answer(first.key) == newer

    def within(work: Work) -> Any:
        work.keep_answer(first)
        work.keep_answer(second)
        return work.answer(first.key)

    assert work.run(Step(within)).result == second


def test_an_expired_answer_is_none() -> None:
    """An answer counts to the last millisecond before its expiry; an older one does not stand in for it."""
    lasting = samples.answer(START + 1)
    expired = replace(samples.answer(START), key=lasting.key)
    work = work_on(read=Read(answers={lasting.key: lasting}))
    assert work.answer(lasting.key) == lasting
    work.run(Step(lambda work: work.keep_answer(expired)))
    assert work.answer(lasting.key) is None
    assert work.answer(bytes(32)) is None


def test_live_sessions_are_as_earlier_units_left_them() -> None:
    """A subject's live sessions have those that units opened, not those that ended, passed a deadline or moved on."""
    first = samples.session()
    ends, moves = samples.session(), samples.session()
    overdue = samples.session(idle_deadline=START)
    opened = samples.session()
    work = work_on(first, ends, moves, overdue, samples.session(subject="bob"), samples.session(application="shop"))
    assert work.live_sessions("default", "ada") == [first, ends, moves]
    work.run(saves(opened))
    work.run(saves(replace(ends, ending=samples.ending(START))))
    work.run(saves(replace(moves, subject="eve")))
    assert [session.id for session in work.live_sessions("default", "ada")] == [first.id, opened.id]
    assert [session.id for session in work.live_sessions("default", "eve")] == [moves.id]

    def within(work: Work) -> list[Session]:
        work.save(replace(first, ending=samples.ending(START)), EventType.SESSION_REVOKED, samples.REVOKED)
        return work.live_sessions("default", "ada")

    assert [session.id for session in work.run(Step(within)).result] == [opened.id]


class Reported(Memory):
    """A memory in which these were reported of a session."""

    def __init__(self, session: Session, *kinds: SignalType) -> None:
        super().__init__()
        self._session, self._kinds = session, kinds

    def was_reported(self, session_id: Any, kind: SignalType, window: Millis, now: Instant) -> bool:
        """These were."""
        return session_id == self._session.id and kind in self._kinds and (window, now) == (POLICY.fold_window, START)


def test_a_repeated_suspicion_is_no_news() -> None:
    """What was reported lately, in memory or by an earlier unit of the transaction, is no news; one new kind is."""
    session, other = samples.session(), samples.session()
    work = work_on(session, other, memory=Reported(session, SignalType.TOKEN_REPLAY))
    assert not work.is_unreported(session.id, [REPLAY], POLICY)
    assert work.is_unreported(other.id, [REPLAY], POLICY)
    assert work.is_unreported(session.id, [REPLAY, AGENT], POLICY)
    work.run(records(session, EventType.HIJACK_SUSPECTED, AGENT))
    assert not work.is_unreported(session.id, [REPLAY, AGENT], POLICY)
    assert work.is_unreported(other.id, [AGENT], POLICY)


def test_an_ignored_signal_is_never_news() -> None:
    """A signal that the policy ignores is not news, by itself or beside one that was reported."""
    session = samples.session()
    ignored = Signal(SignalType.IP_CHANGE, "a", "b")
    work = work_on(session, memory=Reported(session, SignalType.TOKEN_REPLAY))
    assert not work.is_unreported(session.id, [ignored], POLICY)
    assert not work.is_unreported(session.id, [ignored, REPLAY], POLICY)


@pytest.mark.parametrize(
    "type", [EventType.SESSION_AUTHENTICATED, EventType.SESSION_REVOKED, EventType.SESSION_EXPIRED]
)
def test_suspicions_start_afresh(type: EventType) -> None:
    """After a session was authenticated again or has ended, what was reported of it before is news again."""
    session = samples.session()
    work = work_on(session, memory=Reported(session, SignalType.TOKEN_REPLAY))
    work.run(records(session, EventType.HIJACK_SUSPECTED, AGENT))
    work.run(records(session, type))
    assert work.is_unreported(session.id, [REPLAY], POLICY)
    assert work.is_unreported(session.id, [AGENT], POLICY)
    work.run(records(session, EventType.HIJACK_SUSPECTED, AGENT))
    assert not work.is_unreported(session.id, [AGENT], POLICY)
    assert work.is_unreported(session.id, [REPLAY], POLICY)
