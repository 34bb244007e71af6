"""Base64url compared with the standard library: the same bytes, and only one encoding of them."""

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
    """Return what a text decodes to; None if it is refused."""
    try:
        return base64url.decode(text)
    except ValueError:
        return None


def expected(text: str) -> bytes | None:
    """Return the standard library's result; None if the text is not its own encoding of that result."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return raw if urlsafe_b64encode(raw).decode().rstrip("=") == text else None


@bounded(200)
@given(st.binary(max_size=80))
def test_what_was_encoded_comes_back(raw: bytes) -> None:
    """Decoding the standard library's encoding without its padding returns the original bytes."""
    text = base64url.encode(raw)
    assert text == urlsafe_b64encode(raw).decode().rstrip("=")
    assert base64url.decode(text) == raw


@bounded(1000)
@given(st.text(st.characters()) | st.text(ALPHABET, max_size=40) | _TEXTS | damaged_text(_TEXTS, ALPHABET + "+/=\n"))
def test_any_text(text: str) -> None:
    """Any text decodes as in the standard library, or is refused if the library would encode the result differently."""
    assert outcome(text) == expected(text)


def test_every_short_text() -> None:
    """Every text of up to four relevant characters is decoded or refused in agreement with the library."""
    for length in range(5):
        for characters in itertools.product("AQEgwz_-+/= \n", repeat=length):
            text = "".join(characters)
            assert outcome(text) == expected(text), text
