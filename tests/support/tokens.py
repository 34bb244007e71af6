"""Consistency tokens, read and made: for tests that must know which revision an answer speaks of."""

from __future__ import annotations

from binascii import crc32
from typing import Any

from sessiond.crypto import base64url

__all__ = ["at_revision", "revision_in"]

_CHECK_BYTES = 4


def revision_in(answer: Any) -> int:
    """The revision of an answer's consistency token."""
    body = base64url.decode(answer.consistency_token)[:-_CHECK_BYTES]
    return int.from_bytes(body[-8:], "big")


def at_revision(token: str, revision: int) -> str:
    """The consistency token (or cursor) of another revision of the same log, undamaged to the eye."""
    body = base64url.decode(token)[: -_CHECK_BYTES - 8] + revision.to_bytes(8, "big")
    return base64url.encode(body + crc32(body).to_bytes(_CHECK_BYTES, "big"))
