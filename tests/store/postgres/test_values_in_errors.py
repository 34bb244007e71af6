"""No value from a row or a statement gets into an error, and so into a log."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from sessiond.config.store_address import PostgresAddress
from sessiond.domain.values import Revision
from sessiond.store.contract import StoreFailed
from sessiond.store.postgres.errors import ValueRejected
from sessiond.store.postgres.store import PostgresStore
from tests.contracts import samples
from tests.contracts.store import data_of, put, write

SECRET = "radioactive"


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(PostgresAddress(database))
    yield store
    await store.close()


def shown(error: BaseException) -> str:
    """Return everything that a log would show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize("value", [SECRET, 7], ids=["a text", "a number"])
async def test_a_value_that_is_rejected_is_not_shown(store: PostgresStore, value: Any) -> None:
    """A value that the driver rejects fails its write alone, is not shown, and does not stop the store."""
    session = samples.session()
    await put(store, session)
    with pytest.raises(ValueRejected) as rejected:
        await write(store, data={session.id: {"cart": cast("bytes", value)}})
    assert SECRET not in shown(rejected.value)
    await write(store, data={session.id: {"cart": b"3 apples"}})
    assert await data_of(store, session.id) == {"cart": b"3 apples"}


async def test_a_read_with_a_value_that_is_rejected(store: PostgresStore) -> None:
    """The same holds for a read."""
    with pytest.raises(ValueRejected) as rejected:
        await store.activity("default", f"{SECRET}\0", None, 10)
    assert SECRET not in shown(rejected.value)
    assert await store.activity("default", SECRET, None, 10) == []


async def test_a_row_that_is_rejected_is_not_shown(store: PostgresStore) -> None:
    """The database's detail about a row that breaks a rule, which can show the whole row, is left out."""
    await write(store, events=[samples.event(1)])
    with pytest.raises(StoreFailed) as failed:
        await write(store, events=[samples.event(1, subject=SECRET), samples.event(Revision(1), subject=SECRET)])
    assert "duplicate key" in str(failed.value)
    assert "DETAIL" not in shown(failed.value)
    assert SECRET not in shown(failed.value)
