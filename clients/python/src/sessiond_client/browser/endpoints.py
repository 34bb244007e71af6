"""The endpoints, as an ASGI application serves them below a path of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from sessiond_client.browser import actions
from sessiond_client.browser.answers import (
    NO_CONTENT,
    NOT_FOUND,
    TOO_LARGE,
    TOO_SLOW,
    Answer,
    from_refusal,
    method_not_allowed,
    problem,
)
from sessiond_client.browser.departures import Departures
from sessiond_client.browser.script import script
from sessiond_client.browser.site import Receive, Send, Site
from sessiond_client.browser.streams import EventStreams, StreamRules, TooManyStreams
from sessiond_client.gateway import OUTAGES, Exchange, Refused, Steps, WebRequest
from sessiond_client.gateway.actions import OUTAGE_SECONDS

__all__ = ["EVENTS", "BrowserEndpoints", "wall_clock"]

_MOST_BYTES = 4096
"""How much a request may send. Nothing of it is used."""
_MOST_PATH = 200
_CLOSE_SECONDS = 10.0
_BODY_SECONDS = 10.0
EVENTS = "events"
"""The path of the event stream."""
_SCRIPT, _CLOSE = "session.js", "close"
_BUSY = problem(
    503, "too_many_streams", "Ask for the status instead, now and then.", (("Retry-After", str(OUTAGE_SECONDS)),)
)

Action = Callable[[Exchange], Steps[Answer]]


def wall_clock() -> datetime:
    """Return the time of this machine, which should be that of the authority."""
    return datetime.now(UTC)  # noqa: TID251 - the authority says when a session ends, and pages must know in how long


class BrowserEndpoints:
    """Serves the endpoints of one process. `close` it before the process stops."""

    def __init__(
        self,
        *,
        streams: StreamRules | None = None,
        close_after: float = _CLOSE_SECONDS,
        body_timeout: float = _BODY_SECONDS,
        now: actions.Now = wall_clock,
    ) -> None:
        """`streams`: bounds of the event streams. `close_after`: seconds from a closed window to the logout.

        `body_timeout`: seconds that the body of a request may take. `now`: the time, by the authority's wall clock as
        far as possible.
        """
        self._streams = EventStreams(streams or StreamRules(), now)
        self._departures = Departures(close_after)
        self._body_timeout = body_timeout
        self._actions: Mapping[str, Mapping[str, Action]] = {
            "status": {"GET": lambda exchange: actions.status(exchange, now)},
            "extend": {"POST": lambda exchange: actions.extend(exchange, now)},
            "logout": {"POST": actions.logout},
            "sessions": {"GET": actions.sessions},
            "sessions/end-others": {"POST": actions.end_others},
            "activity": {"GET": actions.activity},
        }

    async def serve(self, site: Site, request: WebRequest, path: str, receive: Receive, send: Send) -> None:
        """Serve one request. `path`: what follows the path of the endpoints, such as `status`.

        Raises `SessiondError` if the authority refuses what the endpoints must ask.
        """
        is_head = request.method == "HEAD"
        methods = self._methods(path)
        method = "GET" if is_head and path != EVENTS else request.method
        if methods is None:
            await NOT_FOUND.send(send, is_head=is_head)
        elif method not in methods:
            await method_not_allowed(methods).send(send, is_head=is_head)
        elif path == _SCRIPT:
            await script(request).send(send, is_head=is_head)
        elif method == "POST" and (problem_of_body := await self._problem_of_body(receive)) is not None:
            await problem_of_body.send(send)
        else:
            # What the user does on a page about devices is activity. What a script asks by itself is not.
            exchange = Exchange(site.gateway, replace(request, is_passive=not path.startswith("sessions/")))
            answer = await self._answered(site, exchange, method, path, receive, send)
            if answer is not None:
                await answer.send(send, exchange, is_head=is_head)

    def close(self) -> None:
        """End all event streams, and begin no more."""
        self._streams.close()
        self._departures.close()

    async def _problem_of_body(self, receive: Receive) -> Answer | None:
        """Read the body of a request. Return the answer if it is too long or too slow."""
        try:
            async with asyncio.timeout(self._body_timeout):
                return TOO_LARGE if await _is_too_large(receive) else None
        except TimeoutError:
            return TOO_SLOW

    def _methods(self, path: str) -> Collection[str] | None:
        """Return the methods that a path has; None: there is no such path."""
        if path in (_SCRIPT, EVENTS):
            return ("GET",)
        if path == _CLOSE or _session_in(path):
            return ("POST",)
        return self._actions.get(path)

    async def _answered(
        self, site: Site, exchange: Exchange, method: str, path: str, receive: Receive, send: Send
    ) -> Answer | None:
        """Return the response. None: it was sent already, as a stream."""
        is_page = exchange.request.is_page
        try:
            await site.ask(actions.open_session(exchange))
            if path == EVENTS:
                await self._streams.serve(site, exchange, actions.own(exchange), receive, send)
                return None
            if path == _CLOSE:
                await self._departures.begin(site, exchange, actions.own(exchange))
                return NO_CONTENT
            if session_id := _session_in(path):
                return await site.ask(actions.end(exchange, session_id))
            return await site.ask(self._actions[path][method](exchange))
        except Refused as refused:
            return from_refusal(refused.refusal, page=is_page)
        except OUTAGES as error:
            return from_refusal(exchange.refusal(exchange.failed(error)), page=is_page)
        except TooManyStreams:
            return _BUSY


def _session_in(path: str) -> str:
    """Return the session's id of `sessions/ID/end`; empty if the path is another one."""
    if len(path) > _MOST_PATH or not path.startswith("sessions/") or not path.endswith("/end"):
        return ""
    session_id = path.removeprefix("sessions/").removesuffix("/end")
    return "" if "/" in session_id else session_id


async def _is_too_large(receive: Receive) -> bool:
    """Read the body of a request, up to a bound, and return whether it is longer."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        if size > _MOST_BYTES:
            return True
        more = message["type"] == "http.request" and message.get("more_body", False)
    return False
