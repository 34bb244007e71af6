"""The code of the guide to Django runs, and does what the guide says."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test.utils import override_settings

from sessiond.app import App
from sessiond_client import AsyncClient
from tests.clients.contrib.django.site import AsgiWithSyncViews, Browser, Site, Wsgi, visiting
from tests.clients.test_readme import blocks

PAGE = Path(__file__).parents[4] / "docs/how-to/django.md"
SETTINGS, *VIEWS = [block for block in blocks(PAGE) if "SESSIOND = " not in block or "INSTALLED_APPS" in block]


def names_of(block: str) -> dict[str, Any]:
    """What a block of settings defines."""
    names: dict[str, Any] = {}
    exec(compile(block, PAGE.name, "exec"), names)
    return {name: value for name, value in names.items() if name.isupper()}


@pytest.fixture(params=[Wsgi, AsgiWithSyncViews], ids=lambda kind: str(kind.__name__))
async def browser(request: pytest.FixtureRequest, app: App) -> AsyncIterator[Browser]:
    """A browser in front of the views of the guide, with its settings."""
    module = ModuleType("guide_to_django")
    sys.modules[module.__name__] = module
    exec(
        compile("\n".join(block for block in VIEWS if "SESSION_COOKIE_NAME" not in block), PAGE.name, "exec"),
        vars(module),
    )
    settings = {**names_of(SETTINGS), "ROOT_URLCONF": module.__name__, "LOGIN_URL": "/accounts/login/"}
    options = settings.pop("SESSIOND")
    assert options == {"TARGET": "127.0.0.1:7443"}
    kind: type[Site] = request.param
    try:
        async with visiting(kind, app.address, settings) as found:
            yield found
    finally:
        del sys.modules[module.__name__]


def test_the_settings() -> None:
    """Django's checks have nothing to say about the settings of the guide."""
    with override_settings(**names_of(SETTINGS), SESSION_COOKIE_NAME="__Host-id"):
        assert run_checks() == []


def test_the_settings_behind_a_proxy() -> None:
    """The options for a proxy are right."""
    (block,) = [block for block in blocks(PAGE) if "TrustedProxies(" in block]
    with override_settings(**names_of(block)):
        assert run_checks() == []


async def test_a_user_of_the_guides_views(browser: Browser, app: App) -> None:
    """A guest's cart, a login, a step-up, the devices, and a logout, with the views of the guide."""
    await browser.post("/cart", {"item": "tea"}, csrf=None)
    assert (await browser.get("/payment")).location == "/accounts/login/?next=/payment"
    again = browser.another()
    credentials = {"user": "alice", "password": "teapot"}
    assert (await again.post("/accounts/login/", {**credentials, "password": "x"}, csrf=None)).status == 403
    guest = dict(browser.jar)
    async with AsyncClient(app.address) as client:

        async def csrf() -> str:
            answer = await client.validate(browser.jar["__Host-id"], with_csrf_token=True, passive=True)
            assert answer.csrf_token is not None
            return answer.csrf_token.reveal()

        login = await browser.post("/accounts/login/?next=/cart", credentials, csrf=await csrf())
        assert login.location == "/cart"
        assert browser.jar != guest
        assert (await browser.get("/cart")).text == "tea"
        assert (await browser.get("/async-cart")).text == "tea"
        assert (await browser.get("/orders")).text == "Your orders."
        assert (await browser.get("/payment")).status == 303
        asking = "/accounts/login/?next=/payment&min_level=2"
        assert (await browser.get("/payment")).location == asking
        assert "Code" in (await browser.get(asking)).text
        assert (await browser.post(asking, {"code": "1"}, csrf=await csrf())).status == 403
        assert (await browser.post(asking, {"code": "123456"}, csrf=await csrf())).location == "/payment"
        assert (await browser.get("/payment")).text == "Pay here."
        assert (await again.post("/async-login", {"token": "from a mail"}, csrf=None)).text == "2 devices"
        page = (await browser.get("/devices")).text
        assert page.count("Firefox 143 on Linux from 127.0.0.1") == 2
        (current,) = [item.session_id async for item in client.list() if f'value="{item.session_id}"' in page][:1]
        assert current
        assert (await browser.post("/leave", csrf=await csrf())).status == 302
        assert [item async for item in client.list()] == []
    assert browser.jar == {}
