"""How values are stored: by Django's `SESSION_SERIALIZER`, each value on its own."""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.serializers import JSONSerializer

from sessiond_client.gateway import JSON, Codec

__all__ = ["codec_of"]


class _BySerializer:
    def __init__(self, serializer: Any) -> None:
        self._serializer = serializer

    def encode(self, key: str, value: Any) -> bytes:
        try:
            data: bytes = self._serializer.dumps(value)
        except Exception as error:
            error.add_note(f"This value cannot be stored: request.session[{key!r}].")
            raise
        return data

    def decode(self, key: str, data: bytes) -> Any:
        try:
            return self._serializer.loads(data)
        except Exception as error:  # noqa: BLE001 - a serializer of the application may raise anything
            raise ValueError(f"request.session[{key!r}] was not written by SESSION_SERIALIZER: {error}") from None


def codec_of(serializer: type[Any]) -> Codec:
    """The codec for a class with `dumps` and `loads`, as the setting `SESSION_SERIALIZER` names it.

    Django's default is JSON in ASCII. The gateway's JSON reads that, and what other frameworks write.
    """
    return JSON if serializer is JSONSerializer else _BySerializer(serializer())
