"""Session data in Starlette: read and written like the framework's own, and what a request costs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sessiond.app import App
from sessiond_client import AsyncClient
from sessiond_client.contrib.asgi import ResponseBegun, csrf_token, login, save
from tests.clients.contrib.asgi.shop import COOKIE, Browser, Counter, opened, shop, visiting


async def test_a_guest_has_a_cart(app: App) -> None:
    """What a guest puts into the session is there in the next request."""
    async with visiting(app.address) as browser:
        assert (await browser.post("/cart")).json() == ["cup"]
        assert set(browser.cookies) == {COOKIE}
        assert await browser.seen() == {"subject": "", "cart": ["cup"]}


async def test_nested_changes_are_stored(app: App) -> None:
    """A change inside a stored list is stored without being announced."""
    async with visiting(app.address) as browser:
        for _ in range(3):
            await browser.post("/cart")
        assert (await browser.seen())["cart"] == ["cup", "cup", "cup"]


async def test_the_cart_survives_the_login(app: App) -> None:
    """A guest who logs in keeps the cart, under another token."""
    async with visiting(app.address) as browser:
        await browser.post("/cart")
        before = browser.cookies
        await browser.log_in()
        assert browser.cookies != before
        assert await browser.seen() == {"subject": "alice", "cart": ["cup"]}


async def test_a_cart_and_a_login_in_one_request(app: App) -> None:
    """What a visitor without a session stores in the request of the login is in the user's session."""

    async def buy(request: Request) -> Response:
        request.session["cart"] = ["pot"]
        await login(request, "alice")
        return JSONResponse(request.session["cart"])

    async with visiting(app.address, Route("/buy", buy)) as browser:
        assert (await browser.get("/buy")).json() == ["pot"]
        assert await browser.seen() == {"subject": "alice", "cart": ["pot"]}


async def test_nothing_is_left_of_another_user(app: App) -> None:
    """A login as somebody else begins with an empty cart, in the rest of its own request too."""

    async def switch(request: Request) -> Response:
        before = list(request.session["cart"])
        await login(request, "alice")
        return JSONResponse([before, request.session.get("cart")])

    async with visiting(app.address, Route("/switch", switch)) as browser:
        await browser.log_in("bob")
        await browser.post("/cart")
        assert (await browser.get("/switch")).json() == [["cup"], None]
        assert await browser.seen() == {"subject": "alice", "cart": []}


async def test_a_visitor_without_data_gets_no_session(app: App) -> None:
    """Reading an empty session sets no cookie, and asks the authority nothing."""
    counter = Counter()
    async with visiting(app.address, interceptors=[counter]) as browser:
        assert (await browser.get("/")).headers.get_list("set-cookie") == []
    assert counter.calls == []


async def test_one_question_for_each_request(app: App) -> None:
    """A request costs one call, data included, and nothing is written if nothing was changed."""
    counter = Counter()
    async with visiting(app.address, interceptors=[counter]) as browser:
        await browser.log_in()
        await browser.post("/cart")
        await browser.seen()
        counter.calls.clear()
        for _ in range(3):
            assert (await browser.seen())["cart"] == ["cup"]
        assert counter.calls == ["ValidateSession"] * 3
        counter.calls.clear()
        assert (await browser.get("/account")).status_code == 200
        assert counter.calls == ["ValidateSession"]


async def test_a_change_costs_one_more_call(app: App) -> None:
    """A request that changes the data asks once and writes once."""
    counter = Counter()
    async with visiting(app.address, interceptors=[counter]) as browser:
        await browser.log_in()
        token = (await browser.get("/token")).text
        counter.calls.clear()
        await browser.post("/cart", token=token)
    assert counter.calls == ["ValidateSession", "UpdateSessionData"]


async def test_no_question_with_the_near_cache(app: App) -> None:
    """With the near cache, which is on by default, a request that was asked about before costs no call."""
    counter = Counter()
    async with visiting(app.address, interceptors=[counter], near_cache=True) as browser:
        await _with_data_from_elsewhere(app, browser)
        give_up = time.monotonic() + 20
        while True:
            counter.calls.clear()
            assert (await browser.seen())["cart"] == ["pot"]
            if not counter.calls:
                break
            assert time.monotonic() < give_up, "the near cache did not open"
        for _ in range(5):
            await browser.seen()
        assert counter.calls == []


def test_the_near_cache_is_on_by_default() -> None:
    """Without options the client has a near cache, and `near_cache=False` switches it off."""
    from sessiond_client.contrib.clients import split_options

    assert split_options({})[1]["near_cache"]
    assert not split_options({"near_cache": False})[1]["near_cache"]


@pytest.mark.parametrize("near_cache", [True, False])
async def test_own_changes_are_seen_at_once(app: App, near_cache: bool) -> None:
    """A process sees what it has just written, although a cache on the way may not have heard of it."""
    counter = Counter()
    async with visiting(app.address, near_cache=near_cache, interceptors=[counter]) as browser:
        await browser.log_in()
        for number in range(1, 6):
            await browser.post("/cart")
            counter.requests.clear()
            assert len((await browser.seen())["cart"]) == number
            (question,) = counter.requests
            assert question.at_least  # so it is not luck


async def test_a_path_without_sessions(app: App) -> None:
    """Below `ignored_paths` nothing is asked."""
    counter = Counter()
    async with visiting(app.address, interceptors=[counter], ignored_paths=["/static"]) as browser:
        await browser.log_in()
        counter.calls.clear()
        assert (await browser.get("/static")).status_code == 200
    assert counter.calls == []


async def test_caches_are_told(app: App) -> None:
    """A response that used the session of a user says `Vary: Cookie` and `no-store`; any other one says neither."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        used, unused = await browser.get("/"), await browser.get("/static")
    assert (used.headers["vary"], used.headers["cache-control"]) == ("Cookie", "no-store")
    assert "vary" not in unused.headers
    assert "cache-control" not in unused.headers


@pytest.mark.parametrize(
    ("own", "vary", "cache_control"),
    [
        ({"Vary": "Accept"}, "Accept, Cookie", "no-store"),
        ({"Vary": "Accept, cookie"}, "Accept, cookie", "no-store"),
        ({"Vary": "*"}, "*", "no-store"),
        ({"Cache-Control": "private"}, "Cookie", "private"),
    ],
)
async def test_own_headers_are_merged(app: App, own: dict[str, str], vary: str, cache_control: str) -> None:
    """The application's `Vary` is completed and never doubled, and its `Cache-Control` stays."""

    async def page(request: Request) -> Response:
        return JSONResponse(dict(request.session), headers=own)

    async with visiting(app.address, Route("/page", page)) as browser:
        await browser.log_in()
        headers = (await browser.get("/page")).headers
    assert headers.get_list("vary") == [vary]
    assert headers.get_list("cache-control") == [cache_control]


async def test_own_cookies_stay(app: App) -> None:
    """Cookies of the application are sent beside the session's."""

    async def page(request: Request) -> Response:
        await login(request, "alice")
        response = PlainTextResponse("hello")
        response.set_cookie("theme", "dark")
        return response

    async with visiting(app.address, Route("/page", page)) as browser:
        lines = (await browser.get("/page")).headers.get_list("set-cookie")
    assert [line.partition("=")[0] for line in lines] == ["theme", COOKIE]


async def test_changes_during_a_stream_are_stored(app: App) -> None:
    """What a streaming response or a background task changes after the response began is stored too."""

    async def page(request: Request) -> Response:
        async def parts() -> Any:
            yield "some"
            request.session["streamed"] = True
            yield "more"

        def later() -> None:
            request.session["later"] = True

        return StreamingResponse(parts(), background=BackgroundTask(later))

    async def task_alone(request: Request) -> Response:
        def alone() -> None:
            request.session["alone"] = True

        return PlainTextResponse("done", background=BackgroundTask(alone))

    async def shown(request: Request) -> Response:
        return JSONResponse(dict(request.session))

    routes = [Route("/stream", page), Route("/task", task_alone), Route("/shown", shown)]
    async with visiting(app.address, *routes) as browser:
        await browser.log_in()
        assert (await browser.get("/stream")).text == "somemore"
        assert (await browser.get("/task")).text == "done"
        assert (await browser.get("/shown")).json() == {"streamed": True, "later": True, "alone": True}


async def test_a_save_in_between(app: App) -> None:
    """`save` stores changes at once; for a guest whose response has begun it returns False, and opens no session."""
    seen: list[Any] = []

    async def page(request: Request) -> Response:
        async def parts() -> Any:
            yield "some"
            request.session["step"] = 1
            seen.append(await save(request))
            yield "more"

        return StreamingResponse(parts())

    counter = Counter()
    async with visiting(app.address, Route("/stream", page), interceptors=[counter]) as browser:
        await browser.get("/stream")
        assert (seen, counter.calls) == ([False], [])
        await browser.log_in()
        await browser.get("/stream")
        assert seen == [False, True]
        assert counter.calls.count("UpdateSessionData") == 1


@pytest.mark.parametrize("function", [login, csrf_token], ids=lambda function: str(function.__name__))
async def test_a_cookie_that_comes_too_late(app: App, function: Any) -> None:
    """After the response began, a login or a guest's CSRF token is refused before it changes anything."""
    raised: list[BaseException] = []

    async def page(request: Request) -> Response:
        async def parts() -> Any:
            yield "some"
            try:
                await (function(request, "alice") if function is login else function(request))
            except ResponseBegun as error:
                raised.append(error)

        return StreamingResponse(parts())

    counter = Counter()
    async with visiting(app.address, Route("/stream", page), interceptors=[counter]) as browser:
        await browser.get("/stream")
    assert counter.calls == []
    assert function.__name__ in str(raised[0])


async def test_values_that_cannot_be_stored(app: App) -> None:
    """A value that is not JSON fails with an error that names its key and does not show the value."""

    async def page(request: Request) -> Response:
        request.session["basket"] = {"secret-thing"}
        return PlainTextResponse("never")

    async with visiting(app.address, Route("/page", page)) as browser:
        with pytest.raises(ValueError, match="basket") as failed:
            await browser.get("/page")
    assert "secret-thing" not in str(failed.value)


async def test_two_requests_at_once(app: App) -> None:
    """Concurrent requests that write different keys of one session both succeed."""

    async def write(request: Request) -> Response:
        request.session[request.query_params["key"]] = 1
        return PlainTextResponse("done")

    async def shown(request: Request) -> Response:
        return JSONResponse(dict(request.session))

    async with visiting(app.address, Route("/write", write), Route("/shown", shown)) as browser:
        await browser.log_in()
        await asyncio.gather(*(browser.get(f"/write?key={key}") for key in "abc"))
        assert (await browser.get("/shown")).json() == {"a": 1, "b": 1, "c": 1}


async def test_several_applications_at_one_authority(app: App) -> None:
    """Two shops with middlewares of their own work side by side in one process."""
    first, second = shop(app.address), shop(app.address)
    async with opened(first) as one, opened(second) as two:
        await one.log_in("alice")
        await two.log_in("bob")
        assert (await one.seen())["subject"] == "alice"
        assert (await two.seen())["subject"] == "bob"


async def _with_data_from_elsewhere(app: App, browser: Browser) -> None:
    """A session that this process did not change itself, so that no question of it must see a newer state."""
    async with AsyncClient(app.address) as client:
        created = await client.create(subject="alice", data={"cart": b'["pot"]'})
    browser.cookies = {COOKIE: created.token.reveal()}
