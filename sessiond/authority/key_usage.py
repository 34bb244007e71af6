"""What still needs a key of the ring: live sessions whose tokens it may have sealed, and stored values."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sessiond.domain.immutable import immutable
from sessiond.domain.key_ring import SealingKey
from sessiond.domain.policy import Policy
from sessiond.domain.values import FIRST_ID, Instant, SessionId
from sessiond.store.contract import Place, Store, TokenAge

__all__ = ["LiveTokens", "count_tokens", "count_values", "tickets_end"]

_ROWS = 500
"""Rows that are read at once. Other calls wait meanwhile."""
_ALLOWANCE = 10_000
"""Milliseconds for which a replica may have sealed with a key after another one was promoted, clocks included."""


@immutable
class LiveTokens:
    """The live sessions whose tokens a key may have sealed.

    until        when the last of them ends at the latest; None: there are none, or one of them has no end
    is_partial   not all sessions were looked at, so there may be more
    """

    count: int = 0
    until: Instant | None = None
    is_endless: bool = False
    is_partial: bool = False

    def with_session(self, absolute_deadline: Instant | None) -> LiveTokens:
        """Return the same with one more session."""
        endless = self.is_endless or absolute_deadline is None
        until = None if endless else Instant(max(self.until or 0, absolute_deadline or 0))
        return LiveTokens(self.count + 1, until, endless, self.is_partial)


def tickets_end(key: SealingKey, policies: Iterable[Policy]) -> Instant | None:
    """Return until when a ticket or a companion token that a key sealed may be valid; None: it seals, or never did."""
    if key.sealed_until is None:
        return None
    longest = max((max(policy.ticket_timeout, policy.companion_timeout) for policy in policies), default=0)
    return Instant(key.sealed_until + longest)


async def count_tokens(
    store: Store, keys: Sequence[SealingKey], seconds: float | None = None
) -> Mapping[bytes, LiveTokens]:
    """Return for each key that has sealed, and does not any more, how many live sessions may have a token of it.

    A token is sealed when it is handed out, but the store knows only when it was first used. Between the two lies at
    most the session's idle timeout, or the session would have ended. So the count is never too low, and may be too high
    until that time has passed. The walk ends after `seconds`.
    """
    loop = asyncio.get_running_loop()
    end = None if seconds is None else loop.time() + seconds
    limits = {key.fingerprint: Instant(key.sealed_until + _ALLOWANCE) for key in keys if key.sealed_until is not None}
    found = {fingerprint: LiveTokens() for fingerprint in limits}
    after, before = FIRST_ID, _first_id_at(Instant(max(limits.values(), default=0)))
    while limits:
        ages = await store.token_ages(after, before, _ROWS)
        for age in ages:
            for fingerprint, limit in limits.items():
                if _may_be_of(age, limit):
                    found[fingerprint] = found[fingerprint].with_session(age.absolute_deadline)
        if len(ages) < _ROWS:
            break
        after = ages[-1].session_id
        if end is not None and loop.time() >= end:
            return {
                fingerprint: LiveTokens(known.count, known.until, known.is_endless, is_partial=True)
                for fingerprint, known in found.items()
            }
    return found


async def count_values(store: Store, seconds: float) -> tuple[Mapping[bytes, int], bool]:
    """Return how many values of session data are sealed under the key with each mark; plain ones have an empty mark.

    The second part is whether the count ended early, after `seconds`.
    """
    loop = asyncio.get_running_loop()
    end, marks = loop.time() + seconds, Counter[bytes]()
    place: Place | None = (bytes(FIRST_ID), "")
    while place is not None:
        found, place = await store.data_marks(place, _ROWS)
        marks.update(found)
        if place is not None and loop.time() >= end:
            return marks, True
    return marks, False


def _may_be_of(age: TokenAge, limit: Instant) -> bool:
    """Return whether the session's token may have been sealed before `limit`."""
    if age.ended or age.session_id >= _first_id_at(limit):
        return False
    if age.rolled:
        return age.began < limit
    return age.idle is None or age.began < limit + age.idle


def _first_id_at(time: Instant) -> SessionId:
    """Return the smallest id that a session which begins at that time can have: a UUIDv7 begins with its time."""
    return SessionId(max(time, 0).to_bytes(6, "big") + bytes(10))
