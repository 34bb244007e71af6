"""The settings of a client, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

import grpc

from sessiond_client.arguments import check_value
from sessiond_client.kinds import Int32, Items, Seconds

__all__ = ["DEFAULT_RETRIES", "DEFAULT_TIMEOUT", "ClientOptions", "Settings"]

DEFAULT_TIMEOUT = 5.0
"""Seconds a call may take, unless its client or the call itself sets another limit."""

DEFAULT_RETRIES = 4
"""How often a call is repeated: over about two seconds, a restart of the authority."""


class ClientOptions(TypedDict, total=False):
    """What a client takes beside its target; everything may be left out."""

    application: str
    """The application that every call is about; empty means `default`."""
    timeout: Seconds
    """Seconds for each call, retries included (for each page of a listing). A stream of events has no limit."""
    credentials: grpc.ChannelCredentials | None
    """Of a TLS connection. None: plaintext, for a Unix socket, for loopback, or behind a proxy that adds TLS."""
    retries: Int32
    """How often a call is repeated after `Unavailable` and the `Cancelled` of an authority that stops, with growing
    pauses and within the deadline. 4 (the default) is about two seconds; 0: never."""
    safe_retries: bool
    """Each changing call carries a `request_id`, so that it may be repeated too and still takes effect once. Each id
    costs the authority a sealed answer, kept for 24 hours. False: changing calls but `revoke` are repeated only if
    they were never sent."""
    interceptors: Items[Any]
    """gRPC client interceptors for every call, streams included; for `AsyncClient` those of `grpc.aio`. They see
    requests and answers, tokens included."""
    channel_options: Items[tuple[str, Any]]
    """gRPC channel options, which override those of this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A client's settings; see `ClientOptions`."""

    target: str
    application: str = ""
    timeout: Seconds = DEFAULT_TIMEOUT
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    retries: Int32 = DEFAULT_RETRIES
    safe_retries: bool = True
    interceptors: Items[Any] = field(default=(), repr=False)
    channel_options: Items[tuple[str, Any]] = field(default=(), repr=False)

    def checked(self) -> Settings:
        """The same settings in their uniform form. Raises `InvalidArgument`."""
        return check_value(Settings, self)
