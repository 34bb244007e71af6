"""Listening: the options of every gRPC server here, and how it binds an address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sessiond.rpc.sockets import open_socket, prepare_socket, private_sockets, why_not

__all__ = [
    "KEEPALIVE_TIMEOUT_MS",
    "KEEPALIVE_TIME_MS",
    "MAX_IDLE_MS",
    "MAX_MESSAGE_BYTES",
    "MAX_METADATA_BYTES",
    "bind",
    "server_options",
]

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_METADATA_BYTES = 8 * 1024
KEEPALIVE_TIME_MS, KEEPALIVE_TIMEOUT_MS = 60_000, 20_000
MAX_IDLE_MS = 300_000
"""For how long a connection may have no call under way. Clients connect again when they need to."""
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    # The part of a message that may arrive before the call asks for it (see `Arrivals`). gRPC must not enlarge it.
    ("grpc.http2.lookahead_bytes", 64 * 1024),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_allowed_incoming_connections", 2_000),
    # Calls that wait to be accepted. Beyond these limits gRPC ends random calls as CANCELLED, as if by the caller.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    # The handshake of TLS, if there is one, and that of HTTP/2 together.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", MAX_IDLE_MS),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.http2.max_ping_strikes", 3),
]

_CONNECTION_AGE_MS, _CONNECTION_GRACE_MS = 10 * 60_000, 50 * 60_000
"""How long a connection takes new calls (gRPC adds or subtracts up to a tenth), and how long the others may go on."""


def server_options(max_calls: int, *, shares_port: bool = False, renews: bool = False) -> list[tuple[str, Any]]:
    """Return the options of a server.

    `shares_port` lets other servers of this user bind the same port. With `renews` connections have an end, so that
    each client shows a certificate again that is valid then, and is signed by an authority that is trusted then.
    """
    ages = [
        ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),
        ("grpc.max_connection_age_grace_ms", _CONNECTION_GRACE_MS),
    ]
    return [
        *_OPTIONS,
        *(ages if renews else ()),
        # By default a second server could bind the same port without an error.
        ("grpc.so_reuseport", int(shares_port)),
        # Further calls wait in the client. Calls that begin before the client knows this limit are reset.
        ("grpc.max_concurrent_streams", max_calls // 2),
    ]


def bind(
    add_port: Callable[[str], int], address: str, socket_mode: int = 0o600, socket_group: str | None = None
) -> str:
    """Bind `host:port` (port 0: any free port) or `unix:path`, and return the bound address.

    `add_port` is the server's own method; it returns the port. `socket_mode` and `socket_group` are the mode and the
    group of the Unix socket, which control who may connect.
    Raise `CannotListen` if that is not possible.
    """
    if address.startswith("unix:"):
        prepare_socket(address.removeprefix("unix:"))
    try:
        with private_sockets():
            port = add_port(address)
    except (RuntimeError, OSError):
        raise why_not(address) from None
    if address.startswith("unix:"):
        open_socket(address.removeprefix("unix:"), socket_mode, socket_group)
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
