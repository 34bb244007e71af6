"""Responses of the endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sessiond_client.browser.site import Send
from sessiond_client.gateway import Exchange, Refusal

__all__ = [
    "NOT_FOUND",
    "NO_CONTENT",
    "TOO_LARGE",
    "TOO_SLOW",
    "Answer",
    "from_refusal",
    "json_answer",
    "method_not_allowed",
    "problem",
]

Headers = Sequence[tuple[str, str]]

_NO_STORE = ("Cache-Control", "no-store")
_ALWAYS: Headers = (("X-Content-Type-Options", "nosniff"), ("Cross-Origin-Resource-Policy", "same-origin"))
"""On every response: it is what it says it is, and only for pages of this site."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. `cacheable`: whether `headers` say how long it may be kept; otherwise nobody may keep it."""

    status: int
    headers: Headers = ()
    body: bytes = field(default=b"", repr=False)
    cacheable: bool = False

    def all_headers(self, exchange: Exchange | None = None) -> list[tuple[bytes, bytes]]:
        """Return its headers, and those that the session needs, as ASGI wants them."""
        headers = [*self.headers, *_ALWAYS]
        if exchange is not None:
            own = exchange.headers(has_cache_control=True)
            headers += [(name, value) for name, value in own if name not in ("Cache-Control", "Vary")]
        if not self.cacheable:
            headers += [_NO_STORE, ("Vary", "Cookie")]
        return _encoded(headers)

    async def send(self, send: Send, exchange: Exchange | None = None, *, is_head: bool = False) -> None:
        """Send it. `is_head`: without its body."""
        headers = self.all_headers(exchange)
        if self.status != 204:
            headers.append((b"content-length", str(len(self.body)).encode("ascii")))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if is_head else self.body})


NO_CONTENT = Answer(204)


def json_answer(value: Any, status: int = 200, headers: Headers = ()) -> Answer:
    """Return a response with JSON."""
    return Answer(status, (("Content-Type", "application/json"), *headers), json.dumps(value).encode())


def problem(status: int, error: str, text: str, headers: Headers = ()) -> Answer:
    """Return a response to a request that is wrong. `error`: a name for programs; `text`: a sentence for people."""
    return json_answer({"error": error, "detail": text}, status, headers)


NOT_FOUND = problem(404, "not_found", "There is no such page or session.")
TOO_LARGE = problem(413, "too_large", "This request has a body that nobody reads.")
TOO_SLOW = problem(408, "too_slow", "The body of this request has not arrived in time.")


def method_not_allowed(methods: Iterable[str]) -> Answer:
    """Return the response to a request with a method that the endpoint does not have."""
    allowed = ", ".join(methods)
    return problem(405, "method_not_allowed", f"This page takes {allowed}.", (("Allow", allowed),))


def from_refusal(refusal: Refusal, *, page: bool) -> Answer:
    """Return a refusal as a response, for a page or for a program."""
    content_type, body = refusal.body(page=page)
    return Answer(refusal.status, (("Content-Type", content_type), *refusal.headers), body)


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
