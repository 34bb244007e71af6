"""The key ring of this process: kept as the store records it, with the keys that this process holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from sessiond.authority.key_sources import KeySource
from sessiond.crypto.key_file import BadKeyFile
from sessiond.crypto.session_data import DataCipher
from sessiond.crypto.tokens import KeyRing, fingerprint_of
from sessiond.domain.errors import KeyRingRefused
from sessiond.domain.key_ring import MAX_KEYS, KeyState, SealingKey, in_use, sealing_key, short

__all__ = ["RingKeeper"]

_RETRY = 2.0
"""Seconds until keys that could not be stored are stored again."""
_log = structlog.get_logger(__name__)


class RingKeeper:
    """Keeps `ring` and `cipher` as the store records the key ring, and the source of the keys as they are.

    The store decides which key seals. The keys themselves come from the source, or from another replica: the store then
    has them encrypted under a key that this process holds. `records` is the ring as the store last recorded it.
    """

    def __init__(self, ring: KeyRing, source: KeySource | None = None, cipher: DataCipher | None = None) -> None:
        self.ring = ring
        self.source = source
        self.records: Sequence[SealingKey] = ()
        self.on_held: Callable[[Sequence[bytes]], None] = lambda fingerprints: None
        """Called with the keys that this process holds durably, the one that it seals with first."""
        self.cipher = cipher
        self._keys = {fingerprint_of(key): key for key in ring.materials()}
        self._saved: tuple[bytes, ...] = ring.materials()
        self._turn = asyncio.Lock()
        self._saving: asyncio.Task[None] | None = None
        self._lacking: tuple[bytes, ...] = ()
        self._problem = ""

    @property
    def lacks_keys(self) -> bool:
        """Return whether there are keys in use that this process does not hold: it cannot tell what is forged."""
        return bool(self._lacking)

    def learn(self, records: Sequence[SealingKey]) -> Sequence[bytes]:
        """Take over the ring when the store is opened. Return the fingerprints of the keys that this process holds.

        Keys that another replica has left are stored in the source at once. Raise `BadKeyFile`.
        """
        first = self.ring.fingerprints()[0]
        if self._unwrap(records) and self.source is not None and not self.source.change:
            self.source.save(list(self._keys.values())[:MAX_KEYS])
        retired = {key.fingerprint for key in records if key.state is KeyState.RETIRED}
        held = [fingerprint for fingerprint in self._keys if fingerprint not in retired]
        # The order of the source is a request; what was learned comes after it.
        return sorted(held, key=lambda fingerprint: fingerprint != first)

    def apply(self, records: Sequence[SealingKey]) -> None:
        """Use the ring as it is recorded now. Must be called on the event loop; never raises."""
        self.records = records
        self._unwrap(records)
        for key in records:
            if key.state is KeyState.RETIRED:
                self._keys.pop(key.fingerprint, None)
        self._lacking = tuple(
            key.fingerprint
            for key in in_use(records)
            if key.fingerprint not in self._keys and key.state is not KeyState.ADDED
        )
        for fingerprint in self._lacking:
            _log.error(
                "key missing",
                key=short(fingerprint),
                effect="tokens that it sealed are refused with UNAVAILABLE",
                remedy="copy the key file of another replica, and run sessionctl reload",
            )
        self._use()

    def hold(self, key: bytes) -> None:
        """Hold a further key, which the store does not know yet: it opens, and does not seal. See `save`."""
        if len(self._keys) >= MAX_KEYS:
            raise KeyRingRefused(f"this server holds {MAX_KEYS} keys; retire one before you add another")
        self._keys[fingerprint_of(key)] = key
        self._use(save=False)

    def hold_all(self, keys: Sequence[bytes]) -> None:
        """Hold all of these keys besides those that are held already; further ones than a ring has are left out."""
        for key in keys:
            if len(self._keys) < MAX_KEYS:
                self._keys.setdefault(fingerprint_of(key), key)
        self.apply(self.records)

    def drop(self, fingerprint: bytes) -> None:
        """Forget a key that the store does not know. See `save`."""
        self._keys.pop(fingerprint, None)
        self._use(save=False)

    def holds(self, fingerprint: bytes) -> bool:
        """Return whether this process holds a key."""
        return fingerprint in self._keys

    def wrapped(self, fingerprint: bytes) -> bytes:
        """Return a key that this process holds, encrypted for those that hold the sealing key."""
        return self.ring.wrap(self._keys[fingerprint])

    async def save(self) -> None:
        """Store the keys where they come from, durably, if the server does that. Raise `BadKeyFile`."""
        async with self._turn:
            keys = self.ring.materials()
            if keys != self._saved and self.source is not None and not self.source.change:
                await asyncio.to_thread(self.source.save, keys)
            self._saved = keys
            # What was stored, not what is held by now: another replica may seal with a key that this one reports.
            self.on_held([fingerprint_of(key) for key in keys])

    async def settle(self) -> None:
        """Wait until the keys are stored as the last change left them, or that has failed."""
        while self._saving is not None:
            await asyncio.wait([self._saving])

    def _unwrap(self, records: Sequence[SealingKey]) -> bool:
        """Take the keys that another replica has left for this one. Return whether there were any."""
        found = False
        for record in in_use(records):
            if not record.wrapped or record.fingerprint in self._keys:
                continue
            key = self.ring.unwrap(record.wrapped, record.fingerprint)
            if key is not None:
                self._keys[record.fingerprint] = key
                found = True
        return found

    def _use(self, *, save: bool = True) -> None:
        """Seal with the recorded sealing key, and open with all others."""
        sealing = sealing_key(self.records)
        order = [key.fingerprint for key in in_use(self.records)]
        order += [fingerprint for fingerprint in self._keys if fingerprint not in order]
        held = [self._keys[fingerprint] for fingerprint in order if fingerprint in self._keys]
        if sealing is not None and sealing.fingerprint not in self._keys:
            # It goes on with the key that it sealed with, which the others know.
            first = self.ring.materials()[0]
            held = sorted(held, key=lambda key: key != first)
        if not held:
            return
        if tuple(held[:MAX_KEYS]) != self.ring.materials():
            self.ring.replace(held[:MAX_KEYS])
            if self.cipher is not None:
                self.cipher.replace(held[:MAX_KEYS])
        if save and self._saving is None and self.ring.materials() != self._saved:
            self._saving = asyncio.ensure_future(self._save_soon())

    async def _save_soon(self) -> None:
        try:
            while self.ring.materials() != self._saved:
                await self.save()
        except BadKeyFile as error:
            if str(error) != self._problem:
                _log.error("keys not stored", problem=str(error), effect="this server lacks a key after its next start")
            self._problem = str(error)
            asyncio.get_running_loop().call_later(_RETRY, self._use)
        else:
            self._problem = ""
        finally:
            self._saving = None
