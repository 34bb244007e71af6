"""What a request costs, how it is seen, and what its response gets."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, request, session
from werkzeug.routing import BaseConverter

from sessiond.app import App
from sessiond_client import AsyncClient, ClientContext, EventType
from sessiond_client.contrib.flask import Refused, csrf_exempt, requires
from sessiond_client.gateway import TrustedProxies
from tests.clients.contrib.flask.site import AGENT, Browser, Calls, running
from tests.support.clock import ManualClock

MINUTE = 60_000


async def test_a_request_costs_one_question(browser: Browser, calls: Calls) -> None:
    """A request with a session costs one call, data and CSRF token included, whatever the page reads."""
    await browser.post("/cart?item=tea")
    await browser.log_in()
    calls.take()
    for path in ("/", "/plain", "/cart", "/form", "/account"):
        assert (await browser.get(path)).status_code == 200
        assert calls.take() == ["ValidateSession"], path


async def test_a_request_costs_nothing_with_the_near_cache(app: App, calls: Calls) -> None:
    """With the near cache, which is on by default, a repeated request costs no call."""
    with running(app.address, near_cache=True, interceptors=[calls]) as site:
        browser = Browser(site)
        await browser.post("/cart?item=tea")
        client = site.extensions["sessiond"].client
        while client.near_cache.hits < 2:  # until it follows the authority and has the answer
            await browser.get("/cart")
            await asyncio.sleep(0.01)
        calls.take()
        for _ in range(5):
            assert (await browser.get("/cart")).json == {"cart": ["tea"]}
        assert calls.take() == []


async def test_a_change_is_seen_by_the_next_request_despite_the_near_cache(app: App) -> None:
    """A page that is loaded right after a change shows the change."""
    with running(app.address, near_cache=True) as site:
        browser = Browser(site)
        for number in range(20):
            await browser.post(f"/cart?item={number}")
            answer = await browser.get("/cart")
            assert answer.json == {"cart": [str(number) for number in range(number + 1)]}


async def test_a_request_without_cookies_costs_nothing(browser: Browser, calls: Calls) -> None:
    """A guest's request is answered without the authority."""
    assert (await browser.get("/")).text == "guest"
    assert (await browser.get("/none")).status_code == 404
    assert calls.take() == []


async def test_what_the_authority_sees_of_the_client(browser: Browser, app: App, clock: ManualClock) -> None:
    """Address and user agent of the connection arrive with the login, with later requests, and with the logout."""
    await browser.log_in()
    csrf = await browser.csrf()
    newer = AGENT.replace("143", "144")
    then, now = (ClientContext(ip_address="127.0.0.1", user_agent=agent) for agent in (AGENT, newer))
    async with AsyncClient(app.address) as client:
        clock.advance(10 * MINUTE)  # activity is recorded now and then
        await browser.get("/", User_Agent=newer)
        (found,) = [item async for item in client.list(subject="alice")]
        assert (found.client, found.last_client) == (then, now)
        await browser.send("POST", "/logout", {"X-CSRF-Token": csrf, "User-Agent": newer})
        (ended,) = [item async for item in client.activity("alice") if item.type is EventType.SESSION_REVOKED]
    assert ended.client == now


async def test_the_client_behind_a_proxy(app: App) -> None:
    """Behind a trusted proxy the address is the one that the proxy names, and a client's own header is not believed."""
    with running(app.address, trusted_proxies=TrustedProxies(hops=1)) as site:
        browser = Browser(site)
        await browser.log_in()
        await browser.get("/", X_Forwarded_For="203.0.113.9, 198.51.100.7")
        assert [row["ip"] for row in (await browser.get("/devices")).json or []] == ["127.0.0.1"]
        await browser.send("POST", "/login", {"X-Forwarded-For": "203.0.113.9, 198.51.100.7"})
        other = Browser(site)
        await other.send("POST", "/login?user=bob", {"X-Forwarded-For": "203.0.113.9, 198.51.100.7"})
        assert [row["ip"] for row in (await other.get("/devices")).json or []] == ["198.51.100.7"]


async def test_a_mounted_application(app: App) -> None:
    """Under a prefix, paths count as the browser asks for them: in path lists, and on the way to and from the login."""
    with running(app.address, login_path="/shop/login", csrf_exempt=["/shop/cart"]) as site:
        browser = Browser(site)
        environ = {"SCRIPT_NAME": "/shop"}
        page = await browser.send("GET", "/account?x=1", {"Accept": "text/html"}, environ=environ)
        assert page.headers["Location"] == "/shop/login?next=/shop/account%3Fx%3D1"
        await browser.log_in()
        assert (await browser.send("POST", "/cart?item=tea", environ=environ)).status_code == 200
        assert (await browser.send("POST", "/roll", environ=environ)).status_code == 403


async def test_the_headers_of_a_response(browser: Browser, site: Flask) -> None:
    """A page that used the session varies by cookie and is not stored; what the application says counts."""

    @site.get("/mine")
    def mine() -> Response:
        response = Response(str(len(session)), headers={"Cache-Control": "private, max-age=5", "Vary": "Accept"})
        response.set_cookie("theme", "dark")
        return response

    @site.get("/varied")
    def varied() -> Response:
        return Response(str(len(session)), headers={"Vary": "cookie"})

    await browser.log_in()
    theme = browser.jar.pop("theme", None)
    assert theme is None
    plain, page = await browser.get("/plain"), await browser.get("/cart")
    assert ("Vary" in plain.headers, "Cache-Control" in plain.headers) == (False, False)
    assert (page.headers["Vary"], page.headers["Cache-Control"]) == ("Cookie", "no-store")
    own = await browser.get("/mine")
    assert own.headers["Cache-Control"] == "private, max-age=5"
    assert own.headers.getlist("Vary") == ["Accept, Cookie"]
    assert own.headers.getlist("Set-Cookie") == ["theme=dark; Path=/"]
    assert (await browser.get("/varied")).headers.getlist("Vary") == ["cookie"]


async def test_cookies_of_the_application_stay(browser: Browser, site: Flask) -> None:
    """A login in a view that sets a cookie of its own sends both."""

    @site.post("/both")
    def both() -> Response:
        from sessiond_client.contrib.flask import login

        login("alice")
        response = Response("ok")
        response.set_cookie("theme", "dark")
        return response

    await browser.send("POST", "/both")
    assert {line.partition("=")[0] for line in browser.seen} == {"theme", "__Host-id"}


class _Upload(io.BytesIO):
    """The body of a request, which notes whether anything was read."""

    touched = False

    def read(self, *size: Any) -> bytes:
        self.touched = True
        return super().read(*size)


@pytest.fixture
def uploads(site: Flask) -> Flask:
    """The site with a view that streams what it gets."""

    @site.post("/upload")
    def upload() -> dict[str, int]:
        return {"bytes": sum(len(chunk) for chunk in iter(lambda: request.stream.read(1000), b""))}

    return site


async def test_an_upload_with_the_token_in_the_header_is_not_read(browser: Browser, uploads: Flask) -> None:
    """If the header has the CSRF token, the view gets the body as it came, even if it looks like a form."""
    csrf = await browser.csrf()
    for kind in ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/octet-stream"):
        body: dict[str, Any] = {
            "input_stream": io.BytesIO(b"--x\r\n" * 1000),
            "content_type": kind,
            "content_length": 5000,
        }
        answer = await browser.send("POST", "/upload", {"X-CSRF-Token": csrf}, **body)
        assert answer.json == {"bytes": 5000}


async def test_a_refused_upload_is_not_read(browser: Browser, uploads: Flask) -> None:
    """A request from another site, and one with a wrong token in the header, are refused without reading the body."""
    await browser.csrf()
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"X-CSRF-Token": "wrong"}):
        stream = _Upload(b"a=b" * 1000)
        kind = "application/x-www-form-urlencoded"
        answer = await browser.send(
            "POST", "/upload", headers, input_stream=stream, content_type=kind, content_length=3000
        )
        assert (answer.status_code, stream.touched) == (403, False)


async def test_a_body_that_is_no_form_is_left_to_the_view(browser: Browser, site: Flask, uploads: Flask) -> None:
    """Looking for the token in the form does not consume a body that is none: a guest's upload arrives whole."""

    @site.post("/open")
    @csrf_exempt
    def unguarded() -> Any:
        return upload_view()

    upload_view = site.view_functions["upload"]
    csrf = await browser.csrf()
    kind = "application/json"
    body: dict[str, Any] = {"input_stream": io.BytesIO(b"{}" * 2500), "content_type": kind, "content_length": 5000}
    assert (await browser.send("POST", "/upload", **body)).status_code == 403
    body["input_stream"] = io.BytesIO(b"{}" * 2500)
    assert (await browser.send("POST", "/open", **body)).json == {"bytes": 5000}
    assert csrf


async def test_the_token_in_a_form(browser: Browser) -> None:
    """The CSRF token arrives in the field of a form, of either kind."""
    csrf = await browser.csrf()
    kinds: list[dict[str, Any]] = [{}, {"content_type": "multipart/form-data"}]
    for more in kinds:
        assert (await browser.send("POST", "/cart?item=x", data={"csrf_token": csrf}, **more)).status_code == 200
    assert (await browser.send("POST", "/cart?item=x", data={"csrf_token": "x" + csrf})).status_code == 403


async def test_a_form_that_is_too_large(app: App, calls: Calls) -> None:
    """A form over the application's limit is a 413, and the session and its cookie stay as they are."""
    with running(app.address, interceptors=[calls]) as site:
        site.config["MAX_CONTENT_LENGTH"] = 100

        @site.errorhandler(413)
        def too_large(error: Exception) -> tuple[str, int]:
            session["noted"] = True
            return "too large", 413

        browser = Browser(site)
        await browser.log_in()
        answer = await browser.send("POST", "/cart?item=x", data={"text": "x" * 200})
        assert (answer.status_code, answer.text, browser.seen) == (413, "too large", [])
        assert (await browser.get("/")).text == "alice"


async def test_the_gate_is_before_everything(app: App) -> None:
    """A refused request reaches neither a function that was registered before sessiond nor one of a blueprint."""
    ran: list[str] = []
    site = Flask("early")
    site.before_request(lambda: ran.append("app"))
    site.url_value_preprocessor(lambda endpoint, values: ran.append("values"))
    part = Blueprint("part", "part")
    part.before_request(lambda: ran.append("part"))
    part.add_url_rule("/part", "view", lambda: "ok", methods=["POST"])
    with running(app.address, site):
        site.register_blueprint(part)
        browser = Browser(site)
        assert (await browser.send("POST", "/part", {"Sec-Fetch-Site": "cross-site"})).status_code == 403
        assert ran == []
        assert (await browser.send("POST", "/part")).status_code == 200
        assert ran == ["values", "app", "part"]


async def test_a_view_that_needs_no_csrf_token(browser: Browser) -> None:
    """A view marked `csrf_exempt` serves requests from elsewhere, as part of the session if there is one."""
    await browser.log_in()
    answer = await browser.send("POST", "/hook", {"Origin": "https://elsewhere.example"})
    assert answer.json == {"subject": "alice"}
    assert (await browser.send("POST", "/roll", {"Origin": "https://elsewhere.example"})).status_code == 403


async def test_a_url_converter_that_reads_the_session(app: App, calls: Calls) -> None:
    """A converter may read the session before the view is known; a view that needs no CSRF token still needs none."""
    site = Flask("converting")

    class Mine(BaseConverter):
        def to_python(self, value: str) -> str:
            return f"{session.get('prefix', '')}{value}"

    site.url_map.converters["mine"] = Mine
    site.add_url_rule("/set", "set", lambda: session.update(prefix="my-") or "ok")
    site.add_url_rule("/hook/<mine:name>", "hook", csrf_exempt(lambda name: name), methods=["POST"])
    site.add_url_rule("/page/<mine:name>", "page", lambda name: name)
    with running(app.address, site, interceptors=[calls]):
        browser = Browser(site)
        await browser.get("/set")
        calls.take()
        assert (await browser.get("/page/x")).text == "my-x"
        assert calls.take() == ["GetAuthority", "ValidateSession"]
        assert (await browser.send("POST", "/hook/x", {"Origin": "https://elsewhere.example"})).status_code == 200
        assert calls.take() == ["ValidateSession"]


async def test_an_asynchronous_view(app: App) -> None:
    """`requires` works on views that are coroutines, if Flask can run them."""
    pytest.importorskip("asgiref")
    site = Flask("asynchronous")

    @site.get("/page")
    @requires()
    async def page() -> str:
        return "page"

    with running(app.address, site):
        assert (await Browser(site).get("/page")).status_code == 401


async def test_an_application_answers_refusals_itself(app: App, tmp_path: Path) -> None:
    """A handler of the application, or of a blueprint, for `Refused` replaces ours, whenever it was registered."""
    for early in (True, False):
        site = Flask("own")
        part = Blueprint("part", "part")

        @part.errorhandler(Refused)
        def of_part(error: Refused) -> tuple[str, int]:
            return f"part: {error.action.value}", 418

        part.add_url_rule("/part", "view", requires()(lambda: "ok"))
        site.add_url_rule("/page", "page", requires()(lambda: "ok"))

        def of_site(error: Refused) -> tuple[str, int]:
            return f"site: {error.refusal.error}", 418

        if early:
            site.register_error_handler(Refused, of_site)
        with running(app.address, site):
            if not early:
                site.register_error_handler(Refused, of_site)
            site.register_blueprint(part)
            browser = Browser(site)
            assert (await browser.get("/part")).text == "part: login"
            assert (await browser.get("/page")).text == "site: login_required"
