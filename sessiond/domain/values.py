"""The basic value types of the domain."""

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
"""A duration in milliseconds."""

Revision = NewType("Revision", int)
"""The position of an event in the log: gapless, strictly increasing, commit-ordered. The first event has revision 1."""

NO_REVISION = Revision(0)
"""The revision of an empty log."""

Labels = tuple[tuple[str, str], ...]
"""Public key-value pairs of a session, sorted by key; each key occurs once."""

MAX_LABELS = 8
"""The maximum number of labels of a session, and in a query."""

Entropy = Callable[[int], bytes]
"""A source of randomness that returns the given number of bytes. In production the operating system's CSPRNG."""


class SessionId(bytes):
    """The public, stable identifier of a session: the 16 bytes of a UUIDv7 (RFC 9562). It is not a credential."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        """Create an id from 16 bytes. Raises ValueError for any other length."""
        if len(raw) != 16:
            raise ValueError("a session id has 16 bytes")
        return super().__new__(cls, raw)

    @classmethod
    def make(cls, now: Instant, entropy: Entropy) -> Self:
        """Return a new id: 48 bits of `now` and 74 random bits."""
        random = bytearray(entropy(10))
        random[0] = 0x70 | random[0] & 0x0F
        random[2] = 0x80 | random[2] & 0x3F
        return cls(max(now, 0).to_bytes(6, "big") + random)  # a clock set before 1970 must not make every login fail

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id that a canonical text denotes. Raises ValueError if `text` is not in canonical form."""
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
"""Smaller than the id of any session."""


@immutable
class ClientContext:
    """What the caller saw of the client. Empty fields are neither stored nor compared."""

    ip_address: str = ""
    user_agent: str = ""
    certificate_thumbprint: bytes = b""
    device_id: str = ""


NOBODY = ClientContext()
"""The empty client context: nothing is known of the client."""


@immutable
class Authentication:
    """How and when the subject was authenticated.

    `level` is 1 to 3 for NIST SP 800-63B-4 AAL1 to AAL3, or 0 if the application does not rank authentications.
    `methods` are RFC 8176 method references.
    """

    level: int
    methods: tuple[str, ...]
    at: Instant


@immutable
class Lifetimes:
    """A session's own timeouts in milliseconds: shorter than the policy's, never longer. None: the policy's apply."""

    idle: Millis | None = None
    absolute: Millis | None = None


POLICY_LIFETIMES = Lifetimes()
"""The lifetimes of a session without timeouts of its own."""


class CauseKind(StrEnum):
    """The kind of cause of an event or of a session's end."""

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
    """The cause of an event: its kind, who caused it, and the reason that they gave."""

    kind: CauseKind
    actor: str = "authority"
    reason: str = ""


@immutable
class VersionedData:
    """A session's data (all keys or some of them) and the version that was read together with it."""

    values: Mapping[str, bytes] = field(repr=False)
    version: int
