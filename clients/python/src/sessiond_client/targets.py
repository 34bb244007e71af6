"""Targets of gRPC: who else could read what is sent to them."""

from __future__ import annotations

import ipaddress
import re

from sessiond_client.arguments import invalid_argument
from sessiond_client.errors import Violation

__all__ = ["check_key_is_protected", "is_local"]

_SCHEME = re.compile(r"(?:dns:(?:///)?|ipv4:|ipv6:)")
_ADDRESS = re.compile(r"(?:\[([^\]]*)\]|([^:/]*))(?::\d+)?")


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
