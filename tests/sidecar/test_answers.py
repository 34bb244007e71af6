"""What a sidecar answers from memory, and that this is never what the authority would no longer say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sessiond.app import App
from sessiond.sidecar.barrier import Barrier
from sessiond.sidecar_app import Sidecar
from sessiond_client.connection import Channels
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.sidecar.scripted import SERVICE, outcome_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, config_for, serving, stub_for
from tests.support.sidecars import PATIENCE, beside, is_open, until

AWAITED = pb.REVOCATION_WAIT_FOR_CACHES
CLIENT = pb.ClientContext(ip_address="192.0.2.7", user_agent="Firefox")


def question(token: str, **fields: object) -> pb.ValidateSessionRequest:
    return pb.ValidateSessionRequest(token=token, client=CLIENT, **fields)  # type: ignore[arg-type]


async def opened(stub: AsyncStub, **fields: object) -> pb.CreateSessionResponse:
    """Open a session, and have its validation kept."""
    created = await stub.CreateSession(pb.CreateSessionRequest(subject="ada", client=CLIENT, **fields))  # type: ignore[arg-type]
    await stub.ValidateSession(question(created.token))
    return created


def revocation(created: pb.CreateSessionResponse, **fields: object) -> pb.RevokeSessionRequest:
    reference = pb.SessionReference(session_id=created.session.session_id)
    return pb.RevokeSessionRequest(session=reference, **fields)  # type: ignore[arg-type]


async def is_revoked(stub: AsyncStub, token: str) -> bool:
    return (await stub.ValidateSession(question(token))).verdict == pb.VERDICT_REVOKED


async def test_a_repeated_question_is_answered_from_memory(stub: AsyncStub, sidecar: Sidecar) -> None:
    """The second identical question gets the bytes of the first answer, and the authority is not asked."""
    created = await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
    raw = question(created.token).SerializeToString()
    first = await outcome_of(sidecar.address, SERVICE + "ValidateSession", raw)
    hits = sidecar.cache.stats().hits
    assert await outcome_of(sidecar.address, SERVICE + "ValidateSession", raw) == first
    assert sidecar.cache.stats().hits == hits + 1
    assert pb.ValidateSessionResponse.FromString(first[2][0]).verdict == pb.VERDICT_VALID


async def test_another_question_about_the_token_goes_upstream(stub: AsyncStub, sidecar: Sidecar) -> None:
    """A kept answer counts only for the same client and the same question."""
    token = (await opened(stub)).token
    hits = sidecar.cache.stats().hits
    another = pb.ClientContext(ip_address="203.0.113.9", user_agent="curl")
    for different in (
        pb.ValidateSessionRequest(token=token),
        pb.ValidateSessionRequest(token=token, client=another),
        question(token, passive=True),
        question(token, with_csrf_token=True),
    ):
        assert (await stub.ValidateSession(different)).session.subject == "ada"
    assert sidecar.cache.stats().hits == hits


async def test_another_caller_gets_no_kept_answer(stub: AsyncStub, sidecar: Sidecar) -> None:
    """An answer for one caller's credentials is not used for another's; a trace id makes no difference."""
    token = (await opened(stub)).token
    hits = sidecar.cache.stats().hits
    others: list[tuple[str, str | bytes]] = [("authorization", "a"), ("authorization", "b"), ("some-key-bin", b"\0")]
    for number, item in enumerate(others, start=1):
        await stub.ValidateSession(question(token), metadata=(item,))
        assert sidecar.cache.stats().hits == hits
        assert sidecar.cache.stats().entries == number + 1
    await stub.ValidateSession(question(token), metadata=(("traceparent", "00-1"),))
    await stub.ValidateSession(question(token), metadata=(("authorization", "a"), ("traceparent", "00-2")))
    assert sidecar.cache.stats().hits == hits + 2


@pytest.mark.parametrize("kind", ["at_least", "companion", "csrf", "no address", "no message"])
async def test_what_only_the_authority_can_answer(stub: AsyncStub, sidecar: Sidecar, app: App, kind: str) -> None:
    """A question with a position, a companion or CSRF token, or one that is wrong, goes upstream as it is."""
    created = await opened(stub)
    request = question(created.token)
    match kind:
        case "at_least":
            request.at_least = created.consistency_token
        case "companion":
            request.requirements.companion.purpose = "pay"
        case "csrf":
            request.requirements.csrf.csrf_token = "x"
        case "no address":
            request.client.ip_address = "nowhere"
    raw = b"\xff" if kind == "no message" else request.SerializeToString()
    entries = sidecar.cache.stats().entries
    for _ in range(2):
        direct = await outcome_of(app.address, SERVICE + "ValidateSession", raw)
        assert (await outcome_of(sidecar.address, SERVICE + "ValidateSession", raw))[:2] == direct[:2]
    assert sidecar.cache.stats().entries == entries


async def test_equal_questions_at_once_are_one(stub: AsyncStub, sidecar: Sidecar) -> None:
    """Of many equal questions at the same time, one goes to the authority."""
    created = await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
    before = sidecar.cache.stats()
    found = await asyncio.gather(*(stub.ValidateSession(question(created.token)) for _ in range(50)))
    assert len({one.SerializeToString() for one in found}) == 1
    stats = sidecar.cache.stats()
    assert stats.entries == before.entries + 1
    assert stats.hits >= before.hits + 49


async def test_a_revocation_through_the_sidecar_holds_there(stub: AsyncStub) -> None:
    """A revocation that does not wait for caches holds at this sidecar when it returns, a hundred times in a row."""
    for _ in range(100):
        created = await opened(stub)
        await stub.RevokeSession(revocation(created))
        assert (await stub.ValidateSession(question(created.token))).verdict == pb.VERDICT_REVOKED


class Late:
    """A `Follow` stream whose messages arrive late."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.cancel = call.cancel

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for message in self._call:
            await asyncio.sleep(0.05)
            yield message


@asynccontextmanager
async def late_news(
    app: App, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Sidecar, AsyncStub]]:
    """Run a sidecar that hears of changes late, with an open cache."""
    for_stream = Channels.for_stream

    def late(self: Channels, stream: Any) -> Any:
        stub = for_stream(self, stream)
        return SimpleNamespace(Follow=lambda requests: Late(stub.Follow(requests)))

    monkeypatch.setattr(Channels, "for_stream", late)
    async with beside(app.address, folder) as sidecar, stub_for(sidecar.address) as stub:
        await until(lambda: is_open(sidecar))
        yield sidecar, stub


async def test_a_sidecar_that_hears_late_waits_for_its_caller_s_changes(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late the news of a change arrive, the caller's next question is answered with it."""
    async with late_news(app, tmp_path, monkeypatch) as (_, stub):
        created = [await opened(stub) for _ in range(5)]
        for one in created:
            await stub.RevokeSession(revocation(one))
            assert (await stub.ValidateSession(question(one.token))).verdict == pb.VERDICT_REVOKED


async def test_that_is_because_it_waits(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protection off: a sidecar that hears late and does not wait answers VALID after its caller's revocation."""

    async def at_once(self: Barrier) -> None:
        pass

    async with late_news(app, tmp_path, monkeypatch) as (_, stub):
        created = await opened(stub)
        monkeypatch.setattr(Barrier, "reached", at_once)
        await stub.RevokeSession(revocation(created))
        assert (await stub.ValidateSession(question(created.token))).verdict == pb.VERDICT_VALID


async def test_an_awaited_revocation_elsewhere_holds_here(stub: AsyncStub, sidecar: Sidecar, app: App) -> None:
    """After a revocation at the authority that waits for caches, no sidecar answers VALID."""
    async with stub_for(app.address) as direct:
        for _ in range(100):
            created = await opened(stub)
            assert is_open(sidecar)
            await direct.RevokeSession(revocation(created, wait=AWAITED))
            assert (await stub.ValidateSession(question(created.token))).verdict == pb.VERDICT_REVOKED


async def test_that_is_because_the_cache_applies_it(
    stub: AsyncStub, sidecar: Sidecar, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection off: a cache that acknowledges without applying answers VALID after an awaited revocation."""
    created = await opened(stub)
    monkeypatch.setattr(sidecar.cache, "apply", lambda change: None)
    async with stub_for(app.address) as direct:
        await direct.RevokeSession(revocation(created, wait=AWAITED))
    assert (await stub.ValidateSession(question(created.token))).verdict == pb.VERDICT_VALID


async def test_a_plain_revocation_elsewhere_arrives(stub: AsyncStub, app: App) -> None:
    """A revocation at the authority that waits for nobody reaches the sidecar soon, and no VALID follows it."""
    async with stub_for(app.address) as direct:
        for _ in range(20):
            created = await opened(stub)
            await direct.RevokeSession(revocation(created))
            await until(partial(is_revoked, stub, created.token))
            for _ in range(3):
                assert (await stub.ValidateSession(question(created.token))).verdict == pb.VERDICT_REVOKED


async def test_a_replay_through_the_sidecar_ends_the_session_there(
    stub: AsyncStub, sidecar: Sidecar, clock: ManualClock
) -> None:
    """If a stolen token ends its session, the session's own token is refused at once, although it was kept."""
    guest = await stub.CreateSession(pb.CreateSessionRequest())
    rolled = await stub.AuthenticateSession(pb.AuthenticateSessionRequest(token=guest.token, subject="ada"))
    clock.advance(120_000)
    await until(lambda: is_open(sidecar))
    for _ in range(2):
        assert (await stub.ValidateSession(question(rolled.token))).verdict == pb.VERDICT_VALID
    assert sidecar.cache.stats().hits == 1
    assert (await stub.ValidateSession(question(guest.token))).verdict == pb.VERDICT_REPLAYED
    assert (await stub.ValidateSession(question(rolled.token))).verdict == pb.VERDICT_REVOKED


async def test_an_answer_is_not_used_longer_than_it_says(stub: AsyncStub, clock: ManualClock, sidecar: Sidecar) -> None:
    """When activity is due to be reported, the question goes to the authority again."""
    created = await opened(stub)
    first = await stub.ValidateSession(question(created.token))
    clock.advance(first.cacheable_for.ToMilliseconds() + 1)
    await until(lambda: is_open(sidecar))
    hits = sidecar.cache.stats().hits
    later = await stub.ValidateSession(question(created.token))
    assert sidecar.cache.stats().hits == hits
    assert later.session.last_active_time.ToMilliseconds() > first.session.last_active_time.ToMilliseconds()


async def test_a_policy_change_drops_everything(tmp_path: Path) -> None:
    """After a reload of the policies nothing that was kept under the old ones is used."""
    config = config_for(tmp_path)
    async with serving(config) as app, beside(app.address, tmp_path) as sidecar, stub_for(sidecar.address) as stub:
        await until(lambda: is_open(sidecar))
        await opened(stub)
        assert sidecar.cache.stats().entries == 1
        await app.reload(config_for(tmp_path, '[applications.default]\nidle_timeout = "5m"\n'))
        await until(lambda: not sidecar.cache.stats().entries)


async def test_a_follow_through_the_sidecar_is_the_authority_s(stub: AsyncStub, app: App) -> None:
    """A cache that follows through a sidecar holds its lease at the authority, which waits for it."""
    call = stub.Follow()
    await call.write(pb.FollowRequest(start=pb.FollowStart(follower="near")))
    await call.write(pb.FollowRequest(renewal=pb.LeaseRenewal(nonce=1)))
    granted = False
    while not granted:
        message = await call.read()
        assert isinstance(message, pb.FollowResponse)
        granted = message.HasField("grant")
    created = await opened(stub)
    waiting = asyncio.ensure_future(stub.RevokeSession(revocation(created, wait=AWAITED)))
    message = await call.read()
    assert isinstance(message, pb.FollowResponse)
    assert not waiting.done()
    await call.write(pb.FollowRequest(applied=pb.Acknowledgement(cursor=message.cursor)))
    while not waiting.done():
        message = await asyncio.wait_for(call.read(), PATIENCE)
        assert isinstance(message, pb.FollowResponse)
        await call.write(pb.FollowRequest(applied=pb.Acknowledgement(cursor=message.cursor)))
        await asyncio.wait({waiting}, timeout=0.05)
    assert (await waiting).revoked
    call.cancel()
