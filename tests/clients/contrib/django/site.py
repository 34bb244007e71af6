"""A browser in front of the shop, whatever the server and the kind of views."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import grpc
import grpc.aio

from tests.support.django_project import configure

configure()

from django.test.utils import override_settings  # noqa: E402 - Django must be configured first

from sessiond_client.contrib.django.configuration import project  # noqa: E402

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"
FORM = "application/x-www-form-urlencoded"


@dataclass
class Answer:
    """A response, as a browser sees it."""

    status: int
    headers: list[tuple[str, str]]
    text: str

    def all(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def location(self) -> str:
        return self.all("Location")[0]


class Site(ABC):
    """The shop behind a server."""

    prefix = ""

    def __init__(self, calls: Counter[str]) -> None:
        self.calls = calls

    @abstractmethod
    async def send(self, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        """The response to a request."""


class Wsgi(Site):
    """Behind WSGI, each request in a thread."""

    def __init__(self, calls: Counter[str]) -> None:
        super().__init__(calls)
        self._app = importlib.import_module("django.core.handlers.wsgi").WSGIHandler()

    async def send(self, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        return await asyncio.to_thread(self._send, method, path, query, headers, body)

    def _send(self, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        environ = importlib.import_module("werkzeug.test").create_environ(path, "https://localhost", query, method)
        environ |= {"REMOTE_ADDR": "127.0.0.1", "CONTENT_LENGTH": str(len(body))}
        environ["wsgi.input"] = importlib.import_module("io").BytesIO(body)
        for name, value in headers:
            key = name.upper().replace("-", "_")
            key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ and key != "HTTP_HOST" else value
        begun: list[Any] = []
        chunks = self._app(environ, lambda status, headers: begun.extend((status, headers)))
        try:
            text = b"".join(chunks).decode()
        finally:
            chunks.close()
        return Answer(int(begun[0].split()[0]), [(name, value.strip()) for name, value in begun[1]], text)


class AsgiWithSyncViews(Site):
    """Behind ASGI, with synchronous views."""

    def __init__(self, calls: Counter[str]) -> None:
        super().__init__(calls)
        self._app = importlib.import_module("django.core.handlers.asgi").ASGIHandler()

    async def send(self, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "scheme": "https",
            "headers": [(name.lower().encode(), value.encode()) for name, value in [("Host", "localhost"), *headers]],
            "client": ("127.0.0.1", 50000),
            "server": ("localhost", 443),
        }
        sent: list[dict[str, Any]] = []
        incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app(scope, incoming.get, send)
        start = sent[0]
        found = [(name.decode(), value.decode().strip()) for name, value in start["headers"]]
        return Answer(start["status"], found, b"".join(message.get("body", b"") for message in sent[1:]).decode())


class Asgi(AsgiWithSyncViews):
    """Behind ASGI, with asynchronous views."""

    prefix = "/async"


@dataclass
class Browser:
    """Keeps cookies, and says what current browsers say about a request from the site's own page."""

    site: Site
    jar: dict[str, str] = field(default_factory=dict)
    agent: str = AGENT

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.send("GET", path, None, **headers)

    async def post(self, path: str, fields: Mapping[str, str] = {}, *, csrf: str | None = "", **headers: str) -> Answer:
        """Send a form of the site's own page. `csrf`: its token; None: without one; empty: that of the home page."""
        if csrf == "":
            csrf = await self.token()
        sent = {**fields, **({"csrfmiddlewaretoken": csrf} if csrf is not None else {})}
        return await self.send("POST", path, sent, **{"Sec_Fetch_Site": "same-origin", **headers})

    async def send(self, method: str, path: str, fields: Mapping[str, str] | None, **headers: str) -> Answer:
        """Send a request as it is. In names of headers `_` means `-`; an empty value leaves a header out."""
        given = {"User-Agent": self.agent, "Accept": "text/html", "Cookie": self.cookie_header()}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        if fields is not None:
            given["Content-Type"] = FORM
        path, _, query = path.partition("?")
        body = urlencode(fields).encode() if fields is not None else b""
        pairs = [(name, value) for name, value in given.items() if value]
        prefix = "" if path in ("/whoami", "/token", "/protected-inside", "/accounts/login/") else self.site.prefix
        answer = await self.site.send(method, prefix + path, query, pairs, body)
        self.receive(answer)
        return answer

    def cookie_header(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.jar.items())

    def receive(self, answer: Answer) -> None:
        """Keep the cookies of a response."""
        for line in answer.all("Set-Cookie"):
            name, _, rest = line.partition("=")
            if "Max-Age=0" in line:
                self.jar.pop(name, None)
            else:
                self.jar[name] = rest.partition(";")[0]

    async def token(self) -> str | None:
        """The CSRF token in the form of the home page; None if it has none."""
        page = await self.get("/")
        assert page.status == 200
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        return found[1] if found else None

    async def log_in(self, user: str = "alice", path: str = "/login", **headers: str) -> Answer:
        """Log in by the form of the login page."""
        return await self.post(path, {"user": user, "password": "teapot"}, **headers)

    def another(self) -> Browser:
        """Another browser without cookies."""
        return Browser(self.site)

    def copy(self) -> Browser:
        """Another browser with the same cookies: another tab, or a thief."""
        return Browser(self.site, dict(self.jar))


def counting(calls: Counter[str]) -> dict[str, Any]:
    """Options with which every unary call is counted."""

    class Sync(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, proceed: Any, details: Any, request: Any) -> Any:
            calls[details.method.rpartition("/")[2]] += 1
            return proceed(details, request)

    class Async(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, proceed: Any, details: Any, request: Any) -> Any:
            method = details.method if isinstance(details.method, str) else details.method.decode()
            calls[method.rpartition("/")[2]] += 1
            return await proceed(details, request)

    return {"INTERCEPTORS": [Sync()], "ASYNC_INTERCEPTORS": [Async()]}


@asynccontextmanager
async def visiting(
    kind: type[Site], address: str, settings: Mapping[str, Any] = {}, **options: Any
) -> AsyncIterator[Browser]:
    """A browser that visits the shop. `options` are those of `SESSIOND`, `settings` others of Django."""
    chosen = {"TARGET": address, "NEAR_CACHE": False, "TIMEOUT": 20.0, **options}
    calls: Counter[str] = Counter()
    with override_settings(SESSIOND={**counting(calls), **chosen}, **settings):
        site = kind(calls)
        try:
            yield Browser(site)
        finally:
            await project().async_clients.close()
            await asyncio.to_thread(project().clients.close)


KINDS = [Wsgi, AsgiWithSyncViews, Asgi]
