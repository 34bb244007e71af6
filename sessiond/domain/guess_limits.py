"""The thresholds at which guessing tokens counts as an attack."""

from __future__ import annotations

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Millis

__all__ = ["GuessLimits"]


@immutable
class GuessLimits:
    """The thresholds at which guessing tokens counts as an attack. Times in milliseconds.

    alarm_after   guesses from one source within `window` that raise GUESSING_SUSPECTED
    lock_after    guesses from one source within `window` that lock it for `lock_time`; 0: never
    flood_after   guesses within `window` from all sources together that raise GUESSING_SUSPECTED for the source `*`
    window        length of the counting window
    lock_time     how long a source stays locked
    deny_valid    whether a lock also denies valid tokens from the locked source; off by default, because honest
                  clients may share the address
    """

    alarm_after: int = 20
    lock_after: int = 100
    flood_after: int = 1_000
    window: Millis = Millis(60_000)
    lock_time: Millis = Millis(900_000)
    deny_valid: bool = False
