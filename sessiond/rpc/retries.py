"""Request ids: what makes two calls the same."""

from __future__ import annotations

import uuid
from hashlib import sha256
from typing import Any

from sessiond.authority.results import RequestId
from sessiond.crypto.tokens import mac
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField

__all__ = ["request_id_of"]


def request_id_of(call: Call, request: Any) -> RequestId | None:
    """A request's id; None if it has none. Raises `InvalidField`.

    Scoped to the caller and the application; the parameters are the request's other fields and its type. A request that
    is answered in another way than the first is another call.
    """
    if not request.request_id:
        return None
    secret = _secret(request.request_id)
    scope = f"{call.caller.name}\0{call.application}\0".encode()
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    if "client" in request.DESCRIPTOR.fields_by_name:
        bare.ClearField("client")  # where it comes from is not what it asks: phones change networks between two tries
    parameters = request.DESCRIPTOR.name.encode() + b"\0" + bare.SerializeToString(deterministic=True)
    return RequestId(
        key=sha256(b"sessiond/request/v1\0" + scope + secret).digest(),
        # Keyed: the fields may hold session data that is encrypted where it is kept.
        parameters=mac(secret, b"sessiond/parameters/v1\0" + parameters),
        secret=secret,
        keep_for=call.policy.answer_retention,
    )


def _secret(text: str) -> bytes:
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != text or parsed.version != 4:
        # Never the text itself: it opens the answer, and so a token.
        raise InvalidField("request_id", "must be a UUIDv4 in its canonical lower-case form, or empty")
    return parsed.bytes
