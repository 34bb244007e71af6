"""The key ring as the store records it: which keys there are, what each is for, and since when. Pure functions.

The store knows keys by their fingerprints. The keys themselves are in files, or wherever the operator keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from enum import StrEnum

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant

__all__ = [
    "MAX_KEYS",
    "KeyHolder",
    "KeyState",
    "SealingKey",
    "in_use",
    "promoted",
    "reconciled",
    "sealing_key",
    "short",
]

MAX_KEYS = 3
_MAX_RETIRED = 16
"""How many retired keys are remembered, so that an old copy of a key file does not bring them back."""
_SHORT = 8


class KeyState(StrEnum):
    """What a key of the ring is for."""

    ADDED = "added"
    """It opens, and has never sealed anything."""
    SEALING = "sealing"
    """It seals, and opens. Exactly one key does."""
    OPENING = "opening"
    """It sealed before another key was promoted, and opens what it sealed."""
    RETIRING = "retiring"
    """It opens until nothing needs it any more. What it sealed is being sealed again with the sealing key."""
    RETIRED = "retired"
    """It is not part of the ring any more."""


@immutable
class SealingKey:
    """One key of the ring.

    fingerprint   16 bytes
    since         when it came into its state; None: not recorded
    sealed_until  when it stopped sealing; None if it seals, or never did
    log_out       it is removed even if that logs out sessions whose tokens it sealed
    wrapped       the key itself, encrypted under another key of the ring, for other replicas; empty: there is none
    moved         how many values of session data that it had sealed have been sealed again
    """

    fingerprint: bytes
    state: KeyState
    since: Instant | None = None
    sealed_until: Instant | None = None
    log_out: bool = False
    wrapped: bytes = field(default=b"", repr=False)
    moved: int = 0


@immutable
class KeyHolder:
    """A process that shares the store, and the keys that it holds, by fingerprint, the one that it seals with first.

    `name` is for people: two processes may have the same one.
    """

    name: str
    keys: Sequence[bytes]


def short(fingerprint: bytes) -> str:
    """Return the form of a fingerprint that messages show: its first 8 hexadecimal digits."""
    return fingerprint.hex()[:_SHORT]


def in_use(keys: Iterable[SealingKey]) -> list[SealingKey]:
    """Return the keys that are part of the ring."""
    return [key for key in keys if key.state is not KeyState.RETIRED]


def sealing_key(keys: Iterable[SealingKey]) -> SealingKey | None:
    """Return the key that seals; None if no key is recorded."""
    return next((key for key in keys if key.state is KeyState.SEALING), None)


def promoted(keys: Sequence[SealingKey], fingerprint: bytes, now: Instant) -> list[SealingKey]:
    """Return the keys after the one with this fingerprint has begun to seal."""
    changed = []
    for key in keys:
        if key.fingerprint == fingerprint:
            changed.append(replace(key, state=KeyState.SEALING, since=now, sealed_until=None, log_out=False, moved=0))
        elif key.state is KeyState.SEALING:
            changed.append(replace(key, state=KeyState.OPENING, since=now, sealed_until=now, moved=0))
        else:
            changed.append(key)
    return sorted(changed, key=lambda key: key.state is not KeyState.SEALING)


def reconciled(
    recorded: Sequence[SealingKey], held: Sequence[bytes], now: Instant, *, alone: bool, may_promote: bool
) -> list[SealingKey]:
    """Return what to record, after a process has read its keys.

    `held` are the fingerprints in the order of its file. The record decides which key seals, with one exception: if the
    first key has never sealed, that is a request to promote it, which is met if `may_promote`. So a file in an older
    order, which a crash may leave, promotes nothing. `alone`: no other process holds keys, so that one that is missing
    here is gone.
    """
    keys = [key if key.since is not None else _dated(key, now) for key in recorded]
    known = {key.fingerprint for key in keys}
    if not in_use(keys):
        fresh = [fingerprint for fingerprint in held if fingerprint not in known]
        return [
            SealingKey(fingerprint, KeyState.OPENING if number else KeyState.SEALING, now, now if number else None)
            for number, fingerprint in enumerate(fresh)
        ] + keys
    keys += [SealingKey(fingerprint, KeyState.ADDED, now) for fingerprint in held if fingerprint not in known]
    if alone:
        keys = [
            key
            if key.fingerprint in held or key.state in (KeyState.SEALING, KeyState.RETIRED)
            else replace(key, state=KeyState.RETIRED, since=now, wrapped=b"")
            for key in keys
        ]
    first = next((key for key in keys if held and key.fingerprint == held[0]), None)
    if may_promote and first is not None and first.state is KeyState.ADDED:
        keys = promoted(keys, first.fingerprint, now)
    retired = [key for key in keys if key.state is KeyState.RETIRED]
    return in_use(keys) + retired[-_MAX_RETIRED:]


def _dated(key: SealingKey, now: Instant) -> SealingKey:
    """Return a key that was recorded before times were: as if it had come into its state now."""
    return replace(key, since=now, sealed_until=now if key.state is KeyState.OPENING else None)
