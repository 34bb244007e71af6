"""Sessions in gRPC servers: interceptors for `grpc.aio.server` and for `grpc.server`.

    server = grpc.aio.server(interceptors=[AsyncSessionInterceptor("127.0.0.1:7443")])

Clients send the session token in the metadata `authorization: Bearer TOKEN`; behind a proxy that speaks gRPC-Web,
browsers send it in the cookie. Every method needs a user who is logged in, unless it is public. A handler finds the
session by `current_call()`. A stream ends when its session ends.

A renewed or new token comes back in the trailing metadata `x-session-token`: the client must use it from then on.
"""

from __future__ import annotations

from sessiond_client.contrib.grpc.aio import AsyncSessionInterceptor
from sessiond_client.contrib.grpc.call import SessionCall, current_call, requires
from sessiond_client.contrib.grpc.rules import TOKEN_METADATA
from sessiond_client.contrib.grpc.threads import SessionInterceptor
from sessiond_client.gateway import RouteRequirements

__all__ = [
    "TOKEN_METADATA",
    "AsyncSessionInterceptor",
    "RouteRequirements",
    "SessionCall",
    "SessionInterceptor",
    "current_call",
    "requires",
]
