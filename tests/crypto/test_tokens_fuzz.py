"""Arbitrary text presented as a token: it is malformed or forged, and raises no other exception."""

from __future__ import annotations

import string
from base64 import urlsafe_b64decode, urlsafe_b64encode

from hypothesis import given
from hypothesis import strategies as st

from sessiond.crypto.tokens import KEY_BYTES, TOKEN_LENGTH, KeyRing, OpenedToken, TokenForged, TokenMalformed
from sessiond.domain.values import SessionId
from tests.support.fuzz import bounded, damaged_text

ALPHABET = string.ascii_letters + string.digits + "-_"
RING = KeyRing([bytes(range(KEY_BYTES)), bytes(KEY_BYTES)])
tokens = st.builds(
    lambda session, generation, secret: RING.seal(SessionId(session), generation, secret).reveal(),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=16, max_size=16),
)


def outcome(text: str) -> OpenedToken | type[Exception]:
    """Return the opened token, or the exception raised. Any other exception fails the test."""
    try:
        return RING.open(text)
    except (TokenMalformed, TokenForged) as refused:
        return type(refused)


def is_canonical(text: str) -> bool:
    """Return whether the standard library decodes the text and encodes the result to the same text."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return False
    return len(text) == TOKEN_LENGTH and urlsafe_b64encode(raw).decode().rstrip("=") == text


# Nearly the right length. The last character has unused bits, so most random texts are not canonical.
_lengths = st.sampled_from([TOKEN_LENGTH] * 8 + [0, 1, TOKEN_LENGTH - 2, TOKEN_LENGTH - 1, TOKEN_LENGTH + 1, 96])
_spelled = st.builds(lambda text, length: (text * 2)[:length], st.text(ALPHABET, min_size=96, max_size=96), _lengths)
_nearly = st.builds(
    lambda text, at, odd: text[:at] + odd + text[at + len(odd) :],
    _spelled,
    st.integers(0, TOKEN_LENGTH),
    st.sampled_from(["+", "/", "=", "==", " ", "\n", "\0", "é", "\uff21", "\ud800", ".", "%2B"]),
)
_any_of_the_length = st.text(st.characters(), min_size=TOKEN_LENGTH, max_size=TOKEN_LENGTH)
_sealed = st.binary(min_size=52, max_size=52).map(lambda raw: urlsafe_b64encode(raw).decode().rstrip("="))


@bounded(1000)
@given(
    st.text() | st.text(st.characters(), min_size=TOKEN_LENGTH, max_size=TOKEN_LENGTH) | _spelled | _nearly | _sealed
)
def test_any_text(text: str) -> None:
    """Text that was never issued is forged if it is canonical base64url by the library's rules, else malformed."""
    assert outcome(text) is (TokenForged if is_canonical(text) else TokenMalformed)


@bounded(500)
@given(st.data())
def test_a_damaged_token(data: st.DataObject) -> None:
    """A damaged token is forged or malformed by the same rule, and opens only if nothing has changed."""
    token = data.draw(tokens)
    text = data.draw(damaged_text(st.just(token), ALPHABET + "+/=\n"))
    if text == token:
        assert isinstance(outcome(text), OpenedToken)
    else:
        assert outcome(text) is (TokenForged if is_canonical(text) else TokenMalformed)


@bounded(3)
@given(tokens)
def test_every_change_of_one_character(token: str) -> None:
    """A token in which any character is changed to any other is forged or malformed."""
    for at in range(len(token)):
        for character in (ALPHABET + "+/=.").replace(token[at], ""):
            text = token[:at] + character + token[at + 1 :]
            assert outcome(text) is (TokenForged if is_canonical(text) else TokenMalformed)


@bounded(200)
@given(st.binary(max_size=80))
def test_other_purposes_and_lengths(plain: bytes) -> None:
    """Bytes sealed for another purpose never open as a session token, whatever their length."""
    text = RING.seal_bytes(plain, b"sessiond/another/v1").reveal()
    assert outcome(text) is (TokenForged if len(text) == TOKEN_LENGTH else TokenMalformed)
