"""What visitors see while the authority is out of reach."""

from __future__ import annotations

import time
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sessiond.app import App
from sessiond_client import SessiondError, Unavailable
from sessiond_client.contrib.asgi import save
from tests.clients.contrib.asgi.shop import COOKIE, PAGE, opened, shop, visiting
from tests.clients.test_outages import refusing

QUICK: dict[str, Any] = {"retries": 0, "timeout": 2.0}


async def test_requests_with_a_session(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """A request with a session cookie gets 503 with Retry-After, as page and as JSON, and the cookie stays.
    The log says why, once.
    """
    async with visiting(app.address, **QUICK) as browser:
        await browser.log_in()
        token, before = (await browser.get("/token")).text, browser.cookies
        await app.stop()
        page = await browser.get("/", **{name.replace("-", "_"): value for name, value in PAGE.items()})
        for answer in (await browser.get("/"), page, await browser.post("/cart", token=token)):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.headers.get_list("set-cookie") == []
        assert page.headers["content-type"].startswith("text/html")
        assert browser.cookies == before
        assert caplog.text.count(f"no answer from sessiond at {app.address}: ") == 1


async def test_requests_without_cookies(app: App) -> None:
    """A visitor without a cookie is served as a guest; storing something for the guest gets 503."""
    async with visiting(app.address, **QUICK) as browser:
        await app.stop()
        assert (await browser.get("/")).json() == {"subject": "", "cart": []}
        for path in ("/cart", "/login"):
            answer = await browser.post(path, token="")
            assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
            assert int(answer.headers["retry-after"]) > 0


async def test_public_pages(app: App) -> None:
    """Below `public_paths` a user is served as a guest, and the cookie is left alone, also if the cart changes."""
    async with visiting(app.address, public_paths=["/", "/account"], **QUICK) as browser:
        await browser.log_in()
        before = browser.cookies
        await app.stop()
        answer = await browser.get("/")
        assert (answer.status_code, answer.json()["subject"]) == (200, "")
        assert (await browser.get("/account")).status_code == 503
        assert browser.cookies == before


async def test_a_failure_is_fast() -> None:
    """While nobody listens at the authority's address, requests are answered at once, and not after a timeout each."""
    with refusing() as target:
        async with visiting(target, timeout=30.0, retries=0) as browser:
            browser.cookies = {COOKIE: "x"}
            assert (await browser.get("/")).status_code == 503
            begun = time.monotonic()
            for _ in range(20):
                assert (await browser.get("/")).status_code == 503
            assert time.monotonic() - begun < 15


async def test_it_works_again(app: App) -> None:
    """After an outage of the first question, the next request is served."""
    with refusing() as nobody:
        async with visiting(nobody, **QUICK) as lost:
            lost.cookies = {COOKIE: "x"}
            assert (await lost.get("/")).status_code == 503
    async with visiting(app.address, **QUICK) as browser:
        await browser.log_in()
        assert (await browser.seen())["subject"] == "alice"


async def test_an_outage_while_the_response_begins(app: App) -> None:
    """If a change cannot be stored, the response is 503 instead of one that says that it was."""

    async def page(request: Request) -> Response:
        await app.stop()
        request.session["cart"] = ["pot"]
        return PlainTextResponse("stored")

    async with visiting(app.address, Route("/page", page), **QUICK) as browser:
        await browser.log_in()
        answer = await browser.get("/page")
        assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")


async def test_an_outage_that_a_framework_hides(app: App) -> None:
    """It is 503 too if the application has a handler for the error, which comes too late for a response."""

    async def page(request: Request) -> Response:
        await app.stop()
        request.session["cart"] = ["pot"]
        return PlainTextResponse("stored")

    async def handler(request: Request, error: Exception) -> Response:
        return PlainTextResponse("own", 500)

    application = shop(app.address, Route("/page", page), **QUICK)
    application.add_exception_handler(SessiondError, handler)
    async with opened(application) as browser:
        await browser.log_in()
        assert (await browser.get("/page")).status_code == 503


async def test_an_own_answer_to_an_outage(app: App) -> None:
    """An exception handler of the application may answer an outage in a handler in its own way."""

    async def handler(request: Request, error: Exception) -> Response:
        return PlainTextResponse("own", 503)

    application = shop(app.address, **QUICK)
    application.add_exception_handler(Unavailable, handler)
    async with opened(application) as browser:
        await app.stop()
        assert (await browser.post("/login", token="")).text == "own"


async def test_an_outage_during_a_stream(app: App) -> None:
    """An outage after the response began is an error of the application: the server must not call it complete."""

    async def page(request: Request) -> Response:
        async def parts() -> Any:
            yield "some"
            await app.stop()
            request.session["cart"] = ["pot"]
            await save(request)
            yield "never"

        return StreamingResponse(parts())

    async with visiting(app.address, Route("/page", page), **QUICK) as browser:
        await browser.log_in()
        with pytest.raises(Unavailable):
            await browser.get("/page")


async def test_an_outage_in_a_background_task(app: App) -> None:
    """An outage in a background task does not touch the response, which is complete."""

    async def page(request: Request) -> Response:
        async def later() -> None:
            await app.stop()
            request.session["cart"] = ["pot"]

        return PlainTextResponse("done", background=BackgroundTask(later))

    sent: list[str] = []

    async with visiting(app.address, Route("/page", page), **QUICK) as browser:
        await browser.log_in()
        with pytest.raises(Unavailable):
            sent.append((await browser.get("/page")).text)
    assert sent == []  # the test's transport raises what a server would log
