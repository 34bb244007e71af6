"""What each part of normal use may lead to: the table "Normal use" in docs/reference/configuration.md, in code."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from sessiond.domain.signals import SignalType

__all__ = ["ELSEWHERE", "ENDED", "EXPECTED", "Life", "allowed"]


class Life(StrEnum):
    """What ordinary people and their devices do beyond reading pages, one at a time."""

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
"""By preset and by what happened: the signals of its alarms, and whether a session may end. Nothing else may happen."""

ELSEWHERE = "an old token from elsewhere"
"""The table's last row: an old token that cannot be shown to be from the session's own client: a replay to all presets.

Its device changed networks, or was used as another agent, since the session was last used; or the application's
proxies passed on no address or no agent.
"""


def allowed(preset: str, lives: frozenset[Life], *, elsewhere: bool) -> frozenset[str]:
    """What a request may lead to that is part of all these."""
    table = EXPECTED[preset]
    found = frozenset(outcome for life in lives for outcome in table[life])
    if elsewhere and lives.intersection(_OLD_TOKENS):
        found |= {SignalType.TOKEN_REPLAY.value, ENDED}
    return found
