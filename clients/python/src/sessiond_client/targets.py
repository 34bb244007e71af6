"""Targets of gRPC: who else could read what is sent to them."""

from __future__ import annotations

import ipaddress
import re

from sessiond_client.arguments import invalid_argument
from sessiond_client.errors import InvalidArgument, Violation

__all__ = ["check_key_is_protected", "check_target", "is_local"]

_SCHEME = re.compile(r"(?:dns:(?:///)?|ipv4:|ipv6:)")
_ADDRESS = re.compile(r"(?:\[([^\]]*)\]|([^:/]*))(?::\d+)?")


_RESOLVED_BY_GRPC = re.compile(r"(?:dns|unix|unix-abstract|vsock|ipv4|ipv6|xds|google-c2p|passthrough):.+")
"""Forms with a scheme, which only gRPC can judge."""
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/,\[\]]+):(\d{1,5})")
_FORMS = "write HOST:PORT or unix:/path"
_LONGEST_PORT = 65_535


def check_target(target: str) -> None:
    """Raise `InvalidArgument` with the remedy if a target has neither a port nor a scheme of gRPC.

    gRPC would connect to port 443 of a host without a port, and look up a URL as the name of a host.
    """
    if _RESOLVED_BY_GRPC.fullmatch(target):
        return
    if "://" in target:
        bare = target.partition("://")[2].partition("/")[0]
        raise _bad_target(f"{target!r} is a URL; write it as HOST:PORT, such as {bare!r}")
    found = _HOST_AND_PORT.fullmatch(target)
    if found is None and ":" not in target:
        raise _bad_target(
            f"{target!r} has no port; {_FORMS}, such as {target + ':7443'!r}" if target else f"is empty; {_FORMS}"
        )
    if found is None:
        raise _bad_target(f"{target!r} is not an address; {_FORMS}, and an IPv6 address as [::1]:7443")
    if not 0 < int(found[1]) <= _LONGEST_PORT:
        raise _bad_target(f"{target!r} has no valid port; a port is a number from 1 to {_LONGEST_PORT}")


def _bad_target(problem: str) -> InvalidArgument:
    return invalid_argument(Violation("target", problem))


def is_local(target: str) -> bool:
    """Whether only this machine can receive what is sent to a target. A form that is not known here is not local."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    addresses = _SCHEME.sub("", target, count=1).split(",")
    return all(map(_is_loopback, addresses))


def check_key_is_protected(target: str) -> None:
    """Refuse to send a key to another machine without encryption. Raises `InvalidArgument`."""
    if not is_local(target):
        raise invalid_argument(
            Violation(
                "key",
                f"would be sent to {target} unencrypted; use TLS, a Unix socket or a loopback address, or set "
                "allow_remote_plaintext if something else encrypts the connection",
            )
        )


def _is_loopback(address: str) -> bool:
    match = _ADDRESS.fullmatch(address)
    host = (match[1] or match[2]) if match else address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
