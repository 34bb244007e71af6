"""Request ids: how a retry of a call is recognized."""

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
    """Return a request's id; None if it has none. Raise `InvalidField` if it is not a canonical UUIDv4.

    The id is scoped to the caller and the application. Its `parameters` are a digest of the request's type and of its
    other fields except `client`. A request with the same id but other parameters is not a retry and is refused.
    """
    if not request.request_id:
        return None
    secret = _secret(request.request_id)
    scope = f"{call.caller.name}\0{call.application}\0".encode()
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    if "client" in request.DESCRIPTOR.fields_by_name:
        bare.ClearField("client")  # a phone may change networks between two attempts
    parameters = request.DESCRIPTOR.name.encode() + b"\0" + bare.SerializeToString(deterministic=True)
    return RequestId(
        key=sha256(b"sessiond/request/v1\0" + scope + secret).digest(),
        # A keyed digest: the fields may contain session data, which may be encrypted in the store.
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
        # The message must not show the text: a request id is the secret that opens the stored response and its token.
        raise InvalidField("request_id", "must be a UUIDv4 in canonical lower-case form, or empty")
    return parsed.bytes
