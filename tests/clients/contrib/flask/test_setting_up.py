"""Setting up an application: options, configuration, several applications, several processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, session

from sessiond.app import App
from sessiond_client.contrib.flask import Sessiond, SessiondInterface, csrf_token, current_session
from sessiond_client.gateway import GatewaySettings
from tests.clients.contrib.flask import preforking
from tests.clients.contrib.flask.site import Browser, make_site, running


def interface_of(app: Flask) -> SessiondInterface:
    """What an application was set up with."""
    found = app.extensions["sessiond"]
    assert isinstance(found, SessiondInterface)
    return found


async def test_five_lines(app: App) -> None:
    """An application with sessions needs one line to set up, and a view one line to log in."""
    site = make_site()
    sessions = Sessiond(site, app.address)
    try:
        browser = Browser(site)
        await browser.log_in()
        assert (await browser.get("/")).text == "alice"
    finally:
        sessions.close()


async def test_one_extension_for_several_applications(app: App) -> None:
    """`init_app` sets up each application, each with settings of its own from its configuration."""
    sessions = Sessiond(target=app.address, near_cache=False)
    sites = [make_site(), make_site()]
    sites[1].config.from_mapping(SESSIOND_LOGIN_PATH="/sign-in", SESSIOND_CSRF_FIELD="proof")
    try:
        for site in sites:
            sessions.init_app(site)
        pages = [await Browser(site).get("/account", Accept="text/html") for site in sites]
        assert [page.headers["Location"] for page in pages] == ["/login?next=/account", "/sign-in?next=/account"]
        browser = Browser(sites[1])
        csrf = await browser.csrf()
        assert (await browser.send("POST", "/cart?item=x", data={"proof": csrf})).status_code == 200
        with pytest.raises(RuntimeError, match="call init_app once"):
            sessions.init_app(sites[0])
    finally:
        sessions.close()


async def test_closing(app: App) -> None:
    """After `close` the next request connects again."""
    with running(app.address) as site:
        browser = Browser(site)
        await browser.log_in()
        interface_of(site).close()
        assert (await browser.get("/")).text == "alice"


def test_options_of_the_configuration() -> None:
    """`SESSIOND_*` in `app.config` are options too, and keyword arguments take precedence."""
    site = Flask("configured")
    site.config.from_mapping(
        SESSIOND_TARGET="127.0.0.1:1",
        SESSIOND_APPLICATION="shop",
        SESSIOND_PUBLIC_PATHS=["/news/"],
        SESSIOND_LOGIN_PATH="/from-config",
        SESSIOND_RETRIES=0,
    )
    Sessiond(site, login_path="/from-code")
    settings = interface_of(site).gateway.settings
    assert (settings.login_path, settings.public_paths) == ("/from-code", ("/news/",))


def test_the_near_cache_is_on_unless_it_is_switched_off() -> None:
    """Without options there is a near cache; the default address is the authority's."""
    site, without = Flask("site"), Flask("without")
    Sessiond(site)
    Sessiond(without, near_cache=False)
    assert interface_of(site).client.near_cache is not None
    assert interface_of(without).client.near_cache is None
    interface_of(site).close()
    interface_of(without).close()


@pytest.mark.parametrize(
    ("options", "config", "error", "text"),
    [
        ({"login_pth": "/x"}, {}, TypeError, "login_pth"),
        ({}, {"SESSIOND_LOGIN_PTH": "/x"}, TypeError, "login_pth"),
        ({"login_path": "login"}, {}, ValueError, "login_path: 'login' is wrong"),
        ({}, {"SESSIOND_PUBLIC_PATHS": "/x"}, ValueError, "public_paths: pass a list"),
    ],
)
def test_wrong_options(options: Any, config: Any, error: type[Exception], text: str) -> None:
    """A wrong option is an error at the start that names it and says where options come from."""
    site = Flask("wrong")
    site.config.from_mapping(config)
    with pytest.raises(error, match=text) as caught:
        Sessiond(site, **options)
    assert "app.config" in caught.value.__notes__[0]
    assert "sessiond" not in site.extensions


async def test_an_application_that_the_authority_does_not_know(app: App) -> None:
    """A wrong `application` is Flask's 500, not a guest's page."""
    with running(app.address, application="shopp") as site:
        assert (await Browser(site, {"__Host-id": "x"}).get("/")).status_code == 500


def test_functions_of_a_site_that_is_not_set_up() -> None:
    """Without `Sessiond(app)` the functions say what is missing, and outside of a request Flask does."""
    site = Flask("bare")
    with site.test_request_context("/"), pytest.raises(RuntimeError, match=r"set it up with Sessiond\(app\)"):
        current_session()
    with pytest.raises(RuntimeError, match="outside of request context"):
        csrf_token()


async def test_an_interface_that_was_replaced(app: App) -> None:
    """If another extension replaces the session interface, requests fail instead of being served unchecked."""
    with running(app.address) as site:
        site.session_interface = Flask("other").session_interface
        site.testing = True
        with pytest.raises(RuntimeError, match="set up Sessiond last"):
            await Browser(site).get("/")


async def test_a_session_outside_of_a_served_request(app: App) -> None:
    """In a test's request context the session is read when it is first used, and functions work."""

    def use() -> Any:
        with running(app.address) as site, site.test_request_context("/"):
            session["cart"] = ["tea"]
            return len(csrf_token()) > 20, current_session() is not None, dict(session)

    assert await asyncio.to_thread(use) == (True, True, {"cart": ["tea"]})


@pytest.fixture
def preforked(app: App) -> Iterator[subprocess.Popen[str]]:
    """A server that has used the application before it forks two workers."""
    process = subprocess.Popen(
        [sys.executable, "-m", preforking.__name__, app.address], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_workers_that_were_forked_after_the_first_request(preforked: subprocess.Popen[str]) -> None:
    """Processes that are forked from one that has used its sessions serve them too, each with its own client."""
    output, _ = await asyncio.to_thread(preforked.communicate, timeout=60)
    lines = output.split("\n")
    assert lines[0] == "parent alice ['tea']"
    assert [line.partition(" ")[2] for line in lines[1:3]] == ["alice ['tea', '0']", "alice ['tea', '0', '1']"]
    assert lines[3] == "parent alice ['tea', '0', '1']"
    assert {line.partition(" ")[0] for line in lines[1:3]} != {str(os.getpid())}


def test_all_settings_can_be_given() -> None:
    """Every setting of the gateway is an option of the extension."""
    names = GatewaySettings.names()
    defaults = GatewaySettings()
    site = Flask("all")
    Sessiond(site, **{name: getattr(defaults, name) for name in names})
    assert interface_of(site).gateway.settings == defaults
