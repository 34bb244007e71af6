"""How values are stored: as Flask's own sessions write them."""

from __future__ import annotations

import json
from typing import Any

from flask.json.tag import TaggedJSONSerializer

from sessiond_client.gateway import Codec

__all__ = ["TAGGED_JSON"]

_PLAIN = frozenset({str, int, float, bool, type(None)})
_ENCODER = json.JSONEncoder(separators=(",", ":"))


class _Serializer(TaggedJSONSerializer):
    """Flask's serializer, with short ways for what most sessions hold: values that JSON has itself."""

    __slots__ = ()

    def tag(self, value: Any) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is list:
            return [self.tag(item) for item in value]
        return super().tag(value)

    def dumps(self, value: Any) -> str:
        tagged = self.tag(value)
        try:
            return _ENCODER.encode(tagged)
        except TypeError:
            return super().dumps(value)  # by the application's JSON provider, which may know more types

    def loads(self, value: str) -> Any:
        found = json.loads(value)
        return self._untag_scan(found) if '" ' in value else found  # each tag begins with a space


class _TaggedJson:
    """Each value as Flask's own sessions write it: tuples, bytes, dates, UUIDs and `Markup` come back as they were."""

    def __init__(self) -> None:
        self._serializer = _Serializer()

    def encode(self, key: str, value: Any) -> bytes:
        try:
            return self._serializer.dumps(value).encode()
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"session[{key!r}] cannot be stored: {error}") from None

    def decode(self, key: str, data: bytes) -> Any:
        try:
            return self._serializer.loads(data.decode())
        except (TypeError, AttributeError, LookupError) as error:
            raise ValueError(f"session[{key!r}] was not written by Flask") from error


TAGGED_JSON: Codec = _TaggedJson()
"""Tuples, bytes, dates, UUIDs and `Markup` come back as they were."""
