"""Cookie directives: response headers that the application sends unchanged (RFC 6265bis, CHIPS, OWASP)."""

from __future__ import annotations

from functools import lru_cache

from sessiond.crypto.tokens import Token
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import CookieRules
from sessiond.domain.session import Session
from sessiond.domain.values import Instant
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["browser_name", "fill_companion", "fill_deletion", "fill_logout", "fill_token"]

_NO_STORE = "no-store"
_PAST = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


def browser_name(rules: CookieRules, anonymous: bool) -> str:
    """Return the name of the cookie as browsers send it, prefix included."""
    return _kind(rules, anonymous=anonymous).name


def fill_token(
    directives: pb.CookieDirectives, rules: CookieRules, session: Session, token: Token, now: Instant
) -> None:
    """Add the headers that set a session's token, and that delete a cookie of the other name from before the login."""
    kind = _kind(rules, anonymous=not session.subject)
    seconds = _seconds_left(session, now) if session.persistent else None
    lifetime = "" if seconds is None else f"; Max-Age={seconds}"
    directives.set_cookie.append(f"{kind.name}={token.reveal()}{kind.attributes}{lifetime}")
    if kind.other_deletion:
        directives.set_cookie.append(kind.other_deletion)
    directives.cache_control = _NO_STORE


def fill_deletion(directives: pb.CookieDirectives, rules: CookieRules) -> None:
    """Add the headers that delete the client's token."""
    directives.set_cookie.append(_deletion(rules.name, rules))
    if rules.anonymous_name != rules.name:
        directives.set_cookie.append(_deletion(rules.anonymous_name, rules))
    directives.cache_control = _NO_STORE


def fill_logout(directives: pb.CookieDirectives, rules: CookieRules, *, keeps_cookies: bool) -> None:
    """Add the headers that clear the data of an ended session from the client (`Clear-Site-Data`).

    With `keeps_cookies`, leave out `cookies` and `*`, which would also delete a new cookie in the same response.
    """
    kinds = [kind for kind in rules.clear_site_data if not (keeps_cookies and kind in ("cookies", "*"))]
    directives.clear_site_data = ", ".join(f'"{kind}"' for kind in kinds)
    directives.cache_control = _NO_STORE


def fill_companion(
    directives: pb.CookieDirectives, rules: CookieRules, purpose: str, path: str, token: Token, seconds: int
) -> None:
    """Add the headers that set a companion token, for one path and for its remaining lifetime in seconds."""
    path = path or rules.path
    name = _prefixed(f"{rules.name}-{purpose}", rules, path)
    directives.set_cookie.append(f"{name}={token.reveal()}{_attributes(rules, path)}; Max-Age={seconds}")
    directives.cache_control = _NO_STORE


@immutable
class _Kind:
    """The parts that are the same in all cookies of sessions with a subject, or in all of anonymous sessions."""

    name: str
    attributes: str
    other_deletion: str


@lru_cache(maxsize=1_000)
def _kind(rules: CookieRules, *, anonymous: bool) -> _Kind:
    name, other = (rules.anonymous_name, rules.name) if anonymous else (rules.name, rules.anonymous_name)
    return _Kind(
        _prefixed(name, rules, rules.path),
        _attributes(rules, rules.path),
        "" if other == name else _deletion(other, rules),
    )


def _prefixed(name: str, rules: CookieRules, path: str) -> str:
    """Return the name with the strictest prefix that the attributes permit.

    Browsers reject a cookie whose attributes violate its prefix. `__Host-` requires that the cookie is set by this host
    over TLS, and sent only to this host and on all of its paths.
    """
    if not rules.secure:
        return name
    return f"__Host-{name}" if path == "/" else f"__Secure-{name}"


def _attributes(rules: CookieRules, path: str) -> str:
    # A deletion needs `Partitioned` too: browsers store partitioned cookies separately from others of the same name.
    secure, partitioned = "; Secure" if rules.secure else "", "; Partitioned" if rules.partitioned else ""
    return f"; Path={path}; HttpOnly; SameSite={rules.same_site}{secure}{partitioned}"


def _deletion(name: str, rules: CookieRules) -> str:
    return f"{_prefixed(name, rules, rules.path)}={_attributes(rules, rules.path)}; {_PAST}"


def _seconds_left(session: Session, now: Instant) -> int | None:
    """Return the seconds until the absolute deadline, or else until the idle deadline; None if there is neither."""
    end = session.absolute_deadline if session.absolute_deadline is not None else session.idle_deadline
    return None if end is None else max(0, (end - now) // 1000)
