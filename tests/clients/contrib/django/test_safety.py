"""What the adapter does against attacks and failures without the application doing anything."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse

from sessiond.app import App
from sessiond_client import AsyncClient, Verdict
from sessiond_client.contrib.django.configuration import project
from tests.clients.contrib.django.shop import hooks
from tests.clients.contrib.django.site import Browser, Site, Wsgi, visiting
from tests.support.clock import ManualClock
from tests.support.programs import start_program
from tests.support.server import config_for, serving

MINUTE = 60_000


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "", "Origin": "https://evil.example"},
        {"Sec_Fetch_Site": "", "Origin": "https://localhost.evil.example"},
        {"Sec_Fetch_Site": "", "Origin": "null"},
    ],
    ids=["cross-site", "same-site", "origin", "similar origin", "null origin"],
)
async def test_a_form_of_another_site(browser: Browser, headers: dict[str, str]) -> None:
    """A page of another site cannot change anything, not even with the right CSRF token: 403, never the login page."""
    await browser.log_in()
    answer = await browser.post("/cart", {"item": "forged"}, **headers)
    assert (answer.status, answer.all("Location"), answer.all("Set-Cookie")) == (403, [], [])
    assert (await browser.get("/cart")).json == {"user": "alice", "cart": []}


async def test_a_login_form_of_another_site(browser: Browser) -> None:
    """A page of another site cannot log the browser in, even if it has no cookie yet."""
    answer = await browser.post("/login", {"user": "bob", "password": "teapot"}, csrf=None, Sec_Fetch_Site="cross-site")
    assert (answer.status, browser.jar) == (403, {})


@pytest.mark.parametrize("csrf", [None, "made up", "x" * 115], ids=["missing", "wrong", "wrong and long"])
async def test_a_form_without_the_token(browser: Browser, csrf: str | None) -> None:
    """Without the session's CSRF token a form is refused with 403, in the browser and in a script."""
    await browser.log_in()
    assert (await browser.post("/cart", {"item": "forged"}, csrf=csrf)).status == 403
    script = await browser.post("/cart", {"item": "forged"}, csrf=csrf, Accept="application/json")
    assert (script.status, script.json["error"]) == (403, "csrf_failed")
    assert (await browser.get("/cart")).json["cart"] == []


async def test_the_token_of_another_session(browser: Browser) -> None:
    """The CSRF token of another session is worthless."""
    await browser.log_in()
    mallory = browser.another()
    await mallory.log_in("bob")
    assert (await browser.post("/cart", {"item": "forged"}, csrf=await mallory.token())).status == 403


async def test_a_refused_form_is_no_activity(browser: Browser, app: App, clock: ManualClock) -> None:
    """A forged request does not keep the session alive."""
    await browser.log_in()
    token = browser.jar["__Host-id"]
    async with AsyncClient(app.address) as client:
        before = (await client.get(token=token)).session
        clock.advance(10 * MINUTE)
        assert (await browser.post("/cart", {"item": "forged"}, csrf=None)).status == 403
        after = (await client.get(token=token)).session
    assert before is not None
    assert after is not None
    assert before.last_active_time == after.last_active_time


async def test_a_form_in_another_tab_survives_a_step_up(browser: Browser) -> None:
    """A form that was loaded before a step-up in another tab is good after it."""
    await browser.log_in()
    form = await browser.token()
    await browser.post("/step-up")
    assert (await browser.post("/cart", {"item": "tea"}, csrf=form)).json["cart"] == ["tea"]


async def test_a_form_from_before_the_login(browser: Browser) -> None:
    """A form that was loaded before the login is worthless after it: who planted the guest's session knows it."""
    form = await browser.token()
    await browser.log_in()
    assert (await browser.post("/cart", {"item": "forged"}, csrf=form)).status == 403


async def test_a_planted_guest_session(browser: Browser) -> None:
    """The token of a guest's session that an attacker planted is worthless after the login."""
    attacker = browser.another()
    await attacker.token()
    browser.jar = dict(attacker.jar)
    await browser.log_in()
    assert (await attacker.get("/cart")).json["user"] == ""
    assert browser.jar != attacker.jar


async def test_a_planted_session_of_the_attacker(browser: Browser) -> None:
    """If the attacker planted a session of his own, the victim's login ends it, and takes nothing from it."""
    attacker = browser.another()
    await attacker.log_in("bob")
    await attacker.post("/cart", {"item": "planted"})
    browser.jar = dict(attacker.jar)
    await browser.log_in()
    assert (await browser.get("/cart")).json == {"user": "alice", "cart": []}
    assert (await attacker.get("/cart")).json["user"] == ""


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example", "/\t/evil.example"])
async def test_an_open_redirect(browser: Browser, target: str) -> None:
    """After a login the browser is sent to a path of this site only."""
    assert (await browser.log_in(path=f"/login?next={target}")).location == "/"


async def test_the_way_back_after_a_login(browser: Browser) -> None:
    """A page that needs a login sends the browser to the login page, and from there it comes back."""
    answer = await browser.get("/orders/7?sort=date&page=2")
    assert answer.status == 303
    assert answer.location.startswith("/login?next=")
    script = await browser.get("/orders/7", Accept="application/json")
    assert (script.status, script.json["error"]) == (401, "login_required")
    back = await browser.log_in(path=answer.location)
    assert (await browser.get(back.location.removeprefix(browser.site.prefix))).text == "order 7"


async def test_a_header_in_the_way_back(browser: Browser) -> None:
    """Line ends in the path of a request, or in the target of a login, add no header to a response."""
    answer = await browser.get("/orders/7?x=%0d%0aSet-Cookie:%20evil=1")
    assert answer.status == 303
    assert all("\r" not in value and "\n" not in value for _, value in answer.headers)
    answer = await browser.log_in(path="/login?next=/%0d%0aSet-Cookie:%20evil=1")
    assert (answer.location, "evil" in browser.jar) == ("/", False)


async def test_a_header_in_the_cookie(browser: Browser) -> None:
    """A cookie with line ends or quotes is no token: the browser is a guest, and nothing of it comes back."""
    for value in ("x\\r\\nSet-Cookie: evil=1", '"x\\015\\012evil"', "%0d%0aevil"):
        answer = await browser.get("/cart", Cookie=f"__Host-id={value}")
        assert (answer.status, answer.json["user"]) == (200, "")
        assert not any("evil" in header for _, header in answer.headers)


async def test_two_cookies_of_one_name(browser: Browser) -> None:
    """With two session cookies of one name nobody can tell whose request it is: a guest, and 400 for a form."""
    await browser.log_in()
    token = await browser.token()
    attacker = browser.another()
    await attacker.log_in("bob")
    for first, second in ((browser, attacker), (attacker, browser)):
        both = f"__Host-id={first.jar['__Host-id']}; __Host-id={second.jar['__Host-id']}"
        answer = await browser.get("/cart", Cookie=both)
        assert (answer.json["user"], answer.all("Set-Cookie")) == ("", [])
        assert (await browser.post("/cart", {"item": "x"}, csrf=token, Cookie=both)).status == 400


async def until_a_renewal_is_due(browser: Browser, clock: ManualClock) -> None:
    """Let time pass with a request now and then. The next request renews the token."""
    for _ in range(2):
        clock.advance(25 * MINUTE)
        assert (await browser.get("/cart")).status == 200
    clock.advance(15 * MINUTE)


async def test_a_renewal(browser: Browser, clock: ManualClock) -> None:
    """When a renewal is due, the response has the new token, and no cache keeps it."""
    await browser.log_in()
    await until_a_renewal_is_due(browser, clock)
    old = browser.jar["__Host-id"]
    answer = await browser.get("/cart")
    assert browser.jar["__Host-id"] != old
    (cache_control,) = answer.all("Cache-Control")
    assert {"no-store", "private"} <= {item.strip() for item in cache_control.split(",")}
    assert answer.all("Vary") == ["Cookie"]
    clock.advance(2 * MINUTE)
    assert (await browser.get("/cart")).json["user"] == "alice"


async def test_a_late_response_leaves_the_cookie_alone(kind: type[Site], app: App, clock: ManualClock) -> None:
    """A response that begins long after its validation does not send the renewed token: a newer one may be there."""
    async with visiting(kind, app.address, LATE_AFTER=60.0) as browser:
        await browser.log_in()
        await until_a_renewal_is_due(browser, clock)

        def dawdle(request: Any) -> HttpResponse:
            user = request.user.username
            gateway = project().gateway
            gateway.clock = lambda: time.monotonic() + 61  # as if so many seconds had passed
            return HttpResponse(user)

        hooks.in_view = dawdle
        answer = await browser.get("/run")
        project().gateway.clock = time.monotonic
        assert (answer.text, answer.all("Set-Cookie")) == ("alice", [])
        hooks.in_view = lambda request: HttpResponse(request.user.username)
        answer = await browser.get("/run")
        assert (answer.text, len(answer.all("Set-Cookie"))) == ("alice", 1)


@pytest.fixture
async def outage(kind: type[Site], app: App) -> AsyncIterator[Browser]:
    """A browser of a user, while the authority is out of reach. `/plain` and `/cart` are public."""
    options: dict[str, Any] = {"TIMEOUT": 5.0, "RETRIES": 0, "PUBLIC_PATHS": ["/plain", "/cart", "/async/cart"]}
    async with visiting(kind, app.address, **options) as browser:
        await browser.log_in()
        await app.stop()
        yield browser


async def test_an_outage(outage: Browser, app: App, caplog: pytest.LogCaptureFixture) -> None:
    """While the authority is out of reach a request with a session gets 503 with Retry-After, and keeps its cookie.
    The log says why, once.
    """
    cookie = dict(outage.jar)
    for answer in (await outage.get("/"), await outage.post("/logout", csrf="x"), await outage.get("/orders/1")):
        assert (answer.status, answer.all("Retry-After"), answer.all("Set-Cookie")) == (503, ["2"], [])
    script = await outage.get("/", Accept="application/json")
    assert (script.status, script.json["error"]) == (503, "unavailable")
    assert outage.jar == cookie
    assert caplog.text.count(f"no answer from sessiond at {app.address}: ") == 1


async def test_public_pages_during_an_outage(outage: Browser) -> None:
    """During an outage public pages are served as for a guest, and pages that use no session as ever."""
    assert (await outage.get("/cart")).json == {"user": "", "cart": []}
    assert (await outage.get("/plain")).status == 200
    assert "__Host-id" in outage.jar
    assert (await outage.another().get("/cart")).status == 200


async def test_a_login_during_an_outage(outage: Browser) -> None:
    """A login during an outage is answered with 503, and the application's error page is not involved."""
    fresh = outage.another()
    answer = await fresh.post("/login", {"user": "alice", "password": "teapot"}, csrf=None)
    assert (answer.status, answer.all("Retry-After"), fresh.jar) == (503, ["2"], {})


async def test_requests_during_an_outage_do_not_pile_up(kind: type[Site], app: App) -> None:
    """After the first failure, twenty requests at once are refused with fewer calls than there are requests."""
    async with visiting(kind, app.address, TIMEOUT=5.0) as browser:
        await browser.log_in()
        await app.stop()
        assert (await browser.get("/")).status == 503
        browser.site.calls.clear()
        answers = await asyncio.gather(*(browser.copy().get("/") for _ in range(20)))
        assert {answer.status for answer in answers} == {503}
        assert browser.site.calls.total() < 20  # each alone would make five: the first one, and four retries


async def test_an_outage_while_a_view_runs(kind: type[Site], app: App, clock: ManualClock) -> None:
    """If the authority fails after the validation, what the view changed is lost: 503, without a cookie."""
    async with visiting(kind, app.address, TIMEOUT=5.0, RETRIES=0) as browser:
        await browser.log_in()
        await until_a_renewal_is_due(browser, clock)
        loop, cookie = asyncio.get_running_loop(), dict(browser.jar)

        def stop(request: Any) -> None:
            request.session["cart"] = ["lost"]
            asyncio.run_coroutine_threadsafe(app.stop(), loop).result()

        hooks.in_view = stop
        answer = await browser.get("/run")
        assert (answer.status, answer.all("Set-Cookie"), browser.jar) == (503, [], cookie)


async def test_another_middleware_during_an_outage(kind: type[Site], app: App) -> None:
    """If another middleware uses the session during an outage, the response is 503 too."""
    middleware = ["sessiond_client.contrib.django.middleware.SessiondMiddleware", f"{__name__}.Curious"]
    options = {"TIMEOUT": 5.0, "RETRIES": 0}
    async with visiting(kind, app.address, {"MIDDLEWARE": middleware}, **options) as browser:
        browser.jar["__Host-id"] = "x" * 43
        await app.stop()
        answer = await browser.get("/plain")
        assert (answer.status, answer.all("Retry-After")) == (503, ["2"])


class Curious:
    """A middleware that uses the session before any view."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        request.session.get("anything")
        return self.get_response(request)


async def test_a_middleware_that_uses_the_session_first(kind: type[Site], app: App) -> None:
    """If another middleware uses the session before the view is known, a form is checked all the same."""
    middleware = ["sessiond_client.contrib.django.middleware.SessiondMiddleware", f"{__name__}.Curious"]
    middleware.append("django.contrib.auth.middleware.AuthenticationMiddleware")
    async with visiting(kind, app.address, {"MIDDLEWARE": middleware}) as browser:
        await browser.log_in()
        assert (await browser.post("/cart", {"item": "forged"}, csrf=None)).status == 403
        assert (await browser.post("/cart", {"item": "x"}, Sec_Fetch_Site="cross-site")).status == 403
        assert (await browser.post("/cart", {"item": "tea"})).json["cart"] == ["tea"]


async def test_a_locked_network(kind: type[Site], tmp_path: Path, clock: ManualClock) -> None:
    """A network that guessed tokens is refused with 429, logins included, if the policy says so."""
    text = "[applications.default.guessing]\nalarm_after = 1\nlock_after = 1\ndeny_valid = true\n"
    async with serving(config_for(tmp_path, text), clock) as app, visiting(kind, app.address) as browser:
        await browser.log_in()
        token = await browser.token()
        thief = browser.another()
        thief.jar["__Host-id"] = "guess" * 10
        await thief.get("/cart")
        for answer in (await browser.get("/cart"), await browser.post("/cart", {"item": "x"}, csrf=token)):
            assert (answer.status, answer.all("Set-Cookie")) == (429, [])
        fresh = browser.another()
        answer = await fresh.post("/login", {"user": "alice", "password": "teapot"}, csrf=None)
        assert (answer.status, fresh.jar) == (429, {})


async def test_a_suspicion_asks_for_a_step_up(kind: type[Site], tmp_path: Path, clock: ManualClock) -> None:
    """A user whose session is under suspicion is a guest until a login, and is sent to the login page."""
    text = '[applications.default.reactions]\nreported = "step-up"\n'
    async with serving(config_for(tmp_path, text), clock) as app, visiting(kind, app.address) as browser:
        await browser.log_in()
        await browser.post("/cart", {"item": "tea"})
        async with AsyncClient(app.address) as client:
            await client.report_signal(token=browser.jar["__Host-id"], reason="odd")
        assert (await browser.get("/cart")).json == {"user": "", "cart": []}
        assert (await browser.get("/orders/1")).status == 303
        copy = browser.copy()
        await browser.post("/login", {"user": "alice", "password": "teapot"}, csrf=None)
        assert (await browser.get("/cart")).json == {"user": "alice", "cart": ["tea"]}
        assert (await copy.get("/cart")).json["user"] == ""


async def test_a_logout_under_suspicion(kind: type[Site], tmp_path: Path, clock: ManualClock) -> None:
    """A logout ends a session that is under suspicion too, although the user is a guest until another login."""
    text = '[applications.default.reactions]\nreported = "step-up"\n'
    async with serving(config_for(tmp_path, text), clock) as app, visiting(kind, app.address) as browser:
        await browser.log_in()
        token = browser.jar["__Host-id"]
        async with AsyncClient(app.address) as client:
            await client.report_signal(token=token, reason="odd")
            assert (await browser.post("/logout", csrf=None)).status == 303
            assert (await client.validate(token)).verdict is Verdict.REVOKED
        assert browser.jar == {}


@pytest.mark.parametrize("debug", [True, False])
async def test_no_token_in_reports(app: App, debug: bool, caplog: pytest.LogCaptureFixture) -> None:
    """No token is in the `repr` of what a view has, in a log record, in the page of an error, or in its report."""
    from django.views.debug import ExceptionReporter

    reports: list[str] = []
    caplog.set_level(logging.DEBUG)

    def fail(request: Any) -> None:
        key = request.session.session_key
        shown = [request, request.session, request.sessiond, request.session.state, request.sessiond.exchange, key]
        reports.extend(repr(item) for item in shown)
        raise LookupError("broken")

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and hasattr(record, "request"):
                reporter = ExceptionReporter(record.request, *record.exc_info, is_email=True)
                reports.extend((reporter.get_traceback_text(), reporter.get_traceback_html()))

    keep = Keep()
    logging.getLogger("django.request").addHandler(keep)
    try:
        async with visiting(Wsgi, app.address, {"DEBUG": debug}) as browser:
            await browser.log_in()
            hooks.in_view = fail
            csrf = await browser.token()
            assert csrf is not None
            answer = await browser.post("/run", csrf=csrf)
    finally:
        logging.getLogger("django.request").removeHandler(keep)
    assert answer.status == 500
    assert any("broken" in report for report in reports)
    cookie = browser.jar["__Host-id"]
    everything = [answer.text, *reports, *(record.getMessage() for record in caplog.records), caplog.text]
    assert not any(cookie in text or csrf in text for text in everything)


async def test_no_token_in_the_repr_of_a_response(app: App) -> None:
    """The cookies of a response show no token in their `repr`, and are sent as the authority wrote them."""
    from django.test import Client as DjangoClient

    def use() -> tuple[str, str, Any]:
        response = DjangoClient(HTTP_HOST="localhost").post("/cart", {"item": "tea"}, secure=True)
        morsel = response.cookies["__Host-id"]
        return repr(response.cookies) + repr(morsel), morsel.value, morsel

    async with visiting(Wsgi, app.address):
        shown, token, morsel = await asyncio.to_thread(use)
        assert token not in shown
        assert (morsel["httponly"], morsel["secure"], morsel["path"]) == (True, True, "/")
        async with AsyncClient(app.address) as client:
            assert (await client.validate(token)).valid


async def test_a_partitioned_cookie(tmp_path: Path, clock: ManualClock) -> None:
    """Attributes that Python's cookies do not know reach the browser."""
    text = '[applications.default.cookie]\npartitioned = true\nsame_site = "None"\n'
    async with serving(config_for(tmp_path, text), clock) as app, visiting(Wsgi, app.address) as browser:
        answer = await browser.post("/cart", {"item": "tea"}, csrf=None)
        assert "; Partitioned" in answer.all("Set-Cookie")[0]
        assert (await browser.get("/cart")).json["cart"] == ["tea"]


async def test_the_client_behind_a_proxy(kind: type[Site], app: App) -> None:
    """With a trusted proxy the client's address is what the proxy says; without one its header is ignored."""
    from sessiond_client.contrib.django import TrustedProxies

    for proxies, expected in ((TrustedProxies(hops=1), "203.0.113.7"), (TrustedProxies(), "127.0.0.1")):
        async with visiting(kind, app.address, TRUSTED_PROXIES=proxies) as browser, AsyncClient(app.address) as client:
            await browser.log_in(X_Forwarded_For="198.51.100.1, 203.0.113.7")
            found = (await client.get(token=browser.jar["__Host-id"])).session
            assert found is not None
            assert found.client is not None
            assert found.client.ip_address == expected


async def test_processes_that_fork(tmp_path: Path) -> None:
    """A server that forks after it has served a request serves on in both processes."""
    script = Path(__file__).with_name("forking.py")
    async with serving(config_for(tmp_path)) as app:
        process = await start_program(
            sys.executable,
            str(script),
            app.address,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([".", "clients/python/src"])},
            cwd=Path(__file__).parents[4],
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out.decode().split()) == (0, ["parent", "child", "parent"]), err.decode()


def test_the_reporter_filter_of_the_project_is_kept() -> None:
    """A project's own filter for error reports still filters, and hides secrets too."""
    from django.test.utils import override_settings
    from django.views.debug import get_default_exception_reporter_filter

    from sessiond_client.contrib.django.middleware import SessiondMiddleware
    from sessiond_client.contrib.django.secrets import HidesTokens

    get_default_exception_reporter_filter.cache_clear()
    try:
        with override_settings(DEFAULT_EXCEPTION_REPORTER_FILTER=f"{__name__}.{ours()}"):
            found = SessiondMiddleware(lambda request: HttpResponse())._filter
            assert isinstance(found, HidesTokens)
            assert found.get_safe_settings() == {"ours": True}
    finally:
        get_default_exception_reporter_filter.cache_clear()


def ours() -> str:
    """The name of a filter of the project."""
    from django.views.debug import SafeExceptionReporterFilter

    class OursFilter(SafeExceptionReporterFilter):  # type: ignore[misc]
        def get_safe_settings(self) -> dict[str, bool]:
            return {"ours": True}

    globals()["OursFilter"] = OursFilter
    return "OursFilter"
