"""Arbitrary text as cursor, consistency token or page token is never mistaken for an issued one."""

from __future__ import annotations

import string
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.domain.errors import InvalidField
from sessiond.domain.position import INCARNATION_BYTES, Position
from sessiond.domain.values import Revision
from sessiond.rpc.cursor import (
    decode_consistency_token,
    decode_cursor,
    decode_page,
    decode_revision_page,
    encode_consistency_token,
    encode_cursor,
    encode_page,
)
from tests.support.fuzz import bounded, damaged_text

ALPHABET = string.ascii_letters + string.digits + "-_"
IDENTITY = bytes(range(16))
QUESTION = b"sessions of the shop"
REFUSED = object()


@dataclass(frozen=True)
class Kind:
    """One kind of opaque text: how it is encoded and decoded, and the positions that it can hold."""

    field: str
    positions: st.SearchStrategy[Any]
    encode: Callable[[Any], str]
    decode: Callable[[str], Any]

    @property
    def texts(self) -> st.SearchStrategy[str]:
        """Texts that the authority may issue."""
        return self.positions.map(self.encode)

    def outcome(self, text: str) -> Any:
        """Return the position, or REFUSED."""
        try:
            return self.decode(text)
        except InvalidField as refused:
            # The words of the refusal do not matter here, only the field.
            return REFUSED if refused.field == self.field else refused


_REVISIONS = st.integers(0, 2**63 - 1).map(Revision)
_POSITIONS = st.builds(Position, st.binary(min_size=INCARNATION_BYTES, max_size=INCARNATION_BYTES), _REVISIONS)
KINDS = {
    "cursor": Kind(
        "cursor", _POSITIONS, lambda at: encode_cursor(IDENTITY, at), lambda text: decode_cursor(text, IDENTITY)
    ),
    "consistency token": Kind(
        "at_least",
        _POSITIONS,
        lambda at: encode_consistency_token(IDENTITY, at),
        lambda text: decode_consistency_token(text, IDENTITY),
    ),
    "page of sessions": Kind(
        "page_token",
        st.binary(min_size=16, max_size=16),
        lambda at: encode_page(QUESTION, at),
        lambda text: decode_page(text, QUESTION, 16),
    ),
    "page of revisions": Kind(
        "page_token",
        _REVISIONS,
        lambda at: encode_page(QUESTION, at.to_bytes(8, "big")),
        lambda text: decode_revision_page(text, QUESTION),
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@kinds
def test_what_was_never_given_out(kind: Kind) -> None:
    """Any text that was not issued is refused with its field's name."""
    raw = st.binary(max_size=60).map(lambda some: urlsafe_b64encode(some).decode().rstrip("="))

    @bounded(200)
    @given(
        st.text(min_size=1) | st.text(st.characters(), min_size=1) | st.text(ALPHABET, min_size=1, max_size=80) | raw
    )
    def check(text: str) -> None:
        if text:
            assert kind.outcome(text) is REFUSED

    check()


@kinds
def test_damage_is_noticed(kind: Kind) -> None:
    """A damaged text is refused or decodes to its original position, and never to another one."""

    @bounded(200)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        position = data.draw(kind.positions)
        original = kind.encode(position)
        text = data.draw(damaged_text(st.just(original), ALPHABET + "=+/\n "))
        if text == original:
            assert kind.outcome(text) == position
        elif text:
            assert kind.outcome(text) is REFUSED

    check()


@kinds
def test_every_change_of_one_byte(kind: Kind) -> None:
    """A text in which any byte is changed to any other is refused."""

    @bounded(8)
    @given(kind.texts, st.integers(1, 255))
    def check(original: str, difference: int) -> None:
        raw = urlsafe_b64decode(original + "=" * (-len(original) % 4))
        for at in range(len(raw)):
            changed = raw[:at] + bytes([raw[at] ^ difference]) + raw[at + 1 :]
            assert kind.outcome(urlsafe_b64encode(changed).decode().rstrip("=")) is REFUSED

    check()


@kinds
def test_every_change_of_one_character(kind: Kind) -> None:
    """A text in which any character is changed to any other is refused, even if base64 ignores the change."""

    @bounded(3)
    @given(kind.texts)
    def check(original: str) -> None:
        for at in range(len(original)):
            for character in (ALPHABET + "+/=.").replace(original[at], ""):
                assert kind.outcome(original[:at] + character + original[at + 1 :]) is REFUSED

    check()


@kinds
def test_one_kind_is_not_read_as_another(kind: Kind) -> None:
    """A text of one kind is refused in the place of every other kind, but a cursor serves as a consistency token."""

    @bounded(30)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        for other in KINDS.values():
            if other is not kind:
                serves = kind is KINDS["consistency token"] and other is KINDS["cursor"]
                assert (kind.outcome(data.draw(other.texts)) is REFUSED) is not serves

    check()
