"""What a server has for the proxies in front of applications: their settings, and who decides about their requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from sessiond.access.callers import Callers
from sessiond.access.limits import CallLimiter
from sessiond.authority.reading import Reading
from sessiond.config import Config, ProxySettings
from sessiond.domain.call import Caller
from sessiond.domain.policy import CookieRules, Policy
from sessiond.domain.values import Entropy
from sessiond.edge.decider import Decider
from sessiond.edge.local import LocalClient
from sessiond.http import forwarded
from sessiond.http.forward_auth import ForwardAuth
from sessiond.rpc.cookies import browser_name
from sessiond.rpc.local import LocalCalls, LocalEvents, RepeatableAnswers
from sessiond.rpc.server import FurtherService
from sessiond.system.clock import Clock
from sessiond.system.ongoing import Tracer
from sessiond_client.browser import BrowserEndpoints, Site
from sessiond_client.browser.streams import StreamRules
from sessiond_client.gateway.cookies import CookieNames
from sessiond_client.guard import AsyncConnectionGuard

if TYPE_CHECKING:  # the packages that it needs are optional
    from sessiond.http.server import HttpServer
    from sessiond_client.aio import AsyncClient

__all__ = ["decider_of", "http_server", "services_for_proxies"]

_STREAMS_SHARE = 3
"""Which part of all connections may be event streams of pages, so that proxies can always ask."""


def decider_of(
    policies: Mapping[str, Policy],
    proxies: Mapping[str, ProxySettings],
    services: Sequence[object],
    repeatable: RepeatableAnswers,
    limiter: CallLimiter,
    entropy: Entropy,
) -> Decider:
    """Return what decides about requests, with calls that the services answer in this process."""
    local = LocalCalls(services, repeatable, limiter)

    def client_of(application: str, caller: Caller) -> LocalClient:
        return LocalClient(application, caller, local.respond)

    return Decider(policies, proxies, client_of, _names_of, entropy)


def services_for_proxies(config: Config, decider: Decider, auth: ForwardAuth) -> Sequence[FurtherService]:
    """Return what an authority serves over gRPC for proxies: Envoy, if it is on, and those that ask a sidecar."""
    if not config.envoy:
        return (forwarded.service(auth),)
    # Imported here: the package that it needs is optional.
    from sessiond.rpc import ext_authz

    return (forwarded.service(auth), ext_authz.service(decider.decide))


async def http_server(
    config: Config,
    decider: Decider,
    auth: ForwardAuth,
    callers: Callers,
    limiter: CallLimiter,
    reading: Reading,
    clock: Clock,
    tracer: Tracer | None,
) -> HttpServer | None:
    """Return the server that proxies ask over HTTP, started; None if there is none. Raises `CannotListen`."""
    if not config.http_listen:
        return None
    from sessiond.http.browser import BrowserPages
    from sessiond.http.door import Door
    from sessiond.http.server import HttpServer
    from sessiond.http.site import ProxySite, identifying

    # One subscription for the pages of all applications. It only looks like a client.
    guard = AsyncConnectionGuard(cast("AsyncClient", LocalEvents(reading)))

    def site_of(application: str, caller: Caller) -> Site:
        return Site(*decider.asked_by(application, caller), guard)

    def now() -> datetime:
        return datetime.fromtimestamp(clock.now() / 1000, UTC)

    streams = StreamRules(most=max(1, config.max_calls // _STREAMS_SHARE))
    door = Door(callers, limiter)
    pages = BrowserPages(BrowserEndpoints(streams=streams, now=now), site_of, door, tracer)

    async def is_serving() -> bool:
        return reading.is_ready

    site = ProxySite(identifying(auth, door), is_serving, pages, tracer)
    server = HttpServer(site, config.max_calls)
    await server.start(config.http_listen, config.socket_mode)
    return server


def _names_of(rules: CookieRules) -> CookieNames:
    return CookieNames(browser_name(rules, anonymous=False), browser_name(rules, anonymous=True))
