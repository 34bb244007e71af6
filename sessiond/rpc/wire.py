"""Parsing a message from bytes, and finding the field to blame if that fails."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from sessiond.domain.errors import InvalidField

__all__ = ["parse"]

M = TypeVar("M", bound=Message)
# Wire types (https://protobuf.dev/programming-guides/encoding). Groups, 3 and 4, do not occur in proto3.
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
# The longest varints that a parser accepts. Without a bound, reading one takes time quadratic in its length.
_VALUE_BYTES = 10
_KEY_BYTES = 5
_MAX_KEY = 2**32 - 1


class _Malformed(Exception):
    """The bytes are not a message, whatever its strings are."""


def parse(message_type: type[M], raw: bytes) -> M:
    """The message. Raises `InvalidField` if the bytes are not one, and names a string field that is not UTF-8.

    Takes time linear in the length of `raw`, whatever it holds.
    """
    try:
        return message_type.FromString(raw)
    except DecodeError:
        field = _blamed(message_type.DESCRIPTOR, raw)
        remedy = "is not a message of this call" if field == "request" else "must be valid UTF-8"
        raise InvalidField(field, remedy) from None


def _blamed(descriptor: Any, raw: bytes) -> str:
    try:
        return _not_utf8(descriptor, raw, 0, len(raw), "") or "request"
    except _Malformed:
        return "request"


def _not_utf8(descriptor: Any, raw: bytes, at: int, end: int, prefix: str) -> str | None:
    """The path of the first string field in `raw[at:end]` that is not UTF-8, such as `requests[3].token`, or None.

    Raises `_Malformed` if something else is wrong before that field, or if a group is.
    """
    counts: dict[int, int] = {}
    while at < end:
        key, at = _varint(raw, at, end, _KEY_BYTES)
        number, wire_type = key >> 3, key & 7
        if not number or key > _MAX_KEY:
            raise _Malformed
        if wire_type == _LENGTH_DELIMITED:
            length, start = _varint(raw, at, end, _KEY_BYTES)
            at = start + length
            if at > end:
                raise _Malformed
            count = counts[number] = counts.get(number, -1) + 1
            found = _look_into(descriptor.fields_by_number.get(number), count, raw, start, at, prefix)
            if found is not None:
                return found
        elif wire_type == _VARINT:
            _, at = _varint(raw, at, end, _VALUE_BYTES)
        elif wire_type in _FIXED_BYTES:
            at += _FIXED_BYTES[wire_type]
        else:
            raise _Malformed
    if at > end:
        raise _Malformed
    return None


def _look_into(field: Any, count: int, raw: bytes, start: int, end: int, prefix: str) -> str | None:
    if field is None:
        return None
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        is_list = field.is_repeated and not field.message_type.GetOptions().map_entry
        name = f"{field.name}[{count}]" if is_list else field.name
        return _not_utf8(field.message_type, raw, start, end, f"{prefix}{name}.")
    if field.type == FieldDescriptor.TYPE_STRING:
        try:
            raw[start:end].decode("utf-8")
        except UnicodeDecodeError:
            return f"{prefix}{field.name}"
    return None


def _varint(raw: bytes, at: int, end: int, most: int) -> tuple[int, int]:
    """The varint of at most `most` bytes at `at`, and where it ends. Raises `_Malformed`."""
    value = 0
    for shift in range(most):
        if at >= end:
            break
        byte = raw[at]
        value |= (byte & 0x7F) << 7 * shift
        at += 1
        if byte < 0x80:
            return value, at
    raise _Malformed
