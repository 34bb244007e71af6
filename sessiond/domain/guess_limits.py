"""When guessing counts as an attack."""

from __future__ import annotations

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Millis

__all__ = ["GuessLimits"]


@immutable
class GuessLimits:
    """When guessing from one source counts as an attack.

    alarm_after   guesses within `window` that raise GUESSING_SUSPECTED
    lock_after    guesses within `window` that lock the source for `lock_time`; 0: never
    flood_after   guesses within `window` from all sources together that raise GUESSING_SUSPECTED for the source `*`
    deny_valid    whether a lock shuts out valid tokens of the same source too (off: it must not hurt the honest
                  neighbours behind one address)
    """

    alarm_after: int = 20
    lock_after: int = 100
    flood_after: int = 1_000
    window: Millis = Millis(60_000)
    lock_time: Millis = Millis(900_000)
    deny_valid: bool = False
