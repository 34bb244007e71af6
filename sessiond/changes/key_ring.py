"""Units that change the key ring. Each change is an event, which names keys by their fingerprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sessiond.domain.errors import InvalidField, KeyNotFound, KeyRingRefused
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.key_ring import (
    MAX_KEYS,
    KeyHolder,
    KeyState,
    SealingKey,
    in_use,
    promoted,
    reconciled,
    sealing_key,
    short,
)
from sessiond.domain.values import Cause, CauseKind
from sessiond.eventlog.work import Needs, Work

__all__ = [
    "AddSealingKey",
    "PromoteSealingKey",
    "ReconcileKeys",
    "RecordKeys",
    "RemoveSealingKey",
    "RetireSealingKey",
    "check_room",
    "find_key",
    "lacking",
]

_KEYS = Needs(keys=True)
_MAX_REASON = 256


@immutable
class AddSealingKey:
    """Add a key that this process holds. `wrapped` is the key for the others that share the store; empty: none."""

    fingerprint: bytes
    wrapped: bytes
    cause: Cause

    def needs(self) -> Needs:
        """Return what to read: the key ring."""
        return _KEYS

    def apply(self, work: Work) -> SealingKey:
        """Return the new key. Raises `KeyRingRefused`."""
        keys = work.ring.keys
        check_room(keys)
        key = SealingKey(self.fingerprint, KeyState.ADDED, work.now, wrapped=self.wrapped)
        _save(work, [*in_use(keys), key, *_retired(keys)], self.cause, f"added {short(key.fingerprint)}")
        return key


@immutable
class PromoteSealingKey:
    """Make a key the sealing key. `prefix` begins its fingerprint; empty: the only key that was never promoted."""

    prefix: str
    cause: Cause

    def needs(self) -> Needs:
        """Return what to read: the key ring, and who holds which keys."""
        return _KEYS

    def apply(self, work: Work) -> SealingKey:
        """Return the promoted key. Raises `KeyNotFound` and `KeyRingRefused`."""
        keys = work.ring.keys
        key = find_key(keys, self.prefix) if self.prefix else _only_added(keys)
        if key.state is KeyState.SEALING:
            raise KeyRingRefused(f"fingerprint: {short(key.fingerprint)} is the sealing key already")
        if key.state is KeyState.RETIRING:
            raise KeyRingRefused(f"fingerprint: {short(key.fingerprint)} is being retired; add a new key instead")
        if without := lacking(work.ring.holders, key.fingerprint):
            raise KeyRingRefused(
                f"fingerprint: these replicas do not hold the key {short(key.fingerprint)} yet, and would take tokens "
                f"that it seals for forged ones: {'; '.join(without)}"
            )
        before = sealing_key(keys)
        change = f"promoted {short(key.fingerprint)}" + ("" if before is None else f", which replaces {_of(before)}")
        changed = promoted(keys, key.fingerprint, work.now)
        _save(work, changed, self.cause, change)
        return changed[0]


@immutable
class RetireSealingKey:
    """Begin to retire a key, or remove it if it has never sealed. `prefix` begins its fingerprint.

    `log_out`: remove it as soon as no stored data needs it, even if that logs out sessions.
    """

    prefix: str
    log_out: bool
    cause: Cause

    def needs(self) -> Needs:
        """Return what to read: the key ring."""
        return _KEYS

    def apply(self, work: Work) -> SealingKey:
        """Return the changed key. Raises `KeyNotFound` and `KeyRingRefused`."""
        keys = work.ring.keys
        key = find_key(keys, self.prefix)
        if key.state is KeyState.SEALING:
            raise KeyRingRefused(
                f"fingerprint: {_of(key)} is the sealing key; add and promote another one before you retire it"
            )
        state = KeyState.RETIRED if key.state is KeyState.ADDED else KeyState.RETIRING
        if (key.state, key.log_out) == (state, self.log_out):
            return key
        log_out = self.log_out or key.log_out
        changed = replace(key, state=state, since=work.now, log_out=log_out, wrapped=b"")
        done = "removed" if state is KeyState.RETIRED else "began to retire"
        suffix = ", even if that logs out sessions" if log_out and state is KeyState.RETIRING else ""
        _save(work, _with(keys, changed), self.cause, f"{done} {_of(key)}{suffix}")
        return changed


@immutable
class RemoveSealingKey:
    """Remove a key that is being retired, because nothing needs it any more."""

    fingerprint: bytes

    def needs(self) -> Needs:
        """Return what to read: the key ring, and who holds which keys."""
        return _KEYS

    def apply(self, work: Work) -> bool:
        """Return whether the key was removed. It stays if it is not being retired, or if some process seals with it."""
        keys = work.ring.keys
        key = next((key for key in keys if key.fingerprint == self.fingerprint), None)
        if key is None or key.state is not KeyState.RETIRING:
            return False
        if any(holder.keys[0] == self.fingerprint for holder in work.ring.holders):
            return False
        # What was encrypted under this key for other replicas may be read by whoever has it.
        rest = [replace(other, wrapped=b"") for other in keys]
        changed = replace(key, state=KeyState.RETIRED, since=work.now, wrapped=b"")
        _save(work, _with(rest, changed), _by_itself(""), f"removed {_of(key)}: nothing needs it any more")
        return True


@immutable
class ReconcileKeys:
    """Take over what a process finds where its keys come from. `held` are fingerprints, the one to seal with first.

    gone     fingerprints of keys that the operator has taken away there, and that are therefore to be retired
    wrapped  for each new key the key itself for the others that share the store
    """

    held: Sequence[bytes]
    gone: Sequence[bytes]
    wrapped: Mapping[bytes, bytes]
    source: str

    def needs(self) -> Needs:
        """Return what to read: the key ring, and who holds which keys."""
        return _KEYS

    def apply(self, work: Work) -> Sequence[SealingKey]:
        """Return the key ring. If nothing changes, no event is recorded."""
        recorded = work.ring.keys
        may_promote = not lacking(work.ring.holders, self.held[0])
        keys = reconciled(recorded, self.held, work.now, alone=False, may_promote=may_promote)
        keys = [
            replace(key, state=KeyState.RETIRING, since=work.now)
            if key.fingerprint in self.gone and key.state in (KeyState.ADDED, KeyState.OPENING)
            else _wrapped(key, self.wrapped)
            for key in keys
        ]
        if change := _difference(recorded, keys):
            _save(work, keys, _by_itself(self.source), change)
        return keys


@immutable
class RecordKeys:
    """Record the event of a change that was made when the store was opened, before there was a log to write to.

    wrapped  for each new key the key itself for the others that share the store
    """

    before: Sequence[SealingKey]
    wrapped: Mapping[bytes, bytes]
    source: str

    def needs(self) -> Needs:
        """Return what to read: the key ring."""
        return _KEYS

    def apply(self, work: Work) -> None:
        """Record the event, unless nothing has changed."""
        keys = [_wrapped(key, self.wrapped) for key in work.ring.keys]
        if change := _difference(self.before, keys):
            _save(work, keys, _by_itself(self.source), change)


def check_room(keys: Sequence[SealingKey]) -> None:
    """Raise `KeyRingRefused` if no further key can be added."""
    if len(in_use(keys)) >= MAX_KEYS:
        raise KeyRingRefused(f"the key ring has {MAX_KEYS} keys; retire one before you add another")


def find_key(keys: Sequence[SealingKey], prefix: str) -> SealingKey:
    """Return the key of the ring whose fingerprint begins like this. Raises `KeyNotFound`."""
    found = [key for key in in_use(keys) if key.fingerprint.hex().startswith(prefix)]
    if len(found) != 1:
        known = ", ".join(_of(key) for key in found or in_use(keys))
        problem = f"several keys start with {prefix}" if found else f"no key starts with {prefix}; the keys are"
        raise KeyNotFound(f"fingerprint: {problem}{': ' if found else ' '}{known}")
    return found[0]


def lacking(holders: Sequence[KeyHolder], fingerprint: bytes) -> list[str]:
    """Return the names of those that do not hold a key."""
    return sorted(holder.name for holder in holders if fingerprint not in holder.keys)


def _only_added(keys: Sequence[SealingKey]) -> SealingKey:
    added = [key for key in keys if key.state is KeyState.ADDED]
    if len(added) != 1:
        raise InvalidField(
            "fingerprint",
            f"there are several new keys; specify one of {', '.join(map(_of, added))}"
            if added
            else "there is no new key; add one first (sessionctl keyring add)",
        )
    return added[0]


def _save(work: Work, keys: Sequence[SealingKey], cause: Cause, change: str) -> None:
    text = f"{change}; {cause.reason}" if cause.reason else change
    work.record_other(EventType.KEY_RING_CHANGED, "", replace(cause, reason=text[:_MAX_REASON]))
    work.ring.put(keys)


def _by_itself(source: str) -> Cause:
    return Cause(CauseKind.CONFIGURATION, reason=f"found in {source}" if source else "")


def _with(keys: Sequence[SealingKey], changed: SealingKey) -> list[SealingKey]:
    """Return the keys with one of them changed, the retired ones last."""
    merged = [changed if key.fingerprint == changed.fingerprint else key for key in keys]
    return in_use(merged) + _retired(merged)


def _wrapped(key: SealingKey, wrapped: Mapping[bytes, bytes]) -> SealingKey:
    """Return a key with itself encrypted for others, if it is among those."""
    return replace(key, wrapped=wrapped[key.fingerprint]) if key.fingerprint in wrapped else key


def _retired(keys: Sequence[SealingKey]) -> list[SealingKey]:
    return [key for key in keys if key.state is KeyState.RETIRED]


def _difference(before: Sequence[SealingKey], after: Sequence[SealingKey]) -> str:
    """Return in words which keys have come into another state; empty if none has."""
    states = {key.fingerprint: key.state for key in before}
    words = {KeyState.RETIRED: "removed", KeyState.RETIRING: "began to retire", KeyState.SEALING: "promoted"}
    changes = [
        f"{words.get(key.state, 'added')} {short(key.fingerprint)}"
        for key in after
        if key.state is not states.get(key.fingerprint)
        # That it does not seal any more is said by the promotion of another key.
        and not (key.state is KeyState.OPENING and key.fingerprint in states)
    ]
    return ", ".join(changes)


def _of(key: SealingKey) -> str:
    return short(key.fingerprint)
