"""Tickets: the right to repeat one refused call with the subject's choice of what to end. Good once, soon over."""

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
    """What a ticket says: which one it is, until when, and (as a digest) for which call."""

    nonce: bytes = field(repr=False)
    expires: Instant
    scope: bytes = field(repr=False)

    @property
    def key(self) -> bytes:
        """What names it among the kept answers: 32 bytes."""
        return sha256(b"ticket\0" + self.nonce).digest()

    def is_for(self, scope: tuple[str, ...]) -> bool:
        """Whether it was given out for that call."""
        return hmac.compare_digest(self.scope, scope_digest(scope))


def issue_ticket(keys: KeyRing, ticket: Ticket) -> Token:
    """The ticket, sealed."""
    return keys.seal_bytes(ticket.nonce + max(ticket.expires, 0).to_bytes(8, "big") + ticket.scope, _PURPOSE)


def open_ticket(keys: KeyRing, token: Token) -> Ticket | None:
    """What a presented ticket says; None where it is none of ours."""
    try:
        plain = keys.open_bytes(token.reveal(), _PURPOSE, _BYTES)
    except (TokenMalformed, TokenForged):
        return None
    return Ticket(plain[:16], Instant(int.from_bytes(plain[16:24], "big")), plain[24:])


def scope_digest(scope: tuple[str, ...]) -> bytes:
    """The call that a ticket is for, as 32 bytes."""
    # Lengths first: no two scopes give the same bytes.
    return sha256(b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in scope)).digest()
