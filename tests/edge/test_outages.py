"""What proxies do while the authority cannot answer."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sessiond.config import ProxySettings
from sessiond.domain.call import Caller
from sessiond.domain.errors import InvalidField
from sessiond.domain.policy import PRESETS, CookieRules
from sessiond.edge.decider import Decider
from sessiond.edge.local import LocalClient
from sessiond.edge.routes import Route
from sessiond_client import Unavailable
from sessiond_client.gateway.actions import Action
from sessiond_client.gateway.cookies import CookieNames
from sessiond_client.gateway.request import WebRequest

CALLER = Caller("proxy")


async def down(name: str, request: Any, caller: Caller) -> Any:
    """Respond as an authority whose store has failed."""
    raise Unavailable("the store failed")


def names(_: CookieRules) -> CookieNames:
    """The names of cookies of the preset."""
    return CookieNames("__Host-id", "__Host-id-guest")


def decider(**settings: Any) -> Decider:
    """A decider of an authority that cannot answer."""
    return Decider(
        {"default": PRESETS["owasp-low"]},
        {"default": ProxySettings(**settings)},
        lambda application, caller: LocalClient(application, caller, down),
        names,
        os.urandom,
    )


def request(path: str, method: str = "GET", cookie: str = "__Host-id=t") -> WebRequest:
    """A browser's request."""
    headers = {"cookie": [cookie], "accept": ["text/html"]}
    return WebRequest(
        method=method,
        path=path,
        query="",
        host="app.example",
        peer="203.0.113.9",
        headers=lambda name: headers.get(name, ()),
    )


@pytest.mark.parametrize("route", [Route(), Route(guests=True), Route(level=2), Route(companion="payment")])
async def test_nobody_passes(route: Route) -> None:
    """With a session cookie, no route lets a request pass: it gets 503 with a time after which to try again."""
    decision = await decider().decide(request("/account"), route, CALLER)
    assert (decision.action, decision.status) == (Action.RETRY_LATER, 503)
    assert "retry-after" in dict(decision.response)
    assert "set-cookie" not in dict(decision.response)


async def test_public_paths_are_served_as_for_guests() -> None:
    """A path that the settings call public passes without an identity, and only with a method that changes nothing."""
    decided = decider(public_paths=("/news/",))
    decision = await decided.decide(request("/news/today"), Route(guests=True), CALLER)
    assert decision.action is Action.PROCEED
    assert "x-session-subject" in decision.remove
    assert (await decided.decide(request("/account"), Route(guests=True), CALLER)).action is Action.RETRY_LATER
    assert (await decided.decide(request("/news/a"), Route(level=1), CALLER)).action is not Action.PROCEED


async def test_an_application_without_a_policy_is_wrong() -> None:
    """A route for an application that the server does not have is an error of the configuration, not an outage."""
    with pytest.raises(InvalidField, match='unknown application "shop"'):
        await decider().decide(request("/"), Route(application="shop"), CALLER)
