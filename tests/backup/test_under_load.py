"""Backups of a server under load, restored and compared with the server."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sessiond.config.data_folder import key_file_in
from sessiond_client import AsyncClient, Event, EventType, SessiondError
from tests.backup.archives import back_up, description_of, put_back
from tests.support.server import ServerProcess

BACKUPS = 4


@dataclass
class Load:
    """Clients that open, change and end sessions. `known` and `ended`: the sessions of calls that were answered."""

    known: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    errors: list[SessiondError] = field(default_factory=list)

    async def run(self, client: AsyncClient, dice: random.Random) -> None:
        """Work until cancelled."""
        while True:
            created = await client.create(subject=f"user {dice.randrange(50)}", data={"cart": dice.randbytes(2_000)})
            session_id = created.session.session_id
            self.known.append(session_id)
            await client.update_data(token=created.token, set={"cart": dice.randbytes(500)})
            if dice.random() < 0.4:
                await client.revoke(token=created.token)
                self.ended.append(session_id)


@asynccontextmanager
async def under_load(address: str) -> AsyncIterator[Load]:
    """Let clients work during the block."""
    load = Load()
    async with AsyncClient(address) as client:
        tasks = [asyncio.create_task(load.run(client, random.Random(number))) for number in range(12)]
        try:
            yield load
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, SessiondError):
                    load.errors.append(outcome)


async def events_of(client: AsyncClient, count: int) -> list[Event]:
    """The first events of the log, without their cursors, which name the incarnation."""
    found: list[Event] = []
    async with asyncio.timeout(60), client.events(start="earliest", applications=[]) as stream:
        while len(found) < count:
            found.append(replace(await anext(stream), cursor=""))
    return found


@pytest.mark.slow
async def test_each_backup_is_one_state(tmp_path: Path) -> None:
    """A backup under load has exactly the events up to its revision, the sessions that they left, and all that was
    acknowledged before it began; nobody's call failed.
    """
    folder = tmp_path / "source"
    folder.mkdir()
    server = ServerProcess(folder)
    try:
        address = await server.address()
        before: list[tuple[set[str], set[str]]] = []
        async with under_load(address) as load:
            for number in range(BACKUPS):
                await asyncio.sleep(0.5)
                before.append((set(load.known), set(load.ended)))
                result = await back_up(address, tmp_path / f"{number}.tar")
                assert result.exit_code == 0, result.output
        assert load.errors == []
        revisions = [description_of(tmp_path / f"{number}.tar")["revision"] for number in range(BACKUPS)]
        assert revisions == sorted(set(revisions))
        async with AsyncClient(address) as client:
            events = await events_of(client, revisions[-1])
        for number, (known, ended) in enumerate(before):
            await compare(tmp_path, number, events[: revisions[number]], known, ended)
    finally:
        server.kill()


async def compare(tmp_path: Path, number: int, events: list[Event], known: set[str], ended: set[str]) -> None:
    """Restore a backup, and compare what a server on it says."""
    home = tmp_path / f"restored {number}"
    (home / "data").mkdir(parents=True, mode=0o700)
    shutil.copy(key_file_in(tmp_path / "source" / "data"), key_file_in(home / "data"))
    result = await put_back(tmp_path / f"{number}.tar", home / "data")
    assert result.exit_code == 0, result.output
    server = ServerProcess(home)
    try:
        async with AsyncClient(await server.address()) as client:
            assert (await client.authority()).revision == len(events)
            assert await events_of(client, len(events)) == events
            live = {one.session_id async for one in client.list()}
    finally:
        await server.terminate()
    opened = {one.session_id for one in events if one.type is EventType.SESSION_CREATED}
    revoked = {one.session_id for one in events if one.type is EventType.SESSION_REVOKED}
    assert live == opened - revoked
    assert known <= opened
    assert ended <= revoked
