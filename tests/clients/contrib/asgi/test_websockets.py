"""WebSockets: who may open one, and what happens to session and cookies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from sessiond.app import App
from sessiond_client import AsyncClient, Unavailable
from sessiond_client.contrib.asgi import (
    SessiondMiddleware,
    current_subject,
    login,
    requires,
    save,
)
from tests.clients.contrib.asgi.shop import COOKIE, HOST, Counter, living
from tests.support.clock import ManualClock

MINUTE = 60_000


class Socket:
    """One WebSocket of a browser, as an ASGI server drives it."""

    def __init__(
        self, app: Any, cookie: str = "", *, origin: str | None = f"https://{HOST}", denial: bool = True
    ) -> None:
        headers = [(b"host", HOST.encode()), (b"user-agent", b"Firefox")]
        if origin is not None:
            headers.append((b"origin", origin.encode()))
        if cookie:
            headers.append((b"cookie", f"{COOKIE}={cookie}".encode()))
        scope = {
            "type": "websocket",
            "path": "/socket",
            "query_string": b"",
            "headers": headers,
            "client": ("192.0.2.10", 50_000),
            "extensions": {"websocket.http.response": {}} if denial else {},
        }
        self.to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.to_app.put_nowait({"type": "websocket.connect"})
        self.running = asyncio.create_task(app(scope, self.to_app.get, self._from_app.put))

    async def message(self) -> dict[str, Any]:
        """The next message of the application. Raises what the application raised instead."""
        getting = asyncio.create_task(self._from_app.get())
        await asyncio.wait({getting, self.running}, return_when=asyncio.FIRST_COMPLETED)
        if getting.done() or not self._from_app.empty():
            return await getting
        getting.cancel()
        await self.running
        raise AssertionError("the application ended without a message")

    async def send(self, text: str) -> None:
        """Send a text."""
        await self.to_app.put({"type": "websocket.receive", "text": text})

    async def leave(self) -> None:
        """Go away, and wait until the application has noticed."""
        await self.to_app.put({"type": "websocket.disconnect", "code": 1001})
        await self.running

    @staticmethod
    def cookies_in(message: dict[str, Any]) -> list[str]:
        """The lines of `Set-Cookie` in a message."""
        return [value.decode() for name, value in message.get("headers", []) if name == b"set-cookie"]


def application(endpoint: Any, target: str, **options: Any) -> Starlette:
    """An application with one WebSocket."""
    app = Starlette(routes=[WebSocketRoute("/socket", endpoint)])
    app.add_middleware(SessiondMiddleware, target=target, near_cache=False, **options)
    return app


async def greeting(socket: WebSocket) -> None:
    """Say who is there, and go on until the other side goes away."""
    await socket.accept()
    await socket.send_text(current_subject(socket))
    async for text in socket.iter_text():
        socket.session.setdefault("said", []).append(text)


@requires()
async def for_users(socket: WebSocket) -> None:
    """As `greeting`, for users only."""
    await greeting(socket)


async def token_of(app: App, **options: Any) -> str:
    """The token of a new session."""
    async with AsyncClient(app.address) as client:
        return (await client.create(**options)).token.reveal()


async def test_a_user_opens_one(app: App) -> None:
    """A handshake with a session cookie from a page of the shop is the user's, and costs one question."""
    counter = Counter()
    shop = application(for_users, app.address, interceptors=[counter])
    async with living(shop):
        socket = Socket(shop, await token_of(app, subject="alice"))
        assert (await socket.message())["type"] == "websocket.accept"
        assert (await socket.message())["text"] == "alice"
        await socket.leave()
    assert counter.calls == ["GetAuthority", "ValidateSession"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://shop.example.evil.example"])
@pytest.mark.parametrize("endpoint", [greeting, for_users])
async def test_a_page_of_another_site_opens_one(app: App, endpoint: Any, origin: str) -> None:
    """A handshake from a page of another site is refused with 403, and the endpoint does not run."""
    counter = Counter()
    shop = application(endpoint, app.address, interceptors=[counter])
    async with living(shop):
        socket = Socket(shop, await token_of(app, subject="alice"), origin=origin)
        message = await socket.message()
        assert (message["type"], message["status"]) == ("websocket.http.response.start", 403)
        plain = Socket(shop, await token_of(app, subject="alice"), origin=origin, denial=False)
        assert await plain.message() == {"type": "websocket.close", "code": 1008, "reason": "csrf_failed"}
    assert counter.calls == []


async def test_an_origin_that_is_trusted(app: App) -> None:
    """A page of a trusted origin may open one, and so may a program that sends no origin."""
    shop = application(for_users, app.address, trusted_origins=["https://app.example"])
    async with living(shop):
        for origin in ("https://app.example", None):
            socket = Socket(shop, await token_of(app, subject="alice"), origin=origin)
            assert (await socket.message())["type"] == "websocket.accept"
            await socket.leave()


@pytest.mark.parametrize("denial", [True, False])
async def test_a_guest_where_a_user_is_needed(app: App, denial: bool) -> None:
    """A handshake without a user is refused with 401 if the server can send a response, otherwise with 1008."""
    shop = application(for_users, app.address)
    async with living(shop):
        message = await Socket(shop, denial=denial).message()
    if denial:
        assert (message["type"], message["status"]) == ("websocket.http.response.start", 401)
    else:
        assert message == {"type": "websocket.close", "code": 1008, "reason": "login_required"}


async def test_a_dead_cookie_is_deleted(app: App, clock: ManualClock) -> None:
    """The refusal of a handshake with the cookie of an ended session deletes the cookie."""
    cookie = await token_of(app, subject="alice")
    clock.advance(60 * MINUTE)
    shop = application(for_users, app.address)
    async with living(shop):
        message = await Socket(shop, cookie).message()
    (line,) = Socket.cookies_in(message)
    assert "Max-Age=0" in line


async def test_a_renewed_cookie(app: App, clock: ManualClock) -> None:
    """If a handshake renews the token, the response that accepts it sets the cookie."""
    cookie = await token_of(app, subject="alice")
    async with AsyncClient(app.address) as client:
        for minutes in (25, 25):
            clock.advance(minutes * MINUTE)
            assert (await client.validate(cookie)).valid
    clock.advance(15 * MINUTE)
    shop = application(greeting, app.address)
    async with living(shop):
        socket = Socket(shop, cookie)
        accepted = await socket.message()
        (line,) = Socket.cookies_in(accepted)
        assert line.startswith(f"{COOKIE}=")
        assert cookie not in line
        await socket.message()
        await socket.leave()


async def test_data_of_a_socket(app: App) -> None:
    """What a WebSocket changes is stored when its endpoint returns, or by `save` in between."""
    saved = asyncio.Event()

    async def noting(socket: WebSocket) -> None:
        await socket.accept()
        socket.session["step"] = 1
        await save(socket)
        saved.set()
        async for text in socket.iter_text():
            socket.session["said"] = text

    cookie = await token_of(app, subject="alice")
    shop = application(noting, app.address)
    async with living(shop), AsyncClient(app.address) as client:

        async def stored() -> Any:
            answer = await client.validate(cookie, data=True)
            assert answer.data is not None
            return dict(answer.data.values)

        socket = Socket(shop, cookie)
        await socket.message()
        await saved.wait()
        assert await stored() == {"step": b"1"}
        await socket.send("hello")
        await socket.leave()
        assert await stored() == {"step": b"1", "said": b'"hello"'}


async def test_a_refusal_in_the_middle(app: App) -> None:
    """If a requirement fails after the handshake, the WebSocket is closed with 1008 and the name of the refusal."""

    @requires(level=2)
    async def pay(socket: WebSocket) -> None:
        raise AssertionError("served")

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        await pay(socket)

    shop = application(endpoint, app.address)
    async with living(shop):
        socket = Socket(shop, await token_of(app, subject="alice"))
        await socket.message()
        assert await socket.message() == {"type": "websocket.close", "code": 1008, "reason": "step_up_required"}


async def test_an_outage(app: App) -> None:
    """During an outage a handshake with a cookie gets 503; one that is open is closed with 1013 at the next call."""

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            socket.session["said"] = text
            await save(socket)

    shop = application(endpoint, app.address, retries=0, timeout=2.0, end_with_session=False)
    async with living(shop):
        cookie = await token_of(app, subject="alice")
        socket = Socket(shop, cookie)
        await socket.message()
        await app.stop()
        await socket.send("hello")
        assert await socket.message() == {"type": "websocket.close", "code": 1013, "reason": "unavailable"}
        refused = await Socket(shop, cookie).message()
        assert (refused["type"], refused["status"]) == ("websocket.http.response.start", 503)
        assert (b"retry-after", b"2") in refused["headers"]
        assert Socket.cookies_in(refused) == []


async def test_a_login_over_a_socket(app: App) -> None:
    """A login before the handshake is accepted sets the cookie; after it, the login is an error."""

    async def before(socket: WebSocket) -> None:
        await login(socket, "alice")
        await socket.accept()
        await login(socket, "alice")

    shop = application(before, app.address)
    async with living(shop):
        socket = Socket(shop)
        assert len(Socket.cookies_in(await socket.message())) == 1
        with pytest.raises(RuntimeError, match="login: the headers of the response were sent already"):
            await socket.message()


async def test_an_endpoint_that_closes(app: App) -> None:
    """What the application sends to refuse a handshake, or to close, is passed on unchanged."""

    async def closing(socket: WebSocket) -> None:
        await socket.close(4000, "own")

    shop = application(closing, app.address)
    async with living(shop):
        message = await Socket(shop, await token_of(app, subject="alice")).message()
    assert (message["type"], message["code"]) == ("websocket.close", 4000)


async def test_a_failure_after_the_other_side_went_away(app: App) -> None:
    """When nobody is there any more, an outage is an error of the application, and nothing is sent."""

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            pass
        await app.stop()
        socket.session["left"] = True
        await save(socket)

    # Not watched: the watch would notice the outage, too, and end the endpoint before it saves.
    shop = application(endpoint, app.address, retries=0, timeout=2.0, end_with_session=False)
    async with living(shop):
        socket = Socket(shop, await token_of(app, subject="alice"))
        await socket.message()
        with pytest.raises(Unavailable):
            await socket.leave()
        assert socket._from_app.empty()
