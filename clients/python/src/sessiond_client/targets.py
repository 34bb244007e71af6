"""Addresses of servers and targets of gRPC: their form, and who else could read what is sent there.

This module needs no gRPC, so that command lines and configurations can use it.
"""

from __future__ import annotations

import ipaddress
import re

__all__ = ["is_local", "problem_of_address", "problem_of_target"]

_RESOLVED_BY_GRPC = re.compile(r"(?:dns|unix|unix-abstract|vsock|ipv4|ipv6|xds|google-c2p|passthrough):.+")
"""Forms with a scheme, which only gRPC can judge."""
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/,\[\]]+):(\d{1,5})")
_FORMS = "write HOST:PORT or unix:/path"
_LONGEST_PORT = 65_535
_SCHEME = re.compile(r"(?:dns:(?:///)?|ipv4:|ipv6:)")
_ADDRESS = re.compile(r"(?:\[([^\]]*)\]|([^:/]*))(?::\d+)?")


def problem_of_target(target: str) -> str:
    """What is wrong with a target of gRPC, with the remedy; empty: nothing, or only gRPC can say.

    gRPC would connect to port 443 of a host without a port, and look up a URL as the name of a host.
    """
    return "" if _RESOLVED_BY_GRPC.fullmatch(target) else problem_of_address(target)


def problem_of_address(address: str) -> str:
    """What is wrong with an address in the form HOST:PORT, with the remedy; empty: nothing."""
    if not address:
        return f"is empty; {_FORMS}"
    if "://" in address:
        bare = address.partition("://")[2].partition("/")[0]
        return f"{address!r} is a URL; write it as HOST:PORT, such as {bare!r}"
    found = _HOST_AND_PORT.fullmatch(address) if address.isprintable() else None
    if found is not None:
        if 0 < int(found[1]) <= _LONGEST_PORT:
            return ""
        return f"{address!r} has no valid port; a port is a number from 1 to {_LONGEST_PORT}"
    if ":" not in address:
        return f"{address!r} has no port; {_FORMS}, such as {address + ':7443'!r}"
    return f"{address!r} is not an address; {_FORMS}, and an IPv6 address as [::1]:7443"


def is_local(target: str) -> bool:
    """Whether only this machine receives what is sent to an address or target. An unknown form is not local."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    addresses = _SCHEME.sub("", target, count=1).split(",")
    return all(map(_is_loopback, addresses))


def _is_loopback(address: str) -> bool:
    match = _ADDRESS.fullmatch(address)
    host = (match[1] or match[2]) if match else address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
