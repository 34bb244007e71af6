"""Live connections are closed when their session ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, Client, Created, Unavailable
from sessiond_client.guard import AsyncConnectionGuard, Closing, ConnectionGuard, SessionOver
from tests.clients.either import CLIENTS, Either, Kind
from tests.clients.relay import Relay
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving


class Guarded:
    """A guard of either kind, whose watches are awaited."""

    def __init__(self, kind: Kind, target: str, **options: Any) -> None:
        self.client: Any = kind(target)
        if isinstance(self.client, AsyncClient):
            self.guard: Any = AsyncConnectionGuard(self.client, **options)
        else:
            self.guard = ConnectionGuard(self.client, **options)

    async def watch(self, created: Created) -> asyncio.Future[Closing]:
        """Watch a session; the future has the reason when its connection must be closed."""
        if isinstance(self.guard, AsyncConnectionGuard):
            watch = await self.guard.watch(created.session)
            return asyncio.ensure_future(watch.closed())
        loop = asyncio.get_running_loop()
        closing: asyncio.Future[Closing] = loop.create_future()

        def notify(reason: Closing) -> None:
            loop.call_soon_threadsafe(closing.set_result, reason)

        await asyncio.to_thread(self.guard.watch, created.session, notify)
        return closing

    async def close(self) -> None:
        """Close the guard and its client."""
        if isinstance(self.guard, AsyncConnectionGuard):
            await self.guard.close()
            await self.client.close()
        else:
            self.guard.close()
            await asyncio.to_thread(self.client.close)


@asynccontextmanager
async def guarding(kind: Kind, target: str, **options: Any) -> AsyncIterator[Guarded]:
    """A guard, closed at the end."""
    guarded = Guarded(kind, target, **options)
    try:
        yield guarded
    finally:
        await guarded.close()


@pytest.fixture(params=CLIENTS, ids=lambda kind: str(kind.__name__))
async def guarded(request: pytest.FixtureRequest, app: App) -> AsyncIterator[Guarded]:
    """A guard of each kind in turn."""
    async with guarding(request.param, app.address) as guarded:
        yield guarded


@pytest.fixture
async def authority(app: App) -> AsyncIterator[Either]:
    """A client with which sessions are changed."""
    async with Either(AsyncClient, app.address) as client:
        yield client


async def reason_of(closing: asyncio.Future[Closing]) -> Closing:
    """Why the connection must be closed."""
    return await asyncio.wait_for(closing, 10)


async def test_a_revoked_session_closes_its_connections_and_no_others(guarded: Guarded, authority: Either) -> None:
    """A revocation closes every connection of its session, and no connection of another session."""
    alice, bob = await authority.create(subject="alice"), await authority.create(subject="bob")
    first, second, other = [await guarded.watch(session) for session in (alice, alice, bob)]
    await authority.revoke(session_id=alice.session.session_id)
    assert [await reason_of(first), await reason_of(second)] == [Closing.ENDED, Closing.ENDED]
    await authority.revoke(session_id=bob.session.session_id)  # the guard has read past the first revocation by now
    assert await reason_of(other) is Closing.ENDED


async def test_an_expired_session_closes_its_connections(
    guarded: Guarded, authority: Either, clock: ManualClock
) -> None:
    """An idle session's connections are closed when it expires, however busy they are."""
    created = await authority.create(subject="alice")
    closing = await guarded.watch(created)
    clock.advance(31 * 60_000)
    assert await reason_of(closing) is Closing.ENDED


async def test_a_new_token_closes_connections_that_the_old_one_opened(guarded: Guarded, authority: Either) -> None:
    """After a change of password nobody goes on with a connection that the old token opened."""
    created = await authority.create(subject="alice")
    closing = await guarded.watch(created)
    await authority.roll(created.token, reason="password")
    assert await reason_of(closing) is Closing.CHANGED


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    ("reaction", "expected"), [("step-up", Closing.SUSPECTED), ("revoke-session", Closing.SUSPECTED), ("alert", None)]
)
async def test_a_suspicion_closes_connections(
    kind: Kind, reaction: str, expected: Closing | None, tmp_path: Path, clock: ManualClock
) -> None:
    """A signal that is serious for the policy closes the session's connections: one may be a stranger's."""
    policy = f"[applications.default.reactions]\nreported = '{reaction}'\n"
    async with (
        serving(config_for(tmp_path, policy), clock) as app,
        Either(AsyncClient, app.address) as authority,
        guarding(kind, app.address) as guarded,
    ):
        created = await authority.create(subject="alice")
        closing = await guarded.watch(created)
        await authority.report_signal(session_id=created.session.session_id, reason="impossible travel")
        if expected is None:  # then the next event is the first that closes it
            await authority.revoke(session_id=created.session.session_id)
        assert await reason_of(closing) is (expected or Closing.ENDED)


async def test_a_session_that_has_ended_is_not_watched(guarded: Guarded, authority: Either) -> None:
    """A session that ended between the check of the request and the watch is noticed."""
    created = await authority.create(subject="alice")
    await authority.revoke(session_id=created.session.session_id)
    with pytest.raises(SessionOver, match="has ended"):
        await guarded.watch(created)


async def test_a_released_watch_is_left_alone(app: App, authority: Either) -> None:
    """A connection that ended by itself is not closed again, and takes no memory."""
    with Client(app.address) as client:
        guard = ConnectionGuard(client)
        called = threading.Event()
        created = await authority.create(subject="alice")
        watch = await asyncio.to_thread(guard.watch, created.session, lambda closing: called.set())
        watch.release()
        watch.release()
        other = await authority.create(subject="alice")
        seen = threading.Event()
        await asyncio.to_thread(guard.watch, other.session, lambda closing: seen.set())
        await authority.revoke_all(subject="alice")
        assert await asyncio.to_thread(seen.wait, 10)
        assert not called.is_set()
        assert not guard._connections._watches or created.session.session_id not in guard._connections._watches
        guard.close()


class Stalling(Relay):
    """Passes nothing on towards the client once it stalls."""

    stalls = False

    async def downwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(65_536):
            if self.stalls:
                await asyncio.Event().wait()
            writer.write(some)
            await writer.drain()


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_guard_without_word_from_the_authority_closes_everything(
    kind: Kind, app: App, authority: Either
) -> None:
    """A guard that hears nothing closes its connections, because a revocation may be among what it does not hear."""
    relay = Stalling(app.address)
    created = await authority.create(subject="alice")
    async with relay.running() as target, guarding(kind, target, blind_after=1.0) as guarded:
        closing = await guarded.watch(created)
        await asyncio.sleep(2.5)
        assert not closing.done(), "checkpoints on a quiet stream are word from the authority"
        relay.stalls = True
        assert await reason_of(closing) is Closing.BLIND


@pytest.mark.parametrize("kind", CLIENTS)
async def test_nothing_is_watched_while_the_authority_is_out_of_reach(kind: Kind, app: App, authority: Either) -> None:
    """A watch that cannot be checked is refused."""
    created = await authority.create(subject="alice")
    async with guarding(kind, "127.0.0.1:1", blind_after=0.5) as guarded:
        with pytest.raises((SessionOver, Unavailable)):
            await guarded.watch(created)
