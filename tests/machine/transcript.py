"""Responses as bytes, as a real caller gets them, and decoded again: equal bytes are equal responses."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any

from sessiond.authority.results import AnswerSpec, EncodedAnswer, RequestId
from sessiond.changes.idempotency import KEEP_FOR
from sessiond.crypto.tokens import Token

__all__ = ["Transcript"]


class Transcript:
    """The responses to all changes so far."""

    def __init__(self) -> None:
        self._answers: dict[bytes, Any] = {}
        self._ids = 0

    def fresh_id(self) -> RequestId:
        """Return a new request id."""
        self._ids += 1
        secret = hashlib.sha256(self._ids.to_bytes(8, "big")).digest()
        return RequestId(hashlib.sha256(secret).digest(), bytes(32), secret, KEEP_FOR)

    def reply(self, request: RequestId | None) -> AnswerSpec[Any]:
        """Return how a change is to be answered."""
        return AnswerSpec(self._encode, request)

    def answer(self, given: Any) -> Any:
        """Return a result, decoded from the bytes of its message if it is a stored one."""
        return self._answers[given.message] if isinstance(given, EncodedAnswer) else given

    def _encode(self, answer: Any) -> bytes:
        message = f"{answer!r} {_secrets(answer)}".encode()
        self._answers[message] = answer
        return message


def _secrets(value: Any) -> list[str]:
    """Return the tokens in a result, which its repr does not show."""
    if isinstance(value, Token):
        return [value.reveal()]
    if is_dataclass(value):
        return [secret for field in fields(value) for secret in _secrets(getattr(value, field.name))]
    return []
