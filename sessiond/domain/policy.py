"""Policies: the rules of an application, and the presets they start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sessiond.domain.values import Millis

__all__ = ["DEFAULT_PRESET", "PRESETS", "Policy"]

_SECOND = 1_000
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


@dataclass(frozen=True, slots=True)
class Policy:
    """Timeouts and limits of one application. Times in milliseconds; None: no such timeout.

    idle_timeout      without activity for this long a session ends (OWASP: 15 to 30 min low, 2 to 5 min high value)
    absolute_timeout  a session ends this long after it was opened or its subject last authenticated (OWASP: 4 to 8 h)
    renewal_timeout   a token older than this is renewed when it is next used
    renewal_overlap   the token before the current one still counts for this long after a renewal
    roll_tolerance    a token that was rolled away is denied without alarm for this long
    retention         an ended session is kept as history for this long
    max_data_bytes    bound on a session's data, keys and values together
    """

    preset: str
    idle_timeout: Millis | None
    absolute_timeout: Millis | None
    renewal_timeout: Millis | None
    renewal_overlap: Millis = Millis(60 * _SECOND)
    roll_tolerance: Millis = Millis(10 * _SECOND)
    refresh_extends_lifetime: bool = False
    retention: Millis = Millis(30 * _DAY)
    max_data_bytes: int = 64 * 1024

    @property
    def touch_granularity(self) -> Millis:
        """How far recorded activity may lag behind real activity: a twentieth of the idle timeout, 60 s at most."""
        if self.idle_timeout is None:
            return Millis(_MINUTE)
        return Millis(max(1, min(self.idle_timeout // 20, _MINUTE)))


def _preset(name: str, idle: int | None, absolute: int, renewal: int) -> Policy:
    return Policy(
        preset=name,
        idle_timeout=None if idle is None else Millis(idle),
        absolute_timeout=Millis(absolute),
        renewal_timeout=Millis(renewal),
    )


DEFAULT_PRESET = "owasp-low"

# OWASP Session Management Cheat Sheet for the first two; NIST SP 800-63B-4 sections 2.1.3, 2.2.3 and 2.3.3 for the
# others. NIST sets no renewal: ours is that of the OWASP preset with the nearest idle timeout.
PRESETS: Mapping[str, Policy] = MappingProxyType(
    {
        policy.preset: policy
        for policy in (
            _preset("owasp-low", 30 * _MINUTE, 8 * _HOUR, _HOUR),
            _preset("owasp-high", 5 * _MINUTE, 4 * _HOUR, 15 * _MINUTE),
            _preset("nist-aal1", None, 30 * _DAY, _HOUR),
            _preset("nist-aal2", _HOUR, 24 * _HOUR, _HOUR),
            _preset("nist-aal3", 15 * _MINUTE, 12 * _HOUR, 15 * _MINUTE),
        )
    }
)
