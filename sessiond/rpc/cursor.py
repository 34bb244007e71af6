"""Cursors, consistency tokens and page tokens: opaque, versioned positions that callers keep. They are not secret."""

from __future__ import annotations

import struct
from binascii import crc32

from sessiond.crypto import base64url
from sessiond.domain.errors import InvalidField
from sessiond.domain.position import INCARNATION_BYTES, Position
from sessiond.domain.values import Revision

__all__ = [
    "decode_consistency_token",
    "decode_cursor",
    "decode_page",
    "decode_revision_page",
    "encode_consistency_token",
    "encode_cursor",
    "encode_page",
]

_CURSOR_VERSION = 2
_CONSISTENCY_VERSION = 0x81  # the high bit distinguishes it from a cursor
_PAGE_VERSION = 1
_OWNER = struct.Struct(">B16s")
_POSITION = struct.Struct(f">H{INCARNATION_BYTES}sQ")  # log, incarnation, revision; the format allows several logs
_LOG = 0
_MAX_REVISION = 2**63 - 1
_CHECK = struct.Struct(">I")
_INVALID = "invalid; pass it exactly as received"


def _seal(body: bytes) -> str:
    return base64url.encode(body + _CHECK.pack(crc32(body)))


def _unseal(text: str, field: str) -> bytes:
    try:
        raw = base64url.decode(text)
    except ValueError:
        raw = b""
    body, check = raw[: -_CHECK.size], raw[-_CHECK.size :]
    if not body or len(check) != _CHECK.size or _CHECK.unpack(check)[0] != crc32(body):
        raise InvalidField(field, _INVALID)
    return body


def encode_cursor(authority_id: bytes, position: Position) -> str:
    """Return the cursor that resumes directly after `position` in this authority's log."""
    return _encode(_CURSOR_VERSION, authority_id, position)


def decode_cursor(
    text: str,
    authority_id: bytes,
    field: str = "cursor",
    remedy: str = "subscribe again with start = EARLIEST or NOW",
) -> Position:
    """Return the position of a cursor. `remedy` says what to do if it can never be used here.

    Raise `InvalidField` if it is damaged, has another format, or was issued by another authority.
    """
    return _decode(field, text, (_CURSOR_VERSION,), authority_id, remedy)


def encode_consistency_token(authority_id: bytes, position: Position) -> str:
    """Return the consistency token of the state at `position` in this authority's log."""
    return _encode(_CONSISTENCY_VERSION, authority_id, position)


def decode_consistency_token(text: str, authority_id: bytes) -> Position:
    """Return the position of a consistency token or a cursor. Raise `InvalidField`, as `decode_cursor` does."""
    return _decode("at_least", text, (_CONSISTENCY_VERSION, _CURSOR_VERSION), authority_id, "leave it out")


def _encode(version: int, authority_id: bytes, position: Position) -> str:
    return _seal(_OWNER.pack(version, authority_id) + _POSITION.pack(_LOG, position.incarnation, position.revision))


def _decode(field: str, text: str, versions: tuple[int, ...], authority_id: bytes, remedy: str) -> Position:
    body = _unseal(text, field)
    if body[0] not in versions:
        raise InvalidField(
            field, f"has format {body[0]}, but this authority supports only format {versions[0]}; {remedy}"
        )
    if len(body) != _OWNER.size + _POSITION.size:
        raise InvalidField(field, f"refers to logs that this authority does not have; {remedy}")
    _, identity = _OWNER.unpack_from(body)
    log, incarnation, revision = _POSITION.unpack_from(body, _OWNER.size)
    if identity != authority_id:
        raise InvalidField(field, f"was issued by another authority; {remedy}")
    if log != _LOG:
        raise InvalidField(field, f"refers to a log that this authority does not have; {remedy}")
    return Position(incarnation, Revision(revision))


def encode_page(query: bytes, position: bytes) -> str:
    """Return the token of the page after `position`, bound to the query that it continues."""
    return _seal(bytes([_PAGE_VERSION]) + _CHECK.pack(crc32(query)) + position)


def decode_revision_page(text: str, query: bytes) -> Revision | None:
    """Return the revision that the page token contains; None if `text` is empty. Raise as `decode_page` does."""
    position = decode_page(text, query, 8)
    if position is None:
        return None
    revision = int.from_bytes(position, "big")
    if revision > _MAX_REVISION:
        raise InvalidField("page_token", _INVALID)
    return Revision(revision)


def decode_page(text: str, query: bytes, length: int) -> bytes | None:
    """Return the position that the page token contains, `length` bytes; None if `text` is empty.

    Raise `InvalidField` if the token is damaged or was issued for another query.
    """
    if not text:
        return None
    body = _unseal(text, "page_token")
    if body[0] != _PAGE_VERSION or len(body) != 1 + _CHECK.size + length:
        raise InvalidField("page_token", "was issued by another call; pass the one from this call's last response")
    if body[1 : 1 + _CHECK.size] != _CHECK.pack(crc32(query)):
        raise InvalidField("page_token", "was issued for another query; repeat the other fields unchanged")
    return body[1 + _CHECK.size :]
