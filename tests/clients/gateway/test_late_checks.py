"""What a framework asks of an exchange that it opened before it knew the view, and after a failure."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Mapping

import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, ResourceExhausted, Unavailable
from sessiond_client.gateway import Action, Exchange, Gateway, GatewaySettings, WebRequest, routes, run_async

ORIGIN = "https://shop.example"


class Site:
    """A session of a user, and the requests of its browser."""

    def __init__(self, client: AsyncClient, token: str, csrf: str) -> None:
        self.client, self.token, self.csrf = client, token, csrf
        self.gateway = Gateway(settings=GatewaySettings(csrf_exempt=["/hook"]))

    async def opened(self, csrf: str | None, *, method: str = "POST", path: str = "/", **headers: str) -> Exchange:
        """An exchange that was opened without the check of the CSRF token."""
        given: Mapping[str, str] = {"cookie": f"__Host-id={self.token}", **headers}
        request = WebRequest(
            method=method,
            path=path,
            host="shop.example",
            headers=lambda name: (given[name],) if name in given else (),
            form_token=lambda: csrf,
        )
        exchange = Exchange(self.gateway, request)
        await run_async(self.client, exchange.open(csrf=False))
        assert exchange.gate() is Action.PROCEED
        return exchange


@pytest.fixture
async def site(app: App) -> AsyncIterator[Site]:
    async with AsyncClient(app.address) as client:
        created = await client.create(subject="alice")
        assert created.csrf_token is not None
        yield Site(client, created.token.reveal(), created.csrf_token.reveal())


@pytest.mark.parametrize("sent", [None, "made up"])
async def test_a_late_check_refuses(site: Site, sent: str | None) -> None:
    """A request that was opened without the CSRF check is refused by a later check if its token is missing or wrong."""
    exchange = await site.opened(sent)
    assert await run_async(site.client, routes.check_csrf(exchange)) is Action.CSRF_ERROR


async def test_a_late_check_of_another_site(site: Site) -> None:
    """A later check refuses a request of another site even if it has the token."""
    exchange = await site.opened(site.csrf, origin="https://evil.example")
    assert await run_async(site.client, routes.check_csrf(exchange)) is Action.CSRF_ERROR


async def test_a_late_check_keeps_what_was_changed(site: Site) -> None:
    """With the session's token a later check passes, and keeps what was written before it."""
    exchange = await site.opened(site.csrf, origin=ORIGIN)
    exchange.values["cart"] = ["tea"]
    assert await run_async(site.client, routes.check_csrf(exchange)) is Action.PROCEED
    assert dict(exchange.values) == {"cart": ["tea"]}


async def test_a_late_check_of_an_earlier_token(site: Site) -> None:
    """A token that is not the session's current one is compared by the authority, which knows of earlier ones."""
    exchange = await site.opened("from another tab")
    steps = routes.check_csrf(exchange)
    asked = next(steps)
    assert asked.method == "validate"
    with pytest.raises(StopIteration) as done:
        steps.send(await site.client.validate(site.token))  # as if the authority remembered it
    assert done.value.value is Action.PROCEED


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/hook")])
async def test_a_late_check_of_what_needs_none(site: Site, method: str, path: str) -> None:
    """A safe method and an exempt path need no CSRF token in a later check either."""
    exchange = await site.opened(None, method=method, path=path)
    assert await run_async(site.client, routes.check_csrf(exchange)) is Action.PROCEED


async def test_a_limit_says_when_to_come_back(site: Site) -> None:
    """If the application is at its limit on calls, the response is 503 with the time that the authority named."""
    exchange = await site.opened(site.csrf)
    limit = ResourceExhausted("too many", retry_after=7.2, setting="limits.rate_per_caller")
    refusal = exchange.refusal(exchange.failed(limit))
    assert (refusal.status, refusal.error, dict(refusal.headers)) == (503, "unavailable", {"Retry-After": "8"})


async def test_after_a_failure_no_cookie_is_sent(site: Site) -> None:
    """If the authority fails after the validation, the response has no cookie, not even a renewed one."""
    exchange = await site.opened(site.csrf)
    exchange._outgoing.validated(
        [("Set-Cookie", "__Host-id=renewed")]
    )  # as a validation that renewed the token leaves it
    assert exchange.failed(Unavailable("down")) is Action.RETRY_LATER
    assert exchange.failure is not None
    assert [name for name, _ in exchange.headers() if name == "Set-Cookie"] == []


async def test_no_frame_of_the_gateway_holds_the_cookie(site: Site) -> None:
    """The frames of a traceback, whose variables an error page shows, hold the cookie in no variable."""
    site.gateway = Gateway("no-such-application")
    with pytest.raises(ValueError, match="no-such-application") as raised:
        await site.opened(None)
    shown = [
        repr(frame.f_locals)
        for frame, _ in traceback.walk_tb(raised.tb)
        if "sessiond_client" in frame.f_code.co_filename
    ]
    assert shown
    assert not any(site.token in text for text in shown)
