"""A store notices that the database was set back, also if the server shows no sign of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from sessiond.domain.values import Revision
from sessiond.store.postgres.connections import Connection
from sessiond.store.postgres.store import PostgresStore
from tests.contracts import samples
from tests.contracts.store import append, write

_SET_BACK = "DELETE FROM events WHERE revision > 1; UPDATE log_head SET revision = 1"


async def _look(store: PostgresStore) -> None:
    await store.head()


async def _write(store: PostgresStore) -> None:
    await write(store)


EITHER = pytest.mark.parametrize("notice", [_look, _write], ids=["by a look", "by a write"])
Notice = Callable[[PostgresStore], Awaitable[None]]


@EITHER
async def test_a_head_before_what_was_seen_begins_an_incarnation(
    store: PostgresStore, beside: Connection, notice: Notice
) -> None:
    """If the head is before a revision that this process has seen, a new incarnation begins after the head."""
    await append(store, *(samples.event(number) for number in (1, 2, 3)))
    before = list(store.incarnations)
    await beside.execute(_SET_BACK)
    await notice(store)
    assert store.incarnations[:-1] == before
    assert store.incarnations[-1].first == 2
    assert (await store.head()).revision == 1
    await append(store, samples.event(2))
    assert list(store.incarnations[:-1]) == before, "one is enough"
    assert await beside.fetchval("SELECT replaced FROM log_head")


async def test_a_log_that_went_on_begins_no_incarnation(store: PostgresStore) -> None:
    """Looks and writes of several replicas, in any order, leave the incarnation as it is."""
    other = await PostgresStore.open(store._address)
    try:
        await other.head()
        await store.head()
        for number in range(1, 7):
            await append((store, other)[number % 2], samples.event(number))
            assert (await other.head()).revision == (await store.head()).revision == number
        assert store.incarnations == other.incarnations
        assert store.incarnations[-1].first == 1
    finally:
        await other.close()


@EITHER
async def test_another_incarnation_of_the_same_number_is_noticed(
    store: PostgresStore, beside: Connection, notice: Notice
) -> None:
    """After a loss another replica may begin an incarnation with the number of one that was lost."""
    await append(store, samples.event(1))
    await store.head()
    await beside.execute("UPDATE log_head SET incarnation_began = clock_timestamp()")
    await beside.execute("UPDATE incarnations SET incarnation = '\\x0102030405060708', first_revision = 1")
    await notice(store)
    assert [(run.id, run.first) for run in store.incarnations] == [(bytes(range(1, 9)), Revision(1))]
