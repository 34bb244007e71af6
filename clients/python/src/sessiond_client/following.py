"""The rules that every cache of the authority keeps, without I/O, threads or asyncio.

Whoever answers from memory what the authority decided must notice that the memory is out of date. Three things together
make sure of that, and each cache uses the same ones: the authority's own cache of sessions, the near cache of a client,
the sidecar and the workers.

- `Lease`: until when a cache may answer. Without one it is closed, and every question goes to the authority.
- `Fence`: which results of a read may be kept. One that was overtaken by a change may not.
- `Follower`: one cache's side of a `Follow` stream. It decides what each message of the authority means, in which order
  things happen, and when the stream is broken.

Times are milliseconds of a clock that never goes backwards and that also runs while the process is stopped. They are
arguments; nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["Change", "Fence", "FollowedCache", "Follower", "Lease", "Resume", "StreamBroken"]

K = TypeVar("K", bound=Hashable)

_DRIFT = 50
"""A lease is shortened by one part in `_DRIFT`, because the clocks of two machines do not run at the same speed."""
_ROUNDING = 2
"""Milliseconds by which a lease is shortened too: the part above is rounded down, and so is the time of a clock."""
_MOST_REMEMBERED = 10_000
"""How many changes a fence remembers by name."""


class Lease:
    """Permission to answer from memory. It counts from before its renewal was sent, never from when it was granted.

    So it ends here before it ends for whoever granted it, whatever the delays. Counted from the receipt of a delayed
    grant, it would go on after the authority had stopped counting with it.
    """

    __slots__ = ("__weakref__", "_is_closed", "until")

    def __init__(self) -> None:
        self._is_closed = False
        self.until = 0
        """When the lease ends. A hot path may compare it directly."""

    def is_valid(self, now: int) -> bool:
        """Whether the lease has not ended."""
        return now < self.until

    def extend(self, sent: int, duration: int) -> None:
        """Extend the lease to `duration` after `sent`, the time before the renewal was sent, less an allowance."""
        if not self._is_closed:
            self.until = max(self.until, sent + duration - duration // _DRIFT - _ROUNDING)

    def close(self) -> None:
        """End the lease for good."""
        self._is_closed = True
        self.until = 0

    def end(self) -> None:
        """End the lease now."""
        self.until = 0


class Fence(Generic[K]):
    """Decides which reads may be kept: those during which nothing that they depend on has changed.

    A read that began before a change and ends after it may have the state from before. `begin` each read, tell the
    fence of each change as it is applied, and keep the result only if `holds`. Changes are remembered only while reads
    are in progress, at most 10,000 of them; a read that is older than all of those is not kept.
    """

    def __init__(self, most_remembered: int = _MOST_REMEMBERED) -> None:
        self._most = most_remembered
        self._now = 0
        self._open = 0
        self._changed: dict[K, int] = {}
        self._floor = 0  # reads that began before this are not kept

    def begin(self) -> int:
        """Begin a read. Returns its mark. Every read must be ended with `end`."""
        self._open += 1
        return self._now

    def end(self) -> None:
        """End a read."""
        self._open -= 1
        if not self._open:
            self._changed.clear()

    def holds(self, mark: int, key: K) -> bool:
        """Whether nothing about `key` has changed since the read with this mark began."""
        return mark >= self._floor and self._changed.get(key, 0) <= mark

    def note(self, key: K) -> None:
        """Note that something about `key` has changed."""
        self._now += 1
        if self._open:
            changed = self._changed
            changed.pop(key, None)  # so that the oldest change stays first
            changed[key] = self._now
            if len(changed) > self._most:
                self._floor = changed.pop(next(iter(changed)))

    def note_all(self) -> None:
        """Note that anything may have changed."""
        self._now += 1
        self._floor = self._now
        self._changed.clear()


@dataclass(frozen=True, slots=True)
class Change:
    """What one event of the log means for a cache. Exactly the entries that any of its fields names are out of date.

    session      the public id of a session; empty: none
    application  with `source`: the application whose clients from there may be refused now; alone: all its sessions
    source       a network in CIDR form, or `*` for any; empty: none
    """

    session: str = ""
    application: str = ""
    source: str = ""


class FollowedCache(Protocol):
    """What a follower tells its cache. The calls come in the order of the log, and must not fail.

    Both also concern reads in progress: a cache notes them in its `Fence`.
    """

    def apply(self, change: Change) -> None:
        """Drop what the change makes out of date, so that no later answer includes it."""

    def forget(self) -> None:
        """Drop everything."""


@dataclass(frozen=True, slots=True)
class Resume:
    """How to begin the next stream: directly after `cursor`; empty: at the newest position."""

    cursor: str


class StreamBroken(Exception):
    """The stream has missed or repeated a message, or did not begin as it must. Cancel it and begin another."""


class Follower:
    """One cache's side of a `Follow` stream, over as many streams as it takes.

    Call `begin` before each stream, then pass every message to `received` and the method for its content, in the order
    of arrival, and `broken` when the stream ends for whatever reason. `lease` says whether the cache may answer.
    """

    def __init__(self, cache: FollowedCache) -> None:
        self._cache = cache
        self.lease = Lease()
        self.cursor = ""
        """The position up to which the cache has applied the log."""
        self.is_streaming = False
        """Whether a stream is under way that has begun as it must."""
        self._identity: tuple[str, str] | None = None  # incarnation and fingerprint of the policies
        self._sent: dict[int, int] = {}  # when each renewal that has no grant yet was sent, by its nonce
        self._nonce = 0
        self._number = 0
        self._has_begun = False

    def begin(self) -> Resume:
        """Begin a stream. Without a position, nothing that is kept can be brought up to date, so it is dropped."""
        self.broken()
        self._has_begun = True
        if not self.cursor:
            self._cache.forget()
        return Resume(self.cursor)

    def broken(self) -> None:
        """The stream has ended: the cache is closed until another stream has granted a lease."""
        self.lease.end()
        self._sent.clear()
        self._number = 0
        self._has_begun = self.is_streaming = False

    def lost(self) -> None:
        """The log does not have the position (OUT_OF_RANGE, INVALID_ARGUMENT): begin again with nothing."""
        self.broken()
        self.cursor = ""
        self._cache.forget()

    def received(self, number: int) -> None:
        """A message has arrived. Raises `StreamBroken` if it is not the next one of the stream."""
        if not self._has_begun or number != self._number + 1:
            self.broken()
            raise StreamBroken(f"message {number} followed message {self._number}")
        self._number = number

    def started(self, cursor: str, incarnation: str, fingerprint: str) -> None:
        """The stream has begun, or the policies have changed."""
        self._must(self._number == 1 or self.is_streaming)
        if self._identity != (incarnation, fingerprint):
            self._identity = (incarnation, fingerprint)
            self._cache.forget()
        self.is_streaming = True
        self.cursor = cursor

    def applied(self, cursor: str, changes: Iterable[Change]) -> None:
        """Apply events; none: a checkpoint."""
        self._must(self.is_streaming)
        for change in changes:
            self._cache.apply(change)
        self.cursor = cursor

    def renewal(self, now: int) -> int:
        """Return the nonce of a renewal that is about to be sent. `now` must be read before it is sent."""
        self._nonce += 1
        self._sent[self._nonce] = now
        return self._nonce

    def sent_at(self, nonce: int) -> int | None:
        """When the renewal with this nonce was sent; None if it has its grant, or is not of this stream."""
        return self._sent.get(nonce)

    def released(self) -> None:
        """The lease is about to be given up. Call it before the release is sent; only later renewals count again.

        The authority does not wait for this cache any more, although it may have granted a lease just before.
        """
        self.lease.end()
        self._sent.clear()

    def granted(self, cursor: str, nonce: int, duration: int) -> None:
        """A lease was granted. A grant that nobody asked for on this stream has no effect."""
        self._must(self.is_streaming)
        self.cursor = cursor
        sent = self._sent.pop(nonce, None)
        if sent is not None:
            # Renewals are answered in order. What is older has been overtaken.
            for earlier in [one for one in self._sent if one < nonce]:
                del self._sent[earlier]
            self.lease.extend(sent, duration)

    def _must(self, holds: bool) -> None:
        if not holds:
            self.broken()
            raise StreamBroken("the stream did not begin with `started`")
