"""Base64url without padding (RFC 4648 section 5). Only the canonical encoding is accepted."""

from __future__ import annotations

import binascii

__all__ = ["decode", "encode"]

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# The characters that may come last, indexed by the number of bytes modulo three.
_LAST = (_ALPHABET, _ALPHABET[::16], _ALPHABET[::4])
_FROM_STANDARD = bytes.maketrans(b"+/", b"-_")
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def encode(raw: bytes) -> str:
    """Return the base64url text of `raw`, without padding."""
    return binascii.b2a_base64(raw, newline=False).translate(_FROM_STANDARD).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Return the bytes that `text` encodes. Raise ValueError for any text that `encode` would not have returned."""
    if not text.isascii():
        raise ValueError("not base64url")
    raw = text.encode("ascii")
    if b"+" in raw or b"/" in raw:
        raise ValueError("not base64url")
    try:
        found = binascii.a2b_base64(raw.translate(_TO_STANDARD) + b"=" * (-len(raw) % 4), strict_mode=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
    # The last character may carry unused bits. In the canonical encoding they are zero.
    if raw and raw[-1] not in _LAST[len(found) % 3]:
        raise ValueError("not base64url in canonical form")
    return found
