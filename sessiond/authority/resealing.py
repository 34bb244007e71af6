"""Sealing stored data again: what older keys sealed moves to the sealing key, and keys that are retired are removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

import structlog

from sessiond.authority.key_usage import count_tokens, tickets_end
from sessiond.authority.parts import Parts
from sessiond.authority.ring_keeper import RingKeeper
from sessiond.changes.key_ring import RemoveSealingKey
from sessiond.crypto.kept_answers import renew_answer
from sessiond.crypto.session_data import DataCipher
from sessiond.crypto.tokens import fingerprint_of
from sessiond.domain.errors import Overloaded, Unavailable
from sessiond.domain.key_ring import KeyState, SealingKey, in_use, sealing_key, short
from sessiond.domain.values import FIRST_ID
from sessiond.store.contract import Changes, Decision, Moved, Place, StoreFailed, Transaction
from sessiond.system.failures import log_failure

__all__ = ["Resealing"]

T = TypeVar("T")
_ROWS = 200
_BYTES = 500_000
"""How much one transaction seals again at most, about. Other changes wait meanwhile."""
_ANSWERS = 50
_PAUSE = 0.005
"""Seconds between two parts at least; otherwise as long as the part took, so that others have half of the time."""
_LOOK_AGAIN = 60.0
"""Seconds after which the sessions that still need a key which is being retired are counted again."""
_log = structlog.get_logger(__name__)


class Resealing:
    """Does, in the background, what follows from a change of the key ring. Of several replicas, the leading one does.

    After a promotion it seals everything with the new key that others have sealed: session data and kept answers. If
    session data is to be encrypted, it also encrypts what is still plain. A key that is being retired is removed once a
    whole walk has found nothing of it, and no live session needs it. Each part is one transaction that leaves every
    value readable, so a restart continues where it was.
    """

    def __init__(self, parts: Parts, keeper: RingKeeper, cipher: DataCipher, interval: float = 1.0) -> None:
        self._parts = parts
        self._keeper = keeper
        self._cipher = cipher
        self._interval = interval
        self._stopping = asyncio.Event()
        self._clean: bytes | None = None
        """The sealing key under which everything was when a walk ended."""
        self._counted = dict[bytes, float]()
        self.on_failure: Callable[[StoreFailed], None] = lambda failure: None

    def stop(self) -> None:
        """End `run` after the part that is under way."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`."""
        while not await self._pause(self._interval):
            follower = self._parts.follower
            if follower is not None and not follower.leads:
                self._clean = None
                continue
            try:
                await self.work()
            except StoreFailed as failure:
                self.on_failure(failure)
                return
            except (Unavailable, Overloaded) as trouble:
                _log.warning("resealing postponed", error=str(trouble))
            except Exception:  # noqa: BLE001 - a failed round must not stop the next one
                log_failure(_log, "resealing failed")

    async def work(self) -> None:
        """Do everything that is due: move, and remove what is retired and not needed."""
        sealing = sealing_key(self._keeper.records)
        if sealing is None or self._keeper.ring.fingerprints()[0] != sealing.fingerprint:
            return
        if self._clean != sealing.fingerprint and self._has_work() and not await self._walk():
            return
        self._clean = sealing.fingerprint
        for key in [key for key in self._keeper.records if key.state is KeyState.RETIRING]:
            # Another replica may have written with it until it knew of the promotion: look at everything once more.
            if await self._may_go(key) and await self._walk():
                await self._parts.journal.submit(RemoveSealingKey(key.fingerprint))

    def _has_work(self) -> bool:
        return self._cipher.encrypts or len(in_use(self._keeper.records)) > 1

    async def _may_go(self, key: SealingKey) -> bool:
        if key.log_out:
            return True
        end = tickets_end(key, self._parts.policies.values())
        if end is not None and self._parts.clock.now() < end:
            return False
        now = asyncio.get_running_loop().time()
        if now < self._counted.get(key.fingerprint, 0):
            return False
        tokens = (await count_tokens(self._parts.store, [key])).get(key.fingerprint)
        if tokens is None or not tokens.count:
            return True
        self._counted[key.fingerprint] = now + _LOOK_AGAIN
        _log.info("key still needed", key=short(key.fingerprint), sessions=tokens.count)
        return False

    async def _walk(self) -> bool:
        """Walk through all data and answers. Return whether the end was reached."""
        moved, place = 0, (bytes(FIRST_ID), "")
        following: Place | None = place
        while following is not None:
            following, count = await self._part_of_data(following)
            moved += count
        after: bytes | None = b""
        while after is not None:
            after, count = await self._part_of_answers(after)
            moved += count
        if moved:
            _log.info("resealed", values=moved, key=short(self._keeper.ring.fingerprints()[0]))
        return not self._stopping.is_set()

    async def _part_of_data(self, place: Place) -> tuple[Place | None, int]:
        """Move the stale values after a place. Return where to go on, and how many were moved."""
        began = asyncio.get_running_loop().time()
        marks, after = await self._parts.store.data_marks(place, _ROWS)
        moved = 0
        if any(self._is_stale(mark) for mark in marks):

            async def decide(transaction: Transaction) -> Decision[tuple[Place | None, int]]:
                walk = await transaction.walk_data(place, _ROWS, _BYTES)
                if not walk.stale_marks:
                    return Decision(Changes(), (walk.after, 0))
                changes = Changes(moved=Moved(walk.stale, {}, self._by_key(walk.stale_marks)))
                return Decision(changes, (walk.after, sum(walk.stale_marks.values())))

            after, moved = await self._parts.store.write(decide)
        return await self._go_on(after, began), moved

    async def _part_of_answers(self, after: bytes) -> tuple[bytes | None, int]:
        """Move the stale answers after a key. Return where to go on, and how many were moved."""
        began = asyncio.get_running_loop().time()

        async def decide(transaction: Transaction) -> Decision[tuple[bytes | None, int]]:
            found = await transaction.walk_answers(after, _ANSWERS)
            renewed = {key: renew_answer(self._keeper.ring, sealed) for key, sealed in found}
            answers = {key: sealed for key, sealed in renewed.items() if sealed is not None}
            following = found[-1][0] if len(found) == _ANSWERS else None
            return Decision(Changes(moved=Moved({}, answers, {})) if answers else Changes(), (following, len(answers)))

        following, moved = await self._parts.store.write(decide)
        return await self._go_on(following, began), moved

    def _is_stale(self, mark: bytes) -> bool:
        return mark != self._cipher.marks()[0] if mark else self._cipher.encrypts

    def _by_key(self, marks: Mapping[bytes, int]) -> Mapping[bytes, int]:
        """Return counts by the fingerprint of the key; plain values, and those of unknown keys, are left out."""
        known = dict(zip(self._cipher.marks(), map(fingerprint_of, self._keeper.ring.materials()), strict=False))
        return {known[mark]: count for mark, count in marks.items() if mark in known}

    async def _go_on(self, place: T | None, began: float) -> T | None:
        """Give others time. Return where to go on; None if that is enough."""
        took = asyncio.get_running_loop().time() - began
        stopping = place is not None and await self._pause(max(_PAUSE, took))
        return None if stopping else place

    async def _pause(self, seconds: float) -> bool:
        """Wait. Return whether this has to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True
