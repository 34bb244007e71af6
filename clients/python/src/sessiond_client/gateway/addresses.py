"""Finding the client's address behind proxies that the application trusts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

__all__ = ["NO_PROXIES", "TrustedProxies", "client_address"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LONGEST = 100
"""Characters of an address with brackets, zone, port and quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedProxies:
    """The proxies in front of the application, and the header in which they name the client.

    Set exactly one of `hops` and `networks`. Anyone can send the header to an application that no proxy protects, and
    a proxy that does not set it passes it on: trust only the header that your own proxies write.
    """

    hops: int = 0
    """How many proxies append to the header. The client is the entry that the first of them added."""
    networks: tuple[str, ...] = ()
    """The networks of the proxies, such as `("10.0.0.0/8", "unix")`; `unix` is a connection without an address. The
    client is the last entry that is not in one of them."""
    header: str = "x-forwarded-for"
    """`x-forwarded-for`, or `forwarded` (RFC 7239)."""
    _parsed: tuple[_Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises `ValueError` if the settings are wrong."""
        given, hops, header = self.networks, self.hops, self.header
        if not isinstance(given, (tuple, list)) or not all(isinstance(text, str) for text in given):
            raise ValueError("trusted proxies: networks is a tuple of texts, such as ('10.0.0.0/8',)")
        if type(hops) is not int or hops < 0 or (hops and given):
            raise ValueError("trusted proxies: set either hops, a number of 1 or more, or networks")
        if not isinstance(header, str) or header.lower() not in ("x-forwarded-for", "forwarded"):
            raise ValueError(f"trusted proxies: header is 'x-forwarded-for' or 'forwarded', not {header!r}")
        try:
            parsed = tuple(ipaddress.ip_network(text) for text in given if text != "unix")
        except ValueError as error:
            raise ValueError(f"trusted proxies: {error}; write a network such as 10.0.0.0/8") from None
        object.__setattr__(self, "header", header.lower())
        object.__setattr__(self, "networks", tuple(given))
        object.__setattr__(self, "_parsed", parsed)

    def trusts(self, address: str) -> bool:
        """Whether an address, in canonical form, is one of the proxies'. Empty: a connection without an address."""
        if not address:
            return "unix" in self.networks
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self._parsed)


NO_PROXIES = TrustedProxies()
"""Clients connect directly."""


def client_address(peer: str, forwarded: Sequence[str], proxies: TrustedProxies) -> str:
    """The client's IP address in canonical form; empty if it is unknown. Never raises.

    `peer` is the other end of the connection, empty if it has no address. `forwarded` has the values of the header that
    `proxies` names. What a client adds to that header itself stands to the left of what the proxies add, and is never
    used.
    """
    address = canonical(peer)
    if proxies.hops:
        chain = _entries(forwarded, proxies.header)
        # A request that passed fewer proxies than there should be came from inside: its peer is what is known.
        return canonical(chain[-proxies.hops]) if len(chain) >= proxies.hops else address
    if not proxies.networks or (not address and peer) or not proxies.trusts(address):
        return address
    for entry in reversed(_entries(forwarded, proxies.header)):
        address = canonical(entry)
        if not address or not proxies.trusts(address):
            return address
    return address


def canonical(text: str) -> str:
    """An address without port, brackets, quotes and zone; empty if it is none, such as `unknown` or `_hidden`."""
    return _canonical(text) if len(text) <= _LONGEST else ""  # what is not kept cannot fill the memory


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    text = text.strip(' \t"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _entries(values: Iterable[str], header: str) -> list[str]:
    """The entries of all headers, in the order in which they were added."""
    joined = ",".join(values)
    if not joined:
        return []
    if header == "x-forwarded-for":
        return [entry.strip() for entry in joined.split(",")]
    return [_node(element) for element in _split(joined, ",")]


def _node(element: str) -> str:
    """The node in `for` of an element of a `Forwarded` header; empty if it names none."""
    for pair in _split(element, ";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip()
    return ""


def _split(text: str, separator: str) -> list[str]:
    """Split at separators outside of quotes, from the right: a quote that a client leaves open, to the left of what the
    proxies add, must not swallow it."""
    parts, quoted, end = [], False, len(text)
    for index in range(len(text) - 1, -1, -1):
        if text[index] == '"':
            quoted = not (quoted and not _is_escaped(text, index))
        elif text[index] == separator and not quoted:
            parts.append(text[index + 1 : end])
            end = index
    return [text[:end], *reversed(parts)]


def _is_escaped(text: str, index: int) -> bool:
    """Whether an odd number of backslashes stands before this character."""
    first = index
    while first and text[first - 1] == "\\":
        first -= 1
    return (index - first) % 2 == 1
