"""Errors fail closed: whatever breaks, and whoever breaks it, nobody is told VALID by mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond.crypto.tokens import KeyRing
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import ATTACKER, MINUTE, authority, create, kinds, loose, policy, story_of, validate
from tests.rpc.refusals import refusal_of, revision_of, session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, sqlite_of, stub_for


async def break_store(app: App) -> None:
    """Take the database away from under the authority."""
    await sqlite_of(app)._db.run(lambda connection: connection.close())


async def test_the_store_breaks(tmp_path: Path, clock: ManualClock) -> None:
    """Without its store the authority answers no question that needs it, with UNAVAILABLE and never with a verdict."""
    async with authority(tmp_path, clock, policy("owasp-high"), cache_sessions=1) as (app, stub):
        forgotten, known = await create(stub), await create(stub, "bob")
        await break_store(app)
        by_id = pb.SessionReference(session_id=known.session.session_id)
        calls: list[Any] = [
            validate(stub, forgotten.token),
            validate(stub, known.token, ATTACKER),  # what is suspicious must be told before it is answered
            create(stub),
            stub.RollSession(pb.RollSessionRequest(token=known.token)),
            stub.GetSessionData(pb.GetSessionDataRequest(session=by_id)),
            stub.RevokeSession(pb.RevokeSessionRequest(session=by_id)),
            stub.ValidateSessions(loose.ValidateSessionsRequest(requests=[{"token": forgotten.token}])),
        ]
        for call in calls:
            assert (await refusal_of(call)).code == grpc.StatusCode.UNAVAILABLE
        # What never was a token is still refused: that takes no store.
        assert (await validate(stub, "A" * 70)).verdict == pb.VERDICT_FORGED


async def test_activity_that_cannot_be_written(tmp_path: Path, clock: ManualClock) -> None:
    """A validation whose activity is due to be written is no answer at all if it cannot be."""
    async with authority(tmp_path, clock) as (app, stub):
        mine = await create(stub)
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
        clock.advance(MINUTE)
        await break_store(app)
        assert (await refusal_of(validate(stub, mine.token))).code == grpc.StatusCode.UNAVAILABLE


async def test_a_fault_of_our_own(stub: AsyncStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault nobody foresaw is INTERNAL, and neither its text nor the token is told."""
    mine = await create(stub)

    def fault(_: KeyRing, text: str) -> None:
        raise RuntimeError(f"no such thing: {text}")

    monkeypatch.setattr(KeyRing, "open", fault)
    refused = await refusal_of(validate(stub, mine.token, passive=True))
    assert refused.code == grpc.StatusCode.INTERNAL
    assert mine.token not in refused.message
    assert "no such thing" not in refused.message


BROKEN = [
    ({"client": {"ip_address": "not an address"}}, "client.ip_address"),
    ({"client": {"certificate_thumbprint": b"short"}}, "client.certificate_thumbprint"),
    ({"application": "nowhere"}, "application"),
    ({"requirements": {"min_level": 4}}, "requirements.min_level"),
    ({"requirements": {"min_level": -1}}, "requirements.min_level"),
    ({"requirements": {"companion": {"purpose": ""}}}, "requirements.companion.purpose"),
    ({"requirements": {"max_authentication_age": {"seconds": -1}}}, "requirements.max_authentication_age"),
    ({"requirements": {"max_authentication_age": {}}}, "requirements.max_authentication_age"),
]


@pytest.mark.parametrize(("fields", "field"), BROKEN, ids=[f"{field} {n}" for n, (_, field) in enumerate(BROKEN)])
async def test_a_question_that_makes_no_sense(stub: AsyncStub, fields: dict[str, Any], field: str) -> None:
    """A broken question about a good token is refused by the field's name, alone and in a batch."""
    mine = await create(stub)
    broken = {"token": mine.token, **fields}
    refused = await refusal_of(stub.ValidateSession(loose.ValidateSessionRequest(**broken)))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
    batch = loose.ValidateSessionsRequest(requests=[{"token": mine.token}, broken])
    refused = await refusal_of(stub.ValidateSessions(batch))
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert kinds(await story_of(stub, mine.token)) == ["SESSION_CREATED"]


async def test_a_broken_batch_is_no_activity(stub: AsyncStub, clock: ManualClock) -> None:
    """A batch that is refused has judged none of its questions."""
    mine = await create(stub)
    clock.advance(MINUTE)
    batch = loose.ValidateSessionsRequest(requests=[{"token": mine.token}, {"application": "nowhere"}])
    await refusal_of(stub.ValidateSessions(batch))
    shown = await session_of(stub, mine.session.session_id)
    assert shown.last_active_time == mine.session.last_active_time


async def test_requirements_that_ask_for_nothing_given(stub: AsyncStub) -> None:
    """A requirement that is there and empty counts: it is not met by an empty secret."""
    mine = await create(stub)
    empty: list[dict[str, Any]] = [{"csrf": {}}, {"companion": {"purpose": "payment"}}]
    for needed in empty:
        answer = await validate(stub, mine.token, requirements=needed)
        assert answer.verdict == pb.VERDICT_INSUFFICIENT


async def test_a_token_of_another_application(tmp_path: Path, clock: ManualClock) -> None:
    """A token of one application is unknown to another, by every call, and gives nothing about the session away."""
    async with authority(tmp_path, clock, extra={"shop": policy()}) as (_, stub):
        mine = await create(stub, data={"secret": b"1"})
        before = await revision_of(stub)
        by_token, shop = {"token": mine.token}, {"application": "shop"}
        answers: list[Any] = [
            await stub.ValidateSession(loose.ValidateSessionRequest(**by_token, **shop)),
            await stub.RollSession(loose.RollSessionRequest(**by_token, **shop)),
            await stub.AuthenticateSession(loose.AuthenticateSessionRequest(subject="ada", **by_token, **shop)),
            await stub.RefreshSession(loose.RefreshSessionRequest(**by_token, **shop)),
            await stub.RevokeSession(loose.RevokeSessionRequest(session=by_token, **shop)),
            await stub.GetSession(loose.GetSessionRequest(session=by_token, **shop)),
            await stub.GetSessionData(loose.GetSessionDataRequest(session=by_token, **shop)),
            await stub.UpdateSessionData(loose.UpdateSessionDataRequest(session=by_token, set={"a": b"1"}, **shop)),
            await stub.IssueCompanionToken(loose.IssueCompanionTokenRequest(purpose="p", **by_token, **shop)),
            await stub.ReportSignal(loose.ReportSignalRequest(session=by_token, **shop)),
        ]
        assert [answer.verdict for answer in answers] == [pb.VERDICT_UNKNOWN] * len(answers)
        assert not [one for one in answers if hasattr(one, "session") and one.HasField("session")]
        by_id = {"session_id": mine.session.session_id}
        refused = await refusal_of(stub.RevokeSession(loose.RevokeSessionRequest(session=by_id, **shop)))
        assert refused.code == grpc.StatusCode.NOT_FOUND
        assert await revision_of(stub) == before
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID


async def test_an_authority_that_has_gone(tmp_path: Path, clock: ManualClock) -> None:
    """A caller of an authority that has stopped gets an error, and no verdict to mistake for one."""
    async with authority(tmp_path, clock) as (app, stub):
        mine, address = await create(stub), app.address
    async with stub_for(address) as late:
        assert (await refusal_of(validate(late, mine.token))).code == grpc.StatusCode.UNAVAILABLE
    # What a message says that was never filled in is no good news either.
    assert pb.ValidateSessionResponse().verdict == pb.VERDICT_UNSPECIFIED != pb.VERDICT_VALID
    assert pb.ValidateSessionResponse().next_step == pb.NEXT_STEP_UNSPECIFIED != pb.NEXT_STEP_PROCEED
