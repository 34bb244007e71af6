"""Requirements as dependencies of FastAPI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Form, Request, UploadFile
from fastapi.exceptions import FastAPIError
from fastapi.responses import PlainTextResponse, StreamingResponse

from sessiond.app import App
from sessiond_client import Session
from sessiond_client.contrib import asgi
from sessiond_client.contrib import fastapi as adapter
from sessiond_client.contrib.fastapi import (
    CurrentSession,
    CurrentUser,
    Refused,
    SessiondMiddleware,
    csrf_token,
    current_subject,
    devices,
    login,
    requires,
)
from tests.clients.contrib.asgi.shop import Counter, opened


async def opened_for_a_while(request: Request) -> AsyncIterator[int]:
    """A dependency with `yield`."""
    yield len(await devices(request))


def application(target: str, **options: Any) -> FastAPI:
    """The shop in FastAPI."""
    chosen: Any = {"near_cache": False, **options}
    app = FastAPI()
    app.add_middleware(SessiondMiddleware, target=target, **chosen)
    inner = APIRouter(prefix="/inner", dependencies=[Depends(requires(level=2))])

    @app.get("/token")
    async def token(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await csrf_token(request))

    @app.post("/login")
    async def log_in(request: Request, level: int = 1) -> str:
        await login(request, "alice", level=level)
        return current_subject(request)

    @app.get("/user")
    async def user(user: CurrentUser) -> str:
        return user

    @app.get("/threaded")
    def threaded(user: CurrentUser, request: Request) -> str:
        request.session["threaded"] = True
        return user

    @app.get("/session")
    async def session(session: CurrentSession) -> str:
        return session.subject

    @app.get("/anybody")
    async def anybody(session: Annotated[Session | None, Depends(requires(guests=True))]) -> str:
        return session.subject if session is not None else "nobody"

    @app.get("/payment", dependencies=[Depends(requires(level=2))])
    async def payment() -> str:
        return "paid"

    @inner.get("/page")
    async def page(request: Request) -> dict[str, Any]:
        return dict(request.session)

    @app.post("/form", dependencies=[Depends(requires(csrf=True))])
    async def form(item: Annotated[str, Form()], file: UploadFile | None = None) -> list[Any]:
        return [item, len(await file.read()) if file else 0]

    @app.get("/devices")
    async def list_devices(request: Request) -> int:
        return len(await devices(request))

    @app.get("/while")
    async def with_yield(count: Annotated[int, Depends(opened_for_a_while)]) -> int:
        return count

    @app.get("/later")
    async def later(request: Request, tasks: BackgroundTasks, user: CurrentUser) -> str:
        def note() -> None:
            request.session["noted"] = True

        tasks.add_task(note)
        return user

    @app.get("/stream")
    async def stream(request: Request, user: CurrentUser) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield user
            request.session["streamed"] = True

        return StreamingResponse(parts())

    app.include_router(inner)
    return app


@pytest.mark.parametrize("path", ["/user", "/session", "/threaded", "/payment", "/inner/page", "/devices", "/while"])
async def test_a_guest_is_refused(app: App, path: str) -> None:
    """What needs a user is refused for a guest: as JSON with 401, as a page by a redirect to the login."""
    async with opened(application(app.address)) as browser:
        answer = await browser.get(path)
        assert (answer.status_code, answer.json()["error"]) == (401, "login_required")
        page = await browser.get(path, Accept="text/html")
        assert (page.status_code, page.headers["location"]) == (303, f"/login?next={path}")


async def test_a_user_is_served(app: App) -> None:
    """Each dependency gives what it names, and costs no question of its own."""
    counter = Counter()
    async with opened(application(app.address, interceptors=[counter])) as browser:
        assert (await browser.get("/anybody")).json() == "nobody"
        await browser.post("/login")
        await browser.get("/user")
        counter.calls.clear()
        for path in ("/user", "/session", "/threaded", "/anybody"):
            assert (await browser.get(path)).json() == "alice"
        assert counter.calls.count("ValidateSession") == 4
        assert set(counter.calls) == {"ValidateSession", "UpdateSessionData"}  # /threaded stores something
        assert (await browser.get("/while")).json() == 1


@pytest.mark.parametrize("path", ["/payment", "/inner/page"])
async def test_a_step_up(app: App, path: str) -> None:
    """A level that is required by an endpoint or by its router needs a step-up."""
    async with opened(application(app.address)) as browser:
        await browser.post("/login")
        assert (await browser.get(path)).json()["min_level"] == 2
        await browser.post("/login?level=2")
        assert (await browser.get(path)).status_code == 200


async def test_a_form(app: App) -> None:
    """FastAPI reads a form whose token was checked before, files included; without the token it gets 403."""
    async with opened(application(app.address)) as browser:
        await browser.post("/login")
        token = (await browser.get("/token")).text
        fields = {"item": "cup", "csrf_token": token}
        assert (await browser.http.post("/form", data=fields)).json() == ["cup", 0]
        files = {"file": b"x" * 2_000_000}
        assert (await browser.http.post("/form", data=fields, files=files)).json() == ["cup", 2_000_000]
        assert (await browser.http.post("/form", data={"item": "cup"})).status_code == 403


async def test_after_the_response_began(app: App) -> None:
    """What a background task or the end of a stream stores is there in the next request."""
    async with opened(application(app.address)) as browser:
        await browser.post("/login?level=2")
        await browser.get("/later")
        await browser.get("/stream")
        assert (await browser.get("/inner/page")).json() == {"noted": True, "streamed": True}


async def test_an_own_answer(app: App) -> None:
    """An exception handler of the application answers `Refused` in its own way."""
    shop = application(app.address)

    @shop.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> PlainTextResponse:
        return PlainTextResponse(f"own {error.refusal.error}", error.refusal.status)

    async with opened(shop) as browser:
        assert (await browser.get("/user")).text == "own login_required"


def test_it_is_no_decorator() -> None:
    """Used as a decorator, which would protect nothing, it is an error that says so."""
    with pytest.raises(TypeError, match=r"requires\(\.\.\.\) is not a decorator; write dependencies="):

        @requires(level=2)
        async def page() -> None: ...


def test_the_decorator_is_no_dependency() -> None:
    """Starlette's decorator as a dependency is an error when the application is made, and never protects nothing."""
    app = FastAPI()
    with pytest.raises(FastAPIError, match="Endpoint"):

        @app.get("/", dependencies=[Depends(asgi.requires(level=2))])
        async def page() -> None: ...


def test_it_has_all_of_the_asgi_adapter() -> None:
    """What the ASGI adapter offers can be imported from here too."""
    assert set(asgi.__all__) - {"SCOPE_KEY"} <= set(adapter.__all__)
    for name in set(asgi.__all__) - {"SCOPE_KEY", "requires"}:
        assert getattr(adapter, name) is getattr(asgi, name)
