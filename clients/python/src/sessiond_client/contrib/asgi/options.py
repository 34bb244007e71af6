"""The options of the middleware, so that type checkers know them."""

from __future__ import annotations

from collections.abc import Sequence

from sessiond_client.gateway import CookieNames, TrustedProxies
from sessiond_client.settings import ClientOptions

__all__ = ["MiddlewareOptions"]


class MiddlewareOptions(ClientOptions, total=False):
    """The settings of the gateway, which `GatewaySettings` describes, and the options of the client."""

    login_path: str | None
    trusted_proxies: TrustedProxies
    trusted_origins: Sequence[str]
    csrf_header: str
    csrf_field: str
    csrf_exempt: Sequence[str]
    ignored_paths: Sequence[str]
    passive_paths: Sequence[str]
    public_paths: Sequence[str]
    late_after: float
    cookie_names: CookieNames | None
    cache_control: str
