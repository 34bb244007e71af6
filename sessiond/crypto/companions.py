"""Companion tokens: a second token for sensitive pages, for one purpose and a short time.

Bound to the session's secret, which no store holds: a companion is verified together with the session token and
against it, without a read, and every roll makes it worthless. A stolen key alone cannot make one.
"""

from __future__ import annotations

import hmac
from dataclasses import field
from hashlib import sha256

from sessiond.crypto.tokens import KeyRing, OpenedToken, Token, TokenForged, TokenMalformed
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant, SessionId

__all__ = ["Companion", "issue_companion", "open_companion"]

_PURPOSE = b"sessiond/companion/v1"
_BYTES = 16 + 16 + 8 + 16


@immutable
class Companion:
    """What an opened companion token says."""

    session_id: SessionId
    expires: Instant
    _purpose: bytes = field(repr=False)
    _binding: bytes = field(repr=False)

    def is_for(self, purpose: str) -> bool:
        """Whether it was issued for that purpose."""
        return hmac.compare_digest(self._purpose, _short(b"purpose", purpose.encode()))

    def belongs_to(self, opened: OpenedToken) -> bool:
        """Whether it was issued to the holder of that token, since the last roll."""
        return hmac.compare_digest(self._binding, opened.bind(b"companion")[:16])


def issue_companion(keys: KeyRing, opened: OpenedToken, purpose: str, expires: Instant) -> Token:
    """A companion token for one purpose, bound to the session and its secret."""
    plain = (
        opened.presented.session_id
        + _short(b"purpose", purpose.encode())
        + max(expires, 0).to_bytes(8, "big")
        + opened.bind(b"companion")[:16]
    )
    return keys.seal_bytes(plain, _PURPOSE)


def open_companion(keys: KeyRing, text: str) -> Companion | None:
    """What a presented companion token says; None where it is none of ours."""
    try:
        plain = keys.open_bytes(text, _PURPOSE, _BYTES)
    except (TokenMalformed, TokenForged):
        return None
    return Companion(SessionId(plain[:16]), Instant(int.from_bytes(plain[32:40], "big")), plain[16:32], plain[40:])


def _short(label: bytes, value: bytes) -> bytes:
    return sha256(label + b"\0" + value).digest()[:16]
