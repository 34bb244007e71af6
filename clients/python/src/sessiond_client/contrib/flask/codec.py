"""How values are stored: as Flask's own sessions write them."""

from __future__ import annotations

from typing import Any

from flask.json.tag import TaggedJSONSerializer

from sessiond_client.gateway import Codec

__all__ = ["TAGGED_JSON"]


class _TaggedJson:
    """Each value as Flask's own sessions write it: tuples, bytes, dates, UUIDs and `Markup` come back as they were."""

    def __init__(self) -> None:
        self._serializer = TaggedJSONSerializer()

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
