"""Parsing a message from bytes, and finding the invalid field if parsing fails."""

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
# The longest varints that a parser accepts. Without a limit, reading one takes time quadratic in its length.
_VALUE_BYTES = 10
_KEY_BYTES = 5
_MAX_KEY = 2**32 - 1
# A limit on the work for one malformed message. A batch of a thousand questions has far fewer fields.
_MAX_FIELDS = 20_000


class _NoFieldToName(Exception):
    """No field can be named: the bytes are malformed apart from their strings, or they have too many fields."""


def parse(message_type: type[M], raw: bytes) -> M:
    """Return the message that `raw` encodes. Raise `InvalidField` if it is malformed.

    The exception names the first string field that is not valid UTF-8, or `request` if the bytes are malformed in
    another way. The time is linear in the length of `raw` for every input. Only the first 20,000 fields are searched
    for the field to name.
    """
    try:
        return message_type.FromString(raw)
    except DecodeError:
        field = _blamed(message_type.DESCRIPTOR, raw)
        remedy = "cannot be parsed as the message of this call" if field == "request" else "must be valid UTF-8"
        raise InvalidField(field, remedy) from None


def _blamed(descriptor: Any, raw: bytes) -> str:
    try:
        return _Search(raw).first(descriptor, 0, len(raw)) or "request"
    except _NoFieldToName:
        return "request"


class _Search:
    """Searches the bytes of a message for a string that is not valid UTF-8."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._fields_left = _MAX_FIELDS

    def first(self, descriptor: Any, at: int, end: int, prefix: str = "") -> str | None:
        """Return the path of the first such string between two offsets, such as `requests[3].token`; None if none is.

        Raise `_NoFieldToName` if the bytes before it are malformed or contain a group.
        """
        counts: dict[int, int] = {}
        while at < end:
            self._fields_left -= 1
            key, at = self._varint(at, end, _KEY_BYTES)
            number, wire_type = key >> 3, key & 7
            if not number or key > _MAX_KEY or self._fields_left < 0:
                raise _NoFieldToName
            if wire_type == _LENGTH_DELIMITED:
                length, start = self._varint(at, end, _KEY_BYTES)
                at = start + length
                if at > end:
                    raise _NoFieldToName
                count = counts[number] = counts.get(number, -1) + 1
                found = self._in_field(descriptor.fields_by_number.get(number), count, start, at, prefix)
                if found is not None:
                    return found
            elif wire_type == _VARINT:
                _, at = self._varint(at, end, _VALUE_BYTES)
            elif wire_type in _FIXED_BYTES:
                at += _FIXED_BYTES[wire_type]
            else:
                raise _NoFieldToName
        if at > end:
            raise _NoFieldToName
        return None

    def _in_field(self, field: Any, count: int, start: int, end: int, prefix: str) -> str | None:
        if field is None:
            return None
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            is_list = field.is_repeated and not field.message_type.GetOptions().map_entry
            name = f"{field.name}[{count}]" if is_list else field.name
            return self.first(field.message_type, start, end, f"{prefix}{name}.")
        if field.type == FieldDescriptor.TYPE_STRING:
            try:
                self._raw[start:end].decode("utf-8")
            except UnicodeDecodeError:
                return f"{prefix}{field.name}"
        return None

    def _varint(self, at: int, end: int, most: int) -> tuple[int, int]:
        """Return the varint of at most `most` bytes at offset `at`, and the offset after it. Raise `_NoFieldToName`."""
        value = 0
        for shift in range(most):
            if at >= end:
                break
            byte = self._raw[at]
            value |= (byte & 0x7F) << 7 * shift
            at += 1
            if byte < 0x80:
                return value, at
        raise _NoFieldToName
