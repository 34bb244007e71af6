"""What a server has for the proxies in front of applications: their settings, and who decides about their requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sessiond.access.callers import Callers
from sessiond.access.limits import CallLimiter
from sessiond.config import Config, ProxySettings
from sessiond.domain.call import Caller
from sessiond.domain.policy import CookieRules, Policy
from sessiond.domain.values import Entropy
from sessiond.edge.decider import Decider
from sessiond.edge.local import LocalClient
from sessiond.rpc.cookies import browser_name
from sessiond.rpc.local import LocalCalls, RepeatableAnswers
from sessiond_client.gateway.cookies import CookieNames

if TYPE_CHECKING:  # the packages that it needs are optional
    from sessiond.http.server import HttpServer

__all__ = ["decider_of", "http_server"]


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


async def http_server(config: Config, decider: Decider, callers: Callers, limiter: CallLimiter) -> HttpServer | None:
    """Return the server that proxies ask over HTTP, started; None if there is none. Raises `CannotListen`."""
    if not config.http_listen:
        return None
    from sessiond.http.forward_auth import ForwardAuth
    from sessiond.http.server import HttpServer

    server = HttpServer(ForwardAuth(decider.decide, callers, limiter), config.max_calls)
    await server.start(config.http_listen, config.socket_mode)
    return server


def _names_of(rules: CookieRules) -> CookieNames:
    return CookieNames(browser_name(rules, anonymous=False), browser_name(rules, anonymous=True))
