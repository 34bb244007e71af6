"""The reads of one run of a write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from sessiond.crypto.session_data import DataCipher
from sessiond.domain.key_ring import KeyHolder
from sessiond.store.contract import Head
from sessiond.store.postgres.connections import Connection
from sessiond.store.postgres.statements import STATEMENTS, own
from sessiond.store.reads import TransactionReads

__all__ = ["PostgresTransaction"]


class PostgresTransaction(TransactionReads):
    """See `Transaction`. The connection is in a transaction that holds the log's head, unless it is a quiet one."""

    def __init__(self, connection: Connection, cipher: DataCipher | None, head: Head) -> None:
        super().__init__(cipher, head)
        self._connection = connection

    async def holders(self) -> Sequence[KeyHolder]:
        """See `Transaction`. Replicas register while they hold the log's head, so none can begin to run meanwhile."""
        rows = await self._connection.fetch(own("live_replicas").sql)
        return [KeyHolder(row["name"], row["fingerprints"]) for row in rows if row["fingerprints"]]

    async def _query(self, name: str, values: Mapping[str, Any]) -> Sequence[asyncpg.Record]:
        statement = STATEMENTS[name]
        return await self._connection.fetch(statement.sql, *statement.bind(values))

    async def _by_keys(self, name: str, keys: Sequence[bytes]) -> Sequence[asyncpg.Record]:
        rows: list[asyncpg.Record] = []
        for statement, parameters in STATEMENTS[name].among(keys):
            rows += await self._connection.fetch(statement.sql, *parameters)
        return rows
