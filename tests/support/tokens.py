"""Consistency tokens, decoded and created, for tests that must know the revision in a response."""

from __future__ import annotations

from binascii import crc32
from typing import Any

from sessiond.crypto import base64url

__all__ = ["at_revision", "revision_in"]

_CHECK_BYTES = 4


def revision_in(answer: Any) -> int:
    """Return the revision in a response's consistency token."""
    body = base64url.decode(answer.consistency_token)[:-_CHECK_BYTES]
    return int.from_bytes(body[-8:], "big")


def at_revision(token: str, revision: int) -> str:
    """Return the consistency token or cursor of another revision of the same log, with a correct checksum."""
    body = base64url.decode(token)[: -_CHECK_BYTES - 8] + revision.to_bytes(8, "big")
    return base64url.encode(body + crc32(body).to_bytes(_CHECK_BYTES, "big"))
