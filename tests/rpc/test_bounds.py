"""Pages, texts, subscribers and bulk calls are limited, in bytes as well as in number, and refusals say so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sessiond.app import App
from sessiond.domain.policy import LimitRule
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub
from tests.attacks.story import authority, create, loose, policy, validate
from tests.rpc.refusals import refusal_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, config_for, serving, stub_for

LONG = "Mozilla/5.0 " + "x" * 4_000
MANY = 1_000
MOST_BYTES = 4 * 1024 * 1024  # the default limit of clients


def long_agent(number: int) -> pb.ClientContext:
    """Return a client whose user agent is longer than the limit."""
    return pb.ClientContext(ip_address="192.0.2.10", user_agent=f"{LONG}{number}")


async def many(stub: AsyncStub, subject: str = "ada") -> set[str]:
    """Open a thousand sessions with long user agents, and return their ids."""
    opened = []
    for start in range(0, MANY, 100):
        calls = (create(stub, subject, long_agent(number)) for number in range(start, start + 100))
        opened += await asyncio.gather(*calls)
    return {one.session.session_id for one in opened}


async def pages_of(call: Any, request: Any, field: str) -> list[Any]:
    """Return every page of a list, with the largest page size."""
    request.page_size = MANY
    pages = [await call(request)]
    while pages[-1].next_page_token:
        request.page_token = pages[-1].next_page_token
        pages.append(await call(request))
    assert all(page.ByteSize() < MOST_BYTES for page in pages)
    return [item for page in pages for item in getattr(page, field)]


async def test_lists_of_long_texts(stub: AsyncStub) -> None:
    """Lists and histories of a thousand sessions with the longest user agents fit into messages and are complete."""
    ids = await many(stub)
    sessions = await pages_of(stub.ListSessions, loose.ListSessionsRequest(filter={"subject": "ada"}), "sessions")
    assert sorted(one.session_id for one in sessions) == sorted(ids)
    events = await pages_of(stub.ListActivity, pb.ListActivityRequest(subject="ada"), "events")
    assert sorted(one.session_id for one in events) == sorted(ids)


async def test_all_applications_in_one_message(tmp_path: Path, clock: ManualClock) -> None:
    """The policies of as many applications as a file may have fit into a message, with the longest names."""
    keys = 'idle_timeout = "20m"\nmax_sessions = 3\nreactions = { token_copy = "alert", ip_change = "alert" }\n'
    text = "".join(f"[applications.{'a' * 61}{number}]\n{keys}" for number in range(100, 600))
    async with serving(config_for(tmp_path, text), clock) as app, stub_for(app.address) as stub:
        answer = await stub.GetAuthority(pb.GetAuthorityRequest())
    assert len(answer.applications) == 500
    assert answer.ByteSize() < MOST_BYTES / 2


async def test_a_choice_among_long_texts(tmp_path: Path, clock: ManualClock) -> None:
    """A login that asks about a thousand sessions with the longest user agents reports how many there are."""
    async with authority(tmp_path, clock) as (app, stub):
        await many(stub)
        await app.authority.change_policies({"default": policy(max_sessions=1, on_limit=LimitRule.ASK)}, {})
        limit = (await create(stub)).limit
        assert limit.live_count == MANY
        assert 0 < len(limit.live_sessions) <= MANY


async def test_a_batch_of_long_texts(stub: AsyncStub) -> None:
    """A batch about sessions with the longest user agents is answered completely."""
    odd, honest = await create(stub, client=long_agent(1)), await create(stub, "bob")
    questions = [{"token": odd.token, "client": long_agent(1)}] * 850 + [{"token": honest.token}]
    answers = await stub.ValidateSessions(loose.ValidateSessionsRequest(requests=questions))
    assert {one.verdict for one in answers.responses} == {pb.VERDICT_VALID}
    assert answers.responses[-1].session.subject == "bob"


async def test_a_batch_with_much_data(tmp_path: Path, clock: ManualClock) -> None:
    """Data that would make a batch too long is left out of its responses, and a separate call returns it."""
    async with authority(tmp_path, clock) as (_, stub):
        created = await create(stub, data={"blob": bytes(60_000)})
        question = {"token": created.token, "data": {}}
        batch = await stub.ValidateSessions(loose.ValidateSessionsRequest(requests=[question] * 200))
        assert {one.verdict for one in batch.responses} == {pb.VERDICT_VALID}
        assert batch.ByteSize() < MOST_BYTES
        with_data = [one.HasField("data") for one in batch.responses]
        assert with_data[0]
        assert not with_data[-1]
        alone = await validate(stub, created.token, data={})
        assert len(alone.data.values["blob"]) == 60_000


@pytest.mark.parametrize("character", ["x", "ü", "€", "😀"])
async def test_a_user_agent_is_cut_at_a_character(stub: AsyncStub, character: str) -> None:
    """A user agent is limited to 1,024 bytes and cut between characters, in any script."""
    created = await create(stub, client=pb.ClientContext(user_agent="a" + character * 2_000))
    kept = created.session.client.user_agent
    size = len(character.encode())
    assert kept == "a" + character * (1_023 // size)
    assert len(kept.encode()) <= 1_024


# Refusals of too many


async def ended(stream: Any) -> grpc.aio.AioRpcError:
    """Return how a stream is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stream:
            pass
    return raised.value


async def test_subscribers_are_bounded(tmp_path: Path, clock: ManualClock) -> None:
    """One connection may have half of the subscribers; one more is refused with the remedy until one leaves."""
    config = config_for(tmp_path, "[server]\nmax_subscribers = 4\n")
    async with serving(config, clock) as app, stub_for(app.address) as one, other_connection(app) as two:
        streams = [stub.Subscribe(pb.SubscribeRequest()) for stub in (one, one, two, two)]
        for stream in streams:
            await stream.read()
        for stub in (one, two):
            error = await ended(stub.Subscribe(pb.SubscribeRequest()))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "server.max_subscribers" in (error.details() or "")
        streams[0].cancel()
        for _ in range(100):
            stream = one.Subscribe(pb.SubscribeRequest())
            try:
                first: Any = await stream.read()
                assert first.HasField("checkpoint")
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.01)  # the server notices the end after a while
        else:
            raise AssertionError("no place became free")


def other_connection(app: App) -> Any:
    """Return a stub whose channel shares no connection with others."""
    return _Connection(app.address)


class _Connection:
    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])

    async def __aenter__(self) -> AsyncStub:
        return SessionAuthorityStub(self._channel)

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


async def test_one_connection_cannot_have_others_refused(tmp_path: Path, clock: ManualClock) -> None:
    """However many calls one connection has open, half of the places stay free for other connections."""
    config = config_for(tmp_path, "[server]\nmax_calls = 10\n")
    async with serving(config, clock) as app, other_connection(app) as greedy, other_connection(app) as honest:
        streams = [greedy.Subscribe(pb.SubscribeRequest())]
        assert await streams[0].read()  # from here on the client knows its limit
        streams += [greedy.Subscribe(pb.SubscribeRequest()) for _ in range(30)]
        for stream in streams[1:5]:
            assert await stream.read()
        for _ in range(20):
            assert (await honest.ValidateSession(pb.ValidateSessionRequest(token="x"))).verdict == pb.VERDICT_MALFORMED
        for stream in streams:
            stream.cancel()


@pytest.mark.parametrize("name", ["create", "validate"])
async def test_a_burst_is_answered(tmp_path: Path, clock: ManualClock, name: str) -> None:
    """1,500 concurrent calls on a new connection are all answered; none is reset or cancelled."""
    async with serving(config_for(tmp_path), clock) as app, other_connection(app) as stub:
        if name == "create":
            calls = [stub.CreateSession(pb.CreateSessionRequest(subject=f"user-{n}")) for n in range(1_500)]
        else:
            calls = [stub.ValidateSession(pb.ValidateSessionRequest(token="x")) for _ in range(1_500)]
        answers = await asyncio.gather(*calls)
        assert len(answers) == 1_500


async def test_too_many_changes_are_told(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change beyond the number that may wait is RESOURCE_EXHAUSTED, with a delay after which to retry."""
    async with authority(tmp_path, clock) as (app, stub):
        journal = app.authority.parts.journal
        monkeypatch.setattr(journal, "_bounds", type(journal._bounds)(group=128, waiting=0))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await create(stub)
        monkeypatch.undo()
        assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        status = rpc_status.from_call(raised.value)
        assert status is not None
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.ToMilliseconds() > 0
        assert (await create(stub)).token


# Bulk revocation


@pytest.mark.parametrize(
    "conditions",
    [
        {"created_from": {}},
        {"created_until": {"seconds": 4_102_444_800}},
        {"created_from": {}, "created_until": {"seconds": 4_102_444_800}},
        {"ip_network": "::/0"},
        {},
    ],
    ids=["from 1970", "until 2100", "both", "every address", "nothing"],
)
async def test_a_condition_that_everybody_meets_is_none(stub: AsyncStub, conditions: dict[str, Any]) -> None:
    """A filter that excludes no session is not a condition: ending all sessions needs `whole_application`."""
    created = await create(stub)
    refused = await refusal_of(stub.RevokeSessions(loose.RevokeSessionsRequest(filter=conditions)))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["whole_application"])
    assert (await validate(stub, created.token)).verdict == pb.VERDICT_VALID
