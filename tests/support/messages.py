"""Arbitrary messages of a type, generated from its descriptor, so that new fields and types are included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

__all__ = ["Drawn", "messages", "names_a_field"]

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
# Limits of counts, levels, times in seconds since 1970 and durations in seconds are near some of these.
_SPECIAL_INTEGERS = [0, 1, 2, 3, 4, 60, 1000, 1001, 999_999_999, 1_000_000_000, 1_800_000_000, 253_402_300_800, 2**53]
_ODD_TEXTS = ["\0", "a\0b", "é", "\U0001f600", "\u202e", " ", "\n", "a b", "../..", "%00", "-1", "0"]
_LONG_TEXTS = ["x" * 64, "x" * 65, "x" * 256, "x" * 257, "é" * 1025, "x" * 70_000, "\U0001f600" * 3000]
_TEXTS = (
    st.sampled_from(_ODD_TEXTS)
    | st.sampled_from(_LONG_TEXTS)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
_BYTES = st.sampled_from([b"", b"\0", b"\xff" * 32, b"x" * 31, b"x" * 70_000]) | st.binary(max_size=40)
_MANY = 1001  # one more than any list of the contract may have


@dataclass(frozen=True)
class Drawn:
    """A message that shows only its beginning when a test fails."""

    message: Message

    def __repr__(self) -> str:
        text = str(self.message)
        return text if len(text) < 2000 else f"{text[:2000]}... ({len(text)} characters)"


@st.composite
def messages(draw: st.DrawFn, descriptor: Any, texts: Mapping[str, Sequence[str]]) -> Message:
    """A message of that type with any field values; in most messages, most values are those of a real caller.

    `texts` has plausible texts by field name; under the empty name, those for all other fields.
    """
    present, odd = draw(st.sampled_from([20, 50, 90])), draw(st.sampled_from([0, 2, 10, 50]))
    return _Maker(draw, texts, present, odd).message(descriptor)


class _Maker:
    """Generates one message. Of a hundred fields about `present` are set; of a hundred values about `odd` are odd."""

    def __init__(self, draw: st.DrawFn, texts: Mapping[str, Sequence[str]], present: int, odd: int) -> None:
        self._draw = draw
        self._texts = texts
        self._present = present
        self._odd = odd

    def message(self, descriptor: Any) -> Message:
        message: Any = message_factory.GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if self._happens(self._present):
                self._set(message, field)
        return message  # type: ignore[no-any-return]

    def _set(self, message: Any, field: Any) -> None:
        if not field.is_repeated:
            value = self._value(field)
            if field.message_type is None:
                setattr(message, field.name, value)
            else:
                getattr(message, field.name).SetInParent()
                getattr(message, field.name).CopyFrom(value)
            return
        values = [self._value(field) for _ in range(self._draw(st.integers(0, 3)))]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for entry in values:
                getattr(message, field.name)[entry.key] = entry.value
        else:
            is_long = self._happens(self._odd) and values and len(str(values[0])) < 100
            getattr(message, field.name).extend(values[:1] * _MANY if is_long else values)

    def _happens(self, percent: int) -> bool:
        return self._draw(st.integers(0, 99)) < percent

    def _value(self, field: Any) -> Any:
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            return self.message(field.message_type)
        return self._draw(_any_value(field) if self._happens(self._odd) else self._ordinary_value(field))

    def _ordinary_value(self, field: Any) -> st.SearchStrategy[Any]:
        match field.type:
            case FieldDescriptor.TYPE_STRING:
                return st.sampled_from(self._texts.get(field.name, self._texts[""]))
            case FieldDescriptor.TYPE_BYTES:
                return st.sampled_from([b"", b"\x01" * 32])
            case FieldDescriptor.TYPE_ENUM:
                return st.sampled_from([value.number for value in field.enum_type.values])
            case FieldDescriptor.TYPE_BOOL:
                return st.booleans()
            case _:
                return st.integers(0, 3)


def _any_value(field: Any) -> st.SearchStrategy[Any]:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return _TEXTS
        case FieldDescriptor.TYPE_BYTES:
            return _BYTES
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
    least, most = _INTEGERS[field.cpp_type]
    special = [one for one in (*_SPECIAL_INTEGERS, -1, least, most) if least <= one <= most]
    return st.sampled_from(special) | st.integers(least, most)


def names_a_field(descriptor: Any, path: str) -> bool:
    """Return whether a path such as `requests[3].client.ip_address` names a field of that message type."""
    for name in path.split("."):
        bare, bracket, index = name.partition("[")
        field = None if descriptor is None else descriptor.fields_by_name.get(bare)
        if field is None or (bracket and not (field.is_repeated and index[:-1].isdecimal() and index[-1] == "]")):
            return False
        descriptor = field.message_type
    return True
