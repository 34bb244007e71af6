"""Deciding about one web request on behalf of a proxy. No I/O: the steps ask questions that the caller carries out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any
from urllib.parse import quote

from sessiond.domain.immutable import immutable
from sessiond.edge.routes import CsrfCheck, Route
from sessiond_client.gateway.actions import Action, RouteRequirements
from sessiond_client.gateway.cookies import CookieNames
from sessiond_client.gateway.exchange import Exchange
from sessiond_client.gateway.gateway import Gateway
from sessiond_client.gateway.origins import is_cross_site
from sessiond_client.gateway.request import WebRequest
from sessiond_client.gateway.routes import check as check_requirements
from sessiond_client.gateway.routes import unmet
from sessiond_client.gateway.settings import GatewaySettings, matches
from sessiond_client.gateway.steps import Steps

__all__ = ["CSRF_HEADER", "IDENTITY_HEADERS", "Decision", "check", "is_forged"]

SUBJECT_HEADER = "x-session-subject"
IDENTITY_HEADERS = (SUBJECT_HEADER, "x-session-id", "x-session-level", "x-session-methods", "x-session-application")
"""What the application learns of a request's session. A proxy must remove each of them that a decision does not set:
otherwise a client could claim to be anyone."""
CSRF_HEADER = "x-session-csrf-token"
"""In which the application gets the session's CSRF token, where the route checks it."""

_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""What a header's value may contain as it is. Everything else is percent-encoded (RFC 3986), the percent sign too."""

Headers = tuple[tuple[str, str], ...]


@immutable
class Decision:
    """What a proxy must do with a request.

    action    PROCEED: pass it on to the application; otherwise respond with `status`, `response` and `body`
    upstream  headers to set in the request for the application, in place of any that the client sent. Secret
    remove    headers to remove from that request
    response  headers for the client, also if the application responds with an error. `set-cookie` and `vary` are added
              to the application's, `cache-control` only if it has none. Secret
    """

    action: Action
    upstream: Headers = field(default=(), repr=False)
    remove: tuple[str, ...] = (*IDENTITY_HEADERS, CSRF_HEADER)
    response: Headers = field(default=(), repr=False)
    status: int = 200
    body: bytes = b""
    made: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)
    """What adapters have made of this decision, which may be about many requests. Secret."""

    @property
    def names_cookie(self) -> bool:
        """Whether it sets or removes the cookies for the application. Otherwise they stay as the client sent them."""
        return "cookie" in self.remove or any(name == "cookie" for name, _ in self.upstream)


def check(gateway: Gateway, request: WebRequest, route: Route, *, forwards_cookie: bool = False) -> Steps[Decision]:
    """Decide about a request. Outages do not raise: they end in RETRY_LATER, or in PROCEED on public paths.

    `forwards_cookie`: whether the application gets the session cookie too. It does not need it.
    """
    exchange = Exchange(gateway, request)
    if matches(request.path, gateway.settings.ignored_paths):
        return _proceed(exchange, route, forwards_cookie=forwards_cookie)
    checks_token = route.csrf is CsrfCheck.TOKEN
    requirements = RouteRequirements()
    if route.csrf is CsrfCheck.ORIGIN and is_forged(request, gateway.settings):
        action = Action.CSRF_ERROR  # and nothing is asked: a forged request is no activity of the user
    else:
        yield from exchange.open(csrf=None if checks_token else False, with_data=False, with_csrf_token=checks_token)
        requirements = RouteRequirements(
            level=route.level, max_age=route.max_age, companion=_companion(exchange, route), guests=route.guests
        )
        action = yield from check_requirements(exchange, requirements)
    if action is Action.PROCEED:
        return _proceed(exchange, route, forwards_cookie=forwards_cookie)
    refusal = exchange.refusal(action, unmet(exchange, requirements))
    content_type, body = refusal.body(page=request.is_page)
    headers = (*refusal.headers, ("content-type", content_type), *exchange.headers())
    return Decision(action, response=_lower(headers), status=refusal.status, body=body)


def is_forged(request: WebRequest, settings: GatewaySettings) -> bool:
    """Return whether a page of another site sent a request that may have side effects."""
    if request.is_safe and not request.is_handshake:
        return False
    site, origin = request.headers("sec-fetch-site"), request.headers("origin")
    crosses = is_cross_site(site, origin, request.host, settings.trusted_origins)
    return crosses and not matches(request.path, settings.csrf_exempt)


def _companion(exchange: Exchange, route: Route) -> tuple[str, str | None] | None:
    if not route.companion:
        return None
    cookies, names = exchange.request.headers("cookie"), exchange.gateway.cookie_names
    return route.companion, companion_in(cookies, names, route.companion)


def _proceed(exchange: Exchange, route: Route, *, forwards_cookie: bool) -> Decision:
    upstream = dict(_identity(exchange, route))
    remove = [name for name in (*IDENTITY_HEADERS, CSRF_HEADER) if name not in upstream]
    cookies, names = exchange.request.headers("cookie"), exchange.gateway.cookie_names
    if not forwards_cookie and names is not None and (kept := without(cookies, names)) is not None:
        if kept:
            upstream["cookie"] = kept
        else:
            remove.append("cookie")
    # The application may respond to an upload after minutes. By then the client may have a newer cookie, which that of
    # this validation would undo. The next page that is fetched gets it.
    response = exchange.headers() if exchange.request.is_safe else [("Vary", "Cookie")]
    return Decision(Action.PROCEED, tuple(upstream.items()), tuple(remove), _lower(response))


def _identity(exchange: Exchange, route: Route) -> Headers:
    session = exchange.session
    if session is None or not session.subject:
        return ()
    known = session.authentication
    headers = [
        (SUBJECT_HEADER, quote(session.subject, safe=_PLAIN)),
        ("x-session-id", session.session_id),
        ("x-session-application", route.application),
        ("x-session-level", str(known.level if known is not None else 0)),
        ("x-session-methods", quote(",".join(known.methods), safe=_PLAIN) if known is not None else ""),
    ]
    if route.csrf is CsrfCheck.TOKEN and exchange.csrf is not None:
        headers.append((CSRF_HEADER, exchange.csrf.reveal()))
    return tuple(headers)


def companion_in(headers: Sequence[str], names: CookieNames | None, purpose: str) -> str | None:
    """Return the companion token for a purpose from the `Cookie` headers; None if there is none, or more than one."""
    if names is None:
        return None
    # The prefix depends on the path for which the companion token was issued.
    plain = names.subject.removeprefix("__Host-").removeprefix("__Secure-")
    prefixes = ("",) if plain == names.subject else ("__Host-", "__Secure-")
    wanted = {f"{prefix}{plain}-{purpose}" for prefix in prefixes}
    pairs = (part.partition("=") for part in ";".join(headers).split(";"))
    found = [value.strip(" \t") for name, _, value in pairs if name.strip(" \t") in wanted]
    return found[0] if len(found) == 1 else None


def without(headers: Sequence[str], names: CookieNames) -> str | None:
    """Return the `Cookie` headers as one without the session cookies; None if they contain none."""
    joined = "; ".join(headers)
    if names.subject not in joined and names.anonymous not in joined:
        return None
    parts = [part.strip(" \t") for part in joined.split(";")]
    kept = [part for part in parts if part.partition("=")[0].strip(" \t") not in (names.subject, names.anonymous)]
    return "; ".join(part for part in kept if part)


def _lower(headers: Sequence[tuple[str, str]]) -> Headers:
    return tuple((name.lower(), value) for name, value in headers)
