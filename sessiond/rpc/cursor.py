"""Cursors and page tokens: opaque, versioned positions that callers keep for us. None is a secret."""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import crc32

from sessiond.domain.errors import InvalidField
from sessiond.domain.values import Revision

__all__ = ["decode_cursor", "decode_page", "decode_revision_page", "encode_cursor", "encode_page"]

_CURSOR_VERSION = 1
_PAGE_VERSION = 1
_CURSOR = struct.Struct(">B16sQ")
_MAX_REVISION = 2**63 - 1
_CHECK = struct.Struct(">I")


def _seal(body: bytes) -> str:
    return urlsafe_b64encode(body + _CHECK.pack(crc32(body))).rstrip(b"=").decode()


def _unseal(text: str, field: str) -> bytes:
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        raw = b""
    body, check = raw[: -_CHECK.size], raw[-_CHECK.size :]
    if not body or len(check) != _CHECK.size or _CHECK.unpack(check)[0] != crc32(body) or _seal(body) != text:
        raise InvalidField(field, "is damaged or was never given out; use one exactly as an answer gave it")
    return body


def encode_cursor(authority_id: bytes, position: Revision) -> str:
    """The cursor that resumes exactly after `position` of this authority's log."""
    return _seal(_CURSOR.pack(_CURSOR_VERSION, authority_id, position))


def decode_cursor(text: str, authority_id: bytes) -> Revision:
    """The position. Raises `InvalidField` for a damaged cursor, one of a newer format, or of another authority."""
    body = _unseal(text, "cursor")
    if body[0] != _CURSOR_VERSION or len(body) != _CURSOR.size:
        raise InvalidField("cursor", f"has format {body[0]}, this authority knows format {_CURSOR_VERSION}")
    _, identity, position = _CURSOR.unpack(body)
    if identity != authority_id:
        raise InvalidField("cursor", "is another authority's; begin anew with start = EARLIEST or NOW")
    return Revision(position)


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
        raise InvalidField("page_token", "was never given out; use one exactly as an answer gave it")
    return Revision(revision)


def decode_page(text: str, question: bytes, length: int) -> bytes | None:
    """The position, of that many bytes; None for no token.

    Raises `InvalidField` where it is damaged or belongs to another question.
    """
    if not text:
        return None
    body = _unseal(text, "page_token")
    if body[0] != _PAGE_VERSION or len(body) != 1 + _CHECK.size + length:
        raise InvalidField("page_token", "is of another kind; use one exactly as this call's last answer gave it")
    if body[1 : 1 + _CHECK.size] != _CHECK.pack(crc32(question)):
        raise InvalidField("page_token", "belongs to another question; leave the other fields as they were")
    return body[1 + _CHECK.size :]
