"""Requests at their boundaries, generated from the contract: each field with each odd value, and what is no message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

__all__ = ["boundary_requests", "filled", "malformed_requests"]

_DEPTH = 3
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), -1, 0, 1, 1_001, 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 1_001, 2**31, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), -1, 0, 1, 253_402_300_800, 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2**53 + 1, 2**63, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-1, 0, 1, 99, 2**31 - 1),
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
}
_TEXTS = ("", "\0", "é" * 129, "\u202e", "../..", "x" * 64, "x" * 257, "x" * 5_000, "\U0001f600" * 30_000)
_BYTES = (b"", b"\0", b"\xff" * 31, b"x" * 32, b"x" * 33, b"x" * 70_000)
_MANY = 1_001
_UNKNOWN = 2**29 - 1


def filled(descriptor: Any, texts: Mapping[str, Sequence[str]], depth: int = _DEPTH) -> Message:
    """Return a request as a real caller makes it: each field has the first of its plausible texts, or is not set.

    Of a list of messages that have such texts there is one, with the first kind of each enum that is not the default.
    """
    message: Any = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.is_repeated:
            if field.message_type is not None and depth and (inner := filled(field.message_type, texts, 0)).ByteSize():
                for own in field.message_type.fields:
                    if own.enum_type is not None and not own.is_repeated:
                        setattr(inner, own.name, 1)
                if not field.message_type.GetOptions().map_entry:
                    getattr(message, field.name).append(inner)
            continue
        if field.type == FieldDescriptor.TYPE_STRING and field.name in texts:
            setattr(message, field.name, texts[field.name][0])
        elif field.message_type is not None and depth and not field.containing_oneof:
            inner = filled(field.message_type, texts, depth - 1)
            if inner.ByteSize():
                getattr(message, field.name).CopyFrom(inner)
    return message  # type: ignore[no-any-return]


def boundary_requests(descriptor: Any, base: Message) -> Iterator[tuple[str, bytes]]:
    """Yield `base` with one field set to an odd value, for each field at any depth and each value, with a label."""
    for path, change in _changes(descriptor, _DEPTH):
        changed = type(base)()
        changed.CopyFrom(base)
        change(changed)
        yield path, changed.SerializeToString()


def _changes(descriptor: Any, depth: int) -> Iterator[tuple[str, Any]]:
    for field in descriptor.fields:
        name = field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield f"{name}: many keys", lambda m, f=field: _fill_map(m, f)
            continue
        if field.message_type is not None:
            yield f"{name}: empty", lambda m, f=field: _inner(m, f).SetInParent()
            if field.is_repeated:
                yield f"{name}: many", lambda m, f=field: [_inner(m, f) for _ in range(_MANY)]
            for path, change in _changes(field.message_type, depth - 1) if depth else ():
                yield f"{name}.{path}", lambda m, f=field, c=change: c(_inner(m, f))
            continue
        for value in _values(field):
            shown = repr(value)[:20]
            if field.is_repeated:
                yield f"{name}: [{shown}]", lambda m, f=field, v=value: getattr(m, f.name).append(v)
                if len(shown) < 10:
                    yield f"{name}: many {shown}", lambda m, f=field, v=value: getattr(m, f.name).extend([v] * _MANY)
            else:
                yield f"{name}: {shown}", lambda m, f=field, v=value: setattr(m, f.name, v)


def _inner(message: Any, field: Any) -> Any:
    found = getattr(message, field.name)
    return found.add() if field.is_repeated else found


def _fill_map(message: Any, field: Any) -> None:
    found, value = getattr(message, field.name), field.message_type.fields_by_name["value"]
    for number in range(_MANY):
        key = "" if number == 0 else f"{'k' * 300}{number}"
        if value.message_type is not None:
            found[key].SetInParent()
        else:
            found[key] = _values(value)[-1] if number == 1 else _values(value)[0]


def _values(field: Any) -> Sequence[Any]:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return _TEXTS
        case FieldDescriptor.TYPE_BYTES:
            return _BYTES
    return _INTEGERS[field.cpp_type]


def malformed_requests(descriptor: Any, base: Message) -> Iterator[tuple[str, bytes]]:
    """Yield `base` with unknown fields, with each field in each wrong wire type, cut off, and with endless values."""
    raw = base.SerializeToString()
    for number in (_UNKNOWN, *descriptor.fields_by_number):
        for kind, content in enumerate(
            (b"\xff" * 9 + b"\x01", b"x" * 8, b"\x05\xff\xfe\xfd\0\x80", b"\x08\x01", b"", b"x" * 4)
        ):
            yield f"field {number} as wire type {kind}", raw + _varint(number << 3 | kind) + content
    yield "a varint without end", raw + b"\xff" * 100
    yield "a length beyond the end", raw + b"\x0a\xff\xff\xff\xff\x07"
    yield "field zero", raw + b"\0\0"
    yield "a million unknown fields", raw + (_varint(_UNKNOWN << 3) + b"\x01") * 100_000
    yield "groups in groups", raw + b"\xfb\x3f" * 1_000
    for length in range(0, len(raw), max(1, len(raw) // 20)):
        yield f"cut off after {length} bytes", raw[:length]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
