"""Cursors, consistency tokens and page tokens: opaque, versioned positions that callers keep. None is a secret."""

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
_CONSISTENCY_VERSION = 0x81  # the high bit tells the two kinds apart
_PAGE_VERSION = 1
_OWNER = struct.Struct(">B16s")
_POSITION = struct.Struct(f">H{INCARNATION_BYTES}sQ")  # log, incarnation, revision; once for each log
_LOG = 0
_MAX_REVISION = 2**63 - 1
_CHECK = struct.Struct(">I")


def _seal(body: bytes) -> str:
    return base64url.encode(body + _CHECK.pack(crc32(body)))


def _unseal(text: str, field: str) -> bytes:
    try:
        raw = base64url.decode(text)
    except ValueError:
        raw = b""
    body, check = raw[: -_CHECK.size], raw[-_CHECK.size :]
    if not body or len(check) != _CHECK.size or _CHECK.unpack(check)[0] != crc32(body):
        raise InvalidField(field, "is invalid; pass it exactly as received")
    return body


def encode_cursor(authority_id: bytes, position: Position) -> str:
    """The cursor that resumes exactly after `position` of this authority's log."""
    return _encode(_CURSOR_VERSION, authority_id, position)


def decode_cursor(text: str, authority_id: bytes) -> Position:
    """The position. Raises `InvalidField` for a damaged cursor, one of another format, or of another authority."""
    remedy = "belongs to another authority; start again with start = EARLIEST or NOW"
    return _decode("cursor", text, _CURSOR_VERSION, authority_id, remedy)


def encode_consistency_token(authority_id: bytes, position: Position) -> str:
    """The consistency token of the state at `position` of this authority's log."""
    return _encode(_CONSISTENCY_VERSION, authority_id, position)


def decode_consistency_token(text: str, authority_id: bytes) -> Position:
    """The position. Raises `InvalidField`, as `decode_cursor` does."""
    remedy = "belongs to another authority; leave it out"
    return _decode("at_least", text, _CONSISTENCY_VERSION, authority_id, remedy)


def _encode(version: int, authority_id: bytes, position: Position) -> str:
    return _seal(_OWNER.pack(version, authority_id) + _POSITION.pack(_LOG, position.incarnation, position.revision))


def _decode(field: str, text: str, version: int, authority_id: bytes, remedy: str) -> Position:
    body = _unseal(text, field)
    if body[0] != version:
        raise InvalidField(field, f"has format {body[0]}, this authority reads format {version}")
    if len(body) != _OWNER.size + _POSITION.size:
        raise InvalidField(field, "names logs that this authority does not have")
    _, identity = _OWNER.unpack_from(body)
    log, incarnation, revision = _POSITION.unpack_from(body, _OWNER.size)
    if identity != authority_id:
        raise InvalidField(field, remedy)
    if log != _LOG:
        raise InvalidField(field, "names a log that this authority does not have")
    return Position(incarnation, Revision(revision))


def encode_page(question: bytes, position: bytes) -> str:
    """The token of the page after `position`, bound to the question it continues."""
    return _seal(bytes([_PAGE_VERSION]) + _CHECK.pack(crc32(question)) + position)


def decode_revision_page(text: str, question: bytes) -> Revision | None:
    """The revision at which the page begins; None for no token. Raises `InvalidField`, as `decode_page` does."""
    position = decode_page(text, question, 8)
    if position is None:
        return None
    revision = int.from_bytes(position, "big")
    if revision > _MAX_REVISION:
        raise InvalidField("page_token", "is invalid; pass it exactly as received")
    return Revision(revision)


def decode_page(text: str, question: bytes, length: int) -> bytes | None:
    """The position, of that many bytes; None for no token.

    Raises `InvalidField` where it is damaged or belongs to another question.
    """
    if not text:
        return None
    body = _unseal(text, "page_token")
    if body[0] != _PAGE_VERSION or len(body) != 1 + _CHECK.size + length:
        raise InvalidField("page_token", "belongs to another call; pass the one from this call's last answer")
    if body[1 : 1 + _CHECK.size] != _CHECK.pack(crc32(question)):
        raise InvalidField("page_token", "belongs to another question; leave the other fields as they were")
    return body[1 + _CHECK.size :]
