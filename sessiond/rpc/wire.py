"""Reading a message from bytes, and naming the field where that fails."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from sessiond.domain.errors import InvalidField

__all__ = ["parse"]

M = TypeVar("M", bound=Message)


def parse(message_type: type[M], raw: bytes) -> M:
    """The message. Raises `InvalidField` for bytes that are none, and names a string field that is not UTF-8."""
    try:
        return message_type.FromString(raw)
    except DecodeError:
        field = _not_utf8(message_type.DESCRIPTOR, raw) or "request"
        remedy = "is not a message of this call" if field == "request" else "must be valid UTF-8"
        raise InvalidField(field, remedy) from None


def _not_utf8(descriptor: Any, raw: bytes, prefix: str = "") -> str | None:
    """The path of the first string field that is not UTF-8; None where something else is wrong."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 2:
            length, at = _varint(raw, at)
            content = raw[at : at + length]
            at += length
            found = _look_into(descriptor.fields_by_number.get(number), content, prefix)
            if found is not None:
                return found
        elif wire_type == 0:
            _, at = _varint(raw, at)
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        else:
            return None
    return None


def _look_into(field: FieldDescriptor | None, content: bytes, prefix: str) -> str | None:
    if field is None:
        return None
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _not_utf8(field.message_type, content, f"{prefix}{field.name}.")
    if field.type == FieldDescriptor.TYPE_STRING:
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            return f"{prefix}{field.name}"
    return None


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(raw):
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    return value, at
