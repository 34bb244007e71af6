"""Base64url without padding (RFC 4648 section 5), in its one canonical spelling."""

from __future__ import annotations

import binascii

__all__ = ["decode", "encode"]

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# By the number of bytes past a multiple of three: which characters can come last.
_LAST = (_ALPHABET, _ALPHABET[::16], _ALPHABET[::4])
_FROM_STANDARD = bytes.maketrans(b"+/", b"-_")
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def encode(raw: bytes) -> str:
    """The text of these bytes."""
    return binascii.b2a_base64(raw, newline=False).translate(_FROM_STANDARD).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """The bytes of a text. Raises ValueError for anything but what `encode` gives for them."""
    if not text.isascii():
        raise ValueError("not base64url")
    raw = text.encode("ascii")
    if b"+" in raw or b"/" in raw:
        raise ValueError("not base64url")
    try:
        found = binascii.a2b_base64(raw.translate(_TO_STANDARD) + b"=" * (-len(raw) % 4), strict_mode=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
    # The last character may have bits to spare: only one spelling of them is canonical.
    if raw and raw[-1] not in _LAST[len(found) % 3]:
        raise ValueError("not base64url in its canonical form")
    return found
