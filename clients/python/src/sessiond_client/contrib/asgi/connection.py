"""What one HTTP request or WebSocket keeps about its session, in its ASGI scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeVar

from sessiond_client.contrib.asgi.forms import FormBody, FormNotRead
from sessiond_client.contrib.clients import ClientPerLoop
from sessiond_client.gateway import Exchange, Steps, WebRequest, run_async

__all__ = ["SCOPE_KEY", "App", "Connection", "Message", "Receive", "ResponseBegun", "Scope", "Send", "connection_of"]

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SCOPE_KEY = "sessiond"
"""Where the scope has its `Connection`. The session data is in `scope["session"]`, as Starlette expects."""


class ResponseBegun(RuntimeError):
    """A call that would change the client's cookie came after the headers of the response were sent."""


class Connection:
    """The session of one HTTP request or WebSocket."""

    __slots__ = ("_clients", "_form", "exchange", "has_begun")

    def __init__(self, exchange: Exchange, clients: ClientPerLoop, form: FormBody | None = None) -> None:
        self.exchange = exchange
        self.has_begun = False
        """Whether the headers of the response were sent. Cookies cannot change any more."""
        self._clients = clients
        self._form = form

    async def ask(self, begin: Callable[[], Steps[T]]) -> T:
        """Carry out steps. They begin again if they need the form of the request and it was not read yet."""
        client = self._clients.get()
        try:
            return await run_async(client, begin())
        except FormNotRead:
            if self._form is None:
                raise
            await self._form.read()
        return await run_async(client, begin())

    def check_not_begun(self, name: str) -> None:
        """Raise `ResponseBegun` if the headers of the response were sent."""
        if self.has_begun:
            raise ResponseBegun(
                f"{name}: the headers of the response were sent already, so the client would not get its new cookie:"
                " call it before the response begins, not in a background task or a stream"
            )

    async def save_late(self) -> bool:
        """Store what was changed since the response began. Returns False if there is no session to store it in."""
        if self.exchange.session is None:
            return not self.exchange.values.changes()
        return await self.ask(self.exchange.save)


def connection_of(request: Any) -> Connection:
    """The connection that a request, a WebSocket or a scope belongs to."""
    found = getattr(request, "scope", request).get(SCOPE_KEY)
    if not isinstance(found, Connection):
        raise RuntimeError("SessiondMiddleware is not installed: app.add_middleware(SessiondMiddleware, target=...)")
    return found


def web_request(scope: Scope, form: FormBody | None = None) -> WebRequest:
    """The request that a scope describes."""
    raw: Sequence[tuple[bytes, bytes]] = scope["headers"]

    def headers(name: str) -> Sequence[str]:
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for key, value in raw if key == wanted]

    client = scope.get("client")
    host = headers("host")
    return WebRequest(
        method=scope.get("method", "GET"),
        path=scope["path"],
        query=scope.get("query_string", b"").decode("latin-1"),
        host=host[0] if host else "",
        peer=client[0] if client else "",
        headers=headers,
        form_token=form.token if form is not None else _no_token,
        is_handshake=scope["type"] == "websocket",
    )


def _no_token() -> None:
    return None
