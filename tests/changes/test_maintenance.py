"""Maintenance: what goes when its time is over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessiond.app import App
from sessiond.changes.maintenance import Expire, ForgetAnswers, Prune, PruneLog, RecordOther, SaveActivity
from sessiond.domain.event import EventType
from sessiond.domain.policy import PRESETS
from sessiond.domain.session import Activity, Session
from sessiond.domain.values import NOBODY, Cause, CauseKind, ClientContext, Instant, Millis, Revision
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import HOUR, MINUTE, create, fresh_id, login
from tests.contracts import samples
from tests.support.clock import START, ManualClock
from tests.support.server import AsyncStub, sqlite_of
from tests.support.work import types_of, work_on

LOW = PRESETS["owasp-low"]


async def kept_answers(app: App) -> int:
    """How many first answers the store keeps."""
    rows = await sqlite_of(app)._db.all("SELECT count(*) FROM answers")
    return int(rows[0][0])


async def test_a_kept_answer_goes(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """After its 24 hours, and not before, the first answer to a call with an id is gone from the store."""
    app._sweeping.cancel()
    await create(stub, request_id=fresh_id())
    clock.advance(24 * HOUR - 1)
    await app.sweeper.forget_answers()
    assert await kept_answers(app) == 1
    clock.advance(1)
    await app.sweeper.forget_answers()
    assert await kept_answers(app) == 0


async def test_a_logins_answer_goes(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """The answer to a login without an id is gone from the store when its tolerance is over."""
    app._sweeping.cancel()
    guest = await create(stub, "")
    assert (await login(stub, guest.token)).verdict == pb.VERDICT_VALID
    for wait, left in ((MINUTE - 1, 1), (1, 0)):
        clock.advance(wait)
        await app.sweeper.forget_answers()
        assert await kept_answers(app) == left


def test_answers_are_forgotten_by_the_transactions_time() -> None:
    """What has expired by the time of the transaction is dropped."""
    work = work_on(now=START + 7)
    assert work.changes.forget is None
    work.run(ForgetAnswers())
    assert work.changes.forget == START + 7


@pytest.mark.parametrize(
    ("session", "ended"),
    [
        pytest.param(samples.session(idle_deadline=START), True, id="idle"),
        pytest.param(samples.session(absolute_deadline=START - 9), True, id="absolute"),
        pytest.param(samples.session(idle_deadline=START + 1), False, id="active in memory"),
        pytest.param(samples.session(ending=samples.ending(START - 1)), False, id="ended meanwhile"),
    ],
)
def test_who_expires(session: Session, ended: bool) -> None:
    """Named sessions expire at their deadlines; one that is active or has ended meanwhile does not."""
    work = work_on(session)
    assert work.run(Expire([session.id], {"default": LOW}, LOW)).result == int(ended)
    assert types_of(work.changes.events) == ["session_expired"] * ended
    after = work.session(session.id)
    assert after is not None
    assert ended is (after != session)


def test_one_that_lives_stops_no_other() -> None:
    """After a session that is gone, one that has ended and one that is active, the next one still expires."""
    gone, over = samples.session(), samples.session(ending=samples.ending(START))
    phone = ClientContext("198.51.100.7", "phone")
    active = samples.session(idle_deadline=START + 1, last_client=phone)
    due = samples.session(idle_deadline=START)
    work = work_on(over, active, due)
    ids = [session.id for session in (gone, over, active, due)]
    assert work.run(Expire(ids, {"default": LOW}, LOW)).result == 1
    assert [event.session_id for event in work.changes.events] == [due.id]
    written = [(activity.at, activity.client) for activity in work.changes.activity.values()]
    assert written == [(active.last_active, phone)]


@pytest.mark.parametrize(
    ("application", "subject", "retention"),
    [("default", "ada", 7_000), ("default", "", 300), ("removed", "ada", 5_000), ("removed", "", 200)],
)
def test_how_long_the_expired_are_kept(application: str, subject: str, retention: int) -> None:
    """History is kept as the application's policy says, or the fallback if the application is configured no more."""
    session = samples.session(application=application, subject=subject, idle_deadline=Instant(START))
    own = replace(LOW, retention=Millis(7_000), anonymous_retention=Millis(300))
    fallback = replace(LOW, retention=Millis(5_000), anonymous_retention=Millis(200))
    work = work_on(session)
    work.run(Expire([session.id], {"default": own}, fallback))
    assert work.changes.retention == {session.id: retention}
    ending = work.changes.sessions[session.id].ending
    assert ending is not None
    assert (ending.at, ending.cause.kind) == (START, CauseKind.IDLE_TIMEOUT)


def test_what_upkeep_writes() -> None:
    """Upkeep writes the activity, the histories to drop, the horizon and the event that it was given, and no more."""
    session = samples.session()
    activity = Activity(session.id, START, None, ClientContext("198.51.100.7"))
    work = work_on()
    work.run(SaveActivity([activity]))
    work.run(Prune([session.id]))
    work.run(PruneLog(Revision(7)))
    assert work.changes.activity == {session.id: activity}
    assert (work.changes.pruned, work.changes.horizon) == ([session.id], 7)
    assert (work.changes.events, work.changes.sessions) == ([], {})


@pytest.mark.parametrize("source", ["", "203.0.113.66/32"])
def test_an_event_about_no_session(source: str) -> None:
    """What is recorded about no session has its type, application, cause and source, and nothing of any session."""
    work, cause = work_on(), Cause(CauseKind.SIGNAL, reason="odd")
    work.run(RecordOther(EventType.SOURCE_LOCKED, "shop", cause, source))
    (event,) = work.changes.events
    assert (event.type, event.application, event.cause, event.source) == (
        EventType.SOURCE_LOCKED,
        "shop",
        cause,
        source,
    )
    assert (event.session_id, event.subject, event.client, event.at) == (None, "", NOBODY, START)
