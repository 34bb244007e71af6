"""Policies: the rules of an application, and the presets that they are based on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.immutable import immutable
from sessiond.domain.signals import Reaction, Signal, SignalType, strongest
from sessiond.domain.values import Millis

__all__ = ["DEFAULT_PRESET", "PRESETS", "CookieRules", "LimitRule", "Policy", "granularity_of"]

_SECOND = 1_000
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


class LimitRule(StrEnum):
    """What happens when a subject has reached its limit of concurrent sessions (OWASP, ASVS 7.1.2)."""

    REJECT = "reject"
    EVICT_OLDEST = "evict-oldest"
    EVICT_LEAST_RECENT = "evict-least-recent"
    ASK = "ask"


@immutable
class CookieRules:
    """The attributes of an application's cookies (OWASP; RFC 6265bis for the prefix).

    `name` and `anonymous_name` may differ, so that a cookie's name changes at login. With `secure`, a path of `/` and a
    name without prefix, cookies get the `__Host-` prefix; browsers enforce these attributes for it. With `partitioned`
    each top-level site that embeds the application has a separate cookie (CHIPS).
    """

    name: str = "id"
    anonymous_name: str = "id"
    secure: bool = True
    same_site: str = "Lax"
    path: str = "/"
    # Not "cookies": it would clear the cookies of all hosts of the registrable domain and log users out of other sites.
    clear_site_data: tuple[str, ...] = ("cache", "storage")
    partitioned: bool = False

    def __hash__(self) -> int:
        """Hash a single field, which is faster: the rules are a lookup key for each token that is issued."""
        return hash(self.name)


_LOW = {
    SignalType.TOKEN_REPLAY: Reaction.REVOKE_SESSION,
    SignalType.TOKEN_COPY: Reaction.ALERT,
    SignalType.USER_AGENT_CHANGE: Reaction.ALERT,
    SignalType.IP_CHANGE: Reaction.IGNORE,
    SignalType.NETWORK_CHANGE: Reaction.IGNORE,
    SignalType.COUNTRY_CHANGE: Reaction.ALERT,
    SignalType.CERTIFICATE_MISMATCH: Reaction.REVOKE_SESSION,
    SignalType.DEVICE_MISMATCH: Reaction.STEP_UP,
    SignalType.CONCURRENT_USE: Reaction.ALERT,
    SignalType.COMPANION_MISMATCH: Reaction.REVOKE_SESSION,
    SignalType.REPORTED: Reaction.ALERT,
}
_HIGH = _LOW | {
    SignalType.TOKEN_COPY: Reaction.REVOKE_SESSION,
    SignalType.USER_AGENT_CHANGE: Reaction.STEP_UP,
    SignalType.IP_CHANGE: Reaction.ALERT,
    SignalType.NETWORK_CHANGE: Reaction.ALERT,
    SignalType.COUNTRY_CHANGE: Reaction.STEP_UP,
    SignalType.CONCURRENT_USE: Reaction.STEP_UP,
    SignalType.REPORTED: Reaction.REVOKE_SESSION,
}


@immutable
class Policy:
    """The rules of one application. Times in milliseconds; None: no such timeout.

    preset            name of the preset that the policy is based on
    idle_timeout      a session ends after this long without activity (OWASP: 15 to 30 min low, 2 to 5 min high value)
    absolute_timeout  a session ends this long after it was opened or its subject last authenticated (OWASP: 4 to 8 h)
    renewal_timeout   a token older than this is renewed when it is next used
    renewal_overlap   after a renewal the previous token remains valid for this long
    roll_tolerance    after a roll the replaced token is denied without an alarm for this long
    lost_answer_tolerance
                      the same, if the new token has never been used: the response with it may have been lost
    refresh_extends_lifetime
                      whether a refresh starts the absolute timeout again
    retention         how long an ended session of a subject is kept as history
    anonymous_retention
                      the same for an anonymous session; shorter, because each visit of a bot leaves one
    answer_retention  how long a call that is repeated with the same request id gets the first answer
    max_data_bytes    maximum size of a session's data, keys and values together, in bytes
    login_timeout     an anonymous session of a login page ends this long after it was opened (OWASP)
    remember_*        the timeouts of remembered sessions, and the level that they drop to after `idle_timeout` without
                      activity; without `remember_idle_timeout` sessions cannot be remembered
    elevation_timeout how long an elevated authentication counts (ASVS 7.5.3)
    csrf_overlap      after a subject authenticated again or was elevated, the previous CSRF token is still accepted for
                      this long: pages in other tabs have it; 0: it is not accepted
    max_sessions      maximum number of live sessions of a subject; 0: no limit
    on_limit          what happens when a login would exceed `max_sessions`
    ticket_timeout    how long a subject has for its choice if `on_limit` is `ask`
    companion_timeout maximum time to live of a companion token
    related_agents    groups of user agents (`family on platform`) that count as one: an app and its web view
    ipv4_prefix, ipv6_prefix
                      length in bits of the network prefix by which IP addresses are compared
    concurrent_use_window
                      three changes between two clients within this time raise `concurrent_use`, as do eight within
                      ten times this window if only the network differs
    fold_window       a suspicion that was reported within this time is not reported again
    reactions         what to do about each type of signal
    guessing          when guessing tokens counts as an attack
    cookie            attributes of the application's cookies
    """

    preset: str
    idle_timeout: Millis | None
    absolute_timeout: Millis | None
    renewal_timeout: Millis | None
    renewal_overlap: Millis = Millis(60 * _SECOND)
    roll_tolerance: Millis = Millis(20 * _SECOND)
    lost_answer_tolerance: Millis = Millis(60 * _SECOND)
    refresh_extends_lifetime: bool = False
    retention: Millis = Millis(30 * _DAY)
    anonymous_retention: Millis = Millis(_DAY)
    answer_retention: Millis = Millis(_DAY)
    max_data_bytes: int = 64 * 1024
    login_timeout: Millis = Millis(10 * _MINUTE)
    remember_idle_timeout: Millis | None = None
    remember_absolute_timeout: Millis | None = None
    remember_level: int = 1
    elevation_timeout: Millis = Millis(15 * _MINUTE)
    csrf_overlap: Millis = Millis(10 * _MINUTE)
    max_sessions: int = 0
    on_limit: LimitRule = LimitRule.EVICT_OLDEST
    ticket_timeout: Millis = Millis(2 * _MINUTE)
    companion_timeout: Millis = Millis(10 * _MINUTE)
    related_agents: tuple[tuple[str, ...], ...] = ()
    ipv4_prefix: int = 24
    ipv6_prefix: int = 48
    concurrent_use_window: Millis = Millis(_MINUTE)
    fold_window: Millis = Millis(_HOUR)
    reactions: Mapping[SignalType, Reaction] = field(default_factory=lambda: MappingProxyType(_LOW))
    guessing: GuessLimits = GuessLimits()
    cookie: CookieRules = CookieRules()

    def idle_for(self, *, persistent: bool) -> Millis | None:
        """Return the idle timeout of a remembered or ordinary session.

        If the policy no longer allows remembered sessions, existing ones are treated as ordinary sessions.
        """
        return self.remember_idle_timeout if persistent and self._remembers else self.idle_timeout

    def absolute_for(self, *, persistent: bool) -> Millis | None:
        """Return the absolute timeout of a remembered or ordinary session, by the same rule as `idle_for`."""
        return self.remember_absolute_timeout if persistent and self._remembers else self.absolute_timeout

    @property
    def _remembers(self) -> bool:
        return self.remember_idle_timeout is not None

    def reaction_to(self, signals: Iterable[Signal]) -> Reaction:
        """Return the reaction to all of these signals together: the most severe one."""
        return strongest(self.reactions[signal.type] for signal in signals)

    @property
    def revokes_subjects(self) -> bool:
        """Return whether the reaction to any signal revokes all sessions of the subject."""
        return Reaction.REVOKE_SUBJECT in self.reactions.values()

    @property
    def touch_granularity(self) -> Millis:
        """Return how far recorded activity may lag: a twentieth of the idle timeout, 60 s at most."""
        return granularity_of(self.idle_timeout)


@lru_cache(maxsize=1_000)
def granularity_of(idle_timeout: Millis | None) -> Millis:
    """Return how far recorded activity may lag behind real activity under this idle timeout, in milliseconds."""
    return Millis(_MINUTE if idle_timeout is None else max(1, min(idle_timeout // 20, _MINUTE)))


def _preset(name: str, idle: int | None, absolute: int, renewal: int) -> Policy:
    return Policy(name, None if idle is None else Millis(idle), Millis(absolute), Millis(renewal))


def _high_value(policy: Policy) -> Policy:
    five = Millis(5 * _MINUTE)
    return replace(policy, elevation_timeout=five, csrf_overlap=five, reactions=MappingProxyType(_HIGH))


DEFAULT_PRESET = "owasp-low"

# Sources: the OWASP Session Management Cheat Sheet for the first two, NIST SP 800-63B-4 sections 2.1.3, 2.2.3 and 2.3.3
# for the others. NIST specifies no renewal; these presets use that of the OWASP preset with the nearest idle timeout.
PRESETS: Mapping[str, Policy] = MappingProxyType(
    {
        policy.preset: policy
        for policy in (
            _preset("owasp-low", 30 * _MINUTE, 8 * _HOUR, _HOUR),
            _high_value(_preset("owasp-high", 5 * _MINUTE, 4 * _HOUR, 15 * _MINUTE)),
            _preset("nist-aal1", None, 30 * _DAY, _HOUR),
            _preset("nist-aal2", _HOUR, 24 * _HOUR, _HOUR),
            _high_value(_preset("nist-aal3", 15 * _MINUTE, 12 * _HOUR, 15 * _MINUTE)),
        )
    }
)
