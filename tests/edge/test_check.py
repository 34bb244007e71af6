"""Envoy's Check on a real server, without Envoy: what is decided, and how it is said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import grpc
import pytest
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

from sessiond.app import App
from sessiond.config import load_config
from sessiond.rpc.ext_authz import web_request
from sessiond_client import AsyncClient, Authentication, ClientContext, Token
from tests.support.certificates import Authority
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

MINUTE = 60_000
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CLIENT = ClientContext(ip_address="203.0.113.9", user_agent=AGENT)
CONFIG = """
[applications.default]
preset = "owasp-low"
[applications.default.proxy]
login_path = "/signin"
csrf_exempt = ["/hooks/"]
ignored_paths = ["/static/"]
trusted_origins = ["https://pay.example"]
[applications.keeps.proxy]
forward_cookie = true
login_path = ""
"""
COOKIE = "__Host-id"
BROWSER = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin", "user-agent": AGENT}


@dataclass
class Proxy:
    """A proxy's view of a server."""

    app: App
    clock: ManualClock
    check: Any
    authority: AsyncClient

    async def ask(self, method: str = "GET", path: str = "/", cookie: str = "", **settings: str) -> Any:
        """Ask about a request of a browser, on a route with these settings."""
        return await self.check(question(method, path, {"cookie": cookie} if cookie else {}, settings))

    async def login(self, subject: str = "ada", application: str = "default") -> Token:
        """Log a user in."""
        authentication = Authentication(level=1, methods=("pwd",))
        async with AsyncClient(self.app.address, application=application) as authority:
            made = await authority.create(subject=subject, authentication=authentication, client=CLIENT)
        return made.token


@pytest.fixture
async def proxy(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Proxy]:
    """A proxy in front of a server."""
    async with (
        serving(config_for(tmp_path, CONFIG, envoy=True), clock) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        AsyncClient(app.address) as authority,
    ):
        yield Proxy(app, clock, AuthorizationStub(channel).Check, authority)


def question(
    method: str, path: str, headers: Mapping[str, str], settings: Mapping[str, str], certificate: str = ""
) -> CheckRequest:
    """Envoy's question about a request."""
    return CheckRequest(
        attributes={
            "source": {"address": {"socket_address": {"address": "203.0.113.9"}}, "certificate": certificate},
            "request": {
                "http": {"method": method, "path": path, "host": "app.example", "headers": BROWSER | dict(headers)}
            },
            "context_extensions": settings,
        }
    )


def sent(token: Token) -> str:
    """A session cookie as browsers send it."""
    return f"{COOKIE}={token.reveal()}"


def upstream(answer: Any) -> dict[str, str]:
    """The headers that the application gets."""
    assert answer.status.code == code_pb2.OK
    return {option.header.key: option.header.value for option in answer.ok_response.headers}


def refused(answer: Any) -> tuple[int, dict[str, str]]:
    """Status and headers of a response that the client gets at once."""
    assert answer.status.code == code_pb2.PERMISSION_DENIED
    denied = answer.denied_response
    return denied.status.code, {option.header.key: option.header.value for option in denied.headers}


@pytest.mark.parametrize("subject", ["ada", "ada%0d%0a", "Ada Lovelace", "ädä\u2028", 'a,b;c="d"', "100%"])
async def test_a_subject_is_one_header_of_plain_characters(proxy: Proxy, subject: str) -> None:
    """Whatever characters a subject has, its header has printable ASCII only and decodes to exactly that subject."""
    value = upstream(await proxy.ask(cookie=sent(await proxy.login(subject))))["x-session-subject"]
    assert value.isascii()
    assert value.isprintable()
    assert unquote(value) == subject


async def test_every_identity_header_is_set_or_removed(proxy: Proxy) -> None:
    """Each answer that lets a request pass sets or removes each header in which applications trust."""
    trusted = {
        "x-session-subject",
        "x-session-id",
        "x-session-level",
        "x-session-methods",
        "x-session-application",
        "x-session-csrf-token",
    }
    cookie = sent(await proxy.login())
    for answer in (
        await proxy.ask(guests="true"),
        await proxy.ask(path="/static/a.css", cookie=cookie),
        await proxy.ask(cookie=cookie),
        await proxy.ask(cookie=cookie, csrf="token"),
        await proxy.ask(cookie=f"{COOKIE}=forged", guests="true"),
    ):
        assert upstream(answer).keys() | set(answer.ok_response.headers_to_remove) >= trusted
        assert not upstream(answer).keys() & set(answer.ok_response.headers_to_remove)


async def test_the_application_does_not_get_the_token(proxy: Proxy) -> None:
    """The session cookie is taken out of the request, and other cookies stay, unless the setting keeps it."""
    token = await proxy.login()
    alone = await proxy.ask(cookie=sent(token))
    assert "cookie" in alone.ok_response.headers_to_remove
    among = await proxy.ask(cookie=f"a=1; {sent(token)}; b=2")
    assert upstream(among)["cookie"] == "a=1; b=2"
    kept = await proxy.ask(cookie=f"a=1; {sent(await proxy.login(application='keeps'))}", application="keeps")
    assert "cookie" not in upstream(kept)
    assert "cookie" not in kept.ok_response.headers_to_remove


async def test_static_files_ask_nothing(proxy: Proxy) -> None:
    """A path that the settings ignore passes without an identity, and leaves no trace in the session's activity."""
    token = await proxy.login()
    proxy.clock.advance(20 * MINUTE)
    answer = await proxy.ask(path="/static/a.css", cookie=sent(token))
    assert "x-session-subject" not in upstream(answer)
    proxy.clock.advance(20 * MINUTE)
    assert refused(await proxy.ask(cookie=sent(token)))[0] == 303, "idle since the login"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": "4"}, 'level: must be 0, 1, 2 or 3, not "4"'),
        ({"guests": "yes"}, 'guests: must be true or false, not "yes"'),
        ({"max_age": "soon"}, 'max_age: must be a duration such as 15m, not "soon"'),
        ({"csrf": "off"}, 'csrf: must be origin, token or none, not "off"'),
        ({"companion": ""}, 'companion: must be the purpose of a companion token, such as payment, not ""'),
        ({"application": ""}, 'application: must be the name of an application of this server, not ""'),
        ({"leve": "2"}, "leve: no such setting of a route; the settings are application, companion, csrf, guests"),
        ({"application": "nobody"}, 'application: unknown application "nobody"'),
    ],
)
async def test_wrong_settings_of_a_route_let_nobody_pass(proxy: Proxy, settings: dict[str, str], message: str) -> None:
    """A route with a wrong setting fails with the name of the setting and the remedy, whatever the request."""
    cookie = sent(await proxy.login())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await proxy.ask(cookie=cookie, **settings)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.details() or "").startswith(message)


async def test_a_route_with_a_token_check_needs_the_csrf_token(proxy: Proxy) -> None:
    """With `csrf = token`, the application gets the token for its pages, and a request with effects must bring it."""
    cookie = sent(await proxy.login())
    token = upstream(await proxy.ask(cookie=cookie, csrf="token"))["x-session-csrf-token"]
    without = await proxy.check(question("POST", "/pay", {"cookie": cookie}, {"csrf": "token"}))
    assert refused(without)[0] == 403
    headers = {"cookie": cookie, "x-csrf-token": token}
    assert upstream(await proxy.check(question("POST", "/pay", headers, {"csrf": "token"})))
    headers["x-csrf-token"] = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert refused(await proxy.check(question("POST", "/pay", headers, {"csrf": "token"})))[0] == 403


async def test_pages_of_other_sites(proxy: Proxy) -> None:
    """A forged request is refused and is no activity; trusted origins, exempt paths and `csrf = none` are let in."""
    cookie = sent(await proxy.login())
    forged = {"cookie": cookie, "sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert refused(await proxy.check(question("POST", "/pay", forged, {})))[0] == 403
    partner = forged | {"origin": "https://pay.example"}
    assert upstream(await proxy.check(question("POST", "/pay", partner, {})))
    assert upstream(await proxy.check(question("POST", "/hooks/a", forged, {})))
    assert upstream(await proxy.check(question("POST", "/pay", forged, {"csrf": "none"})))
    assert upstream(await proxy.check(question("GET", "/pay", forged, {})))


async def test_a_companion_token_is_read_from_its_cookie(proxy: Proxy) -> None:
    """A route with a companion lets a request with the companion's cookie in, whatever its prefix, and no other."""
    token = await proxy.login()
    issued = await proxy.authority.issue_companion_token(token, "payment", path="/pay", client=CLIENT)
    assert issued.companion_token is not None
    companion = issued.companion_token.reveal()
    for name in ("__Secure-id-payment", "__Host-id-payment"):
        answer = await proxy.ask(path="/pay", cookie=f"{sent(token)}; {name}={companion}", companion="payment")
        assert upstream(answer)["x-session-subject"] == "ada"
    for cookies in (
        sent(token),
        f"{sent(token)}; id-payment={companion}",
        f"{sent(token)}; __Secure-id-payment={companion}; __Host-id-payment={companion}",
        f"{sent(token)}; __Secure-id-refund={companion}",
    ):
        assert refused(await proxy.ask(path="/pay", cookie=cookies, companion="payment"))[0] in (303, 403)


async def test_only_safe_requests_renew_the_cookie(proxy: Proxy) -> None:
    """A renewed cookie goes out with the next page, not with the response to an upload, which may take minutes."""
    cookie = sent(await proxy.login())
    for _ in range(4):
        proxy.clock.advance(16 * MINUTE)
        await proxy.ask(cookie=cookie)
    upload = await proxy.ask("POST", cookie=cookie)
    added = {option.header.key for option in upload.ok_response.response_headers_to_add}
    assert added == {"vary"}
    page = await proxy.ask(cookie=cookie)
    added = {option.header.key for option in page.ok_response.response_headers_to_add}
    assert added >= {"vary", "set-cookie", "cache-control"}


async def test_the_settings_change_with_a_reload(proxy: Proxy, tmp_path: Path) -> None:
    """A reload puts other settings for proxies in force and names the application; without a change it says nothing."""
    assert refused(await proxy.ask())[1]["location"].startswith("/signin?")
    file = tmp_path / "sessiond.toml"
    file.write_text(CONFIG.replace("/signin", "/enter"), encoding="utf-8")
    config = replace(proxy.app._config, proxies=load_config(file).proxies)
    assert (await proxy.app.reload(config)).changed == {"default": "proxy"}
    assert refused(await proxy.ask())[1]["location"].startswith("/enter?")
    assert (await proxy.app.reload(config)).changed == {}


async def test_without_a_login_page_there_is_401(proxy: Proxy) -> None:
    """With an empty `login_path`, pages too get 401."""
    assert refused(await proxy.ask(application="keeps"))[0] == 401


async def test_wrong_settings_of_an_application(tmp_path: Path) -> None:
    """Each wrong value in the section for proxies gets a line that names the key and a good value."""
    from sessiond.config import BadConfig

    for text, message in (
        ('login_path = "https://evil.example/"', 'must be a path of the site without query, such as "/login"'),
        ('login_path = "//evil.example"', "must be a path of the site"),
        ('trusted_origins = ["pay.example"]', "must be a list of origins (scheme, host, perhaps a port)"),
        ('trusted_origins = ["https://*.example"]', "must be a list of origins"),
        ('ignored_paths = ["static/"]', "must be a list of paths without query"),
        ('public_paths = "/"', "must be a list of paths without query"),
        ("login_page = 1", "login_path"),
    ):
        file = tmp_path / "wrong.toml"
        file.write_text(f"[applications.default.proxy]\n{text}\n", encoding="utf-8")
        with pytest.raises(BadConfig) as caught:
            load_config(file)
        assert message in str(caught.value), text


def test_two_headers_of_one_name_stay_two() -> None:
    """With raw headers, several values of one name are several, and bytes beyond ASCII do no harm."""
    headers = [
        {"key": "Cookie", "raw_value": b"a=1"},
        {"key": "cookie", "raw_value": b"b=\xff"},
        {"key": "User-Agent", "value": "x"},
    ]
    request = CheckRequest(attributes={"request": {"http": {"path": "/%2e?q=1#f", "header_map": {"headers": headers}}}})
    found = web_request(request.attributes)
    assert found.headers("cookie") == ["a=1", "b=ÿ"]
    assert (found.path, found.query, found.headers("user-agent")) == ("/.", "q=1", ["x"])


def test_the_thumbprint_is_that_of_the_clients_certificate() -> None:
    """Envoy's PEM gives SHA-256 of the DER form; what cannot be read gives something that no session is bound to."""
    import ssl

    pem = Authority("clients").client("spiffe://example.org/ada").certificate.decode()
    request = question("GET", "/", {}, {}, quote(pem))
    assert web_request(request.attributes).certificate_thumbprint == sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()
    assert web_request(question("GET", "/", {}, {}, "garbage").attributes).certificate_thumbprint == b"unreadable"
    assert web_request(question("GET", "/", {}, {}).attributes).certificate_thumbprint == b""


async def test_a_check_counts_once_for_its_application(tmp_path: Path, clock: ManualClock) -> None:
    """With one call at a time for an application, checks one after the other are answered, from memory too. Beyond a
    rate those about unknown tokens are refused as well, so a flood of these costs the application its own share only.
    """
    limits = "\n[limits]\nmax_calls_per_application = 1\nrate_per_application = 5\nburst = '1s'\n"
    async with (
        serving(config_for(tmp_path, CONFIG + limits, envoy=True), clock) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        AsyncClient(app.address) as authority,
    ):
        proxy = Proxy(app, clock, AuthorizationStub(channel).Check, authority)
        token = await proxy.login()
        for _ in range(3):
            assert upstream(await proxy.ask(cookie=sent(token)))["x-session-subject"] == "ada"
        unknown = [await proxy.ask(cookie=f"{COOKIE}={'A' * 70}", guests="true") for _ in range(20)]
    assert code_pb2.PERMISSION_DENIED in {answer.status.code for answer in unknown}
    assert {refused(answer)[0] for answer in unknown if answer.status.code} == {503}


async def test_the_id_of_the_request(proxy: Proxy) -> None:
    """A question that cannot be answered fails with the id that Envoy has given the request, unless Envoy sends one."""
    asked = question("GET", "/", {"x-request-id": "envoy-1"}, {"level": "much"})
    ids = []
    for metadata in ((), [("x-request-id", "caller-1")]):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await proxy.check(asked, metadata=metadata)
        rich, info = rpc_status.from_call(raised.value), error_details_pb2.RequestInfo()
        assert rich is not None
        assert rich.details[-1].Unpack(info)
        ids.append(info.request_id)
    assert ids == ["envoy-1", "caller-1"]
