"""A dump is restored: nothing continues from what came after it.

The same for a copied SQLite folder is in `tests/rpc/test_consistency.py`.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from scripts.postgres import LocalPostgres
from tests.support.lost_log import BEFORE, LOST, check, open_one, write_before, write_lost
from tests.support.postgres import new_database
from tests.support.replicas import replicas
from tests.support.server import AsyncStub, stub_for
from tests.support.streams import position, read_to_end, read_up_to, subscribe
from tests.support.tokens import revision_in


def name_of(database: str) -> str:
    """Return the name of a database."""
    return urlsplit(database).path.removeprefix("/")


async def run(server: LocalPostgres, program: str, *arguments: str) -> None:
    """Run one of Postgres' programs on a server, without blocking the replicas."""
    await asyncio.to_thread(
        server.run, program, "-h", "127.0.0.1", "-p", str(server.port), "-U", "sessiond", *arguments
    )


async def dump(server: LocalPostgres, database: str) -> None:
    """Write a dump of a database, as an operator would, while replicas use it."""
    await run(server, "pg_dump", "--format=custom", f"--file={server.folder}/dump", f"--dbname={name_of(database)}")


async def restore(server: LocalPostgres, database: str) -> None:
    """Restore the dump into an empty database."""
    await run(server, "pg_restore", "--exit-on-error", f"--dbname={name_of(database)}", f"{server.folder}/dump")


async def go_on(stubs: list[AsyncStub], old_cursor: str) -> None:
    """Check that new writes follow the dump, and that a cursor from before the dump sees them without a gap."""
    after = [revision_in(await open_one(stub)) for stub in stubs]
    assert after == [BEFORE + 1, BEFORE + 2]
    for stub in stubs:
        items = await read_up_to(subscribe(stub, cursor=old_cursor), after[-1])
        assert [position(item) for item in items if item.HasField("event")] == after


async def test_replicas_over_a_restored_dump(tmp_path: Path, server: LocalPostgres) -> None:
    """Replicas that start over a restored dump refuse what was given out after it, and resume what was before it."""
    database, restored = await new_database(server.url()), await new_database(server.url())
    async with replicas(tmp_path, database) as (first, _), stub_for(first.address) as stub:
        lost = await write_before(stub)
        await dump(server, database)
        await write_lost(stub, lost)
    await restore(server, restored)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(replicas(tmp_path, restored))
        stubs = [await stack.enter_async_context(stub_for(app.address)) for app in running]
        for stub in stubs:
            await check(stub, lost)
        await go_on(stubs, lost.old_cursor)


async def test_a_dump_is_restored_under_running_replicas(tmp_path: Path, server: LocalPostgres) -> None:
    """Replicas whose database is replaced by its dump while they run end their streams, and refuse the same."""
    database, restored = await new_database(server.url()), await new_database(server.url())
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(replicas(tmp_path, database))
        stubs = [await stack.enter_async_context(stub_for(app.address)) for app in running]
        lost = await write_before(stubs[0])
        await dump(server, database)
        await write_lost(stubs[0], lost)
        live = [subscribe(stub) for stub in stubs]
        for stream in live:
            await read_up_to(stream, BEFORE + LOST)
        await restore(server, restored)
        await run(server, "dropdb", "--force", name_of(database))
        rename = f"ALTER DATABASE {name_of(restored)} RENAME TO {name_of(database)}"
        await run(server, "psql", "--dbname=postgres", f"--command={rename}")
        for stream in live:
            _, end = await asyncio.wait_for(read_to_end(stream), 20)
            assert end.code() is grpc.StatusCode.OUT_OF_RANGE
        for stub in stubs:
            await check(stub, lost)
        await go_on(stubs, lost.old_cursor)
