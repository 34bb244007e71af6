"""Companion tokens: a short-lived second token for sensitive pages, issued for one purpose.

A companion is bound to the session's secret, which no store holds. It is verified against the session token that is
presented with it, without a database query. Every roll of the session token invalidates it. An attacker who has only
the sealing key cannot create one.
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
    """The content of an opened companion token."""

    session_id: SessionId
    expires: Instant
    _purpose: bytes = field(repr=False)
    _binding: bytes = field(repr=False)

    def is_for(self, purpose: str) -> bool:
        """Return whether it was issued for `purpose`. The comparison takes constant time."""
        return hmac.compare_digest(self._purpose, _short(b"purpose", purpose.encode()))

    def belongs_to(self, opened: OpenedToken) -> bool:
        """Return whether it was issued for the session of `opened` since the token was last rolled."""
        return hmac.compare_digest(self._binding, opened.bind(b"companion")[:16])


def issue_companion(keys: KeyRing, opened: OpenedToken, purpose: str, expires: Instant) -> Token:
    """Return a new companion token for `purpose`, bound to the session and its secret."""
    plain = (
        opened.presented.session_id
        + _short(b"purpose", purpose.encode())
        + max(expires, 0).to_bytes(8, "big")
        + opened.bind(b"companion")[:16]
    )
    return keys.seal_bytes(plain, _PURPOSE)


def open_companion(keys: KeyRing, text: str) -> Companion | None:
    """Return the content of a presented companion token; None if this authority did not issue it."""
    try:
        plain = keys.open_bytes(text, _PURPOSE, _BYTES)
    except (TokenMalformed, TokenForged):
        return None
    return Companion(SessionId(plain[:16]), Instant(int.from_bytes(plain[32:40], "big")), plain[16:32], plain[40:])


def _short(label: bytes, value: bytes) -> bytes:
    return sha256(label + b"\0" + value).digest()[:16]
