"""Where a request comes from, as the browser says, and where a redirect may lead."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

__all__ = ["SAFE_METHODS", "is_cross_site", "safe_path"]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""The methods that must not have side effects (RFC 9110, 9.2.1)."""


_PORTS = {"http": 80, "https": 443}


def is_cross_site(fetch_site: Sequence[str], origin: Sequence[str], host: str, trusted: Collection[str]) -> bool:
    """Whether a browser says that a page of another site sent this request.

    `fetch_site` and `origin` are the values of the headers `Sec-Fetch-Site` and `Origin`; `host` is that of the
    request; `trusted` has further origins, as browsers write them, whose pages may send requests, such as
    `https://app.example.com`.

    Pages of sibling hosts are other sites here. Every browser in use sends at least one of the two headers with a
    request that may have side effects. A request without them was not sent by a page, so no browser has added the
    user's cookie to it behind the user's back.
    """
    if len(fetch_site) > 1 or len(origin) > 1:
        return True
    if origin and origin[0] in trusted:
        return False
    if fetch_site:
        return fetch_site[0] not in ("same-origin", "none")
    if not origin:
        return False
    sender = own_form(origin[0])
    # Pages of other schemes, such as those of extensions and apps, are other sites, whatever their host is called.
    return not sender.startswith(("https://", "http://")) or sender != own_form(
        f"{sender.partition('://')[0]}://{host}"
    )


def own_form(origin: str) -> str:
    """An origin as browsers write it: in lower case and without the scheme's default port. Empty if it is none."""
    try:
        parts = urlsplit(origin)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        return ""
    host = f"[{host}]" if ":" in host else host
    if not scheme or not host or origin.lower() not in (f"{scheme}://{host}", f"{scheme}://{host}:{port}"):
        return ""  # it has more than an origin has, such as a user, a path or a second origin
    return f"{scheme}://{host}" if port in (None, _PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def safe_path(target: str | None, fallback: str = "/") -> str:
    """A path of this site to redirect to: `target` if it is one, otherwise `fallback`.

    Browsers read `//host`, `/\\host` and what contains tabs or line ends as addresses of other sites.
    """
    if not target or target[0] != "/" or target[1:2] in ("/", "\\"):
        return fallback
    if "\\" in target or any(ord(character) <= 0x20 or ord(character) == 0x7F for character in target):
        return fallback
    return target if target.isascii() else fallback
