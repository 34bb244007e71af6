"""What a server does about its key ring by itself: watching where the keys come from, and sealing data again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from sessiond.authority.key_ring import KeyRingAdmin
from sessiond.authority.parts import Parts
from sessiond.authority.resealing import Resealing
from sessiond.authority.ring_keeper import RingKeeper
from sessiond.changes.key_ring import RecordKeys
from sessiond.crypto.key_file import BadKeyFile
from sessiond.domain.errors import AuthorityError
from sessiond.domain.key_ring import KeyState, SealingKey, short
from sessiond.store.contract import StoreFailed
from sessiond.system.failures import log_failure

__all__ = ["LOOK_EVERY", "RingTasks"]

LOOK_EVERY = 1.0
"""Seconds between two looks at a mounted key file."""
_UNEXPECTED = "unexpected error"
_log = structlog.get_logger(__name__)


class RingTasks:
    """The background tasks about the key ring of one server."""

    def __init__(
        self,
        parts: Parts,
        admin: KeyRingAdmin,
        keeper: RingKeeper,
        on_failure: Callable[[StoreFailed], None],
    ) -> None:
        self._parts = parts
        self._admin = admin
        self._keeper = keeper
        self._tasks: list[asyncio.Task[None]] = []
        self._problem = ""
        self.resealing: Resealing | None = None
        if keeper.cipher is not None:
            self.resealing = Resealing(parts, keeper, keeper.cipher)
            self.resealing.on_failure = on_failure

    async def record(self, before: Sequence[SealingKey]) -> None:
        """Record the event of what opening the store has changed in the ring, if it was not new."""
        if not before or self._keeper.source is None:
            return
        known = {key.fingerprint for key in before}
        added = [key.fingerprint for key in self._keeper.records if key.fingerprint not in known]
        shared = self._parts.follower is not None
        wrapped = {f: self._keeper.wrapped(f) for f in added if shared and self._keeper.holds(f)}
        await self._parts.journal.submit(RecordKeys(before, wrapped, self._keeper.source.name))

    def start(self) -> None:
        """Begin."""
        if self.resealing is not None:
            self._tasks.append(asyncio.create_task(self.resealing.run(), name="resealing"))
        source = self._keeper.source
        if source is not None and source.change:
            self._tasks.append(asyncio.create_task(self._watch(), name="key ring"))

    async def stop(self) -> None:
        """End, and wait until the keys are stored and no part of the data is being sealed."""
        if self.resealing is not None:
            self.resealing.stop()
        for task in self._tasks:
            if task.get_name() != "resealing":
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._keeper.settle()

    async def reload(self) -> bool:
        """Read the keys again where they come from. Return whether they can be used; otherwise the log says why not."""
        try:
            await self._admin.reload()
        except BadKeyFile as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.error("keys refused", problem=str(error), effect="the keys read before stay in use")
            return False
        except AuthorityError as error:
            if str(error) != self._problem:
                self._problem = str(error)  # and so it is tried again
                _log.warning("keys not read", error=str(error))
            return False
        self._problem = ""
        return True

    async def _watch(self) -> None:
        """Read the keys again when they change, and while a key waits until every replica holds it."""
        source = self._keeper.source
        assert source is not None  # noqa: S101 - for the type checker
        # Not the signature of now: the keys were read when the store was opened, and may have changed since.
        seen: object = None
        pending: object = None
        waits = self._waits()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            found = await asyncio.to_thread(source.signature)
            changed = found != seen
            if changed and found != pending:
                pending = found  # it may be half written: read it once it has not changed for one look
                continue
            if changed or self._waits() or self._problem:
                seen = pending = found
                await self._reload_again()
            if self._waits() != waits:
                waits = self._waits()
                if waits:
                    _log.warning("key waits", key=waits, effect="it seals once every replica holds it")

    async def _reload_again(self) -> None:
        try:
            await self.reload()
        except Exception:  # noqa: BLE001 - an unexpected error must not end the watch
            if self._problem != _UNEXPECTED:
                self._problem = _UNEXPECTED
                log_failure(_log, "keys not read")

    def _waits(self) -> str:
        """Return the key that is to seal here and does not yet; empty if there is none."""
        wanted = self._admin.wanted
        waiting = [key for key in self._keeper.records if key.fingerprint == wanted and key.state is KeyState.ADDED]
        return short(waiting[0].fingerprint) if waiting else ""
