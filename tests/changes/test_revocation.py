"""Ending many sessions: what happens to one between the page that found it and the transaction that ends it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from sessiond.changes.login import Create
from sessiond.changes.revocation import Revoke, RevokeMany
from sessiond.domain.errors import SessionNotFound
from sessiond.domain.event import EventType
from sessiond.domain.judge import Presented, Verdict
from sessiond.domain.login import ANONYMOUS
from sessiond.domain.session import Session, SessionState
from sessiond.domain.values import CauseKind, Instant, SessionId
from sessiond.eventlog.work import Needs
from tests.contracts import samples
from tests.support.clock import START
from tests.support.work import call_of, types_of, work_on

CALL = call_of(reason="breach")
DIGEST = b"d" * 32
FIRST, SECOND, LAST = samples.session(), samples.session(), samples.session()
# What a session that was found has become meanwhile; None: its history was dropped.
MEANWHILE: dict[str, Session | None] = {
    "gone": None,
    "another subject's": replace(SECOND, subject="bob"),
    "revoked": replace(SECOND, ending=samples.ending(START)),
    "expired": replace(SECOND, ending=samples.ending(START, CauseKind.IDLE_TIMEOUT)),
    "past its deadline": replace(SECOND, idle_deadline=START),
}


@pytest.mark.parametrize("state", MEANWHILE)
def test_the_others_are_ended_all_the_same(state: str) -> None:
    """A session that is gone, over or somebody else's by now stays as it is, and those after it are ended."""
    now = MEANWHILE[state]
    work = work_on(*(session for session in (FIRST, now, LAST) if session is not None))
    done = work.run(RevokeMany(CALL, [FIRST, SECOND, LAST], by_subject=True))
    assert done.result == 2
    assert set(work.changes.sessions) == {FIRST.id, LAST.id}
    assert types_of(work.changes.events) == ["session_revoked"] * 2
    assert work.session(SECOND.id) == now


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_no_order_leaves_one_out(order: tuple[int, ...]) -> None:
    """Whatever comes first, of a session that is gone, one that has ended and one that lives the last is ended."""
    ended = replace(SECOND, ending=samples.ending(START))
    found = [(FIRST, SECOND, LAST)[number] for number in order]
    work = work_on(ended, LAST)
    assert work.run(RevokeMany(CALL, found, by_subject=True)).result == 1
    assert [event.session_id for event in work.changes.events] == [LAST.id]


def test_whoever_has_it_now() -> None:
    """Sessions that were not found by their subject are ended whoever they belong to by now."""
    bound = replace(FIRST, subject="bob")
    work = work_on(bound, LAST)
    assert work.run(RevokeMany(CALL, [FIRST, LAST], by_subject=False)).result == 2
    assert [(event.subject, event.cause.reason) for event in work.changes.events] == [
        ("bob", "breach"),
        ("ada", "breach"),
    ]


def test_other_labels_meanwhile() -> None:
    """Sessions that were found by their labels are ended if they have them still, whatever others came along."""
    wanted = (("idp.sid", "7"), ("tenant", "acme"))
    found = [replace(session, labels=wanted) for session in (FIRST, SECOND, LAST)]
    again = replace(found[1], labels=(("idp.sid", "8"), ("tenant", "acme")))
    more = replace(found[2], labels=(("device", "phone"), *wanted))
    work = work_on(found[0], again, more)
    assert work.run(RevokeMany(CALL, found, by_subject=False, labels=wanted)).result == 2
    assert set(work.changes.sessions) == {FIRST.id, LAST.id}


def test_none_is_ended_twice() -> None:
    """Found twice, a session is ended once: the second time it has ended."""
    work = work_on(FIRST)
    assert work.run(RevokeMany(CALL, [FIRST, FIRST], by_subject=True)).result == 1
    (event,) = work.changes.events
    assert (event.type, event.session_id) == (EventType.SESSION_REVOKED, FIRST.id)
    ended = work.session(FIRST.id)
    assert ended is not None
    assert (ended.state, ended.ending) == (SessionState.REVOKED, replace(samples.ending(START), cause=CALL.cause))


def test_each_is_read_again() -> None:
    """What was found is read again inside the transaction, each of it."""
    assert RevokeMany(CALL, [FIRST, SECOND], by_subject=True).needs() == Needs(sessions=[FIRST.id, SECOND.id])


@pytest.mark.parametrize(("deadline", "ended"), [(START, 0), (START + 1, 1)])
def test_at_its_deadline_a_session_is_over(deadline: int, ended: int) -> None:
    """A session whose deadline is now has expired and is not revoked; a millisecond before it is."""
    session = replace(FIRST, absolute_deadline=Instant(deadline))
    assert work_on(session).run(RevokeMany(CALL, [session], by_subject=True)).result == ended


# One session

MINE = replace(FIRST, digest=DIGEST)
BY_TOKEN = Presented(FIRST.id, 0, DIGEST)
ENDED = replace(MINE, ending=samples.ending(START - 1))


def opening() -> Create:
    """The unit that opens an anonymous session."""
    return Create(CALL, samples.session_id(), ANONYMOUS, b"f" * 32, {})


@pytest.mark.parametrize("named", [BY_TOKEN, FIRST.id], ids=["token", "id"])
@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("owner", [None, "ada"])
def test_one_session_ends(named: Presented | SessionId, opens: bool, owner: str | None) -> None:
    """A revocation ends the session, says so, and opens an anonymous one in its place if it is to."""
    work = work_on(MINE, SECOND)
    result = work.run(Revoke(CALL, named, opening() if opens else None, owner)).result
    assert (result.revoked, result.outcome.verdict) == (True, Verdict.VALID)
    assert result.outcome.session == work.session(FIRST.id)
    assert types_of(work.changes.events) == ["session_created"] * opens + ["session_revoked"]
    assert (result.anonymous is not None) is opens
    if result.anonymous is not None:
        assert (result.anonymous.subject, work.session(result.anonymous.id)) == ("", result.anonymous)


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize(
    ("named", "shown"), [(BY_TOKEN, None), (FIRST.id, ENDED)], ids=["a token shows nothing", "an id shows it"]
)
def test_a_session_that_has_ended(named: Presented | SessionId, shown: Session | None, opens: bool) -> None:
    """A session that has ended is not ended again; an anonymous one is opened all the same if it is to."""
    work = work_on(ENDED)
    result = work.run(Revoke(CALL, named, opening() if opens else None)).result
    assert (result.revoked, result.outcome.verdict, result.outcome.session) == (False, Verdict.REVOKED, shown)
    assert types_of(work.changes.events) == ["session_created"] * opens
    assert (result.anonymous is not None) is opens


@pytest.mark.parametrize("named", [BY_TOKEN, FIRST.id], ids=["token", "id"])
def test_a_session_of_another_owner(named: Presented | SessionId) -> None:
    """A session that is not the owner's is not found, and nothing ends or begins."""
    work = work_on(MINE)
    with pytest.raises(SessionNotFound):
        work.run(Revoke(CALL, named, opening(), "bob"))
    assert (work.changes.events, work.session(FIRST.id)) == ([], MINE)
