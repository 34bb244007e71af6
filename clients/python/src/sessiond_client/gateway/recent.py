"""The latest changes of sessions by this process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from sessiond_client.tokens import Token

__all__ = ["IN_FLIGHT_SECONDS", "LEASE_SECONDS", "RecentChanges"]

LEASE_SECONDS = 5.0
"""For how long a near cache may not know of a change: the longest lease."""
IN_FLIGHT_SECONDS = 20.0
"""For how long a client may still send a token that it does not have any more: the policy's `roll_tolerance`."""
_MOST = 10_000


class RecentChanges:
    """Sessions that this process has just changed, so that its next questions see the change despite a near cache."""

    def __init__(self, clock: Callable[[], float], seconds: float = LEASE_SECONDS) -> None:
        """Note changes for so many seconds of this clock."""
        self._clock = clock
        self._seconds = seconds
        self._lock = threading.Lock()
        self._until: OrderedDict[Token, tuple[float, str]] = OrderedDict()

    def note(self, token: Token, consistency_token: str) -> None:
        """Note a change of the session that this token belongs to."""
        with self._lock:
            self._until[token] = (self._clock() + self._seconds, consistency_token)
            self._until.move_to_end(token)
            if len(self._until) > _MOST:
                self._until.popitem(last=False)

    def at_least(self, token: Token) -> str:
        """The state that a question about this token must see; empty: any."""
        if not self._until:
            return ""
        with self._lock:
            until, consistency_token = self._until.get(token, (0.0, ""))
            if consistency_token and self._clock() >= until:
                del self._until[token]
                return ""
            return consistency_token
