"""The search through protobuf bytes compared with the library's own parser, for every request of the contract."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, message_factory, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from sessiond.domain.errors import InvalidField
from sessiond.rpc.wire import parse
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.fuzz import bounded, damaged_bytes

METHODS = pb.DESCRIPTOR.services_by_name["SessionAuthority"].methods
REQUESTS = [pytest.param(message_factory.GetMessageClass(m.input_type), id=m.input_type.name) for m in METHODS]
WHOLE = "request"  # the field that is named if the bytes are not a message at all
NOT_UTF8 = [b"\xff", b"ab\xc3", b"\xc3(", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"a\0\xe2\x82"]
HUGE = 600_000


def varint(value: int, length: int = 1) -> bytes:
    """Return a varint of that many bytes, or of more if the value needs them."""
    out = bytearray()
    while value > 0x7F or len(out) + 1 < length:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


VALUES = st.builds(varint, st.integers(0, 3) | st.integers(0, 2**64 - 1), st.sampled_from([1, 1, 1, 10]))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


def delimited(number: int, content: bytes) -> bytes:
    """Return a field that is preceded by its length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


@dataclass(frozen=True)
class Wire:
    """Bytes, and the path of the field that their refusal must name; None if they are a valid message.

    `element` is the name of the list that the bytes are an element of, if any.
    """

    raw: bytes
    blamed: str | None = None
    element: str = ""


# Each is invalid anywhere: unknown wire types, a varint and a key that never end, a length
# beyond the end, and the end of a group that was not begun.
BROKEN = [
    b"\x0e",
    b"\x0f",
    b"\xf8\x3f" + b"\xff" * 11,
    b"\xff" * 6,
    b"\xfa\x3f\xff\xff\xff\xff\x07",
    b"\xfc\x3f",
]


@cache
def unknown_fields(descriptor: Any) -> st.SearchStrategy[Wire]:
    """Fields that the contract does not have, which no parser inspects."""
    numbers = st.integers(1, 2**29 - 1).filter(lambda number: number not in descriptor.fields_by_number)
    contents = st.binary(max_size=6) | st.sampled_from(NOT_UTF8)
    return st.one_of(
        st.builds(lambda n, value: varint(n << 3) + value, numbers, VALUES),
        st.builds(lambda n, eight: varint(n << 3 | 1) + eight, numbers, st.binary(min_size=8, max_size=8)),
        st.builds(delimited, numbers, contents),
        st.builds(lambda n, four: varint(n << 3 | 5) + four, numbers, st.binary(min_size=4, max_size=4)),
    ).map(Wire)


@cache
def fields(descriptor: Any, flawed: bool) -> st.SearchStrategy[Wire]:
    """One field of that message, or an unknown one; sometimes with a flaw."""
    found = [unknown_fields(descriptor)]
    if flawed:
        found.append(st.sampled_from(BROKEN).map(lambda raw: Wire(raw, WHOLE)))
    return st.one_of(found + [known_field(field, flawed) for field in descriptor.fields])


def known_field(field: FieldDescriptor, flawed: bool) -> st.SearchStrategy[Wire]:
    """That field, with any content of its type."""
    number, name = field.number, field.name

    def outer(inner: Wire) -> Wire:
        blamed, raw = inner.blamed, delimited(number, inner.raw)
        if is_list(field):
            return Wire(raw, blamed, name)
        return Wire(raw, f"{name}.{blamed}" if blamed not in (None, WHOLE) else blamed)

    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return messages(field.message_type, flawed).map(outer)
        case FieldDescriptor.TYPE_STRING:
            good = TEXTS.map(lambda text: Wire(delimited(number, text.encode())))
            bad = st.sampled_from(NOT_UTF8).map(lambda raw: Wire(delimited(number, raw), name))
            return good | good | bad if flawed else good
        case FieldDescriptor.TYPE_BYTES:
            return (st.binary(max_size=6) | st.sampled_from(NOT_UTF8)).map(lambda raw: Wire(delimited(number, raw)))
        case _:
            return VALUES.map(lambda value: Wire(varint(number << 3) + value))


@cache
def messages(descriptor: Any, flawed: bool = True) -> st.SearchStrategy[Wire]:
    """A serialized message with any number of fields in any order; the field of the first flaw must be named."""
    return st.lists(fields(descriptor, flawed), max_size=5).map(
        lambda parts: Wire(b"".join(part.raw for part in parts), first_blamed(parts))
    )


def first_blamed(parts: list[Wire]) -> str | None:
    """Return the field that must be named for a message of these parts."""
    for number, part in enumerate(parts):
        if part.blamed is not None:
            count = sum(before.element == part.element for before in parts[:number])
            return f"{part.element}[{count}].{part.blamed}" if part.element and part.blamed != WHOLE else part.blamed
    return None


def is_list(field: Any) -> bool:
    """Return whether a field is a list of messages, which have numbers in a path, and not a map."""
    return bool(field.is_repeated) and not field.message_type.GetOptions().map_entry


def answer(message_type: type[Message], raw: bytes) -> Message | str:
    """Return the message, or the field that is named."""
    try:
        return parse(message_type, raw)
    except InvalidField as refused:
        return refused.field


@cache
def _bytes_for_strings(full_name: str) -> type[Message]:
    """Return the same message with `bytes` instead of every `string`, so that any string content is parsed."""
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)

    def change(message: Any) -> None:
        message.options.ClearField("map_entry")  # the key of a map cannot be bytes; on the wire a map is a list anyway
        for field in message.field:
            if field.type == FieldDescriptor.TYPE_STRING:
                field.type = FieldDescriptor.TYPE_BYTES
        for nested in message.nested_type:
            change(nested)

    for message in file.message_type:
        change(message)
    pool = DescriptorPool()
    for dependency in (any_pb2, duration_pb2, timestamp_pb2):
        pool.AddSerializedFile(dependency.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(full_name))


def first_that_is_not_utf8(message: Any, like: Any, prefix: str = "") -> str | None:
    """Return the first string, by field number, that is not UTF-8, according to the contract."""
    for field, value in message.ListFields():
        known = like.fields_by_number[field.number]
        for number, one in enumerate(value if hasattr(value, "append") else [value]):
            if known.type == FieldDescriptor.TYPE_MESSAGE:
                name = f"{known.name}[{number}]" if is_list(known) else known.name
                found = first_that_is_not_utf8(one, known.message_type, f"{prefix}{name}.")
                if found is not None:
                    return found
            elif known.type == FieldDescriptor.TYPE_STRING:
                try:
                    one.decode()
                except UnicodeDecodeError:
                    return f"{prefix}{known.name}"
    return None


def field_at(descriptor: Any, path: str) -> Any:
    """Return the field with that path. Raise KeyError if there is none."""
    *outer, last = re.sub(r"\[\d+\]", "", path).split(".")
    for name in outer:
        descriptor = descriptor.fields_by_name[name].message_type
    return descriptor.fields_by_name[last]


@pytest.mark.parametrize("message_type", REQUESTS)
def test_the_first_flaw_is_blamed(message_type: type[Message]) -> None:
    """A message with flaws in known places is refused for the first of them; one without flaws is parsed."""

    @bounded()
    @given(messages(message_type.DESCRIPTOR))
    def check(wire: Wire) -> None:
        expected = wire.blamed or message_type.FromString(wire.raw)
        assert answer(message_type, wire.raw) == expected

    check()


@pytest.mark.parametrize("message_type", REQUESTS)
def test_damaged_messages(message_type: type[Message]) -> None:
    """Damaged and arbitrary bytes are refused exactly if the library refuses them, and only string fields are named."""
    valid = messages(message_type.DESCRIPTOR, flawed=False).map(lambda wire: wire.raw)

    @bounded()
    @given(damaged_bytes(valid) | st.binary(max_size=40))
    def check(raw: bytes) -> None:
        try:
            expected = message_type.FromString(raw)
        except DecodeError:
            blamed = answer(message_type, raw)
            assert isinstance(blamed, str)
            assert blamed == WHOLE or field_at(message_type.DESCRIPTOR, blamed).type == FieldDescriptor.TYPE_STRING
        else:
            assert answer(message_type, raw) == expected

    check()


@pytest.mark.parametrize("message_type", REQUESTS)
def test_bytes_in_place_of_strings(message_type: type[Message]) -> None:
    """A message that is malformed only in its strings is refused for the first string that is not UTF-8."""
    lenient = _bytes_for_strings(message_type.DESCRIPTOR.full_name)
    wires = messages(message_type.DESCRIPTOR).map(lambda wire: wire.raw)

    @bounded()
    @given(wires | damaged_bytes(wires))
    def check(raw: bytes) -> None:
        try:
            known: Any = lenient.FromString(raw)
        except DecodeError:
            return
        known.DiscardUnknownFields()
        blamed = first_that_is_not_utf8(known, message_type.DESCRIPTOR)
        written = known.SerializeToString(deterministic=True)
        assert answer(message_type, written) == (blamed or message_type.FromString(written))

    check()


def test_a_group_is_not_looked_behind() -> None:
    """After a group, which proto3 does not have, parsing is unaffected, but no field is named."""
    group = b"\xfb\x3f\xfc\x3f"
    assert answer(pb.GetSessionRequest, group) == pb.GetSessionRequest.FromString(group)
    assert answer(pb.GetSessionRequest, b"\x0a\x01\xff" + group) == "application"
    assert answer(pb.GetSessionRequest, group + b"\x0a\x01\xff") == WHOLE


class Visited(bytes):
    """Bytes that count how many of them are read."""

    visits = 0

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        self.visits += len(found) if isinstance(found, bytes) else 1
        return found


NESTED = delimited(1, delimited(6, delimited(4, b"\x0a\x03abc")))
LAST_IS_NOT_UTF8 = b"\x0a\x01\xff"
FLOODS = {
    "varints that never end": b"\xff" * HUGE,
    "a value that never ends": b"\x20" + b"\xff" * HUGE,
    "a length that never ends": b"\x0a" + b"\xff" * HUGE,
    "padded values": b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" * (HUGE // 11) + LAST_IS_NOT_UTF8,
    "fields of no length": b"\x0a\0" * (HUGE // 2) + LAST_IS_NOT_UTF8,
    "unknown fields": b"\xfa\x3f\x01a" * (HUGE // 4) + LAST_IS_NOT_UTF8,
    "one long string": delimited(1, b"a" * HUGE + b"\xff"),
    "messages within messages": NESTED * (HUGE // len(NESTED)) + LAST_IS_NOT_UTF8,
    "groups": b"\xfb\x3f" * (HUGE // 2),
}
MOST_FIELDS = 20_000


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
@pytest.mark.parametrize("message_type", [pb.ValidateSessionRequest, pb.ValidateSessionsRequest])
def test_each_byte_is_looked_at_once(message_type: type[Message], flood: bytes) -> None:
    """The search for the field to name reads each byte at most once, however large and odd the message is."""
    raw = Visited(flood)
    assert isinstance(answer(message_type, raw), str)
    assert raw.visits <= len(raw)


@pytest.mark.parametrize("flood", [b"\xff", b"\x20\xff", b"\x0a\xff"], ids=["key", "value", "length"])
def test_a_varint_is_ten_bytes_at_most(flood: bytes) -> None:
    """A varint is read up to its tenth byte only; computing a longer value would take quadratic time."""
    raw = Visited(flood + b"\xff" * HUGE)
    assert answer(pb.ValidateSessionRequest, raw) == WHOLE
    assert raw.visits <= len(flood) + 10


def test_a_bounded_number_of_fields_is_looked_at() -> None:
    """Only the first 20,000 fields are searched for the field to name; a message of 4 MB can have two million."""
    batch = delimited(1, b"\x0a\0" * 9) * (MOST_FIELDS // 10 - 1)
    assert answer(pb.ValidateSessionsRequest, batch + delimited(1, LAST_IS_NOT_UTF8)) == "requests[1999].application"
    raw = Visited(batch * 100 + delimited(1, LAST_IS_NOT_UTF8))
    assert answer(pb.ValidateSessionsRequest, raw) == WHOLE
    assert raw.visits <= 3 * MOST_FIELDS
