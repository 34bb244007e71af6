"""The decorator `requires`, and errors of developers."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from sessiond.app import App
from sessiond_client import InvalidArgument
from sessiond_client.contrib.asgi import (
    Action,
    Refused,
    SessiondMiddleware,
    current_subject,
    devices,
    login,
    requires,
)
from sessiond_client.contrib.asgi.options import MiddlewareOptions
from sessiond_client.gateway import GatewaySettings
from sessiond_client.settings import ClientOptions
from tests.clients.contrib.asgi.shop import Counter, opened, shop, visiting


@requires()
async def coroutine(request: Request) -> Response:
    return PlainTextResponse(current_subject(request))


@requires()
def function(request: Request) -> Response:
    return PlainTextResponse(current_subject(request))


class Endpoint(HTTPEndpoint):
    @requires()
    async def get(self, request: Request) -> Response:
        """A page for users."""
        return PlainTextResponse(current_subject(request))


async def _greet(greeting: str, request: Request) -> Response:
    return PlainTextResponse(current_subject(request))


partial = requires()(functools.partial(_greet, "hello"))


@pytest.mark.parametrize(
    "endpoint", [coroutine, function, Endpoint, partial], ids=["async", "sync", "class", "partial"]
)
async def test_an_endpoint_for_users(app: App, endpoint: Any) -> None:
    """An endpoint with `requires` is served to users, and refused to guests before it runs."""
    async with visiting(app.address, Route("/page", endpoint)) as browser:
        denied = await browser.get("/page")
        assert (denied.status_code, denied.json()["error"]) == (401, "login_required")
        await browser.log_in()
        assert (await browser.get("/page")).text == "alice"


async def test_guests_too(app: App) -> None:
    """With `guests`, a guest is served, and a user must meet the other requirements."""

    @requires(guests=True, level=2)
    async def page(request: Request) -> Response:
        return PlainTextResponse("served")

    async with visiting(app.address, Route("/page", page)) as browser:
        assert (await browser.get("/page")).status_code == 200
        await browser.log_in()
        assert (await browser.get("/page")).status_code == 401
        await browser.log_in(level=2)
        assert (await browser.get("/page")).status_code == 200


async def test_a_get_with_side_effects(app: App) -> None:
    """With `csrf=True` the token is required for a GET too."""

    @requires(csrf=True)
    async def page(request: Request) -> Response:
        return PlainTextResponse("done")

    async with visiting(app.address, Route("/page", page)) as browser:
        await browser.log_in()
        token = (await browser.get("/token")).text
        assert (await browser.get("/page")).status_code == 403
        assert (await browser.get("/page", X_CSRF_Token=token)).status_code == 200


async def test_a_form_of_an_exempt_path_that_needs_the_token(app: App) -> None:
    """With `csrf=True` on a path that is exempt, the form is read for the check, and again by the endpoint."""

    @requires(csrf=True)
    async def page(request: Request) -> Response:
        async with request.form() as form:
            return JSONResponse(form["item"])

    options: dict[str, Any] = {"csrf_exempt": ["/hook"]}
    async with visiting(app.address, Route("/hook", page, methods=["POST"]), **options) as browser:
        await browser.log_in()
        token = (await browser.get("/token")).text
        good = await browser.http.post("/hook", data={"item": "cup", "csrf_token": token})
        assert (good.status_code, good.json()) == (200, "cup")
        assert (await browser.http.post("/hook", data={"item": "cup"})).status_code == 403


async def test_an_endpoint_without_request(app: App) -> None:
    """An endpoint that takes no request fails with an error that says what to do, and is not served."""

    @requires()
    async def page(item: str) -> Response:
        raise AssertionError("served")

    async def wrapper(request: Request) -> Response:
        found: Response = await page("cup")
        return found

    async with visiting(app.address, Route("/page", wrapper)) as browser:
        await browser.log_in()
        with pytest.raises(RuntimeError, match="no argument of the endpoint is a request"):
            await browser.get("/page")


def test_a_class_is_not_decorated() -> None:
    """A whole class of endpoints cannot be decorated: its methods can."""
    with pytest.raises(TypeError, match="a method"):
        requires()(Endpoint)


async def test_without_the_middleware() -> None:
    """Without the middleware, each function says that it must be installed."""
    for call in (devices({}), login({}, "alice")):
        with pytest.raises(RuntimeError, match="SessiondMiddleware is not installed"):
            await call
    with pytest.raises(RuntimeError, match="SessiondMiddleware is not installed"):
        current_subject({})


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_form_bytes": 0}, ValueError, "max_form_bytes"),
        ({"loginpath": "/login"}, TypeError, "'loginpath'"),
        ({"login_path": "login"}, ValueError, "login_path"),
        ({"public_paths": "/"}, ValueError, "public_paths"),
        ({"timeout": "soon"}, InvalidArgument, "timeout"),
        ({"target": 7443}, InvalidArgument, "target"),
    ],
)
def test_a_wrong_option(options: dict[str, Any], error: type[Exception], text: str) -> None:
    """A wrong option is refused when the middleware is made, by an error that names it."""
    with pytest.raises(error, match=text):
        SessiondMiddleware(Starlette(), **{"target": "127.0.0.1:7443", **options})


def test_type_checkers_know_all_options() -> None:
    """The typed options of the middleware are those of the gateway and of the client."""
    known = MiddlewareOptions.__optional_keys__ | MiddlewareOptions.__required_keys__
    client = ClientOptions.__optional_keys__ | ClientOptions.__required_keys__
    assert known == GatewaySettings.names() | client


async def test_an_application_that_does_not_exist(app: App) -> None:
    """An application that the authority does not know fails with an error that lists those that it knows."""
    async with visiting(app.address, application="shopp") as browser:
        with pytest.raises(ValueError, match=r"'shopp'.*default"):
            await browser.get("/", Cookie="a=b")


# The application's own answers


async def test_an_own_answer_to_a_refusal(app: App) -> None:
    """An exception handler of the application answers `Refused` in its own way; the rest is as always."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        assert error.action is Action.LOGIN
        return PlainTextResponse("own", error.refusal.status)

    shop_with_handler = shop(app.address)
    shop_with_handler.add_exception_handler(Refused, refused)
    async with opened(shop_with_handler) as browser:
        assert (await browser.get("/account")).text == "own"
        await browser.log_in()
        assert (await browser.post("/cart", token="wrong")).json()["error"] == "csrf_failed"


async def test_an_error_of_the_framework(app: App) -> None:
    """An `HTTPException` keeps its status, and the session's changes are stored with it."""

    async def page(request: Request) -> Response:
        request.session["seen"] = 1
        raise HTTPException(418)

    async def shown(request: Request) -> Response:
        return JSONResponse(dict(request.session))

    async with visiting(app.address, Route("/page", page), Route("/shown", shown)) as browser:
        assert (await browser.get("/page")).status_code == 418
        assert (await browser.get("/shown")).json() == {"seen": 1}


async def test_beside_another_middleware(app: App) -> None:
    """A refusal inside of one of Starlette's `BaseHTTPMiddleware` becomes the same response."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            request.session["passed"] = True
            response: Response = await call_next(request)
            return response

    async def shown(request: Request) -> Response:
        return JSONResponse(dict(request.session))

    outer: Any = SessiondMiddleware
    inner = Starlette(
        routes=[Route("/page", coroutine), Route("/shown", shown), Mount("/below", routes=[Route("/page", coroutine)])],
        middleware=[Middleware(outer, target=app.address, near_cache=False), Middleware(Passing)],
    )
    async with opened(inner) as browser:
        assert (await browser.get("/shown")).json() == {"passed": True}
        for path in ("/page", "/below/page"):
            assert (await browser.get(path)).status_code == 401


async def test_an_endpoint_that_is_refused_asks_once(app: App) -> None:
    """A refused request costs one question as any other one."""
    counter = Counter()
    async with visiting(app.address, interceptors=[counter]) as browser:
        await browser.log_in()
        await browser.seen()
        counter.calls.clear()
        assert (await browser.get("/payment")).status_code == 401
    assert counter.calls == ["ValidateSession"]


async def test_an_error_that_nobody_handles(app: App) -> None:
    """After an error that the application does not handle, nothing is stored and no cookie is sent."""

    async def page(request: Request) -> Response:
        request.session["cart"] = ["pot"]
        raise ZeroDivisionError

    application = shop(app.address, Route("/page", page))
    async with opened(application) as browser:
        with pytest.raises(ZeroDivisionError):
            await browser.get("/page")
        assert browser.cookies == {}
        await browser.log_in()
        with pytest.raises(ZeroDivisionError):
            await browser.get("/page")
        assert (await browser.seen())["cart"] == []


async def test_around_a_whole_application(app: App) -> None:
    """Around a whole Starlette application, a refusal in an endpoint is an error: it is not served."""
    inner = Starlette(routes=[Route("/page", coroutine)])
    around = SessiondMiddleware(inner, app.address, near_cache=False)
    async with opened(around) as browser:
        with pytest.raises(Refused):
            await browser.get("/page")
