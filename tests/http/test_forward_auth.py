"""What proxies are answered over HTTP, on a real server and through a real sidecar, without a proxy."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, Authentication, ClientContext, Grant, Role, Token
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving
from tests.support.sidecars import beside

MINUTE = 60_000
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CLIENT = ClientContext(ip_address="203.0.113.9", user_agent=AGENT)
CONFIG = """
[applications.default]
preset = "owasp-low"
[applications.default.proxy]
login_path = "/signin"
ignored_paths = ["/static/"]
[applications.shop]
"""
COOKIE = "__Host-id"
ASKED = {
    "x-forwarded-method": "GET",
    "x-forwarded-uri": "/account",
    "x-forwarded-host": "app.example",
    "x-forwarded-for": "203.0.113.9",
    "accept": "text/html",
    "sec-fetch-mode": "navigate",
    "user-agent": AGENT,
}


@dataclass
class Proxy:
    """A proxy's view of a server."""

    app: App
    clock: ManualClock
    http: httpx2.AsyncClient

    async def ask(self, query: str = "", token: Token | None = None, path: str = "/check", **changed: str) -> Any:
        """Ask about a request; underscores in the names of headers are hyphens. An empty header is not sent."""
        headers = ASKED | {name.replace("_", "-"): value for name, value in changed.items()}
        if token is not None:
            headers["cookie"] = f"a=1; {COOKIE}={token.reveal()}"
        sent = {name: value for name, value in headers.items() if value}
        return await self.http.get(f"{path}?{query}" if query else path, headers=sent)

    async def login(self, **key: Any) -> Token:
        """Log a user in."""
        authentication = Authentication(level=1, methods=("pwd",))
        async with AsyncClient(self.app.address, **key) as authority:
            made = await authority.create(subject="ada", authentication=authentication, client=CLIENT)
        return made.token


def client_of(app: App) -> httpx2.AsyncClient:
    """A client of the HTTP server."""
    assert app._endpoints._http is not None
    return httpx2.AsyncClient(base_url=f"http://{app._endpoints._http.address}", trust_env=False)


@pytest.fixture(params=["authority", "sidecar"])
async def proxy(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Proxy]:
    """A proxy that asks the server itself, or a sidecar of it."""
    async with AsyncExitStack() as stack:
        if request.param == "authority":
            app = await stack.enter_async_context(
                serving(config_for(tmp_path, CONFIG, http_listen="127.0.0.1:0"), clock)
            )
            http = client_of(app)
        else:
            app = await stack.enter_async_context(serving(config_for(tmp_path, CONFIG), clock))
            near = await stack.enter_async_context(beside(app.address, tmp_path, http_listen="127.0.0.1:0"))
            assert near._http is not None
            http = httpx2.AsyncClient(base_url=f"http://{near._http.address}", trust_env=False)
        yield Proxy(app, clock, await stack.enter_async_context(http))


# What is decided


async def test_a_permission_has_everything_that_the_application_gets(proxy: Proxy) -> None:
    """A permission has the identity, and the request's cookies without that of the session."""
    answer = await proxy.ask(token=await proxy.login())
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-session-action"] == "proceed"
    assert answer.headers["x-session-subject"] == "ada"
    assert answer.headers["x-session-level"] == "1"
    assert answer.headers["cookie"] == "a=1"


async def test_cookies_of_a_guest_are_passed_on(proxy: Proxy) -> None:
    """Each permission has the cookies that the application is to get, also if nothing was asked about them."""
    for uri in ("/", "/static/a.css"):
        answer = await proxy.ask("guests=true", cookie="a=1; b=2", x_forwarded_uri=uri)
        assert (answer.status_code, answer.headers["cookie"]) == (200, "a=1; b=2")
        assert not [name for name in answer.headers if name.startswith("x-session-") and name != "x-session-action"]


async def test_a_refusal_is_the_response_for_the_client(proxy: Proxy) -> None:
    """Caddy and Traefik pass a refusal on as it is, so it is complete."""
    answer = await proxy.ask(x_forwarded_uri="/account?a=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/signin?next=/account%3Fa%3D1")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    script = await proxy.ask(accept="application/json", sec_fetch_mode="cors")
    assert (script.status_code, script.json()["error"]) == (401, "login_required")


@pytest.mark.parametrize("upgrade", [{"upgrade": "websocket"}, {"sec_websocket_version": "13"}])
async def test_a_handshake_of_another_site_is_refused(proxy: Proxy, upgrade: dict[str, str]) -> None:
    """A handshake for a WebSocket is recognized by each header that a proxy may leave, and its origin is checked."""
    token = await proxy.login()
    forged = {"sec_fetch_site": "cross-site"}
    assert (await proxy.ask(token=token, **forged)).status_code == 200
    assert (await proxy.ask(token=token, **forged, **upgrade)).status_code == 403


# How nginx gets it


async def test_nginx_gets_a_refusal_in_one_header(proxy: Proxy) -> None:
    """A refusal is exchanged by nginx for the same response that other proxies get at once, with all of its headers."""
    token = await proxy.login()
    async with AsyncClient(proxy.app.address) as authority:
        await authority.revoke(token=token)
    proxy.clock.advance(2 * MINUTE)
    direct = await proxy.ask(token=token)
    assert direct.headers.get_list("set-cookie")
    answer = await proxy.ask(token=token, path="/check/nginx")
    assert (answer.status_code, answer.content) == (401, b"")
    assert not answer.headers.get_list("set-cookie")
    refusal = {"x-session-refusal": answer.headers["x-session-refusal"]}
    response = await proxy.http.get("/check/nginx/refusal", headers=refusal)
    assert (response.status_code, response.content) == (direct.status_code, direct.content) == (303, direct.content)
    same = [pair for pair in direct.headers.multi_items() if pair[0] != "x-session-action"]
    assert response.headers.multi_items() == same


async def test_nginx_gets_each_cookie_in_a_header_of_its_own(proxy: Proxy) -> None:
    """The cookies of a permission are numbered, because nginx cannot take several headers of one name."""
    token = await proxy.login()
    for _ in range(4):
        proxy.clock.advance(16 * MINUTE)
        answer = await proxy.ask(token=token, path="/check/nginx")
    assert answer.headers["x-session-set-cookie-1"].startswith(f"{COOKIE}=")
    assert "set-cookie" not in answer.headers
    assert "x-session-set-cookie-2" not in answer.headers
    assert answer.headers["vary"] == "Cookie"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "said",
    [
        None,
        b"garbage",
        [200, [], "let in"],
        [303, [["location", "/\r\nset-cookie: a=1"]], ""],
        [303, [["loca tion", "/"]], ""],
        [303, [["location"]], ""],
        [303, None, ""],
        ["303", [], ""],
        [403, [], None],
        [403, []],
        403,
    ],
)
async def test_a_wrong_refusal_lets_nobody_pass(proxy: Proxy, said: Any) -> None:
    """What is no refusal of this server is answered with 403, and never with a permission."""
    headers = {}
    if said is not None:
        raw = said if isinstance(said, bytes) else urlsafe_b64encode(json.dumps(said).encode())
        headers["x-session-refusal"] = raw.decode()
    response = await proxy.http.get("/check/nginx/refusal", headers=headers)
    assert (response.status_code, response.text) == (403, "Forbidden.\n")


async def test_a_refusal_holds_no_more_than_the_response(proxy: Proxy) -> None:
    """The header with a refusal has status, headers and body, and nothing of the request."""
    answer = await proxy.ask(path="/check/nginx", cookie=f"{COOKIE}=secret")
    status, headers, body = json.loads(urlsafe_b64decode(answer.headers["x-session-refusal"]))
    assert status == 303
    assert "secret" not in json.dumps([headers, body])


# Proxies that are not set up as they must be


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"x_forwarded_uri": ""}, "x-forwarded-uri: must be set once by the proxy"),
        ({"x_forwarded_uri": "*"}, "x-forwarded-uri: must be the path that the client asked for"),
        ({"x_forwarded_method": ""}, "x-forwarded-method: must be set once by the proxy"),
        ({"x_forwarded_host": ""}, "x-forwarded-host: must be set once by the proxy"),
        ({"x_forwarded_for": ""}, "x-forwarded-for: must be set once by the proxy"),
        ({"x_forwarded_for": "203.0.113.66, 203.0.113.9"}, "x-forwarded-for: must be the client's address alone"),
        ({"x_forwarded_for": "unknown"}, "x-forwarded-for: must be the client's address alone"),
        ({"query": "level=4"}, 'level: must be 0, 1, 2 or 3, not "4"'),
        ({"query": "leve=2"}, "leve: no such setting of a route"),
        ({"query": "guests=true&guests=false"}, "guests: is there twice"),
        ({"query": "level"}, "query: must be settings of a route such as level=2&max_age=15m"),
        ({"query": "application=nobody"}, 'application: unknown application "nobody"'),
    ],
)
@pytest.mark.parametrize("path", ["/check", "/check/nginx"])
async def test_wrong_questions_let_nobody_pass(
    proxy: Proxy, capsys: pytest.CaptureFixture[str], path: str, changed: dict[str, Any], reason: str
) -> None:
    """A question that the proxy does not ask as it must is answered with 500, and the log has the reason once."""
    token = await proxy.login()
    for _ in range(2):
        answer = await proxy.ask(token=token, path=path, **changed)
        assert answer.status_code == 500
        assert "x-session-subject" not in answer.headers
    lines = [line for line in capsys.readouterr().out.splitlines() if "proxy refused" in line]
    assert len(lines) == 1
    assert reason in lines[0].replace("\\", "")


async def test_a_header_that_is_there_twice_counts_as_wrong(proxy: Proxy) -> None:
    """A proxy that adds its header to the client's, instead of replacing it, lets nobody pass."""
    token = await proxy.login()
    cookie = {"cookie": f"{COOKIE}={token.reveal()}"}
    for name in ("x-forwarded-method", "x-forwarded-uri", "x-forwarded-host", "x-forwarded-for"):
        twice = [*(ASKED | cookie).items(), (name, ASKED[name])]
        assert (await proxy.http.get("/check", headers=twice)).status_code == 500


async def test_a_client_cannot_say_what_its_route_requires(proxy: Proxy) -> None:
    """Neither the query of the client's own request nor a header changes what the route requires."""
    assert (await proxy.ask(x_forwarded_uri="/account?guests=true")).status_code == 303
    assert (await proxy.ask(x_session_require="guests=true")).status_code == 303


# Who may ask


async def test_a_proxy_needs_a_key_if_there_are_callers(proxy: Proxy) -> None:
    """With callers, only a proxy with the key of a validator of the application is answered, whatever clients send."""
    async with AsyncClient(proxy.app.address) as anyone:
        ops = (await anyone.create_caller("ops", [Grant(role=Role.ADMIN)])).key
    async with AsyncClient(proxy.app.address, key=ops) as admin:
        own = (await admin.create_caller("nginx", [Grant(application="default", role=Role.VALIDATOR)])).key
        other = (await admin.create_caller("caddy", [Grant(application="shop", role=Role.VALIDATOR)])).key
        reader = (await admin.create_caller("reader", [Grant(application="default", role=Role.SUBSCRIBER)])).key
    token = await proxy.login(key=ops)
    good = f"Bearer {own.reveal()}"
    assert (await proxy.ask(token=token, x_session_key=good)).status_code == 200
    # The client's own header is not the proxy's.
    assert (await proxy.ask(token=token, x_session_key=good, authorization="Bearer wrong")).status_code == 200
    wrong: dict[str, Any]
    for wrong in (
        {},
        {"authorization": good},
        {"x_session_key": own.reveal()},
        {"x_session_key": f"{good}x"},
        {"x_session_key": f"Bearer {other.reveal()}"},
        {"x_session_key": f"Bearer {reader.reveal()}"},
    ):
        for uri in ("/account", "/static/a.css"):
            for path in ("/check", "/check/nginx"):
                answer = await proxy.ask(token=token, path=path, x_forwarded_uri=uri, **wrong)
                assert answer.status_code == 500, (wrong, uri)
    refusal = urlsafe_b64encode(json.dumps([303, [["location", "/"]], ""]).encode()).decode()
    for key, status in (("", 403), (good, 303)):
        headers = {"x-session-refusal": refusal} | ({"x-session-key": key} if key else {})
        assert (await proxy.http.get("/check/nginx/refusal", headers=headers)).status_code == status
    assert (await proxy.http.get("/healthz")).status_code == 200


async def test_refused_proxies_are_in_the_audit_log(tmp_path: Path, clock: ManualClock) -> None:
    """A question without a key, or with that of another role, has a line in the audit log, without the key."""
    file = tmp_path / "audit.log"
    config = config_for(tmp_path, CONFIG, http_listen="127.0.0.1:0", log_audit_file=file)
    async with serving(config, clock) as app, client_of(app) as http:
        proxy = Proxy(app, clock, http)
        async with AsyncClient(app.address) as anyone:
            ops = (await anyone.create_caller("ops", [Grant(role=Role.ADMIN)])).key
        async with AsyncClient(app.address, key=ops) as admin:
            reader = (await admin.create_caller("reader", [Grant(application="shop", role=Role.SUBSCRIBER)])).key
        await proxy.ask()
        await proxy.ask("application=shop", x_session_key=f"Bearer {reader.reveal()}")
    text = file.read_text(encoding="utf-8")
    lines = [line for line in map(json.loads, text.splitlines()) if line["action"] == "Check"]
    assert [(line["outcome"], line["actor"], line["application"]) for line in lines] == [
        ("UNAUTHENTICATED", "", ""),
        ("PERMISSION_DENIED", "reader", "shop"),
    ]
    assert lines[0]["from"].startswith("ipv4:127.0.0.1:")
    assert reader.reveal() not in text


async def test_the_limits_on_calls_hold_here_too(tmp_path: Path, clock: ManualClock) -> None:
    """A proxy beyond the rate of its caller gets 503 with a time, and lets no request pass."""
    limits = "\n[limits]\nrate_per_caller = 2\nburst = '1s'\n"
    config = config_for(tmp_path, CONFIG + limits, http_listen="127.0.0.1:0")
    async with serving(config, clock) as app, client_of(app) as http:
        proxy = Proxy(app, clock, http)
        answers = [await proxy.ask("guests=true") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert "x-session-action" not in refused.headers
