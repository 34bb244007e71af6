"""The middleware: it asks about each request before the application sees it, and adds headers to the response."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Unpack

from sessiond_client.browser import BrowserEndpoints, Site
from sessiond_client.contrib.asgi.connection import SCOPE_KEY, App, Connection, Message, Receive, Scope, Send
from sessiond_client.contrib.asgi.connection import web_request as request_of
from sessiond_client.contrib.asgi.forms import Disconnected, FormBody, is_form
from sessiond_client.contrib.asgi.guarding import Guarded
from sessiond_client.contrib.asgi.options import MiddlewareOptions
from sessiond_client.contrib.clients import ClientPerLoop, split_options
from sessiond_client.errors import SessiondError
from sessiond_client.gateway import (
    JSON,
    OUTAGES,
    SAFE_METHODS,
    Action,
    Codec,
    Exchange,
    Gateway,
    Refusal,
    Refused,
    safe_path,
)
from sessiond_client.gateway.settings import matches
from sessiond_client.guard import Closing
from sessiond_client.settings import Settings

__all__ = ["SessiondMiddleware"]

Headers = list[tuple[bytes, bytes]]

_POLICY_VIOLATION, _TRY_AGAIN_LATER = 1008, 1013  # close codes of WebSockets (RFC 6455, 7.4.1)
_EVENTS = b"text/event-stream"
_CLOSE_CODES = {
    Closing.ENDED: (_POLICY_VIOLATION, "session_ended"),
    Closing.SUSPECTED: (_POLICY_VIOLATION, "step_up_required"),
    Closing.CHANGED: (1012, "token_replaced"),  # "service restart": connect again, with the new cookie
    Closing.BLIND: (_TRY_AGAIN_LATER, "unavailable"),
}
_BEGINS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class SessiondMiddleware:
    """Sessions for an ASGI application. `request.session` is the session data, a mapping.

    Requests that must not be served are answered here. `Refused` and outages of the authority that an application does
    not handle itself become responses too. Has one client for each event loop, with a near cache.
    """

    def __init__(
        self,
        app: App,
        target: str,
        *,
        codec: Codec = JSON,
        max_form_bytes: int = 1024 * 1024,
        end_with_session: bool = True,
        browser_path: str = "",
        **options: Unpack[MiddlewareOptions],
    ) -> None:
        """`target`: the authority, as for `AsyncClient`. `codec`: how session data become bytes.

        `max_form_bytes`: in how much of the body of a form the CSRF token is looked for, if no header has it.
        `end_with_session`: end WebSockets and event streams (`text/event-stream`) when their session ends.
        `browser_path`: where the endpoints for pages and the page script are, such as `/session/`; empty: nowhere.
        `options`: `GatewaySettings` and `ClientOptions`; the near cache is on by default. Raises `TypeError` for an
        unknown name, and `ValueError` or `InvalidArgument` for a wrong value.
        """
        if max_form_bytes < 1:
            raise ValueError(f"max_form_bytes: {max_form_bytes!r} is wrong: pass bytes, at least 1")
        settings, client_options = split_options(options)
        Settings(target=target, **client_options).checked()
        self._app = app
        self._max_form_bytes = max_form_bytes
        self._guards = end_with_session
        if browser_path and not _is_folder(browser_path):
            raise ValueError(
                f"browser_path: {browser_path!r} is wrong: pass a path that ends in /, such as '/session/'"
            )
        if browser_path and matches(browser_path, settings.ignored_paths):
            raise ValueError(
                f"browser_path: {browser_path!r} is among ignored_paths, so that it would know of no session"
            )
        self._browser_path = browser_path
        self._endpoints = BrowserEndpoints()
        self._gateway = Gateway(client_options.get("application", ""), settings, codec=codec)
        self._clients = ClientPerLoop(target, client_options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, one WebSocket or the lifespan."""
        if scope["type"] == "http" and self._browser_path and scope["path"].startswith(self._browser_path):
            site = Site(self._gateway, self._clients.get(), self._clients.guard())
            path = scope["path"].removeprefix(self._browser_path)
            await self._endpoints.serve(site, request_of(scope), path, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            socket = _WebSocket(self._connection(scope), scope, receive, send)
            await self._serve(scope, socket.receive, socket)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, self._closing_client(send))
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        form = None
        if scope["method"] not in SAFE_METHODS:
            content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
            if is_form(text := content_type.decode("latin-1")):
                form = FormBody(receive, text, self._gateway.settings.csrf_field, self._max_form_bytes)
                receive = form.receive
        await self._serve(scope, receive, _Http(self._connection(scope, form), send, form))

    async def _serve(self, scope: Scope, receive: Receive, response: _Response) -> None:
        connection, exchange = response.connection, response.connection.exchange
        try:
            await connection.ask(exchange.open)
            scope["session"] = exchange.values
            action = exchange.gate()
            if action is Action.PROCEED:
                await self._call(scope, receive, response)
                if response.may_have_changes:
                    await connection.save_late()
                return
            refusal = exchange.refusal(action)
        except Disconnected:
            return
        except Exception as error:
            if not response.can_refuse:
                raise
            if isinstance(error, Refused):
                refusal = error.refusal
            elif isinstance(error, OUTAGES):
                refusal = exchange.refusal(exchange.failed(error))
            elif response.refused is not None:  # and this is what a framework made of it
                refusal = response.refused.refusal
            elif response.failure is not None:  # and this is what a framework made of it
                refusal = exchange.refusal(exchange.failed(response.failure))
            else:
                raise
        await response.refuse(refusal)

    async def _call(self, scope: Scope, receive: Receive, response: _Response) -> None:
        """Call the application. A WebSocket or an event stream is ended together with its session."""
        if not self._guards:
            await self._app(scope, receive, response.send)
            return
        response.guarded = guarded = Guarded(self._clients.guard())
        if scope["type"] == "websocket":
            response.watch()
        try:
            await self._app(scope, receive, response.send)
        except asyncio.CancelledError as error:
            if not guarded.is_ours(error):
                raise
            await response.end()
        finally:
            guarded.release()

    def _connection(self, scope: Scope, form: FormBody | None = None) -> Connection:
        connection = Connection(Exchange(self._gateway, request_of(scope, form)), self._clients, form)
        scope[SCOPE_KEY] = connection
        return connection

    def _closing_client(self, send: Send) -> Send:
        """`send` of the lifespan: the client is closed before the server learns that the shutdown is complete."""

        async def closing(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                self._endpoints.close()
                await self._clients.close()
            await send(message)

        return closing


class _Response:
    """The response to a request or a handshake: saves what was changed, and adds headers, when it begins."""

    def __init__(self, connection: Connection, send: Send) -> None:
        self.connection = connection
        self.failure: SessiondError | None = None
        """The outage because of which the response could not begin."""
        self.refused: Refused | None = None
        """Why the response could not begin: what the user wanted stored cannot be."""
        self.guarded: Guarded | None = None
        """What ends the response together with its session; None: nothing does."""
        self._send = send
        self._goes_on = False

    @property
    def can_refuse(self) -> bool:
        """Whether the client can still be told that it is refused."""
        return not self.connection.has_begun

    @property
    def may_have_changes(self) -> bool:
        """Whether session data may have been changed since the response began."""
        return self._goes_on or self.connection.exchange.values.accessed

    def watch(self) -> None:
        """End the response together with the session, if there is one."""
        session = self.connection.exchange.session
        if self.guarded is not None and session is not None:
            self.guarded.watch(session)

    async def end(self) -> None:
        """End what has begun, because the session has ended."""
        raise NotImplementedError

    async def send(self, message: Message) -> None:
        """What the application calls instead of the server's `send`."""
        if self.guarded is not None and self.guarded.closing is not None:
            return  # what it sends while it is being cancelled is not for the client any more
        if message["type"] in _BEGINS and not self.connection.has_begun:
            message = await self._begin(message)
        elif message.get("more_body", False) or message["type"] == "websocket.send":
            self._goes_on = True
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Send a refusal."""
        raise NotImplementedError

    async def _begin(self, message: Message) -> Message:
        try:
            await self.connection.ask(self.connection.exchange.save)
        except OUTAGES as error:
            self.failure = error
            raise
        except Refused as refused:
            self.refused = refused
            raise
        return self._with_headers(message)

    def _with_headers(self, message: Message) -> Message:
        self.connection.has_begun = True
        own = list(message.get("headers", ()))
        names = {name.lower() for name, _ in own}
        exchange = self.connection.exchange
        added = exchange.headers(has_cache_control=b"cache-control" in names)
        exchange.values.accessed = False  # from now on: since the response began
        return {**message, "headers": _merged(own, added)} if added else message


class _Http(_Response):
    def __init__(self, connection: Connection, send: Send, form: FormBody | None) -> None:
        super().__init__(connection, send)
        self._form = form

    async def end(self) -> None:
        """End an event stream in order: the browser connects again, and is refused then."""
        if self.connection.has_begun:
            await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, message: Message) -> Message:
        begun = await super()._begin(message)
        if any(name.lower() == b"content-type" and _EVENTS in value for name, value in begun.get("headers", ())):
            self.watch()
        return begun

    async def refuse(self, refusal: Refusal) -> None:
        """Send a refusal as a page or as JSON."""
        if refusal.action is Action.CSRF_ERROR and self._form is not None and self._form.is_too_long:
            header = self.connection.exchange.gateway.settings.csrf_header
            refusal = replace(refusal, text=f"This form is too large: send its CSRF token first, or in {header}.")
        await self._answer("http.response", refusal)

    async def _answer(self, kind: str, refusal: Refusal) -> None:
        content_type, body = refusal.body(page=self.connection.exchange.request.is_page)
        headers = {"Content-Type": content_type, "Content-Length": str(len(body)), **dict(refusal.headers)}
        start = {"type": f"{kind}.start", "status": refusal.status, "headers": _encoded(headers.items())}
        await self._send(self._with_headers(start))
        await self._send({"type": f"{kind}.body", "body": body})


class _WebSocket(_Http):
    def __init__(self, connection: Connection, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(connection, send, None)
        self._receive = receive
        self._can_answer = "websocket.http.response" in (scope.get("extensions") or {})
        self._is_closed = False

    @property
    def can_refuse(self) -> bool:
        return not self._is_closed

    async def end(self) -> None:
        """Close the WebSocket. The code says whether it makes sense to connect again."""
        closing = self.guarded.closing if self.guarded is not None else None
        if closing is not None and not self._is_closed:
            self._is_closed = True
            code, reason = _CLOSE_CODES[closing]
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def receive(self) -> Message:
        """What the application calls instead of the server's `receive`."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._is_closed = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] in ("websocket.close", "websocket.http.response.start"):
            self._is_closed = True
        await super().send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Refuse the handshake with the refusal's status, or 403 if the server cannot; or close the WebSocket."""
        if self._can_answer and not self.connection.has_begun:
            await self._answer("websocket.http.response", refusal)
            return
        code = _TRY_AGAIN_LATER if refusal.action is Action.RETRY_LATER else _POLICY_VIOLATION
        await self._send({"type": "websocket.close", "code": code, "reason": refusal.error})


def _is_folder(path: object) -> bool:
    """Whether this is a path of the site below which something can be."""
    return isinstance(path, str) and len(path) > 2 and path.endswith("/") and safe_path(path, "") == path


def _merged(own: Headers, added: Iterable[tuple[str, str]]) -> Headers:
    """The application's headers with those of the exchange: some are added, the others replaced."""
    for name, value in _encoded(added):
        if name == b"vary":
            own = _varying(own, value)
            continue
        if name != b"set-cookie":
            own = [(key, item) for key, item in own if key.lower() != name]
        own.append((name, value))
    return own


def _varying(own: Headers, by: bytes) -> Headers:
    """The headers with one more name in `Vary`, which is there once, unless it is in it already."""
    varies = [item for key, item in own if key.lower() == b"vary"]
    if varies:
        known = {item.strip().lower() for item in b",".join(varies).split(b",")}
        if b"*" in known or by.lower() in known:
            return own
        own = [(key, item) for key, item in own if key.lower() != b"vary"]
    return [*own, (b"vary", b", ".join([*varies, by]))]


def _encoded(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
