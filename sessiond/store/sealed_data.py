"""Conversion between plain session data and its stored form, shared by every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sessiond.crypto.session_data import DataCipher
from sessiond.domain.errors import DataUnreadable
from sessiond.domain.immutable import immutable
from sessiond.domain.key_ring import SealingKey
from sessiond.domain.values import Instant, SessionId
from sessiond.store.rows import Row

__all__ = ["SealedValues", "StoreKeys", "value_row"]


@immutable
class StoreKeys:
    """The part of the keys that a store needs.

    cipher        encrypts and decrypts session data
    fingerprints  of the key ring, the sealing key's first; empty: the store does not check that keys and database match
    now           the time from which changes of the ring count
    learn         called with the recorded ring before it is checked; returns the fingerprints again, which may be more
                  if the store has keys that another process has left for this one
    name          what messages call the place that the keys come from; empty: the key file in the data folder
    waits         whether the first key may be unknown to other processes, because it does not seal before they know it
    """

    cipher: DataCipher
    fingerprints: Sequence[bytes] = ()
    now: Instant = Instant(0)
    learn: Callable[[Sequence[SealingKey]], Sequence[bytes]] | None = None
    name: str = ""
    waits: bool = False

    def known(self, recorded: Sequence[SealingKey]) -> Sequence[bytes]:
        """Return the fingerprints of the keys that are held after learning from the recorded ring."""
        return self.fingerprints if self.learn is None else self.learn(recorded)


def value_row(
    cipher: DataCipher | None, session_id: SessionId, key: str, value: bytes, *, sealed: bool = False
) -> dict[str, Any]:
    """Return the row of one value, sealed if the cipher is set to encrypt. `sealed`: seal it also if it is not."""
    sealed = cipher is not None and (sealed or cipher.encrypts)
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
