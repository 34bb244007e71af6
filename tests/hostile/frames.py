"""HTTP/2 frames, made by hand: no library sends what an attacker sends, and this is fast enough to flood a server."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "CALL",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "PREFACE",
    "block",
    "continuation",
    "data",
    "frame",
    "headers",
    "message",
    "ping",
    "reset",
    "settings",
    "start",
    "window_update",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, _HEADERS, _RESET, _SETTINGS, _PING, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4
_INITIAL_WINDOW = 4
_CANCEL = 8
_SERVICE = "/sessiond.v1.SessionAuthority/"


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """Return one frame (RFC 9113 section 4.1)."""
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def _text(value: bytes) -> bytes:
    """Return a string of HPACK without compression (RFC 7541 section 5.2)."""
    length = len(value)
    if length < 127:
        return bytes([length]) + value
    length, out = length - 127, bytearray([127])
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes([*out, length]) + value


def block(fields: Mapping[str, str]) -> bytes:
    """Return a block of headers. Each is a literal that enters no table, so blocks do not depend on each other."""
    return b"".join(b"\0" + _text(name.encode()) + _text(value.encode()) for name, value in fields.items())


def _call(method: str, **more: str) -> bytes:
    path = method if method.startswith("/") else _SERVICE + method
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test"}
    return block(fields | {"content-type": "application/grpc", "te": "trailers"} | more)


CALL = _call
"""Return the block of headers of a call."""


def headers(stream: int, content: bytes, flags: int = END_HEADERS) -> bytes:
    """Return the frame that begins a stream."""
    return frame(_HEADERS, flags, stream, content)


def continuation(stream: int, content: bytes, flags: int = 0) -> bytes:
    """Return a frame that continues headers."""
    return frame(_CONTINUATION, flags, stream, content)


def data(stream: int, content: bytes = b"", flags: int = 0) -> bytes:
    """Return a frame of data."""
    return frame(DATA, flags, stream, content)


def message(raw: bytes) -> bytes:
    """Return a gRPC message, preceded by its length."""
    return b"\0" + len(raw).to_bytes(4, "big") + raw


def reset(stream: int) -> bytes:
    """Return the frame that abandons a stream."""
    return frame(_RESET, 0, stream, _CANCEL.to_bytes(4, "big"))


def settings(window: int | None = None) -> bytes:
    """Return a frame of settings; `window`: how much the server may send on each stream."""
    content = b"" if window is None else _INITIAL_WINDOW.to_bytes(2, "big") + window.to_bytes(4, "big")
    return frame(_SETTINGS, 0, 0, content)


def ping(number: int) -> bytes:
    """Return a ping."""
    return frame(_PING, 0, 0, number.to_bytes(8, "big"))


def window_update(stream: int, more: int) -> bytes:
    """Return the frame that allows the server to send more."""
    return frame(_WINDOW, 0, stream, more.to_bytes(4, "big"))


def start(window: int | None = None) -> bytes:
    """Return what a client sends first."""
    return PREFACE + settings(window)
