"""Callers over one Postgres: a change at one replica counts at the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, Grant, Role, SessiondError, Token, Unauthenticated, Unavailable
from tests.support.clock import ManualClock
from tests.support.replicas import replica, replicas

ADMIN = [Grant(role=Role.ADMIN)]
BOTH = [Grant(role=Role.ISSUER), Grant(role=Role.SUBSCRIBER)]
PATIENCE = 10.0


async def until_the_end(waiting: asyncio.Future[Any], events: AsyncIterator[Any]) -> None:
    """Read events until the stream ends. That of the revocation may come before the end."""
    await waiting
    async for _ in events:
        pass


@pytest.fixture
async def both(tmp_path: Path, database: str, clock: ManualClock) -> AsyncIterator[list[App]]:
    async with replicas(tmp_path, database, clock=clock) as running:
        yield running


@pytest.fixture
async def ops(both: list[App]) -> Token:
    """The key of the first caller, who was added at the first replica. The other one knows of it."""
    async with AsyncClient(both[0].address) as one, AsyncClient(both[1].address) as other:
        first = await one.create_caller("ops", ADMIN)
        await until_refused(other)
        return first.key


async def until_refused(client: AsyncClient, *before: type[SessiondError]) -> None:
    """Call until the caller is refused; with these errors it goes on calling."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await client.validate("")
            except Unauthenticated:
                return
            except before:
                continue


async def call_on(client: AsyncClient) -> None:
    """Call until that raises."""
    while True:
        await client.validate("")


async def until_known(client: AsyncClient) -> None:
    """Call until the caller is known."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await client.validate("")
            except Unauthenticated:
                continue
            return


async def test_the_first_caller_closes_both(both: list[App], ops: Token) -> None:
    """From the first caller on, added at one replica, the other refuses everyone without a key, and knows the key."""
    async with AsyncClient(both[1].address) as anyone, AsyncClient(both[1].address, key=ops) as admin:
        await until_refused(anyone)
        assert [caller.name for caller in await admin.list_callers()] == ["ops"]


async def test_a_caller_revoked_on_one_is_refused_on_the_other(both: list[App], ops: Token) -> None:
    """A caller is known at both; after its revocation at one it is refused at the other, and its stream there ends."""
    async with AsyncClient(both[0].address, key=ops) as admin:
        shop = await admin.create_caller("shop", BOTH)
        async with AsyncClient(both[1].address, key=shop.key) as client:
            await until_known(client)
            created = await client.create(subject="ada")
            assert (await client.validate(created.token)).valid
            async with client.events(applications=[], start="earliest") as events:
                await asyncio.wait_for(anext(events), PATIENCE)  # from then on the stream is open
                waiting = asyncio.ensure_future(anext(events))
                await admin.revoke_caller("shop")
                await until_refused(client)
                with pytest.raises(Unauthenticated):
                    await asyncio.wait_for(until_the_end(waiting, events), PATIENCE)
            with pytest.raises(Unauthenticated):
                await client.validate(created.token)


async def test_a_rotation_at_one_counts_at_the_other(both: list[App], ops: Token, clock: ManualClock) -> None:
    """After a rotation both keys work at the other replica until the end of the overlap, then only the new one."""
    async with AsyncClient(both[0].address, key=ops) as admin:
        old = await admin.create_caller("shop", BOTH)
        new = await admin.rotate_caller("shop", overlap=timedelta(minutes=1))
    async with AsyncClient(both[1].address, key=old.key) as before, AsyncClient(both[1].address, key=new.key) as after:
        await until_known(after)
        await before.validate("")
        clock.advance(60_000)
        with pytest.raises(Unauthenticated, match="expired"):
            await before.validate("")
        await after.validate("")


async def test_both_cannot_remove_the_last_admin(both: list[App], ops: Token) -> None:
    """If two admins are revoked at the same time at two replicas, one of them stays."""
    async with AsyncClient(both[0].address, key=ops) as one, AsyncClient(both[1].address, key=ops) as other:
        deputy = await one.create_caller("deputy", ADMIN)
        await until_known(other)
        outcomes = await asyncio.gather(one.revoke_caller("ops"), other.revoke_caller("deputy"), return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert len(failed) == 1
    async with AsyncClient(both[0].address, key=ops) as one, AsyncClient(both[0].address, key=deputy.key) as other:
        known = 0
        for client in (one, other):
            try:
                known += len(await client.list_callers())
            except Unauthenticated:
                continue
        assert known == 1


async def test_a_replica_that_cannot_follow_trusts_no_caller(both: list[App], ops: Token) -> None:
    """A replica that reads nothing of the others serves a revoked caller for the length of a lease, and no longer."""
    async with (
        AsyncClient(both[0].address, key=ops) as admin,
        AsyncClient(both[1].address, key=ops, retries=0) as other,
    ):
        shop = await admin.create_caller("shop", BOTH)
        async with AsyncClient(both[1].address, key=shop.key, retries=0) as client:
            await until_known(client)
            follower = both[1].authority.parts.follower
            assert follower is not None
            async with follower._turn:  # the replica reads nothing
                await admin.revoke_caller("shop")
                with pytest.raises(Unavailable, match="cannot tell who may call"):
                    await asyncio.wait_for(call_on(client), PATIENCE)
                with pytest.raises(Unavailable):
                    await other.validate("")
            await until_refused(client, Unavailable)
            await until_known(other)


async def test_a_replica_that_starts_later_knows_the_callers(
    tmp_path: Path, database: str, both: list[App], ops: Token
) -> None:
    """A replica reads the callers when it starts, and serves nobody before."""
    async with replica(tmp_path, database, 2) as third, AsyncClient(third.address) as anyone:
        with pytest.raises(Unauthenticated):
            await anyone.validate("")
        async with AsyncClient(third.address, key=ops) as admin:
            await admin.validate("")
