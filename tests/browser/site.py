"""A site with a private page that watches its session, and a browser that visits it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.async_api import Browser, BrowserContext, Page
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route, Router

from sessiond.app import App
from sessiond_client import AsyncClient
from sessiond_client.browser import BrowserEndpoints
from sessiond_client.browser.streams import StreamRules
from sessiond_client.contrib.asgi import SessiondMiddleware, csrf_token, current_subject, login, requires
from tests.support.browser import chromium
from tests.support.server import config_for, serving
from tests.support.web import serving_web

__all__ = ["CSP", "Device", "Site", "until", "visited"]

CSP = "default-src 'self'"
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{script}</head>
<body><h1>{title}</h1><p id="who">{who}</p>{body}</body></html>"""
_LOGIN = (
    '<form method="post"><input type="hidden" name="csrf_token" value="{token}">'
    '<input id="user" name="user" value="ada"><button>Log in</button></form>'
)
_LOGOUT = '<form method="post" action="/session/logout"><button id="logout">Log out</button></form>'
_TALL = "<p>Orders</p>" * 200
_SCRIPT = """
import {{ watchSession }} from "/session/session.js";
const note = (what) => localStorage.setItem("seen", `${{localStorage.getItem("seen") ?? ""}}${{what}} `);
addEventListener("pageshow", ({{ persisted }}) =>
  persisted && note(`display:${{getComputedStyle(document.documentElement).display}}`));
window.warnings = [];
window.endings = [];
const options = {options};
if (options.onWarning) options.onWarning = (warning) => window.warnings.push(warning);
if (options.onEnded) options.onEnded = (ended) => window.endings.push(ended);
window.watch = watchSession(options);
"""


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait until something is true; the condition may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.02)


@dataclass
class Device:
    """One browser with its own cookies. `problems`: what its pages did that the policy of the site forbids."""

    url: str
    context: BrowserContext
    problems: list[str] = field(default_factory=list)

    async def open(self, path: str = "/account", **options: Any) -> Page:
        """Open a tab. `options`: those of the script on its page."""
        page = await self.context.new_page()
        page.on("console", lambda message: self._note(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        await page.goto(self.address(path, **options))
        return page

    def address(self, path: str = "/account", **options: Any) -> str:
        """The address of a page whose script has these options."""
        return f"{self.url}{path}?options={quote(json.dumps(options))}"

    async def log_in(self, user: str = "ada", **options: Any) -> Page:
        """Log in, in a tab of its own, and show the private page."""
        page = await self.open("/login")
        await self.sign_in(page, user, **options)
        return page

    async def sign_in(self, page: Page, user: str = "ada", **options: Any) -> None:
        """Log in, on the login page of a tab, and show the private page."""
        await page.fill("#user", user)
        await page.click("button")
        await page.wait_for_url("**/home")
        await page.goto(self.address(**options))
        await until(lambda: _is_watching(page))
        await page.evaluate("window.watch.check()")  # from now on the page knows its session

    def _note(self, text: str) -> None:
        if "Content Security Policy" in text:
            self.problems.append(text)


async def _is_watching(page: Page) -> bool:
    return bool(await page.evaluate("window.watch !== undefined"))


@dataclass
class Site:
    """The site, its authority, and a browser program."""

    url: str
    app: App
    authority: AsyncClient
    endpoints: BrowserEndpoints
    browser: Browser
    devices: list[Device] = field(default_factory=list)

    async def device(self) -> Device:
        """Another browser."""
        device = Device(self.url, await self.browser.new_context())
        self.devices.append(device)
        return device

    async def sessions(self, user: str = "ada") -> list[str]:
        """The ids of the live sessions of a user."""
        return [session.session_id async for session in self.authority.list(subject=user)]

    @property
    def streams(self) -> int:
        """How many event streams pages have."""
        return self.endpoints._streams._of_session.total()


async def _home(request: Request) -> Response:
    who = current_subject(request) or "nobody"
    return HTMLResponse(_PAGE.format(title="Home", who=who, script="", body=""))


async def _login(request: Request) -> Response:
    if request.method == "GET":
        form = _LOGIN.format(token=await csrf_token(request))
        return HTMLResponse(_PAGE.format(title="Login", who="", script="", body=form))
    async with request.form() as fields:
        await login(request, str(fields["user"]))
    return RedirectResponse("/home", 303)


async def _public(request: Request) -> Response:
    body = _scripted(request)
    return HTMLResponse(_PAGE.format(title="Public", who="", script=body, body=""))


@requires()
async def _account(request: Request) -> Response:
    page = _PAGE.format(
        title="Account", who=f"private: {current_subject(request)}", script=_scripted(request), body=_LOGOUT + _TALL
    )
    return HTMLResponse(page)


def _scripted(request: Request) -> str:
    return f'<script type="module" src="/page.js?options={quote(request.query_params.get("options", "{}"))}"></script>'


async def _script(request: Request) -> Response:
    return Response(_SCRIPT.format(options=request.query_params["options"]), media_type="text/javascript")


class _Strict:
    """Adds the content security policy to each response."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def strict(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"content-security-policy", CSP.encode())]}
            await send(message)

        await self._app(scope, receive, strict)


@asynccontextmanager
async def visited(
    folder: Path,
    *,
    idle_timeout: str = "30m",
    rules: StreamRules | None = None,
    keeps_pages: bool = False,
    cache_control: str = "no-store",
    close_after: float = 3.0,
) -> AsyncIterator[Site]:
    """Run the site and a browser. In the end no page may have done what the site's policy forbids."""
    config = config_for(folder, f'[applications.default]\npreset = "owasp-low"\nidle_timeout = "{idle_timeout}"\n')
    async with serving(config) as app, AsyncClient(app.address) as authority, chromium(keeps_pages=keeps_pages) as one:
        site = Router(  # not Starlette, which would answer an error itself, and so a refusal
            routes=[
                Route("/home", _home),
                Route("/login", _login, methods=["GET", "POST"]),
                Route("/public", _public),
                Route("/account", _account),
                Route("/page.js", _script),
            ]
        )
        endpoints = BrowserEndpoints(streams=rules, close_after=close_after)
        served = SessiondMiddleware(
            site, app.address, browser_path="/session/", cache_control=cache_control, retries=0, timeout=3.0
        )
        served._endpoints = endpoints
        async with serving_web(_Strict(served)) as url:
            found = Site(url, app, authority, endpoints, one)
            yield found
            assert [device.problems for device in found.devices if device.problems] == []
            for device in found.devices:
                await device.context.close()
