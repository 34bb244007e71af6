"""A decision as the answer to a proxy.

Caddy and Traefik pass on an answer other than 2xx as it is. nginx (auth_request) takes only 2xx, 401 and 403, and drops
the body; and of several headers of one name it sees the first one, or all of them joined (since 1.23), which takes
cookies apart. So for nginx a refusal is one header, which nginx exchanges for the real response at `/refusal`, and each
cookie is in a header of its own.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from starlette.responses import Response

from sessiond.edge.check import Decision
from sessiond_client.gateway.actions import Action

__all__ = ["MOST_COOKIES", "REFUSAL", "for_nginx", "plain", "refusal_in", "unavailable"]

REFUSAL = "x-session-refusal"
"""The header with the response to a request that nginx must refuse."""
_NUMBERED = "x-session-set-cookie-"
MOST_COOKIES = 4
"""How many cookies a configuration of nginx passes on. A decision has at most two: the session's, and the guest's."""
_ACTION = "x-session-action"
_REFUSALS = range(300, 600)
_NAME, _VALUE = re.compile(r"[a-z0-9-]+"), re.compile(r"[\x20-\x7e\x80-\xff]*")

Headers = Sequence[tuple[str, str]]


def plain(decision: Decision, cookie: Sequence[str]) -> Response:
    """Return the answer for a proxy that passes refusals on. `cookie`: the `Cookie` headers of the request."""
    if decision.action is Action.PROCEED:
        return _response(200, (*_upstream(decision, cookie), *decision.response))
    return _response(decision.status, [(_ACTION, decision.action.value), *decision.response], decision.body)


def for_nginx(decision: Decision, cookie: Sequence[str]) -> Response:
    """Return the answer for nginx. `cookie`: the `Cookie` headers of the request."""
    if decision.action is not Action.PROCEED:
        said = json.dumps([decision.status, decision.response, decision.body.decode()]).encode()
        return _response(401, [(_ACTION, decision.action.value), (REFUSAL, urlsafe_b64encode(said).decode("ascii"))])
    cookies = [value for name, value in decision.response if name == "set-cookie"]
    if len(cookies) > MOST_COOKIES:
        raise AssertionError("more cookies than a configuration of nginx passes on")
    numbered = [(f"{_NUMBERED}{number}", value) for number, value in enumerate(cookies, 1)]
    others = [(name, value) for name, value in decision.response if name != "set-cookie"]
    return _response(200, [*_upstream(decision, cookie), *numbered, *others])


def refusal_in(sent: Sequence[str]) -> Response:
    """Return the response that a refusal's header contains; 403 if there is none, so that nobody passes."""
    try:
        (text,) = sent
        status, headers, body = json.loads(urlsafe_b64decode(text.encode("ascii")))
        pairs = [(name, value) for name, value in headers]
        if status in _REFUSALS and all(_NAME.fullmatch(name) and _VALUE.fullmatch(value) for name, value in pairs):
            return _response(status, pairs, body.encode())
    except (ValueError, TypeError, AttributeError):
        pass
    return _response(403, [("content-type", "text/plain; charset=utf-8")], b"Forbidden.\n")


def unavailable(status: int, text: str, *, retry_after: int | None = None) -> Response:
    """Return the answer if there is no decision. No proxy lets the request pass."""
    headers = [("content-type", "text/plain; charset=utf-8")]
    if retry_after is not None:
        headers.append(("retry-after", str(retry_after)))
    return _response(status, headers, text.encode())


def _upstream(decision: Decision, cookie: Sequence[str]) -> Headers:
    """Return the headers of the request that the application gets, its cookies always among them if it has any."""
    headers = [(_ACTION, decision.action.value), *decision.upstream]
    named = "cookie" in decision.remove or any(name == "cookie" for name, _ in decision.upstream)
    if cookie and not named:
        headers.append(("cookie", "; ".join(cookie)))
    return headers


def _response(status: int, headers: Headers, body: bytes = b"") -> Response:
    response = Response(body, status)
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    length = str(len(body)).encode("ascii")
    response.raw_headers = [*raw, (b"content-length", length)]
    return response
