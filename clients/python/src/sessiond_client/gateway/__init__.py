"""The rules for sessions in web requests, once for all frameworks: from a request to a question to headers.

Nothing here does I/O. A framework's adapter (`sessiond_client.contrib`) turns its request into a `WebRequest`, creates
an `Exchange` for it, carries out its steps with `run` or `run_async`, and appends its headers to the response:

    exchange = Exchange(gateway, web_request)
    run(client, exchange.open())
    action = exchange.gate()                                  # before any handler
    action = run(client, routes.check(exchange, RouteRequirements(level=2)))  # before a handler that has requirements
    run(client, account.login(exchange, "alice"))             # in the handler
    run(client, exchange.save())                              # after the handler
    headers = exchange.headers()                              # when the response begins
"""

from __future__ import annotations

from sessiond_client.gateway import account, routes
from sessiond_client.gateway.account import ActivityRow, DeviceRow
from sessiond_client.gateway.actions import Action, Refusal, Refused, RouteRequirements
from sessiond_client.gateway.addresses import NO_PROXIES, TrustedProxies
from sessiond_client.gateway.cookies import CookieNames
from sessiond_client.gateway.exchange import OUTAGES, Exchange
from sessiond_client.gateway.gateway import Gateway
from sessiond_client.gateway.origins import SAFE_METHODS, safe_path
from sessiond_client.gateway.request import WebRequest
from sessiond_client.gateway.settings import GatewaySettings
from sessiond_client.gateway.steps import Ask, Steps, run, run_async
from sessiond_client.gateway.values import JSON, Codec, SessionValues

__all__ = [
    "JSON",
    "NO_PROXIES",
    "OUTAGES",
    "SAFE_METHODS",
    "Action",
    "ActivityRow",
    "Ask",
    "Codec",
    "CookieNames",
    "DeviceRow",
    "Exchange",
    "Gateway",
    "GatewaySettings",
    "Refusal",
    "Refused",
    "RouteRequirements",
    "SessionValues",
    "Steps",
    "TrustedProxies",
    "WebRequest",
    "account",
    "routes",
    "run",
    "run_async",
    "safe_path",
]
