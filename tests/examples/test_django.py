"""The shop in Django, as its visitors use it: served by `manage.py runserver`."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from sessiond.app import App
from tests.clients.contrib.django.site import Answer, Browser, Site
from tests.support.programs import Program, start_program

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/django"


class Live(Site):
    """A server in a process of its own."""

    def __init__(self, port: int) -> None:
        super().__init__(Counter())
        self._port = port

    async def send(self, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        return await asyncio.to_thread(self._send, method, f"{path}?{query}" if query else path, headers, body)

    def _send(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        connection = HTTPConnection("localhost", self._port, timeout=30)
        try:
            connection.request(method, target, body or None, dict(headers))
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read().decode())
        finally:
            connection.close()


async def manage(folder: Path, *arguments: str) -> Program:
    """Start a command of the example."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "clients/python/src")])
    return await start_program(
        sys.executable,
        "manage.py",
        *arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
async def browser(app: App, tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser that visits the shop, which runs as its README says."""
    folder = tmp_path / "shop"
    shutil.copytree(FOLDER, folder)
    settings = folder / "settings.py"
    settings.write_text(settings.read_text().replace("127.0.0.1:7443", app.address))
    assert await (await manage(folder, "migrate")).wait() == 0
    port = free_port()
    server = await manage(folder, "runserver", "--noreload", f"localhost:{port}")
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("localhost", port)
                except OSError:
                    assert server.returncode is None
                    await asyncio.sleep(0.1)
                else:
                    writer.close()
                    break
        yield Browser(Live(port))
    finally:
        server.terminate()
        await server.wait()


async def submit(browser: Browser, path: str, action: str = "", **fields: str) -> Answer:
    """Load a page, fill in its form, and send it."""
    page = await browser.get(path)
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert found is not None, page
    return await browser.post(action or path, fields, csrf=found[1])


async def test_the_shop(browser: Browser) -> None:
    """A guest fills a cart, logs in, opens a page behind a step-up, ends another device, and logs out."""
    await submit(browser, "/", item="tea & cup")
    assert "tea &amp; cup" in (await browser.get("/")).text
    denied = await browser.get("/account")
    assert (denied.status, denied.location) == (303, "/login?next=/account")
    assert (await submit(browser, denied.location, user="alice", password="wrong")).status == 200
    back = await submit(browser, denied.location, user="alice", password="teapot")
    assert back.location == "/account"
    again = (await browser.get("/account")).location
    assert (await submit(browser, again, code="654321")).status == 200
    assert (await submit(browser, again, code="123456")).location == "/account"
    assert "invoices" in (await browser.get("/account")).text
    home = (await browser.get("/")).text
    assert "Hello alice" in home
    assert "tea &amp; cup" in home
    phone = browser.another()
    await submit(phone, "/login", user="alice", password="teapot")
    devices = (await browser.get("/devices")).text
    rows = re.findall(r'<p>(.*?)\n<button name="id" value="([^"]+)">', devices)
    assert len(rows) == 2
    (other,) = [session_id for row, session_id in rows if "this device" not in row]
    await submit(browser, "/devices", id=other)
    assert "Hello alice" not in (await phone.get("/")).text
    assert (await submit(browser, "/", "/logout")).status == 302
    assert browser.jar == {}
    assert (await browser.get("/devices")).status == 303


async def test_the_checks_of_the_project(tmp_path: Path) -> None:
    """Django's checks find nothing to say about the example's settings."""
    folder = tmp_path / "shop"
    shutil.copytree(FOLDER, folder)
    assert await (await manage(folder, "check", "--fail-level", "WARNING")).wait() == 0


def test_it_is_small() -> None:
    """The views and routes of the example are less than sixty lines."""
    assert len((FOLDER / "app.py").read_text().splitlines()) < 60
