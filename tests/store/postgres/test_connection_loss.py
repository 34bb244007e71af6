"""A lost connection never repeats a write, and never loses one that was acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from sessiond.config.store_address import PostgresAddress
from sessiond.domain.values import Revision
from sessiond.store.contract import Changes, Decision, StoreUnavailable, Transaction
from sessiond.store.postgres.connections import Connection
from sessiond.store.postgres.store import PostgresStore
from tests.contracts import samples
from tests.support.proxy import AtCommit, PostgresProxy, proxied

_HELD_COMMIT = """
CREATE FUNCTION wait_in_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    WHILE NOT pg_try_advisory_xact_lock(7) LOOP PERFORM pg_sleep(0.01); END LOOP;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER wait_in_commit AFTER INSERT ON events
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_in_commit();
"""
"""Makes each COMMIT of an event wait while the test holds the advisory lock 7."""


@pytest.fixture
async def between(database: str) -> AsyncIterator[tuple[PostgresProxy, PostgresStore]]:
    """A store, and the proxy between it and Postgres."""
    async with proxied(database) as (proxy, url):
        store = await PostgresStore.open(PostgresAddress(url))
        try:
            yield proxy, store
        finally:
            proxy.heal()
            await store.close()


class Runs:
    """A write that appends one event about `subject`, and counts its runs."""

    def __init__(self, subject: str = "ada") -> None:
        self.subject = subject
        self.count = 0

    async def __call__(self, transaction: Transaction) -> Decision[str]:
        """See `Store.write`."""
        self.count += 1
        event = samples.event(transaction.head.revision + 1, subject=self.subject)
        return Decision(Changes(events=[event]), f"{self.subject}, run {self.count}")


async def subjects(store: PostgresStore) -> list[str]:
    """Return the subjects of all events in the log, whose revisions have no gap."""
    events = await store.events(Revision(0), 10_000)
    assert [event.revision for event in events] == list(range(1, len(events) + 1))
    return [event.subject for event in events]


@pytest.mark.parametrize("what", [AtCommit.CUT_AFTER, AtCommit.SWALLOW])
async def test_a_write_whose_answer_is_lost_is_found_committed(
    between: tuple[PostgresProxy, PostgresStore], what: AtCommit
) -> None:
    """If COMMIT reached the server, the write is found by its mark, and is not carried out a second time."""
    proxy, store = between
    runs = Runs()
    proxy.strike(what)
    assert await store.write(runs) == "ada, run 1"
    assert proxy.struck.is_set()
    assert await subjects(store) == ["ada"]


@pytest.mark.parametrize("what", [AtCommit.CUT_BEFORE, AtCommit.STALL_BEFORE])
async def test_a_write_whose_commit_is_lost_is_carried_out_again(
    between: tuple[PostgresProxy, PostgresStore], what: AtCommit
) -> None:
    """If COMMIT never reached the server, the write is carried out once by the retry, also if the server holds on."""
    proxy, store = between
    runs = Runs()
    proxy.strike(what)
    assert await store.write(runs) == "ada, run 2"
    assert proxy.struck.is_set()
    assert await subjects(store) == ["ada"]


async def test_a_commit_that_takes_long_is_waited_for(
    between: tuple[PostgresProxy, PostgresStore], beside: Connection
) -> None:
    """While the server still works on the COMMIT whose answer was lost, the store waits, and then finds the mark."""
    proxy, store = between
    await beside.execute(_HELD_COMMIT)
    await beside.execute("SELECT pg_advisory_lock(7)")
    proxy.strike(AtCommit.CUT_AFTER)
    writing = asyncio.create_task(store.write(Runs()))
    await until_waiting(beside)  # the store looks for its mark, and the COMMIT still holds the head
    assert not writing.done()
    await beside.execute("SELECT pg_advisory_unlock(7)")
    assert await writing == "ada, run 1"
    assert await subjects(store) == ["ada"]


@pytest.mark.parametrize("what", [AtCommit.CUT_AFTER, AtCommit.SWALLOW])
async def test_a_commit_that_takes_too_long_has_an_unknown_outcome(
    between: tuple[PostgresProxy, PostgresStore], beside: Connection, what: AtCommit
) -> None:
    """If the server does not finish the COMMIT in time, the call fails as unknown, and the write may still come."""
    proxy, store = between
    await beside.execute(_HELD_COMMIT)
    await beside.execute("SELECT pg_advisory_lock(7)")
    proxy.strike(what)
    with pytest.raises(StoreUnavailable) as failure:
        await store.write(Runs())
    assert "unknown" in failure.value.public
    await beside.execute("SELECT pg_advisory_unlock(7)")
    assert await store.write(Runs("bob")) == "bob, run 1"
    assert await subjects(store) == ["ada", "bob"]


async def test_writes_with_a_slow_network(between: tuple[PostgresProxy, PostgresStore]) -> None:
    """A network that delays everything slows writes down, and neither fails nor repeats them."""
    proxy, store = between
    proxy.request_delay = proxy.answer_delay = 0.05
    for number in range(3):
        assert await store.write(Runs(f"s{number}")) == f"s{number}, run 1"
    assert await subjects(store) == ["s0", "s1", "s2"]


async def test_a_black_hole_ends(between: tuple[PostgresProxy, PostgresStore]) -> None:
    """While nothing passes, reads and writes fail in bounded time; afterwards the same store works again."""
    proxy, store = between
    await store.write(Runs("before"))
    proxy.black_hole()
    async with asyncio.timeout(20):
        with pytest.raises(StoreUnavailable):
            await store.head()
        with pytest.raises(StoreUnavailable):
            await store.write(Runs("lost"))
    proxy.heal()
    await store.write(Runs("after"))
    found = await subjects(store)
    assert [subject for subject in found if subject != "lost"] == ["before", "after"]
    assert found.count("lost") <= 1


async def test_refused_connections_fail_fast(between: tuple[PostgresProxy, PostgresStore]) -> None:
    """While the server refuses connections, reads fail at once, and so does each write after the first that failed."""
    proxy, store = between
    proxy.refuses = True
    proxy.drop()
    with pytest.raises(StoreUnavailable):
        await store.head()
    with pytest.raises(StoreUnavailable):
        await store.write(Runs("refused"))
    tries = proxy.accepted
    with pytest.raises(StoreUnavailable):
        await store.write(Runs("refused"))
    assert proxy.accepted == tries + 1
    proxy.heal()
    assert await subjects(store) == []
    await store.write(Runs("after"))
    assert await subjects(store) == ["after"]


@pytest.mark.parametrize("seed", range(3))
async def test_every_acknowledged_write_is_there_once(between: tuple[PostgresProxy, PostgresStore], seed: int) -> None:
    """However connections are cut, an acknowledged write is in the log once, and any other at most once."""
    proxy, store = between
    chance = random.Random(seed)
    acknowledged: list[str] = []
    unknown: list[str] = []
    done = asyncio.Event()

    async def cut() -> None:
        while not done.is_set():
            await asyncio.sleep(chance.uniform(0, 0.1))
            if chance.random() < 0.5:
                proxy.drop()
            else:
                proxy.strike(chance.choice([AtCommit.CUT_AFTER, AtCommit.CUT_BEFORE]))

    cutting = asyncio.create_task(cut())
    for number in range(60):
        try:
            await store.write(Runs(f"s{number}"))
            acknowledged.append(f"s{number}")
        except StoreUnavailable:
            unknown.append(f"s{number}")
    done.set()
    await cutting
    found = await subjects(store)
    assert len(found) == len(set(found))
    assert [subject for subject in found if subject not in unknown] == acknowledged
    assert len(acknowledged) > 40


async def until_waiting(beside: Connection) -> None:
    """Wait until another connection of this database waits for a lock."""
    async with asyncio.timeout(20):
        while not await beside.fetchval(  # noqa: ASYNC110 - the server does not tell when somebody waits
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ):
            await asyncio.sleep(0.02)
