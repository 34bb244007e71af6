"""Decides about web requests for the proxies in front of all applications of a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sessiond.config import ProxySettings
from sessiond.domain.call import Caller
from sessiond.domain.errors import InvalidField, shown
from sessiond.domain.policy import CookieRules, Policy
from sessiond.edge.check import Decision, check
from sessiond.edge.routes import Route
from sessiond_client.gateway.cookies import CookieNames
from sessiond_client.gateway.gateway import Gateway
from sessiond_client.gateway.request import WebRequest
from sessiond_client.gateway.settings import GatewaySettings
from sessiond_client.gateway.steps import run_async

__all__ = ["Decider"]


class Decider:
    """Decides with one gateway for each application.

    policies   the policies in force
    settings   for each application, how proxies use it; changes of it take effect with the next request
    client_of  makes a client of the authority for an application and a caller
    names_of   the names of the session cookies, as browsers send them
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        settings: Mapping[str, ProxySettings],
        client_of: Callable[[str, Caller], Any],
        names_of: Callable[[CookieRules], CookieNames],
    ) -> None:
        self._policies = policies
        self._settings = settings
        self._client_of = client_of
        self._names_of = names_of
        self._gateways: dict[str, tuple[CookieRules, ProxySettings, Gateway]] = {}

    async def decide(self, request: WebRequest, route: Route, caller: Caller) -> Decision:
        """Decide about a request, on behalf of a caller. Raise `InvalidField` if the application is unknown."""
        settings = self._settings.get(route.application, _DEFAULT)
        gateway = self._gateway(route.application, settings)
        steps = check(gateway, request, route, forwards_cookie=settings.forward_cookie)
        return await run_async(self._client_of(route.application, caller), steps)

    def asked_by(self, application: str, caller: Caller) -> tuple[Gateway, Any]:
        """Return the gateway of an application, and a client that asks on behalf of a caller.

        Raise `InvalidField` if the application is unknown.
        """
        gateway = self._gateway(application, self._settings.get(application, _DEFAULT))
        return gateway, self._client_of(application, caller)

    def _gateway(self, application: str, chosen: ProxySettings) -> Gateway:
        policy = self._policies.get(application)
        if policy is None:
            raise InvalidField("application", f"unknown application {shown(application)}")
        known = self._gateways.get(application)
        if known is not None and known[0] is policy.cookie and known[1] is chosen:
            return known[2]
        settings = GatewaySettings(
            login_path=chosen.login_path or None,
            trusted_origins=chosen.trusted_origins,
            csrf_exempt=chosen.csrf_exempt,
            ignored_paths=chosen.ignored_paths,
            passive_paths=chosen.passive_paths,
            public_paths=chosen.public_paths,
            cookie_names=self._names_of(policy.cookie),
        )
        gateway = Gateway(application, settings)
        self._gateways[application] = (policy.cookie, chosen, gateway)
        return gateway


_DEFAULT = ProxySettings()
