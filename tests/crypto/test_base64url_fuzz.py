"""Base64url against the library: the same bytes, and one spelling of them."""

from __future__ import annotations

import itertools
import string
from base64 import urlsafe_b64decode, urlsafe_b64encode

from hypothesis import given
from hypothesis import strategies as st

from sessiond.crypto import base64url
from tests.support.fuzz import bounded, damaged_text

ALPHABET = string.ascii_letters + string.digits + "-_"
_TEXTS = st.binary(max_size=40).map(base64url.encode)


def outcome(text: str) -> bytes | None:
    """What a text says; None if it is refused."""
    try:
        return base64url.decode(text)
    except ValueError:
        return None


def expected(text: str) -> bytes | None:
    """The library's answer, if it spells what it has decoded in the same way."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return raw if urlsafe_b64encode(raw).decode().rstrip("=") == text else None


@bounded(200)
@given(st.binary(max_size=80))
def test_what_was_encoded_comes_back(raw: bytes) -> None:
    """Bytes come back from the text that the library gives for them without its padding."""
    text = base64url.encode(raw)
    assert text == urlsafe_b64encode(raw).decode().rstrip("=")
    assert base64url.decode(text) == raw


@bounded(1000)
@given(st.text(st.characters()) | st.text(ALPHABET, max_size=40) | _TEXTS | damaged_text(_TEXTS, ALPHABET + "+/=\n"))
def test_any_text(text: str) -> None:
    """Any text is decoded as the library does it, and refused if the library would spell it differently."""
    assert outcome(text) == expected(text)


def test_every_short_text() -> None:
    """Every text of up to four characters of those that matter is decoded or refused as the library has it."""
    for length in range(5):
        for characters in itertools.product("AQEgwz_-+/= \n", repeat=length):
            text = "".join(characters)
            assert outcome(text) == expected(text), text
