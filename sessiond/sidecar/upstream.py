"""The authority that a sidecar asks: its channels, and calls of raw bytes on them."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from sessiond.access.tls import TlsFile, TlsFiles, TlsMaterial
from sessiond.access.tls_watch import TlsWatch
from sessiond.config.sidecar import SidecarConfig
from sessiond.domain.call import FORWARDED_KEY, PEER_KEY
from sessiond.domain.immutable import immutable
from sessiond.system.clock import Clock
from sessiond_client.connection import Channels, channel_options
from sessiond_client.errors import with_tls_hint
from sessiond_client.settings import Settings
from sessiond_client.tokens import Token

__all__ = ["BadKey", "Metadata", "Reply", "Upstream", "passed_on", "tls_of"]

Metadata = Sequence[tuple[str, str | bytes]]
Channel = grpc.aio.Channel

_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Statuses have details of up to 8 KB in their trailers.
    ("grpc.max_metadata_size", 16 * 1024),
    # A machine that vanished is noticed after 40 s; calls without a deadline end then. An authority closes a connection
    # that sends pings more often than every 20 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # While an attempt to connect is awaited, calls are refused. All callers of this machine share it.
    ("grpc.max_reconnect_backoff_ms", 250),
)
_PROBE_SECONDS = 2.0
_CHECK = "/grpc.health.v1.Health/Check"
_OF_THE_CONNECTION = {"user-agent", "te", "content-type", "connection", "host", PEER_KEY, FORWARDED_KEY}
_MOST_METHODS = 100
_RENEWAL_GRACE = 30.0
"""Seconds for which calls and streams may go on over a connection whose certificates have been replaced."""


class BadKey(Exception):
    """The file with the sidecar's own key cannot be used. The text names it, with the remedy, and shows no key."""


@immutable
class Reply:
    """A response as the authority gave it: the bytes of the message, and the metadata before and after it."""

    body: bytes
    initial: Metadata
    trailing: Metadata


def passed_on(metadata: Metadata | None) -> list[tuple[str, str | bytes]]:
    """Return the metadata of a call that goes to the authority: all but what belongs to one connection."""
    return [
        (key, value)
        for key, value in metadata or ()
        if key not in _OF_THE_CONNECTION and not key.startswith((":", "grpc-"))
    ]


class Upstream:
    """The authority at one address. Streams have a channel of their own, so that they never block calls.

    `tls`: the files for TLS; None: plaintext. When they change, new channels are opened, and those before are closed
    after a grace. Raises `BadKey`.
    """

    def __init__(self, config: SidecarConfig, tls: TlsWatch | None = None) -> None:
        self._address = config.upstream
        self._tls = tls
        self._closing: set[asyncio.Task[None]] = set()
        self.problem = ""
        """Why the authority did not answer the last time that it did not."""
        key = None if config.key_file is None else _key(config.key_file)
        self._open()
        self.following = Channels(self._channel, asynchronous=True, is_renewed=self._is_renewed, key=key)
        """The channel of the stream that feeds the cache. The other channels send only the keys of callers."""
        self._followed = self._used

    def _open(self) -> None:
        self._used = None if self._tls is None else self._tls.current
        self._calls, self._streams = self._channel(), self._channel()
        self._health: Any = self._calls.unary_unary(_CHECK)
        self._unary: dict[str, Any] = {}
        self._streaming: dict[str, Any] = {}

    def renew(self) -> None:
        """Use the newest files for TLS from now on."""
        if self._tls is None or self._tls.current is self._used:
            return
        old = (self._calls, self._streams)
        self._open()
        for channel in old:
            task = asyncio.get_running_loop().create_task(channel.close(_RENEWAL_GRACE))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _is_renewed(self) -> bool:
        """Return whether the stream that feeds the cache needs a new channel; it asks when it begins again."""
        if self._tls is None or self._tls.current is self._followed:
            return False
        self._followed = self._tls.current
        return True

    async def ask(self, method: str, raw: bytes, metadata: Metadata, timeout: float | None) -> Reply:
        """Make a unary call. `method` is its path. Raises `grpc.aio.AioRpcError`."""
        ask = self._unary.get(method)
        if ask is None:
            ask = self._unary[method] = self._calls.unary_unary(method)
        call = ask(raw, metadata=metadata, timeout=timeout)
        body = await call
        return Reply(body, tuple(await call.initial_metadata()), tuple(await call.trailing_metadata()))

    def stream(self, method: str, metadata: Metadata, timeout: float | None) -> Any:
        """Begin a call with a stream in each direction; on the wire every other kind of call is one too."""
        begin = self._streaming.get(method)
        if begin is None:
            # Names come from callers, so not every one is kept.
            begin = self._streams.stream_stream(method)
            if len(self._streaming) < _MOST_METHODS:
                self._streaming[method] = begin
        return begin(metadata=metadata, timeout=timeout)

    async def is_answering(self) -> bool:
        """Return whether the authority answers and is not shutting down."""
        try:
            # In bytes, because gRPC would log what it cannot parse.
            raw = await self._health(b"", timeout=_PROBE_SECONDS)
            found = health_pb2.HealthCheckResponse.FromString(raw)
        except grpc.aio.AioRpcError as error:
            self.problem = with_tls_hint(error.details() or "")
            # Any other status came from a server, if only from one without health checks.
            return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        except DecodeError:
            return False
        return bool(found.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Close all channels. Calls that are under way end."""
        for task in tuple(self._closing):
            task.cancel()
        for channel in (self._calls, self._streams, *self.following.close()):
            await channel.close()

    def _channel(self) -> Channel:
        options = channel_options(Settings(target=self._address, channel_options=_OPTIONS))
        if self._tls is None:
            return grpc.aio.insecure_channel(self._address, options)
        return grpc.aio.secure_channel(self._address, _credentials(self._tls.current), options)


def tls_of(config: SidecarConfig, clock: Clock) -> TlsWatch | None:
    """Return the files for TLS to the authority; None: there is no TLS. Raise `BadTls` if they cannot be used."""
    if config.upstream_ca is None:
        return None

    def named(option: str, path: Path | None) -> TlsFile | None:
        return None if path is None else TlsFile(option, path)

    files = TlsFiles(
        named("--upstream-certificate", config.upstream_certificate),
        named("--upstream-key", config.upstream_key),
        named("--upstream-ca", config.upstream_ca),
        for_servers=False,
    )
    return TlsWatch(files, clock)


def _credentials(material: TlsMaterial) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(material.authorities, material.key, material.certificate)


def _key(file: Path) -> Token:
    """Return the key in a file, whose only line it must be."""
    try:
        if file.stat().st_mode & stat.S_IROTH:
            raise BadKey(f"--key-file: {file} can be read by everyone; run: chmod 600 {file}")
        text = file.read_bytes().decode("ascii", "replace").strip()
    except OSError as error:
        raise BadKey(f"--key-file: {file} cannot be read: {error.strerror}; name another file") from error
    if not (text.startswith("sessiond_") and text.isascii() and text.isprintable() and len(text.split()) == 1):
        raise BadKey(f"--key-file: {file} does not hold a key; write one line, as `sessionctl callers add` shows it")
    return Token(text)
