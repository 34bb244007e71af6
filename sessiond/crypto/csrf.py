"""CSRF tokens: derived from a session's secret, which no store holds. Every roll of the session changes them.

After a step-up the store holds the SHA-256 of the previous one, with which it can be compared but not computed.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from sessiond.crypto import base64url
from sessiond.crypto.tokens import OpenedToken, Token, bind
from sessiond.domain.values import SessionId

__all__ = ["csrf_digest", "csrf_token", "csrf_token_matches", "csrf_token_of"]

_LABEL = b"csrf"
_NO_DIGEST = bytes(32)


def csrf_token(opened: OpenedToken) -> Token:
    """Return the session's CSRF token: 43 characters, unchanged until the next roll."""
    return Token(base64url.encode(opened.bind(_LABEL)))


def csrf_token_of(session_id: SessionId, secret: bytes) -> Token:
    """Return the CSRF token of a session whose secret was just generated."""
    return Token(base64url.encode(bind(secret, session_id, _LABEL)))


def csrf_digest(token: Token) -> bytes:
    """Return the SHA-256 of a CSRF token's text. The token is 256 bits from a keyed hash, so it needs no salt."""
    return _digest(token.reveal())


def csrf_token_matches(opened: OpenedToken, text: str, earlier: bytes | None = None) -> bool:
    """Return whether `text` is the session's CSRF token, or the one whose `csrf_digest` is `earlier`.

    Both comparisons are always made, each in constant time, so the time does not depend on which of them succeeds.
    """
    if not text.isascii():
        return False
    current = hmac.compare_digest(csrf_token(opened).reveal(), text)
    remembered = hmac.compare_digest(_digest(text), earlier or _NO_DIGEST)
    return current or (remembered and earlier is not None)


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
