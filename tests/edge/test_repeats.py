"""Decisions about repeated requests: the same as new ones, whatever has changed since."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sessiond.access.limits import CallLimiter
from sessiond.app import services_of
from sessiond.config import ProxySettings
from sessiond.domain.call import Caller
from sessiond.edge.check import Decision
from sessiond.edge.decider import Decider
from sessiond.edge.routes import CsrfCheck, Route, route_of
from sessiond.proxying import decider_of
from sessiond.rpc.fast_path import RepeatedAnswer
from sessiond.rpc.giving_way import UnaryCalls
from sessiond.rpc.stream_limit import StreamBounds
from sessiond_client import AsyncClient, Authentication, ClientContext, PermissionDenied, Token
from sessiond_client.gateway.actions import Action
from sessiond_client.gateway.request import WebRequest
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

MINUTE = 60_000
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
ADDRESS = "203.0.113.9"
CONFIG = """
[applications.default]
preset = "owasp-low"
"""
CALLER = Caller("proxy")
PROXY = ProxySettings(ignored_paths=("/static/",), passive_paths=("/poll",), csrf_exempt=("/hooks/",))


@dataclass
class Site:
    """A server, and what decides for proxies in front of it."""

    clock: ManualClock
    authority: AsyncClient
    settings: dict[str, ProxySettings]
    services: Any
    policies: Any
    asked: list[int] = field(default_factory=list)

    def decider(self) -> Decider:
        """A decider that remembers nothing yet. Each question that it asks by a message is counted."""

        def counting(caller: Caller, raw: bytes) -> Any:
            self.asked.append(len(raw))
            return self.services[0].repeatable(caller, raw)

        return decider_of(self.policies, self.settings, self.services, counting, CallLimiter(), os.urandom)

    async def login(self, level: int = 1) -> Token:
        """Log a user in."""
        authentication = Authentication(level=level, methods=("pwd",))
        client = ClientContext(ip_address=ADDRESS, user_agent=AGENT)
        made = await self.authority.create(subject="ada", authentication=authentication, client=client)
        return made.token


@pytest.fixture
async def site(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Site]:
    """A site without a proxy: its decisions are asked for directly."""
    async with serving(config_for(tmp_path, CONFIG), clock) as app, AsyncClient(app.address) as authority:
        services = services_of(app.authority, StreamBounds(), UnaryCalls())
        yield Site(clock, authority, {"default": PROXY}, services, app.authority.parts.policies)


def request(token: Token | None = None, method: str = "GET", path: str = "/account", **changed: Any) -> WebRequest:
    """A browser's request. Further arguments are headers, or the peer."""
    cookie = f"theme=dark; __Host-id={token.reveal()}" if token is not None else ""
    headers = {"cookie": cookie, "user-agent": AGENT, "accept": "text/html", "sec-fetch-site": "same-origin"}
    peer = changed.pop("peer", ADDRESS)
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    return WebRequest(
        method=method,
        path=path,
        host="app.example",
        peer=peer,
        headers=lambda name: [headers[name]] if headers.get(name) else [],
        is_handshake="upgrade" in headers,
    )


async def repeated(site: Site, decider: Decider, asked: WebRequest, route: Route | None = None) -> Decision:
    """Decide about a request until it is decided without a message, and return that decision."""
    route = route or Route()
    for _ in range(2):
        first = await decider.decide(asked, route, CALLER)
    before = len(site.asked)
    again = await decider.decide(asked, route, CALLER)
    assert again == first
    assert len(site.asked) == before, "the decision was not remembered"
    return again


async def test_a_repeated_request_needs_no_message_and_is_activity(site: Site) -> None:
    """From the third request on, the decision is remembered, and each one moves the end of an idle session."""
    decider, token = site.decider(), await site.login()
    await repeated(site, decider, request(token))
    for _ in range(5):
        site.clock.advance(5 * MINUTE)
        decision = await decider.decide(request(token), Route(), CALLER)
        assert dict(decision.upstream)["x-session-subject"] == "ada"
    site.clock.advance(31 * MINUTE)
    assert (await decider.decide(request(token), Route(), CALLER)).action is Action.LOGIN


async def test_a_revocation_ends_what_is_remembered(site: Site) -> None:
    """The first request after a revocation is refused."""
    decider, token = site.decider(), await site.login()
    await repeated(site, decider, request(token))
    await site.authority.revoke(token=token)
    assert (await decider.decide(request(token), Route(), CALLER)).action is Action.LOGIN


async def test_a_stronger_login_shows_at_once(site: Site) -> None:
    """A decision that was made before the session changed does not hold after it."""
    decider, token = site.decider(), await site.login()
    await repeated(site, decider, request(token))
    rolled = await site.authority.authenticate(
        token,
        subject="ada",
        authentication=Authentication(level=2, methods=("pwd", "otp")),
        client=ClientContext(ip_address=ADDRESS, user_agent=AGENT),
    )
    assert rolled.token is not None
    decision = await repeated(site, decider, request(rolled.token), Route(level=2))
    assert dict(decision.upstream)["x-session-level"] == "2"
    old = await decider.decide(request(token), Route(), CALLER)
    assert old == await site.decider().decide(request(token), Route(), CALLER)


@pytest.mark.parametrize(
    ("changed", "route"),
    [
        ({"method": "POST", "sec_fetch_site": "cross-site"}, Route()),
        ({"upgrade": "websocket", "sec_fetch_site": "cross-site"}, Route()),
        ({}, Route(level=2)),
        ({}, Route(companion="payment")),
        ({}, route_of({"max_age": "1ms"})),
    ],
)
async def test_other_requirements_are_checked(site: Site, changed: dict[str, Any], route: Route) -> None:
    """What is remembered about a page lets no request pass that needs more, or that a page of another site sent."""
    decider, token = site.decider(), await site.login()
    await repeated(site, decider, request(token))
    site.clock.advance(1)
    for _ in range(3):
        assert (await decider.decide(request(token, **changed), route, CALLER)).action is not Action.PROCEED


async def test_what_decides_about_a_path_comes_first(site: Site) -> None:
    """A path that the settings ignore has no identity, and one that they call passive is no activity."""
    decider, token = site.decider(), await site.login()
    await repeated(site, decider, request(token))
    ignored = await decider.decide(request(token, path="/static/a.css"), Route(), CALLER)
    assert "x-session-subject" not in dict(ignored.upstream)
    for _ in range(4):
        site.clock.advance(10 * MINUTE)
        await decider.decide(request(token, path="/poll"), Route(), CALLER)
    assert (await decider.decide(request(token), Route(), CALLER)).action is Action.LOGIN


async def test_each_caller_has_decisions_of_its_own(site: Site) -> None:
    """What is remembered for one caller is asked anew for another, and not told to one that may not ask any more."""
    decider, token = site.decider(), await site.login()
    await repeated(site, decider, request(token))
    before = len(site.asked)
    assert (await decider.decide(request(token), Route(), Caller("other"))).action is Action.PROCEED
    assert len(site.asked) == before + 1
    with pytest.raises(PermissionDenied):
        await decider.decide(request(token), Route(), Caller("proxy", version=1, grants=frozenset()))


async def test_a_change_of_the_settings_is_in_force_at_once(site: Site) -> None:
    """After a reload, the application gets the session cookie if the new settings say so."""
    decider, token = site.decider(), await site.login()
    assert (await repeated(site, decider, request(token))).names_cookie
    site.settings["default"] = replace(PROXY, forward_cookie=True)
    assert not (await repeated(site, decider, request(token))).names_cookie


@pytest.mark.parametrize("forwards", [False, True])
async def test_no_token_is_remembered(site: Site, forwards: bool) -> None:
    """Nothing that a decider keeps about a request contains its token."""
    site.settings["default"] = replace(PROXY, forward_cookie=forwards)
    decider, token = site.decider(), await site.login()
    decision = await repeated(site, decider, request(token))
    kept = decider._for("default").repeats._decisions
    assert len(kept) == 1
    texts = [str(key) for key in kept] + [str((one.upstream, one.response, one.made)) for one in (decision,)]
    assert not [text for text in texts if token.reveal() in text]


async def test_long_decisions_are_not_remembered(site: Site) -> None:
    """A client with kilobytes of cookies is served, but they are not kept."""
    decider, token = site.decider(), await site.login()
    long = request(token, cookie=f"__Host-id={token.reveal()}; other={'x' * 5_000}")
    for _ in range(3):
        assert (await decider.decide(long, Route(), CALLER)).action is Action.PROCEED
    assert len(decider._for("default").repeats._decisions) == 0


async def story(site: Site, seed: int) -> int:
    """Compare remembered decisions with new ones while sessions, clients and time change.

    Returns how many were remembered.
    """
    choose = random.Random(seed)
    decider, remembered = site.decider(), 0
    tokens = [await site.login(level) for level in (1, 1, 2)]
    routes = [Route(), Route(guests=True), Route(level=2), Route(csrf=CsrfCheck.NONE), Route(csrf=CsrfCheck.TOKEN)]
    for _ in range(120):
        number = choose.randrange(len(tokens))
        match choose.randrange(12):
            case 0:
                site.clock.advance(choose.choice([1, 1_000, MINUTE, 7 * MINUTE, 16 * MINUTE]))
            case 1:
                await site.authority.revoke(token=tokens[number])
            case 2:
                tokens[number] = await site.login(choose.choice([1, 2]))
            case 3:
                await site.authority.update_data(token=tokens[number], set={"a": b"1"})
        changed: dict[str, Any] = {}
        for name, value in (("method", "POST"), ("path", "/static/x"), ("path", "/poll"), ("peer", "203.0.113.77")):
            if choose.random() < 0.08:
                changed[name] = value
        if choose.random() < 0.08:
            changed |= {"sec_fetch_site": "cross-site", "upgrade": "websocket"}
        asked, route = request(tokens[number], **changed), choose.choice(routes)
        for _ in range(choose.choice([1, 3])):
            before = len(site.asked)
            found = await decider.decide(asked, route, CALLER)
            remembered += len(site.asked) == before and "x-session-subject" in dict(found.upstream)
            assert found == await site.decider().decide(asked, route, CALLER)
    return remembered


@pytest.mark.parametrize("seed", range(6))
async def test_decisions_are_those_of_a_decider_without_memory(site: Site, seed: int) -> None:
    """Whatever clients, sessions and time do, a remembered decision is the one that would be made anew."""
    assert await story(site, seed) > 10, "hardly anything was remembered, so nothing was compared"


async def test_the_comparison_finds_decisions_that_do_not_hold(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a memory that does not ask about the session again, the same comparison fails."""
    monkeypatch.setattr(RepeatedAnswer, "is_same_again", lambda _: True)
    with pytest.raises(AssertionError, match="Decision"):
        await story(site, 0)
