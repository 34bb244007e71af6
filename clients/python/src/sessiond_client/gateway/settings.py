"""The settings of a gateway, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from sessiond_client.gateway.addresses import NO_PROXIES, TrustedProxies
from sessiond_client.gateway.cookies import CookieNames

__all__ = ["GatewaySettings", "matches"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """How a web application uses sessions. All settings are optional; an adapter takes them as keyword arguments.

    A *path list* is a sequence of paths without query. An entry that ends in `/` means everything below it, any other
    exactly that path.
    """

    login_path: str | None = "/login"
    """The path of the login page, to which pages that need a login redirect. None: they get 401 instead."""
    trusted_proxies: TrustedProxies = NO_PROXIES
    """The proxies in front of the application; without them the peer of the connection is the client."""
    trusted_origins: Sequence[str] = ()
    """Origins other than the application's own whose pages may send requests, such as `https://app.example.com`."""
    csrf_header: str = "X-CSRF-Token"
    """The header in which scripts send the CSRF token."""
    csrf_field: str = "csrf_token"
    """The form field in which pages send it."""
    csrf_exempt: Sequence[str] = ()
    """Path list: no CSRF check here, for requests that other servers send, such as webhooks."""
    ignored_paths: Sequence[str] = ()
    """Path list: no session here at all, for static files."""
    passive_paths: Sequence[str] = ()
    """Path list: requests here do not count as activity, such as those that a script repeats in the background."""
    public_paths: Sequence[str] = ()
    """Path list: served as for a guest while the authority is out of reach. All other requests with a session cookie
    then get 503."""
    late_after: float = 5.0
    """Seconds. If a response begins later than this after the validation, the validation's cookies are left out: a
    newer cookie may have reached the browser meanwhile. The next request gets them again."""
    cookie_names: CookieNames | None = None
    """The names of the session cookies. None: as the authority says, which is right unless a proxy renames them."""
    cache_control: str = "no-store"
    """`Cache-Control` of responses that used the session of a user and have none of their own; empty: none."""

    def __post_init__(self) -> None:
        """Raises `ValueError` that names the setting."""
        for name in ("trusted_origins", "csrf_exempt", "ignored_paths", "passive_paths", "public_paths"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"{name}: pass a list of texts, such as {name}=['/static/']")
            if name == "trusted_origins":
                wrong = [item for item in value if not _is_origin(item)]
                advice = "an origin is a scheme and a host, such as https://app.example.com"
            else:
                wrong = [item for item in value if not item.startswith("/")]
                advice = "a path begins with /"
            if wrong:
                raise ValueError(f"{name}: {wrong[0]!r} is wrong: {advice}")
            object.__setattr__(self, name, tuple(value))
        if self.login_path is not None and not self.login_path.startswith("/"):
            raise ValueError(f"login_path: {self.login_path!r} is wrong: a path begins with /")
        if not self.late_after > 0:
            raise ValueError(f"late_after: {self.late_after!r} is wrong: pass seconds, more than 0")

    @classmethod
    def names(cls) -> frozenset[str]:
        """The names of all settings."""
        return frozenset(item.name for item in fields(cls))


def _is_origin(text: str) -> bool:
    scheme, separator, host = text.partition("://")
    return bool(scheme and separator and host) and not any(character in host for character in "/?#@ ")


def matches(path: str, paths: Sequence[str]) -> bool:
    """Whether a path list contains a path."""
    return any(path == item or (item.endswith("/") and path.startswith(item)) for item in paths)
