"""What a proxy says about the request that it asks about.

Each of these headers must be set by the proxy, in place of what the client sent. So each has exactly one value, and
anything else means that the proxy passes on what clients write.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import parse_qsl, unquote_to_bytes

from sessiond.domain.errors import InvalidField
from sessiond.edge.routes import Route, route_of
from sessiond_client.gateway.request import WebRequest

__all__ = ["HOST", "METHOD", "PEER", "URI", "Headers", "passed_request", "route_in", "web_request"]

METHOD, URI, HOST, PEER = "x-forwarded-method", "x-forwarded-uri", "x-forwarded-host", "x-forwarded-for"
"""Method, path with query, host and client address of the request."""


class Headers:
    """The headers of a question by name. Bytes beyond ASCII are the characters of ISO 8859-1."""

    __slots__ = ("_values",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        """`raw` has names in lower case, as ASGI requires."""
        values: dict[bytes, list[bytes]] = {}
        for name, value in raw:
            values.setdefault(name, []).append(value)
        self._values = values

    def get(self, name: str) -> Sequence[str]:
        """Return all values of a header, whose name is in lower case."""
        # Few of the headers are read.
        return [value.decode("latin-1") for value in self._values.get(name.encode("ascii"), ())]


@lru_cache(maxsize=256)
def route_in(query: str) -> Route:
    """Return what the route requires, from the query of the address that the proxy asks.

    A client cannot change that address, whatever its request contains. Raise `InvalidField` that names the wrong
    setting.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=20)
    except ValueError:
        raise InvalidField("query", "must be settings of a route such as level=2&max_age=15m") from None
    settings = dict(pairs)
    for name, _ in pairs:
        if sum(name == other for other, _ in pairs) > 1:
            raise InvalidField(name, "is there twice; name each setting once")
    return route_of(settings)


def web_request(headers: Headers) -> WebRequest:
    """Return the request that the proxy asks about. Raise `InvalidField` that names the header that is wrong."""
    uri = _one(headers, URI)
    if not uri.startswith("/"):
        raise InvalidField(URI, "must be the path that the client asked for, with its query")
    path, _, query = uri.partition("?")
    return WebRequest(
        method=_one(headers, METHOD),
        path=unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace"),
        query=query.partition("#")[0],
        host=_one(headers, HOST),
        peer=_address(_one(headers, PEER)),
        headers=headers.get,
        is_handshake=_is_handshake(headers),
    )


def passed_request(headers: Headers, method: str, path: str, query: bytes) -> WebRequest:
    """Return a request that the proxy passes on. Raise `InvalidField` that names the header that is wrong."""
    return WebRequest(
        method=method,
        path=path,
        query=query.decode("latin-1"),
        host=_one(headers, HOST),
        peer=_address(_one(headers, PEER)),
        headers=headers.get,
    )


def _one(headers: Headers, name: str) -> str:
    found = headers.get(name)
    if len(found) != 1 or not found[0]:
        raise InvalidField(name, "must be set once by the proxy, in place of what the client sent")
    return found[0]


@lru_cache(maxsize=4096)
def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        remedy = "must be the client's address alone: the proxy must replace what the client sent, not add to it"
        raise InvalidField(PEER, remedy) from None


def _is_handshake(headers: Headers) -> bool:
    # Proxies drop `Upgrade`, which is for one connection only. The other header comes with every handshake (RFC 6455).
    upgrades = any("websocket" in value.lower() for value in headers.get("upgrade"))
    return upgrades or bool(headers.get("sec-websocket-version"))
