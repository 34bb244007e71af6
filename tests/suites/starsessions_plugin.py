"""A plugin of pytest for the suite of starsessions: sessiond stands where its middleware, handler and store stand.

`SESSIOND_TARGET` is an authority's address. It has the applications `default`, and `plain` without Secure cookies; the
cookies of both are named `session`. The functions of starsessions, such as `load_session`, are the original ones.
"""

from __future__ import annotations

import importlib
import json
import os
import uuid
from typing import Any

import starlette.responses
from cryptography.fernet import InvalidToken

from sessiond_client import Client, Token, json_data
from sessiond_client.contrib.asgi import SessiondMiddleware
from sessiond_client.gateway import JSON, Exchange, Gateway, WebRequest, account, run

__all__ = ["BROKEN", "Handler", "Middleware", "Store"]

BROKEN = "SESSIOND_SUITE_BROKEN"
"""The environment variable that takes something out, so that the suite must fail: `read` or `write`."""

_TARGET = os.environ["SESSIOND_TARGET"]
_BROKEN = os.environ.get(BROKEN, "")
_NAMES = {"default": "__Host-session", "plain": "session"}
_WHOLE = "whole"
"""The key of data that are not a JSON object."""

_client = Client(_TARGET)


class _Again(Exception):
    """A case has stored something while it serves the request. Ours loads before that, so the request is repeated."""


class Store:
    """Sessions under ids that the cases choose. Each is a session of the authority."""

    def __init__(self) -> None:
        self.tokens: dict[str, Token] = {}
        self.writes = 0

    async def read(self, session_id: str, lifetime: int) -> bytes:
        """The data; empty if there is no such session, or nothing in it."""
        token = self.tokens.get(session_id)
        answer = _client.validate(token, data=True) if token is not None else None
        values = answer.data.values if answer is not None and answer.valid and answer.data is not None else {}
        if _WHOLE in values:
            return values[_WHOLE]
        return json.dumps(json_data.decode(values)).encode() if values else b""

    async def write(self, session_id: str, data: bytes, lifetime: int, ttl: int) -> str:
        """Replace all data, and open the session if there is none."""
        values = {_WHOLE: data} if not data.startswith(b"{") else json_data.encode(json.loads(data))
        self.writes += 1
        if session_id not in self.tokens:
            self.tokens[session_id] = _client.create(data=values).token
        else:
            _client.update_data(token=self.tokens[session_id], set=values)
        return session_id

    async def remove(self, session_id: str) -> None:
        """End the session."""
        if session_id in self.tokens:
            _client.revoke(token=self.tokens[session_id])

    def cookie(self, session_id: str | None) -> str:
        """What the client presents in place of an id: the token of its session. Other values stay as they are."""
        token = self.tokens.get(session_id or "")
        return token.reveal() if token is not None else session_id or ""


class Handler:
    """What starsessions' handler does for one request, by the gateway."""

    def __init__(
        self,
        connection: Any,
        session_id: str | None,
        store: Store,
        serializer: Any,
        encryptor: Any,
        lifetime: int,
    ) -> None:
        self.connection, self.session_id, self._store = connection, session_id, store
        self.is_loaded = False
        self._opened: Exchange | None = None

    def _exchange(self) -> Exchange:
        if self._opened is None:
            cookies = [f"{_NAMES['default']}={self._store.cookie(self.session_id)}"] if self.session_id else []
            request = WebRequest(method="GET", path="/", headers=lambda name: cookies if name == "cookie" else [])
            self._opened = Exchange(Gateway(), request)
            run(_client, self._opened.open())
        return self._opened

    async def load(self) -> None:
        """Load the session."""
        self.connection.scope["session"] = self._exchange().values
        self.is_loaded = True

    async def save(self, remaining_time: int) -> str:
        """Store what was changed."""
        run(_client, self._exchange().save())
        return self.session_id or ""

    async def destroy(self) -> None:
        """End the session."""
        run(_client, account.logout(self._exchange()))

    def regenerate_id(self) -> str:
        """Roll the token, which is stored under a new id."""
        exchange = self._exchange()
        before = exchange.token
        run(_client, account.roll(exchange, "regenerated"))
        assert exchange.token is not None
        assert exchange.token != before
        self.session_id = uuid.uuid4().hex
        self._store.tokens[self.session_id] = exchange.token
        return self.session_id


class _Loaded:
    """The handler of a request that our middleware serves: its session is there from the start."""

    is_loaded = True

    def __init__(self, store: Store, *, may_repeat: bool) -> None:
        self._store = store
        self._writes = store.writes
        self._may_repeat = may_repeat

    async def load(self) -> None:
        """Nothing, unless the session came into being during the request."""
        if self._may_repeat and self._store.writes != self._writes:
            raise _Again


class _Encrypted:
    """A codec that encrypts each value. The authority sees the encrypted form only."""

    def __init__(self, encryptor: Any) -> None:
        self._encryptor = encryptor

    def encode(self, key: str, value: Any) -> bytes:
        """The encrypted JSON."""
        return bytes(self._encryptor.encrypt(JSON.encode(key, value)))

    def decode(self, key: str, data: bytes) -> Any:
        """The value. Raises `ValueError` for another key's or damaged bytes."""
        try:
            return JSON.decode(key, self._encryptor.decrypt(data))
        except InvalidToken:
            raise ValueError("encrypted with another key, or damaged") from None


class Middleware:
    """Ours, with the arguments of starsessions'. Those that are missing here belong to cases that are left out."""

    def __init__(
        self,
        app: Any,
        store: Store,
        lifetime: int = 0,
        cookie_https_only: bool = True,
        encryptor: Any = None,
    ) -> None:
        self._app, self._store = app, store
        application = "default" if cookie_https_only else "plain"
        self._name = _NAMES[application]
        codec = JSON if encryptor is None else _Encrypted(encryptor)
        self._ours = SessiondMiddleware(
            self._inner, _TARGET, application=application, codec=codec, near_cache=False, csrf_exempt=["/"]
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request, with the cookie under the name that the authority gave it."""
        for may_repeat in (True, False):
            headers = [(key, self._renamed(value) if key == b"cookie" else value) for key, value in scope["headers"]]
            again = {**scope, "headers": headers, "session_handler": _Loaded(self._store, may_repeat=may_repeat)}
            try:
                await self._ours(again, receive, send)
            except _Again:
                continue
            return

    async def _inner(self, scope: Any, receive: Any, send: Any) -> None:
        if _BROKEN == "write":
            scope["session"] = dict(scope["session"])
        await self._app(scope, receive, send)

    def _renamed(self, header: bytes) -> bytes:
        name, _, value = header.decode("latin-1").partition("=")
        assert name == "session"
        cookie = "" if _BROKEN == "read" else self._store.cookie(value)
        return f"{self._name}={cookie}".encode("latin-1")


class _Json(starlette.responses.JSONResponse):
    """Ours is a mapping and not a dict, which `json` does not write by itself."""

    def render(self, content: Any) -> bytes:
        """The content as JSON."""
        return json.dumps(content, default=dict).encode()


def _install() -> None:
    starsessions: Any = importlib.import_module("starsessions")
    starsessions.SessionMiddleware = Middleware
    starsessions.InMemoryStore = importlib.import_module("starsessions.stores").InMemoryStore = Store  # type: ignore[attr-defined]
    importlib.import_module("starsessions.session").SessionHandler = Handler  # type: ignore[attr-defined]
    starlette.responses.JSONResponse = _Json  # type: ignore[misc]


_install()
