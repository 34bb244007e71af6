"""Logout races: what is still on its way when a session ends comes too late, and revives nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import Session
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import MINUTE, VICTIM, authority, create, kinds, login, loose, story_of, validate
from tests.rpc.refusals import session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub
from tests.support.tokens import revision_in


async def revoke(stub: AsyncStub, session_id: str) -> pb.RevokeSessionResponse:
    named = pb.SessionReference(session_id=session_id)
    return await stub.RevokeSession(pb.RevokeSessionRequest(session=named, reason="logout"))


async def late_calls(stub: AsyncStub, token: str, session_id: str) -> list[int]:
    """Every call that might bring a session back; what each said of the token or the session."""
    by_token, by_id = pb.SessionReference(token=token), pb.SessionReference(session_id=session_id)
    return [
        (await stub.UpdateSessionData(pb.UpdateSessionDataRequest(session=by_token, set={"a": b"1"}))).verdict,
        (await stub.UpdateSessionData(pb.UpdateSessionDataRequest(session=by_id, set={"a": b"1"}))).verdict,
        (await stub.RollSession(pb.RollSessionRequest(token=token, client=VICTIM))).verdict,
        (await stub.RefreshSession(pb.RefreshSessionRequest(token=token, client=VICTIM))).verdict,
        (await login(stub, token)).verdict,
        (await login(stub, token, elevate=True)).verdict,
        (await validate(stub, token)).verdict,
        (await stub.IssueCompanionToken(pb.IssueCompanionTokenRequest(token=token, purpose="p"))).verdict,
        (await stub.ReportSignal(pb.ReportSignalRequest(session=by_id))).verdict,
        (await stub.RevokeSession(pb.RevokeSessionRequest(session=by_id))).verdict,
    ]


async def test_late_writes_never_revive(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """After a logout every late call is told so, changes nothing and records nothing; activity in memory neither."""
    mine = await create(stub, data={"cart": b"1"})
    clock.advance(1_000)
    assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID  # activity that only memory knows of
    ended = await revoke(stub, mine.session.session_id)
    assert (ended.revoked, ended.verdict) == (True, pb.VERDICT_VALID)
    verdicts = await late_calls(stub, mine.token, mine.session.session_id)
    assert verdicts == [pb.VERDICT_REVOKED] * len(verdicts)
    clock.advance(MINUTE)
    await app.sweeper.save_activity(everything=True)
    await app.sweeper.sweep()
    shown = await session_of(stub, mine.session.session_id)
    assert (shown.state, shown.ending) == (pb.SESSION_STATE_REVOKED, ended.session.ending)
    named = pb.SessionReference(session_id=mine.session.session_id)
    assert not (await stub.GetSessionData(pb.GetSessionDataRequest(session=named))).data
    events = await story_of(stub, mine.token)
    assert kinds(events) == ["SESSION_CREATED", "SESSION_REVOKED"]
    assert events[1].cause.reason == "logout"


@pytest.mark.parametrize("round_", range(5))
async def test_a_logout_among_fifty_requests(stub: AsyncStub, round_: int) -> None:
    """Of fifty requests under way at logout each is either before it in the log or denied; after it all are denied."""
    mine = await create(stub)
    by_token = pb.SessionReference(token=mine.token)

    async def request(number: int) -> tuple[int, int]:
        if number % 2:
            return (await validate(stub, mine.token)).verdict, 0
        update = pb.UpdateSessionDataRequest(session=by_token, set={f"key-{number}": b"value"})
        answer = await stub.UpdateSessionData(update)
        return answer.verdict, revision_in(answer)

    tasks = [asyncio.create_task(request(n)) for n in range(25 + round_)]
    ending = asyncio.create_task(revoke(stub, mine.session.session_id))
    tasks += [asyncio.create_task(request(n)) for n in range(25 - round_)]
    ended = await ending
    after = await asyncio.gather(*(request(n) for n in range(50)))
    assert {verdict for verdict, _ in after} == {pb.VERDICT_REVOKED}
    during = [await task for task in tasks]
    assert {verdict for verdict, _ in during} <= {pb.VERDICT_VALID, pb.VERDICT_REVOKED}
    assert all(revision < revision_in(ended) for verdict, revision in during if verdict == pb.VERDICT_VALID)
    events = await story_of(stub, mine.token)
    assert kinds(events)[-1] == "SESSION_REVOKED"
    assert kinds(events).count("SESSION_REVOKED") == 1


async def test_two_logouts_at_once(stub: AsyncStub) -> None:
    """Of twenty logouts at once exactly one ends the session, and all are answered."""
    mine = await create(stub)
    answers = await asyncio.gather(*(revoke(stub, mine.session.session_id) for _ in range(20)))
    assert [answer.revoked for answer in answers].count(True) == 1
    assert kinds(await story_of(stub)) == ["SESSION_CREATED", "SESSION_REVOKED"]


async def test_a_logout_against_a_roll(stub: AsyncStub) -> None:
    """Whichever of a logout and a roll comes first, neither the old token nor the new one is good after both."""
    for _ in range(10):
        mine = await create(stub)
        ended, rolled = await asyncio.gather(
            revoke(stub, mine.session.session_id), stub.RollSession(pb.RollSessionRequest(token=mine.token))
        )
        assert ended.revoked
        assert rolled.verdict in (pb.VERDICT_VALID, pb.VERDICT_REVOKED)
        for token in filter(None, (mine.token, rolled.token)):
            assert (await validate(stub, token)).verdict == pb.VERDICT_REVOKED


async def test_a_logout_leaves_the_successor_worthless(stub: AsyncStub, clock: ManualClock) -> None:
    """A renewed token that was given out and not yet used dies with the session."""
    mine = await create(stub)
    for _ in range(3):
        clock.advance(20 * MINUTE)
        renewal = await validate(stub, mine.token)
    assert renewal.renewed_token
    await revoke(stub, mine.session.session_id)
    assert (await validate(stub, renewal.renewed_token)).verdict == pb.VERDICT_REVOKED
    assert (await validate(stub, mine.token)).verdict == pb.VERDICT_REVOKED


@pytest.mark.parametrize("everybody", [True, False], ids=["everybody", "anonymous only"])
async def test_a_login_amid_a_logout_of_many(tmp_path: Path, everybody: bool) -> None:
    """Who logs in while everybody is logged out is logged out too; where only guests are meant, it stays."""
    async with authority(tmp_path) as (app, stub):
        guest = await create(stub, "")
        found = app.authority.parts.store.sessions

        async def then_a_login(query: SessionQuery) -> list[Session]:
            page = await found(query)
            if page and page[0].subject == "":
                logins.append((await login(stub, guest.token)).token)
            return page

        logins: list[str] = []
        app.authority.parts.store.sessions = then_a_login  # type: ignore[method-assign]
        named = {"whole_application": True} if everybody else {"filter": {"subject": ""}}
        await stub.RevokeSessions(loose.RevokeSessionsRequest(**named))
        expected = pb.VERDICT_REVOKED if everybody else pb.VERDICT_VALID
        assert (await validate(stub, logins[0])).verdict == expected
