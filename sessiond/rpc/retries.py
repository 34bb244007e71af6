"""Safe retries at the edge: what makes two calls the same, and how a first answer is kept without being readable.

The answer may hold a token, and no store may give one away. It is sealed under a key that only the call's id gives, of
which the store has a digest; the authority seals it once more under its own. A stolen database and a stolen key
together open nothing.
"""

from __future__ import annotations

import hmac
import uuid
from collections.abc import Callable
from hashlib import sha256, sha512
from typing import Any, TypeVar

from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from google.protobuf.message import Message

from sessiond.authority.results import Repeat
from sessiond.changes import Call, Repeated
from sessiond.domain.errors import InvalidField

__all__ = ["repeat_of", "repeated_answer"]

M = TypeVar("M", bound=Message)


def repeat_of(call: Call, request: Any, encode: Callable[[Any], Message]) -> Repeat:
    """What makes a request with a `request_id` safe to repeat. Raises `InvalidField`.

    Scoped to the caller and the application; the parameters are the request's other fields and its type. A request that
    is answered in another way than the first is another call.
    """
    secret = _secret(request.request_id)
    scope = f"{call.actor}\0{call.application}\0".encode()
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    if "client" in request.DESCRIPTOR.fields_by_name:
        bare.ClearField("client")  # where it comes from is not what it asks: phones change networks between two tries
    parameters = request.DESCRIPTOR.name.encode() + b"\0" + bare.SerializeToString(deterministic=True)
    return Repeat(
        key=sha256(b"sessiond/request/v1\0" + scope + secret).digest(),
        # Keyed: the fields may hold session data that is encrypted where it is kept.
        parameters=hmac.digest(secret, b"sessiond/parameters/v1\0" + parameters, "sha256"),
        seal=lambda result: _cipher(secret).encrypt(encode(result).SerializeToString(), None),
    )


def repeated_answer(request: Any, repeated: Repeated, answer: type[M]) -> M:
    """The first answer, opened with the request's own id."""
    message = answer()
    message.ParseFromString(_cipher(_secret(request.request_id)).decrypt(repeated.sealed, None))
    return message


def _secret(text: str) -> bytes:
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != text or parsed.version != 4:
        # Never the text itself: it opens the answer, and so a token.
        raise InvalidField("request_id", "must be a UUIDv4 in its canonical lower-case form, or empty")
    return parsed.bytes


def _cipher(secret: bytes) -> AESSIV:
    return AESSIV(sha512(b"sessiond/answer/v1\0" + secret).digest())
