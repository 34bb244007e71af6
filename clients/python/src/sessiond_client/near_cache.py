"""The near cache: answers of the authority, kept true by following it. Nothing here does I/O.

It finds an answer by a keyed digest of the token, and only for the very question that it was given for: the same
client, requirements and data. It holds no session token, and keeps only VALID answers that the authority says may be
reused.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sessiond_client.following import Change, Fence, Follower

__all__ = ["Fill", "NearCache", "NearCacheStats", "boot_millis", "network_of"]

A = TypeVar("A")

_OVERHEAD = 2_800
"""Bytes that an entry takes beside those of its response on the wire: objects, indexes, key. Measured, for a session
with a client context and an authentication; `tests/clients/test_near_cache_alone.py` compares."""
_QUESTIONS = 8
"""How many questions about one token are kept."""
_DIGEST_BYTES = 16


if hasattr(time, "CLOCK_BOOTTIME"):

    def boot_millis() -> int:
        """Milliseconds of a clock that never goes backwards, and that also runs while the machine is suspended."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

else:  # pragma: no cover - macOS and Windows; their monotonic clocks run during a suspension

    def boot_millis() -> int:
        """Milliseconds of a clock that never goes backwards."""
        return time.monotonic_ns() // 1_000_000


def network_of(address: str) -> str:
    """The network that the authority would lock for guesses from this address, in CIDR form; empty for no address.

    Raises `ValueError` if the text is not an address. A port, and the brackets around an IPv6 address, are ignored.
    """
    text = address.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    if not text:
        return ""
    parsed = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(ipaddress.ip_network((parsed, 32 if parsed.version == 4 else 64), strict=False))


@dataclass(frozen=True, slots=True)
class NearCacheStats:
    """What a near cache did since it was created, and how it is now."""

    is_open: bool
    """Whether it may answer. While it is closed, every question goes to the authority."""
    hits: int
    """Questions that it answered."""
    misses: int
    """Questions that it did not answer although it was open."""
    closed: int
    """Questions that went to the authority because it was closed."""
    entries: int
    """Answers that it holds."""
    size: int
    """Bytes that they take, about."""
    evicted: int
    """Answers that were dropped to make room."""
    dropped: int
    """Answers that were dropped because something had changed."""
    staleness: float | None
    """Seconds since the last moment at which all that the authority knew was applied here. None: it is closed."""


class _Answer(Generic[A]):
    __slots__ = ("answer", "application", "digest", "network", "question", "session", "size", "until")

    def __init__(
        self, fill: Fill, answer: A, session: str, application: str, network: str, until: int, size: int
    ) -> None:
        self.digest = fill.digest
        self.question = fill.question
        self.answer = answer
        self.session = session
        self.application = application
        self.network = network
        self.until = until
        self.size = size


@dataclass(frozen=True, slots=True)
class Fill:
    """A question that is on its way to the authority. Its answer may be kept with `keep`; it must be `end`ed."""

    digest: bytes = field(repr=False)
    question: Any = field(repr=False)
    at_least: str
    """What the question must ask for: a state at least as new as what the cache has applied."""
    asked_at: int
    mark: int
    epoch: int


class NearCache(Generic[A]):
    """Answers of type `A`, at most `max_entries` of them and about `max_bytes`. Safe to use from several threads.

    `follower` must be fed by a `Follow` stream; without one the cache stays closed. `get` is the hot path and takes no
    lock: an answer that is found just before a change is applied is an answer from before that change.
    """

    def __init__(
        self, max_entries: int = 10_000, max_bytes: int = 64 * 1024 * 1024, clock: Callable[[], int] = boot_millis
    ) -> None:
        self.follower = Follower(self)
        self.lock = threading.RLock()
        """Held while anything changes. Whoever feeds the follower must hold it."""
        self._lease = self.follower.lease
        self._clock = clock
        self._max_entries, self._max_bytes = max_entries, max_bytes
        # Copied for each token, because that takes half as long as setting up the key again. Nothing else updates it.
        self._keyed = hashlib.blake2s(key=secrets.token_bytes(32), digest_size=_DIGEST_BYTES)
        self._found: OrderedDict[bytes, list[_Answer[A]]] = OrderedDict()
        self._by_session: dict[str, set[bytes]] = {}
        self._by_network: dict[tuple[str, str], set[bytes]] = {}
        self._fence: Fence[str | tuple[str, str]] = Fence()
        self._epoch = self._size = self._entries = 0
        self._hits = self._misses = self._closed = self._evicted = self._dropped = 0
        self.proven_at = 0
        """When a state was current that is applied here: before the last renewal with a grant was sent."""

    def digest(self, secret: str) -> bytes:
        """The key of a token. Raises `UnicodeEncodeError` for a text that cannot be one."""
        keyed = self._keyed.copy()
        keyed.update(secret.encode())
        return keyed.digest()

    @property
    def is_open(self) -> bool:
        """Whether it may answer now."""
        return self._lease.is_valid(self._clock())

    def find(self, secret: str, question: Any) -> A | None:
        """As `get` with the digest of a token, for the hot path. Raises `UnicodeEncodeError` as `digest` does."""
        keyed = self._keyed.copy()
        keyed.update(secret.encode())
        return self.get(keyed.digest(), question)

    def get(self, digest: bytes, question: Any, counts: bool = True) -> A | None:
        """The answer to a question about a token; None: ask the authority. `counts`: a miss adds to the counters."""
        now = self._clock()
        if now >= self._lease.until:
            self._closed += counts
            return None
        for one in self._found.get(digest, ()):
            if one.question == question and now < one.until:
                self._hits += 1
                try:  # noqa: SIM105 - `suppress` takes as long as all of the rest
                    self._found.move_to_end(digest)
                except KeyError:
                    pass  # another thread dropped it in this moment
                return one.answer
        self._misses += counts
        return None

    def close_for_good(self) -> None:
        """Never answer again. For a child process: nobody feeds the cache there, and another thread may hold `lock`."""
        self._lease.close()
        self.lock = threading.RLock()

    def begin(self, digest: bytes, question: Any) -> Fill | None:
        """Begin to ask the authority. None: the cache is closed, and the answer cannot be kept."""
        now = self._clock()
        with self.lock:
            if not self._lease.is_valid(now):
                return None
            return Fill(digest, question, self.follower.cursor, now, self._fence.begin(), self._epoch)

    def end(self, fill: Fill) -> None:
        """End a fill, whether it had an answer or not."""
        del fill
        with self.lock:
            self._fence.end()

    def keep(self, fill: Fill, answer: A, *, session: str, application: str, network: str, ms: int, size: int) -> bool:
        """Keep an answer, if nothing that concerns it has changed since the question was asked.

        session, application, network  what the answer depends on; see `Change` and `network_of`
        ms                             for how many milliseconds after the question the answer may be reused
        size                           the bytes of the response
        """
        with self.lock:
            # The clock is rounded down, so a time that it shows may be over by almost a millisecond.
            now, until = self._clock(), fill.asked_at + ms - 1
            source = (application, network)
            if (
                fill.epoch != self._epoch
                or not self._lease.is_valid(now)
                or now >= until
                or not self._fence.holds(fill.mark, session)
                or not self._fence.holds(fill.mark, source)
                or size + _OVERHEAD > self._max_bytes
            ):
                return False
            kept = _Answer(fill, answer, session, application, network, until, size + _OVERHEAD)
            found = [
                one for one in self._found.get(fill.digest, ()) if one.question != fill.question and one.until > now
            ]
            self._remove(fill.digest)
            for one in (*found[-_QUESTIONS + 1 :], kept):
                self._add(one)
            while self._entries > self._max_entries or self._size > self._max_bytes:
                # Not by an iterator: `get` may move an entry between two of its steps, in another thread.
                _, oldest = self._found.popitem(last=False)
                self._evicted += self._unlist(oldest)
            return True

    def stats(self) -> NearCacheStats:
        """The counters. Those of hits and misses are exact only if one thread asks."""
        now = self._clock()
        with self.lock:
            is_open = self._lease.is_valid(now)
            return NearCacheStats(
                is_open,
                self._hits,
                self._misses,
                self._closed,
                self._entries,
                self._size,
                self._evicted,
                self._dropped,
                (now - self.proven_at) / 1000 if is_open else None,
            )

    # What the follower tells

    def apply(self, change: Change) -> None:
        """See `FollowedCache`."""
        with self.lock:
            if change.session:
                self._fence.note(change.session)
                self._drop(self._by_session.get(change.session, ()))
            elif change.source and change.source != "*":
                source = (change.application, change.source)
                self._fence.note(source)
                self._drop(self._by_network.get(source, ()))
            else:
                self.forget()

    def forget(self) -> None:
        """See `FollowedCache`."""
        with self.lock:
            self._epoch += 1
            self._fence.note_all()
            self._dropped += self._entries
            self._found.clear()
            self._by_session.clear()
            self._by_network.clear()
            self._size = self._entries = 0

    # The index

    def _drop(self, digests: Any) -> None:
        for digest in tuple(digests):
            self._dropped += self._remove(digest)

    def _add(self, one: _Answer[A]) -> None:
        # A new list each time, because `get` may be reading the old one.
        self._found[one.digest] = [*self._found.get(one.digest, ()), one]
        self._by_session.setdefault(one.session, set()).add(one.digest)
        self._by_network.setdefault((one.application, one.network), set()).add(one.digest)
        self._entries += 1
        self._size += one.size

    def _remove(self, digest: bytes) -> int:
        """Remove all answers about a token. Returns how many there were."""
        return self._unlist(self._found.pop(digest, []))

    def _unlist(self, gone: list[_Answer[A]]) -> int:
        for one in gone:
            self._entries -= 1
            self._size -= one.size
            _discard(self._by_session, one.session, one.digest)
            _discard(self._by_network, (one.application, one.network), one.digest)
        return len(gone)


def _discard(index: dict[Any, set[bytes]], key: Any, digest: bytes) -> None:
    digests = index.get(key)
    if digests is not None:
        digests.discard(digest)
        if not digests:
            del index[key]
