"""The settings of a client, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

import grpc

from sessiond_client.arguments import check_value
from sessiond_client.kinds import Int32, Items, Seconds
from sessiond_client.tls import TlsFiles
from sessiond_client.tokens import Token

__all__ = ["DEFAULT_RETRIES", "DEFAULT_TIMEOUT", "ClientOptions", "Settings"]

DEFAULT_TIMEOUT = 5.0
"""Seconds that a call may take, unless the client or the call sets another limit."""

DEFAULT_RETRIES = 4
"""How often a call is repeated: over about two seconds, long enough for a restart of the authority."""


class ClientOptions(TypedDict, total=False):
    """The options of a client, all optional: `Client(target, application="shop", timeout=2.0)`."""

    application: str
    """The application that every call is about; empty means `default`."""
    timeout: Seconds
    """Seconds for each call, retries included (for each page of a list); 5 by default. Event streams have no limit."""
    credentials: grpc.ChannelCredentials | None
    """Credentials of gRPC's own, for what `tls` cannot express. None: `tls` decides."""
    tls: bool | TlsFiles
    """True: TLS, trusting the public certificate authorities that gRPC knows. `TlsFiles(ca=...)`: trusting your own,
    and with a certificate of the client if the authority requires one. False (the default): plaintext, for a Unix
    socket, for loopback, or for a proxy that adds TLS."""
    key: str | Token | None
    """The key of this caller, if the authority has callers (`sessionctl callers add`). None: none is sent."""
    allow_remote_plaintext: bool
    """True: send `key` to another machine without encryption of our own, because something else encrypts the
    connection, such as a service mesh. False (the default): refuse that."""
    retries: Int32
    """How often a call is repeated after `Unavailable`, or after the `Cancelled` of an authority that shuts down, with
    growing pauses and within the deadline. 4 (the default) takes about two seconds; 0: never. A call that an authority
    has refused because of a limit or overload (`ResourceExhausted`) is repeated after the time that it asked for."""
    safe_retries: bool
    """True (the default): send a `request_id` with each changing call, so that it may be repeated and still takes
    effect once. Each id costs the authority a sealed answer, kept for the policy's `answer_retention` (24 hours by
    default). False: changing calls other than `revoke` are repeated only if they were never sent."""
    coalesce: bool
    """For `AsyncClient`: put validations that are under way at the same time into batches on one stream, which costs
    far less than a call for each. True by default. A few at a time are always calls of their own, and so are all if the
    authority does not serve the stream, or if there is an interceptor for unary calls, which would not see them."""
    interceptors: Items[Any]
    """gRPC client interceptors for every call and stream; for `AsyncClient` those of `grpc.aio`. They see requests and
    responses, tokens included."""
    channel_options: Items[tuple[str, Any]]
    """gRPC channel options. They override those of this package."""
    near_cache: bool
    """True: `validate` answers repeated questions from memory, which follows the authority's changes. A revocation that
    waits for caches holds here when it returns; any other one after some milliseconds, at most 5 seconds."""
    near_cache_entries: Int32
    """How many answers the near cache holds; 10,000 by default."""
    near_cache_bytes: Int32
    """About how many bytes they may take; 64 MiB by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A client's settings; see `ClientOptions`."""

    target: str
    application: str = ""
    timeout: Seconds = DEFAULT_TIMEOUT
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    tls: bool | TlsFiles = False
    key: str | Token | None = field(default=None, repr=False)
    allow_remote_plaintext: bool = False
    retries: Int32 = DEFAULT_RETRIES
    safe_retries: bool = True
    coalesce: bool = True
    interceptors: Items[Any] = field(default=(), repr=False)
    channel_options: Items[tuple[str, Any]] = field(default=(), repr=False)
    near_cache: bool = False
    near_cache_entries: Int32 = 10_000
    near_cache_bytes: Int32 = 64 * 1024 * 1024

    def checked(self) -> Settings:
        """The same settings, checked and normalized. Raises `InvalidArgument`."""
        return check_value(Settings, self)
