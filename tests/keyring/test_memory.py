"""Rotating keys under those that answer from memory: a sidecar and the workers of a server go on answering."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from sessiond.app import App
from sessiond_client import AsyncClient, Verdict
from tests.keyring.rings import rotate, until_removed
from tests.support.server import ServerProcess
from tests.support.sidecars import beside, is_open, until


async def uses(client: AsyncClient, rotation: Callable[[], Awaitable[None]]) -> int:
    """Validate one session, and open and validate others, during a rotation. Return how many calls were made."""
    token, done, calls = (await client.create(subject="ada")).token, asyncio.Event(), 0

    async def use() -> None:
        nonlocal calls
        while not done.is_set():
            assert (await client.validate(token)).valid
            fresh = (await client.create(subject="bob")).token
            assert (await client.validate(fresh)).valid
            calls += 3

    async with asyncio.TaskGroup() as group:
        group.create_task(use())
        await until(lambda: calls > 30)
        await rotation()
        reached = calls + 30
        await until(lambda: calls > reached)
        done.set()
    return calls


async def test_a_sidecar_over_a_rotation(app: App, tmp_path: Path) -> None:
    """During a rotation a sidecar denies nobody, and after a removal by force it does not answer from memory."""
    async with (
        beside(app.address, tmp_path) as sidecar,
        AsyncClient(app.address) as admin,
        AsyncClient(sidecar.address, coalesce=False) as client,
    ):
        await until(lambda: is_open(sidecar))
        old = ""

        async def rotation() -> None:
            nonlocal old
            old = await rotate(admin)

        await uses(client, rotation)
        first = (await admin.key_ring()).keys[0].fingerprint
        token = (await client.create(subject="ada")).token
        hits = sidecar.cache.stats().hits

        async def is_near() -> bool:
            assert (await client.validate(token)).valid
            return sidecar.cache.stats().hits > hits

        await until(is_near)
        await rotate(admin)
        for fingerprint in (old, first):
            await admin.retire_sealing_key(fingerprint, log_out_sessions=True)
            await until_removed(admin, fingerprint)

        async def is_forged() -> bool:
            return (await client.validate(token)).verdict is Verdict.FORGED

        await until(is_forged)


async def test_workers_over_a_rotation(tmp_path: Path) -> None:
    """During a rotation the workers of a server deny nobody, and follow a removal."""
    server = ServerProcess(tmp_path, "--workers", "1")
    try:
        async with AsyncClient(await server.address()) as client:
            before = (await client.create(subject="ada")).token

            async def rotation() -> None:
                old = await rotate(client)
                assert (await client.validate(before)).valid
                await client.promote_sealing_key(old)  # and back: each direction is a change of the ring
                await client.promote_sealing_key((await client.key_ring()).keys[1].fingerprint)

            await uses(client, rotation)
            old = (await client.key_ring()).keys[1].fingerprint
            await client.retire_sealing_key(old, log_out_sessions=True)
            await until_removed(client, old)

            async def is_forged() -> bool:
                return (await client.validate(before)).verdict is Verdict.FORGED

            await until(is_forged)
    finally:
        server.kill()
