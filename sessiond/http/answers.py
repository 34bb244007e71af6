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
from dataclasses import field

from sessiond.domain.immutable import immutable
from sessiond.edge.check import Decision
from sessiond_client.gateway.actions import OUTAGE_SECONDS, Action

__all__ = [
    "MOST_COOKIES",
    "REFUSAL",
    "Answer",
    "answer",
    "for_nginx",
    "misconfigured",
    "plain",
    "refusal_in",
    "try_again",
]

REFUSAL = "x-session-refusal"
"""The header with the response to a request that nginx must refuse."""
_NUMBERED = "x-session-set-cookie-"
MOST_COOKIES = 4
"""How many cookies a configuration of nginx passes on. A decision has at most two: the session's, and the guest's."""
_ACTION = "x-session-action"
_REFUSALS = range(300, 600)
_NAME, _VALUE = re.compile(r"[a-z0-9-]+"), re.compile(r"[\x20-\x7e\x80-\xff]*")

Headers = Sequence[tuple[str, str]]


@immutable
class Answer:
    """A response over HTTP: its status, its headers with the length of the body, and the body."""

    status: int
    headers: Sequence[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


def plain(decision: Decision, cookie: Sequence[str]) -> Answer:
    """Return the answer for a proxy that passes refusals on. `cookie`: the `Cookie` headers of the request."""
    if decision.action is Action.PROCEED:
        return answer(200, (*_upstream(decision, cookie), *decision.response))
    return answer(decision.status, [(_ACTION, decision.action.value), *decision.response], decision.body)


def for_nginx(decision: Decision, cookie: Sequence[str]) -> Answer:
    """Return the answer for nginx. `cookie`: the `Cookie` headers of the request."""
    if decision.action is not Action.PROCEED:
        said = json.dumps([decision.status, decision.response, decision.body.decode()]).encode()
        return answer(401, [(_ACTION, decision.action.value), (REFUSAL, urlsafe_b64encode(said).decode("ascii"))])
    cookies = [value for name, value in decision.response if name == "set-cookie"]
    if len(cookies) > MOST_COOKIES:
        raise AssertionError("more cookies than a configuration of nginx passes on")
    numbered = [(f"{_NUMBERED}{number}", value) for number, value in enumerate(cookies, 1)]
    others = [(name, value) for name, value in decision.response if name != "set-cookie"]
    return answer(200, [*_upstream(decision, cookie), *numbered, *others])


def refusal_in(sent: Sequence[str]) -> Answer:
    """Return the response that a refusal's header contains; 403 if there is none, so that nobody passes."""
    try:
        (text,) = sent
        status, headers, body = json.loads(urlsafe_b64decode(text.encode("ascii")))
        pairs = [(name, value) for name, value in headers]
        if status in _REFUSALS and all(_NAME.fullmatch(name) and _VALUE.fullmatch(value) for name, value in pairs):
            return answer(status, pairs, body.encode())
    except (ValueError, TypeError, AttributeError):
        pass
    return answer(403, [("content-type", "text/plain; charset=utf-8")], b"Forbidden.\n")


def try_again() -> Answer:
    """Return the answer if there is no decision now. No proxy lets the request pass."""
    headers = [("content-type", "text/plain; charset=utf-8"), ("retry-after", str(OUTAGE_SECONDS))]
    return answer(503, headers, b"Please try again in a moment.\n")


def misconfigured() -> Answer:
    """Return the answer if the proxy cannot ask. It names no reason, because it goes to clients."""
    text = b"The proxy of this site cannot ask about the request.\n"
    return answer(500, [("content-type", "text/plain; charset=utf-8")], text)


def _upstream(decision: Decision, cookie: Sequence[str]) -> Headers:
    """Return the headers of the request that the application gets, its cookies always among them if it has any."""
    headers = [(_ACTION, decision.action.value), *decision.upstream]
    if cookie and not decision.names_cookie:
        headers.append(("cookie", "; ".join(cookie)))
    return headers


def answer(status: int, headers: Headers, body: bytes = b"") -> Answer:
    """Return an answer. The characters of the headers are those of ISO 8859-1."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return Answer(status, (*raw, (b"content-length", str(len(body)).encode("ascii"))), body)
