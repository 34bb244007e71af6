"""Why no server can be reached, as one line for people. Imported only if a call failed: it needs gRPC."""

from __future__ import annotations

import socket as sockets
from pathlib import Path

from sessionctl.settings import Settings
from sessionctl.targets import socket_path
from sessiond_client import SessiondError

__all__ = ["unreachable"]

_NO_SERVER = ("HTTP/2", "http1", "Socket closed", "SETTINGS", "Connection reset")
"""What gRPC says of a connection that ended before it was one."""
_PATIENCE = 1.0
"""Seconds in which an address must accept a connection."""


def unreachable(said: str, asked: Settings) -> str:
    """Why there is no connection. gRPC has one status for all of this, and says the reason in its message only."""
    target, socket = asked.target, socket_path(asked.target)
    other = f"or name another server with {asked.target_from}"
    if socket and not Path(socket).exists():
        return f"there is no socket {socket}; start the server with `sessiond serve --listen {target}`, {other}"
    if "Permission denied" in said:
        return f"no permission to use {socket or target}; run this as the server's user or as a member of its group"
    if "Connection refused" in said:
        # gRPC names the last address of a host that it tried. Another one may be that of a server that did not let it
        # in: at `localhost`, the server may listen at 127.0.0.1, and the last address be [::1].
        address = _accepting(target)
        said = _said_at(address, asked) if address else said
    if "Connection refused" in said:
        return f"nothing listens at {target}; start the server with `sessiond serve --listen {target}`, {other}"
    if "resolving" in said or "DNS" in said:
        return f"the host of {target} is not known; check the name, {other}"
    if (problem := _tls_problem(said, asked)) is not None:
        return problem
    if any(sign in said for sign in _NO_SERVER):
        return f"{target} is not a sessiond server, or it expects TLS; check the port, add --tls or --tls-ca, {other}"
    return f"no server can be reached at {target}: {said}; start it, {other}"


def _tls_problem(said: str, asked: Settings) -> str | None:
    """Why TLS did not work; None if that was not the reason."""
    target, ca = asked.target, asked.files.get("tls_ca")
    if "WRONG_VERSION_NUMBER" in said:
        source = next(iter(asked.files_from.values()), "--tls")
        return f"{target} does not serve TLS; check the port, or leave out the files for TLS ({source})"
    if "Hostname Verification Check failed" in said:
        host = target.rpartition(":")[0]
        named = f"name the server in {asked.target_from} as it is named there"
        return f"the certificate of {target} is not for '{host}'; {named}"
    if "certificate has expired" in said:
        return f"the certificate of {target} has expired; replace it on the server"
    if "certificate is not yet valid" in said:
        return f"the certificate of {target} is not valid yet; compare the clocks of both machines"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        trusted = f"an authority in {ca}" if ca else "a public authority"
        return f"the certificate of {target} is not signed by {trusted}; name the file of its authority with --tls-ca"
    if asked.tls and any(sign in said for sign in _NO_SERVER):
        shown = asked.files.get("tls_certificate")
        which = f"another certificate than {shown}" if shown else "a certificate of the client"
        return f"{target} closed the connection; it may require {which}; name one with --tls-certificate and --tls-key"
    return None


def _accepting(target: str) -> str:
    """The first address of a target that accepts connections, as HOST:PORT; empty if none does."""
    host, _, port = target.rpartition(":")
    try:
        found = sockets.getaddrinfo(host.strip("[]"), int(port), type=sockets.SOCK_STREAM)
    except (OSError, ValueError):
        return ""
    for *_, address in found:
        try:
            with sockets.create_connection((str(address[0]), int(port)), timeout=_PATIENCE):
                return f"[{address[0]}]:{port}" if ":" in str(address[0]) else f"{address[0]}:{port}"
        except OSError:
            continue
    return ""


def _said_at(address: str, asked: Settings) -> str:
    """What gRPC says of a call to one address of the target; empty if it has an answer."""
    try:
        with asked.client(at=address) as client:
            client.authority()
    except SessiondError as error:
        return error.message
    return ""
