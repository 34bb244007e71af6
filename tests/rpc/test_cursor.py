"""Cursors and page tokens: opaque, versioned, and bound to what they were issued for."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.domain.errors import InvalidField
from sessiond.domain.position import Position
from sessiond.domain.values import Revision
from sessiond.rpc.cursor import decode_cursor, decode_page, encode_cursor, encode_page

IDENTITY = bytes(range(16))
RUN = b"eight by"


def reseal(text: str, body: bytes) -> str:
    """Return a cursor with another body and a correct checksum."""
    assert text
    return urlsafe_b64encode(body + crc32(body).to_bytes(4, "big")).rstrip(b"=").decode()


def body_of(text: str) -> bytes:
    """Return the body of a cursor, without its checksum."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))[:-4]


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**63 - 1))
def test_a_cursor_comes_back(identity: bytes, position: int) -> None:
    """A cursor decodes to the position it was issued for."""
    assert decode_cursor(encode_cursor(identity, Position(RUN, Revision(position))), identity) == Position(
        RUN, Revision(position)
    )


def test_a_foreign_cursor() -> None:
    """A cursor of another authority is refused, however small the difference between the ids is."""
    with pytest.raises(InvalidField, match="another authority"):
        decode_cursor(encode_cursor(IDENTITY, Position(RUN, Revision(1))), IDENTITY[:-1] + b"\xff")


@pytest.mark.parametrize("version", [0, 1, 3, 255])
def test_a_cursor_of_another_format(version: int) -> None:
    """A cursor of another format is refused, and the message names both formats."""
    text = encode_cursor(IDENTITY, Position(RUN, Revision(1)))
    other = reseal(text, bytes([version]) + body_of(text)[1:])
    with pytest.raises(InvalidField, match=f"format {version}.*format 2"):
        decode_cursor(other, IDENTITY)


GOOD = encode_cursor(IDENTITY, Position(RUN, Revision(1)))


@pytest.mark.parametrize(
    "text", ["", "A", "AAAA", "AAAAAA==", "é", "\0", "A" * 10_000, GOOD + "=", GOOD[:-1], GOOD + "A", " " + GOOD]
)
def test_what_is_no_cursor(text: str) -> None:
    """Text that was never issued is refused, and so is a cursor that is cut short or encoded differently."""
    with pytest.raises(InvalidField) as refused:
        decode_cursor(text, IDENTITY)
    assert refused.value.field == "cursor"


@given(st.binary(max_size=100), st.binary(min_size=8, max_size=8))
def test_a_page_token_comes_back(question: bytes, position: bytes) -> None:
    """A page token decodes to the position it was issued for, but only for its own query."""
    token = encode_page(question, position)
    assert decode_page(token, question, 8) == position
    with pytest.raises(InvalidField, match="another query"):
        decode_page(token, question + b"?", 8)
    with pytest.raises(InvalidField, match="another call"):
        decode_page(token, question, 16)


def test_no_page_token() -> None:
    """Without a page token there is no position."""
    assert decode_page("", b"question", 8) is None


def test_a_cursor_is_no_page_token() -> None:
    """A cursor in the place of a page token is refused."""
    with pytest.raises(InvalidField) as refused:
        decode_page(encode_cursor(IDENTITY, Position(RUN, Revision(1))), b"question", 16)
    assert refused.value.field == "page_token"
