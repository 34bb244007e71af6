"""Managing the key ring: what it is, and adding, promoting and retiring keys without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from sessiond.authority.key_usage import LiveTokens, count_tokens, count_values, tickets_end
from sessiond.authority.parts import Parts
from sessiond.authority.results import AnswerSpec, EncodedAnswer
from sessiond.authority.retries import Retries
from sessiond.authority.ring_keeper import RingKeeper
from sessiond.changes.key_ring import (
    AddSealingKey,
    PromoteSealingKey,
    ReconcileKeys,
    RetireSealingKey,
    check_room,
    find_key,
    lacking,
)
from sessiond.crypto.key_file import BadKeyFile
from sessiond.crypto.tokens import KEY_BYTES, fingerprint_of
from sessiond.domain.call import Call, Caller
from sessiond.domain.errors import AuthorityError, KeyRingRefused, Unavailable
from sessiond.domain.immutable import immutable
from sessiond.domain.key_ring import MAX_KEYS, KeyHolder, KeyState, SealingKey, in_use, sealing_key, short
from sessiond.domain.policy import PRESETS
from sessiond.domain.values import NOBODY, Instant, Revision

__all__ = ["KeyChanged", "KeyRingAdmin", "KeyUsage", "RingDescription"]

_COUNT_SECONDS = 2.0
"""How long one call counts sessions and values at most."""
_HELD_SECONDS = 3.0
"""How long the addition of a key waits until every replica holds it: less than clients wait."""
_LOOK_EVERY = 0.05


@immutable
class KeyChanged:
    """The result of a change of the ring."""

    key: SealingKey
    revision: Revision


@immutable
class KeyUsage:
    """One key of the ring, and what needs it.

    held_by, missing_at  the names of the replicas that hold it or not; both empty if there are no replicas
    tokens               the live sessions that may have a token of it; None: it seals, or never did
    values               how many values of session data it has sealed
    needed_until         until when tickets and companion tokens of it may be valid
    """

    key: SealingKey
    held_by: Sequence[str]
    missing_at: Sequence[str]
    tokens: LiveTokens | None
    values: int
    needed_until: Instant | None


@immutable
class RingDescription:
    """The key ring.

    source       where the keys come from
    change       where the operator changes them; empty: by calls
    plain        how many values of session data are not encrypted
    is_partial   values were not all counted
    encrypts     whether session data is encrypted
    """

    keys: Sequence[KeyUsage]
    source: str
    change: str
    plain: int
    is_partial: bool
    encrypts: bool


class KeyRingAdmin:
    """The use cases about the key ring. Who may use them is decided before."""

    def __init__(self, parts: Parts, retries: Retries, keeper: RingKeeper) -> None:
        self._parts = parts
        self._retries = retries
        self._keeper = keeper
        self._turn = asyncio.Lock()
        self._had = set(keeper.ring.fingerprints())
        self.wanted = keeper.ring.fingerprints()[0]
        """The first key where the keys come from, which is to seal."""

    def call(self, caller: Caller, reason: str) -> Call:
        """Return a call about the authority itself, which belongs to no application."""
        return Call("", PRESETS["owasp-low"], caller, NOBODY, reason, has_client_context=False)

    async def describe(self) -> RingDescription:
        """Return the key ring, with what still needs each key."""
        store, source = self._parts.store, self._keeper.source
        keys = in_use(await store.keys())
        holders = await self._replicas()
        tokens = await count_tokens(store, keys, _COUNT_SECONDS)
        marks, is_partial = await count_values(store, _COUNT_SECONDS)
        cipher = self._keeper.cipher
        held = self._keeper.ring.fingerprints()
        of_key = {} if cipher is None else dict(zip(held, map(marks.get, cipher.marks()), strict=False))
        return RingDescription(
            [
                KeyUsage(
                    key,
                    [holder.name for holder in holders if key.fingerprint in holder.keys],
                    lacking(holders, key.fingerprint),
                    tokens.get(key.fingerprint),
                    of_key.get(key.fingerprint) or 0,
                    tickets_end(key, self._parts.policies.values()),
                )
                for key in keys
            ],
            "memory" if source is None else source.name,
            "" if source is None else source.change,
            marks.get(b"", 0),
            is_partial,
            cipher is not None and cipher.encrypts,
        )

    async def add(self, call: Call, spec: AnswerSpec[KeyChanged], *, local: bool) -> EncodedAnswer:
        """Add a new random key, which opens and does not seal. Raises `KeyRingRefused`.

        Returns when every replica holds it, or after some seconds. `local`: only this one gets it.
        """
        self._check_source("add a key")
        async with self._turn:
            if (first := await self._retries.recall(spec)()) is not None:
                return first
            await self._drop_unknown()
            key = self._parts.entropy(KEY_BYTES)
            fingerprint = fingerprint_of(key)
            check_room(self._keeper.records)
            # The key is in the file before anyone can learn of it. A crash between the two leaves a key that opens
            # nothing, which the next start records.
            await self._store_key(key)
            try:
                wrapped = b"" if local or self._parts.follower is None else self._keeper.wrapped(fingerprint)
                unit = AddSealingKey(fingerprint, wrapped, call.cause)
                answer = await self._retries.carry_out(unit, lambda done: KeyChanged(done.result, done.revision), spec)
            except Unavailable:
                raise  # it may have been recorded; the next addition finds out
            except AuthorityError:
                await self._drop_key(fingerprint)
                raise
            if fingerprint not in {known.fingerprint for known in self._keeper.records}:
                await self._drop_key(fingerprint)  # this call is a repeat, and the first one has added a key
            elif not local:
                await self._until_held(fingerprint)
        return answer

    async def promote(self, call: Call, prefix: str, spec: AnswerSpec[KeyChanged]) -> EncodedAnswer:
        """Make a key the sealing key. Raises `KeyNotFound` and `KeyRingRefused`."""
        self._check_source("promote a key")
        unit = PromoteSealingKey(prefix, call.cause)
        answer = await self._retries.carry_out(unit, lambda done: KeyChanged(done.result, done.revision), spec)
        await self._keeper.settle()
        return answer

    async def retire(self, call: Call, prefix: str, spec: AnswerSpec[KeyChanged], *, log_out: bool) -> EncodedAnswer:
        """Begin to retire a key. Raises `KeyNotFound`, and `KeyRingRefused` if a token of it may still be needed.

        `log_out`: even then.
        """
        self._check_source("retire a key")
        if (first := await self._retries.recall(spec)()) is not None:
            return first
        if not log_out:
            await self._check_unused(find_key(await self._parts.store.keys(), prefix))
        unit = RetireSealingKey(prefix, log_out, call.cause)
        answer = await self._retries.carry_out(unit, lambda done: KeyChanged(done.result, done.revision), spec)
        await self._keeper.settle()
        return answer

    async def reload(self) -> None:
        """Read the keys where they come from, and take over what has changed.

        Raise `BadKeyFile` if they cannot be used; then nothing changes.
        """
        source = self._keeper.source
        if source is None:
            return
        async with self._turn:  # a key that is being added may be in the file, and be dropped again
            ring = await asyncio.to_thread(source.load, may_create=False)
            await self._take_over(ring.materials())

    async def _take_over(self, keys: Sequence[bytes]) -> None:
        source = self._keeper.source
        assert source is not None  # noqa: S101 - for the type checker
        held = [fingerprint_of(key) for key in keys]
        records = await self._parts.store.keys()
        sealing = sealing_key(records)
        if source.change and sealing is not None and sealing.fingerprint not in held:
            raise BadKeyFile(f"{source.name} lacks the key {short(sealing.fingerprint)}, which seals; put it back")
        known = {key.fingerprint: key for key in records}
        self._keeper.hold_all(
            [
                key
                for key, fingerprint in zip(keys, held, strict=True)
                if fingerprint not in known or known[fingerprint].state is not KeyState.RETIRED
            ]
        )
        await self._keeper.save()
        retired = {key.fingerprint for key in records if key.state is KeyState.RETIRED}
        left_out = [
            fingerprint for fingerprint in held if not self._keeper.holds(fingerprint) and fingerprint not in retired
        ]
        held = [fingerprint for fingerprint in held if fingerprint not in left_out]
        self.wanted = held[0]
        gone = [key.fingerprint for key in in_use(records) if self._is_gone(key, held)] if source.change else []
        self._had = {fingerprint_of(key) for key in keys}
        wrapped = {}
        if self._parts.follower is not None:
            wrapped = {f: self._keeper.wrapped(f) for f in held if f not in known and self._keeper.holds(f)}
        await self._parts.journal.submit(ReconcileKeys(held, gone, wrapped, source.name))
        await self._keeper.settle()
        if left_out:
            raise BadKeyFile(
                f"{source.name} has the new key {short(left_out[0])}, and a ring has at most {MAX_KEYS} keys: it is "
                "taken once a key that is not there any more has been removed"
            )

    def _is_gone(self, key: SealingKey, held: Sequence[bytes]) -> bool:
        """Return whether a key was taken away where this process's keys come from.

        A new key that was never there is not gone: the operator gives it to one replica after the other.
        """
        return key.fingerprint not in held and (key.state is not KeyState.ADDED or key.fingerprint in self._had)

    async def _store_key(self, key: bytes) -> None:
        self._keeper.hold(key)
        try:
            await self._keeper.save()
        except BadKeyFile as error:
            self._keeper.drop(fingerprint_of(key))
            raise KeyRingRefused(str(error)) from error

    async def _drop_unknown(self) -> None:
        """Forget keys that the store does not know: those of additions whose outcome was unknown."""
        known = {key.fingerprint for key in await self._parts.store.keys()}
        for fingerprint in self._keeper.ring.fingerprints():
            if fingerprint not in known:
                await self._drop_key(fingerprint)

    async def _drop_key(self, fingerprint: bytes) -> None:
        self._keeper.drop(fingerprint)
        await self._keeper.save()

    def _check_source(self, what: str) -> None:
        source = self._keeper.source
        if source is None or source.change:
            where = "memory" if source is None else source.change
            raise KeyRingRefused(f"cannot {what}: change {where}")

    async def _check_unused(self, key: SealingKey) -> None:
        tokens = (await count_tokens(self._parts.store, [key], _COUNT_SECONDS)).get(key.fingerprint)
        if tokens is not None and tokens.count:
            more = "at least " if tokens.is_partial else ""
            until = "one of them has no end" if tokens.until is None else f"the last ends by {_moment(tokens.until)}"
            raise KeyRingRefused(
                f"fingerprint: {more}{_sessions(tokens.count)} may have a token that {short(key.fingerprint)} sealed "
                f"({until}); wait until they have renewed their tokens or have ended, or let them be logged out "
                "(log_out_sessions)"
            )
        until_then = tickets_end(key, self._parts.policies.values())
        if until_then is not None and self._parts.clock.now() < until_then:
            raise KeyRingRefused(
                f"fingerprint: tickets and companion tokens that {short(key.fingerprint)} sealed may be valid until "
                f"{_moment(until_then)}; wait, or let them become invalid (log_out_sessions)"
            )

    async def _replicas(self) -> Sequence[KeyHolder]:
        follower = self._parts.follower
        return () if follower is None else await follower.holders()

    async def _until_held(self, fingerprint: bytes) -> None:
        follower = self._parts.follower
        if follower is None:
            return
        end = asyncio.get_running_loop().time() + _HELD_SECONDS
        while asyncio.get_running_loop().time() < end:
            if not lacking(await follower.holders(), fingerprint):
                return
            await asyncio.sleep(_LOOK_EVERY)


def _sessions(count: int) -> str:
    return "1 live session" if count == 1 else f"{count:,} live sessions"


def _moment(time: Instant) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
