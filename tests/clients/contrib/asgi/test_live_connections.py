"""WebSockets and event streams end together with their session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from sessiond.app import App
from sessiond_client import AsyncClient, Created
from sessiond_client.contrib.asgi import SessiondMiddleware, current_subject
from tests.clients.contrib.asgi.shop import COOKIE, HOST
from tests.clients.contrib.asgi.test_websockets import Socket
from tests.support.clock import ManualClock


async def chat(socket: WebSocket) -> None:
    """Say who is there, and wait for ever."""
    await socket.accept()
    await socket.send_text(current_subject(socket) or "guest")
    await socket.receive_text()


async def orders(request: Request) -> StreamingResponse:
    """An event stream that never ends by itself."""
    kind = request.query_params.get("type", "text/event-stream")

    async def lines() -> AsyncIterator[str]:
        yield f"data: {current_subject(request)}\n\n"
        await asyncio.Event().wait()

    return StreamingResponse(lines(), media_type=kind)


def application(target: str, **options: Any) -> Starlette:
    """An application with a WebSocket and an event stream."""
    app = Starlette(routes=[WebSocketRoute("/socket", chat), Route("/orders", orders)])
    app.add_middleware(SessiondMiddleware, target=target, near_cache=False, **options)
    return app


class Stream:
    """One event stream of a browser, as an ASGI server drives it."""

    def __init__(self, app: Any, cookie: str, query: bytes = b"") -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/orders",
            "query_string": query,
            "headers": [(b"host", HOST.encode()), (b"cookie", f"{COOKIE}={cookie}".encode())],
            "client": ("192.0.2.10", 50_000),
        }
        self.running = asyncio.create_task(app(scope, self._receive, self.messages.put))

    async def _receive(self) -> Any:
        await asyncio.Event().wait()

    async def begin(self) -> bytes:
        """The first event."""
        assert (await self.messages.get())["status"] == 200
        body: bytes = (await self.messages.get())["body"]
        return body


@pytest.fixture
async def authority(app: App) -> AsyncIterator[AsyncClient]:
    """A client with which sessions are ended."""
    async with AsyncClient(app.address) as client:
        yield client


@pytest.fixture
async def alice(authority: AsyncClient) -> Created:
    """A session of alice."""
    return await authority.create(subject="alice")


async def test_a_websocket_closes_when_its_session_is_revoked(app: App, authority: AsyncClient, alice: Created) -> None:
    """A logout anywhere closes the session's WebSockets with 1008; those of guests and of others stay."""
    site = application(app.address)
    bob = await authority.create(subject="bob")
    mine, other, guest = (
        Socket(site, alice.token.reveal()),
        Socket(site, bob.token.reveal()),
        Socket(site),
    )
    for socket in (mine, other, guest):
        assert (await socket.message())["type"] == "websocket.accept"
        await socket.message()
    await authority.revoke(session_id=alice.session.session_id)
    closed = await asyncio.wait_for(mine.message(), 10)
    assert closed == {"type": "websocket.close", "code": 1008, "reason": "session_ended"}
    await mine.running
    assert not other.running.done()
    assert not guest.running.done()
    for socket in (other, guest):
        socket.running.cancel()


async def test_a_websocket_closes_when_its_session_expires(app: App, alice: Created, clock: ManualClock) -> None:
    """An open WebSocket keeps no session alive, and is closed when it expires."""
    socket = Socket(application(app.address), alice.token.reveal())
    await socket.message()
    await socket.message()
    clock.advance(31 * 60_000)
    assert (await asyncio.wait_for(socket.message(), 10))["code"] == 1008


async def test_a_new_token_closes_a_websocket_for_a_new_one(app: App, authority: AsyncClient, alice: Created) -> None:
    """After a change of password the WebSocket is closed with 1012: the page connects again with its new cookie."""
    socket = Socket(application(app.address), alice.token.reveal())
    await socket.message()
    await socket.message()
    await authority.roll(alice.token, reason="password")
    closed = await asyncio.wait_for(socket.message(), 10)
    assert (closed["code"], closed["reason"]) == (1012, "token_replaced")


async def test_an_event_stream_ends_with_its_session(app: App, authority: AsyncClient, alice: Created) -> None:
    """An event stream of a revoked session ends in order, so that the browser asks again and is refused."""
    stream = Stream(application(app.address), alice.token.reveal())
    assert await stream.begin() == b"data: alice\n\n"
    await authority.revoke_all(subject="alice")
    assert await asyncio.wait_for(stream.messages.get(), 10) == {"type": "http.response.body", "body": b""}
    await asyncio.wait_for(stream.running, 10)


@pytest.mark.parametrize(("options", "query"), [({"end_with_session": False}, b""), ({}, b"type=text/plain")])
async def test_what_is_not_watched_goes_on(
    app: App, authority: AsyncClient, alice: Created, options: dict[str, Any], query: bytes
) -> None:
    """With `end_with_session` off, and for other responses, nothing is ended: the control of the tests above."""
    stream = Stream(application(app.address, **options), alice.token.reveal(), query)
    await stream.begin()
    watched = Stream(application(app.address), alice.token.reveal())
    await watched.begin()
    await authority.revoke_all(subject="alice")
    await asyncio.wait_for(watched.running, 10)
    assert not stream.running.done()
    stream.running.cancel()


async def test_a_server_that_stops_still_cancels(app: App, alice: Created) -> None:
    """A cancellation by the server is not taken for the end of the session."""
    socket = Socket(application(app.address), alice.token.reveal())
    await socket.message()
    await socket.message()
    socket.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await socket.running
