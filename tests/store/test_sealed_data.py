"""Session data in a database file: encrypted on request, and readable through every switch and rotation."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from sessiond.crypto.key_file import BadKeyFile
from sessiond.crypto.session_data import DataCipher
from sessiond.crypto.tokens import KEY_BYTES
from sessiond.domain.errors import DataUnreadable
from sessiond.domain.event import EventType
from sessiond.domain.values import SessionId
from sessiond.eventlog.journal import Journal
from sessiond.eventlog.work import Needs, Work
from sessiond.store.contract import StoreFailed
from sessiond.store.sealed_data import StoreKeys
from sessiond.store.sqlite.store import SqliteStore
from tests.contracts import samples
from tests.contracts.store import data_of, within, write
from tests.eventlog.memory import NO_MEMORY
from tests.store.sqlite.test_engine import fingerprint
from tests.support.clock import ManualClock

OLD, NEW = (bytes([number]) * KEY_BYTES for number in (1, 2))
VALUE = b"three green apples"


@asynccontextmanager
async def opened(path: Path, *keys: bytes, encrypts: bool = True) -> AsyncIterator[SqliteStore]:
    """Open the store with these keys; without any keys, open it without a cipher."""
    store = await SqliteStore.open(
        path, (lambda _: StoreKeys(DataCipher(keys, os.urandom, encrypts=encrypts))) if keys else None
    )
    try:
        yield store
    finally:
        await store.close()


async def put(store: SqliteStore, session_id: SessionId, **data: bytes | None) -> None:
    """Commit a session with this change of its data."""
    await write(store, sessions={session_id: samples.session(id=session_id)}, data={session_id: data})


def files_hold(path: Path, value: bytes) -> bool:
    """Return whether the database or a file beside it, its log included, contains these bytes."""
    beside = list(path.parent.glob(path.name + "*"))
    assert path in beside
    return any(value in file.read_bytes() for file in beside)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessiond.db"


@pytest.mark.parametrize("encrypts", [False, True], ids=["plain", "sealed"])
async def test_files_hold_no_value_when_asked(path: Path, encrypts: bool) -> None:
    """With encryption no file contains a value, not even the log while it is open; without encryption both do."""
    session = samples.session()
    async with opened(path, OLD, encrypts=encrypts) as store:
        await put(store, session.id, cart=VALUE, large=VALUE * 1000)
        assert path.with_name("sessiond.db-wal").stat().st_size > 0
        assert files_hold(path, VALUE) is not encrypts
        assert await data_of(store, session.id) == {"cart": VALUE, "large": VALUE * 1000}
    assert files_hold(path, VALUE) is not encrypts


async def test_switching_on_keeps_older_values(path: Path) -> None:
    """Values stored before encryption was turned on, or without keys, can be read together with sealed ones."""
    session = samples.session()
    async with opened(path) as store:
        await put(store, session.id, first=b"1", second=b"2")
    async with opened(path, OLD) as store:
        await put(store, session.id, second=b"two", third=b"3")
        assert await data_of(store, session.id) == {"first": b"1", "second": b"two", "third": b"3"}


async def test_switching_off_keeps_sealed_values(path: Path) -> None:
    """Values sealed before encryption was turned off stay readable beside plain ones, and are plain once set again."""
    session = samples.session()
    async with opened(path, OLD) as store:
        await put(store, session.id, first=b"1", second=VALUE)
    async with opened(path, OLD, encrypts=False) as store:
        await put(store, session.id, second=VALUE, third=b"3")
        assert await data_of(store, session.id) == {"first": b"1", "second": VALUE, "third": b"3"}
    assert files_hold(path, VALUE)


async def test_a_plain_value_may_look_sealed(path: Path) -> None:
    """A plain value that has the bytes of a sealed one is returned unchanged, through every switch."""
    session = samples.session()
    look_alike = DataCipher([OLD], os.urandom, encrypts=True).seal(session.id, "k", VALUE)
    for encrypts in (False, True, False):
        async with opened(path, OLD, encrypts=encrypts) as store:
            if not encrypts:
                await put(store, session.id, k=look_alike)
            assert await data_of(store, session.id) == {"k": look_alike}
            await put(store, session.id, k=look_alike)
            assert await data_of(store, session.id) == {"k": look_alike}


async def test_a_replaced_plain_value_leaves_no_trace(path: Path) -> None:
    """A plain value that is replaced or deleted while encryption is on leaves no trace in the file."""
    session, other = samples.session(), samples.session()
    async with opened(path) as store:
        await put(store, session.id, cart=VALUE, large=VALUE * 1000)
        await put(store, other.id, cart=VALUE)
    async with opened(path, OLD) as store:
        await put(store, session.id, cart=b"sealed now", large=b"and small")
        await put(store, other.id, cart=None)
    assert not files_hold(path, VALUE)


async def test_keys_rotate(path: Path) -> None:
    """After a rotation the values of both keys can be read, and values that are set again need only the new key."""
    session = samples.session()
    async with opened(path, OLD) as store:
        await put(store, session.id, first=b"1", second=b"2")
    async with opened(path, NEW, OLD) as store:
        await put(store, session.id, second=b"two")
        assert await data_of(store, session.id) == {"first": b"1", "second": b"two"}
        await put(store, session.id, first=b"one")
    async with opened(path, NEW) as store:
        assert await data_of(store, session.id) == {"first": b"one", "second": b"two"}


def tamper(path: Path, sql: str, *parameters: bytes) -> None:
    """Change the closed database without the store."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute(sql, parameters).rowcount == 1
        db.commit()


SET_ASIDE = "UPDATE session_data SET session_id = ? WHERE session_id = ? AND key = 'a'"
RENAMED = "UPDATE session_data SET key = 'other' WHERE session_id = ? AND key = 'a'"
ALTERED = "UPDATE session_data SET value = CAST(value || X'00' AS BLOB) WHERE session_id = ? AND key = 'a'"
UNSEALED = "UPDATE session_data SET value = X'00', sealed = 1 WHERE session_id = ? AND key = 'a'"


@pytest.mark.parametrize("sql", [RENAMED, ALTERED, UNSEALED], ids=["renamed", "altered", "no sealed value"])
async def test_what_was_altered_is_refused(path: Path, sql: str) -> None:
    """A value that was altered, renamed or unsealed raises an error that names the session, and the store goes on."""
    session, other = samples.session(), samples.session()
    async with opened(path, OLD) as store:
        await put(store, session.id, a=VALUE)
        await put(store, other.id, a=b"fine")
    tamper(path, sql, bytes(session.id))
    async with opened(path, OLD) as store:
        for _ in range(2):
            with pytest.raises(DataUnreadable, match=str(session.id)):
                await data_of(store, session.id)
        assert await data_of(store, other.id) == {"a": b"fine"}


async def test_a_moved_row_is_refused(path: Path) -> None:
    """A sealed value that is moved to another session is refused."""
    victim, thief = samples.session(), samples.session()
    async with opened(path, OLD) as store:
        await put(store, victim.id, a=VALUE)
        await put(store, thief.id)
    tamper(path, SET_ASIDE, bytes(thief.id), bytes(victim.id))
    async with opened(path, OLD) as store:
        with pytest.raises(DataUnreadable, match=str(thief.id)):
            await data_of(store, thief.id)
        assert await data_of(store, victim.id) == {}


@pytest.mark.parametrize("keys", [(), (NEW,)], ids=["no keys", "another key"])
async def test_values_without_their_key_are_refused(path: Path, keys: tuple[bytes, ...]) -> None:
    """Without its key a sealed value is refused and not treated as plain; once the key is back, it can be read."""
    session = samples.session()
    async with opened(path, OLD) as store:
        await put(store, session.id, a=VALUE)
    async with opened(path, *keys) as store:
        with pytest.raises(DataUnreadable, match=str(session.id)):
            await data_of(store, session.id)
    async with opened(path, NEW, OLD) as store:
        assert await data_of(store, session.id) == {"a": VALUE}


class Reads:
    """A unit that reads one session's data and sets a key of it."""

    def __init__(self, session_id: SessionId) -> None:
        self._session_id = session_id

    def needs(self) -> Needs:
        """Return the need of the session's data."""
        return Needs(sessions=[self._session_id], data=[self._session_id])

    def apply(self, work: Work) -> dict[str, bytes]:
        """Read the data, then write it."""
        session = work.session(self._session_id)
        assert session is not None
        data = work.data(self._session_id)
        work.put_data(self._session_id, {"seen": b"yes"})
        work.save(session, EventType.SESSION_DATA_CHANGED, samples.REVOKED)
        return data


async def test_unreadable_data_fails_its_own_caller_alone(path: Path) -> None:
    """In a group of commits only the unit whose data cannot be read fails; the others succeed, and none is fatal."""
    broken, whole = samples.session(), samples.session()
    async with opened(path, OLD) as store:
        await put(store, broken.id, a=VALUE)
    failures: list[StoreFailed] = []
    async with opened(path, NEW) as store:
        await put(store, whole.id, a=b"fine")
        journal = Journal(store, ManualClock(), NO_MEMORY, lambda _: None, failures.append)
        waiting = [journal.submit(Reads(session.id)) for session in (whole, broken, whole)]
        before, refused, after = await asyncio.gather(*waiting, return_exceptions=True)
        await journal.close()
        assert not isinstance(before, BaseException)
        assert before.result == {"a": b"fine"}
        assert isinstance(refused, DataUnreadable)
        assert not isinstance(after, BaseException)
        assert after.result == {"a": b"fine", "seen": b"yes"}
    assert failures == []
    async with opened(path, OLD) as store:
        assert await data_of(store, broken.id) == {"a": VALUE}


async def test_an_ending_drops_data_that_nobody_can_read(path: Path) -> None:
    """A session whose data cannot be read can be ended like any other, and its data is deleted."""
    session = samples.session()
    async with opened(path, OLD) as store:
        await write(store, sessions={session.id: session}, data={session.id: {"a": VALUE}})
    async with opened(path, NEW) as store:
        ended = samples.session(id=session.id, ending=samples.ending(session.created))
        found = await within(
            store, lambda transaction: transaction.sessions([session.id]), sessions={session.id: ended}
        )
        assert dict(found) == {session.id: session}
        assert await data_of(store, session.id) == {}


async def test_keys_are_made_beside_our_own_database_only(path: Path) -> None:
    """The cipher is requested only after the file is known to be ours; if that fails, the file is not changed."""

    def no_keys(_: bool) -> StoreKeys:
        raise BadKeyFile("no keys here")

    async with opened(path, OLD) as store:
        await put(store, samples.session_id(), a=VALUE)
    before = fingerprint(path.parent)
    with pytest.raises(BadKeyFile):
        await SqliteStore.open(path, no_keys)
    assert fingerprint(path.parent) == before
    async with opened(path, OLD):
        pass
