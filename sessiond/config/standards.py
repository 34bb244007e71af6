"""Settings that are weaker than the published guidance.

The guidance is the OWASP Session Management Cheat Sheet (whose ranges are common values, not limits), OWASP ASVS 5.0
and NIST SP 800-63B-4. If a document requires something and states no number, the number is ours and the source is
`sessiond`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from sessiond.config.durations import format_duration, parse_duration
from sessiond.config.loading import Config
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import Millis

__all__ = ["Departure", "departures"]

_OWASP = "OWASP Session Management Cheat Sheet"
_ASVS = "ASVS 5.0"
_NIST = "NIST SP 800-63B-4"
_OURS = "sessiond"

_FAMILIAR_NAMES = {"phpsessid", "jsessionid", "cfid", "cftoken", "asp.net_sessionid"}


@immutable
class Departure:
    """One setting that is weaker than the guidance.

    application  the application whose policy has it; empty for a setting of the server
    key          its path in the file
    origin       where its value comes from: `FILE:LINE`, `preset NAME` or `default`
    message      what is set, and what the guidance says
    source       the document and its section, or `sessiond` for our own advice
    """

    application: str
    key: str
    origin: str
    message: str
    source: str


class _Finding(NamedTuple):
    key: str
    message: str
    source: str


class _Limits(NamedTuple):
    """The longest timeouts in the document that a preset follows; None if it requires no idle timeout.

    `idle_missing` and `absolute_missing` name the documents that require such a timeout. ASVS does, without a number.
    """

    idle: Millis | None
    idle_rule: str
    idle_source: str
    idle_missing: str
    absolute: Millis
    absolute_rule: str
    absolute_source: str
    absolute_missing: str


def _owasp(idle: str, idle_rule: str) -> _Limits:
    return _Limits(
        idle=parse_duration(idle),
        idle_rule=idle_rule,
        idle_source=f"{_OWASP}, Session Expiration",
        idle_missing=f"{_OWASP}, Idle Timeout; {_ASVS} 7.3.1",
        absolute=parse_duration("8h"),
        absolute_rule="4 to 8 hours are appropriate for a day of office work",
        absolute_source=f"{_OWASP}, Session Expiration",
        absolute_missing=f"{_OWASP}, Absolute Timeout; {_ASVS} 7.3.2",
    )


def _nist(section: str, idle: str | None, absolute: str, absolute_rule: str) -> _Limits:
    return _Limits(
        idle=None if idle is None else parse_duration(idle),
        idle_rule=f"the inactivity timeout SHOULD be no more than {idle}",
        idle_source=f"{_NIST} section {section}",
        idle_missing=f"{_NIST} section {section}; {_ASVS} 7.3.1",
        absolute=parse_duration(absolute),
        absolute_rule=absolute_rule,
        absolute_source=f"{_NIST} section {section}",
        absolute_missing=f"{_NIST} section {section}; {_ASVS} 7.3.2",
    )


_LIMITS = {
    "owasp-low": _owasp("30m", "15 to 30 minutes are common for low risk"),
    "owasp-high": _owasp("5m", "2 to 5 minutes are common for high value"),
    "nist-aal1": _nist("2.1.3", None, "30d", "the overall timeout SHOULD be no more than 30 days at AAL1"),
    "nist-aal2": _nist("2.2.3", "1h", "24h", "the overall timeout SHOULD be no more than 24 hours at AAL2"),
    "nist-aal3": _nist("2.3.3", "15m", "12h", "the overall timeout SHALL be no more than 12 hours at AAL3"),
}


def departures(config: Config) -> list[Departure]:
    """Return every setting that is weaker than the guidance: those of the server, then those of each application.

    Those of an application are in the order of the file's lines; values of its preset come last. Timeouts are compared
    with the document that the application's preset follows, all other settings with all three documents.
    """
    found = []
    if config.allow_remote_plaintext and config.tls_certificate is None:
        key = "server.allow_remote_plaintext"
        origin = config.server_origins.get(key, "default")
        message = "tokens may be sent unencrypted; session secrets SHALL be sent in an authenticated protected channel"
        found.append(Departure("", key, origin, message, f"{_NIST} section 5.1"))
    for application, policy in config.policies.items():
        origins = config.origins.get(application, {})
        of_application = [
            Departure(application, key, origins.get(key, f"preset {policy.preset}"), message, source)
            for key, message, source in _findings(policy)
        ]
        found += sorted(of_application, key=_line)
    return found


def _line(departure: Departure) -> float:
    """Return the line that a value comes from, or infinity if it comes from a preset."""
    _, _, line = departure.origin.rpartition(":")
    return int(line) if line.isdecimal() else math.inf


def _findings(policy: Policy) -> Iterator[_Finding]:
    limits = _LIMITS.get(policy.preset)
    if limits is not None:
        yield from _idle(policy, limits)
        yield from _absolute(policy, limits)
    yield from _remembering(policy)
    yield from _our_bounds(policy)
    yield from _reactions(policy)
    yield from _cookie(policy)


def _idle(policy: Policy, limits: _Limits) -> Iterator[_Finding]:
    timeout = policy.idle_timeout
    if limits.idle is None:
        return  # AAL1 requires none
    if timeout is None:
        yield _Finding("idle_timeout", f"an inactive session never expires; {limits.idle_rule}", limits.idle_missing)
    elif timeout > limits.idle:
        message = f"{format_duration(timeout)} without activity; {limits.idle_rule}"
        yield _Finding("idle_timeout", message, limits.idle_source)


def _absolute(policy: Policy, limits: _Limits) -> Iterator[_Finding]:
    timeout = policy.absolute_timeout
    if timeout is None:
        message = f"an active session never expires; {limits.absolute_rule}"
        yield _Finding("absolute_timeout", message, limits.absolute_missing)
    elif timeout > limits.absolute:
        message = f"a session may last {format_duration(timeout)}; {limits.absolute_rule}"
        yield _Finding("absolute_timeout", message, limits.absolute_source)
    if policy.refresh_extends_lifetime:
        yield _Finding(
            "refresh_extends_lifetime",
            "a refresh without authentication restarts the absolute timeout, which then limits nothing",
            f"{_OWASP}, Absolute Timeout; {_ASVS} 7.3.2; {_NIST} section 5.2",
        )
    remembered = policy.remember_absolute_timeout
    # OWASP states no number for remembered sessions. `_remembering` reports that they are remembered at all.
    if remembered is not None and remembered > limits.absolute and policy.preset.startswith("nist-"):
        message = f"a remembered session may last {format_duration(remembered)}; {limits.absolute_rule}"
        yield _Finding("remember_absolute_timeout", message, limits.absolute_source)


def _remembering(policy: Policy) -> Iterator[_Finding]:
    if policy.remember_idle_timeout is None:
        return
    yield _Finding(
        "remember_idle_timeout",
        "remembered sessions need persistent cookies; session secrets SHOULD NOT outlive a restart of the browser",
        f"{_OWASP}, Expire and Max-Age Attributes; {_NIST} section 5.1",
    )
    rule = "remembering SHALL NOT replace authentication, except at AAL2 as part of reauthentication"
    if policy.idle_timeout is None:
        message = f"without idle_timeout the level of a remembered session never falls; {rule}"
        yield _Finding("idle_timeout", message, f"{_NIST} section 5.1")
    if policy.remember_level > 1:
        message = f"a remembered session keeps level {policy.remember_level} without activity; {rule}"
        yield _Finding("remember_level", message, f"{_NIST} section 5.1")


def _our_bounds(policy: Policy) -> Iterator[_Finding]:
    """Yield settings for which no document states a number."""
    if policy.renewal_timeout is None:
        message = "tokens are never renewed: a stolen token works as long as its session, and its use is not detected"
        yield _Finding("renewal_timeout", message, _OURS)
    else:
        yield from _renewal_within_tolerance(policy, policy.renewal_timeout)
    for key, longest, why in (
        ("renewal_overlap", "5m", "the interval in which two tokens are valid is meant for requests in flight"),
        ("roll_tolerance", "60s", "during this time a token stolen before a login is denied without an alarm"),
        ("elevation_timeout", "1h", "an elevation is meant for a single operation (ASVS 7.5.3 states no number)"),
        (
            "csrf_overlap",
            "1h",
            "whoever learned a CSRF token before a step-up can forge requests for this long after it",
        ),
        ("login_timeout", "1h", "on a shared machine the next person can use a login page that was left open"),
        ("companion_timeout", "1h", "companion tokens are meant for one visit to a sensitive page"),
    ):
        value = getattr(policy, key)
        if value > parse_duration(longest):
            yield _Finding(key, f"{format_duration(value)} is more than {longest}; {why}", _OURS)
    if not policy.guessing.lock_after:
        message = f"guessing tokens raises an alarm and never locks the source ({_OWASP}: alert and/or block)"
        yield _Finding("guessing.lock_after", message, _OURS)


def _renewal_within_tolerance(policy: Policy, renewal: Millis) -> Iterator[_Finding]:
    """Yield a renewal that may come while a repeated login still gets the unrenewed token (docs/model, rotation)."""
    key = max(("lost_answer_tolerance", "roll_tolerance"), key=lambda name: int(getattr(policy, name)))
    tolerance = getattr(policy, key)
    if renewal <= tolerance:
        message = (
            f"{format_duration(renewal)} is not longer than {key} ({format_duration(tolerance)}); the late response to "
            "a repeated login can replace a renewed token by the one before it, and that is then an alarm"
        )
        yield _Finding("renewal_timeout", message, _OURS)


def _reactions(policy: Policy) -> Iterator[_Finding]:
    def reaction(kind: SignalType) -> Reaction:
        return policy.reactions.get(kind, Reaction.IGNORE)

    ends = (Reaction.REVOKE_SESSION, Reaction.REVOKE_SUBJECT)
    monitoring = "detected potential fraud SHOULD lead to reauthentication, the end of the session, or a notification"
    for kind in (SignalType.TOKEN_REPLAY, SignalType.CONCURRENT_USE, SignalType.REPORTED):
        if reaction(kind) is Reaction.IGNORE:
            yield _Finding(f"reactions.{kind}", f"is ignored; {monitoring}", f"{_NIST} section 5.3")
    replay = reaction(SignalType.TOKEN_REPLAY)
    if replay is not Reaction.IGNORE and replay not in ends:
        message = f'"{replay}" leaves the session valid for the holder of the newer token, who may be the thief'
        yield _Finding(f"reactions.{SignalType.TOKEN_REPLAY}", message, _OURS)
    for kind in (
        SignalType.USER_AGENT_CHANGE,
        SignalType.COUNTRY_CHANGE,
        SignalType.CERTIFICATE_MISMATCH,
        SignalType.DEVICE_MISMATCH,
    ):
        if reaction(kind) is Reaction.IGNORE:
            message = "is ignored; binding sessions to properties of the client is highly recommended"
            yield _Finding(f"reactions.{kind}", message, f"{_OWASP}, Session Attacks Detection")
    companion = reaction(SignalType.COMPANION_MISMATCH)
    if companion not in ends:
        message = f'"{companion}" does not end a session that is used with the companion token of another session'
        yield _Finding(
            f"reactions.{SignalType.COMPANION_MISMATCH}", message, "a practitioner's note on hijack countermeasures"
        )


def _cookie(policy: Policy) -> Iterator[_Finding]:
    cookie = policy.cookie
    if not cookie.secure:
        message = "browsers send the cookie over plain HTTP too; session cookies SHALL be sent over HTTPS only"
        source = f"{_OWASP}, Secure Attribute; {_ASVS} 3.3.1; {_NIST} section 5.1.1"
        yield _Finding("cookie.secure", message, source)
    elif cookie.path != "/":
        message = (
            'with a path other than "/" there is no __Host- prefix, and other hosts of the domain can set the cookie'
        )
        yield _Finding("cookie.path", message, f"{_ASVS} 3.3.3; {_NIST} section 5.1.1")
    if cookie.same_site not in ("Strict", "Lax"):
        message = f'"{cookie.same_site}" sends the cookie with requests from other sites; it SHOULD be Strict or Lax'
        yield _Finding("cookie.same_site", message, f"{_ASVS} 3.3.2; {_NIST} section 5.1.1")
    if not cookie.clear_site_data:
        message = "at logout the browser is not asked to clear what the application stored in it"
        yield _Finding("cookie.clear_site_data", message, f"{_ASVS} 14.3.1")
    for kind in ("cookies", "*"):
        if kind in cookie.clear_site_data:
            message = (
                f'"{kind}" clears the cookies of every host of the registrable domain, which logs users out of the '
                "other hosts too; sessiond deletes its own cookies by name"
            )
            yield _Finding("cookie.clear_site_data", message, _OURS)
            break
    for key in ("name", "anonymous_name"):
        name = getattr(cookie, key)
        if name.lower() in _FAMILIAR_NAMES:
            message = f'"{name}" reveals what the application runs on; a generic name such as "id" does not'
            yield _Finding(f"cookie.{key}", message, f"{_OWASP}, Session ID Name Fingerprinting")
