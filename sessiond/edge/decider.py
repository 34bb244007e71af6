"""Decides about web requests for the proxies in front of all applications of a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sessiond.config import ProxySettings
from sessiond.domain.call import Caller
from sessiond.domain.errors import InvalidField, shown
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import CookieRules, Policy
from sessiond.domain.values import Entropy
from sessiond.edge.check import Decision, check
from sessiond.edge.local import LocalClient
from sessiond.edge.repeats import RepeatedDecisions
from sessiond.edge.routes import Route
from sessiond_client.gateway.cookies import CookieNames
from sessiond_client.gateway.gateway import Gateway
from sessiond_client.gateway.request import WebRequest
from sessiond_client.gateway.settings import GatewaySettings
from sessiond_client.gateway.steps import run_async

__all__ = ["Decider"]


@immutable
class _Deciding:
    """How requests of one application are decided as long as its settings and cookies are these."""

    cookie: CookieRules
    settings: ProxySettings
    gateway: Gateway
    repeats: RepeatedDecisions


class Decider:
    """Decides with one gateway for each application.

    policies   the policies in force
    settings   for each application, how proxies use it; changes of it take effect with the next request
    client_of  makes a client of the authority for an application and a caller
    names_of   the names of the session cookies, as browsers send them
    entropy    random bytes
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        settings: Mapping[str, ProxySettings],
        client_of: Callable[[str, Caller], LocalClient],
        names_of: Callable[[CookieRules], CookieNames],
        entropy: Entropy,
    ) -> None:
        self._policies = policies
        self._settings = settings
        self._client_of = client_of
        self._names_of = names_of
        self._entropy = entropy
        self._deciding: dict[str, _Deciding] = {}

    async def decide(self, request: WebRequest, route: Route, caller: Caller) -> Decision:
        """Decide about a request, on behalf of a caller. Raise `InvalidField` if the application is unknown."""
        deciding = self._for(route.application)
        key = deciding.repeats.key_of(request, route, caller)
        if key is not None and (known := deciding.repeats.find(key)) is not None:
            return known
        client: Any = self._client_of(route.application, caller)
        steps = check(deciding.gateway, request, route, forwards_cookie=deciding.settings.forward_cookie)
        decision = await run_async(client, steps)
        if key is not None and client.repeatable is not None:
            deciding.repeats.remember(key, decision, client.repeatable)
        return decision

    def asked_by(self, application: str, caller: Caller) -> tuple[Gateway, Any]:
        """Return the gateway of an application, and a client that asks on behalf of a caller.

        Raise `InvalidField` if the application is unknown.
        """
        return self._for(application).gateway, self._client_of(application, caller)

    def _for(self, application: str) -> _Deciding:
        policy, chosen = self._policies.get(application), self._settings.get(application, _DEFAULT)
        if policy is None:
            raise InvalidField("application", f"unknown application {shown(application)}")
        known = self._deciding.get(application)
        if known is not None and known.cookie is policy.cookie and known.settings is chosen:
            return known
        settings = GatewaySettings(
            login_path=chosen.login_path or None,
            trusted_origins=chosen.trusted_origins,
            csrf_exempt=chosen.csrf_exempt,
            ignored_paths=chosen.ignored_paths,
            passive_paths=chosen.passive_paths,
            public_paths=chosen.public_paths,
            cookie_names=self._names_of(policy.cookie),
        )
        repeats = RepeatedDecisions(settings, self._entropy)
        made = _Deciding(policy.cookie, chosen, Gateway(application, settings), repeats)
        self._deciding[application] = made
        return made


_DEFAULT = ProxySettings()
