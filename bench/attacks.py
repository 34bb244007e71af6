"""Attacks by which one caller may slow down the others. Each row of the overload table runs in its own process.

`python -m bench.attacks NAME ADDRESS SIZE` prints `ready` when the attack has begun, and runs until its standard input
ends or 30 seconds have passed. It runs at a low CPU priority, so that a measurement shows the load of the server and
not that of the attacker.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import grpc
import h2.connection
import h2.events

from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub

__all__ = ["ATTACKS", "CONTROL", "Attack", "Frames"]

_UNFINISHED = 3_900_000
_ARRIVING = 16 * 4_194_304
"""The bytes of the messages that may arrive at once on one connection."""
_TOKEN_BYTES = 52
_SERVICE = "/sessiond.v1.SessionAuthority/"
_LONGEST = 30.0
_untyped: Any = pb  # so that a submessage can be written as a dict


@dataclass(frozen=True, slots=True)
class Attack:
    """One row of the overload table.

    what      a description of the attack
    run       runs the attack at the given address and size, until the event is set
    size      the size in the benchmark; a test may use a smaller one
    sessions  the number of sessions, each with one event, that the store contains before the attack
    config    the server's configuration
    arriving  the bytes that gRPC may buffer while the attack's messages arrive (see `sessiond.rpc.arrivals`)
    """

    what: str
    run: Callable[[str, int, threading.Event], None]
    size: int
    sessions: int = 0
    config: str = ""
    arriving: int = 0


def _channel(address: str) -> grpc.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.insecure_channel(address, options=options)


def _raw_call(address: str, method: str) -> Any:
    return _channel(address).unary_unary(_SERVICE + method)


def _repeat(callers: int, ended: threading.Event, call: Callable[[], object]) -> None:
    """Let `callers` threads repeat a call until the attack ends. Errors of a call are ignored."""

    def caller() -> None:
        while not ended.is_set():
            with suppress(grpc.RpcError):
                call()

    with ThreadPoolExecutor(callers) as pool:
        for _ in range(callers):
            pool.submit(caller)
        _ready(ended)


def _ready(ended: threading.Event) -> None:
    print("ready", flush=True)
    ended.wait(_LONGEST)
    ended.set()


def _endless_varint(address: str, size: int, ended: threading.Event) -> None:
    call, message = _raw_call(address, "ValidateSession"), b"\xff" * size
    _repeat(1, ended, lambda: call(message, timeout=20))


def _tiny_fields(address: str, size: int, ended: threading.Event) -> None:
    call, message = _raw_call(address, "ValidateSession"), b"\xa0\x06\x00" * (size // 3) + b"\xff"
    _repeat(1, ended, lambda: call(message, timeout=20))


def _unfinished(address: str, size: int, ended: threading.Event) -> None:
    """Keep so many calls open whose message lacks its last byte; no gRPC client does that. Replace those that end."""
    host, _, port = address.rpartition(":")
    headers = {":method": "POST", ":scheme": "http", ":authority": address, ":path": _SERVICE + "ValidateSession"}
    headers |= {"content-type": "application/grpc", "te": "trailers"}
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    left: dict[int, int] = {}  # by stream: how many bytes are still to be sent
    under_way = threading.Event()

    def open_streams() -> None:
        while len(left) < size:
            stream = connection.get_next_available_stream_id()
            connection.send_headers(stream, list(headers.items()))
            left[stream] = _UNFINISHED - 1
            connection.send_data(stream, b"\0" + _UNFINISHED.to_bytes(4, "big"))

    def send() -> bool:
        """Send what the server's windows allow; return whether that is anything."""
        progress = False
        for stream, bytes_left in left.items():
            window = min(connection.local_flow_control_window(stream), bytes_left)
            while window > 0:
                part = min(window, connection.max_outbound_frame_size)
                connection.send_data(stream, b"x" * part)
                window, left[stream], progress = window - part, left[stream] - part, True
        return progress

    def feed(opened: socket.socket) -> None:
        while not ended.is_set():
            open_streams()
            if not send():
                under_way.set()  # all that the server takes at the moment has arrived
            opened.settimeout(None)
            opened.sendall(connection.data_to_send())
            opened.settimeout(0.05)
            with suppress(TimeoutError):
                for event in connection.receive_data(opened.recv(1 << 20)):
                    if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                        left.pop(event.stream_id or 0, None)

    with socket.create_connection((host, int(port))) as opened:
        threading.Thread(target=feed, args=(opened,), daemon=True).start()
        under_way.wait(_LONGEST)
        _ready(ended)


def _filter_texts(address: str, size: int, ended: threading.Event) -> None:
    texts = [f"{number:02}" + "x" * 39_000 for number in range(100)]
    request = _untyped.SubscribeRequest(filter={"subjects": texts})
    stub = SessionAuthorityStub(_channel(address))

    def call() -> None:
        for stream in [stub.Subscribe(request, timeout=20) for _ in range(size)]:
            with suppress(grpc.RpcError):
                next(stream)
        time.sleep(0.5)

    _repeat(1, ended, call)


def _silent_subscribers(address: str, size: int, ended: threading.Event) -> None:
    stubs = [SessionAuthorityStub(_channel(address)) for _ in range(4)]
    streams = [stubs[n % 4].Subscribe(pb.SubscribeRequest(start=pb.STREAM_START_EARLIEST)) for n in range(size)]
    time.sleep(1)
    _ready(ended)
    for stream in streams:
        stream.cancel()


def _many_keys(address: str, size: int, ended: threading.Event) -> None:
    stub = SessionAuthorityStub(_channel(address))
    data = {f"{number}": b"" for number in range(1_000)}
    created = stub.CreateSession(pb.CreateSessionRequest(subject="mallory", data=data))
    request = _untyped.UpdateSessionDataRequest(session={"token": created.token}, set={"7": b""})

    def call() -> None:
        for one in [stub.UpdateSessionData.future(request, timeout=20) for _ in range(size)]:
            one.result()
        time.sleep(0.2)

    _repeat(1, ended, call)


def _list_by_address(address: str, size: int, ended: threading.Event) -> None:
    stub = SessionAuthorityStub(_channel(address))
    request = _untyped.ListSessionsRequest(filter={"ip_network": "192.0.2.0/24"}, page_size=1000)
    _repeat(size, ended, lambda: stub.ListSessions(request, timeout=20))


def _idle_subscribers(address: str, size: int, ended: threading.Event) -> None:
    stubs = [SessionAuthorityStub(_channel(address)) for _ in range(4)]
    request = _untyped.SubscribeRequest(filter={"subjects": ["nobody"]}, start=pb.STREAM_START_NOW)
    streams = [stubs[number % 4].Subscribe(request) for number in range(size)]
    time.sleep(1)
    _ready(ended)
    for stream in streams:
        stream.cancel()


def _replays(address: str, size: int, ended: threading.Event) -> None:
    stubs = [SessionAuthorityStub(_channel(address)) for _ in range(4)]
    turns = iter(range(10**9))

    def call() -> None:
        stream = stubs[next(turns) % 4].Subscribe(pb.SubscribeRequest(start=pb.STREAM_START_EARLIEST), timeout=20)
        seen = False
        for item in stream:
            seen = seen or item.HasField("event")
            if ended.is_set() or (seen and item.HasField("checkpoint")):
                break
        stream.cancel()

    _repeat(size, ended, call)


def _long_agents(address: str, size: int, ended: threading.Event) -> None:
    stub = SessionAuthorityStub(_channel(address))
    agent = "Mozilla/5.0 " + "x" * 4_000
    created = stub.CreateSession(_untyped.CreateSessionRequest(subject="mallory", client={"user_agent": agent}))
    question = {"token": created.token, "client": {"user_agent": agent}}
    batch = _untyped.ValidateSessionsRequest(requests=[question] * size)

    def call() -> None:
        stub.ValidateSessions(batch, timeout=20)
        time.sleep(0.05)

    _repeat(1, ended, call)


def _abandoned(address: str, size: int, ended: threading.Event) -> None:
    stub = SessionAuthorityStub(_channel(address))

    def call() -> None:
        begun = [stub.CreateSession.future(pb.CreateSessionRequest(subject="mallory")) for _ in range(size)]
        for one in begun:
            one.cancel()
        time.sleep(0.2)

    _repeat(1, ended, call)


def _burst(address: str, size: int, ended: threading.Event) -> None:
    stub = SessionAuthorityStub(_channel(address))

    def call() -> None:
        begun = [stub.ValidateSession.future(pb.ValidateSessionRequest(token="x"), timeout=20) for _ in range(size)]
        for one in begun:
            one.result()
        time.sleep(1)

    _repeat(1, ended, call)


class Frames:
    """One HTTP/2 connection on which unary calls are made by frames that are ready beforehand.

    A gRPC client in Python takes more time for a call than the server does, and so cannot flood it.
    """

    def __init__(self, address: str, method: str, message: bytes) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        headers = {":method": "POST", ":scheme": "http", ":authority": address, ":path": _SERVICE + method}
        headers |= {"content-type": "application/grpc", "te": "trailers"}
        texts = [text.encode() for header in headers.items() for text in header]
        # RFC 7541, 6.2.2: a literal header field without indexing is 0, then name and value, each with its length.
        pairs = zip(texts[::2], texts[1::2], strict=True)
        self._headers = b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in pairs)
        self._message = b"\0" + len(message).to_bytes(4, "big") + message
        self._stream, self._window, self._unread = 1, 65_535, b""
        settings = b"\0\4" + (2**31 - 1).to_bytes(4, "big")  # no limit on the bytes of a stream, or of all of them
        more = (2**31 - 1 - 65_535).to_bytes(4, "big")
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, settings) + _frame(8, 0, 0, more))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def begin(self, count: int) -> int:
        """Begin so many calls, or as many as the server's window allows, and return the number."""
        count = min(count, self._window // len(self._message))
        parts = []
        for _ in range(count):
            parts += [_frame(1, 4, self._stream, self._headers), _frame(0, 1, self._stream, self._message)]
            self._stream += 2
        self._window -= count * len(self._message)
        self._socket.sendall(b"".join(parts))
        return count

    def ended(self) -> int:
        """Wait for the server to send something, and return how many calls have ended."""
        data, at, count = self._unread + self._socket.recv(1 << 20), 0, 0
        while len(data) - at >= 9 and len(data) - at >= 9 + (size := int.from_bytes(data[at : at + 3], "big")):
            kind, flags, stream = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big")
            content = data[at + 9 : at + 9 + size]
            at += 9 + size
            if kind == 3 or (kind in (0, 1) and flags & 1):
                count += 1
            elif kind == 8 and not stream:
                self._window += int.from_bytes(content, "big")
            elif kind in (4, 6) and not flags & 1:  # settings and pings are acknowledged
                self._socket.sendall(_frame(kind, 1, 0, content if kind == 6 else b""))
        self._unread = data[at:]
        return count


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Return an HTTP/2 frame (RFC 9113, 4.1)."""
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


def _flood(address: str, size: int, ended: threading.Event) -> None:
    """Keep so many validations of a valid token under way on one connection."""
    created = SessionAuthorityStub(_channel(address)).CreateSession(pb.CreateSessionRequest(subject="mallory"))
    message = pb.ValidateSessionRequest(token=created.token).SerializeToString()

    def flood() -> None:
        frames, under_way = Frames(address, "ValidateSession", message), 0
        while not ended.is_set():
            under_way += frames.begin(size - under_way)
            under_way -= frames.ended()

    _repeat(1, ended, flood)


def _batches(address: str, size: int, ended: threading.Event) -> None:
    stub = SessionAuthorityStub(_channel(address))
    token = stub.CreateSession(pb.CreateSessionRequest(subject="ada")).token
    batch = _untyped.ValidateSessionsRequest(requests=[{"token": token}] * 900)
    _repeat(size, ended, lambda: stub.ValidateSessions(batch, timeout=20))


def _forged_stream(address: str, size: int, ended: threading.Event) -> None:
    """Send batches of different forged tokens on one stream, so many of them ahead of the answers.

    The addresses and the user agents differ too, so that nothing that the server remembers helps it. The messages are
    made once, so that the attacker is not what limits the stream.
    """
    call: Any = _channel(address).stream_stream(_SERVICE + "StreamValidations")
    messages = [
        _untyped.StreamValidationsRequest(requests=[_forged_question(number) for number in range(first, first + 1_000)])
        for first in range(0, 8_000, 1_000)
    ]
    raw = cycle([message.SerializeToString() for message in messages])
    ahead = threading.Semaphore(size)

    def batches() -> Iterator[bytes]:
        while not ended.is_set():
            ahead.acquire()
            yield next(raw)

    def flood() -> None:
        unanswered = 1_000
        for answer in call(batches()):
            unanswered -= len(pb.StreamValidationsResponse.FromString(answer).responses)
            if unanswered <= 0:
                unanswered += 1_000
                ahead.release()

    _repeat(1, ended, flood)


def _forged_question(number: int) -> Any:
    token = urlsafe_b64encode(os.urandom(_TOKEN_BYTES)).rstrip(b"=").decode()
    agent = f"Mozilla/5.0 (X11; Linux x86_64; rv:{number}.0) Gecko/20100101 Firefox/{number}.0"
    return {"token": token, "client": {"ip_address": f"10.0.{number // 250}.{number % 250}", "user_agent": agent}}


_MANY_SUBSCRIBERS = "[server]\nmax_subscribers = 1000\n"
ATTACKS = {
    "endless varint": Attack("one message whose varint never ends", _endless_varint, 600_000),
    "tiny fields": Attack("4 MB of tiny unknown fields with a bad end", _tiny_fields, 3_900_000),
    "unfinished messages": Attack(
        "300 calls whose message of 3.9 MB lacks its last byte", _unfinished, 300, arriving=2 * _ARRIVING
    ),
    "filter texts": Attack(
        "60 Subscribe calls at once with 3.9 MB of filter texts each", _filter_texts, 60, arriving=2 * _ARRIVING
    ),
    "silent subscribers": Attack("100 subscribers that do not read what they replay", _silent_subscribers, 100, 20_000),
    "many keys": Attack(
        "40 updates at once of a session with 1,000 keys", _many_keys, 40, config="[server]\nencrypt_data = true\n"
    ),
    "list by address": Attack("8 callers that list by an address that nobody has", _list_by_address, 8, 300_000),
    "idle subscribers": Attack(
        "900 subscribers whose filter matches nothing", _idle_subscribers, 900, config=_MANY_SUBSCRIBERS
    ),
    "replays": Attack("400 subscribers that replay 20,000 events", _replays, 400, 20_000, _MANY_SUBSCRIBERS),
    "long agents": Attack("batches of 850 questions with a user agent of 4 KB", _long_agents, 850),
    "abandoned calls": Attack("4,400 creations at once that are begun and abandoned", _abandoned, 4_400),
    "forged stream": Attack("one stream of batches of 1,000 forged tokens, 8 of them ahead", _forged_stream, 8),
    "burst": Attack("1,500 calls at once", _burst, 1_500),
    "flood": Attack("1,500 validations under way on one connection all the time", _flood, 1_500),
    "refused flood": Attack(
        "the same, almost all of them beyond the rate of their caller",
        _flood,
        1_500,
        config="[limits]\nrate_per_caller = 500\n",
    ),
}
CONTROL = Attack("16 callers of batches of 900 questions: honest, but a load", _batches, 16)


def main() -> None:
    """Run the attack that the command line names."""
    name, address, size = sys.argv[1:]
    os.nice(15)
    ended = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    ATTACKS.get(name, CONTROL).run(address, int(size), ended)
    os._exit(0)  # do not wait for streams that hang


if __name__ == "__main__":
    main()
