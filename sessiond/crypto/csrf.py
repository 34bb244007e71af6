"""CSRF tokens: derived from a session's secret, which no store holds. Every roll of the session changes them."""

from __future__ import annotations

import hmac

from sessiond.crypto import base64url
from sessiond.crypto.tokens import OpenedToken, Token, bind
from sessiond.domain.values import SessionId

__all__ = ["csrf_token", "csrf_token_matches", "csrf_token_of"]

_LABEL = b"csrf"


def csrf_token(opened: OpenedToken) -> Token:
    """Return the session's CSRF token: 43 characters, unchanged until the next roll."""
    return Token(base64url.encode(opened.bind(_LABEL)))


def csrf_token_of(session_id: SessionId, secret: bytes) -> Token:
    """Return the CSRF token of a session whose secret was just generated."""
    return Token(base64url.encode(bind(secret, session_id, _LABEL)))


def csrf_token_matches(opened: OpenedToken, text: str) -> bool:
    """Return whether `text` is the session's CSRF token. The comparison takes constant time."""
    return text.isascii() and hmac.compare_digest(csrf_token(opened).reveal(), text)
