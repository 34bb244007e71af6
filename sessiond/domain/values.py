"""The small values that everything else is made of."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any, NewType, Self

from sessiond.domain.immutable import immutable

__all__ = [
    "FIRST_ID",
    "MAX_LABELS",
    "NOBODY",
    "NO_REVISION",
    "POLICY_LIFETIMES",
    "Authentication",
    "Cause",
    "CauseKind",
    "ClientContext",
    "Entropy",
    "Instant",
    "Labels",
    "Lifetimes",
    "Millis",
    "Revision",
    "SessionId",
    "VersionedData",
]

Instant = NewType("Instant", int)
"""A point of wall time: milliseconds since the Unix epoch, UTC."""

Millis = NewType("Millis", int)
"""A length of time in milliseconds."""

Revision = NewType("Revision", int)
"""The position of an event in the log: gapless, strictly increasing, commit-ordered. The first event has 1."""

NO_REVISION = Revision(0)
"""Before the first event."""

Labels = tuple[tuple[str, str], ...]
"""Public key-value pairs of a session, sorted by key; no key comes twice."""

MAX_LABELS = 8
"""How many labels a session may have, and a question may name."""

Entropy = Callable[[int], bytes]
"""A source of randomness: gives that many bytes. In production the operating system's CSPRNG."""


class SessionId(bytes):
    """The public, stable name of a session: the 16 bytes of a UUIDv7 (RFC 9562). It proves nothing."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        """The id of these 16 bytes. Raises ValueError for any other number of them."""
        if len(raw) != 16:
            raise ValueError("a session id has 16 bytes")
        return super().__new__(cls, raw)

    @classmethod
    def make(cls, now: Instant, entropy: Entropy) -> Self:
        """A new id: 48 bits of `now`, 74 random bits."""
        random = bytearray(entropy(10))
        random[0] = 0x70 | random[0] & 0x0F
        random[2] = 0x80 | random[2] & 0x3F
        return cls(max(now, 0).to_bytes(6, "big") + random)  # a clock that stands before 1970 must not fail every login

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id from its canonical text. Raises ValueError where `text` is not exactly that."""
        parsed = uuid.UUID(text)
        if str(parsed) != text:
            raise ValueError("not the canonical form of a UUID")
        return cls(parsed.bytes)

    def __str__(self) -> str:
        text = self.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def __repr__(self) -> str:
        return f"<SessionId {self}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (SessionId, (bytes(self),))


FIRST_ID = SessionId(bytes(16))
"""Less than any session's."""


@immutable
class ClientContext:
    """What the caller saw of the client. Empty fields are neither stored nor compared."""

    ip_address: str = ""
    user_agent: str = ""
    certificate_thumbprint: bytes = b""
    device_id: str = ""


NOBODY = ClientContext()
"""The context of a call that tells nothing of a client."""


@immutable
class Authentication:
    """How and when the subject was authenticated.

    `level` is 1 to 3 as NIST SP 800-63B-4 AAL1 to AAL3, or 0 where the application does not rank.
    `methods` are RFC 8176 method references.
    """

    level: int
    methods: tuple[str, ...]
    at: Instant


@immutable
class Lifetimes:
    """A session's own timeouts, which may be shorter than the policy's and never longer. None: the policy's."""

    idle: Millis | None = None
    absolute: Millis | None = None


POLICY_LIFETIMES = Lifetimes()
"""No timeouts of the session's own."""


class CauseKind(StrEnum):
    """Why something happened."""

    REQUEST = "request"
    RENEWAL = "renewal"
    IDLE_TIMEOUT = "idle_timeout"
    ABSOLUTE_TIMEOUT = "absolute_timeout"
    LOGIN_TIMEOUT = "login_timeout"
    CONCURRENCY_LIMIT = "concurrency_limit"
    SIGNAL = "signal"
    CONFIGURATION = "configuration"


@immutable
class Cause:
    """Who did it, and why in their words."""

    kind: CauseKind
    actor: str = "authority"
    reason: str = ""


@immutable
class VersionedData:
    """A session's data, or some keys of it, and its version, read together."""

    values: Mapping[str, bytes] = field(repr=False)
    version: int
