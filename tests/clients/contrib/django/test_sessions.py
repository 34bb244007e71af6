"""Session data in Django's way, and what it costs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.messages.storage.session import SessionStorage
from django.http import HttpResponse

from sessiond.app import App
from sessiond_client import AsyncClient
from sessiond_client.contrib.django.backend import SessionStore
from tests.clients.contrib.django.shop import hooks
from tests.clients.contrib.django.site import Browser, Site, Wsgi, visiting
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving


async def test_a_guests_cart(browser: Browser) -> None:
    """A guest without a session gets one for the cart, and finds it again."""
    assert (await browser.get("/cart")).json["cart"] == []
    assert browser.jar == {}
    await browser.post("/cart", {"item": "tea"}, csrf=None)
    await browser.post("/cart", {"item": "cup"})
    assert (await browser.get("/cart")).json["cart"] == ["tea", "cup"]


async def test_the_cart_survives_the_login(browser: Browser) -> None:
    """What a guest put into the cart is there after the login, and after a step-up."""
    await browser.post("/cart", {"item": "tea"}, csrf=None)
    assert (await browser.log_in()).status == 303
    assert (await browser.get("/cart")).json == {"user": "alice", "cart": ["tea"]}
    await browser.post("/step-up")
    assert (await browser.get("/cart")).json == {"user": "alice", "cart": ["tea"]}


async def test_changes_inside_a_value_are_stored(browser: Browser) -> None:
    """An item appended to a list in the session is stored, although nobody set `modified`."""
    await browser.log_in()
    await browser.post("/cart", {"item": "tea"})
    await browser.post("/cart", {"item": "cup"})
    assert (await browser.get("/cart")).json["cart"] == ["tea", "cup"]


async def test_one_request_is_one_question(browser: Browser) -> None:
    """A page that uses user, cart and CSRF token asks one question, and writes nothing if nothing was changed."""
    await browser.log_in()
    await browser.post("/cart", {"item": "tea"})
    browser.site.calls.clear()
    await browser.get("/cart")
    assert browser.site.calls == {"ValidateSession": 1}
    await browser.get("/")
    assert browser.site.calls == {"ValidateSession": 2}


async def test_a_page_without_session_asks_nothing(browser: Browser) -> None:
    """A page that uses no session asks no question, even of a user who is logged in, and varies on no cookie."""
    await browser.log_in()
    browser.site.calls.clear()
    answer = await browser.get("/plain")
    assert (answer.status, answer.all("Vary"), browser.site.calls) == (200, [], {})


async def test_the_near_cache(kind: type[Site], app: App) -> None:
    """With the near cache, repeated requests of a user ask nothing."""
    async with visiting(kind, app.address, NEAR_CACHE=True) as browser:
        await browser.log_in()
        await browser.post("/cart", {"item": "tea"})
        async with asyncio.timeout(30):
            while browser.site.calls:
                browser.site.calls.clear()
                await browser.get("/cart")
                await asyncio.sleep(0.1)
        for _ in range(5):
            assert (await browser.get("/cart")).json == {"user": "alice", "cart": ["tea"]}
        assert browser.site.calls == {}


async def test_a_request_with_side_effects_is_one_question_and_one_write(browser: Browser) -> None:
    """A form that changes the cart asks one question, CSRF token included, and writes once."""
    await browser.log_in()
    token = await browser.token()
    browser.site.calls.clear()
    await browser.post("/cart", {"item": "tea"}, csrf=token)
    assert browser.site.calls == {"ValidateSession": 1, "UpdateSessionData": 1}


async def test_a_change_is_seen_by_the_next_request(kind: type[Site], app: App) -> None:
    """With the near cache, a request sees what the request before it has written."""
    async with visiting(kind, app.address, NEAR_CACHE=True) as browser:
        await browser.log_in()
        token = await browser.token()
        for number in range(20):
            await browser.post("/cart", {"item": str(number)}, csrf=token)
            assert len((await browser.get("/cart")).json["cart"]) == number + 1


async def test_after_an_error_nothing_is_stored(browser: Browser) -> None:
    """As with Django's sessions, a response of 5xx stores nothing."""
    await browser.log_in()

    def fail(request: Any) -> HttpResponse:
        request.session["lost"] = True
        return HttpResponse(status=500)

    hooks.in_view = fail
    assert (await browser.get("/run")).status == 500
    hooks.in_view = lambda request: HttpResponse(str("lost" in request.session))
    assert (await browser.get("/run")).text == "False"


async def test_a_session_that_ended_meanwhile(browser: Browser, app: App) -> None:
    """If the session ends while a view runs, what it changed is lost, and the response is Django's 400."""
    await browser.log_in()
    token = browser.jar["__Host-id"]
    loop = asyncio.get_running_loop()

    async def end() -> None:
        async with AsyncClient(app.address) as client:
            await client.revoke(token=token)

    def change(request: Any) -> None:
        request.session["x"] = 1
        asyncio.run_coroutine_threadsafe(end(), loop).result()

    hooks.in_view = change
    assert (await browser.get("/run")).status == 400


async def test_other_cookie_names(kind: type[Site], tmp_path: Path, clock: ManualClock) -> None:
    """The names of the cookies are the authority's, whatever Django's settings say: one for guests, one for users."""
    text = '[applications.default.cookie]\nname = "sid"\nanonymous_name = "guest"\n'
    async with serving(config_for(tmp_path, text), clock) as app, visiting(kind, app.address) as browser:
        await browser.post("/cart", {"item": "tea"}, csrf=None)
        assert set(browser.jar) == {"__Host-guest"}
        await browser.log_in()
        assert set(browser.jar) == {"__Host-sid"}
        assert (await browser.get("/cart")).json == {"user": "alice", "cart": ["tea"]}


async def test_flush_leaves_a_guest(browser: Browser, app: App) -> None:
    """After `flush` the session is over and the cookie deleted; what is written after it begins a guest's session."""
    await browser.log_in()
    old = browser.jar["__Host-id"]
    hooks.in_view = lambda request: request.session.flush()
    await browser.get("/run")
    assert browser.jar == {}
    async with AsyncClient(app.address) as client:
        assert not (await client.validate(old)).valid

    def begin_again(request: Any) -> None:
        request.session.flush()
        request.session["cart"] = ["new"]

    await browser.post("/cart", {"item": "old"}, csrf=None)
    old = browser.jar["__Host-id"]
    hooks.in_view = begin_again
    await browser.get("/run")
    assert (await browser.get("/cart")).json["cart"] == ["new"]
    async with AsyncClient(app.address) as client:
        assert not (await client.validate(old)).valid


@pytest.mark.parametrize("user", [True, False], ids=["user", "guest"])
async def test_cycle_key_replaces_the_token(browser: Browser, app: App, user: bool) -> None:
    """After `cycle_key` the old token is worthless, and session and data are the same."""
    await browser.post("/cart", {"item": "tea"}, csrf=None)
    if user:
        await browser.log_in()
    old = browser.jar["__Host-id"]
    ids: list[str] = []

    def cycle(request: Any) -> None:
        ids.append(request.session.session_id)
        request.session.cycle_key()

    hooks.in_view = cycle
    await browser.get("/run")
    hooks.in_view = lambda request: ids.append(request.session.session_id)
    await browser.get("/run")
    assert ids[0] == ids[1]
    assert browser.jar["__Host-id"] != old
    assert (await browser.get("/cart")).json["cart"] == ["tea"]
    async with AsyncClient(app.address) as client:
        assert not (await client.validate(old)).valid


async def test_a_view_that_needs_a_key(browser: Browser) -> None:
    """`create` and `save` open a session at once, so that there is a key; the browser gets it."""
    seen: list[Any] = []

    def need(request: Any) -> None:
        seen.append(request.session.session_key)
        request.session.create()
        seen.append(request.session.session_key)
        request.session.save()
        seen.append(request.session.session_key)

    hooks.in_view = need
    await browser.get("/run")
    assert seen == [None, browser.jar["__Host-id"], browser.jar["__Host-id"]]
    await browser.log_in()


async def test_lifetimes_can_only_shorten(kind: type[Site], tmp_path: Path) -> None:
    """`set_expiry` shortens the session, and `get_expiry_age` says what holds: never more than the policy allows."""
    ages: list[int] = []

    def ask(seconds: Any) -> Any:
        def view(request: Any) -> None:
            if seconds != "":
                request.session.set_expiry(seconds)
                request.session.save()
            ages.append(request.session.get_expiry_age())

        return view

    async with serving(config_for(tmp_path)) as app, visiting(kind, app.address) as browser:
        await browser.log_in()
        for seconds in ("", 60, "", 10_000_000, None):
            hooks.in_view = ask(seconds)
            assert (await browser.get("/run")).status == 200
        policy = 30 * 60
        assert [round(age / 10) * 10 for age in ages] == [policy, 60, 60, policy, policy]
        hooks.in_view = ask(timedelta(seconds=90))
        await browser.get("/run")
        async with AsyncClient(app.address) as client:
            (session,) = [item async for item in client.list()]
        assert session.absolute_expire_time is not None
        assert 80 < (session.absolute_expire_time - session.last_active_time).total_seconds() < 100


async def test_an_expiry_in_the_past(browser: Browser) -> None:
    """`set_expiry` with a time in the past ends the session."""
    await browser.log_in()
    hooks.in_view = lambda request: request.session.set_expiry(timedelta(seconds=-1))
    await browser.get("/run")
    assert browser.jar == {}
    assert (await browser.get("/cart")).json["user"] == ""


async def test_the_serializer_of_the_project(app: App) -> None:
    """`SESSION_SERIALIZER` writes each value; one that it cannot write is an error that names the key."""
    serializer = f"{__name__}.Upper"
    async with visiting(Wsgi, app.address, {"SESSION_SERIALIZER": serializer}) as browser:

        def write(request: Any) -> None:
            request.session["word"] = "tea"

        hooks.in_view = write
        await browser.get("/run")
        hooks.in_view = lambda request: HttpResponse(request.session["word"])
        assert (await browser.get("/run")).text == "tea"
        async with AsyncClient(app.address) as client:
            stored = await client.get_data(token=browser.jar["__Host-id"])
        assert stored.data["word"] == b"TEA"

        def write_wrongly(request: Any) -> None:
            request.session["answer"] = 42
            with pytest.raises(AttributeError) as raised:
                request.session.save()
            assert "request.session['answer']" in "".join(raised.value.__notes__)
            del request.session["answer"]

        hooks.in_view = write_wrongly
        assert (await browser.get("/run")).status == 200


class Upper:
    """A serializer for texts."""

    def dumps(self, value: Any) -> bytes:
        data: bytes = value.upper().encode()
        return data

    def loads(self, data: bytes) -> Any:
        return data.decode().lower()


async def test_messages_in_the_session(app: App) -> None:
    """Django's messages can be kept in the session."""
    storage = f"{SessionStorage.__module__}.SessionStorage"
    async with visiting(Wsgi, app.address, {"MESSAGE_STORAGE": storage}) as browser:
        from django.contrib import messages

        hooks.in_view = lambda request: messages.info(request, "saved")
        await browser.get("/run")
        hooks.in_view = lambda request: HttpResponse(",".join(str(item) for item in messages.get_messages(request)))
        assert (await browser.get("/run")).text == "saved"
        assert (await browser.get("/run")).text == ""


async def test_a_session_outside_of_a_request(app: App) -> None:
    """`SessionStore(key)` opens a session without a request, and that is no activity of its user."""
    async with visiting(Wsgi, app.address) as browser:
        await browser.post("/cart", {"item": "tea"}, csrf=None)
        key = browser.jar["__Host-id"]

        def read() -> Any:
            store = SessionStore(key)
            found = (store["cart"], store.session_id)
            store["seen"] = True
            store.save()
            return found

        async with AsyncClient(app.address) as client:
            before = (await client.get(token=key)).session
            cart, session_id = await asyncio.to_thread(read)
            after = (await client.get(token=key)).session
        assert before is not None
        assert after is not None
        assert (cart, session_id) == (["tea"], before.session_id)
        assert before.last_active_time == after.last_active_time
        hooks.in_view = lambda request: HttpResponse(str(request.session["seen"]))
        assert (await browser.get("/run")).text == "True"


async def test_a_public_id_opens_nothing(app: App) -> None:
    """The public id of a session is no key: neither a cookie nor `SessionStore` accepts it."""
    async with visiting(Wsgi, app.address) as browser, AsyncClient(app.address) as client:
        created = await client.create(subject="1", data={"cart": b'["tea"]'})
        browser.jar["__Host-id"] = created.session.session_id
        assert (await browser.get("/cart")).json == {"user": "", "cart": []}
        found = await asyncio.to_thread(lambda: dict(SessionStore(created.session.session_id)._session))
        assert found == {}
