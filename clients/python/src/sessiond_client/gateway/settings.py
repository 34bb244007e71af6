"""The settings of a gateway, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sessiond_client.gateway.addresses import NO_PROXIES, TrustedProxies
from sessiond_client.gateway.cookies import CookieNames
from sessiond_client.gateway.origins import own_form, safe_path

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
        origins = _texts("trusted_origins", self.trusted_origins, "https://app.example.com")
        for item in origins:
            if not own_form(item) or "*" in item:
                advice = "an origin is a scheme, a host and perhaps a port, such as https://app.example.com"
                raise ValueError(f"trusted_origins: {item!r} is wrong: {advice}")
        object.__setattr__(self, "trusted_origins", tuple(own_form(item) for item in origins))
        for name in ("csrf_exempt", "ignored_paths", "passive_paths", "public_paths"):
            paths = _texts(name, getattr(self, name), "/static/")
            for item in paths:
                if not item.startswith("/"):
                    raise ValueError(f"{name}: {item!r} is wrong: a path begins with /")
            object.__setattr__(self, name, paths)
        self._check_values()

    def _check_values(self) -> None:
        path: Any = self.login_path
        if path is not None and not _is_plain_path(path):
            raise ValueError(f"login_path: {path!r} is wrong: pass a path of this site without query, such as /login")
        if not isinstance(self.trusted_proxies, TrustedProxies):
            raise ValueError("trusted_proxies: pass TrustedProxies(hops=1) or TrustedProxies(networks=('10.0.0.0/8',))")
        if self.cookie_names is not None and not isinstance(self.cookie_names, CookieNames):
            raise ValueError("cookie_names: pass CookieNames(subject, anonymous), or None to ask the authority")
        for name, advice in (("csrf_header", "X-CSRF-Token"), ("csrf_field", "csrf_token")):
            value: Any = getattr(self, name)
            if not isinstance(value, str) or not value.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"{name}: {value!r} is wrong: pass a name such as {advice}")
        control: Any = self.cache_control
        if not isinstance(control, str) or not (control.isascii() and (control.isprintable())):
            raise ValueError(f"cache_control: {control!r} is wrong: pass a header's value such as 'no-store', or ''")
        late: Any = self.late_after
        if not isinstance(late, (int, float)) or not late > 0:
            raise ValueError(f"late_after: {late!r} is wrong: pass seconds, more than 0")

    @classmethod
    def names(cls) -> frozenset[str]:
        """The names of all settings."""
        return frozenset(item.name for item in fields(cls))


def _texts(name: str, value: Any, example: str) -> tuple[str, ...]:
    try:
        texts = () if isinstance(value, (str, bytes)) else tuple(value)
        right = not isinstance(value, (str, bytes)) and all(isinstance(item, str) for item in texts)
    except TypeError:
        right = False
    if not right:
        raise ValueError(f"{name}: pass a list of texts, such as {name}=[{example!r}]")
    return texts


def _is_plain_path(path: Any) -> bool:
    if not isinstance(path, str) or "?" in path or "#" in path or not path.isprintable():
        return False
    return safe_path(path.encode("ascii", "ignore").decode().replace(" ", ""), "") != ""


def matches(path: str, paths: Sequence[str]) -> bool:
    """Whether a path list contains a path. One that climbs up, such as `/hooks/../transfer`, is in none."""
    if not paths or "/.." in path:
        return False
    return any(path == item or (item.endswith("/") and path.startswith(item)) for item in paths)
