"""Conversion between plain session data and its stored form, shared by every engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sessiond.crypto.session_data import DataCipher
from sessiond.domain.errors import DataUnreadable
from sessiond.domain.immutable import immutable
from sessiond.domain.values import SessionId
from sessiond.store.rows import Row

__all__ = ["SealedValues", "StoreKeys", "value_row"]


@immutable
class StoreKeys:
    """The part of the keys that a store needs.

    cipher        encrypts and decrypts session data
    fingerprints  of the key ring, the sealing key's first; empty: the store does not check that keys and database match
    """

    cipher: DataCipher
    fingerprints: Sequence[bytes] = ()


def value_row(cipher: DataCipher | None, session_id: SessionId, key: str, value: bytes) -> dict[str, Any]:
    """Return the row of one value, sealed if the cipher is set to encrypt."""
    sealed = cipher is not None and cipher.encrypts
    stored = cipher.seal(session_id, key, value) if cipher is not None and sealed else value
    return {"session_id": bytes(session_id), "key": key, "value": stored, "sealed": int(sealed)}


class SealedValues(Mapping[str, bytes]):
    """One session's data as read from the store. A value is decrypted on access, which may raise `DataUnreadable`.

    Decryption is deferred because a transaction reads on behalf of many callers, and only the caller whose value is
    unreadable may fail.
    """

    def __init__(self, cipher: DataCipher | None, session_id: SessionId, rows: Iterable[Row]) -> None:
        self._cipher = cipher
        self._session_id = session_id
        self._rows = {row["key"]: row for row in rows}

    def __getitem__(self, key: str) -> bytes:
        row = self._rows[key]
        value: bytes = row["value"]
        if not row["sealed"]:
            return value
        if self._cipher is None:
            raise DataUnreadable(self._session_id, "it is sealed, but the store was opened without keys")
        return self._cipher.open(self._session_id, key, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
