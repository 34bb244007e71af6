"""CSRF tokens in Django's templates and decorators, requirements of views, and the responses to refused requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.http import HttpResponse
from django.template import engines

from sessiond.app import App
from sessiond_client import AsyncClient, Client
from sessiond_client.contrib.django import csrf_token
from sessiond_client.contrib.django.visit import masked, unmasked
from sessiond_client.tokens import Token
from tests.clients.contrib.django.shop import hooks
from tests.clients.contrib.django.site import Asgi, Browser, Site, Wsgi, visiting
from tests.support.clock import ManualClock

MINUTE = 60_000
BOTH = {"MIDDLEWARE": ["sessiond_client.contrib.django.middleware.SessiondMiddleware"]}
OURS = [
    "sessiond_client.contrib.django.middleware.SessiondMiddleware",
    "sessiond_client.contrib.django.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


async def test_the_token_in_templates(browser: Browser) -> None:
    """Each page has the session's token in another form, so that compression reveals nothing; each form is good."""
    await browser.log_in()
    first, second = await browser.token(), await browser.token()
    assert first is not None
    assert first != second
    for token in (first, second):
        assert (await browser.post("/cart", {"item": "tea"}, csrf=token)).status == 200


async def test_the_token_in_a_header(browser: Browser) -> None:
    """Scripts send the token in Django's header, as `csrf_token` and `get_token` give it, or as the authority does."""
    await browser.log_in()
    tokens = (await browser.get("/token")).json
    plain = unmasked(tokens["token"])
    assert unmasked(tokens["of_django"]) == plain
    for token in (tokens["token"], tokens["of_django"], plain):
        answer = await browser.post("/cart", {"item": "tea"}, csrf=None, X_CSRFToken=token)
        assert answer.status == 200


async def test_there_is_no_csrf_cookie(browser: Browser) -> None:
    """Pages, logins and Django's own login view set the session's cookie and no other."""
    await browser.get("/")
    await browser.log_in()
    await browser.get("/accounts/login/", Cookie="")
    assert set(browser.jar) == {"__Host-id"}


@pytest.mark.parametrize("middleware", [BOTH["MIDDLEWARE"], OURS], ids=["none", "ours"])
async def test_csrf_middlewares(kind: type[Site], app: App, middleware: list[str]) -> None:
    """Without Django's CSRF middleware, and with ours in its place, forms are checked just the same."""
    users = [*middleware[:1], *OURS[2:]] if middleware is not OURS else OURS
    async with visiting(kind, app.address, {"MIDDLEWARE": users}) as browser:
        await browser.log_in()
        assert (await browser.post("/cart", {"item": "forged"}, csrf=None)).status == 403
        assert (await browser.post("/cart", {"item": "tea"})).status == 200


async def test_djangos_login_view(app: App) -> None:
    """Django's `LoginView`, which has a CSRF decorator of its own, logs the user in."""
    templates = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {"registration/login.html": "<form>{% csrf_token %}{{ form.as_p }}</form>"},
                    )
                ]
            },
        }
    ]
    async with visiting(Wsgi, app.address, {"TEMPLATES": templates}) as browser:
        page = await browser.get("/accounts/login/")
        token = page.text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
        fields = {"username": "alice", "password": "teapot"}
        assert (await browser.post("/accounts/login/", fields, csrf=None)).status == 403
        answer = await browser.post("/accounts/login/?next=/cart", fields, csrf=token)
        assert (answer.status, answer.location) == (302, "/cart")
        assert (await browser.get("/cart")).json["user"] == "alice"


async def test_the_token_after_a_flush(app: App) -> None:
    """A form after a `flush` in the same view has the token of the new session, and not that of the one that ended."""
    async with visiting(Wsgi, app.address) as browser:
        await browser.log_in()
        old = await browser.token()
        assert old is not None

        def view(request: Any) -> HttpResponse:
            request.session.flush()
            return HttpResponse(csrf_token(request))

        hooks.in_view = view
        new = (await browser.get("/run")).text
        assert unmasked(new) != unmasked(old)
        assert (await browser.post("/cart", {"item": "tea"}, csrf=old)).status == 403
        assert (await browser.post("/cart", {"item": "tea"}, csrf=new)).status == 200


async def test_exempt_views(browser: Browser) -> None:
    """A view with `csrf_exempt` needs no token; inside of it `csrf_protect` of the package does."""
    await browser.log_in()
    assert (await browser.post("/hook", csrf=None, Sec_Fetch_Site="cross-site")).status == 200
    assert (await browser.post("/protected-inside", csrf=None)).status == 403
    assert (await browser.post("/protected-inside", Sec_Fetch_Site="cross-site")).status == 403
    assert (await browser.post("/protected-inside")).status == 200
    assert (await browser.get("/protected-inside")).status == 200


async def test_exempt_paths(kind: type[Site], app: App) -> None:
    """A path in `CSRF_EXEMPT` needs no token."""
    async with visiting(kind, app.address, CSRF_EXEMPT=["/cart", "/async/cart"]) as browser:
        await browser.log_in()
        assert (await browser.post("/cart", {"item": "tea"}, csrf=None)).status == 200


async def test_a_trusted_origin(kind: type[Site], app: App) -> None:
    """A page of an origin in Django's `CSRF_TRUSTED_ORIGINS` may send a form with the token."""
    settings = {"CSRF_TRUSTED_ORIGINS": ["https://app.example.com", "https://*.example.org"]}
    async with visiting(kind, app.address, settings) as browser:
        await browser.log_in()
        other = {"Sec_Fetch_Site": "cross-site", "Origin": "https://app.example.com"}
        assert (await browser.post("/cart", {"item": "tea"}, **other)).status == 200
        other["Origin"] = "https://x.example.org"
        assert (await browser.post("/cart", {"item": "tea"}, **other)).status == 403


async def test_djangos_own_header_and_field_names(app: App) -> None:
    """`CSRF_HEADER_NAME` names the header, and `CSRF_FIELD` of `SESSIOND` the field."""
    async with visiting(Wsgi, app.address, {"CSRF_HEADER_NAME": "HTTP_X_XSRF_TOKEN"}, CSRF_FIELD="csrf") as browser:
        await browser.log_in()
        token = await browser.token()
        assert token is not None
        assert (await browser.post("/cart", {"item": "tea", "csrf": token}, csrf=None)).status == 200
        assert (await browser.post("/cart", {"item": "tea"}, csrf=None, X_XSRF_TOKEN=token)).status == 200
        assert (await browser.post("/cart", {"item": "tea"}, csrf=token)).status == 403


async def test_another_template_engine(app: App) -> None:
    """Engines other than Django's own, such as Jinja2, give their templates the token too, as field and as text."""
    from django.template.backends.dummy import TemplateStrings

    params = {"NAME": "strings", "DIRS": [], "APP_DIRS": False, "OPTIONS": {}}
    engine = TemplateStrings(params)
    async with visiting(Wsgi, app.address) as browser:
        await browser.log_in()
        hooks.in_view = lambda request: HttpResponse(engine.from_string("$csrf_input|$csrf_token").render({}, request))
        page = await browser.get("/run")
        assert set(browser.jar) == {"__Host-id"}
        field, _, text = page.text.partition("|")
        for token in (field.partition('value="')[2].partition('"')[0], text):
            assert (await browser.post("/cart", {"item": "tea"}, csrf=token)).status == 200


async def test_a_template_without_the_middleware() -> None:
    """A request that never passed the middleware gets Django's own token, as before."""
    from django.test import RequestFactory

    page = engines["django"].from_string("{% csrf_token %}").render({}, RequestFactory().get("/"))
    assert "csrfmiddlewaretoken" in page


def test_masks() -> None:
    """A masked token can be read again, and what is no masked token stays as it is."""
    token = Token("abcDEF_-" * 5 + "xyz")
    assert {unmasked(masked(token)) for _ in range(50)} == {token.reveal()}
    assert len({masked(token) for _ in range(50)}) == 50
    for text in ("", "x", "é" * 115, "!" * 115, token.reveal(), "x" * 115):
        assert isinstance(unmasked(text), str)
    assert unmasked("!" * 115) == "!" * 115


async def test_a_view_that_requires_a_level(browser: Browser) -> None:
    """A view with `requires(level=2)` sends a user of level 1 to the login page, and serves it after a step-up."""
    await browser.log_in()
    page = await browser.get("/secret")
    assert (page.status, "min_level=2" in page.location) == (303, True)
    script = await browser.get("/secret", Accept="application/json")
    assert (script.status, script.json["error"], script.json["min_level"]) == (401, "step_up_required", 2)
    await browser.post("/step-up")
    assert (await browser.get("/secret")).text == "the secret"
    assert (await browser.another().get("/secret")).status == 303


async def test_a_view_that_requires_a_recent_login(browser: Browser, clock: ManualClock) -> None:
    """A view with `max_age` asks for another login when the last one is too long ago."""
    await browser.log_in()
    assert (await browser.get("/recent")).status == 200
    clock.advance(5 * MINUTE)
    assert (await browser.get("/recent")).status == 303
    await browser.log_in()
    assert (await browser.get("/recent")).status == 200


async def test_a_view_for_guests_too(browser: Browser) -> None:
    """With `guests=True` guests are served, and a user must meet the requirements."""
    assert (await browser.get("/open-house")).status == 200
    await browser.log_in()
    assert (await browser.get("/open-house")).status == 303


async def test_a_view_that_requires_the_csrf_token(browser: Browser) -> None:
    """With `csrf=True` even a GET needs the token."""
    await browser.log_in()
    token = await browser.token()
    assert token is not None
    assert (await browser.get("/strict")).status == 403
    assert (await browser.get("/strict", X_CSRFToken=token)).status == 200


async def test_a_class_that_requires_a_login(browser: Browser) -> None:
    """`requires` decorates classes, synchronous and asynchronous ones."""
    assert (await browser.get("/orders/7")).status == 303
    await browser.log_in()
    assert (await browser.get("/orders/7")).text == "order 7"


async def test_a_companion_token(app: App) -> None:
    """A view can require a companion token of a purpose, whose cookie it names."""
    from sessiond_client.contrib.django import requires
    from sessiond_client.gateway import account

    @requires(companion="payment", companion_cookie="__Host-id-payment")
    def pay(request: Any) -> HttpResponse:
        return HttpResponse("paid")

    async with visiting(Wsgi, app.address) as browser:
        await browser.log_in()
        hooks.in_view = pay
        assert (await browser.get("/run")).status == 403
        names: list[str] = []

        def issue(request: Any) -> None:
            request.session.is_empty()
            request.sessiond.run(account.issue_companion(request.sessiond.exchange, "payment"))

        hooks.in_view = issue
        before = set(browser.jar)
        await browser.get("/run")
        names = sorted(set(browser.jar) - before)
        assert len(names) == 1

        @requires(companion="payment", companion_cookie=names[0])
        def pay_again(request: Any) -> HttpResponse:
            return HttpResponse("paid")

        hooks.in_view = pay_again
        assert (await browser.get("/run")).text == "paid"


async def test_the_applications_own_refusals(kind: type[Site], app: App) -> None:
    """`REFUSAL_VIEW` answers instead of the gateway, unless it returns None."""
    async with visiting(kind, app.address, REFUSAL_VIEW=f"{__name__}.refused") as browser:
        answer = await browser.get("/orders/1")
        assert (answer.status, answer.text) == (418, "login: Please log in.")
        await browser.log_in()
        assert (await browser.get("/secret")).status == 303


def refused(request: Any, refusal: Any) -> HttpResponse | None:
    if refusal.error == "step_up_required":
        return None
    return HttpResponse(f"{refusal.action.value}: {refusal.text}", status=418)


async def test_djangos_csrf_failure_view(app: App) -> None:
    """`CSRF_FAILURE_VIEW` answers a form that is refused."""
    async with visiting(Wsgi, app.address, {"CSRF_FAILURE_VIEW": f"{__name__}.csrf_failed"}) as browser:
        await browser.log_in()
        answer = await browser.post("/cart", {"item": "x"}, csrf=None)
        assert (answer.status, answer.text) == (403, "no form of ours")


def csrf_failed(request: Any, reason: str = "") -> HttpResponse:
    assert reason
    return HttpResponse("no form of ours", status=403)


async def test_exempt_views_that_make_djangos_check(browser: Browser) -> None:
    """A view that is exempt and makes Django's check itself, as in Django REST framework, accepts the header only."""
    await browser.log_in()
    token = await browser.token()
    assert token is not None
    assert (await browser.post("/own-check", csrf=None, X_CSRFToken=token)).text == "passed"
    assert (await browser.post("/own-check", csrf=None)).text == "failed"
    assert (await browser.post("/own-check", csrf=None, X_CSRFToken="made up")).text == "failed"
    forged = await browser.post("/own-check", csrf=None, X_CSRFToken=token, Sec_Fetch_Site="cross-site")
    assert forged.text == "failed"


async def test_the_response_header_of_the_application_stays(browser: Browser) -> None:
    """`Cache-Control` of the application stays if the session is not in the response, and Vary is not doubled."""
    await browser.log_in()

    def view(request: Any) -> HttpResponse:
        response = HttpResponse(request.user.username)
        response["Cache-Control"] = "max-age=60"
        response["Vary"] = "Accept, Cookie"
        return response

    hooks.in_view = view
    answer = await browser.get("/run")
    assert (answer.all("Cache-Control"), answer.all("Vary")) == (["max-age=60"], ["Accept, Cookie"])


async def test_without_the_middleware_the_error_says_so() -> None:
    """A function of the package for a request that never passed the middleware names what is missing."""
    from django.core.exceptions import ImproperlyConfigured
    from django.test import RequestFactory

    from sessiond_client.contrib.django import devices, requires

    request = RequestFactory().get("/")
    with pytest.raises(ImproperlyConfigured, match="SessiondMiddleware in MIDDLEWARE"):
        devices(request)
    with pytest.raises(ImproperlyConfigured, match="SessiondMiddleware in MIDDLEWARE"):
        requires()(lambda request: HttpResponse())(request)


async def test_async_session_methods(app: App) -> None:
    """Asynchronous forms of Django's session do in a request what the others do."""
    async with visiting(Wsgi, app.address) as browser, AsyncClient(app.address) as client:
        await browser.post("/cart", {"item": "tea"}, csrf=None)
        old = browser.jar["__Host-id"]

        def view(request: Any) -> HttpResponse:
            async def use() -> HttpResponse:
                session = request.session
                await session.aset("a", 1)
                await session.acycle_key()
                await session.asave()
                assert await session.aload() == {"cart": ["tea"], "a": 1}
                assert await session.aexists(session.session_key)
                await session.aflush()
                await session.acreate()
                return HttpResponse(str(await session.aget("cart")))

            return asyncio.run(use())

        hooks.in_view = view
        assert (await browser.get("/run")).text == "None"
        assert not (await client.validate(old)).valid


@pytest.mark.parametrize("served", [Wsgi, Asgi])  # with ASGI, Django reads a synchronous iterator before it sends it
async def test_an_event_stream_ends_with_its_session(served: type[Site], app: App) -> None:
    """An event stream ends when its session is revoked, long before it would end by itself."""

    def revoke() -> None:
        with Client(app.address) as client:
            client.revoke_all(subject=client.list_page().items[0].subject)

    async with visiting(served, app.address) as browser:
        await browser.log_in()
        hooks.in_stream = revoke
        answer = await browser.get("/orders")
    assert answer.text.startswith("data: alice\n\n")
    assert "the end" not in answer.text
