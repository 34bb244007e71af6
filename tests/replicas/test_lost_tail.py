"""The end of the log is lost while replicas run: nothing continues from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from scripts.postgres import LocalPostgres
from sessiond.app import App
from sessiond_client import AsyncClient, Verdict
from tests.support.lost_log import BEFORE, LOST, check, open_one, write_before, write_lost
from tests.support.postgres import keep_copy, new_database, put_back_copy, start_again
from tests.support.replicas import replicas
from tests.support.server import stub_for
from tests.support.streams import position, read_to_end, read_up_to, subscribe
from tests.support.tokens import revision_in


@pytest.mark.parametrize("written", [0, LOST + 3], ids=["nothing is written since", "more was written since"])
async def test_a_lost_tail_is_refused(tmp_path: Path, server: LocalPostgres, written: int) -> None:
    """After the database was set back, each replica ends its streams and refuses what it gave out since."""
    database = await new_database(server.url())
    async with replicas(tmp_path, database) as (first, second):  # noqa: SIM117 - the inner one needs the outer one
        async with stub_for(first.address) as one, stub_for(second.address) as other:
            lost = await write_before(one)
            await stop_and(server, keep_copy)
            await write_lost(one, lost)
            live = [subscribe(stub) for stub in (one, other)]
            for stream in live:
                await read_up_to(stream, BEFORE + LOST)
            early = subscribe(one, cursor=lost.old_cursor, subjects=["new"], interval_ms=100)
            await stop_and(server, put_back_copy)
            fresh = [revision_in(await open_one(other)) for _ in range(written)]
            assert fresh == list(range(BEFORE + 1, BEFORE + 1 + written))
            for stream in live:  # until then a replica may not have seen the loss
                ended = await asyncio.wait_for(read_to_end(stream), 20)
                assert ended[1].code() is grpc.StatusCode.OUT_OF_RANGE
            early.cancel()
            for stub in (one, other):
                await check(stub, lost)
            after = revision_in(await open_one(one))
            assert after == BEFORE + 1 + written
            for stub in (one, other):
                items = await read_up_to(subscribe(stub, cursor=lost.old_cursor), after)
                assert [position(item) for item in items if item.HasField("event")] == [*fresh, after]


async def test_awaited_revocations_work_after_a_lost_tail(tmp_path: Path, server: LocalPostgres) -> None:
    """After the database was set back, replicas hold leases and acknowledge again."""
    database = await new_database(server.url())
    async with replicas(tmp_path, database) as running:
        async with stub_for(running[0].address) as one:
            lost = await write_before(one)
            await stop_and(server, keep_copy)
            await write_lost(one, lost)
            await stop_and(server, put_back_copy)
            await open_one(one)
            await _until_open(running)
        async with AsyncClient(running[0].address) as client, AsyncClient(running[1].address) as other:
            assert (await other.validate(lost.old_token)).verdict is Verdict.VALID
            await client.revoke(token=lost.old_token, wait_for_caches=True)
            assert (await other.validate(lost.old_token)).verdict is Verdict.REVOKED


async def stop_and(server: LocalPostgres, do: Callable[[LocalPostgres], None]) -> None:
    """Stop the server, do something to its files, and start it again."""
    for step in (LocalPostgres.stop, do, start_again):
        await asyncio.to_thread(step, server)


async def _until_open(running: list[App]) -> None:
    """Wait until the caches of all replicas are open."""
    async with asyncio.timeout(20):
        for app in running:
            while not app.authority.parts.cache._is_open():  # noqa: ASYNC110 - a lease does not signal its beginning
                await asyncio.sleep(0.02)
