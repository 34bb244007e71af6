"""Django's login and logout, step-up and devices, in the browser and at the authority."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY, login, update_session_auth_hash
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client as DjangoClient

from sessiond.app import App
from sessiond_client import AsyncClient, Session
from tests.clients.contrib.django.shop import hooks, waiting
from tests.clients.contrib.django.site import Browser, Site, Wsgi, visiting
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

MINUTE = 60_000


async def live(app: App, user: str = "alice") -> list[Session]:
    """The live sessions of a user."""
    subject = str(await asyncio.to_thread(lambda: User.objects.get(username=user).pk))
    async with AsyncClient(app.address) as client:
        return [session async for session in client.list(subject=subject)]


async def test_a_login_makes_the_user_the_subject(browser: Browser, app: App) -> None:
    """Django's `login` makes the user's primary key the subject, at level 1 with a password."""
    assert (await browser.log_in()).status == 303
    (session,) = await live(app)
    assert session.authentication is not None
    assert (session.authentication.level, session.authentication.methods) == (1, ("pwd",))
    assert session.client is not None
    assert (session.client.ip_address, session.client.user_agent) == ("127.0.0.1", browser.agent)
    assert (await browser.get("/whoami")).json["level"] == 1


async def test_a_login_is_one_call(browser: Browser) -> None:
    """A login costs the question about the request, one call for the login, and one that stores Django's keys."""
    token = await browser.token()
    await browser.get("/cart")  # reads the names of the cookies
    browser.site.calls.clear()
    await browser.post("/login", {"user": "alice", "password": "teapot"}, csrf=token)
    assert browser.site.calls == {"ValidateSession": 1, "AuthenticateSession": 1, "UpdateSessionData": 1}


async def test_a_logout_ends_the_session(browser: Browser, app: App) -> None:
    """Django's `logout` ends the session and deletes the cookie; a copy of the cookie is worthless."""
    await browser.log_in()
    thief = browser.copy()
    assert (await browser.post("/logout")).status == 303
    assert browser.jar == {}
    assert await live(app) == []
    assert (await thief.get("/cart")).json["user"] == ""


async def test_the_logout_of_a_guest(browser: Browser) -> None:
    """A logout of somebody without a session does nothing, and is no error."""
    assert (await browser.post("/logout", csrf=None)).status == 303
    assert browser.jar == {}


async def test_two_clicks_on_login(browser: Browser, app: App) -> None:
    """Two concurrent logins with one cookie lead to one live session, and the browser has it."""
    token = await browser.token()
    hooks.before_login = waiting(2)
    fields = {"user": "alice", "password": "teapot"}
    answers = await asyncio.gather(*(browser.copy().post("/login", fields, csrf=token) for _ in range(2)))
    assert [answer.status for answer in answers] == [303, 303]
    assert len(await live(app)) == 1
    for answer in answers:
        browser.receive(answer)
        assert (await browser.get("/cart")).json["user"] == "alice"


async def test_two_clicks_on_login_of_another_user(browser: Browser, app: App) -> None:
    """Two concurrent logins as another user end the first user's session and lead to one of the other's."""
    await browser.log_in("bob")
    await browser.post("/cart", {"item": "bob's"})
    token = await browser.token()
    hooks.before_login = waiting(2)
    fields = {"user": "alice", "password": "teapot"}
    answers = await asyncio.gather(*(browser.copy().post("/login", fields, csrf=token) for _ in range(2)))
    assert [answer.status for answer in answers] == [303, 303]
    assert len(await live(app)) == 1
    assert await live(app, "bob") == []
    for answer in answers:
        browser.receive(answer)
        assert (await browser.get("/cart")).json == {"user": "alice", "cart": []}


async def test_two_clicks_on_logout(browser: Browser, app: App) -> None:
    """Two concurrent logouts with one cookie both succeed, and no session is left."""
    await browser.log_in()
    token = await browser.token()
    answers = await asyncio.gather(*(browser.copy().post("/logout", csrf=token) for _ in range(2)))
    assert {answer.status for answer in answers} <= {303, 403}
    assert 303 in {answer.status for answer in answers}
    assert await live(app) == []


async def test_a_step_up(browser: Browser, app: App) -> None:
    """`sessiond_login` with a level raises it in the same session, with a new token."""
    await browser.log_in()
    (before,) = await live(app)
    old = browser.jar["__Host-id"]
    assert (await browser.post("/step-up")).status == 200
    (after,) = await live(app)
    assert after.authentication is not None
    assert (after.session_id, after.authentication.level) == (before.session_id, 2)
    assert after.authentication.methods == ("pwd", "otp")
    assert browser.jar["__Host-id"] != old


async def test_a_device_that_has_only_an_old_copy(browser: Browser, clock: ManualClock) -> None:
    """Late requests with an old token keep the cookie, and a device that has nothing else gets one at its login."""
    await browser.log_in()
    await browser.get("/")
    device = browser.copy()
    for wait in (25, 25, 25, 1, 2):
        clock.advance(wait * MINUTE)
        await browser.get("/")
    late = [await device.get("/cart"), await device.get("/"), await device.post("/cart", {"item": "x"}, csrf=None)]
    assert [answer.all("Set-Cookie") for answer in late] == [[], [], []]
    page = await device.get("/login")
    found = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    # The asynchronous login page has another path than LOGIN_URL: its form needs no token, but comes from this site.
    assert bool(found) is bool(page.all("Set-Cookie")) is (browser.site.prefix == "")
    assert (
        await device.post("/login", {"user": "alice", "password": "teapot"}, csrf=found[0] if found else None)
    ).status == 303
    for one in (device, browser):
        assert (await one.get("/cart")).json["user"] == "alice"


async def test_devices(browser: Browser) -> None:
    """The devices page lists the user's sessions, and ends one of them."""
    await browser.log_in()
    phone = browser.another()
    await phone.log_in()
    rows = (await browser.get("/devices")).json
    assert [row[1] for row in rows] == ["Firefox 143 on Linux"] * 2
    (other,) = [row[0] for row in rows if not row[2]]
    assert (await browser.post("/devices/end", {"id": other})).json == {"ended": True}
    assert (await phone.get("/cart")).json["user"] == ""
    assert (await browser.get("/cart")).json["user"] == "alice"


async def test_the_activity_of_a_user(browser: Browser) -> None:
    """A page of the activity shows what happened to the account of its user, newest first."""
    bob, phone = browser.another(), browser.another()
    await bob.log_in("bob")
    await phone.log_in()
    await phone.post("/logout")
    await browser.log_in()
    assert (await browser.get("/activity")).json == ["login", "ended"]


async def test_a_devices_page_ends_only_its_owners_sessions(browser: Browser, app: App) -> None:
    """Nobody can end a session of another user, even with its id."""
    await browser.log_in()
    bob = browser.another()
    await bob.log_in("bob")
    (session,) = await live(app, "bob")
    for wrong in (session.session_id, "no such id"):
        assert (await browser.post("/devices/end", {"id": wrong})).json == {"ended": False}
    assert (await bob.get("/cart")).json["user"] == "bob"


async def test_logout_everywhere(browser: Browser, app: App) -> None:
    """`logout_everywhere` ends all sessions of the user, this one included, and no other's."""
    await browser.log_in()
    phone, bob = browser.another(), browser.another()
    await phone.log_in()
    await bob.log_in("bob")
    assert (await browser.post("/everywhere")).json == {"ended": 2}
    assert browser.jar == {}
    assert await live(app) == []
    assert (await phone.get("/cart")).json["user"] == ""
    assert (await bob.get("/cart")).json["user"] == "bob"


async def test_the_other_devices_after_a_change_of_password(app: App) -> None:
    """A changed password ends the other sessions: at once by `end_other_devices`, otherwise by Django's own check."""
    async with visiting(Wsgi, app.address) as browser:
        await browser.log_in()
        phone, tablet = browser.another(), browser.another()
        await phone.log_in()
        await tablet.log_in()
        await browser.post("/devices/end-others")
        assert len(await live(app)) == 1
        await phone.log_in()

        def change(request: Any) -> None:
            request.user.set_password("teapot")
            request.user.save()
            update_session_auth_hash(request, request.user)

        hooks.in_view = change
        old = browser.jar["__Host-id"]
        await browser.get("/run")
        assert browser.jar["__Host-id"] != old
        assert (await browser.get("/cart")).json["user"] == "alice"
        assert (await phone.get("/cart")).json["user"] == ""
        assert phone.jar == {}
        assert len(await live(app)) == 1


async def test_a_user_of_data_that_no_login_wrote(browser: Browser, app: App) -> None:
    """A user's id in the data of a guest's session logs nobody in: the session's subject decides."""
    await browser.post("/cart", {"item": "tea"}, csrf=None)
    async with AsyncClient(app.address) as client:
        stored = {"_auth_user_id": b'"1"', "_auth_user_backend": b'"django.contrib.auth.backends.ModelBackend"'}
        await client.update_data(token=browser.jar["__Host-id"], set=stored)
    assert (await browser.get("/cart")).json == {"user": "", "cart": ["tea"]}


async def test_a_user_that_is_assigned_without_login(app: App) -> None:
    """If something other than Django's login puts a user into the session, saving the session logs the user in."""
    async with visiting(Wsgi, app.address) as browser:
        await browser.post("/cart", {"item": "tea"}, csrf=None)
        planted = browser.copy()

        def assign(request: Any) -> None:
            user = User.objects.get(username="alice")
            request.session[SESSION_KEY] = str(user.pk)
            request.session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
            request.session["_auth_user_hash"] = user.get_session_auth_hash()

        hooks.in_view = assign
        await browser.get("/run")
        assert (await browser.get("/cart")).json == {"user": "alice", "cart": ["tea"]}
        assert len(await live(app)) == 1
        assert (await planted.get("/cart")).json["user"] == ""


async def test_a_signal_without_a_login(app: App) -> None:
    """A login by another way, such as an API token, that sends Django's signal, changes no session."""
    async with visiting(Wsgi, app.address) as browser:
        await browser.log_in()
        await browser.post("/step-up")

        def send(request: Any) -> None:
            from django.contrib.auth.signals import user_logged_in

            user_logged_in.send(sender=User, request=request, user=request.user)

        hooks.in_view = send
        await browser.get("/run")
        assert (await browser.get("/whoami")).json["level"] == 2


async def test_a_limit_of_sessions(kind: type[Site], tmp_path: Path, clock: ManualClock) -> None:
    """A login over the limit of sessions raises in `login`, where the view can handle it; nobody is logged in."""
    text = '[applications.default]\nmax_sessions = 1\non_limit = "reject"\n'
    async with serving(config_for(tmp_path, text), clock) as app, visiting(kind, app.address) as browser:
        await browser.another().log_in()
        answer = await browser.log_in()
        assert (answer.status, answer.text) == (409, "too many devices")
        assert (await browser.get("/cart")).json["user"] == ""


async def test_djangos_test_client(app: App) -> None:
    """`force_login`, `session` and `logout` of Django's test client work, and its requests need no CSRF token."""

    def use() -> None:
        client = DjangoClient(HTTP_HOST="localhost")
        session = client.session
        session["cart"] = ["tea"]
        session.save()
        client.force_login(User.objects.get(username="alice"))
        assert client.get("/cart", secure=True).json() == {"user": "alice", "cart": ["tea"]}
        assert client.post("/cart", {"item": "cup"}, secure=True).json()["cart"] == ["tea", "cup"]
        client.logout()
        assert client.get("/cart", secure=True).json() == {"user": "", "cart": []}
        assert client.login(username="bob", password="teapot")
        assert client.get("/cart", secure=True).json()["user"] == "bob"

    async with visiting(Wsgi, app.address):
        await asyncio.to_thread(use)


async def test_login_in_a_view_shows_at_once(app: App) -> None:
    """After `login` the rest of the view sees the new subject, and a form in the same response is good."""
    async with visiting(Wsgi, app.address) as browser:

        def view(request: Any) -> HttpResponse:
            from tests.clients.contrib.django.shop import home

            login(request, User.objects.get(username="alice"))
            return home(request)

        hooks.in_view = view
        page = await browser.get("/run")
        token = page.text.partition('value="')[2].partition('"')[0]
        assert page.text.startswith("alice")
        assert "csrftoken" not in browser.jar
        assert (await browser.post("/cart", {"item": "tea"}, csrf=token)).json == {"user": "alice", "cart": ["tea"]}


@pytest.mark.parametrize("method", ["flush", "cycle_key"])
async def test_after_a_failing_view_the_token_is_replaced(app: App, method: str) -> None:
    """A view that logs out or replaces the key, and then fails with 500, has done so all the same."""
    async with visiting(Wsgi, app.address) as browser:
        await browser.post("/cart", {"item": "tea"}, csrf=None)
        old = browser.jar["__Host-id"]

        def view(request: Any) -> HttpResponse:
            getattr(request.session, method)()
            return HttpResponse(status=500)

        hooks.in_view = view
        assert (await browser.get("/run")).status == 500
        async with AsyncClient(app.address) as client:
            assert not (await client.validate(old)).valid


async def test_a_form_right_after_the_logout_is_not_lost_silently(browser: Browser) -> None:
    """A form with the cookie of a session that has just ended is answered as if a login were needed."""
    await browser.log_in()
    tab = browser.copy()
    await browser.post("/logout")
    answer = await tab.post("/cart", {"item": "tea"}, csrf=None)
    assert (answer.status, answer.location) == (303, "/login")
    assert tab.jar != {}
