"""Base64url: every byte string has one encoding, and any other text is refused."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.crypto import base64url

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

# RFC 4648 section 10, without padding; and the characters in which base64url and base64 differ.
VECTORS = [
    (b"", ""),
    (b"f", "Zg"),
    (b"fo", "Zm8"),
    (b"foo", "Zm9v"),
    (b"foob", "Zm9vYg"),
    (b"fooba", "Zm9vYmE"),
    (b"foobar", "Zm9vYmFy"),
    (b"\xfb\xff\xfe", "-__-"),
    (b"\0", "AA"),
]


@pytest.mark.parametrize(("raw", "text"), VECTORS)
def test_the_vectors_of_the_standard(raw: bytes, text: str) -> None:
    """Encoding and decoding match the test vectors of RFC 4648, without padding."""
    assert base64url.encode(raw) == text
    assert base64url.decode(text) == raw


@given(st.binary(max_size=100))
def test_any_bytes_come_back(raw: bytes) -> None:
    """Decoding returns the bytes that were encoded, and the text is the standard library's without padding."""
    text = base64url.encode(raw)
    assert text == urlsafe_b64encode(raw).decode().rstrip("=")
    assert base64url.decode(text) == raw


@given(st.text(ALPHABET + "=+/ \n", max_size=12) | st.text(max_size=12))
def test_any_text_is_canonical_or_refused(text: str) -> None:
    """Any text is either the encoding of the bytes that it decodes to, or refused."""
    try:
        raw = base64url.decode(text)
    except ValueError:
        return
    assert base64url.encode(raw) == text


@pytest.mark.parametrize("raw", [b"f", b"fo", b"foob", b"fooba"])
def test_one_spelling_of_the_last_character(raw: bytes) -> None:
    """Of all last characters that decode to the same bytes, exactly one is accepted."""
    text = base64url.encode(raw)
    taken = []
    for last in ALPHABET:
        try:
            if base64url.decode(text[:-1] + last) == raw:
                taken.append(last)
        except ValueError:
            continue
    assert taken == [text[-1]]


@pytest.mark.parametrize(
    "text",
    [
        "Zg==",
        "Zm8=",
        "Zm9v=",
        "Zm9vYg==",
        "=",
        "====",
        "Z",
        "Zm9vY",
        "+__-",
        "-//-",
        "Zm 9v",
        "Zm9v\n",
        " Zm9v",
        "Zm\0v",
        "Zm9\u00e9",
        "Zm9\u0660",
        "Zm9\ud800",
    ],
)
def test_what_is_refused(text: str) -> None:
    """Padding, a lone character, characters of plain base64, white space and other text are refused."""
    with pytest.raises(ValueError, match="not base64url"):
        base64url.decode(text)


def test_the_refusal_shows_nothing() -> None:
    """The error and its cause do not show the refused text, which may be a secret."""
    secret = "A" * 40 + "!"
    with pytest.raises(ValueError, match="not base64url") as refused:
        base64url.decode(secret)
    assert "AAAA" not in str(refused.value)
    assert refused.value.__suppress_context__
