"""The expected effects of each part of normal use: the table in docs/reference/configuration.md, as code."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from sessiond.domain.signals import SignalType

__all__ = ["ELSEWHERE", "ENDED", "EXPECTED", "Life", "allowed"]


class Life(StrEnum):
    """What ordinary people and their devices do apart from reading pages, one thing at a time."""

    UPLOAD = "long upload"
    HYBRID = "hybrid app"
    EXTENSION = "app extension"
    RESTORED = "restored phone"
    UNFLUSHED = "unflushed cookies"
    OVERTAKEN = "overtaken answer"
    LOST = "lost answer"
    LATE_LOGIN = "late login"
    DOUBLE_CLICK = "double click"
    TWO_NETWORKS = "two networks"
    DESKTOP_SITE = "desktop site"
    IN_APP = "in-app browser"


ENDED = "session ended"
_COPY = SignalType.TOKEN_COPY.value
_AGENT = SignalType.USER_AGENT_CHANGE.value
_TURNS = SignalType.CONCURRENT_USE.value
_OLD_TOKENS = (Life.UPLOAD, Life.EXTENSION, Life.RESTORED, Life.UNFLUSHED, Life.OVERTAKEN, Life.LOST, Life.LATE_LOGIN)
_LOW: Mapping[Life, frozenset[str]] = {
    **dict.fromkeys(_OLD_TOKENS, frozenset({_COPY})),
    Life.HYBRID: frozenset(),
    Life.DOUBLE_CLICK: frozenset(),
    Life.TWO_NETWORKS: frozenset({_TURNS}),
    Life.DESKTOP_SITE: frozenset({_AGENT, _TURNS}),
    Life.IN_APP: frozenset({_AGENT}),
}
_HIGH: Mapping[Life, frozenset[str]] = {
    **_LOW,
    **dict.fromkeys(_OLD_TOKENS, frozenset({_COPY, ENDED})),
    Life.DESKTOP_SITE: frozenset({_AGENT}),
}
EXPECTED: Mapping[str, Mapping[Life, frozenset[str]]] = {
    "owasp-low": _LOW,
    "owasp-high": _HIGH,
    "nist-aal1": _LOW,
    "nist-aal2": _LOW,
    "nist-aal3": _HIGH,
}
"""By preset and part of life: the signals of possible alarms, and if a session may end. Nothing else may happen."""

ELSEWHERE = "an old token from elsewhere"
"""The table's last row: an old token that may not be from the session's own client, which is a replay in all presets.

Its device has changed networks or its user agent since the session was last used, or the application's proxies passed
on no address or no user agent.
"""


def allowed(preset: str, lives: frozenset[Life], *, elsewhere: bool) -> frozenset[str]:
    """Return what a request that is part of all these may lead to."""
    table = EXPECTED[preset]
    found = frozenset(outcome for life in lives for outcome in table[life])
    if elsewhere and lives.intersection(_OLD_TOKENS):
        found |= {SignalType.TOKEN_REPLAY.value, ENDED}
    return found
