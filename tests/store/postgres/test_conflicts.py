"""A conflict with another transaction is no failure: the write runs again as a whole."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from sessiond.domain.session import Activity
from sessiond.domain.values import Instant, Revision
from sessiond.store.contract import Changes, Decision, StoreUnavailable, Transaction
from sessiond.store.postgres.connections import Connection
from sessiond.store.postgres.store import PostgresStore
from tests.contracts import samples
from tests.contracts.store import append, put
from tests.support.clock import START

CONFLICTS = ("40001", "40P01")
_RAISE = """
CREATE SEQUENCE conflicts;
CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('conflicts') <= {times} THEN RAISE EXCEPTION 'injected' USING ERRCODE = '{code}'; END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER conflict AFTER INSERT ON events
    DEFERRABLE INITIALLY {when} FOR EACH ROW EXECUTE FUNCTION conflict();
"""


async def inject(beside: Connection, code: str, times: int, when: str = "IMMEDIATE") -> None:
    """Have the next insertions of an event fail with this error, or the COMMITs if `when` is DEFERRED."""
    await beside.execute(_RAISE.format(code=code, times=times, when=when))


class Runs:
    """A write that appends one event after the head, and returns the number of its run."""

    def __init__(self) -> None:
        self.heads: list[Revision] = []

    async def __call__(self, transaction: Transaction) -> Decision[int]:
        """See `Store.write`."""
        self.heads.append(transaction.head.revision)
        event = samples.event(transaction.head.revision + 1, subject=f"run {len(self.heads)}")
        return Decision(Changes(events=[event]), len(self.heads))


async def subjects(store: PostgresStore) -> list[str]:
    """Return the subjects of all events in the log."""
    return [event.subject for event in await store.events(Revision(0), 100)]


@pytest.mark.parametrize("code", CONFLICTS)
@pytest.mark.parametrize("when", ["IMMEDIATE", "DEFERRED"])
async def test_a_conflict_is_retried_whole(store: PostgresStore, beside: Connection, code: str, when: str) -> None:
    """After a conflict in a statement or in COMMIT, the write decides again, and only its last run counts."""
    await inject(beside, code, 2, when)
    runs = Runs()
    assert await store.write(runs) == 3
    assert await subjects(store) == ["run 3"]
    assert (await store.head()).revision == 1


@pytest.mark.parametrize("code", CONFLICTS)
async def test_conflicts_without_end_are_a_failure_of_the_call(
    store: PostgresStore, beside: Connection, code: str
) -> None:
    """A write that only meets conflicts ends with `StoreUnavailable`, has changed nothing, and the store works on."""
    await inject(beside, code, 1_000_000)
    with pytest.raises(StoreUnavailable):
        await store.write(Runs())
    assert await subjects(store) == []
    await beside.execute("DROP TRIGGER conflict ON events")
    assert await store.write(Runs()) == 1


async def test_a_run_after_a_conflict_sees_what_was_committed_in_between(
    store: PostgresStore, beside: Connection, closing: AsyncExitStack
) -> None:
    """The second run of a write decides on the state that another replica has committed since the first run."""
    await inject(beside, "40001", 1)
    other = await PostgresStore.open(store._address)
    closing.push_async_callback(other.close)
    found: list[Revision] = []
    async with asyncio.TaskGroup() as group:

        async def decide(transaction: Transaction) -> Decision[Revision]:
            if not found:
                group.create_task(append(other, samples.event(1)))
                await _until_one_waits(beside)  # for the head, which this transaction holds
            found.append(transaction.head.revision)
            return Decision(Changes(events=[samples.event(transaction.head.revision + 1)]), transaction.head.revision)

        answer = await store.write(decide)
    assert (answer, found, (await store.head()).revision) == (1, [0, 1], 2)


async def test_a_real_deadlock_is_retried(store: PostgresStore, beside: Connection) -> None:
    """A write that the server chooses as the victim of a deadlock runs again, and sees what the winner committed."""
    session = samples.session(START)
    await put(store, session)
    runs: list[int] = []

    async def decide(transaction: Transaction) -> Decision[str]:
        found = (await transaction.sessions([session.id]))[session.id]
        runs.append(found.data_version)
        changed = replace(found, subject=f"version {found.data_version}", revision=Revision(1))
        event = samples.event(transaction.head.revision + 1, session_id=session.id)
        return Decision(Changes(sessions={session.id: changed}, events=[event]), changed.subject)

    await beside.execute("SET deadlock_timeout = '1h'")  # the store's connection looks for the deadlock, and loses
    async with beside.transaction():
        await beside.execute("UPDATE sessions SET data_version = 7")
        writing = asyncio.create_task(store.write(decide))
        await _until_one_waits(beside)
        await beside.execute("UPDATE log_head SET horizon = horizon")
    assert await writing == "version 7"
    assert runs == [0, 7]


async def test_quiet_writes_do_not_wait_for_the_head(store: PostgresStore, beside: Connection) -> None:
    """Activity alone is recorded while another transaction holds the log's head."""
    session = samples.session(START)
    await put(store, session)

    activity = Activity(session.id, Instant(START + 5), None, None)

    async def decide(_: Transaction) -> Decision[None]:
        return Decision(Changes(activity={session.id: activity}), None)

    async with beside.transaction():
        await beside.execute("SELECT 1 FROM log_head FOR UPDATE")
        async with asyncio.timeout(2):
            await store.write(decide, quiet=True)
    stored = await store.session(session.id)
    assert stored is not None
    assert stored.last_active == START + 5


async def _until_one_waits(beside: Connection) -> None:
    """Wait until a transaction of the store waits for a lock."""
    async with asyncio.timeout(10):
        while not await beside.fetchval(  # noqa: ASYNC110 - the server does not tell when somebody waits
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)
