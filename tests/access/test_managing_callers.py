"""Adding, rotating and revoking callers, from outside."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sessiond.access.callers import Callers
from sessiond.app import App
from sessiond.domain.access import RESERVED_NAMES
from sessiond.domain.values import Cause, CauseKind
from sessiond_client import (
    AlreadyExists,
    AsyncClient,
    EventType,
    FailedPrecondition,
    Grant,
    InvalidArgument,
    NearCacheStats,
    NotFound,
    PermissionDenied,
    Role,
    Token,
    Unauthenticated,
)
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

ADMIN = [Grant(role=Role.ADMIN)]
VALIDATOR = [Grant(role=Role.VALIDATOR, application="default")]
ISSUER = [Grant(role=Role.ISSUER, application="default")]


@asynccontextmanager
async def calling(app: App, key: Token | str | None = None, **options: Any) -> AsyncIterator[AsyncClient]:
    """A client with a key."""
    async with AsyncClient(app.address, key=key, **options) as client:
        yield client


@pytest.fixture
async def admin(app: App) -> AsyncIterator[AsyncClient]:
    """A client with the key of the first caller."""
    async with calling(app) as anyone:
        first = await anyone.create_caller("ops", ADMIN)
    async with calling(app, first.key) as client:
        yield client


async def test_without_callers_everyone_may_call(app: App) -> None:
    """As long as there is no caller, a call needs no key, and one that is sent does not matter."""
    async with calling(app) as anyone, calling(app, "sessiond_aaaaaaaaaa_" + "x" * 43) as other:
        created = await anyone.create(subject="alice")
        assert (await other.validate(created.token)).valid
        assert await anyone.list_callers() == ()


async def test_from_the_first_caller_on_everyone_needs_a_key(app: App, admin: AsyncClient) -> None:
    """Adding the first caller denies every call without a key, the fast path included."""
    async with calling(app) as anyone:
        with pytest.raises(Unauthenticated, match="no credentials"):
            await anyone.create(subject="alice")
        with pytest.raises(Unauthenticated):
            await anyone.create_caller("mallory", ADMIN)
    assert [caller.name for caller in await admin.list_callers()] == ["ops"]


async def test_what_was_answered_fast_needs_a_key_too(app: App) -> None:
    """A validation that the fast path has answered before is refused once there are callers."""
    async with calling(app, coalesce=False) as anyone:
        created = await anyone.create(subject="alice")
        for _ in range(3):
            assert (await anyone.validate(created.token)).valid
        await anyone.create_caller("ops", ADMIN)
        with pytest.raises(Unauthenticated):
            await anyone.validate(created.token)


async def test_the_first_caller_must_be_an_admin(app: App) -> None:
    """A first caller that could not add others is refused, because nobody could."""
    async with calling(app) as anyone:
        for grants in (VALIDATOR, [Grant(role=Role.ADMIN, application="default")]):
            with pytest.raises(FailedPrecondition, match="admin for all applications"):
                await anyone.create_caller("shop", grants)
        assert await anyone.list_callers() == ()


async def test_the_last_admin_stays(admin: AsyncClient) -> None:
    """The last admin for everything cannot be revoked, and can be once there is another."""
    with pytest.raises(FailedPrecondition, match="admin for all applications"):
        await admin.revoke_caller("ops")
    await admin.create_caller("deputy", ADMIN)
    await admin.revoke_caller("ops")
    with pytest.raises(Unauthenticated, match="unknown or revoked"):
        await admin.list_callers()


async def test_a_caller_may_do_what_its_role_says(app: App, admin: AsyncClient) -> None:
    """An issuer opens sessions, a validator checks them, and neither can do the other's work or list callers."""
    issuer, validator = await admin.create_caller("shop", ISSUER), await admin.create_caller("edge", VALIDATOR)
    async with calling(app, issuer.key) as shop, calling(app, validator.key) as edge:
        created = await shop.create(subject="alice")
        assert (await edge.validate(created.token)).valid
        with pytest.raises(PermissionDenied, match='"edge" may not call CreateSession for "default": needs role'):
            await edge.create(subject="alice")
        for client in (shop, edge):
            with pytest.raises(PermissionDenied, match="for all applications: needs role admin"):
                await client.list_callers()


async def test_events_name_the_caller(app: App, admin: AsyncClient) -> None:
    """The actor of what a caller does is its name, and changes of callers are events that name the admin."""
    issuer = await admin.create_caller("shop", ISSUER, reason="ticket 17")
    async with calling(app, issuer.key) as shop:
        await shop.create(subject="alice")
    events: list[Any] = []
    async with admin.events(start="earliest", applications=[]) as stream:
        async for event in stream:
            events.append(event)
            if event.type is EventType.SESSION_CREATED:
                break
    assert [(event.type, event.cause.actor) for event in events] == [
        (EventType.CALLER_CHANGED, "caller"),
        (EventType.CALLER_CHANGED, "ops"),
        (EventType.SESSION_CREATED, "shop"),
    ]
    assert "added shop: issuer for default" in events[1].cause.reason
    assert events[1].cause.reason.endswith("ticket 17")
    assert issuer.key.reveal() not in repr(events)


async def test_a_rotation_overlaps(app: App, admin: AsyncClient, clock: ManualClock) -> None:
    """Both keys work during the overlap; at its end the old one stops, and not a millisecond earlier."""
    first = await admin.create_caller("edge", VALIDATOR)
    second = await admin.rotate_caller("edge", overlap=timedelta(hours=1))
    async with calling(app, first.key) as old, calling(app, second.key) as new:
        for client in (old, new):
            assert (await client.validate("")).valid is False
        clock.advance(3_600_000 - 1)
        await old.validate("")
        clock.advance(1)
        with pytest.raises(Unauthenticated, match="the key has expired"):
            await old.validate("")
        await new.validate("")
    (edge,) = [caller for caller in await admin.list_callers() if caller.name == "edge"]
    assert [credential.expire_time is None for credential in edge.credentials] == [False, True]


async def test_a_rotation_without_overlap_takes_effect_at_once(app: App, admin: AsyncClient) -> None:
    """Without an overlap the old key stops working with the rotation."""
    first = await admin.create_caller("edge", VALIDATOR)
    second = await admin.rotate_caller("edge")
    async with calling(app, first.key) as old, calling(app, second.key) as new:
        with pytest.raises(Unauthenticated):
            await old.validate("")
        await new.validate("")


async def test_a_revoked_caller_is_refused_and_its_streams_end(app: App, admin: AsyncClient) -> None:
    """A revocation refuses the caller's next call, and ends its open streams; those of others go on."""
    grants = [Grant(role=Role.SUBSCRIBER), Grant(role=Role.VALIDATOR)]
    gone, other = await admin.create_caller("gone", grants), await admin.create_caller("other", grants)
    async with calling(app, gone.key) as first, calling(app, other.key) as second:
        await first.validate("")
        ends, goes_on = (asyncio.ensure_future(anext(client.events())) for client in (first, second))
        await asyncio.sleep(0.3)
        await admin.revoke_caller("gone")
        with pytest.raises(Unauthenticated):
            await asyncio.wait_for(ends, 10)
        with pytest.raises(Unauthenticated):
            await first.validate("")
        await admin.create(subject="alice")
        event = await asyncio.wait_for(goes_on, 10)
        assert event.type is EventType.SESSION_CREATED


async def test_a_subscription_survives_a_rotation(app: App, admin: AsyncClient) -> None:
    """A client that reads events with a key that was rotated goes on during the overlap, and misses nothing."""
    old = await admin.create_caller("reader", [Grant(role=Role.SUBSCRIBER)])
    async with calling(app, old.key) as reader, reader.events(start="earliest") as events:
        await admin.create(subject="alice")
        assert (await asyncio.wait_for(anext(events), 10)).subject == "alice"
        await admin.rotate_caller("reader", overlap=timedelta(hours=1))
        await admin.create(subject="bob")
        assert (await asyncio.wait_for(anext(events), 10)).subject == "bob"
        await admin.rotate_caller("reader")
        with pytest.raises(Unauthenticated):
            await asyncio.wait_for(anext(events), 10)


async def test_a_near_cache_forgets_when_a_caller_changes(app: App, admin: AsyncClient) -> None:
    """A near cache drops its answers when a caller changes: its own caller may be the one. No name reaches it."""
    issued = await admin.create_caller("shop", [*ISSUER, *VALIDATOR])
    async with calling(app, issued.key, near_cache=True) as shop:
        token = (await shop.create(subject="alice")).token

        async def until(happened: Callable[[NearCacheStats], bool]) -> None:
            async with asyncio.timeout(10):
                while (stats := shop.near_cache) is None or not happened(stats):
                    await shop.validate(token)
                    await asyncio.sleep(0.02)

        await until(lambda stats: stats.hits > 0)
        await admin.create_caller("other", VALIDATOR)
        await until(lambda stats: stats.dropped > 0)
        await until(lambda stats: stats.entries > 0)
        await admin.revoke_caller("shop")
        with pytest.raises(Unauthenticated):
            await until(lambda stats: False)


async def test_callers_survive_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """Callers are stored: after a restart their keys work, and nobody else gets in."""
    async with serving(config_for(tmp_path), clock) as app, calling(app) as anyone:
        first = await anyone.create_caller("ops", ADMIN)
    async with serving(config_for(tmp_path), clock) as app:
        async with calling(app, first.key) as ops:
            assert [caller.name for caller in await ops.list_callers()] == ["ops"]
        async with calling(app) as anyone:
            with pytest.raises(Unauthenticated):
                await anyone.authority()


async def test_callers_can_be_deleted_from_the_database(tmp_path: Path, clock: ManualClock) -> None:
    """If all keys are lost, callers that were deleted from a stopped server's database are gone at the next start."""
    async with serving(config_for(tmp_path), clock) as app, calling(app) as anyone:
        await anyone.create_caller("ops", ADMIN)
    with closing(sqlite3.connect(tmp_path / "data" / "sessiond.db")) as db:
        db.execute("DELETE FROM callers")
        db.commit()
    async with serving(config_for(tmp_path), clock) as app, calling(app) as anyone:
        assert await anyone.list_callers() == ()
        await anyone.create_caller("ops", ADMIN)


async def test_the_store_has_no_key(tmp_path: Path, clock: ManualClock) -> None:
    """No file of the server contains a key, or its secret part."""
    async with serving(config_for(tmp_path), clock) as app, calling(app) as anyone:
        key = (await anyone.create_caller("ops", ADMIN)).key.reveal()
        async with calling(app, key) as ops:
            await ops.rotate_caller("ops", overlap=timedelta(days=1))
    assert files_with(tmp_path, b"ops")
    assert not files_with(tmp_path, key.split("_", 2)[2].encode())


def files_with(folder: Path, text: bytes) -> list[str]:
    """The files that contain a text."""
    return [file.name for file in folder.rglob("*") if file.is_file() and text in file.read_bytes()]


@pytest.mark.parametrize("name", ["", "Ops", "-ops", "o" * 65, "ops\n", "a b", "ö"])
async def test_a_wrong_name_is_refused(name: str, admin: AsyncClient) -> None:
    """A name with other characters is an error that says which are allowed."""
    with pytest.raises(InvalidArgument, match="name: must have 1 to 64 characters"):
        await admin.create_caller(name, VALIDATOR)


async def test_wrong_changes_name_what_is_wrong(admin: AsyncClient) -> None:
    """A caller that exists or does not, no roles, and a long overlap are errors with the field's name."""
    with pytest.raises(AlreadyExists, match='there is a caller "ops"'):
        await admin.create_caller("ops", VALIDATOR)
    for change in (admin.rotate_caller, admin.revoke_caller):
        with pytest.raises(NotFound, match='there is no caller "nobody"'):
            await change("nobody")
    with pytest.raises(InvalidArgument, match="grants: has 0 entries"):
        await admin.create_caller("shop", [])
    with pytest.raises(InvalidArgument, match=r"grants\[0\]\.application: must be set"):
        await admin.create_caller("shop", [Grant(role=Role.ISSUER, application="")])
    with pytest.raises(InvalidArgument, match=r"grants\[0\]\.role"):
        await admin.create_caller("shop", [Grant(role=Role.UNSPECIFIED)])
    with pytest.raises(InvalidArgument, match="overlap: must be a duration from 1 ms to 30 days"):
        await admin.rotate_caller("ops", overlap=timedelta(days=31))


async def test_nobody_is_called_like_the_authority(app: App) -> None:
    """No caller gets a name that events have for the authority itself or for calls without a key."""
    assert {Cause(CauseKind.CONFIGURATION).actor, Callers().identify("", None).name} == RESERVED_NAMES
    async with calling(app) as anyone:
        for name in RESERVED_NAMES:
            with pytest.raises(InvalidArgument, match=f'name: "{name}" is in events for the authority itself'):
                await anyone.create_caller(name, ADMIN)


async def test_a_repeated_creation_returns_the_same_key(admin: AsyncClient) -> None:
    """A creation that is repeated with its request id returns the first response, key included."""
    request_id = "7d9b0c6e-ca9a-4ca9-8ca9-0123456789ab"
    first = await admin.create_caller("shop", ISSUER, request_id=request_id)
    again = await admin.create_caller("shop", ISSUER, request_id=request_id)
    assert first == again


async def test_an_application_is_hidden_from_callers_of_others(tmp_path: Path, clock: ManualClock) -> None:
    """GetAuthority shows a caller only the applications that it has a role for."""
    text = "[applications.shop]\n[applications.bank]\n"
    async with serving(config_for(tmp_path, text), clock) as app, calling(app) as anyone:
        ops = await anyone.create_caller("ops", ADMIN)
        async with calling(app, ops.key) as admin:
            shop = await admin.create_caller("shop", [Grant(role=Role.ISSUER, application="shop")])
            assert [item.name for item in (await admin.authority()).applications] == ["bank", "shop"]
        async with calling(app, shop.key) as client:
            assert [item.name for item in (await client.authority()).applications] == ["shop"]


def test_a_key_never_shows() -> None:
    """Neither a client nor its settings show the key, and a wrong key is refused without being shown."""
    key = "sessiond_aaaaaaaaaa_" + "k" * 43
    client = AsyncClient("127.0.0.1:1", key=key)
    assert key not in repr(client) + repr(client._settings)
    with pytest.raises(InvalidArgument, match="key: must be a caller key") as caught:
        AsyncClient("127.0.0.1:1", key="sécret\n" + key)
    assert key not in str(caught.value)
