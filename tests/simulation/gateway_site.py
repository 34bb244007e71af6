"""The web application of the simulation once more, written with the gateway as an adapter would use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, TypeVar

from sessiond_client import Verdict
from sessiond_client.gateway import (
    OUTAGES,
    Action,
    Exchange,
    Gateway,
    GatewaySettings,
    Refused,
    RouteRequirements,
    Steps,
    WebRequest,
    account,
    routes,
    run_async,
)
from tests.simulation.bounds import SECOND
from tests.simulation.gateway_client import AuthorityClient
from tests.simulation.gateway_records import Records, Shown
from tests.simulation.site import AGAIN, COMPANION, LOGIN, PAGE, SESSION, STEP_UP, Request, Response, Site
from tests.simulation.tally import LOGOUT, Tally
from tests.simulation.wheel import Wheel

__all__ = ["GatewaySite", "gateway_of"]

T = TypeVar("T")
_HOST = "shop.example"
_POSTS = ("/save", "/upload", "/login", "/elevate", "/password", "/logout")
_SLOW_TAKES = (6 * SECOND, 40 * SECOND)
_NOTES = 0.3  # how often a part of a page notes something in the session by itself
_PAGES = {Action.LOGIN: LOGIN, Action.STEP_UP: STEP_UP, Action.COMPANION: STEP_UP}


def gateway_of(wheel: Wheel) -> Gateway:
    """Return the gateway with the settings of this site."""
    settings = GatewaySettings(login_path="/sign-in", passive_paths=["/poll"])
    return Gateway(settings=settings, clock=lambda: wheel.now / 1000)


class GatewaySite(Site):
    """The same pages. Carts are lists, to which each form adds an item with its owner's name and browser.

    Some handlers take many seconds between the validation and the response. Some parts of pages note something in the
    session by themselves, for guests too.
    """

    slow = 0.02
    """How often a handler takes many seconds."""

    def __init__(
        self, client: AuthorityClient, gateway: Gateway, wheel: Wheel, tally: Tally, random: Random, records: Records
    ) -> None:
        self._client = client
        self._gateway = gateway
        self._wheel = wheel
        self._tally = tally
        self._random = random
        self._records = records
        self._count = 0
        self._views: Mapping[str, Callable[[Exchange, Request, Any], Awaitable[Shown]]] = {
            "/": self._front,
            "/sign-in": self._front,
            "/part": self._some_part,
            "/poll": self._some_part,
            "/save": self._add,
            "/upload": self._store_upload,
            "/login": self._log_in,
            "/payment": self._pay,
            "/elevate": self._step_up,
            "/password": self._change_password,
            "/logout": self._log_out,
        }

    async def handle(self, request: Request) -> Response:
        """Handle one request, as an adapter does."""
        client, exchange = self._client.calls_for(request), Exchange(self._gateway, _web(request))
        began = self._wheel.now
        await run_async(client, exchange.open())
        shown = await self._respond(exchange, request, client)
        shown.path, shown.validated, shown.left, shown.lives = request.path, began, self._wheel.now, request.lives
        shown.had_cookie = SESSION in request.cookies
        for name, value in exchange.headers():
            if name == "Set-Cookie":
                shown.set_cookie.append(value)
            shown.clears_cookies = shown.clears_cookies or (name == "Clear-Site-Data" and '"cookies"' in value)
        return shown

    async def _respond(self, exchange: Exchange, request: Request, client: Any) -> Shown:
        action = exchange.gate()
        if action is not Action.PROCEED:
            return self._refused(action, request)
        if request.path in ("/", "/part", "/save") and self._random.random() < self.slow:
            self._tally.traffic["slow handlers"] += 1
            await self._wheel.sleep(self._random.randrange(*_SLOW_TAKES))
        rolled = False
        try:
            shown = await self._views[request.path](exchange, request, client)
            rolled = shown.rolls
            if not await run_async(client, exchange.save()):
                self._tally.traffic["changes not saved"] += 1
                shown.page = AGAIN if request.path == "/save" else shown.page
        except Refused as refused:
            return self._refused(refused.action, request)
        except OUTAGES:
            shown = self._refused(Action.RETRY_LATER, request)
            shown.rolls = rolled  # its cookies are sent although something failed after it
        return shown

    def _refused(self, action: Action, request: Request) -> Shown:
        self._tally.traffic[f"refused: {action.value}"] += 1
        if action in (Action.AMBIGUOUS, Action.LOCKED):
            self._records.fault(f"refused: {action.value}", request.path)
        if action is Action.CSRF_ERROR:
            if self._records.is_explained(request.cookies.get(SESSION, ""), request.csrf):
                self._tally.traffic["forms older than the session's token"] += 1
            else:
                self._records.fault("CSRF failure", f"{request.path} with the token of this session")
        return Shown(_PAGES.get(action, AGAIN))

    # Pages

    async def _front(self, exchange: Exchange, request: Request, client: Any) -> Shown:
        if not exchange.subject and exchange.without_user() is Action.STEP_UP:
            return Shown(STEP_UP)
        if not exchange.subject and exchange.keeps_cookie:
            # With a copy of an old token the user has to log in; otherwise the next request may have a better cookie.
            answer = exchange.validation
            return Shown(LOGIN if answer is not None and answer.verdict is Verdict.REPLAYED else AGAIN)
        token = await run_async(client, account.csrf_token(exchange))
        return Shown(PAGE if exchange.subject else LOGIN, token, user=exchange.subject)

    async def _some_part(self, exchange: Exchange, request: Request, client: Any) -> Shown:
        if request.path == "/part" and self._random.random() < _NOTES:
            exchange.values["seen"] = [self._item(exchange, request)]
        return Shown(PAGE if exchange.subject else AGAIN)

    async def _add(self, exchange: Exchange, request: Request, client: Any) -> Shown:
        exchange.values.setdefault("cart", []).append(self._item(exchange, request))
        del exchange.values["cart"][:-12]
        token = exchange.csrf.reveal() if exchange.csrf is not None else ""
        return Shown(PAGE if exchange.subject else LOGIN, token, user=exchange.subject)

    async def _store_upload(self, exchange: Exchange, request: Request, client: Any) -> Shown:
        await run_async(client, routes.require(exchange, RouteRequirements()))
        exchange.values["upload"] = [self._item(exchange, request)]
        return Shown(PAGE, user=exchange.subject)

    async def _log_in(self, exchange: Exchange, request: Request, client: Any) -> Shown:
        before, cart = exchange.session, list(exchange.values.get("cart", []))
        steps = account.login(exchange, request.subject, persistent=request.remember)
        shown = await self._rolled(exchange, client, steps)
        if before is not None and before.subject in ("", request.subject):
            self._tally.traffic["carts kept over a login"] += bool(cart)
            if exchange.values.get("cart", []) != cart:
                self._records.fault("cart lost at a login", request.subject)
        exchange.values["greeted"] = [self._item(exchange, request)]
        return shown

    async def _step_up(self, exchange: Exchange, request: Request, client: Any) -> Shown:
        steps = account.login(exchange, request.subject, level=2, methods=["otp"], elevate=True)
        shown = await self._rolled(exchange, client, steps)
        await self._wheel.sleep(20)  # this takes time too
        await run_async(client, account.issue_companion(exchange, "payment"))
        return shown

    async def _pay(self, exchange: Exchange, request: Request, client: Any) -> Shown:
        needed = RouteRequirements(level=2, companion=("payment", request.cookies.get(COMPANION)))
        await run_async(client, routes.require(exchange, needed))
        for row in await run_async(client, account.devices(exchange)):
            self._tally.traffic["devices listed"] += 1
            if not self._records.owns(row.session_id, exchange.subject):
                self._records.fault("data of somebody else", f"{exchange.subject} sees a device of another user")
        return Shown(PAGE, exchange.csrf.reveal() if exchange.csrf is not None else "", user=exchange.subject)

    async def _change_password(self, exchange: Exchange, request: Request, client: Any) -> Shown:
        await run_async(client, routes.require(exchange, RouteRequirements()))
        return await self._rolled(exchange, client, account.roll(exchange, "password"))

    async def _log_out(self, exchange: Exchange, request: Request, client: Any) -> Shown:
        await run_async(client, account.logout(exchange, reason=LOGOUT))
        return Shown(LOGIN)

    # Shared parts

    async def _rolled(self, exchange: Exchange, client: Any, steps: Steps[None]) -> Shown:
        await run_async(client, steps)
        token = exchange.csrf.reveal() if exchange.csrf is not None else ""
        return Shown(PAGE, token, rolls=True, user=exchange.subject, token=exchange.token)

    def _item(self, exchange: Exchange, request: Request) -> str:
        """Return a new value, which names its owner and the browser that it was made in."""
        self._count += 1
        return f"{exchange.subject}@{request.client.device_id}:{self._count}"


def _web(request: Request) -> WebRequest:
    is_form = request.path in _POSTS
    headers = {
        "cookie": ["; ".join(f"{name}={value}" for name, value in request.cookies.items())] if request.cookies else [],
        "user-agent": [request.client.user_agent] if request.client.user_agent else [],
        "sec-fetch-site": ["same-origin"],
        "origin": [f"https://{_HOST}"] if is_form else [],
    }
    return WebRequest(
        method="POST" if is_form else "GET",
        path=request.path,
        host=_HOST,
        peer=request.client.ip_address,
        headers=lambda name: headers.get(name, ()),
        form_token=lambda: request.csrf or None,
    )
