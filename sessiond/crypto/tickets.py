"""Tickets: permission to repeat a login that the session limit refused, with the subject's choice of sessions to end.

A ticket is short-lived and can be used once.
"""

from __future__ import annotations

import hmac
from dataclasses import field
from hashlib import sha256

from sessiond.crypto.tokens import KeyRing, Token, TokenForged, TokenMalformed
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant

__all__ = ["Ticket", "issue_ticket", "open_ticket", "scope_digest"]

_PURPOSE = b"sessiond/ticket/v1"
_BYTES = 16 + 8 + 32


@immutable
class Ticket:
    """The content of a ticket: a nonce that identifies it, its expiry, and a digest of the call that it is for."""

    nonce: bytes = field(repr=False)
    expires: Instant
    scope: bytes = field(repr=False)

    @property
    def key(self) -> bytes:
        """The key, 32 bytes, under which a used ticket is recorded among the kept answers."""
        return sha256(b"ticket\0" + self.nonce).digest()

    def is_for(self, scope: tuple[str, ...]) -> bool:
        """Return whether it was issued for the call described by `scope`. The comparison takes constant time."""
        return hmac.compare_digest(self.scope, scope_digest(scope))


def issue_ticket(keys: KeyRing, ticket: Ticket) -> Token:
    """Return the ticket as an encrypted token."""
    return keys.seal_bytes(ticket.nonce + max(ticket.expires, 0).to_bytes(8, "big") + ticket.scope, _PURPOSE)


def open_ticket(keys: KeyRing, token: Token) -> Ticket | None:
    """Return the content of a presented ticket; None if this authority did not issue it."""
    try:
        plain = keys.open_bytes(token.reveal(), _PURPOSE, _BYTES)
    except (TokenMalformed, TokenForged):
        return None
    return Ticket(plain[:16], Instant(int.from_bytes(plain[16:24], "big")), plain[24:])


def scope_digest(scope: tuple[str, ...]) -> bytes:
    """Return a digest, 32 bytes, of the call that a ticket is for."""
    # Each part is preceded by its length, so that two different scopes never produce the same input.
    return sha256(b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in scope)).digest()
